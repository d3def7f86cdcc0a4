"""A training that ends in time: how long its parts really take, and a new number of steps where the plan was wrong."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jensen import processes
from jensen.training.plan import Costs, Sizes, seconds, steps_within
from jensen.training.settings import TrainingSettings

LOOK_SECONDS = 1.0  # between two looks at the clock
TOLERANCE = 0.02  # share of the whole time by which a plan may be wrong
SOONER = 0.35  # share of the remaining time, and of the remaining steps, until plan and clock are compared again
CHECKPOINT_SECONDS = 60.0  # between two checkpoints; the first comes after half of it


@dataclass(frozen=True)
class Budget:
    """The time of a training, the moment of its end, and how a new number of steps is recorded."""

    seconds: float
    end: float
    """On the clock `time.monotonic`."""
    costs: Costs
    sizes: Sizes
    record: Callable[[TrainingSettings, int], None]
    """Called with the new settings and the step that was trained last, before any step with the new settings."""


@dataclass
class Stopwatch:
    """Measures the time of steps, validations and grids in one session of training, and says when to save.

    The clock is read every second or so. All processes read the clock of the main process, and at the same steps, so
    decisions by time are the same in all processes.
    """

    step: int
    clock: Callable[[], float] = time.monotonic
    aside: float = 0.0  # seconds spent on other work than steps
    took: dict[str, float] = field(default_factory=dict)  # seconds of the last work of each kind

    def __post_init__(self) -> None:
        self.began = self.saved = processes.from_main(self.clock())
        self._look = self.step + 1
        self._wait = CHECKPOINT_SECONDS / 2

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """A context for work that is not a step."""
        began, before = self.clock(), self.aside
        yield
        self.took[name] = self.clock() - began
        self.aside = before + self.took[name]  # which contains the work inside this work

    def look(self, step: int) -> float | None:
        """The present time, or None if it is too early to read the clock again."""
        if step < self._look:
            return None
        now = processes.from_main(self.clock())
        pace = max(now - self.began, 1e-6) / (step - self.step)
        self._look = step + max(1, int(LOOK_SECONDS / pace))
        return now

    def save_now(self, now: float) -> bool:
        """Whether the last checkpoint is so old that a new one is due."""
        wait = max(self._wait, 20 * self.took.get("checkpoint", 0.0))
        due = bool(processes.from_main(now - self.saved >= wait))
        if due:
            self.saved, self._wait = now, CHECKPOINT_SECONDS
        return due


class Pilot:
    """Compares plan and clock a few times in a training, and changes the number of steps if the two differ.

    In a training with stages, the comparisons start at step `first`, where the last stage begins. The earlier stages
    have a fixed length, and their steps have another speed.
    """

    def __init__(self, budget: Budget, watch: Stopwatch, steps: int, first: int = 0) -> None:
        self._budget, self._watch, self._first = budget, watch, first
        # Seconds of an example and of a sample, in steps
        self._relative = {
            "validation": budget.costs.example / budget.costs.step,
            "grid": budget.costs.sample / budget.costs.step,
        }
        self._seen: dict[str, float] = {}
        self._begin(watch.step, watch.began, steps)

    def _begin(self, step: int, now: float, end: int) -> None:
        """Begin a stretch of steps over which the speed is measured; `end` is the last step of the training."""
        self._step, self._time, self._aside = step, now, self._watch.aside
        self._next_time = now + SOONER * (self._budget.end - now)
        self._next_step = step + SOONER * (end - step)

    def steered(self, settings: TrainingSettings, step: int, now: float) -> TrainingSettings | None:
        """The settings with a new number of steps, decided after step `step`, or None if the plan still fits."""
        if step < self._first or (self._step >= self._first and now < self._next_time and step < self._next_step):
            return None
        if step <= self._step or self._step < self._first:  # training went back, or its last stage begins
            self._begin(step, now, settings.steps)
            return None
        budget, left = self._budget, self._budget.end - now
        pace = (now - self._time - (self._watch.aside - self._aside)) / (step - self._step)
        costs = self._costs_at(max(pace, 1e-9), settings)
        wrong = abs(seconds(costs, settings, budget.sizes, step, settings.steps) - left)
        fitting = steps_within(costs, settings, budget.sizes, step, left)
        steps = int(processes.from_main(fitting if wrong > TOLERANCE * budget.seconds else settings.steps))
        self._begin(step, now, steps)
        if steps == settings.steps:
            return None
        new = settings.model_copy(update={"steps": steps, "replans": (*settings.replans, (step, settings.steps))})
        budget.record(new, step)
        return new

    def _costs_at(self, pace: float, settings: TrainingSettings) -> Costs:
        """The costs if a step takes `pace` seconds; other work scales with the step, relative to its last timing."""
        budget = self._budget
        counts = {"validation": budget.sizes.validated(settings), "grid": budget.sizes.sampled(settings)}
        for name, count in counts.items():
            took = self._watch.took.get(name)
            if took is not None and took != self._seen.get(name):
                self._seen[name], self._relative[name] = took, took / count / pace
        slower = pace / budget.costs.step
        return Costs(
            pace, self._relative["validation"] * pace, self._relative["grid"] * pace, budget.costs.end * slower
        )
