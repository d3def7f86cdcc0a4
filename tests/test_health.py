"""Numbers that go bad: found at their step, stopped or rolled back; what is left out changes nothing else."""

import json
import math
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from jensen.data.examples import Dataset
from jensen.errors import InputError
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.report.training import interventions
from jensen.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint, step_of
from jensen.training.fit import fit
from jensen.training.gradient import optimise
from jensen.training.health import DivergenceError, check_loss, check_state
from jensen.training.log import read_lines
from jensen.training.settings import TrainingSettings
from jensen.training.state import LeftOut, TrainingState

pytestmark = pytest.mark.filterwarnings("ignore:.*a fill value")  # the poison is noted before the training starts

TRAINING = {
    "steps": 60,
    "batch_size": 16,
    "log_every": 5,
    "checkpoint_every": 10,
    "validate_every": 20,
    "validation_examples": 50,
    "ema_decay": 0.99,
}
OVERFLOW, EXPLOSION = 7e-10, 1e-9  # the standard deviation of p(x|z) with which the outlier's gradient, or loss, is it
POISONED = 53  # the step whose batch has the outlier


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 vectors of noise, one of them 30,000 times as large: doubtful, but not yet refused, see `data.doubts`."""
    x = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    x[3] = 3e4
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, x)
    return path


def _recipe(data: Path, deviation: float, **training: object) -> VAERecipe:
    model = VAESettings(latent_dims=2, hidden=(8,), likelihood="gaussian", variance="fixed", fixed_scale=deviation)
    return VAERecipe(data=str(data), model=model, training=TrainingSettings(**(TRAINING | training)))


def _start(recipe: VAERecipe) -> tuple[TrainingState, Dataset]:
    dataset = load_dataset(recipe)
    return TrainingState.start(build_model(recipe, dataset.spec), recipe.training), dataset


def _fit(folder: Path, recipe: VAERecipe, left_out: LeftOut | None = None, stop_at: int | None = None) -> TrainingState:
    """Train, or go on from the last checkpoint in `folder`; told beforehand what to leave out, where that is given."""
    folder.mkdir(exist_ok=True)
    state, dataset = _start(recipe)
    state.left_out = [left_out] if left_out else []
    saved = checkpoints(folder / "checkpoints")
    if saved:
        load_checkpoint(saved[-1], state)
    with warnings.catch_warnings():
        if stop_at is not None:
            warnings.simplefilter("ignore")
        return fit(folder, state, dataset, recipe.training, recipe.seed, lambda: state.step == stop_at)


def _lines(folder: Path) -> list[dict[str, object]]:
    kept = read_lines(folder / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name != "examples_per_second"} for line in kept]


def _assert_same_end(one: Path, other: Path) -> None:
    """Weights, moving average, moments, counters and lines of metrics, bit for bit."""
    last = [checkpoints(folder / "checkpoints")[-1] for folder in (one, other)]
    for file in ("model.safetensors", "optimiser.safetensors", "state.json"):
        assert (last[0] / file).read_bytes() == (last[1] / file).read_bytes(), file
    assert _lines(one) == _lines(other)


# ---------------------------------------------------------------------------------------------- rollback


@pytest.mark.parametrize(
    ("deviation", "first", "last", "told"),
    [
        (OVERFLOW, POISONED, POISONED, r"step 53: gradient_norm is inf.*; going back to step 50 to leave out step 53"),
        (EXPLOSION, 51, 55, r"steps 51 to 55: the mean loss is .* more than 100 times .* leave out steps 51 to 55"),
    ],
)
def test_a_poisoned_batch_is_left_out_as_if_that_had_been_known(
    poisoned: Path, tmp_path: Path, deviation: float, first: int, last: int, told: str
) -> None:
    recipe = _recipe(poisoned, deviation, on_divergence="rollback")
    with pytest.warns(UserWarning, match=f"^{told} .rollback 1 of at most 3"):
        state = _fit(tmp_path / "rolled back", recipe)
    (found,) = state.left_out
    assert (found.first, found.last) == (first, last)
    _fit(tmp_path / "told", recipe, found)
    _assert_same_end(tmp_path / "rolled back", tmp_path / "told")
    (line,) = [line for line in _lines(tmp_path / "told") if "left_out" in line]
    assert line == {"step": last, "left_out": last - first + 1, "reason": found.reason}


def test_a_poisoned_batch_stops_the_training_by_default(poisoned: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stopped at step 53: gradient_norm is inf.*step-00000050, is kept") as error:
        _fit(tmp_path, _recipe(poisoned, OVERFLOW))
    assert "\n" not in str(error.value)
    assert "rollback" in str(error.value)
    with pytest.raises(InputError, match="stopped at steps 51 to 55: the mean loss"):
        _fit(tmp_path / "exploded", _recipe(poisoned, EXPLOSION))
    _fit(tmp_path / "unwatched", _recipe(poisoned, EXPLOSION, explosion=None))


def test_a_checkpoint_of_before_the_window_is_kept_to_go_back_to(poisoned: Path, tmp_path: Path) -> None:
    recipe = _recipe(poisoned, EXPLOSION, on_divergence="rollback", checkpoint_every=1, keep_last=1)
    with pytest.warns(UserWarning, match="back to step 50"):
        state = _fit(tmp_path / "rolled back", recipe)
    _fit(tmp_path / "told", recipe, state.left_out[0])
    _assert_same_end(tmp_path / "rolled back", tmp_path / "told")
    names = [path.name for path in checkpoints(tmp_path / "rolled back" / "checkpoints")]
    assert names == [f"step-{step:08d}" for step in sorted({state.best_step, 60})]


def test_the_best_checkpoint_of_before_the_window_is_kept_too(poisoned: Path, tmp_path: Path) -> None:
    state, _ = _start(_recipe(poisoned, EXPLOSION))
    for step, best, judged in ((40, 40, 40), (50, 40, 50), (53, 53, 50), (54, 53, 50)):
        state.step, state.best_step = step, best
        save_checkpoint(tmp_path, state, 1, judged)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [40, 50, 53, 54]
    state.step = 55
    save_checkpoint(tmp_path, state, 1, 55)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [53, 55]


def test_trouble_before_the_first_checkpoint_goes_back_to_the_start(tmp_path: Path, poisoned: Path) -> None:
    recipe = _recipe(poisoned, OVERFLOW, on_divergence="rollback", checkpoint_every=1000, validate_every=1000)
    with pytest.warns(UserWarning, match="back to step 0"):
        state = _fit(tmp_path / "rolled back", recipe)
    _fit(tmp_path / "told", recipe, state.left_out[0])
    _assert_same_end(tmp_path / "rolled back", tmp_path / "told")


def test_it_stops_after_so_many_rollbacks(tmp_path: Path, poisoned: Path) -> None:
    """A learning rate of 1e30 is no batch's fault."""
    recipe = _recipe(poisoned, 1.0, learning_rate=1e30, on_divergence="rollback", rollbacks=2, schedule="constant")
    with (
        pytest.warns(UserWarning, match=r"rollback \d of at most 2"),
        pytest.raises(InputError, match=r"rolled back 2 times, the limit of training\.rollbacks"),
    ):
        _fit(tmp_path, recipe)
    for path in checkpoints(tmp_path / "checkpoints"):
        state, _ = _start(recipe)
        load_checkpoint(path, state)
        assert all(parameter.isfinite().all() for parameter in state.model.parameters())


