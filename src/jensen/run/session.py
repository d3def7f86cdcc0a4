"""Train a run, and resume an interrupted one."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

import torch

from jensen import processes
from jensen.data.examples import Dataset
from jensen.data.load import load_again
from jensen.data.options import Streaming
from jensen.data.readers.memory import Source
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.families import family_of, read_recipe
from jensen.recipe.settings import AbstractRecipe
from jensen.recipe.start import Origin, inherited, start_weights
from jensen.records import write_record
from jensen.run.folder import (
    CHECKPOINTS,
    DATA,
    PLAN,
    alone,
    change_of,
    changed_recipe,
    check_new,
    establish,
    read_history,
    read_spec,
    recipe_digest,
    recipe_of,
    record_change,
    recorded_digest,
    write_json,
)
from jensen.run.planning import Timing
from jensen.run.run import Run, load
from jensen.training.checkpoint import (
    checkpoints,
    first_good,
    load_checkpoint,
    save_checkpoint,
    set_aside,
    step_of,
)
from jensen.training.fit import fit, tidy_finished
from jensen.training.loop import accelerator_for
from jensen.training.precision import arithmetic
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState
from jensen.training.trackers import check_trackers


def train(
    recipe: AbstractRecipe, out: str | Path, start: Run | str | Path | None = None, *, began: float | None = None
) -> Run:
    """Train by `recipe` into the new folder `out`, and return the run with its best weights.

    `start` is another run; training then starts from its best weights (fine-tuning). Data and settings of the model
    that the recipe does not give are taken from the other run. The new folder holds the starting weights as its first
    checkpoint. recipe.json records their origin in `start_from`; a recipe with `start_from` needs no `start`. The
    recipe's `minutes` are counted from `began`, a value of `time.monotonic()` (default: now). The plan's choices, such
    as the number of steps for `minutes`, are recorded in the run's recipe. Raises `InputError`, before anything is
    written, if the recipe, the data or `out` cannot be used. Ctrl-C and SIGTERM finish the step, write a checkpoint and
    raise KeyboardInterrupt. Under torchrun, all processes train this one run together.
    """
    processes.join()
    began = time.monotonic() if began is None else began
    folder, minutes = Path(out), recipe.training.minutes
    processes.on_main(lambda: check_new(folder))
    with processes.together():
        recipe, origin = _with_origin(recipe, start)
        check_trackers(recipe.training.trackers)
        dataset = load_dataset(recipe)
        recipe = family_of(recipe).suited(recipe, dataset.spec)
    with arithmetic(recipe.training):
        timing = Timing(recipe, dataset, partial(_start, recipe, dataset.spec, origin), began)
        timing.measure(recipe.training)
    with processes.together():
        recipe = _planned(recipe, timing)
    state = _start(recipe, dataset.spec, origin)
    processes.on_main(lambda: folder.mkdir(parents=True, exist_ok=True))
    with alone(folder, recipe.training.steps):
        processes.on_main(lambda: check_new(folder))
        if origin:  # before the recipe is written, so that no run ever lacks its starting weights
            save_checkpoint(folder / CHECKPOINTS, state, recipe.training.keep_last)
        processes.on_main(lambda: establish(folder, recipe, dataset.spec))
        _continue(folder, recipe, state, dataset, timing, minutes)
        with processes.together():
            run = replace(load(folder), data=_in_memory(recipe.source))
    timing.warn_of_overrun(minutes)
    return run


def establish_untrained(
    folder: Path, recipe: AbstractRecipe, spec: DataSpec, model: AbstractLatentVariableModel
) -> Run:
    """A run in the new folder whose only checkpoint, of step 0, holds the weights of `model` as they are.

    `resume` with more steps trains the run further. Raises `InputError` if the folder holds something already.
    """
    check_new(folder)
    state = TrainingState.start(model, recipe.training)
    state.recipe, state.converged = recipe_digest(recipe), True
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder / CHECKPOINTS, state, recipe.training.keep_last)
    establish(folder, recipe, spec)
    return replace(load(folder), data=_in_memory(recipe.source))


def resume(
    folder: str | Path,
    stream: Streaming | None = None,
    data: Source | None = None,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    learning_rate: float | None = None,
) -> Run:
    """Continue a run from its last good checkpoint, bit for bit as if it had never stopped, and return the run.

    With another number of processes, results differ by rounding. `stream` overrides the recipe's setting of whether the
    data stay on disk; the setting does not change results. `data` gives the run's own data if they have moved, see
    `Run.with_data`. `steps`, `minutes` and `learning_rate` change the recipe for the remaining training, and
    history.json records the change. `minutes` sets the number of steps to what fits into that many further minutes.
    Damaged checkpoints are set aside with a warning. Raises `InputError` while another process trains the run, and for
    an edited recipe.json.
    """
    processes.join()
    began, folder = time.monotonic(), Path(folder)
    with processes.together():
        recipe, spec = recipe_of(folder), read_spec(folder)
        if steps and minutes:
            raise InputError(f"--steps {steps} and --minutes {minutes:g}: each sets the length; give one")
    with alone(folder, steps or recipe.training.steps + bool(minutes)):
        with processes.together():
            dataset = load_again(spec, stream, data)
        timing = Timing(recipe, dataset, partial(_start, recipe, spec), began)
        saved = checkpoints(folder / CHECKPOINTS)
        if recipe.start_from and not saved:  # before anything is written
            raise InputError(f"{folder} holds no checkpoint, not even its starting weights; restore it from a copy")
        done = step_of(saved[-1]) if saved else 0
        if minutes:
            with arithmetic(recipe.training):
                timing.measure(recipe.training.model_copy(update={"minutes": minutes}), done)
            steps = timing.steps(recipe.training, done, minutes)
        changes = {name: v for name, v in (("steps", steps), ("learning_rate", learning_rate)) if v is not None}
        earlier = [change.recipe for change in read_history(folder)]
        change, recorded = None, recorded_digest(folder)
        if changes:
            earlier.append(recorded)
            with processes.together():
                recipe, change = changed_recipe(folder, recipe, changes)
        if isinstance(data, str | Path):
            processes.on_main(lambda: write_json(folder / DATA, dataset.spec))
        state = _start(recipe, spec)
        state.recipe = recipe_digest(recipe) if changes else recorded
        state.earlier_recipes = tuple(earlier)
        _restore(state, saved)
        if change:  # recorded only now, when nothing was refused
            processes.on_main(lambda: record_change(folder, recipe, change))
        if changes:  # also continue a training that had converged
            state.converged, state.stale_validations = False, 0
        if state.converged or state.step >= recipe.training.steps:
            tidy_finished(folder / CHECKPOINTS, state, recipe.training)
        else:
            if not minutes:
                with arithmetic(recipe.training):
                    timing.measure(recipe.training, state.step)
            _continue(folder, recipe, state, dataset, timing, minutes)
        with processes.together():
            run = replace(load(folder), data=_in_memory(data))
    timing.warn_of_overrun(minutes)
    return run


def _restore(state: TrainingState, saved: list[Path]) -> None:
    """Bring the state to the last good checkpoint, the same in all processes; set damaged checkpoints aside."""
    if saved:
        with processes.together():
            good, _ = first_good(saved[::-1], lambda path: load_checkpoint(path, state))
        processes.on_main(lambda: set_aside([path for path in saved if path.name > good.name]))
    processes.agree("the steps to go on from", str(state.step))


def _planned(recipe: AbstractRecipe, timing: Timing) -> AbstractRecipe:
    """The recipe with the settings of the plan. Raises `InputError` if its other settings need more steps."""
    settings = timing.planned(recipe.training)
    planned = recipe.model_copy(update={"training": settings}).settled()
    if recipe.training.minutes:
        values = {**planned.model_dump(), "data": recipe.source}
        read_recipe(values, f"minutes {recipe.training.minutes:g}, time for {settings.steps} steps")
    return planned


def _with_origin(recipe: AbstractRecipe, start: Run | str | Path | None) -> tuple[AbstractRecipe, Run | None]:
    """The recipe completed by the run that training starts from, and this run; None if training starts afresh."""
    if start is None and recipe.start_from is None:
        return recipe, None
    if start is None:
        assert recipe.start_from
        start = recipe.start_from.path
    origin = start if isinstance(start, Run) else load(start)
    recipe = inherited(recipe, Origin(origin.folder, origin.recipe, origin.spec))
    assert recipe.start_from
    if recipe.start_from.weights not in (None, origin.weights):
        raise InputError(
            f"--from {origin.folder} has the weights {origin.weights}, but the recipe names "
            f"{recipe.start_from.weights}; restore the run, or leave start_from.weights out"
        )
    known = recipe.start_from.model_copy(update={"weights": origin.weights})
    return recipe.model_copy(update={"start_from": known}), origin


def _start(recipe: AbstractRecipe, spec: DataSpec, origin: Run | None = None) -> TrainingState:
    """The state before the first step, on the device of training, with the weights of `origin` if there is one.

    Raises `InputError` if there is no such device, and if the weights do not fit.
    """
    processes.agree("the data's fingerprints", spec.fingerprint)
    with processes.together():
        device = accelerator_for(recipe.training).device
        _check_shares(recipe, device)
        model = build_model(recipe, spec)
        if origin:
            there = Origin(origin.folder, origin.recipe, origin.spec)
            start_weights(model, recipe, spec, there, origin.model.state_dict())
        model = model.to(device)
    if recipe.training.sharding != "none":
        within = processes.count() if recipe.training.sharding == "full" else processes.on_this_machine()
        processes.shard(model, device.type, within)
    state = TrainingState.start(model, recipe.training)
    state.recipe = recipe_digest(recipe)
    return state


def _check_shares(recipe: AbstractRecipe, device: torch.device) -> None:
    """Raises `InputError` for a recipe that this number of processes cannot train."""
    training, count = recipe.training, processes.count()
    if training.batch_size % count:
        nearest = max(1, round(training.batch_size / count)) * count
        raise InputError(
            f"batch_size {training.batch_size} on {count} processes: expected a multiple of {count}, for equal parts; "
            f"give {nearest}, or start a number of processes that divides the batch size"
        )
    family_of(recipe).check_processes(recipe, count, device.type)


def _in_memory(data: Source | None) -> Source | None:
    """The data if they are arrays; None if they are a path, which the run's folder records."""
    return None if isinstance(data, str | Path) else data


