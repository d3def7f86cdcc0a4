"""Checkpoints: safetensors and JSON, written whole or not at all, never unpickled.

checkpoints/step-00001000/model.safetensors        weights, and their moving average under "ema/"
                          optimiser.safetensors    the optimisers' moments
                          state.json               step, best bound, SHA-256 of all three files
"""

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.optim import AdamW, Optimizer, SparseAdam

from jensen import processes
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel
from jensen.records import write_file
from jensen.training.muon import Muon
from jensen.training.state import LeftOut, TrainingState

Value = TypeVar("Value")

FORMAT = 1
DAMAGED = ".damaged"  # appended to the name of an unusable checkpoint
MODEL, OPTIMISER, STATE = "model.safetensors", "optimiser.safetensors", "state.json"
EMA = "ema/"
MOMENTS: dict[type[Optimizer], set[str]] = {
    AdamW: {"step", "exp_avg", "exp_avg_sq"},
    SparseAdam: {"step", "exp_avg", "exp_avg_sq"},
    Muon: {"momentum_buffer"},
}


class Scaler(BaseModel):
    """The state of a `GradScaler`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    scale: float = Field(gt=0)
    growth_factor: float = Field(gt=1)
    backoff_factor: float = Field(gt=0, lt=1)
    growth_interval: int = Field(ge=1, lt=1 << 31)
    growth_tracker: int = Field(ge=0, lt=1 << 31, alias="_growth_tracker")


class Record(BaseModel):
    """state.json: the counters, the plain numbers in the optimisers' state, and the checksums of all files."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    format: int
    step: int = Field(ge=0)
    best_step: int = Field(ge=0)
    best_bound: float | None
    stale_validations: int = Field(ge=0)
    converged: bool
    window: list[dict[str, float]]
    losses: list[float] = []
    left_out: list[LeftOut] = []
    micro_batch_size: int | None = Field(default=None, ge=1)
    scaler: Scaler | None = None
    recipe: str = ""
    """The digest of the run's recipe."""
    optimisers: list[list[dict[str, Any]]]
    """The options of each optimiser's parameter groups; only for information, since loading uses the recipe's."""
    optimiser_numbers: dict[Annotated[str, Field(pattern=r"^\d+/\d+/\w+$")], int | float]
    sha256: dict[str, str]
    """Checksums by file name; the one of state.json is of its content without that entry."""

    def sealed(self) -> bytes:
        """The content of the file, including its own checksum."""
        self.sha256.pop(STATE, None)
        self.sha256[STATE] = _sum(self._written())
        return self._written()

    @property
    def whole(self) -> bool:
        """Whether the checksum is right; a file of an older version, which has no checksum, is trusted."""
        bare = self.model_copy(update={"sha256": {name: s for name, s in self.sha256.items() if name != STATE}})
        known = self.sha256.get(STATE)
        return {MODEL, OPTIMISER} <= self.sha256.keys() and known in (None, _sum(bare._written()))

    def _written(self) -> bytes:
        # Files of older versions lack newer fields; leaving those out gives the bytes that their checksum covers
        return self.model_dump_json(indent=1, exclude_unset=True, by_alias=True).encode()


class DamagedCheckpointError(InputError):
    """A checkpoint is truncated, altered or incomplete; an earlier one may be good."""


# ---------------------------------------------------------------------------------------------- write


def save_checkpoint(folder: Path, state: TrainingState, keep_last: int, judged: int | None = None) -> Path:
    """Write `state` as a new checkpoint under `folder`, and remove old checkpoints.

    The best checkpoint and the last `keep_last` checkpoints are kept. Two more are kept, because training after step
    `judged` may turn out to have diverged: the last one up to step `judged`, and the one that was the best at step
    `judged`.
    """
    final = folder / f"step-{state.step:08d}"
    weights = _gathered(state.model.state_dict())
    if state.ema:
        weights |= _gathered({EMA + name: tensor for name, tensor in state.ema.state().items()})
    moments, numbers, groups = _optimiser_state(state)

    def write() -> None:
        contents = {MODEL: save(weights), OPTIMISER: save(moments)}
        contents[STATE] = _record(state, contents, numbers, groups).sealed()
        _put(final, contents)
        tidy(folder, state, keep_last, judged)

    processes.on_main(write)
    return final


