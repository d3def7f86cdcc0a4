"""A training in time: the plan, its record, and what holds for every plan."""

import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import several
import torch
from pydantic import ValidationError

import jensen
from jensen.cli import main
from jensen.errors import InputError
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionSettings, DiffusionTraining
from jensen.recipe.vae.settings import VAESettings
from jensen.run.folder import Change, commanded, read_history
from jensen.run.planning import Timing
from jensen.training.budget import Budget, Pilot, Stopwatch
from jensen.training.checkpoint import checkpoints, load_checkpoint
from jensen.training.fit import fit
from jensen.training.loop import learning_rate, progress
from jensen.training.measure import sizes_of
from jensen.training.plan import Costs, Sizes, is_look, looks, planned, seconds, steps_within
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState

SMALL = VAESettings(latent_dims=2, hidden=(8,))
MNIST = Sizes(54_000, 6_000, True)
FEW = Sizes(240, 30, True)


def a_recipe(**training: object) -> jensen.VAERecipe:
    return jensen.VAERecipe(model=SMALL, training={"batch_size": 16, **training})


def same_weights(one: jensen.Run, other: jensen.Run) -> bool:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# ---------------------------------------------------------------------------------------------- arithmetic


def test_looks_are_counted_as_they_come() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        steps, every, first = (int(random.integers(1, limit)) for limit in (200, 60, 40))
        settings = TrainingSettings(steps=steps, validate_every=every, first_look=first % 30)
        done = int(random.integers(0, steps))
        due = sum(is_look(step, every, settings) for step in range(done + 1, steps + 1))
        assert looks(every, settings, done, steps) == due, (settings, done)


def test_first_looks_double_until_the_regular_ones() -> None:
    settings = TrainingSettings(steps=1000, first_look=10)
    assert [step for step in range(1, 1001) if is_look(step, 100, settings)] == [10, 20, 40, 80, *range(100, 1001, 100)]


@pytest.mark.parametrize("costs", [Costs(0.01), Costs(0.3, 0.02, 0.5, 1.0)])
def test_the_steps_within_a_time_are_the_most_that_fit(costs: Costs) -> None:
    settings = TrainingSettings(validate_every=1 << 20, sample_every=1 << 20)  # only at the end: seconds are monotone
    for done in (0, 77):
        steps = steps_within(costs, settings, MNIST, done, 1500.0)
        assert seconds(costs, settings, MNIST, done, steps) <= 1500 < seconds(costs, settings, MNIST, done, steps + 1)
    assert steps_within(Costs(10.0), settings, MNIST, 7, 5.0) == 7


@pytest.mark.parametrize("limit", [20.0, 300.0, 36_000.0])
@pytest.mark.parametrize(
    "costs", [Costs(0.003, 1e-5, 1e-4, 0.1), Costs(0.8, 0.3, 0.5, 1.0), Costs(30.0, 5.0, 9.0, 2.0)]
)
def test_a_plan_ends_in_time_and_most_of_it_is_steps(costs: Costs, limit: float) -> None:
    for settings in (TrainingSettings(minutes=5.0), DiffusionTraining(minutes=5.0)):
        plan = planned(settings, MNIST, costs, limit)
        expected = seconds(costs, plan, MNIST, 0, plan.steps)
        assert plan.minutes is None
        assert plan.steps == 1 or 0.9 * limit - costs.step < expected <= limit
        if limit > 100 * costs.step:
            assert plan.steps * costs.step > 0.5 * limit
            first = next(step for step in range(1, plan.steps + 1) if is_look(step, plan.validate_every, plan))
            assert first * costs.step < 60
            assert plan.warmup_steps <= plan.steps / 10


def test_what_is_named_stands() -> None:
    named = {"validate_every": 7, "sample_every": 11, "validation_examples": 13, "warmup_steps": 3, "log_every": 2}
    for settings in (TrainingSettings(minutes=1.0, **named), TrainingSettings(steps=70_000, **named)):
        plan = planned(settings, MNIST, Costs(0.1, 0.1, 0.1), 60.0 if settings.minutes else None)
        assert plan.model_dump(include=set(named)) == named
    short = TrainingSettings(steps=70)
    assert planned(short, MNIST, Costs(0.01), None) == short.model_copy(update={"first_look": 0})


