"""The loop, the moving average, checkpoints and the log: pure functions of (seed, step), bit-exact resume, refusals."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import jensen
from jensen.bound import root_mean_square
from jensen.commands.train import reached
from jensen.data.augment_options import AugmentOptions
from jensen.errors import InputError
from jensen.evaluation.scores import score
from jensen.randomness import Noise, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.recipe.families import Recipe
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.records import write_file
from jensen.training.checkpoint import Record, best_checkpoint, checkpoints, load_checkpoint, load_weights
from jensen.training.ema import ExponentialMovingAverage
from jensen.training.fit import fit
from jensen.training.gradient import gradient
from jensen.training.log import read_lines
from jensen.training.loop import Batches, batch_index, learning_rate
from jensen.training.precision import Precision
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState

AMORTISED = VAESettings(latent_dims=3, hidden=(16,), likelihood="bernoulli", binarisation="dynamic")
PER_DATAPOINT = VAESettings(latent_dims=3, hidden=(16,), posterior="per-datapoint", fit_steps=5)
IMPORTANCE = VAESettings(latent_dims=3, hidden=(16,), objective="doubly-reparameterised", importance_samples=3)
CONVOLUTIONAL = VAESettings(latent_dims=3, network="convolutional", channels=(4, 8), likelihood="gaussian")


def _recipe(model: VAESettings = AMORTISED, **training: object) -> VAERecipe:
    defaults: dict[str, object] = {
        "steps": 60,
        "batch_size": 64,
        "ema_decay": 0.99,
        "clip_norm": 1.0,
        "log_every": 7,
        "validate_every": 20,
        "validation_examples": 50,
        "checkpoint_every": 25,
        "sample_every": 1000,
    }
    return VAERecipe(model=model, training=TrainingSettings(**(defaults | training)), seed=3)


def _start(recipe: Recipe) -> tuple[TrainingState, object]:
    dataset = load_dataset(recipe)
    return TrainingState.start(build_model(recipe, dataset.spec), recipe.training), dataset


def _fit(folder: Path, recipe: VAERecipe, stop_at: int | None = None) -> TrainingState:
    """Train, or go on from the last checkpoint in `folder`, until `stop_at` or the end."""
    folder.mkdir(exist_ok=True)
    state, dataset = _start(recipe)
    saved = checkpoints(folder / "checkpoints")
    if saved:
        load_checkpoint(saved[-1], state)
    return fit(folder, state, dataset, recipe.training, recipe.seed, lambda: state.step == stop_at)


# ---------------------------------------------------------------------------------------------- batches and schedules


@pytest.mark.parametrize(("count", "size"), [(10, 3), (10, 10), (7, 20), (1, 4), (100, 1)])
def test_every_pass_holds_every_example_once(count: int, size: int) -> None:
    passes = 3 * size
    drawn = torch.cat([batch_index(count, size, 5, step) for step in range(passes * count // size)])
    for one_pass in drawn.split(count):
        assert sorted(one_pass.tolist()) == list(range(count))


def test_batches_depend_on_seed_and_step_alone() -> None:
    forward = [batch_index(50, 16, 1, step) for step in range(9)]
    backward = [batch_index(50, 16, 1, step) for step in reversed(range(9))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not torch.equal(batch_index(50, 16, 1, 0), batch_index(50, 16, 2, 0))
    assert not torch.equal(batch_index(50, 50, 1, 0), batch_index(50, 50, 1, 1))  # passes are shuffled anew


def test_noise_of_a_batch_depends_on_seed_and_step_alone() -> None:
    dataset = load_dataset(_recipe())
    first = Batches(dataset.train, dataset.spec.preparation, 8, seed=1)(4)
    again = Batches(dataset.train, dataset.spec.preparation, 8, seed=1)(4)
    other = Batches(dataset.train, dataset.spec.preparation, 8, seed=1)(5)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.index, again.index)
    assert not torch.equal(first.x, other.x)


@pytest.mark.parametrize(
    "model",
    [
        AMORTISED,
        PER_DATAPOINT,
        IMPORTANCE,
        CONVOLUTIONAL,
        VAESettings(latent_dims=3, objective="importance-weighted", importance_samples=4, predict="label"),
        DiffusionSettings(widths=(8,)),
        DiffusionSettings(widths=(8,), objective="bound", noise_schedule="learned", times="loss-aware"),
        DiffusionSettings(widths=(8,), objective="hybrid", variance="learned", times="uniform", conditional=False),
    ],
    ids=["elbo", "per-datapoint", "doubly", "convolutional", "joint", "edm", "bound", "hybrid"],
)
@pytest.mark.parametrize("at_once", [5, 8, 23])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(model: VAESettings | DiffusionSettings, at_once: int) -> None:
    recipe = VAERecipe(model=model) if isinstance(model, VAESettings) else DiffusionRecipe(model=model)
    dataset = load_dataset(recipe)
    built = build_model(recipe, dataset.spec).double()
    batch = Batches(dataset.train, dataset.spec.preparation, 24, seed=1)(0)
    batch = replace(batch, x=batch.x.double())
    found = []
    for size in (None, at_once):
        built.zero_grad()
        loss = gradient(built, batch, 3, Noise(generator(4)), Precision(), size)
        found.append((loss, [p.grad.to_dense() for p in built.parameters() if p.grad is not None]))
    (whole, expected), (parts, added) = found
    assert len(expected) > 2
    assert any(bool(gradient.any()) for gradient in expected)
    torch.testing.assert_close(added, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(parts.value, whole.value, rtol=1e-12, atol=0)
    assert parts.terms.keys() == whole.terms.keys()
    torch.testing.assert_close(dict(parts.noted), dict(whole.noted), rtol=1e-9, atol=1e-11)


def test_micro_batches_end_with_the_weights_of_whole_batches(tmp_path: Path) -> None:
    """Over 60 steps, to the rounding of float32."""
    whole = _fit(tmp_path / "whole", _recipe())
    parts = _fit(tmp_path / "parts", _recipe(micro_batch_size=24))
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_free_bits_are_refused_in_parts() -> None:
    with pytest.raises(ValueError, match="whole batch"):
        _recipe(VAESettings(free_bits=0.1), micro_batch_size=8)


def test_learning_rate_schedules() -> None:
    cosine = TrainingSettings(steps=110, learning_rate=2.0, warmup_steps=10, schedule="cosine")
    assert [learning_rate(s, cosine) for s in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert learning_rate(10, cosine) == pytest.approx(2.0)
    assert learning_rate(60, cosine) == pytest.approx(1.0)
    assert learning_rate(109, cosine) == pytest.approx(1 + math.cos(math.pi * 0.99))
    stairs = TrainingSettings(learning_rate=1.0, schedule="staircase", milestones=(10, 20), decay=0.5)
    assert [learning_rate(s, stairs) for s in (9, 10, 20)] == [1.0, 0.5, 0.25]
    assert learning_rate(10**6, TrainingSettings(learning_rate=1.0, schedule="constant")) == 1.0


def test_moving_average_is_the_weighted_sum_of_the_past() -> None:
    weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    ema = ExponentialMovingAverage({"w": weight}, decay=0.9)
    values = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, dtype=torch.float64)
    for step, value in enumerate(values):
        with torch.no_grad():
            weight.copy_(value)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert torch.allclose(ema.state()["w"], expected, rtol=0, atol=1e-14)
    with ema.applied():
        assert torch.allclose(weight, expected, rtol=0, atol=1e-14)
    assert torch.equal(weight, values[-1])


# ---------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("model", [AMORTISED, PER_DATAPOINT, IMPORTANCE, CONVOLUTIONAL])
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("stops", [(30,), (1, 37, 50)])
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(
    tmp_path: Path, model: VAESettings, stops: tuple[int, ...], optimiser: str
) -> None:
    changes = {} if model is PER_DATAPOINT else {"flip": "all", "shift": 0.2, "crop": 0.2, "jitter": 0.2}
    recipe = _recipe(model, optimiser=optimiser, augment=AugmentOptions(**changes))
    _fit(tmp_path / "whole", recipe)
    for stop in (*stops, None):
        _fit(tmp_path / "parts", recipe, stop)
    whole, parts = (checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("whole", "parts"))
    assert whole.name == parts.name == "step-00000060"
    for file in ("model.safetensors", "optimiser.safetensors", "state.json"):  # weights, EMA, moments, counters
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    lines = [
        [
            {k: v for k, v in line.items() if k != "examples_per_second"}
            for line in read_lines(tmp_path / n / "metrics.jsonl")
        ]
        for n in ("whole", "parts")
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 60 // 7 + 1 + 3  # windows, the last one shorter, and validations


def test_resume_drops_metrics_written_after_the_checkpoint(tmp_path: Path) -> None:
    recipe = _recipe()
    _fit(tmp_path, recipe, 30)
    expected = read_lines(tmp_path / "metrics.jsonl")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 35, "loss": 1.0}\n{"step": 42, "lo')  # written after the checkpoint, the last one torn
    _fit(tmp_path, recipe, 31)
    assert read_lines(tmp_path / "metrics.jsonl") == expected


def test_metrics_end_where_a_line_is_not_one(tmp_path: Path) -> None:
    for damage in (b"\xff\xfe", b"[" * 200_000, b'{"loss": 1.0}', b"7"):
        (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 5, "loss": 1.0}\n' + damage + b'\n{"step": 9}\n')
        assert read_lines(tmp_path / "metrics.jsonl") == [{"step": 5, "loss": 1.0}]


# ---------------------------------------------------------------------------------------------- checkpoints


def test_keeps_the_last_checkpoints_and_the_best(tmp_path: Path) -> None:
    state, _ = _start(_recipe())
    from jensen.training.checkpoint import save_checkpoint

    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        state.step, state.best_step = step, best
        save_checkpoint(tmp_path, state, keep_last=2)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["2", "4", "5"]
    best_path = best_checkpoint(tmp_path)
    assert best_path is not None
    assert best_path.name == "step-00000002"
    assert not list(tmp_path.glob(".*"))  # no temporary left


def test_weights_loaded_are_the_moving_average(tmp_path: Path) -> None:
    recipe = _recipe()
    state = _fit(tmp_path, recipe)
    fresh, _ = _start(recipe)
    load_weights(checkpoints(tmp_path / "checkpoints")[-1], fresh.model)
    assert state.ema is not None
    averaged = state.ema.state()
    for name, parameter in fresh.model.named_parameters():
        assert torch.equal(parameter, averaged[name])


@pytest.mark.parametrize("file", ["model.safetensors", "optimiser.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_checkpoint_is_refused_by_name(tmp_path: Path, file: str, damage: str) -> None:
    recipe = _recipe(steps=2)
    _fit(tmp_path, recipe)
    target = checkpoints(tmp_path / "checkpoints")[-1] / file
    content = bytearray(target.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        target.write_bytes(content)
    elif damage == "truncate":
        target.write_bytes(content[:-10])
    else:
        target.unlink()
    state, _ = _start(recipe)
    with pytest.raises(InputError, match=file):
        load_checkpoint(target.parent, state)


def test_any_altered_digit_of_the_state_is_noticed(tmp_path: Path) -> None:
    recipe = _recipe(steps=2)
    _fit(tmp_path, recipe)
    target = checkpoints(tmp_path / "checkpoints")[-1] / "state.json"
    content = target.read_bytes()
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    state, _ = _start(recipe)
    for place in digits[:: max(1, len(digits) // 40)]:
        altered = bytearray(content)
        altered[place] = ord("1") if altered[place] != ord("1") else ord("2")
        target.write_bytes(altered)
        with pytest.raises(InputError):
            load_checkpoint(target.parent, state)
    target.write_bytes(content)
    load_checkpoint(target.parent, state)


def test_checkpoint_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    recipe = _recipe(steps=2)
    _fit(tmp_path, recipe)
    path = checkpoints(tmp_path / "checkpoints")[-1]
    record = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(InputError, match="install a newer jensen"):
        load_weights(path, _start(recipe)[0].model)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    with pytest.raises(TypeError):
        write_file(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"


# ---------------------------------------------------------------------------------------------- convergence, trouble


def test_early_stopping_keeps_the_best_and_is_not_resumed_past(tmp_path: Path) -> None:
    recipe = _recipe(steps=5000, learning_rate=0.3, validate_every=5, patience=3, schedule="constant")
    state = _fit(tmp_path, recipe)
    bounds = [line["validation_bound"] for line in read_lines(tmp_path / "metrics.jsonl") if "validation_bound" in line]
    assert state.converged
    assert len(bounds) - 1 - bounds.index(max(bounds)) == 3
    best = best_checkpoint(tmp_path / "checkpoints")
    assert best is not None
    assert best.name == f"step-{5 * (bounds.index(max(bounds)) + 1):08d}"


@pytest.mark.parametrize(("kl", "rate", "end"), [(0, 0, 20), (32, 0, 45), (0, 32, 45), (50, 32, 65)])
def test_early_stopping_counts_no_validation_of_a_warm_up(tmp_path: Path, kl: int, rate: int, end: int) -> None:
    """With steps too small to change the model, patience is over three validations after the first or the warm-ups."""
    model = AMORTISED.model_copy(update={"kl_warmup_steps": kl})
    recipe = _recipe(model, steps=200, learning_rate=1e-30, warmup_steps=rate, validate_every=5, patience=3)
    assert _fit(tmp_path / "whole", recipe).step == end
    assert not _fit(tmp_path / "parts", recipe, stop_at=17).converged
    assert _fit(tmp_path / "parts", recipe).step == end


def test_a_training_that_stops_early_says_so(tmp_path: Path) -> None:
    recipe = _recipe(steps=2000, learning_rate=1e-30, validate_every=5, patience=3)
    run = jensen.train(recipe, tmp_path / "run")
    assert reached(run)[1] == "Stopped at step 20 of 2,000: the validation bound has not risen in 3 validations"


def test_non_finite_loss_names_step_term_and_checkpoint(tmp_path: Path) -> None:
    recipe = _recipe(checkpoint_every=5, log_every=1)
    state, dataset = _start(recipe)
    counter = itertools.count()
    original = state.model.loss

    def poisoned(batch, *, step, noise):  # type: ignore[no-untyped-def]
        loss = original(batch, step=step, noise=noise)
        if next(counter) == 11:
            loss.terms["rate"].fill_(math.nan)
        return loss

    state.model.loss = poisoned  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"step 12: rate is nan.*step-00000010.* kept"):
        fit(tmp_path, state, dataset, recipe.training, recipe.seed)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000005", "step-00000010"]


def test_divergence_is_refused_and_no_bad_weights_are_saved(tmp_path: Path) -> None:
    recipe = _recipe(learning_rate=1e30, clip_norm=None, checkpoint_every=1, ema_decay=None, schedule="constant")
    with pytest.raises(InputError, match="training stopped at step"):
        _fit(tmp_path, recipe)
    for path in checkpoints(tmp_path / "checkpoints"):
        state, _ = _start(recipe)
        load_checkpoint(path, state)
        assert all(torch.isfinite(parameter).all() for parameter in state.model.parameters())


def test_a_device_that_is_not_there_is_refused() -> None:
    from jensen.training.loop import accelerator_for

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InputError, match="no CUDA device"):
        accelerator_for(TrainingSettings(device="cuda"))


def test_muon_takes_hidden_matrices_and_leaves_the_edges_to_adamw():
    recipe = DiffusionRecipe(
        model=DiffusionSettings(widths=(8,), blocks=1), training=DiffusionTraining(optimiser="muon")
    )
    state, _ = _start(recipe)
    adamw, muon = ({id(p) for group in o.param_groups for p in group["params"]} for o in state.optimisers)
    network = state.model.denoiser.network
    for name, parameter in network.named_parameters():
        hidden = (
            parameter.ndim > 1
            and name.split(".")[0] not in ("first", "details", "last", "modulation")
            and "label" not in name
        )
        assert (id(parameter) in muon) == hidden, name
    assert len(adamw) + len(muon) == len(list(state.model.parameters()))


def test_a_forged_state_under_a_sound_checksum_is_refused(tmp_path: Path) -> None:
    recipe = _recipe(steps=2)
    _fit(tmp_path, recipe)
    target = checkpoints(tmp_path / "checkpoints")[-1]
    record = Record.model_validate_json((target / "state.json").read_bytes())
    record.optimiser_numbers["a/b"] = 1
    (target / "state.json").write_bytes(record.sealed())
    with pytest.raises(InputError, match=r"state\.json is missing or damaged"):
        load_checkpoint(target, _start(recipe)[0])


def test_the_validation_bound_is_in_nats_of_the_raw_data(tmp_path):
    """Numbers ten times as large are the same x; their density is lower by log 10 for each, their bound too."""
    raw = np.random.default_rng(0).normal(size=(300, 4))
    bounds = []
    for scale in (1.0, 10.0):
        recipe = VAERecipe(data=scale * raw, model=VAESettings(latent_dims=2, hidden=(8,)), training={"steps": 20})
        run = jensen.train(recipe, tmp_path / str(scale))
        bounds.append(run.metrics[-1]["validation_bound"])
        validation = score(run.model, run.dataset.validation, run.spec.preparation, draws=64, seed=0)
        of_one_draw = root_mean_square(validation.standard_error) * math.sqrt(64 / len(validation.bound))
        assert abs(bounds[-1] - validation.bound.mean()) < 4 * of_one_draw  # false alarm: 6e-5
    assert bounds[0] - bounds[1] == pytest.approx(4 * math.log(10), abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*a fill value")
def test_a_validation_bound_that_one_example_carries_is_doubted(tmp_path):
    """The log says so, and so does the last line of the training."""
    raw = np.random.default_rng(0).normal(size=(300, 3))
    data = {"x_train": raw, "x_validation": np.append(raw[:60], [[90.0] * 3], axis=0), "x_test": raw[:9]}
    recipe = VAERecipe(data=data, model=VAESettings(latent_dims=2, hidden=(8,)), training={"steps": 5})
    run = jensen.train(recipe, tmp_path / "run")
    doubt = "1 of 61 values carries the spread: do not trust the error"
    assert [line.get("validation_doubt") for line in run.metrics if "validation_bound" in line] == [doubt]
    assert f"nats per example ({doubt})" in reached(run)[0]
