"""Units: float64 is kept, missing values are not counted, and data that a run would misread are named."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import refused, saved
from scipy import stats

from jensen.bound import Estimate
from jensen.data.check import check
from jensen.data.grid import save_grid, save_image
from jensen.data.load import load_data, read_examples
from jensen.data.moments import columns
from jensen.data.options import ReadOptions
from jensen.data.preparation import Dequantise, Levels, Standardise, StaticBinarisation
from jensen.evaluation.scores import score
from jensen.features.fit import train_classifier
from jensen.features.settings import ClassifierSettings
from jensen.randomness import content_uniforms, generator
from jensen.recipe.build import load_dataset
from jensen.recipe.vae.settings import VAERecipe
from jensen.run import train

LN2 = math.log(2)


def normal(mean: float, deviation: float, count: int = 2000, width: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, deviation, (count, width))


# ---------------------------------------------------------------------------------------------- float64


@pytest.mark.parametrize("size", [1e-290, 1e-170, 1e200])
def test_numbers_whose_squares_leave_float64_are_scaled_like_others(size):
    x = normal(0, 1, width=3)
    found = columns(x * size)
    np.testing.assert_allclose(found.deviation, x.std(0) * size, rtol=1e-12)
    assert not found.constant.any()
    assert not any("constant" in note or "coarsely" in note for note in check(x * size).notes)


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize(("mean", "deviation"), [(1e8, 1), (5e6, 0.15), (1.7e9, 40)])
def test_a_small_deviation_about_a_large_mean_is_kept(tmp_path, mean, deviation, stream):
    raw = normal(mean, deviation)
    data = load_data(saved(tmp_path / "x.npy", x=raw), ReadOptions(stream=stream))
    preparation, train = data.spec.preparation, data.train.x[:]
    assert data.spec.dtype == preparation.dtype == "float64"
    assert preparation.constant == data.spec.doubts == ()
    assert preparation.shift[0] == pytest.approx(train.mean().item(), rel=1e-14)
    assert preparation.scale[0] == pytest.approx(train.std(correction=0).item(), rel=1e-6)
    x = preparation(train)
    assert x.dtype == torch.float32
    assert len(x.unique()) > 0.995 * len(train.unique())  # of 2,000 float32 numbers in [-4, 4] a few may meet
    back = preparation.to_raw(x)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, train, rtol=0, atol=1e-6 * deviation)
    assert preparation.resolution < 1e-2


def test_streamed_float64_gives_the_moments_and_fingerprint_of_memory(tmp_path):
    path = saved(tmp_path / "x.npy", x=normal(1.7e9, 40, 3000, 3))
    one, other = (load_data(path, ReadOptions(stream=stream)) for stream in ("never", "always"))
    assert one.spec.preparation == other.spec.preparation
    assert one.spec.fingerprint == other.spec.fingerprint
    assert torch.equal(one.train.x, other.train.x[:])
    low, high = np.load(path).min(), np.load(path).max()
    assert f"{low:.8g} to {high:.8g}" in check(path).facts["numbers"]  # the fewest digits, 6 at least, that differ


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_narrower_floats_stay_float32_and_their_coarseness_is_named(tmp_path, kind):
    size = {"float16": 1000, "float32": 1e8}[kind]
    raw = np.column_stack([normal(size, 5), normal(0, 1)]).astype(kind)
    data = load_data(saved(tmp_path / "x.npy", x=raw))
    assert data.spec.dtype == "float32"
    notes = check(tmp_path / "x.npy").notes
    assert any(f"feature 0 has a standard deviation of less than 64 times the spacing of {kind}" in n for n in notes)
    assert not any("feature 1" in note or "features 0, 1" in note for note in notes)


def test_a_million_numbers_far_from_zero_have_exact_moments(tmp_path):
    raw = normal(1e9, 1, 400_000, 2)
    preparation = load_data(saved(tmp_path / "x.npz", x_train=raw, x_test=raw[:5], x_val=raw[:5])).spec.preparation
    offset = raw - 1e9  # exact: both are floats near each other
    np.testing.assert_allclose(np.array(preparation.shift) - 1e9, offset.mean(0), rtol=0, atol=2.5e-7)
    np.testing.assert_allclose(preparation.scale, offset.std(0), rtol=1e-12)


@pytest.mark.parametrize("deviation", [1e-30, 1e-60])
def test_what_varies_in_float64_is_not_constant(tmp_path, deviation):
    preparation = load_data(saved(tmp_path / "x.npy", x=normal(0, deviation))).spec.preparation
    assert preparation.constant == ()
    assert preparation.scale[0] == pytest.approx(deviation, rel=0.1)


def test_float64_beyond_float32_is_refused_as_before(tmp_path):
    raw = normal(0, 1)
    raw[3] = 1e39
    refused(saved(tmp_path / "x.npy", x=raw), "infinite or beyond float32, the first in example 3")


@pytest.mark.parametrize(("trained", "given"), [("float64", "float32"), ("float32", "float64")])
def test_other_data_may_be_floats_of_another_precision(tmp_path, trained, given):
    spec = load_data(saved(tmp_path / "x.npy", x=normal(3, 2).astype(trained))).spec
    other = read_examples(saved(tmp_path / "y.npy", x=normal(3, 2).astype(given)), spec)
    x = spec.preparation(other.x)
    torch.testing.assert_close(x.std(), torch.tensor(1.0), rtol=0.05, atol=0)


def test_a_classifier_sees_float64_as_the_model_does(tmp_path):
    labels = np.arange(400) % 2
    path = saved(tmp_path / "x.npz", x=normal(1.7e9, 1e-3, 400, 2), y=labels)
    data = load_data(path)
    classifier = train_classifier(data, ClassifierSettings(visits=128))
    seen = classifier.scaled(data.train.x)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, data.spec.preparation(data.train.x), rtol=0, atol=1e-6)


def test_static_binarisation_of_float64_depends_on_the_example_alone(tmp_path):
    raw = torch.from_numpy(np.random.default_rng(0).random((2000, 9)))
    preparation = StaticBinarisation(dtype="float64", levels=None, dimensions=9)
    x = preparation(raw)
    assert x.dtype == torch.float32
    assert torch.equal(preparation(raw[5:9]), x[5:9])
    assert (x == 1).float().mean().item() == pytest.approx(0.5, abs=0.02)  # 5.4 deviations
    assert stats.kstest(content_uniforms(raw, 0).flatten().numpy(), "uniform").pvalue > 1e-6


def excess_after_training(path: Path, raw: np.ndarray, law: Any, **read: object) -> Estimate:
    """Bits per observed number of the test split under a VAE, less those under the law that the data are from.

    Its mean over test splits is a Kullback-Leibler divergence and the gap of the bound, so it is never negative.
    """
    np.save(path / "x.npy", raw)
    model = {"hidden": (16,), "latent_dims": 1}
    recipe = VAERecipe.model_validate(
        {"data": str(path / "x.npy"), "read": read, "training": {"steps": 300, "batch_size": 128}, "model": model}
    )
    run = train(recipe, path / "run")
    test, preparation = run.dataset.test.x[:], run.spec.preparation
    scores = score(run.model, run.dataset.test, preparation, draws=20, seed=0)
    exact = torch.from_numpy(np.nansum(law.logpdf(test.numpy()), 1))
    return Estimate.ratio((exact - scores.bound) / LN2, preparation.observed(test))


@pytest.mark.parametrize(("mean", "deviation"), [(1e8, 1), (5e6, 0.15), (1.7e9, 40)])
def test_bits_of_float64_are_an_upper_bound_of_the_entropy(tmp_path, mean, deviation):
    """Before, float32 gave -0.466, 1.753 and 10.143 for entropies of 2.047, -0.690 and 7.369 bits."""
    excess = excess_after_training(tmp_path, normal(mean, deviation), stats.norm(mean, deviation))
    assert excess.standard_error < 0.03
    assert -4 * excess.standard_error < excess.mean < 0.1


# ---------------------------------------------------------------------------------------------- missing values


def test_bits_are_per_observed_number():
    """log p of the observed numbers under independent normal laws, from scipy, whatever is missing."""
    source = np.random.default_rng(1)
    shift, scale = source.normal(size=5), np.exp(source.normal(size=5))
    raw = source.normal(shift, scale, (600, 5))
    missing = source.random(raw.shape) < 0.3
    missing[:, 0] &= ~missing.all(1)
    raw[missing] = np.nan
    raw[0, 1:] = np.nan
    raw[0, 0] = shift[0]
    units = {"shift": tuple(shift), "scale": tuple(scale), "minimum": -1, "maximum": 1}
    preparation = Standardise(dtype="float64", dimensions=5, resolution=1e-3, **units)
    held = torch.from_numpy(raw)
    observed = preparation.observed(held)
    np.testing.assert_array_equal(observed, np.isfinite(raw).sum(1))
    nats = stats.norm.logpdf((raw - shift) / scale)  # of x
    expected = np.nansum(stats.norm.logpdf(raw, shift, scale), 1)
    found = preparation.raw_nats(torch.from_numpy(np.nansum(nats, 1)), held)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    bits = preparation.bits_per_dimension(torch.from_numpy(np.nansum(nats, 1)), held)
    np.testing.assert_allclose(bits, -expected / (np.isfinite(raw).sum(1) * LN2), rtol=1e-12)
    assert bits[0].item() == pytest.approx(-stats.norm.logpdf(0, 0, scale[0]) / LN2)
    whole = torch.nan_to_num(held)
    torch.testing.assert_close(preparation.raw_nats(found, whole), preparation.raw_nats(found), rtol=1e-12, atol=0)


def test_one_scale_for_all_numbers_counts_the_observed_ones():
    preparation = Standardise(
        dtype="float32", dimensions=6, resolution=1, shift=(0.0,), scale=(8.0,), minimum=0, maximum=1
    )
    raw = torch.zeros(3, 1, 2, 3)
    raw[1, 0, 0] = raw[2] = math.nan
    assert preparation.observed(raw).tolist() == [6, 3, 0]
    torch.testing.assert_close(preparation.log_volume_of(raw) / LN2, torch.tensor([-18.0, -9.0, 0.0]).double())


def test_raw_nats_are_those_of_the_levels():
    """A uniform density on [-1, 1)^D is a mass of L^-D; a log-mass stays what it is."""
    nats = torch.tensor([-10 * LN2])
    assert Dequantise(dtype="uint8", levels=256, dimensions=10).raw_nats(nats).item() == pytest.approx(-80 * LN2)
    assert Levels(dtype="uint8", levels=256, dimensions=10).raw_nats(nats).item() == pytest.approx(-10 * LN2)
    raw = torch.zeros(1, 10, dtype=torch.uint8)
    assert Levels(dtype="uint8", levels=256, dimensions=10).bits_per_dimension(nats, raw).item() == pytest.approx(1)


def test_a_ratio_of_sums_has_the_error_that_its_repeats_show():
    """Coverage of ± 1.96 errors over 2,000 repeats of 200 examples, nominal 95 %: within 4 binomial deviations."""
    source, hits, errors, means = np.random.default_rng(3), 0, [], []
    for _ in range(2000):
        sizes = source.integers(1, 6, 200)
        values = sizes * (2.3 + source.normal(0, 1, 200)) + source.normal(0, 1, 200)
        found = Estimate.ratio(torch.from_numpy(values), torch.from_numpy(sizes))
        hits += abs(found.mean - 2.3) < 1.96 * found.standard_error
        errors.append(found.standard_error)
        means.append(found.mean)
    assert abs(hits / 2000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)
    assert np.mean(errors) / np.std(means) == pytest.approx(1, abs=0.07)  # 4 deviations of a spread over 2,000


def test_a_ratio_of_equal_sizes_is_the_mean():
    values = torch.randn(50, generator=generator(0), dtype=torch.float64)
    ratio, mean = Estimate.ratio(values, torch.full((50,), 4)), Estimate.of(values / 4)
    assert (ratio.mean, ratio.standard_error) == pytest.approx((mean.mean, mean.standard_error))


def test_bits_of_a_table_with_missing_values_bound_the_entropy_of_what_is_observed(tmp_path):
    """Independent normal columns, 30 % missing: the bits under their own law are the least on average."""
    deviations = np.array([0.5, 1.0, 1.0, 2.0, 4.0])
    raw = np.random.default_rng(2).normal(0, deviations, (2000, 5))
    missing = np.random.default_rng(3).random(raw.shape) < 0.3
    missing[missing.all(1), 0] = False
    raw[missing] = np.nan
    excess = excess_after_training(tmp_path, raw, stats.norm(0, deviations), missing=True)
    assert excess.standard_error < 0.03
    assert -4 * excess.standard_error < excess.mean < 0.1


# ---------------------------------------------------------------------------------------------- fill values


def images_with(*values: float) -> np.ndarray:
    raw = normal(0, 1, 200, 36).reshape(200, 6, 6)
    for place, value in enumerate(values):
        raw[17 + place, 3, 4] = value
    return raw


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_fill_value_that_leaves_nothing_is_refused(tmp_path, kind):
    path = saved(tmp_path / "x.npy", x=images_with(1e8).astype(kind))
    refused(path, r"the highest value, 1e\+08 \(example 17, position \(3, 4\)\), lies .* a fill value\? Replace it")


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_fill_value_is_named_and_training_warns(tmp_path, kind):
    path = saved(tmp_path / "x.npy", x=images_with(-9999).astype(kind))
    report = check(path)
    says = "the lowest value, -9999 (example 17, position (3, 4)), lies"
    assert report.good
    assert sum(says in note for note in report.notes) == 1
    assert report.spec.preparation.resolution < 1e-3
    with pytest.warns(UserWarning, match="a fill value"):
        load_dataset(VAERecipe.model_validate({"data": str(path)}))


def test_the_feature_of_a_fill_value_is_named(tmp_path):
    raw = normal(5, 2, 500, 3)
    raw[::20, 1] = -999
    (note,) = load_data(saved(tmp_path / "x.npy", x=raw)).spec.doubts
    assert note.startswith("feature 1: the lowest value, -999 (example 0), lies")


@pytest.mark.parametrize("law", ["normal", "uniform", "exponential", "laplace"])
def test_usual_laws_have_no_doubts(tmp_path, law):
    raw = getattr(np.random.default_rng(0), law)(size=(20_000, 3))
    assert load_data(saved(tmp_path / "x.npy", x=raw)).spec.doubts == ()


# ---------------------------------------------------------------------------------------------- columns of a table


def test_integers_of_very_different_ranges_are_named_and_training_warns(tmp_path):
    source = np.random.default_rng(0)
    table = np.column_stack([source.integers(0, high, 300) for high in (2, 60001, 8)])
    path = saved(tmp_path / "x.npy", x=table)
    (note,) = load_data(path).spec.doubts
    assert note.startswith("features 0, 2 go only up to 7, but feature 1 up to 59788, and all")
    assert "65536 levels" in note
    assert any(note in line for line in check(path).lines())
    with pytest.warns(UserWarning, match="features 0, 2 go only up to 7"):
        load_dataset(VAERecipe.model_validate({"data": str(path)}))


def test_few_valued_columns_of_floats_are_named_and_training_warns(tmp_path):
    source = np.random.default_rng(0)
    one_hot = np.eye(3)[source.integers(0, 3, 400)]
    path = saved(tmp_path / "x.npy", x=np.column_stack([source.normal(size=(400, 2)), one_hot]))
    (note,) = load_data(path).spec.doubts
    assert note.startswith("features 2, 3, 4 have only 2 different values: a density")
    with pytest.warns(UserWarning, match="features 2, 3, 4 have only 2 different values"):
        load_dataset(VAERecipe.model_validate({"data": str(path)}))


@pytest.mark.parametrize("layout", ["auto", "vector"])
def test_pictures_have_no_doubts(tmp_path, layout):
    """The digits, also as vectors: their border is darker than their middle, and no table."""
    from sklearn.datasets import load_digits

    path = saved(tmp_path / "x.npy", x=load_digits().images.astype(np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(VAERecipe.model_validate({"data": str(path), "read": {"layout": layout, "levels": 17}}))


# ---------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("kind", [Dequantise, Levels])
def test_16_bit_grey_is_written_as_it_was_read(tmp_path, kind):
    from PIL import Image

    raw = np.random.default_rng(0).integers(0, 65536, (6, 1, 50, 9)).astype(np.uint16)
    x = torch.from_numpy(raw.astype(np.float64) / 65535 * 2 - 1) if kind is Levels else None
    preparation = kind(dtype="uint16", levels=65536, dimensions=450)
    if x is None:
        x = torch.from_numpy((raw + 0.5) / 65536 * 2 - 1)
    pictures = preparation.to_picture(x.float())
    np.testing.assert_array_equal(pictures, raw)
    (tmp_path / "pngs").mkdir()
    for number, picture in enumerate(pictures):
        save_image(picture, tmp_path / "pngs" / f"{number}.png")
    np.testing.assert_array_equal(load_all(tmp_path / "pngs"), raw)
    save_grid(pictures, tmp_path / "grid.png", columns=3)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(grid)[2:52, 2:11], raw[0, 0])


def load_all(folder: Path) -> np.ndarray:
    data = load_data(folder, ReadOptions(validation_fraction=0, test_fraction=0))
    assert data.spec.dtype == "uint16"
    return data.train.x.numpy()


def test_16_bit_colour_becomes_8_bits_for_a_picture(tmp_path):
    from PIL import Image

    save_image(np.full((3, 4, 4), 65535, np.uint16), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert (picture.mode, picture.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_12_bit_grey_fills_the_range_of_16():
    preparation = Levels(dtype="uint16", levels=4096, dimensions=2)
    assert preparation.to_picture(torch.tensor([[-1.0, 1.0]])).tolist() == [[0, 65535]]
