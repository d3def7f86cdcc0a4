"""The costs of a training, measured on a scratch state, which is then thrown away."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

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
LEAST, MOST = 4, 200  # timed steps, for a training of given steps


def sizes_of(dataset: Dataset) -> Sizes:
    """The facts about the data that a plan depends on."""
    return Sizes(len(dataset.train), len(dataset.validation), dataset.spec.pictured)


def measured(
    start: Callable[[], TrainingState],
    dataset: Dataset,
    settings: TrainingSettings,
    seed: int,
    share: float,
    done: int = 0,
) -> Costs | None:
    """Measure the costs of a training by some steps, validations and samples of a state made by `start`.

    The measurement takes about `share` of the time of the training. The result is None for a training of given steps if
    `share` of the steps is fewer than five steps. For a training that goes on from step `done`, the costs are those of
    the later steps. The costs are equal in all processes.
    """
    most = MOST if settings.minutes else min(MOST, int(share * (settings.steps - done)) - 1)
    if most < LEAST:
        return None
    state = start()
    built = 0.0
    if settings.minutes:  # a second time, because the first one may import libraries
        began = _now()
        state = start()
        built = _now() - began
    limit = share * 60 * settings.minutes if settings.minutes else None
    enough = ENOUGH if limit is None else min(ENOUGH, limit / 3)
    step = _step_seconds(state, dataset, settings, seed, most, enough, done)
    if limit is None:
        limit = share * (settings.steps - done) * step
    costs = Costs(step, end=built)
    if len(dataset.validation):
        costs = replace(costs, example=_slope(lambda n: _validate(state, dataset, seed, n), limit / 2))
    if dataset.spec.pictured:
        costs = replace(costs, sample=_slope(lambda n: _sample(state, seed, n), limit / 2))
    return costs


def _now() -> float:
    """The time on the clock of the main process, when the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return processes.from_main(time.monotonic())


def _step_seconds(
    state: TrainingState, dataset: Dataset, settings: TrainingSettings, seed: int, most: int, enough: float, done: int
) -> float:
    """The mean time of a step after step `done`, weighted by the remaining lengths of the stages of the training."""
    last = max(settings.steps, done + 1)
    begins = [done, *(begin for begin in state.model.stages if done < begin < last)]
    lengths = [end - begin for begin, end in pairwise([*begins, last])]
    total = 0.0
    for begin, length in zip(begins, lengths, strict=True):
        if length:
            total += length * _of_a_stage(state, dataset, settings, seed, begin, most, enough / len(begins))
    return total / (last - done)


def _of_a_stage(
    state: TrainingState, dataset: Dataset, settings: TrainingSettings, seed: int, begin: int, most: int, enough: float
) -> float:
    """The mean time of a step from step `begin` on, after the first ones, which are slower.

    It is the mean of at most `most` steps or `enough` seconds.
    """
    first, state.step = FIRST_STEPS[settings.compile], begin
    short = settings.model_copy(update={"steps": begin + most + first, "minutes": None})
    training = steps(state, dataset.train, dataset.spec.preparation, short, seed)
    for _ in range(first):
        next(training)
    began = now = _now()
    for record in training:
        now = _now()
        if now - began >= enough or record.number >= begin + most + first:
            break
    training.close()
    return (now - began) / (state.step - begin - first)


def _slope(work: Callable[[int], None], limit: float) -> float:
    """The seconds that one more example costs in `work(count)`; measured in about `limit` seconds."""
    seconds, over = 0.0, _now() + limit
    before, last = 0, 0.0
    for count in (1, 4, 16, 64):
        began = _now()
        # One call alone says little: its overhead may be as large as the work for many examples
        if (before == 1 and last > limit) or (before > 1 and began + 4 * last > over):
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