def test_slow_steps_bring_a_look_within_the_first_minute() -> None:
    slow = planned(DiffusionTraining(), MNIST, Costs(0.8, 0.01, 0.1))
    assert 0 < slow.first_look * 0.8 <= 30
    assert planned(DiffusionTraining(), MNIST, Costs(0.01, 0.01, 0.1)).first_look == 0


def test_few_examples_are_trained_until_convergence() -> None:
    for settings in (TrainingSettings(), DiffusionTraining()):
        few = planned(settings, FEW, None)
        assert few.patience
        assert few.validate_every * few.patience <= few.steps / 4
        assert not planned(settings, MNIST, None).patience
        assert not planned(settings.model_copy(update={"steps": 20_000}), FEW, None).patience
        assert planned(settings.model_copy(update={"patience": 0}), FEW, None).patience == 0
        assert planned(settings, Sizes(240, 0, True), None).patience is None  # acts on validation examples alone
        assert planned(settings.model_copy(update={"minutes": 1.0}), FEW, Costs(0.01), 60.0).patience == 0


# ---------------------------------------------------------------------------------------------- the schedule


def test_the_learning_rate_does_not_jump_where_the_steps_change() -> None:
    settings = TrainingSettings(
        steps=260, warmup_steps=20, learning_rate=1.0, replans=((8, 90), (50, 100), (120, 400), (250, 300))
    )
    shares = [progress(step, settings) for step in range(20, 261)]
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(1)
    assert all(0 < b - a < 0.06 for a, b in itertools.pairwise(shares))
    assert shares[30] == pytest.approx(30 / 80)  # until step 50, the schedule was that of 100 steps
    assert shares[100] == pytest.approx(30 / 80 + 50 / 80 * 70 / 350)
    rates = [learning_rate(step, settings) for step in range(260)]
    assert max(abs(b - a) for a, b in itertools.pairwise(rates)) < 0.1


# ---------------------------------------------------------------------------------------------- the clock


@pytest.mark.parametrize("speed", [lambda s: 1.0, lambda s: 2.0, lambda s: 0.5, lambda s: 1 + 2 * (s > 30), math.exp])
def test_a_training_ends_in_time_on_a_machine_whose_speed_changes(speed: Callable[[float], float]) -> None:
    """Within 10 % of a minute, although steps take up to three times the measured time, from the start or later."""
    now = [0.0]
    speed = (lambda s: 1 + 0.8 * math.sin(s / 4)) if speed is math.exp else speed
    costs = Costs(0.02, 0.01, 0.02, 0.5)
    settings = planned(TrainingSettings(minutes=1.0), MNIST, costs, 60.0)
    changes: list[int] = []
    budget = Budget(60.0, 60.0, costs, MNIST, lambda _, step: changes.append(step))
    watch = Stopwatch(0, lambda: now[0])
    pilot, step = Pilot(budget, watch, settings.steps), 0
    while step < settings.steps:
        step += 1
        now[0] += costs.step * speed(now[0])
        if (at := watch.look(step)) is not None:
            settings = pilot.steered(settings, step, at) or settings
        for name, every, count, cost in (
            ("validation", settings.validate_every, MNIST.validated(settings), costs.example),
            ("grid", settings.sample_every, MNIST.sampled(settings), costs.sample),
        ):
            if is_look(step, every, settings):
                with watch.timed(name):
                    now[0] += count * cost * speed(now[0])
    assert 54 < now[0] + costs.end < 66
    assert [until for until, _ in settings.replans] == changes
    assert len(changes) < 10


def test_a_checkpoint_is_due_after_half_a_minute_and_then_every_minute() -> None:
    now = [0.0]
    watch = Stopwatch(0, lambda: now[0])
    due = []
    for step in range(1, 20):
        now[0] = 10.0 * step
        looked = watch.look(step)
        assert looked is not None
        if watch.save_now(looked):
            due.append(now[0])
    assert due == [30, 90, 150]