def _continue(
    folder: Path, recipe: AbstractRecipe, state: TrainingState, dataset: Dataset, timing: Timing, minutes: float | None
) -> None:
    plan = timing.plan(recipe.training, state.step, minutes)
    if plan:
        processes.on_main(lambda: write_record(folder / PLAN, plan))
    timing.announce(state, recipe.training, plan)
    budget = timing.budget(minutes, partial(_replan, folder, recipe, state)) if minutes else None
    with _interruptible() as interrupted, arithmetic(recipe.training):
        fit(folder, state, dataset, recipe.training, recipe.seed, interrupted, budget)
        if interrupted():
            raise KeyboardInterrupt(f"stopped at step {state.step}; continue with: jensen resume {folder}")


def _replan(folder: Path, recipe: AbstractRecipe, state: TrainingState, settings: TrainingSettings, step: int) -> None:
    """Record that training goes on by `settings` after step `step`, in history.json and in recipe.json."""
    before = settings.model_copy(update={"steps": settings.replans[-1][1], "replans": settings.replans[:-1]})
    old, new = (recipe.model_copy(update={"training": training}) for training in (before, settings))
    change = change_of(old, new, ("steps",), step, state.recipe, replanned=True)
    processes.on_main(lambda: record_change(folder, new, change))
    state.earlier_recipes = (*state.earlier_recipes, state.recipe)
    state.recipe = recipe_digest(new)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """A context, for the main thread, in which the first Ctrl-C or SIGTERM is only noted and the second interrupts.

    Several processes stop together: a signal to one process reaches all processes when they next ask for it. Several
    processes ignore the second signal, because torchrun passes on its own Ctrl-C, so each process gets two signals;
    torchrun ends a process that does not stop.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted and processes.count() == 1:
            raise KeyboardInterrupt
        noted.append(number)

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: signals belong to the main thread's own code
        pass
    try:
        yield lambda: processes.anywhere(bool(noted))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
