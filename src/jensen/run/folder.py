"""The folder of a run: its files, their contents, and the lock that protects them."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from jensen import processes
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.provenance import jensen_version
from jensen.recipe.families import read_recipe
from jensen.recipe.settings import AbstractRecipe, explain
from jensen.records import Value, read_record, write_file, write_record
from jensen.training.checkpoint import checkpoints, is_finished, step_of

FORMAT = 1
RECIPE, DATA, CHECKPOINTS, LOCK = "recipe.json", "data.json", "checkpoints", ".lock"
HISTORY, PLAN = "history.json", "plan.json"


@contextmanager
def alone(folder: Path, steps: int) -> Iterator[None]:
    """A context in which no other process trains the run.

    The lock disappears with its process, even after a crash. A run that has all its `steps` needs no lock, so its
    folder may be read-only.
    """
    lock = FileLock(folder / LOCK)

    def acquire() -> None:
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(f"{folder} is being trained by another process; wait for it, or stop it first") from error
        except OSError:
            if not is_finished(folder / CHECKPOINTS, steps):
                raise

    processes.on_main(acquire)
    try:
        yield
    finally:
        lock.release()


def check_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir())):
        run = (folder / RECIPE).exists()
        held, further = ("a run", ", or continue with: jensen resume") if run else ("something", "")
        raise InputError(f"--out {folder} holds {held} already; give a new folder{further}")


def establish(folder: Path, recipe: AbstractRecipe, spec: DataSpec) -> None:
    """Make the folder, which may hold a first checkpoint, a run; the recipe, which makes it complete, comes last."""
    try:
        write_json(folder / DATA, spec)
        write_json(folder / RECIPE, recipe)
    except BaseException:
        if not (folder / RECIPE).exists():
            (folder / DATA).unlink(missing_ok=True)  # so that the same command can be run again
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        raise


class Change(Value):
    """A change of the training settings of a run."""

    recipe: str
    """The digest of the recipe before the change."""
    step: int
    """The last step trained with the recipe before the change."""
    before: dict[str, int | float]
    after: dict[str, int | float]
    """The changed settings by name, with their new values; `before` has the old ones."""
    date: str
    """ISO 8601, UTC."""
    jensen: str
    """The version of jensen that made the change."""
    replanned: bool = False
    """Whether the training changed its own number of steps to end in time; `resume` makes all other changes."""

    @property
    def sentence(self) -> str:
        """The change in words."""
        changed = ", ".join(f"{name} from {self.before[name]:g} to {self.after[name]:g}" for name in self.after)
        reason = ", to end in time" if self.replanned else ""
        return f"after step {self.step:,}: {changed}{reason} ({self.date}, jensen {self.jensen})"


class History(Value):
    """history.json: every change of the training, oldest first."""

    changes: tuple[Change, ...] = ()


def read_history(folder: Path) -> tuple[Change, ...]:
    """The changes of a run's training settings; empty if one recipe was used throughout."""
    found = read_record(folder / HISTORY, History, "restore it from a copy")
    return found.changes if found else ()


def commanded(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The changes that commands `resume` made, so that the same commands can be given again.

    During a training, the plan may change the number of steps. Such a change is added to the command before it; if
    there is none, the recipe already contains it.
    """
    found: list[Change] = []
    for change in changes:
        if not change.replanned:
            found.append(change)
        elif found:
            found[-1] = found[-1].model_copy(update={"after": found[-1].after | change.after})
    return tuple(found)


def changed_recipe(folder: Path, recipe: AbstractRecipe, changes: dict[str, Any]) -> tuple[AbstractRecipe, Change]:
    """The recipe with other training settings, and the record of the change.

    Nothing is written. Raises `InputError` for fewer steps than have been trained.
    """
    saved = checkpoints(folder / CHECKPOINTS)
    done = step_of(saved[-1]) if saved else 0
    if changes.get("steps", done + 1) <= done:
        raise InputError(f"--steps {changes['steps']}: {folder} has been trained for {done} steps; give more")
    changed = {**recipe.training.model_dump(), **changes}
    values = {**recipe.model_dump(mode="json"), "training": changed}
    new = read_recipe(values, f"jensen resume {folder}")
    return new, change_of(recipe, new, tuple(changes), done, recorded_digest(folder))


def change_of(
    recipe: AbstractRecipe,
    new: AbstractRecipe,
    names: tuple[str, ...],
    step: int,
    digest: str,
    *,
    replanned: bool = False,
) -> Change:
    """The record of a change of the training settings `names` after step `step`; `digest` is that of `recipe`."""
    return Change(
        recipe=digest,
        step=step,
        before={name: getattr(recipe.training, name) for name in names},
        after={name: getattr(new.training, name) for name in names},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        jensen=jensen_version(),
        replanned=replanned,
    )


def record_change(folder: Path, recipe: AbstractRecipe, change: Change) -> None:
    """Write the change into history.json and the changed recipe into recipe.json."""
    # History first: a crash before the recipe is written leaves the old recipe, whose digest remains valid
    write_record(folder / HISTORY, History(changes=(*read_history(folder), change)))
    write_json(folder / RECIPE, recipe)


def recipe_digest(recipe: AbstractRecipe) -> str:
    """SHA-256 of a recipe without paths (of the data, of another run), the device, the sharding and the trackers."""
    return _digest(recipe.model_dump(mode="json"))


def recorded_digest(folder: Path) -> str:
    """The `recipe_digest` of the jensen that wrote recipe.json; a later version may have more settings."""
    return _digest(_read_json(folder / RECIPE))


def _digest(values: dict[str, Any]) -> str:
    def without(part: dict[str, Any] | None, *names: str) -> dict[str, Any]:
        return {name: value for name, value in (part or {}).items() if name not in names}

    said = without(values, "data") | {
        "training": without(values.get("training"), "device", "sharding", "trackers"),
        "start_from": without(values.get("start_from"), "path"),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: BaseModel) -> None:
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


WANDB = "wandb"  # the folder of that tracker


def recipe_of(folder: Path) -> AbstractRecipe:
    """The recipe of the run in `folder`.

    Raises `InputError` for links that lead out of the run, because files elsewhere could be read or replaced.
    """
    values, inside = _read_json(folder / RECIPE), folder.resolve()
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise InputError(
                    f"{path} is a link that leads out of the run; replace it by a copy of its target, or remove it"
                )
        if Path(parent) == folder and WANDB in folders:  # has links to its own logs elsewhere; no file in it is read
            folders.remove(WANDB)
    return read_recipe(values, str(folder / RECIPE))


def read_spec(folder: Path) -> DataSpec:
    try:
        return DataSpec.model_validate(_read_json(folder / DATA))
    except ValidationError as error:
        raise InputError(f"{folder / DATA}: {explain(error)}") from error