# ---------------------------------------------------------------------------------------------- runs


def test_a_changed_plan_is_a_pure_function_of_its_record(tmp_path: Path) -> None:
    """A training that was shortened on the way equals one by its last settings, whole or interrupted, bit for bit."""
    recipe = a_recipe(steps=10**6, validate_every=10**6, checkpoint_every=200, ema_decay=0.9)
    dataset = load_dataset(recipe)

    def trained(name: str, settings: TrainingSettings, stop: int = 0, budget: Budget | None = None) -> TrainingState:
        (tmp_path / name).mkdir(exist_ok=True)
        state = TrainingState.start(build_model(recipe, dataset.spec), settings)
        if saved := checkpoints(tmp_path / name / "checkpoints"):
            load_checkpoint(saved[-1], state)
        return fit(tmp_path / name, state, dataset, settings, 0, lambda: state.step == stop, budget)

    recorded: list[TrainingSettings] = []
    end = time.monotonic() + 0.5
    budget = Budget(0.5, end, Costs(1e-6), sizes_of(dataset), lambda settings, _: recorded.append(settings))
    steered = trained("steered", recipe.training, budget=budget)
    settings = recorded[-1]
    assert steered.step == settings.steps < 10**6
    assert len(settings.replans) == len(recorded)
    assert settings.replans[0][1] == 10**6
    trained("whole", settings)
    trained("parts", settings, stop=settings.replans[0][0] - 1)
    trained("parts", settings, stop=settings.replans[0][0] + 1)
    trained("parts", settings)
    files = ("model.safetensors", "optimiser.safetensors")
    expected = checkpoints(tmp_path / "steered" / "checkpoints")[-1]
    for name in ("whole", "parts"):
        last = checkpoints(tmp_path / name / "checkpoints")[-1]
        assert last.name == expected.name
        assert all((last / file).read_bytes() == (expected / file).read_bytes() for file in files), name


def test_minutes_become_steps_in_the_record(tmp_path: Path) -> None:
    """The run's recipe.json repeats it, and it resumes from an earlier checkpoint to the same weights."""
    run = jensen.train(a_recipe(minutes=0.04, checkpoint_every=20), tmp_path / "run")
    settings = run.recipe.training
    assert settings.minutes is None
    assert run.trained_steps == settings.steps
    history = read_history(run.folder)
    assert all(change.replanned for change in history)
    assert tuple((change.step, change.before["steps"]) for change in history) == settings.replans
    plan = json.loads((run.folder / "plan.json").read_text())
    assert plan["minutes"] == 0.04
    assert plan["steps"] == (settings.replans[0][1] if settings.replans else settings.steps)
    words = ["train", "vae", "--config", str(run.folder / "recipe.json"), "--out", str(tmp_path / "again")]
    assert main(words) == 0
    assert same_weights(run, jensen.load(tmp_path / "again"))
    saved = checkpoints(run.folder / "checkpoints")
    if len(saved) > 1:  # as if it had been killed before the last checkpoint
        for file in saved[-1].iterdir():
            file.unlink()
        saved[-1].rmdir()
        assert same_weights(jensen.resume(run.folder), jensen.load(tmp_path / "again"))


