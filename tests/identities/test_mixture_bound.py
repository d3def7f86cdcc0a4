"""Lecture, section 6: with the exact denoiser of mixture data the bound is below log p(x), and meets it as T grows.

Nothing is random here. In one dimension the averages over x_0 and over the noise are sums over even grids, to which
smooth integrands of Gaussian decay converge faster than any power of the spacing.
"""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from mixtures import ExactDenoiser, GaussianMixture

from jensen.diffusion.analytic import AnalyticVariance, MeanSquaredErrors
from jensen.diffusion.bound import DiffusionBound
from jensen.diffusion.denoiser import AbstractDenoiser
from jensen.diffusion.reverse import BetaVariance, LearnedVariance, PosteriorVariance
from jensen.diffusion.schedule import (
    LearnedSchedule,
    LinearBeta,
    LinearLogSnr,
    UniformLogSnr,
    UniformTime,
    noise_scale,
    signal_scale,
)

MIXTURE = GaussianMixture(
    weights=torch.tensor([0.6, 0.4], dtype=torch.float64),
    means=torch.tensor([[-0.8], [1.0]], dtype=torch.float64),
    scales=torch.tensor([[0.35], [0.2]], dtype=torch.float64),
)
EPS = torch.linspace(-7, 7, 35, dtype=torch.float64)
X0 = torch.linspace(-2.8, 2.4, 53, dtype=torch.float64)
EPS_WEIGHT = (EPS[1] - EPS[0]) * torch.exp(-0.5 * EPS.square()) / math.sqrt(2 * math.pi)
X0_WEIGHT = (X0[1] - X0[0]) * MIXTURE.log_prob(X0.unsqueeze(1)).exp()
LOG_P = float(X0_WEIGHT @ MIXTURE.log_prob(X0.unsqueeze(1)))  # E log p(x): minus the entropy of the data

ROWS_X0 = X0.repeat_interleave(len(EPS)).unsqueeze(1)
ROWS_EPS = EPS.repeat(len(X0)).unsqueeze(1)


def average(values: torch.Tensor) -> torch.Tensor:
    """Over x_0 ~ data and eps ~ N(0, 1), of one value per row."""
    return X0_WEIGHT @ (values.unflatten(0, (len(X0), len(EPS))) @ EPS_WEIGHT)


def mean_bound(bound: DiffusionBound) -> torch.Tensor:
    """E of (5.11) over the data, every expectation by quadrature."""
    total = -(X0_WEIGHT @ bound.prior(X0.unsqueeze(1)))
    for t in range(1, bound.steps + 1):
        step = torch.full((len(ROWS_X0),), t)
        total = total - average(bound.term(bound.predict(ROWS_X0, step, ROWS_EPS), ROWS_X0, step))
    return total


def exact_errors() -> MeanSquaredErrors:
    """The table of errors with E Var[x_0 | x_t] in it, by quadrature, bins an eighth wide."""
    table = MeanSquaredErrors(-12, 16, bins=224).double()
    for place in range(table.bins):
        log_snr = torch.tensor(table.minimum + (place + 0.5) * 0.125, dtype=torch.float64)
        x_t = signal_scale(log_snr) * ROWS_X0 + noise_scale(log_snr) * ROWS_EPS
        error = average(MIXTURE.posterior_variance(x_t, log_snr).squeeze(1))
        table.total[place] = error / torch.sigmoid(-log_snr)
    return table


VARIANCES = {
    "beta": BetaVariance(),
    "posterior": PosteriorVariance(),
    "learned": LearnedVariance(),
    "analytic": AnalyticVariance(exact_errors()),
}


class Mixed(AbstractDenoiser):
    """The exact denoiser, with a variance mix of 0.9 for `LearnedVariance`."""

    def forward(self, x_t, log_snr, labels=None):
        return replace(ExactDenoiser(MIXTURE)(x_t, log_snr), variance_mix=torch.full_like(x_t, 0.9))


@cache
def gap(steps: int, variance: str) -> float:
    """E [log p(x) - bound] for T steps, evenly spaced in the log-SNR from 14 to -12."""
    grid = UniformLogSnr()(LinearLogSnr(14, -12), steps)
    return LOG_P - float(mean_bound(DiffusionBound(Mixed(), grid, VARIANCES[variance])))


def test_quadrature_is_accurate():
    one = average(torch.ones(len(ROWS_X0), dtype=torch.float64))
    assert abs(float(one) - 1) < 1e-6
    assert abs(float(average((ROWS_EPS * ROWS_EPS).squeeze(1))) - 1) < 1e-6


@pytest.mark.parametrize("variance", VARIANCES)
def test_bound_is_below_log_p_and_its_gap_falls_like_one_over_steps(variance):
    gaps = [gap(steps, variance) for steps in (8, 16, 32, 64, 128, 256)]
    assert all(value > 0 for value in gaps)
    assert all(later < earlier for earlier, later in pairwise(gaps))
    order = math.log2(gaps[-2] / gaps[-1])
    assert order == pytest.approx(1, abs=0.1)


def test_extrapolated_to_infinitely_many_steps_the_bound_is_log_p():
    for variance in VARIANCES:
        coarse, middle, fine = gap(64, variance), gap(128, variance), gap(256, variance)
        first = 2 * fine - middle, 2 * middle - coarse  # Richardson: without the term in 1/T
        limit = (4 * first[0] - first[1]) / 3  # and without the one in 1/T²
        assert abs(limit) < 0.03 * fine, variance


def test_analytic_variance_is_the_best_of_all_at_every_number_of_steps():
    for steps in (4, 16, 64):
        best = gap(steps, "analytic")
        assert all(best < gap(steps, other) for other in ("beta", "posterior", "learned"))


def test_bound_of_the_ddpm_chain_is_below_log_p():
    for variance in VARIANCES.values():
        grid = UniformTime()(LinearBeta(100), 100)
        assert float(mean_bound(DiffusionBound(Mixed(), grid, variance))) < LOG_P


def test_gradient_of_the_bound_in_a_learned_schedule_is_its_slope():
    schedule, denoiser = LearnedSchedule(6.0, -4.0, width=4).double(), ExactDenoiser(MIXTURE)

    def value() -> torch.Tensor:
        return mean_bound(DiffusionBound(denoiser, UniformTime()(schedule, 6), PosteriorVariance()))

    value().backward()
    for parameter in schedule.parameters():
        for place in range(parameter.numel()):
            found = parameter.grad.flatten()[place]
            with torch.no_grad():
                numbers, h = parameter.view(-1), 1e-5
                numbers[place] += h
                above = value()
                numbers[place] -= 2 * h
                slope = (above - value()) / (2 * h)
                numbers[place] += h
            assert float(found) == pytest.approx(float(slope), rel=1e-4, abs=1e-6)


def test_a_learned_schedule_trained_by_the_bound_finds_better_ends():
    schedule, denoiser = LearnedSchedule(1.0, -8.0, width=4).double(), ExactDenoiser(MIXTURE)
    optimiser = torch.optim.Adam(schedule.parameters(), lr=0.3)
    history = []
    for _ in range(15):
        bound = mean_bound(DiffusionBound(denoiser, UniformTime()(schedule, 8), BetaVariance()))
        history.append(float(bound.detach()))
        optimiser.zero_grad()
        (-bound).backward()
        optimiser.step()
    first, last = (float(end.detach()) for end in schedule.ends())
    assert first > 2.5, "the data's end had too much noise"
    assert last > -7, "the noise's end had more than it needed"
    assert history[0] + 0.2 < history[-1] < LOG_P
