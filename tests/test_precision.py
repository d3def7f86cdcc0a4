"""Mixed precision: networks compute in 16 bits; densities, weights and checkpoints stay float32, for both families."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import jensen
from jensen.errors import InputError
from jensen.model import Batch, Loss
from jensen.randomness import Noise, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.families import Recipe
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from jensen.training.fit import fit, validation_bound
from jensen.training.gradient import gradient, optimise
from jensen.training.loop import Batches, steps
from jensen.training.precision import SMALLEST_SCALE, Precision, dtype_of
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState

TRAINING: dict[str, Any] = {
    "steps": 80,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "warmup_steps": 10,
    "ema_decay": 0.95,
    "validate_every": 80,
    "validation_examples": 100,
}
SHORT: dict[str, Any] = {"bound_terms": 8, "sampling_steps": 4}
MODELS: dict[str, VAESettings | DiffusionSettings] = {
    "vae": VAESettings(latent_dims=8, hidden=(64,)),
    "convolutional vae": VAESettings(latent_dims=8, network="convolutional", channels=(8, 16)),
    "diffusion": DiffusionSettings(network="mlp", width=64, depth=2, **SHORT),
    "unet": DiffusionSettings(widths=(8,), attention=(0,), **SHORT),
    "transformer": DiffusionSettings(network="transformer", width=32, depth=2, **SHORT),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _needs(precision: str) -> pytest.MarkDecorator:
    try:
        dtype_of(TrainingSettings(precision=precision), DEVICE)  # type: ignore[arg-type]
    except InputError as error:
        return pytest.mark.skip(reason=str(error))
    return pytest.mark.filterwarnings("error")


def _in_16_bits(names: Iterable[str]) -> pytest.MarkDecorator:
    """Every precision that the device has; a CPU takes long for the gradient of a convolution in float16."""
    cases = [
        pytest.param(
            name,
            precision,
            marks=[_needs(precision), *([pytest.mark.slow] if (name, precision) == ("unet", "float16") else [])],
        )
        for name in names
        for precision in ("bfloat16", "float16")
    ]
    return pytest.mark.parametrize(("name", "precision"), cases)


def _recipe(name: str, **training: object) -> Recipe:
    kind = VAERecipe if isinstance(MODELS[name], VAESettings) else DiffusionRecipe
    return kind(model=MODELS[name], training=TRAINING | training)


def _bound(run: jensen.Run) -> float:
    return max(line["validation_bound"] for line in run.metrics if "validation_bound" in line)


# ---------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], jensen.Run]:
    """A model trained in float32, once for both precisions that are compared with it."""
    return cache(lambda name: jensen.train(_recipe(name, precision="float32"), tmp_path_factory.mktemp("runs") / name))


@_in_16_bits(MODELS)
def test_training_in_16_bits_comes_to_the_bound_of_float32(
    tmp_path: Path, name: str, precision: str, in_float32: Callable[[str], jensen.Run]
) -> None:
    """Within 1 % of what training gains; checkpoints are float32."""
    runs = {"float32": in_float32(name), precision: jensen.train(_recipe(name, precision=precision), tmp_path / "run")}
    bounds = {kind: _bound(run) for kind, run in runs.items()}
    for run in runs.values():
        for file in ("model.safetensors", "optimiser.safetensors"):
            assert {value.dtype for value in load_file(run.checkpoint / file).values()} <= {torch.float32}
    untrained = build_model(run.recipe, run.spec)
    validation = run.dataset.validation[: TRAINING["validation_examples"]]
    gain = bounds["float32"] - validation_bound(untrained, validation, run.spec.preparation, run.recipe.seed).mean
    assert gain > 5
    assert bounds[precision] != bounds["float32"]  # it was another arithmetic
    print(f"{name}, {precision}: {(bounds[precision] - bounds['float32']) / gain:+.2%} of the gain")
    assert abs(bounds[precision] - bounds["float32"]) < 0.01 * gain


@_in_16_bits(["vae", "diffusion", "unet"])
def test_resume_in_16_bits_is_exact(tmp_path: Path, name: str, precision: str) -> None:
    recipe = _recipe(name, precision=precision, steps=12, validate_every=8)
    dataset = load_dataset(recipe)
    for folder, stops in (("whole", (None,)), ("parts", (3, 9, None))):
        for stop in stops:
            state = TrainingState.start(build_model(recipe, dataset.spec).to(DEVICE), recipe.training)
            saved = checkpoints(tmp_path / folder / "checkpoints")
            if saved:
                load_checkpoint(saved[-1], state)
            (tmp_path / folder).mkdir(exist_ok=True)
            fit(tmp_path / folder, state, dataset, recipe.training, recipe.seed, lambda s=state, n=stop: s.step == n)
    for file in ("model.safetensors", "optimiser.safetensors", "state.json"):
        ends = [checkpoints(tmp_path / folder / "checkpoints")[-1] / file for folder in ("whole", "parts")]
        assert ends[0].read_bytes() == ends[1].read_bytes(), file


@pytest.mark.skipif(sys.platform != "linux", reason="asks oneDNN to do without a part of the CPU")
def test_precision_that_a_cpu_emulates_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom jensen.cli import main\n"
        "print([main([*sys.argv[1:], '--precision', precision]) for precision in ('bfloat16', 'float16')])"
    )
    older = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", program, "train", "vae", "--device", "cpu", "--out", str(tmp_path / "run")]
    told = subprocess.run(command, env=older, capture_output=True, text=True, timeout=100, check=False)
    assert told.stdout == "[2, 2]\n"
    for precision, line in zip(("bfloat16", "float16"), told.stderr.splitlines(), strict=True):
        assert f"precision {precision}: this CPU only emulates it" in line
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------- arithmetic


def _loss(name: str, scale: float = 1.0, kind: torch.dtype | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Value and terms at random weights `scale` times as large, the networks in `kind`."""
    recipe = _recipe(name)
    dataset = load_dataset(recipe)
    model, draw = build_model(recipe, dataset.spec), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
            parameter *= scale
    batch = Batches(dataset.train, dataset.spec.preparation, 64, seed=1)(0)
    loss = gradient(model, batch, 0, Noise(generator(4)), Precision(kind or torch.float32), None)
    if kind is not torch.float16:  # whose gradients need the scaler
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    return loss.value, dict(loss.terms)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_terms_under_autocast_are_those_of_float32(name: str, kind: torch.dtype, tolerance: float) -> None:
    """Networks' outputs lose digits, 8 bits of 24 being left in bfloat16 and 11 in float16; nothing else does."""
    value, terms = _loss(name)
    low_value, low_terms = _loss(name, kind=kind)
    for low, full in [(low_value, value), *((low_terms[term], terms[term]) for term in terms)]:
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, full, rtol=tolerance, atol=tolerance)
    assert low_value != value


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_losses_of_bytes_are_finite_in_16_bits(name: str, kind: torch.dtype, scale: float) -> None:
    """The digits are integers of one byte. At twice the usual weights outputs are far off."""
    value, terms = _loss(name, scale, kind)
    assert value.isfinite()
    assert all(term.isfinite() for term in terms.values())


