"""A run: a folder that explains itself, made by `train`, continued by `resume`, opened by `load`.

recipe.json      what was asked for           checkpoints/   weights and optimiser state
data.json        what was read                metrics.jsonl  a line per logging window, and tensorboard/
history.json     changes of the training
samples/         a grid of samples now and then   .lock          held while it is trained
"""

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from jensen import processes
from jensen.data.examples import Dataset, Examples
from jensen.data.load import load_again, load_split, read_examples
from jensen.data.options import Split, Streaming
from jensen.data.readers.memory import Source, source_name
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel
from jensen.provenance import jensen_version, weights_digest
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.families import family_of, read_recipe
from jensen.recipe.family import AbstractFamily
from jensen.recipe.settings import AbstractRecipe, explain
from jensen.records import Value, read_record, write_file, write_record
from jensen.training.checkpoint import (
    best_checkpoint,
    checkpoints,
    first_good,
    is_finished,
    load_checkpoint,
    load_weights,
    set_aside,
    step_of,
)
from jensen.training.fit import fit
from jensen.training.log import read_lines
from jensen.training.loop import accelerator_for
from jensen.training.state import TrainingState

FORMAT = 1
RECIPE, DATA, CHECKPOINTS, LOCK = "recipe.json", "data.json", "checkpoints", ".lock"
HISTORY = "history.json"


@dataclass(frozen=True)
class Run:
    """A trained model with everything that made it."""

    folder: Path
    recipe: AbstractRecipe
    spec: DataSpec
    model: AbstractLatentVariableModel
    checkpoint: Path
    data: Source | None = None
    """The run's own data where they were given in memory; None: where `spec.source` says."""

    @property
    def family(self) -> AbstractFamily[Any, Any]:
        """What the run's family of models provides beside the model."""
        return family_of(self.recipe)

    @property
    def step(self) -> int:
        """The training step that the weights are from."""
        return step_of(self.checkpoint)

    @cached_property
    def weights(self) -> str:
        """SHA-256 of the weights, see `jensen.provenance.weights_digest`: what a record of the run must carry."""
        return weights_digest(self.model)

    @property
    def trained_steps(self) -> int:
        """The number of training steps that were made and saved."""
        return step_of(checkpoints(self.folder / CHECKPOINTS)[-1])

    @property
    def finished(self) -> bool:
        """Whether training came to its planned end, or stopped early by its own rule."""
        return is_finished(self.folder / CHECKPOINTS, self.recipe.training.steps)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_lines(self.folder / "metrics.jsonl")

    @cached_property
    def dataset(self) -> Dataset:
        """The data that the run was trained on, read again; `InputError` if they have changed."""
        return load_again(self.spec, source=self.data)

    def examples(
        self, data: Source | None = None, split: Split = "test", *, only_known_y: bool = False, missing: bool = False
    ) -> Examples:
        """All examples of `data` read under the run's rules; by default a split of the run's own data.

        `data` is a path, `digits`, an array or tensor, or a dict of them. `only_known_y` and `missing` are about `data`
        alone, see `jensen.data.load.read_examples`.
        """
        if data is None:
            return load_split(self.spec, split, self.data)
        return read_examples(data, self.spec, only_known_y=only_known_y, missing=missing)

    def with_data(self, source: Source) -> "Run":
        """The run with its own data at `source`: at a new path, which is recorded, or in memory.

        Raises `InputError` where the fingerprint says that they are other data.
        """
        spec = load_again(self.spec, source=source).spec
        if isinstance(source, str | Path):
            _write_json(self.folder / DATA, spec)
            return replace(self, spec=spec, data=None)
        return replace(self, data=source)

    @property
    def unseen_labels(self) -> tuple[int, ...]:
        """The labels that no training example has: the model has learned nothing about them."""
        return tuple(label for label, count in enumerate(self.spec.label_counts or ()) if not count)

    def source(self, data: Any = None, split: Split = "test") -> str:
        """What `examples` of the same arguments are, in words."""
        return f"{self.spec.source}, {split} split" if data is None else source_name(data)