@pytest.mark.parametrize("deviation", [OVERFLOW, EXPLOSION])
def test_a_rollback_that_is_interrupted_ends_the_same(poisoned: Path, tmp_path: Path, deviation: float) -> None:
    recipe = _recipe(poisoned, deviation, on_divergence="rollback")
    with pytest.warns(UserWarning, match="rollback 1 of"):
        _fit(tmp_path / "whole", recipe)
    for place, stops in enumerate([(52,), (54,), (50, 51, 53), (49, 55), (20, 52, 58)]):
        for stop in stops:
            _fit(tmp_path / str(place), recipe, stop_at=stop)
        _fit(tmp_path / str(place), recipe, stop_at=-1)
        _assert_same_end(tmp_path / "whole", tmp_path / str(place))


def test_a_damaged_checkpoint_is_passed_over_by_a_rollback_too(poisoned: Path, tmp_path: Path) -> None:
    recipe = _recipe(poisoned, OVERFLOW, on_divergence="rollback")
    _fit(tmp_path, recipe, stop_at=51)
    for path in checkpoints(tmp_path / "checkpoints")[:-1]:
        shutil.rmtree(path)
    state, dataset = _start(recipe)
    load_checkpoint(checkpoints(tmp_path / "checkpoints")[0], state)
    (checkpoints(tmp_path / "checkpoints")[0] / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="truncated or altered"):
        fit(tmp_path, state, dataset, recipe.training, recipe.seed)