# ---------------------------------------------------------------------------------------------- scaling


def _scaled(name: str, scale: float) -> tuple[TrainingState, Tensor, list[Tensor]]:
    """A step by float16's scaler, on a CPU: the state, the gradient's norm, and the weights before."""
    recipe = _recipe(name, optimiser="muon")
    dataset = load_dataset(recipe)
    state = TrainingState.start(build_model(recipe, dataset.spec), recipe.training)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    before = [parameter.detach().clone() for parameter in state.dense]
    batch = Batches(dataset.train, dataset.spec.preparation, 64, seed=1)(0)
    gradient(state.model, batch, 0, Noise(generator(4)), Precision(scaler=state.scaler), None)
    return state, optimise(state, 1e-3, 1e9), before


@pytest.mark.parametrize("name", ["vae", "diffusion"])
def test_a_scaled_step_is_the_step_by_every_optimiser(name: str) -> None:
    """Scales are powers of two: the same bits as without, once each optimiser's gradients are unscaled once."""
    taken = [_scaled(name, scale) for scale in (1.0, 2.0**16)]
    assert len(taken[0][0].optimisers) == 2
    assert torch.equal(taken[0][1], taken[1][1])
    for one, other in zip(taken[0][0].dense, taken[1][0].dense, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["vae", "diffusion"])
def test_where_the_scale_overflows_nothing_moves_and_it_is_halved(name: str) -> None:
    state, norm, before = _scaled(name, 2.0**127)
    assert not norm.isfinite()
    assert state.scaler is not None
    assert state.scaler.get_scale() == 2.0**126
    assert all(torch.equal(now, then) for now, then in zip(state.dense, before, strict=True))
    assert all(parameter.grad is None for parameter in state.dense)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("scale", [16.0, SMALLEST_SCALE])
