"""The plan of a training, made before its first step: how many steps fit into the minutes, and what to expect."""

import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta

from jensen import processes
from jensen.data.examples import Dataset
from jensen.progress import say
from jensen.recipe.settings import AbstractRecipe
from jensen.records import Value
from jensen.training.budget import Budget
from jensen.training.measure import measured, sizes_of
from jensen.training.plan import Costs, Sizes, planned, seconds, steps_within
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState

SHARE = 0.05  # maximum share of the time of a training that measuring its speed takes
SHORT = 2.0  # seconds of a training that needs no announcement
MANY_PIXELS = 1024  # from which two CPU threads share a convolution well
OVERRUN = 1.1  # times the minutes, and two seconds more, above which a warning says so


class Plan(Value):
    """plan.json: what was known about the time of the training before its first step."""

    minutes: float | None
    """The minutes that were asked for; None if steps were."""
    steps: int
    seconds_per_step: float
    seconds_per_validation_example: float
    seconds_per_sample: float
    memory_bytes: int | None
    """The peak memory of the main process so far; None if it is unknown."""
    expected_seconds: float
    """From the start of the command to its end."""


class Timing:
    """The speed of a training on this machine, and the time that it may take."""

    def __init__(
        self, recipe: AbstractRecipe, dataset: Dataset, start: Callable[[], TrainingState], began: float | None
    ) -> None:
        self.began = processes.from_main(time.monotonic() if began is None else began)
        self.sizes: Sizes = sizes_of(dataset)
        self._start = start
        self._dataset, self._recipe = dataset, recipe
        self.costs: Costs | None = None

    def measure(self, settings: TrainingSettings, done: int = 0) -> None:
        """Measure the costs of the steps after step `done`, unless they are too few for it."""
        self.costs = measured(self._start, self._dataset, settings, self._recipe.seed, SHARE, done)

    def left(self, minutes: float) -> float:
        """The seconds until the end of `minutes`, counted from the beginning."""
        return self.began + 60 * minutes - processes.from_main(time.monotonic())

    def planned(self, settings: TrainingSettings) -> TrainingSettings:
        """The settings of a new training, with everything that was left to the plan."""
        limit = self.left(settings.minutes) if settings.minutes else None
        return planned(settings, self.sizes, self.costs, limit)

    def steps(self, settings: TrainingSettings, done: int, minutes: float) -> int:
        """The total number of steps of a training that continues from step `done` for `minutes`."""
        assert self.costs is not None  # for minutes, costs are always measured
        return max(done + 1, steps_within(self.costs, settings, self.sizes, done, self.left(minutes)))

    def plan(self, settings: TrainingSettings, done: int, minutes: float | None) -> Plan | None:
        """The plan that plan.json records; None if nothing was measured."""
        if self.costs is None:
            return None
        rest = seconds(self.costs, settings, self.sizes, done, settings.steps)
        return Plan(
            minutes=minutes,
            steps=settings.steps,
            seconds_per_step=self.costs.step,
            seconds_per_validation_example=self.costs.example,
            seconds_per_sample=self.costs.sample,
            memory_bytes=peak_memory(),
            expected_seconds=processes.from_main(time.monotonic()) - self.began + rest,
        )

    def budget(self, minutes: float, record: Callable[[TrainingSettings, int], None]) -> Budget:
        """The budget for `fit`; `record` is called with every change of the number of steps."""
        assert self.costs is not None
        return Budget(60 * minutes, self.began + 60 * minutes, self.costs, self.sizes, record)

    def warn_of_overrun(self, minutes: float | None) -> None:
        """Warn if the training took much longer than the minutes that were asked for."""
        taken = -self.left(0)
        if minutes and taken > OVERRUN * 60 * minutes + SHORT:
            warnings.warn(
                f"training took {_duration(taken)} instead of {_duration(60 * minutes)}: the machine became slower, or "
                "the minutes are too few for one step, one validation and one grid of samples",
                stacklevel=2,
            )

    def announce(self, state: TrainingState, settings: TrainingSettings, plan: Plan | None) -> None:
        """Say what the training will take, unless it is short, or has so few steps that nothing was measured."""
        if plan is None or self.costs is None:
            return
        done = state.step
        weights = _count(sum(parameter.numel() for parameter in state.model.parameters()))
        passes = settings.batch_size / self.sizes.training
        ending = f"; stops when the validation bound has not risen {settings.patience} times" * bool(settings.patience)
        left = settings.steps - done
        to_do = f"{left:,} steps ({_figures(left * passes)} passes over {self.sizes.training:,} examples)"
        rest = seconds(self.costs, settings, self.sizes, done, settings.steps)
        if rest < SHORT:
            return
        memory = "" if plan.memory_bytes is None else f"{plan.memory_bytes / 1e9:.2g} GB of memory, "
        most = "at most " * bool(settings.patience)
        until = datetime.now() + timedelta(seconds=rest)
        say(
            f"training: {weights} weights, {memory}{_figures(self.costs.step)} s a step; {to_do} take {most}"
            f"{_duration(rest)}, until {until:%H:%M}{f' on {until:%d %B}' if rest > 43200 else ''}{ending}; "
            f"{_duration(rest / 2)} would be about {_figures(left * passes / 2)} passes, {_duration(2 * rest)} "
            f"{_figures(left * passes * 2)}{self._advice(state, settings)}"
        )

    def _advice(self, state: TrainingState, settings: TrainingSettings) -> str:
        """That more CPU threads are faster, if the convolutions are large enough and the machine has more."""
        spec, cores = self._dataset.spec, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        large = spec.pictured and math.prod(spec.shape[1:]) >= MANY_PIXELS
        if not large or cores == 1 or settings.threads > 1 or state.model.device.type != "cpu" or processes.count() > 1:
            return ""
        return f"; on an idle machine --threads {cores} is faster"


def peak_memory() -> int | None:
    """The peak memory of this process in bytes; None if the system does not report it."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"


def _figures(value: float) -> str:
    """The value with two significant figures, without an exponent."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _duration(rest: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if rest >= 1.5 * size:
            return f"{_figures(rest / size)} {unit}"
    return f"{rest:.0f} s"
