"""A training in seconds: what a number of steps takes, and the settings that fit into a time. Imports no torch.

The plan is made once, from measured costs, and recorded in the settings. So the training remains a pure function of its
settings, and only the choice of the settings depends on the machine.
"""

import math
from dataclasses import dataclass
from typing import Any

from jensen.training.settings import TrainingSettings

FIRST_LOOK = 30.0  # seconds of training until the first validation and the first grid
LATE = 50.0  # a first validation or grid after more seconds than this gets an earlier one
LOOKS = 10  # maximum number of validations, and of grids, in a training of given minutes
SHARE = 0.02  # maximum share of the minutes of a single validation or grid
ALL_SHARE = 0.1  # maximum share of the minutes of all validations, and of all grids
FEW_PASSES = 100  # a training of the default length that is more passes than this ends at convergence
PATIENCE = 5
CHECKS = 40  # validations in the default length, if training ends at convergence


@dataclass(frozen=True)
class Costs:
    """The seconds for a step, for the bound of a validation example, for a sample, and for the work after training."""

    step: float
    example: float = 0.0
    sample: float = 0.0
    end: float = 0.0


@dataclass(frozen=True)
class Sizes:
    """The facts about the data that a plan depends on."""

    training: int
    validation: int
    pictures: bool
    """Whether there are grids of samples."""

    def validated(self, settings: TrainingSettings) -> int:
        """The number of examples of a validation; 0 if there are none."""
        return min(settings.validation_examples, self.validation)

    def sampled(self, settings: TrainingSettings) -> int:
        """The number of samples of a grid; 0 if there are no grids."""
        return settings.grid_samples if self.pictures else 0


def is_look(step: int, every: int, settings: TrainingSettings) -> bool:
    """Whether a validation (or grid) is due after step `step`: at multiples of `every`, at the end, and early on."""
    if step == settings.steps or step % every == 0:
        return True
    doublings, rest = divmod(step, settings.first_look or step + 1)
    return step < every and rest == 0 and doublings.bit_count() == 1


def looks(every: int, settings: TrainingSettings, done: int, steps: int) -> int:
    """The number of validations (or grids) after step `done` until the last of `steps` steps."""
    if steps <= done:
        return 0
    early, first = 0, settings.first_look
    while first and first < min(every, steps):
        early += first > done
        first *= 2
    return steps // every - done // every + (steps % every > 0) + early


def seconds(costs: Costs, settings: TrainingSettings, sizes: Sizes, done: int, steps: int) -> float:
    """The expected seconds of training from step `done` to the last of `steps` steps."""
    validations = looks(settings.validate_every, settings, done, steps) * sizes.validated(settings)
    samples = looks(settings.sample_every, settings, done, steps) * sizes.sampled(settings)
    return (steps - done) * costs.step + validations * costs.example + samples * costs.sample + costs.end


def steps_within(costs: Costs, settings: TrainingSettings, sizes: Sizes, done: int, limit: float) -> int:
    """The number of steps, `done` steps included, that a training can reach within `limit` seconds.

    The result is `done` if no further step fits.

    >>> steps_within(Costs(step=0.5), TrainingSettings(), Sizes(100, 0, False), done=10, limit=20.0)
    50
    """
    low, high = done, done + 1
    while seconds(costs, settings, sizes, done, high) <= limit and high - done < 1 << 40:
        low, high = high, done + 2 * (high - done)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if seconds(costs, settings, sizes, done, middle) <= limit else (low, middle)
    return low