# ---------------------------------------------------------------------------------------------- what explodes


def test_noise_trends_and_constants_do_not_explode() -> None:
    source = random.Random(0)
    histories = {
        "noise": [source.gauss(100, 1) for _ in range(1000)],
        "heavy tails": [100 + 1 / source.random() for _ in range(1000)],
        "falling": [1000 * 0.99**i + source.gauss(0, 0.1) for i in range(1000)],
        "rising, as a KL that is phased in": [i + source.gauss(0, 0.1) for i in range(1000)],
        "constant": [3.0] * 1000,
        "constant to rounding": [3.0 + 1e-7 * (i % 2) for i in range(1000)],
        "negative": [-500 - 0.1 * i + source.gauss(0, 1) for i in range(1000)],
    }
    for losses in histories.values():
        for i in range(len(losses)):
            check_loss(1, 2, losses[i], losses[max(0, i - 10) : i], 100.0)


@pytest.mark.parametrize("level", [-500.0, 0.0, 90.0])
def test_a_jump_explodes_once_there_is_something_to_compare_with(level: float) -> None:
    before = [level + i % 3 for i in range(10)]  # range 2, median 1 above the level
    check_loss(1, 2, level + 200.9, before, 100.0)
    check_loss(1, 2, 1e30, before[1:], 100.0)
    check_loss(1, 2, 1e30, before, None)
    with pytest.raises(DivergenceError, match="more than 100 times the range"):
        check_loss(1, 2, level + 201.1, before, 100.0)


def test_a_gradient_whose_square_overflows_ends_a_weight_for_good_and_is_found(poisoned: Path) -> None:
    """Adam never moves such a weight again, although weight and gradient are finite."""
    state, _ = _start(_recipe(poisoned, 1.0))
    check_state(state)
    weight = state.dense[0]
    before = weight.detach().clone()
    for gradient in (1e25, 1.0, 1.0, 1.0):
        for parameter in state.dense:
            parameter.grad = torch.full_like(parameter, gradient)
        assert math.isfinite(optimise(state, 0.1, None)) == (gradient == 1)
    torch.testing.assert_close(weight, before, rtol=0, atol=0)
    with pytest.raises(DivergenceError, match=r"moment exp_avg_sq of posterior\.encoder\.layers\.0\.weight is"):
        check_state(state)


# ---------------------------------------------------------------------------------------------- what is said


def test_the_report_says_what_was_left_out() -> None:
    lines = [
        {"step": 5, "loss": 1.0},
        {"step": 53, "left_out": 1, "reason": "loss is <nan>"},
        {"step": 60, "left_out": 5, "reason": "too large"},
        {"step": 70, "micro_batch_size": 8},
    ]
    found = " ".join(interventions(json.loads(json.dumps(lines))))
    assert "Step 53 was left out" in found
    assert "Steps 56 to 60 were left out" in found
    assert "loss is <nan>" in found  # the page escapes it
    assert "from step 70 on, 8 examples at a time" in found
    assert interventions(lines[:1]) == []