def train(recipe: AbstractRecipe, out: str | Path) -> Run:
    """Train by `recipe` into the new folder `out`; gives the run with its best weights.

    Raises `InputError` before anything is written where the recipe, the data or `out` cannot be used. Ctrl-C and
    SIGTERM finish the step, write a checkpoint and raise KeyboardInterrupt. Processes that torchrun started train the
    run together.
    """
    processes.join()
    folder = Path(out)
    processes.on_main(lambda: _check_new(folder))
    with processes.together():
        dataset = load_dataset(recipe)
    state = _start(recipe, dataset.spec)
    processes.on_main(lambda: folder.mkdir(parents=True, exist_ok=True))
    with _alone(folder, recipe):
        processes.on_main(lambda: _establish(folder, recipe, dataset.spec))
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
    """Continue a run from its last good checkpoint, bit for bit as if it had never stopped; gives the run.

    Damaged checkpoints are passed over with a warning, and set aside. Raises `InputError` while another process trains
    the run, and for a recipe.json that was edited. Bit for bit on as many processes as before; on others but for
    rounding. `stream` says anew whether the data stay on disk, which changes no number. `data` is where the run's own
    data are now, as of `Run.with_data`. `steps` and `learning_rate` change the recipe from here on, which the run's
    history.json records.
    """
    processes.join()
    folder = Path(folder)
    with processes.together():
        recipe, spec = recipe_of(folder), _read_spec(folder)
    changes = {name: v for name, v in (("steps", steps), ("learning_rate", learning_rate)) if v is not None}
    with _alone(folder, recipe):
        if changes:
            processes.on_main(lambda: _change_training(folder, recipe, changes))
            with processes.together():
                recipe = recipe_of(folder)
        with processes.together():
            dataset = load_again(spec, stream, data)
        if isinstance(data, str | Path):
            processes.on_main(lambda: _write_json(folder / DATA, dataset.spec))
        state = _start(recipe, spec)
        state.earlier_recipes = tuple(change.recipe for change in read_history(folder))
        saved = checkpoints(folder / CHECKPOINTS)
        if saved:
            with processes.together():
                good, _ = first_good(saved[::-1], lambda path: load_checkpoint(path, state))
            processes.on_main(lambda: set_aside([path for path in saved if path.name > good.name]))
        processes.agree("the steps to go on from", str(state.step))
        if changes:  # a training that had converged goes on
            state.converged, state.stale_validations = False, 0
        if not (state.converged or state.step >= recipe.training.steps):
            _continue(folder, recipe, state, dataset)
        with processes.together():
            return replace(load(folder), data=_in_memory(data))


def load(folder: str | Path, data: Source | None = None) -> Run:
    """Open a run: the model with its best weights, on the CPU. Executes and unpickles nothing from the folder.

    Where the best checkpoint is damaged the last good one is used, with a warning. `data` are the run's own data, where
    they were in memory or have moved: as of `Run.with_data`.
    """
    folder = Path(folder)
    recipe, spec = recipe_of(folder), _read_spec(folder)
    best = best_checkpoint(folder / CHECKPOINTS)
    if best is None:
        raise InputError(f"{folder} holds no checkpoint yet; train it further with: jensen resume {folder}")
    model = build_model(recipe, spec)
    others = [path for path in reversed(checkpoints(folder / CHECKPOINTS)) if path != best]
    best, _ = first_good([best, *others], lambda path: load_weights(path, model))
    run = Run(folder, recipe, spec, model.eval(), best)
    return run if data is None else run.with_data(data)


def opened(folder: str | Path) -> Run:
    """`load`, on the GPU where there is one; on the CPU with as many threads as the training had."""
    run = load(folder)
    torch.set_num_threads(run.recipe.training.threads)
    if torch.cuda.is_available() and run.recipe.training.device != "cpu":
        run.model.to("cuda")
    return run


def _start(recipe: AbstractRecipe, spec: DataSpec) -> TrainingState:
    """Nothing trained yet, on the device that training is for; `InputError` where this machine has no such device."""
    processes.agree("the data's fingerprints", spec.fingerprint)
    with processes.together():
        device = accelerator_for(recipe.training).device
        _check_shares(recipe, device)
        model = build_model(recipe, spec).to(device)
    if recipe.training.sharding != "none":
        within = processes.count() if recipe.training.sharding == "full" else processes.on_this_machine()
        processes.shard(model, device.type, within)
    state = TrainingState.start(model, recipe.training)
    state.recipe = _digest(recipe)
    return state


def _check_shares(recipe: AbstractRecipe, device: torch.device) -> None:
    """Raises `InputError` for a recipe that cannot be trained by as many processes as there are."""
    training, count = recipe.training, processes.count()
    if training.batch_size % count:
        nearest = max(1, round(training.batch_size / count)) * count
        raise InputError(
            f"batch_size {training.batch_size} on {count} processes: expected a multiple of {count}, equal parts for "
            f"all; give {nearest}, or start as many processes as divide it"
        )
    family_of(recipe).check_processes(recipe, count, device.type)


def _in_memory(data: Source | None) -> Source | None:
    """The data if they are arrays; None where the run's folder says where they are."""
    return None if isinstance(data, str | Path) else data


def _continue(folder: Path, recipe: AbstractRecipe, state: TrainingState, dataset: Dataset) -> None:
    with _interruptible() as interrupted, _threads(recipe.training.threads):
        fit(folder, state, dataset, recipe.training, recipe.seed, interrupted)
        if interrupted():
            raise KeyboardInterrupt(f"stopped at step {state.step}; continue with: jensen resume {folder}")


# ---------------------------------------------------------------------------------------------- the folder


