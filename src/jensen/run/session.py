"""Train a run, and resume an interrupted one."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.families import family_of
from jensen.recipe.settings import AbstractRecipe
from jensen.run.folder import (
    CHECKPOINTS,
    DATA,
    alone,
    changed_recipe,
    check_new,
    establish,
    read_history,
    read_spec,
    recipe_digest,
    recipe_of,
    record_change,
    write_json,
)
from jensen.run.run import Run, load
from jensen.training.checkpoint import checkpoints, first_good, load_checkpoint, set_aside
from jensen.training.fit import fit
from jensen.training.loop import accelerator_for
from jensen.training.state import TrainingState


def train(recipe: AbstractRecipe, out: str | Path) -> Run:
    """Train by `recipe` into the new folder `out`. Returns the run with its best weights.

    Raises `InputError`, before anything is written, if the recipe, the data or `out` cannot be used. Ctrl-C and SIGTERM
    finish the step, write a checkpoint and raise KeyboardInterrupt. Under torchrun, all processes train this one run
    together.
    """
    processes.join()
    folder, recipe = Path(out), recipe.settled()
    processes.on_main(lambda: check_new(folder))
    with processes.together():
        dataset = load_dataset(recipe)
    state = _start(recipe, dataset.spec)
    processes.on_main(lambda: folder.mkdir(parents=True, exist_ok=True))
    with alone(folder, recipe.training.steps):
        processes.on_main(lambda: establish(folder, recipe, dataset.spec))
        _continue(folder, recipe, state, dataset)
        with processes.together():
            return replace(load(folder), data=_in_memory(recipe.source))


def resume(
    folder: str | Path,
    stream: Streaming | None = None,
    data: Source | None = None,
    *,
    steps: int | None = None,
    learning_rate: float | None = None,
) -> Run:
    """Continue a run from its last good checkpoint, bit for bit as if it had never stopped. Returns the run.

    On another number of processes the results differ by rounding. `stream` replaces the recipe's choice of leaving the
    data on disk; the choice does not change results. `data` gives the run's own data if they have moved, see
    `Run.with_data`. `steps` and `learning_rate` change the recipe for the remaining training; history.json records the
    change. Damaged checkpoints are set aside with a warning. Raises `InputError` while another process trains the run,
    and for an edited recipe.json.
    """
    processes.join()
    folder = Path(folder)
    with processes.together():
        recipe, spec = recipe_of(folder), read_spec(folder)
    changes = {name: v for name, v in (("steps", steps), ("learning_rate", learning_rate)) if v is not None}
    with alone(folder, steps or recipe.training.steps):
        earlier = [change.recipe for change in read_history(folder)]
        change = None
        if changes:
            earlier.append(recipe_digest(recipe))
            with processes.together():
                recipe, change = changed_recipe(folder, recipe, changes)
        with processes.together():
            dataset = load_again(spec, stream, data)
        if isinstance(data, str | Path):
            processes.on_main(lambda: write_json(folder / DATA, dataset.spec))
        state = _start(recipe, spec)
        state.earlier_recipes = tuple(earlier)
        saved = checkpoints(folder / CHECKPOINTS)
        if saved:
            with processes.together():
                good, _ = first_good(saved[::-1], lambda path: load_checkpoint(path, state))
            processes.on_main(lambda: set_aside([path for path in saved if path.name > good.name]))
        processes.agree("the steps to go on from", str(state.step))
        if change:  # recorded only now, when nothing was refused
            processes.on_main(lambda: record_change(folder, recipe, change))
        if changes:  # also continue a training that had converged
            state.converged, state.stale_validations = False, 0
        if not (state.converged or state.step >= recipe.training.steps):
            _continue(folder, recipe, state, dataset)
        with processes.together():
            return replace(load(folder), data=_in_memory(data))


def _start(recipe: AbstractRecipe, spec: DataSpec) -> TrainingState:
    """The state before the first step, on the device of training. Raises `InputError` if there is no such device."""
    processes.agree("the data's fingerprints", spec.fingerprint)
    with processes.together():
        device = accelerator_for(recipe.training).device
        _check_shares(recipe, device)
        model = build_model(recipe, spec).to(device)
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


def _continue(folder: Path, recipe: AbstractRecipe, state: TrainingState, dataset: Dataset) -> None:
    with _interruptible() as interrupted, _threads(recipe.training.threads):
        fit(folder, state, dataset, recipe.training, recipe.seed, interrupted)
        if interrupted():
            raise KeyboardInterrupt(f"stopped at step {state.step}; continue with: jensen resume {folder}")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """A context in which torch computes with `count` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