def _gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The full tensors in the main process, which writes them; an empty dict in other processes."""
    found = {}
    # All processes must gather in the same order. Sorting makes sure: loaded moments are in another order than new ones
    for name, tensor in sorted(tensors.items()):
        full = processes.whole(tensor)
        if processes.is_main():
            found[name] = full.contiguous() if full is tensor else full.cpu()
    return found


def _record(
    state: TrainingState, contents: Mapping[str, bytes], numbers: dict[str, Any], groups: list[list[dict[str, Any]]]
) -> Record:
    return Record(
        format=FORMAT,
        step=state.step,
        best_step=state.best_step,
        best_bound=state.best_bound if math.isfinite(state.best_bound) else None,
        stale_validations=state.stale_validations,
        converged=state.converged,
        window=state.window,
        losses=state.losses,
        left_out=state.left_out,
        micro_batch_size=state.micro_batch_size,
        scaler=Scaler(**state.scaler.state_dict()) if state.scaler else None,
        recipe=state.recipe,
        optimisers=groups,
        optimiser_numbers=numbers,
        sha256={name: _sum(content) for name, content in contents.items()},
    )


def _put(final: Path, contents: Mapping[str, bytes]) -> None:
    """Write a folder of files whole or not at all."""
    temporary = final.with_name(f".{final.name}.tmp")
    for old in (temporary, final):
        shutil.rmtree(old, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, content in contents.items():
            write_file(temporary / name, content)
        temporary.rename(final)  # atomic: a crash leaves the whole checkpoint or none
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # half a checkpoint would only fill the disk
        raise
    _flush_folder(final.parent)  # otherwise a power failure may undo the rename


def tidy(folder: Path, state: TrainingState, keep_last: int, judged: int | None) -> None:
    """Remove the checkpoints that `save_checkpoint` does not keep; the last one is that of `state`."""
    saved = checkpoints(folder)
    undoubted = [path for path in saved if judged is not None and step_of(path) <= judged][-1:]
    kept = {state.best_step, *map(_best_known, undoubted)} - {0} | {step_of(path) for path in undoubted}
    for old in saved[:-keep_last]:
        if step_of(old) not in kept:
            shutil.rmtree(old)


def _best_known(path: Path) -> int:
    """The best step so far, from the checkpoint at `path`, for a rollback to this checkpoint; 0 if there is none."""
    try:
        return _read_record(path).best_step
    except DamagedCheckpointError:
        return 0


def _optimiser_state(state: TrainingState) -> tuple[dict[str, Tensor], dict[str, Any], list[list[dict[str, Any]]]]:
    """The optimisers' tensors and numbers by "optimiser/parameter/name", and the options of parameter groups."""
    moments: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    groups = []
    for number, optimiser in enumerate(state.optimisers):
        saved = optimiser.state_dict()
        for parameter, values in saved["state"].items():
            for name, value in values.items():
                key = f"{number}/{parameter}/{name}"
                if isinstance(value, Tensor):
                    moments[key] = value
                else:
                    numbers[key] = value
        groups.append([{k: v for k, v in group.items() if k != "params"} for group in saved["param_groups"]])
    return _gathered(moments), numbers, groups


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------------------------------------- read


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, oldest first."""
    return sorted((path for path in folder.glob("step-*") if path.name[len("step-") :].isdecimal()), key=step_of)


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the best validation bound, else the last checkpoint, else None; warns of damaged ones."""
    found = checkpoints(folder)
    if not found:
        return None
    best = first_good(found[::-1], lambda path: _read_record(path).best_step)[1]
    return next((path for path in found if best and step_of(path) == best), found[-1])


def is_finished(folder: Path, steps: int) -> bool:
    """Whether training had converged or done `steps` steps at the last undamaged checkpoint."""
    found = checkpoints(folder)
    if not found:
        return False
    record = first_good(found[::-1], _read_record)[1]
    return record.converged or record.step >= steps


def first_good(paths: Sequence[Path], use: Callable[[Path], Value]) -> tuple[Path, Value]:
    """The first undamaged checkpoint of `paths`, and the result of `use` on it.

    Warns of damaged checkpoints before it. Raises the first `DamagedCheckpointError` if all are damaged.
    """
    complaints: list[DamagedCheckpointError] = []
    for path in paths:
        try:
            found = use(path)
        except DamagedCheckpointError as complaint:
            complaints.append(complaint)
            continue
        if complaints:
            reasons = "; ".join(str(complaint) for complaint in complaints)
            warnings.warn(f"{reasons}. Using {path} in its place", stacklevel=3)
        return path, found
    raise complaints[0]


def set_aside(paths: Sequence[Path]) -> None:
    """Rename damaged checkpoints, so that they are not used again and not lost."""
    for path in paths:
        path.rename(_unused(path.with_name(path.name + DAMAGED)))


def _unused(path: Path) -> Path:
    numbers = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(name for name in chain([path], numbers) if not name.exists())


def load_weights(path: Path, model: AbstractLatentVariableModel, recipes: Collection[str] = ()) -> None:
    """Load the checkpoint's weights into `model`: the averaged weights, if the checkpoint has them.

    `recipes` are the digests of the run's recipes. Raises `InputError` if `recipes` is not empty and the checkpoint was
    trained by another recipe.
    """
    _refuse_other_recipe(path, _read_record(path), recipes)
    tensors = _read_tensors(path, MODEL)
    averaged = {name.removeprefix(EMA): tensor for name, tensor in tensors.items() if name.startswith(EMA)}
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(EMA)}
    _fill(model, weights | averaged, path)