@contextmanager
def _alone(folder: Path, recipe: AbstractRecipe) -> Iterator[None]:
    """Within, nobody else trains the run; the lock goes with the process that holds it, however that ends.

    A finished run needs none, so that it may lie in a folder that can only be read.
    """
    lock = FileLock(folder / LOCK)

    def acquire() -> None:
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(f"{folder} is being trained by another process; wait for it, or stop it first") from error
        except OSError:
            if not is_finished(folder / CHECKPOINTS, recipe.training.steps):
                raise

    processes.on_main(acquire)
    try:
        yield
    finally:
        lock.release()


def _check_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir())):
        run = (folder / RECIPE).exists()
        held, further = ("a run", ", or continue with: jensen resume") if run else ("something", "")
        raise InputError(f"--out {folder} holds {held} already; give a new folder{further}")


def _establish(folder: Path, recipe: AbstractRecipe, spec: DataSpec) -> None:
    """Make the folder that of a run, which it is from the moment that the recipe is there."""
    _check_new(folder)
    try:
        _write_json(folder / DATA, spec)
        _write_json(folder / RECIPE, recipe)
    except BaseException:
        if not (folder / RECIPE).exists():
            (folder / DATA).unlink(missing_ok=True)  # so that the same command can be given again
        raise


class Change(Value):
    """A change of the training of a run: what it was until then."""

    recipe: str
    """The digest of the recipe until then."""
    step: int
    """The last step that was trained by it."""
    before: dict[str, float]
    after: dict[str, float]
    """The settings that changed, by name."""
    date: str
    """ISO 8601, UTC."""
    jensen: str
    """The version that made the change."""


class History(Value):
    """history.json: every change of the training, oldest first."""

    changes: tuple[Change, ...] = ()


def read_history(folder: Path) -> tuple[Change, ...]:
    """The changes of a run's training; none where it was trained by one recipe throughout."""
    found = read_record(folder / HISTORY, History, "restore it from a copy")
    return found.changes if found else ()


def _change_training(folder: Path, recipe: AbstractRecipe, changes: dict[str, Any]) -> None:
    """Rewrite recipe.json with other settings of the training, and record what it was before.

    Raises `InputError` for fewer steps than have been trained.
    """
    saved = checkpoints(folder / CHECKPOINTS)
    done = step_of(saved[-1]) if saved else 0
    if changes.get("steps", done + 1) <= done:
        raise InputError(f"--steps {changes['steps']}: {folder} has been trained for {done} steps; give more")
    changed = {**recipe.training.model_dump(), **changes}
    values = {**recipe.model_dump(mode="json"), "training": changed}
    new = read_recipe(values, f"jensen resume {folder}")
    before = {name: float(getattr(recipe.training, name)) for name in changes}
    change = Change(
        recipe=_digest(recipe),
        step=done,
        before=before,
        after={name: float(value) for name, value in changes.items()},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        jensen=jensen_version(),
    )
    # History first: a crash in between leaves the old recipe, whose digest is accepted either way
    write_record(folder / HISTORY, History(changes=(*read_history(folder), change)))
    _write_json(folder / RECIPE, new)


def _digest(recipe: AbstractRecipe) -> str:
    """SHA-256 of a recipe, but for where its data are."""
    return hashlib.sha256(recipe.model_dump_json(exclude={"data"}).encode()).hexdigest()


def _write_json(path: Path, content: BaseModel) -> None:
    write_file(path, json.dumps({"format": FORMAT, **content.model_dump(mode="json")}, indent=1).encode())


def _read_json(path: Path) -> dict[str, Any]:
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a run: there is no such folder; give the folder of a trained run")
    try:
        values = json.loads(path.read_text())
        written = int(values.pop("format"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path.parent} is not a run: it has no {path.name}; give the folder of a trained run"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it from a copy") from error
    if written > FORMAT:
        raise InputError(f"{path} has format {written}, this jensen reads up to {FORMAT}; install a newer jensen")
    return values


def recipe_of(folder: Path) -> AbstractRecipe:
    """The recipe that the run in `folder` was made by.

    Raises InputError for links out of the run, through which files elsewhere would be read or replaced.
    """
    inside = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise InputError(
                    f"{path} is a link that leads out of the run; put there what it leads to, or remove it"
                )
    return read_recipe(_read_json(folder / RECIPE), str(folder / RECIPE))


def _read_spec(folder: Path) -> DataSpec:
    try:
        return DataSpec.model_validate(_read_json(folder / DATA))
    except ValidationError as error:
        raise InputError(f"{folder / DATA}: {explain(error)}") from error


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Within, torch computes with `count` CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C or SIGTERM is only noted; the second interrupts at once. Main thread only.

    Of several processes none stops by itself: what one has noted all learn when they ask, and torchrun, which passes
    on what it gets, so that Ctrl-C comes twice, ends at last whoever does not listen.
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
    except ValueError:  # not the main thread: whoever owns it decides
        pass
    try:
        yield lambda: processes.anywhere(bool(noted))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