def test_what_overflows_for_one_optimiser_moves_no_parameter_of_any(bad: float, scale: float) -> None:
    recipe = _recipe("vae", optimiser="muon")
    state = TrainingState.start(build_model(recipe, load_dataset(recipe).spec), recipe.training)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    before = [parameter.detach().clone() for parameter in state.dense]
    state.scaler.scale(torch.stack([parameter.sum() for parameter in state.dense]).sum()).backward()
    matrix = state.optimisers[1].param_groups[0]["params"][0]
    matrix.grad[0, 0] = bad
    assert not optimise(state, 1e-3, 1.0).isfinite()
    assert state.scaler.get_scale() == max(scale / 2, SMALLEST_SCALE)
    assert all(torch.equal(now, then) for now, then in zip(state.dense, before, strict=True))


def _scales(recipe: Recipe, scale: float, heavy: dict[int, float] | None = None) -> tuple[TrainingState, list[float]]:
    """Trained from a scale on, the losses of some steps times a number; and the scale after each step."""
    dataset = load_dataset(recipe)
    state = TrainingState.start(build_model(recipe, dataset.spec), recipe.training)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    loss, scales = state.model.loss, list[float]()

    def weighted(batch: Batch, *, step: int, noise: Noise) -> Loss:
        found = loss(batch, step=step, noise=noise)
        return replace(found, value=found.value * (heavy or {}).get(step, 1.0))

    state.model.loss = weighted  # type: ignore[method-assign]
    for step in steps(state, dataset.train, dataset.spec.preparation, recipe.training, 0):
        assert step.gradient_norm is not None
        assert step.gradient_norm.isfinite()
        scales.append(state.scaler.get_scale())
    return state, scales


def test_no_step_is_lost_to_the_scale() -> None:
    """In float32, where scales are all the same: one that is too large ends with the bits of one that is not."""
    recipe = _recipe("vae", steps=5)
    large, scales = _scales(recipe, 2.0**127)
    right, _ = _scales(recipe, 2.0**16)
    assert scales[0] == 2.0**126
    assert scales[-1] < scales[0]
    assert all(torch.equal(one, other) for one, other in zip(large.dense, right.dense, strict=True))


@pytest.mark.parametrize("precision", [pytest.param("float16", marks=_needs("float16"))])
def test_one_hard_batch_halves_the_scale_once(precision: str) -> None:
    """However small a scale it took: the gradients of the next ones would vanish by it."""
    recipe = _recipe("vae", steps=40, precision=precision, clip_norm=10.0)
    _, usual = _scales(recipe, 2.0**12)
    _, scales = _scales(recipe, 2.0**12, {20: 1e10})
    assert scales[:20] == usual[:20]
    assert scales[20] == scales[19] / 2
    assert min(scales) >= scales[19] / 4


@pytest.mark.parametrize("whole", [True, False], ids=["loss", "gradient"])
def test_what_is_bad_at_any_scale_is_trouble(whole: bool, tmp_path: Path) -> None:
    """A loss that is NaN, whose gradient is not tried again; and a gradient that is infinite beside a sound loss."""
    recipe = _recipe("vae")
    dataset = load_dataset(recipe)
    state = TrainingState.start(build_model(recipe, dataset.spec), recipe.training)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    wild = torch.nn.Parameter(torch.ones(()))
    state.model.register_parameter("wild", wild)
    state.dense.append(wild)
    wild.register_hook(lambda gradient: gradient * math.inf)
    loss, calls = state.model.loss, list[int]()

    def bad(*words: Any, **named: Any) -> Loss:
        calls.append(1)
        found = loss(*words, **named)
        return replace(found, value=found.value * wild * (math.nan if whole else 1.0))

    state.model.loss = bad  # type: ignore[method-assign]
    with pytest.raises(InputError, match="step 1: loss is nan" if whole else "step 1: gradient_norm is inf"):
        fit(tmp_path, state, dataset, recipe.training.model_copy(update={"log_every": 1}), 0)
    assert len(calls) == (1 if whole else 10 + 24 + 1)


def test_the_scale_is_in_the_checkpoint(tmp_path: Path) -> None:
    state, _, _ = _scaled("vae", 2.0**127)
    path = save_checkpoint(tmp_path, state, 1)
    fresh = TrainingState.start(state.model, TrainingSettings(**TRAINING, optimiser="muon"))
    fresh.scaler = torch.amp.GradScaler("cpu")
    load_checkpoint(path, fresh)
    assert fresh.scaler.state_dict() == state.scaler.state_dict()