def load_checkpoint(path: Path, state: TrainingState) -> None:
    """Load a whole checkpoint into `state`; raises `InputError` if `state` is of another recipe."""
    record = _read_record(path)
    _refuse_other_recipe(path, record, (state.recipe, *state.earlier_recipes) if state.recipe else ())
    tensors, moments = _read_tensors(path, MODEL), _read_tensors(path, OPTIMISER)
    averaged = any(name.startswith(EMA) for name in tensors)
    if len(record.optimisers) != len(state.optimisers) or averaged != (state.ema is not None):
        raise InputError(f"{path} was made with another optimiser or ema_decay than the recipe's; restore recipe.json")
    _fill(state.model, {name: t for name, t in tensors.items() if not name.startswith(EMA)}, path)
    if state.ema:
        state.ema.load({name.removeprefix(EMA): t for name, t in tensors.items() if name.startswith(EMA)})
    try:
        kept = record.optimiser_numbers | moments
        if strangers := {key.split("/")[0] for key in kept} - {str(n) for n in range(len(state.optimisers))}:
            raise ValueError(f"moments of optimiser {min(strangers)}, of {len(state.optimisers)}")
        for number, optimiser in enumerate(state.optimisers):
            _load_moments(optimiser, number, kept)
    except (ValueError, IndexError) as error:
        raise InputError(f"{path / OPTIMISER} does not fit the run's recipe ({error}); restore recipe.json") from error
    state.step, state.best_step = record.step, record.best_step
    state.best_bound = -math.inf if record.best_bound is None else record.best_bound
    state.stale_validations, state.converged = record.stale_validations, record.converged
    state.window, state.losses = record.window, record.losses
    state.left_out = record.left_out
    state.micro_batch_size = min(filter(None, (state.micro_batch_size, record.micro_batch_size)), default=None)
    if state.scaler and record.scaler:
        state.scaler.load_state_dict(record.scaler.model_dump(by_alias=True))


def _refuse_other_recipe(path: Path, record: Record, recipes: Collection[str]) -> None:
    if recipes and record.recipe not in recipes:
        raise InputError(
            f"{path} was trained by another recipe than recipe.json is now: restore recipe.json; steps and learning "
            "rate are changed by: jensen resume RUN --steps N --learning-rate X"
        )


def _load_moments(optimiser: Optimizer, number: int, values: dict[str, Tensor | int | float]) -> None:
    """Load the state of one optimiser, not its options. Raises ValueError or IndexError for values that do not fit."""
    groups = optimiser.state_dict()["param_groups"]
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor | int | float]] = {}
    for key, value in values.items():
        owner, place, name = key.split("/")
        if int(owner) == number:
            parameter = parameters[int(place)]
            expected = () if name == "step" else tuple(parameter.shape)
            shape = tuple(value.shape) if isinstance(value, Tensor) else ()
            if shape != expected:
                raise ValueError(f"{key} has shape {shape}, expected {expected}")
            part = processes.own_part(value, parameter) if isinstance(value, Tensor) else value
            slots.setdefault(int(place), {})[name] = part
    names = MOMENTS[type(optimiser)]
    if any(slot.keys() != names for slot in slots.values()):
        raise ValueError(f"moments of {type(optimiser).__name__} other than {', '.join(sorted(names))}")
    optimiser.load_state_dict({"state": slots, "param_groups": groups})


def _fill(model: AbstractLatentVariableModel, weights: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    try:
        model.load_state_dict({name: processes.own_part(t, own.get(name, t)) for name, t in weights.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path / MODEL} does not fit the run's recipe ({reason}); restore recipe.json") from error


def _read_record(path: Path) -> Record:
    try:
        values = json.loads((path / STATE).read_bytes())
        newer = isinstance(values["format"], int) and values["format"] > FORMAT
        record = None if newer else Record.model_validate(values, strict=True)
        if record and not record.whole:
            raise ValueError("wrong checksum")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path / STATE} is missing or damaged; restore it from a copy") from error
    if record is None:
        raise InputError(f"{path} has a newer format than {FORMAT}, the last this jensen reads; install a newer jensen")
    return record


def _read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    expected = _read_record(path).sha256[name]
    advice = "restore it from a copy"
    try:
        content = (path / name).read_bytes()
    except OSError as error:
        raise DamagedCheckpointError(f"{path / name} cannot be read ({error.strerror}); {advice}") from error
    if _sum(content) != expected:
        raise DamagedCheckpointError(
            f"{path / name} is truncated or altered: its SHA-256 is not the recorded one; {advice}"
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise DamagedCheckpointError(f"{path / name} is not a safetensors file ({error}); {advice}") from error


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def step_of(path: Path) -> int:
    """The training step of a checkpoint, from its folder name."""
    return int(path.name.removeprefix("step-"))
