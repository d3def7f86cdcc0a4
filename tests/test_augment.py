"""Augmentation: invariants of each change, determinism, and a network that keeps the changes out of its samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import awake, example
from torch import Tensor

import jensen
from jensen.data.augment import Augmentation, Crop, Flip, Gain, Jitter, Shift
from jensen.data.augment_options import AugmentOptions
from jensen.data.load import load_data
from jensen.data.options import ReadOptions
from jensen.data.preparation import Dequantise, Levels, Preparation, Standardise
from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.nets import PatchTransformer, ResidualMLP, UNet
from jensen.randomness import Noise, Stream, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.fit import validation_bound
from jensen.training.gradient import optimise
from jensen.training.loop import Batches, learning_rate
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState

EVERYTHING = AugmentOptions(flip="all", shift=0.25, crop=0.3, jitter=0.3)
BYTES = Levels(dtype="uint8", levels=256, dimensions=1)
SCALED = Standardise(
    dtype="float64", dimensions=1, resolution=1e-9, shift=(0.0,), scale=(1.0,), minimum=-9.0, maximum=9.0
)
LIMITS = (0.0, 255.0)
DTYPES = [torch.uint8, torch.uint16, torch.float32, torch.float64]


def pictures(dtype: torch.dtype = torch.uint8, shape: tuple[int, ...] = (3, 6, 7), count: int = 5) -> Tensor:
    return torch.randint(0, 256, (count, *shape), generator=generator(0)).to(dtype)


def noise(count: int, seed: int = 0) -> Noise:
    return Noise(generator(seed), slice(0, count), count)


def of(options: AugmentOptions, shape: tuple[int, ...], preparation: Preparation = BYTES) -> Augmentation:
    return Augmentation.of(options, shape, preparation)


# ---------------------------------------------------------------------------------------------- operations


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "operation", [Flip(-1), Flip(-2), Shift((2, 3)), Crop(0.5, LIMITS), Jitter(0.5, LIMITS), Gain(0.5, LIMITS)]
)
def test_zero_parameters_leave_examples_as_they_are(operation, dtype: torch.dtype):
    raw = pictures(dtype)
    assert torch.equal(operation(raw, torch.zeros(5, operation.numbers)), raw)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [-1, -2])
def test_a_flip_is_its_own_inverse_and_mirrors_the_chosen_examples_only(dtype: torch.dtype, axis: int):
    raw, chosen = pictures(dtype), torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])[:, None]
    flipped = Flip(axis)(raw, chosen)
    assert torch.equal(Flip(axis)(flipped, chosen), raw)
    assert np.array_equal(flipped[0].numpy(), np.flip(raw[0].numpy(), axis))
    assert torch.equal(flipped[1], raw[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "most"), [((3, 6, 7), (3, 2)), ((2, 9), (4,)), ((1, 5, 4, 6), (2, 2, 3))])
def test_a_shift_is_a_window_into_numpy_s_mirrored_padding(
    dtype: torch.dtype, shape: tuple[int, ...], most: tuple[int, ...]
):
    raw, operation = pictures(dtype, shape), Shift(most)
    parameters = operation.parameters(torch.rand(5, len(most), generator=generator(1)))
    shifted = operation(raw, parameters)
    pixels = (parameters * torch.tensor(most)).round().long()
    assert len(pixels.unique()) > 2
    for row in range(5):
        padded = np.pad(raw[row].numpy(), [(0, 0), *((m, m) for m in most)], mode="reflect")
        starts = [m - int(p) for m, p in zip(most, pixels[row], strict=True)]
        window = [slice(start, start + side) for start, side in zip(starts, shape[1:], strict=True)]
        assert np.array_equal(shifted[row].numpy(), padded[:, *window])


def test_every_whole_shift_is_equally_frequent():
    """10,000 draws of 5 shifts: 5 sd = 200; false alarm below 3e-6 by the normal law."""
    drawn = Shift((2,)).parameters(torch.rand(10_000, 1, generator=generator(2)))
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert (counts - 2000).abs().max() < 200


def test_a_crop_of_a_ramp_is_a_flatter_ramp():
    """Bilinear interpolation keeps linear functions: pixel c shows (c - centre) (1 - cut) + centre + offset."""
    side, ramp = 16, torch.arange(16, dtype=torch.float64).expand(1, 1, 16, 16)
    parameters = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64)  # cut 0.25 of the sides, a little to the right
    centre, cut = (side - 1) / 2, 0.25
    expected = (torch.arange(16) - centre) * (1 - cut) + centre + 0.5 * cut * side / 2
    found = Crop(0.5, (-torch.inf, torch.inf))(ramp, parameters)
    torch.testing.assert_close(found[0, 0, 7], expected.double())
    down = Crop(0.5, (-torch.inf, torch.inf))(ramp.mT, parameters[:, [0, 2, 1]])
    torch.testing.assert_close(down[0, 0, :, 7], expected.double())


def test_jitter_by_its_formulas():
    grey = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    jitter = Jitter(0.5, LIMITS)
    brighter = jitter(grey, torch.tensor([[0.4, 0.9, -0.9]]))  # contrast and saturation do nothing to one grey
    assert (brighter == round(100 + 0.5 * 0.4 * 255)).all()
    raw = pictures(torch.float64)[:1] / 4 + 64
    flatter = jitter(raw, torch.tensor([[0.0, -0.6, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(flatter, raw.mean() + 0.7 * (raw - raw.mean()))
    without_colour = Jitter(1.0, LIMITS)(raw, torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64))
    luma = torch.einsum("c,nchw->nhw", torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64), raw)
    torch.testing.assert_close(without_colour, luma[:, None].expand_as(raw))


def test_jitter_leaves_the_alpha_channel_alone():
    raw = pictures(shape=(4, 5, 5))
    changed = Jitter(0.9, LIMITS)(raw, torch.ones(5, 3))
    assert torch.equal(changed[:, 3], raw[:, 3])
    assert not torch.equal(changed[:, :3], raw[:, :3])


def test_gain_scales_deviations_and_keeps_means_and_missing_values():
    raw = torch.randn(4, 2, 50, dtype=torch.float64, generator=generator(0)) + 1000
    raw[0, 1, 3] = torch.nan
    gain = torch.tensor([[1.0], [-1.0], [0.0], [0.5]], dtype=torch.float64)
    changed = Gain(0.2, (-torch.inf, torch.inf))(raw, gain)
    assert torch.equal(changed.isnan(), raw.isnan())
    mean = raw.nanmean(-1, keepdim=True)
    torch.testing.assert_close(changed.nanmean(-1, keepdim=True), mean)
    torch.testing.assert_close(changed - mean, (1 + 0.2 * gain[:, :, None]) * (raw - mean), equal_nan=True)


# ---------------------------------------------------------------------------------------------- all together


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_values_stay_on_the_grid_of_levels(levels: int):
    raw = torch.randint(0, levels, (40, 3, 8, 8), generator=generator(0)).to(torch.uint8)
    preparation = Levels(dtype="uint8", levels=levels, dimensions=192)
    changed, told = of(EVERYTHING, (3, 8, 8), preparation)(raw, noise(40))
    assert changed.dtype == torch.uint8
    assert changed.max() <= levels - 1
    assert ((changed != raw).flatten(1).any(1) <= (told != 0).any(1)).all()
    x = preparation(changed)
    grid = torch.linspace(-1, 1, levels)
    assert ((x[..., None] - grid).abs().amin(-1) < 1e-6).all()


def test_the_told_parameters_say_all_about_the_change():
    raw = pictures(count=60)
    augmentation = of(EVERYTHING, (3, 6, 7))
    changed, told = augmentation(raw, noise(60))
    assert told.shape == (60, augmentation.numbers)
    assert told.abs().max() <= 1
    parts = told.split([operation.numbers for operation in augmentation.operations], dim=1)
    again = raw
    for operation, part in zip(augmentation.operations, parts, strict=True):
        again = operation(again, part)
    assert torch.equal(again, changed)
    unchanged = (told == 0).all(1)
    assert 0 < unchanged.sum() < 60
    assert torch.equal(changed[unchanged], raw[unchanged])


def test_each_kind_of_change_has_its_probability():
    """4,000 examples at 0.3: 5 sd = 145; false alarm of both together below 2e-6."""
    options = AugmentOptions(flip="horizontal", jitter=0.2, probability=0.3)
    _, told = of(options, (1, 4, 4))(pictures(shape=(1, 4, 4), count=4000), noise(4000))
    for part in (told[:, :1], told[:, 1:]):
        assert abs(int((part != 0).any(1).sum()) - 1200) < 145


@pytest.mark.parametrize(
    ("shape", "preparation", "numbers"),
    [
        ((3, 6, 7), BYTES, 2 + 2 + 3 + 3),
        ((1, 1, 7), BYTES, 1 + 2 + 3 + 3),  # one row: no vertical flip
        ((2, 9), SCALED, 1 + 1 + 1),
        ((1, 5, 4, 6), SCALED, 3 + 3 + 1),
        ((3, 6, 7), SCALED, 2 + 2 + 3),  # no jitter of floats
        ((40,), SCALED, 0),
    ],
)
def test_the_shape_decides_which_changes_there_are(shape: tuple[int, ...], preparation: Preparation, numbers: int):
    options = EVERYTHING.model_copy(update={"gain": 0.3})
    assert of(options, shape, preparation).numbers == numbers


def test_a_batch_is_a_pure_function_of_seed_and_step_and_its_parts_are_its_rows():
    data = load_data("digits")
    augmentation = of(AugmentOptions(flip="all", shift=0.2, jitter=0.2), (1, 8, 8))
    whole = Batches(data.train, data.spec.preparation, 12, 3, augmentation)
    assert isinstance(data.spec.preparation, Dequantise)  # whose noise must not depend on the augmentation
    first, again, other = whole(7), whole(7), whole(8)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.augmentation, again.augmentation)
    assert not torch.equal(first.augmentation, other.augmentation)
    for rows in (slice(0, 5), slice(5, 12)):
        part = replace(whole, rows=rows)(7)
        assert torch.equal(part.x, first.x[rows])
        assert torch.equal(part.augmentation, first.augmentation[rows])
        assert torch.equal(first[rows].augmentation, first.augmentation[rows])
    plain = replace(whole, augmentation=None)(7)
    unchanged = (first.augmentation == 0).all(1)
    assert torch.equal(plain.index, first.index)
    assert torch.equal(plain.x[unchanged], first.x[unchanged])


# ---------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(UNet, {"widths": (8, 16)}), (PatchTransformer, {"width": 32, "depth": 2}), (ResidualMLP, {})],
)
def test_every_network_sees_the_augmentation_of_each_example(kind: type, settings: dict[str, object]):
    shape = (1, 8, 8)
    network, (x, level) = awake(kind(shape, classes=3, augmentations=4, **settings)), example(shape)
    labels, told = torch.tensor([0, 2, 1]), torch.rand(3, 4, dtype=torch.float64)
    changed = network(x, level, labels, told)
    alone = torch.cat([network(x[i : i + 1], level[i : i + 1], labels[i : i + 1], told[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(changed, alone)
    as_they_are = network(x, level, labels)
    assert torch.equal(network(x, level, labels, torch.zeros_like(told)), as_they_are)
    assert ((changed - as_they_are).flatten(1).abs().amax(1) > 1e-6).all()
    with pytest.raises(InputError, match="got augmentations of 3 numbers, but the network was made for 4"):
        network(x, level, labels, told[:, :3])
    with pytest.raises(InputError, match="the network was made for 0"):
        kind(shape, **settings)(x.float(), level.float(), None, told.float())


def marked(count: int) -> np.ndarray:
    """Dark noise with a bright mark at one of six heights of the left side."""
    source = np.random.default_rng(0)
    x = source.integers(0, 40, (count, 8, 8)).astype(np.uint8)
    for picture, row in zip(x, source.integers(0, 6, count), strict=True):
        picture[row : row + 3, 1:3] = 255
    return x


def trained(settings: DiffusionSettings, told: bool, steps: int, **further: object) -> DiffusionModel:
    """A model trained on marked pictures of which half are flipped; `told`: with the condition on the flip."""
    flip = AugmentOptions(flip="horizontal")
    training = DiffusionTraining(steps=steps, warmup_steps=20, ema_decay=None, augment=flip, **further)
    recipe = DiffusionRecipe(data=marked(400), model=settings, training=training)
    dataset = load_dataset(recipe)
    model = build_model(recipe, dataset.spec)
    state = TrainingState.start(model, training)
    flips = of(flip, (1, 8, 8), dataset.spec.preparation)
    read = Batches(dataset.train, dataset.spec.preparation, training.batch_size, 0, flips)
    for step in range(steps):
        batch = read(step) if told else replace(read(step), augmentation=None)
        loss = model.loss(batch, step=step, noise=Noise(generator(0, Stream.TRAINING, step)))
        loss.value.backward()
        optimise(state, learning_rate(step, training), None)
        model.observe(loss.noted)
    return model


MLP = DiffusionSettings(network="mlp", width=32, depth=1, sampling_steps=8)
UNET = DiffusionSettings(widths=(8, 16), patch=2, octaves=2, sampling_steps=12)
TRANSFORMER = DiffusionSettings(network="transformer", width=32, depth=2, sampling_steps=12)


@pytest.mark.parametrize(
    ("settings", "training"),
    [
        (MLP, {"steps": 200, "learning_rate": 8e-3}),
        pytest.param(UNET, {"steps": 150, "batch_size": 64}, marks=pytest.mark.slow),
        pytest.param(TRANSFORMER, {"steps": 300, "batch_size": 64}, marks=pytest.mark.slow),
    ],
)
def test_a_flip_that_the_network_is_told_of_does_not_leak_into_samples(
    settings: DiffusionSettings, training: dict[str, object]
):
    """Without the condition each of 128 samples has the mark on the wrong side with probability ½: fewer than 30 of
    128 have probability 5e-10. With it, at most 6 of 128: if 1 % of all samples were wrong, 3e-4 would be the false
    alarm; of 256 samples with other seeds none were."""
    wrong = {}
    for told in (True, False):
        x = trained(settings, told, **training).sample(128, seed=1)
        wrong[told] = int((x[..., 4:].mean((1, 2, 3)) > x[..., :4].mean((1, 2, 3))).sum())
    assert wrong[True] <= 6
    assert wrong[False] >= 30


def test_the_errors_that_the_bound_uses_are_those_of_unchanged_examples():
    """A network that fails on every flipped example: the table of errors does not see it."""
    recipe = DiffusionRecipe(
        data=marked(40), model=MLP, training=DiffusionTraining(augment=AugmentOptions(flip="horizontal"))
    )
    dataset = load_dataset(recipe)
    model = build_model(recipe, dataset.spec)
    flips = of(recipe.training.augment, (1, 8, 8), dataset.spec.preparation)
    batch = Batches(dataset.train, dataset.spec.preparation, 64, 0, flips)(0)
    loss = model.loss(batch, step=0, noise=Noise(generator(0, Stream.TRAINING, 0)))
    flipped = batch.augmentation[:, 0] == 1
    assert 10 < flipped.sum() < 54
    assert torch.equal(loss.noted["squared_error"].isnan(), flipped)
    assert loss.noted["losses"].isfinite().all()
    before = model.errors.weight.sum()
    model.observe(loss.noted)
    assert model.errors.weight.sum() == pytest.approx(float(before + (~flipped).sum()), rel=1e-2)  # minus the memory's


@pytest.mark.parametrize("objective", ["bound", "hybrid", "simple", "edm"])
def test_every_objective_tells_the_network(objective: str):
    kind = {"bound": {"noise_schedule": "learned"}, "hybrid": {"variance": "learned"}}.get(objective, {})
    settings = DiffusionSettings(network="mlp", width=16, depth=1, objective=objective, **kind)
    recipe = DiffusionRecipe(
        data=marked(40), model=settings, training=DiffusionTraining(augment=AugmentOptions(flip="horizontal"))
    )
    dataset = load_dataset(recipe)
    model = build_model(recipe, dataset.spec)
    awake(model.denoiser.network).float()
    flips = of(recipe.training.augment, (1, 8, 8), dataset.spec.preparation)
    batch = Batches(dataset.train, dataset.spec.preparation, 64, 0, flips)(0)
    losses = [
        model.loss(replace(batch, augmentation=a), step=0, noise=Noise(generator(0))).noted["losses"]
        for a in (batch.augmentation, torch.zeros_like(batch.augmentation), None)
    ]
    assert torch.equal(losses[1], losses[2])
    assert torch.equal(losses[0] != losses[1], batch.augmentation[:, 0] == 1)


# ---------------------------------------------------------------------------------------------- runs


def test_evaluation_does_not_see_augmentation(tmp_path):
    """Two runs that differ in the options of augmentation only have the same data and preparation, and a training of
    one step, whose batch is unchanged by a tiny probability, gives the same validation bound."""
    small = {"model": VAESettings(latent_dims=2, hidden=(8,)), "data": "digits"}
    runs = []
    for name, augment in (("with", AugmentOptions(flip="all", shift=0.5, probability=1e-12)), ("without", None)):
        training = TrainingSettings(steps=2, batch_size=8, validation_examples=20, augment=augment or AugmentOptions())
        runs.append(jensen.train(VAERecipe(training=training, **small), tmp_path / name))
    assert runs[0].spec == runs[1].spec
    assert runs[0].weights == runs[1].weights
    strong = TrainingSettings(steps=2, batch_size=8, validation_examples=20, augment=AugmentOptions(shift=0.5))
    other = jensen.train(VAERecipe(training=strong, **small), tmp_path / "strong")
    assert other.weights != runs[1].weights
    assert (other.spec, other.dataset.spec) == (runs[1].spec, runs[1].spec)
    assert torch.equal(other.examples().x, runs[1].examples().x)
    other.model.load_state_dict(runs[1].model.state_dict())
    first, second = (validation_bound(r.model, r.dataset.validation, r.spec.preparation, 0) for r in (other, runs[1]))
    assert first.mean == second.mean


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        (np.zeros((20, 9)) + np.arange(20.0)[:, None], {"flip": "horizontal"}, "flip horizontal: acts along an axis"),
        (marked(20), {"shift": 0.05}, "shift 0.05: moves images, signals and volumes .* by less than one"),
        (marked(20) / 255, {"jitter": 0.1}, "jitter 0.1: acts on images of integers with more than two levels only"),
        (marked(20) > 99, {"jitter": 0.1}, "jitter 0.1: acts on images of integers with more than two levels only"),
        (marked(20), {"gain": 0.1}, r"gain 0.1: acts on signals \(C, L\) and volumes only"),
        (marked(20), {"probability": 0.1}, "probability 0.1: acts on a change of training examples, but there is none"),
    ],
)
def test_changes_that_cannot_act_are_refused(data: np.ndarray, options: dict[str, object], says: str):
    training = TrainingSettings(augment=AugmentOptions(**options))
    with pytest.raises(InputError, match=f"^{says}.*(;|, or) leave it out$"):
        load_dataset(VAERecipe(data=data, training=training))


def test_changes_that_need_complete_data_are_refused_where_values_are_missing():
    x = np.random.default_rng(0).normal(size=(20, 2, 16))
    x[3, 0, 5] = np.nan
    training = TrainingSettings(augment=AugmentOptions(gain=0.1))
    with pytest.raises(InputError, match=r"^gain 0\.1: needs complete data, but values are missing; leave it out$"):
        load_dataset(VAERecipe(data=x, read=ReadOptions(missing=True, layout="array"), training=training))


def test_one_posterior_for_all_visits_does_not_go_with_augmentation():
    with pytest.raises(ValueError, match=r"training\.augment changes an example at every visit"):
        VAERecipe(
            model=VAESettings(posterior="per-datapoint"), training=TrainingSettings(augment=AugmentOptions(shift=0.2))
        )
