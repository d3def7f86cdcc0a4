"""Divergence: the checks that detect it, and the rollback to the last good checkpoint."""

import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from jensen import processes
from jensen.training.checkpoint import checkpoints, first_good, load_checkpoint, set_aside, step_of
from jensen.training.state import LeftOut, TrainingState

HISTORY = 10  # number of previous mean losses that the next one is compared with


class DivergenceError(Exception):
    """Training diverged in the steps `first`..`last`, counted from 1; `what` describes the first bad value."""

    def __init__(self, first: int, last: int, what: str) -> None:
        super().__init__(what)
        self.first, self.last, self.what = first, last, what

    @property
    def steps(self) -> str:
        """The steps in words."""
        return f"step {self.last}" if self.first == self.last else f"steps {self.first} to {self.last}"


def check_values(step: int, values: Mapping[str, float]) -> None:
    """Raise `DivergenceError` if one of a step's values is not finite.

    The error names the last value that is not finite. In `values` the terms of the loss follow the loss, and a term
    explains more than the sum.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise DivergenceError(step, step, f"{bad[-1]} is {values[bad[-1]]}, expected a finite number")


def check_state(state: TrainingState) -> None:
    """Raise `DivergenceError` if a weight or a moment of an optimiser is not finite, as it would never recover."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    moments = {
        f"moment {moment} of {names[id(parameter)]}": value
        for optimiser in state.optimisers
        for parameter, moments in optimiser.state.items()
        for moment, value in moments.items()
        if isinstance(value, torch.Tensor)
    }
    for name, tensor in (state.model.state_dict() | moments).items():
        if processes.anywhere(not torch.isfinite(processes.stored(tensor)).all()):
            raise DivergenceError(state.step, state.step, f"{'' if name in moments else 'weight '}{name} is not finite")


def check_loss(first: int, last: int, loss: float, before: Sequence[float], explosion: float | None) -> None:
    """Raise `DivergenceError` if the mean loss of the steps first..last is far above the ten means `before` it.

    Far above means loss - median > explosion * range, where median and range are those of the ten means. The range
    includes the trend as well as the noise, so the limit is higher while the loss falls fast.
    """
    if explosion is None or len(before) < HISTORY:
        return
    usual, spread = statistics.median(before), max(before) - min(before)
    if loss - usual > explosion * max(spread, 1e-6 * abs(usual)):
        excess = f"more than {explosion:g} times the range of the {HISTORY} means before it above their median"
        raise DivergenceError(first, last, f"the mean loss is {loss:.4g}, {excess}, {usual:.4g}")


def roll_back(folder: Path, state: TrainingState, trouble: DivergenceError) -> bool:
    """Load the last good checkpoint before the divergence into `state`, and mark the diverged steps to be left out.

    Checkpoints after the divergence are removed. If there is no checkpoint before the divergence, nothing changes, and
    the result is False.

    The process may be killed at any point of this function. The result of a training depends only on the left-out
    steps, and a resumed training finds the same left-out steps from every checkpoint.
    """
    saved = checkpoints(folder)[::-1]
    good = [path for path in saved if step_of(path) < trouble.first]
    if not good:
        return False
    left_out, at_once = state.left_out, state.micro_batch_size
    with processes.together():
        path, _ = first_good(good, lambda path: load_checkpoint(path, state))
    state.left_out = [*left_out, LeftOut(first=trouble.first, last=trouble.last, reason=trouble.what)]
    state.micro_batch_size = at_once
    processes.on_main(lambda: _clear(saved[: saved.index(path)], good))
    return True


def _clear(passed_over: Sequence[Path], good: Sequence[Path]) -> None:
    set_aside([damaged for damaged in passed_over if damaged in good])
    for later in passed_over:
        if later not in good:
            shutil.rmtree(later)
