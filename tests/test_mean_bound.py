"""The mean bound to a wanted error: against closed forms, and against every part of every example."""

import json
import math

import numpy as np
import pytest
import torch
from linear_vae import as_vae, random_ppca
from mixtures import ExactDenoiser, three_clusters
from test_verbs import BRIEF, TINY, own_images

import jensen
from jensen.bound import Estimate
from jensen.cli import main
from jensen.diffusion.bound import DiffusionBound, Strata, estimate_bound
from jensen.diffusion.parts import bound_parts
from jensen.diffusion.reverse import BetaVariance
from jensen.diffusion.schedule import LinearLogSnr, UniformLogSnr
from jensen.evaluation.source import Source, visiting_order
from jensen.evaluation.survey import Draws, allocation, regression_estimate
from jensen.evaluation.until import Goal, needed, until
from jensen.randomness import generator

NONE = torch.empty(200, 0, dtype=torch.float64)
NATS = "nats per example"


def silent(line: str) -> None:
    """Tell nobody."""


def every_part(y: torch.Tensor) -> Draws:
    """Every part of every example once: y (examples, parts)."""
    examples, parts = y.shape
    return Draws(torch.arange(parts).repeat(examples), torch.arange(examples).repeat_interleave(parts), y.flatten())


def source_of_values(y: torch.Tensor) -> Source:
    """Draws without noise of y (examples, parts)."""
    ones = torch.ones(len(y), dtype=torch.float64)
    return Source(y.shape[1], 0 * ones, ones, lambda examples, parts, visit: y[examples, parts], (), 1000)


def values(examples: int = 200, parts: int = 4) -> torch.Tensor:
    """Parts that are correlated within an example, (examples, parts), and of different sizes."""
    own, shared = (torch.randn(examples, n, generator=generator(3, n), dtype=torch.float64) for n in (parts, 1))
    return (torch.arange(parts) + 1.0) * (5 + shared + 0.5 * own)


# ---------------------------------------------------------------------------------------------- the estimate


def test_every_part_of_every_example_gives_the_plain_mean_and_its_error():
    y = values()
    found, plain = regression_estimate(every_part(y), 4, NONE), Estimate.of(y.sum(1))
    assert found.mean == pytest.approx(plain.mean, rel=1e-12)
    assert found.error == pytest.approx(plain.standard_error, rel=1e-9)


def test_the_error_of_parts_on_different_examples_is_that_of_a_stratified_mean():
    y, part = values(), torch.arange(200) % 4
    found = regression_estimate(Draws(part, torch.arange(200), y[torch.arange(200), part]), 4, NONE)
    errors = [Estimate.of(y[part == h, h]).standard_error for h in range(4)]
    assert found.error == pytest.approx(math.hypot(*errors), rel=1e-9)


def test_a_perfect_control_leaves_the_error_of_the_test_set_alone():
    c = torch.randn(200, 1, generator=generator(1), dtype=torch.float64)
    c = (c - c.mean(0)) / c.std(0)
    y = torch.arange(1.0, 5.0) * (10 + c)
    part = torch.arange(200) % 4
    found = regression_estimate(Draws(part, torch.arange(200), y[torch.arange(200), part]), 4, c)
    assert found.mean == pytest.approx(y.sum(1).mean().item(), rel=0.01)
    assert found.error == pytest.approx(Estimate.of(y.sum(1)).standard_error, rel=0.05)
    assert found.deviation.sum() < 0.1 * found.raw_deviation.sum()


def test_a_useless_control_changes_neither_mean_nor_error_much():
    y, part = values(), torch.arange(200) % 4
    draws = Draws(part, torch.arange(200), y[torch.arange(200), part])
    useless = torch.randn(200, 1, generator=generator(2), dtype=torch.float64)
    plain, found = regression_estimate(draws, 4, NONE), regression_estimate(draws, 4, useless)
    assert abs(found.mean - plain.mean) < 0.5 * plain.error
    assert found.error == pytest.approx(plain.error, rel=0.05)


def test_the_slopes_of_an_example_do_not_depend_on_its_own_draws():
    """Cross-fitting, without which the estimate would be biased: one outlier moves the mean by its own share only."""
    y, part = values(), torch.arange(200) % 4
    c = torch.randn(200, 1, generator=generator(2), dtype=torch.float64)
    value = y[torch.arange(200), part]
    others = [i for i in range(200) if i % 8 == 5]
    lone, moved = value.clone(), value.clone()
    moved[others[0]] += 1000
    rest = [
        regression_estimate(Draws(part, torch.arange(200), v), 4, c).influence[others[1:]] for v in (lone, moved)
    ]
    fold = [r[torch.tensor([part[i] != part[others[0]] for i in others[1:]])] for r in rest]  # other parts, same fold
    assert torch.allclose(fold[0], fold[1], atol=1.0) is True


# ---------------------------------------------------------------------------------------------- the plan


def test_neyman_gives_rows_in_proportion_to_the_spread_and_grows_by_limits():
    y, part = values(2000), torch.arange(2000) % 4
    found = regression_estimate(Draws(part, torch.arange(2000), y[torch.arange(2000), part]), 4, torch.empty(2000, 0))
    wanted = allocation(found, 1e9)
    assert wanted.sum() == pytest.approx(4000, abs=4)
    assert torch.allclose(wanted / wanted.sum(), torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.03) is True or (
        wanted >= found.rows
    ).all()
    assert (allocation(found, 0.0) >= found.rows).all()
    assert allocation(found, 0.0).sum() >= 1.1 * 2000


def test_the_forecast_is_the_square_of_the_sum_of_spreads():
    y, part = values(), torch.arange(200) % 4
    found = regression_estimate(Draws(part, torch.arange(200), y[torch.arange(200), part]), 4, NONE)
    total, limit = needed(found, 0.5)
    assert total == pytest.approx(1.03 * found.deviation.sum().item() ** 2 / 0.25)
    assert limit < 1e-6


def test_every_example_is_visited_once_before_any_is_visited_twice():
    examples, visits = visiting_order(10, 0, torch.arange(25))
    assert visits.tolist() == [0] * 10 + [1] * 10 + [2] * 5
    assert sorted(examples[:10].tolist()) == sorted(examples[10:20].tolist()) == list(range(10))
    assert examples[:10].tolist() != examples[10:20].tolist()
    assert visiting_order(10, 0, torch.arange(7, 12))[0].tolist() == examples[7:12].tolist()