def test_measuring_changes_no_weight(tmp_path: Path) -> None:
    """120 steps are enough for a measurement; `fit` alone measures nothing."""
    small = DiffusionSettings(widths=(8,), bound_terms=2, sampling_steps=2)
    quick = {"steps": 120, "batch_size": 4, "validation_examples": 4, "validate_every": 120}
    for kind, model in ((jensen.VAERecipe, SMALL), (jensen.DiffusionRecipe, small)):
        recipe = kind(model=model, training=quick)
        out = tmp_path / recipe.family
        run = jensen.train(recipe, out)
        assert (out / "plan.json").exists()
        dataset = load_dataset(recipe)
        state = TrainingState.start(build_model(recipe, dataset.spec), recipe.training)
        plain = tmp_path / f"{recipe.family}-plain"
        plain.mkdir()
        fit(plain, state, dataset, recipe.training, recipe.seed)
        one, other = (checkpoints(folder / "checkpoints")[-1] for folder in (run.folder, plain))
        assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_run_goes_on_for_minutes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    jensen.train(a_recipe(steps=10, schedule="constant"), folder)
    with pytest.raises(InputError, match=r"--steps 20 and --minutes 1: each sets the length; give one"):
        jensen.resume(folder, steps=20, minutes=1.0)
    assert main(["resume", str(folder), "--minutes", "0.02"]) == 0
    run = jensen.load(folder)
    assert run.trained_steps == run.recipe.training.steps > 10
    assert not read_history(folder)[0].replanned
    straight = jensen.train(a_recipe(steps=run.trained_steps, schedule="constant"), tmp_path / "straight")
    one, other = (checkpoints(each.folder / "checkpoints")[-1] for each in (run, straight))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_the_commands_that_repeat_a_run_give_the_steps_that_it_came_to() -> None:
    """After training in time, 100 steps corrected to 90, it was resumed to 200, corrected to 190."""
    new = {"recipe": "", "step": 0, "date": "", "jensen": ""}
    steps = [(100, 90, True), (90, 200, False), (200, 190, True)]
    changes = tuple(Change(**new, before={"steps": a}, after={"steps": b}, replanned=own) for a, b, own in steps)
    (only,) = commanded(changes)
    assert (only.before, only.after) == ({"steps": 90}, {"steps": 190})
    # The first command trains 90 steps by the recipe's own `replans`, without that of the longer training
    longer, first = (TrainingSettings(steps=n, replans=((50, 100), (150, 200))) for n in (190, 90))
    short = TrainingSettings(steps=90, replans=((50, 100),))
    assert [progress(step, first) for step in range(90)] == [progress(step, short) for step in range(90)]
    assert progress(190, longer) == pytest.approx(1)


def test_steps_and_minutes_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValidationError, match="minutes 5 and steps 70: each sets the length; give one"):
        TrainingSettings(minutes=5.0, steps=70)
    with pytest.raises(ValidationError, match="minutes with schedule staircase"):
        TrainingSettings(minutes=5.0, schedule="staircase", milestones=(5,))
    out = str(tmp_path / "run")
    assert main(["train", "vae", "--minutes", "5", "--steps", "70", "--out", out]) == 2
    assert "each sets the length" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_flag_overrides_the_length_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "steps.toml").write_text("[training]\nsteps = 70\n[model]\nhidden = [8]\n")
    (tmp_path / "minutes.toml").write_text("[training]\nminutes = 50\n[model]\nhidden = [8]\n")
    for file, flags in (("steps", ["--minutes", "0.02"]), ("minutes", ["--steps", "30"])):
        config = str(tmp_path / f"{file}.toml")
        assert main(["train", "vae", "--config", config, *flags, "--out", str(tmp_path / file)]) == 0
    assert jensen.load(tmp_path / "minutes").trained_steps == 30
    assert json.loads((tmp_path / "steps" / "plan.json").read_text())["minutes"] == 0.02


def test_minutes_that_are_too_few_are_said(tmp_path: Path) -> None:
    recipe = a_recipe(minutes=0.0001)
    assert jensen.train(recipe, tmp_path / "run").trained_steps == 1
    late = Timing(recipe, load_dataset(recipe), lambda: pytest.fail("nothing to measure"), time.monotonic() - 100)
    with pytest.warns(UserWarning, match=r"training took 1\.7 min instead of 60 s: the machine became slower"):
        late.warn_of_overrun(1.0)


@pytest.mark.slow
def test_several_processes_agree_on_the_plan(tmp_path: Path) -> None:
    words = ["train", "vae", "--minutes", "0.1", "--hidden", "8", "--out", str(tmp_path / "run")]
    told = several.run(2, [words], tmp_path / "told")
    assert told.codes == [0, 0], told.err
    run = jensen.load(tmp_path / "run")
    assert run.trained_steps == run.recipe.training.steps
