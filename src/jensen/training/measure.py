"""The costs of a training, measured on a scratch state, which is then thrown away."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from jensen import processes
from jensen.data.examples import Dataset
from jensen.training.compilation import FIRST_STEPS
from jensen.training.fit import grid_of_samples, validation_bound
from jensen.training.loop import steps
from jensen.training.plan import Costs, Sizes
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState

ENOUGH = 1.0  # seconds of timed steps that give the speed of a step
LEAST, MOST = 1, 200  # timed steps


def sizes_of(dataset: Dataset) -> Sizes:
    """The facts about the data that a plan depends on."""
    return Sizes(len(dataset.train), len(dataset.validation), dataset.spec.pictured)


def measured(
    start: Callable[[], TrainingState], dataset: Dataset, settings: TrainingSettings, seed: int, share: float
) -> Costs | None:
    """The costs of a training from steps, validations and samples of a state made by `start`.

    Measuring takes about `share` of the time of the training, which is `settings.minutes` or `settings.steps`. The
    result is None for a training of so few steps that two steps take longer than that. The costs are equal in all
    processes.
    """
    most = MOST if settings.minutes else min(MOST, int(share * settings.steps) - 1)
    if most < LEAST:
        return None
    began = _now()
    state = start()
    built = _now() - began
    limit = share * 60 * settings.minutes if settings.minutes else None
    step = _step_seconds(state, dataset, settings, seed, most, ENOUGH if limit is None else min(ENOUGH, limit / 3))
    if limit is None:
        limit = share * settings.steps * step
    costs = Costs(step, end=built)
    over = (began + built if settings.compile == "none" else _now()) + limit  # compiling may take longer than `limit`
    if len(dataset.validation):
        # A guess, in case that there is no time to measure: an example costs as much as in a step
        guess = replace(costs, example=step / settings.batch_size)
        costs = replace(guess, example=_slope(lambda n: _validate(state, dataset, seed, n), guess.example, over))
    if dataset.spec.pictured:
        costs = replace(costs, sample=_slope(lambda n: _sample(state, seed, n), costs.example, over))
    return costs


def _now() -> float:
    """The clock of the main process, after all work of the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return processes.from_main(time.monotonic())


def _step_seconds(
    state: TrainingState, dataset: Dataset, settings: TrainingSettings, seed: int, most: int, enough: float
) -> float:
    """The mean time of a step after the first ones, which are slower; of at most `most` steps or `enough` seconds."""
    first = FIRST_STEPS[settings.compile]
    short = settings.model_copy(update={"steps": most + first, "minutes": None})
    training = steps(state, dataset.train, dataset.spec.preparation, short, seed)
    for _ in range(first):
        next(training)
    began = now = _now()
    for record in training:
        now = _now()
        if now - began >= enough or record.number >= most + first:
            break
    training.close()
    return (now - began) / (state.step - first)


def _slope(work: Callable[[int], None], otherwise: float, over: float) -> float:
    """The seconds that one more example costs in `work(count)`; `otherwise` if the time `over` has come already."""
    seconds = otherwise
    before, last = 0, 0.0
    for count in (1, 4, 16, 64):
        began = _now()
        if began + 4 * last > over:
            break
        work(count)
        took = _now() - began
        seconds = (took - last) / (count - before) if took > last and before else took / count
        before, last = count, took
    return seconds


def _validate(state: TrainingState, dataset: Dataset, seed: int, count: int) -> None:
    validation_bound(state.model, dataset.validation[:count], dataset.spec.preparation, seed)


def _sample(state: TrainingState, seed: int, count: int) -> None:
    grid_of_samples(state, count, seed)
