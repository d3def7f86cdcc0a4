"""Numbers that go bad: what counts as that, and the way back to before it."""

import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from jensen import processes
from jensen.training.checkpoint import checkpoints, first_good, load_checkpoint, set_aside, step_of
from jensen.training.state import LeftOut, TrainingState

HISTORY = 10  # means of the loss that the next one is compared with


class DivergenceError(Exception):
    """The numbers went bad at the steps `first`..`last`, counted from 1; `what` names the first bad one."""

    def __init__(self, first: int, last: int, what: str) -> None:
        super().__init__(what)
        self.first, self.last, self.what = first, last, what

    @property
    def steps(self) -> str:
        """Which steps, in words."""
        return f"step {self.last}" if self.first == self.last else f"steps {self.first} to {self.last}"


def check_values(step: int, values: Mapping[str, float]) -> None:
    """Raise `DivergenceError` where one of a step's values is not finite; names the last, a term before their sum."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise DivergenceError(step, step, f"{bad[-1]} is {values[bad[-1]]}, expected a finite number")


def check_state(state: TrainingState) -> None:
    """Raise `DivergenceError` where a weight is not finite, or an optimiser's moment, which would stay so for good."""
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
    """Raise `DivergenceError` where the mean loss of the steps first..last is far above the ten means `before` it.

    Far: loss - median > explosion * range. The range holds the trend as well as the noise, so that a loss that falls
    is judged mildly.
    """
    if explosion is None or len(before) < HISTORY:
        return
    usual, spread = statistics.median(before), max(before) - min(before)
    if loss - usual > explosion * max(spread, 1e-6 * abs(usual)):
        excess = f"more than {explosion:g} times the range of the {HISTORY} means before it above their median"
        raise DivergenceError(first, last, f"the mean loss is {loss:.4g}, {excess}, {usual:.4g}")


def roll_back(folder: Path, state: TrainingState, trouble: DivergenceError) -> bool:
    """Put the last good checkpoint of before the trouble back into `state`, whose steps are to be left out from now on.

    Checkpoints of what is given up go. False, and nothing is changed, where no such checkpoint is left.

    What a training comes to depends only on which steps it leaves out, and these it finds again: so it may be killed
    anywhere in here and be resumed from whichever checkpoint is the last.
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