def planned(
    settings: TrainingSettings, sizes: Sizes, costs: Costs | None, limit: float | None = None
) -> TrainingSettings:
    """Complete the settings: everything that was left to the plan gets a value, and `minutes` becomes None.

    `costs` is None if nothing was measured. `limit` is the number of seconds that are left for the training; if it is
    given, the plan chooses the number of steps.
    """
    changes: dict[str, Any] = {"minutes": None}
    if limit is not None and costs is not None:
        changes |= _within(settings, sizes, costs, limit)
    elif settings.patience is None and sizes.validation:
        changes |= _until_convergence(settings, sizes)
    settings = settings.model_copy(update=changes)
    if settings.patience is None and sizes.validation and limit is not None:
        settings = settings.model_copy(update={"patience": 0})
    # Without costs, a later run by the recorded settings has none either: the number of steps decides that
    if settings.first_look is None and costs is not None:
        settings = settings.model_copy(update={"first_look": _first_look(settings, sizes, costs)})
    if limit is not None and costs is not None:  # again, because of the first look
        settings = _of_length(settings, max(1, steps_within(costs, settings, sizes, 0, limit)))
    return settings


def untouched(settings: TrainingSettings, *names: str) -> bool:
    """Whether the settings of these names have their defaults, so that a plan may choose them."""
    fields = type(settings).model_fields
    return all(getattr(settings, name) == fields[name].default for name in names)


def _until_convergence(settings: TrainingSettings, sizes: Sizes) -> dict[str, Any]:
    passes = settings.steps * settings.batch_size / sizes.training
    if not untouched(settings, "steps") or passes < FEW_PASSES:
        return {}
    changes = {"patience": PATIENCE}
    if untouched(settings, "validate_every"):
        changes["validate_every"] = max(1, settings.steps // CHECKS)
    return changes


def _within(settings: TrainingSettings, sizes: Sizes, costs: Costs, limit: float) -> dict[str, Any]:
    """Settings for `limit` seconds: fewer and smaller validations and grids leave time for steps."""
    changes: dict[str, Any] = {}
    if untouched(settings, "validation_examples"):
        changes |= _fewer("validation_examples", sizes.validated(settings), costs.example, limit)
    if untouched(settings, "grid_samples"):
        changes |= _fewer("grid_samples", sizes.sampled(settings), costs.sample, limit)
    smaller = settings.model_copy(update=changes)
    validation, grid = sizes.validated(smaller) * costs.example, sizes.sampled(smaller) * costs.sample
    for name, cost, used in (
        ("validate_every", validation, sizes.validation > 0),
        ("sample_every", grid, sizes.pictures),
    ):
        if used and untouched(settings, name):
            count = max(1, min(LOOKS, int(ALL_SHARE * limit / max(cost, 1e-9))))
            changes[name] = max(1, math.ceil((limit - costs.end - count * cost) / costs.step / count))
    changes["steps"] = max(1, steps_within(costs, settings.model_copy(update=changes), sizes, 0, limit))
    return changes


def _of_length(settings: TrainingSettings, steps: int) -> TrainingSettings:
    """The settings for this number of steps, with warm-up and lines of metrics in proportion."""
    changes = {"steps": steps}
    if untouched(settings, "warmup_steps"):
        changes["warmup_steps"] = min(settings.warmup_steps, steps // 10)
    if untouched(settings, "log_every"):
        changes["log_every"] = max(1, min(settings.log_every, steps // 20))
    return settings.model_copy(update=changes)


def _fewer(name: str, count: int, cost: float, limit: float) -> dict[str, int]:
    """The setting `name`, lowered from `count` so that its examples take at most `SHARE` of the time; at least 4."""
    affordable = max(4, int(SHARE * limit / max(cost, 1e-9)))
    return {name: affordable} if affordable < count else {}


def _first_look(settings: TrainingSettings, sizes: Sizes, costs: Costs) -> int:
    """A round number of steps that takes about half a minute, or 0 if no early look is needed."""
    due = [settings.validate_every] * bool(sizes.validation) + [settings.sample_every] * sizes.pictures
    if not due or min(max(due), settings.steps) * costs.step <= LATE:
        return 0
    return round_down(max(1, int(FIRST_LOOK / costs.step)))


def round_down(count: int) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, ... that is at most `count`.

    >>> [round_down(count) for count in (1, 4, 9, 10, 77)]
    [1, 2, 5, 10, 50]
    """
    power = 10 ** (len(str(count)) - 1)
    return max(digit * power for digit in (1, 2, 5) if digit * power <= count)
