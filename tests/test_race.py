"""The race of Bayes' rule over bounds whose terms are normal: how often it drops a class that it should keep.

All examples are simulated at once, so that the stated chance of a wrong elimination can be measured: `Race.error`.
"""

import math

import pytest
import torch

from jensen.diffusion.bayes import Race

EXAMPLES = 20_000


def dropped(race: Race, mean: list[float], scale: list[float], examples: int = EXAMPLES) -> float:
    """The share of the examples in whose race not every class took part to the end.

    Class y's terms are N(mean[y] / terms, scale²), independent of each other; scale (terms).
    """
    shape, source = (race.draws, len(scale), examples, len(mean)), torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=source, dtype=torch.float64)
    values = torch.tensor(mean) / len(scale) + torch.tensor(scale).reshape(-1, 1, 1) * noise
    alive = torch.ones(shape[2:], dtype=torch.bool)
    for end in race.rounds():
        score = values[:end].mean(0).sum(0).masked_fill(~alive, -math.inf)
        alive = race.left(score, values[:end], alive)
    return 1 - alive.all(1).double().mean().item()


def most(error: float) -> float:
    """What a share of `EXAMPLES` stays below if its probability is `error`; false alarm 3e-5."""
    return error + 4 * math.sqrt(error * (1 - error) / EXAMPLES)


@pytest.mark.parametrize("scale", [[0.4], [0.2] * 4, [0.5, 0.1, 0.1, 0.1]], ids=["one term", "equal", "unequal"])
@pytest.mark.parametrize("error", [0.05, 0.2])
def test_a_class_at_the_limit_is_dropped_no_more_often_than_stated(scale, error) -> None:
    """Its true odds are `negligible`, so that every round may drop it by chance; the leader is never in doubt.

    A normal quantile instead of Student's fails here, and so does one that is not shared among the rounds.
    """
    share = dropped(Race(error=error), [0.0, math.log(0.01)], scale)
    assert share < most(error)
    assert share > error / 5  # nor is it so careful that nothing would ever be dropped


def test_with_more_classes_the_error_is_shared_among_them() -> None:
    share = dropped(Race(error=0.05), [0.0] + [math.log(0.01)] * 9, [0.4], examples=EXAMPLES // 4)
    assert share < 0.05 + 4 * math.sqrt(0.05 * 0.95 / (EXAMPLES // 4))  # false alarm 3e-5


@pytest.mark.parametrize("terms", [1, 9])
def test_the_right_class_survives_a_bad_start(terms) -> None:
    """Half a nat ahead, with differences of 8 nats a draw: at the first look it is hopelessly behind every fifth time.

    A quantile of 0 drops one of the two in more than a third of the races.
    """
    race, deviation = Race(error=0.05), 8 / math.sqrt(2)
    behind = torch.distributions.Normal(0.5, 8 / math.sqrt(race.first)).cdf(torch.tensor(math.log(race.negligible)))
    assert behind > 0.18
    scale = [deviation / math.sqrt(terms)] * terms
    assert dropped(race, [0.5, 0.0], scale) < most(race.error)


def test_hopeless_classes_are_dropped() -> None:
    assert dropped(Race(), [0.0, -200.0], [0.5] * 9, examples=500) == 1
    assert dropped(Race(error=0), [0.0, -200.0], [0.5] * 9, examples=500) == 0
