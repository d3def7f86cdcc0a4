"""The mean of the bound over a test set from draws of its parts, each on an example of its own.

The examples are independent draws from a population, and the mean is that of the population. Row r is one draw y_r of
part h(r) of the bound of example i(r); n_h rows draw part h. Controls c_i are known for all N examples and cost no
evaluation; c̄ is their mean. The estimate is the regression estimate (Cochran 1977, sections 7.8 and 12.6)

    m = Σ_h (1 / n_h) Σ_{r: h(r) = h} [y_r - b_h (c_i(r) - c̄)].

It is unbiased, because the slopes b_h for the rows of one fold of examples come from the rows of the other folds
(cross-fitting). The error is that of a sum of independent contributions of the examples: with the residuals e_r around
their mean in each part,

    error² = Σ_i U_i²,    U_i = Σ_{r: i(r) = i} e_r / n_h(r) + Σ_h b_h (c_i - c̄) / N.

So it holds whether an example has no row, one, or many, and it covers the choice of the test set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

FOLDS = 8
GROWTH = 1.1, 2.0  # least and greatest growth of the number of rows from one look to the next
NO_SLOPE = 4.0  # weight, in rows, of no slope in the regression
EQUAL = 20.0  # weight, in rows of a part, of equal spreads in the allocation


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws so far: the `part` (rows), the `example` (rows) as its place 0..N-1, and the `value` (rows) in nats."""

    part: Int[Tensor, " rows"]
    example: Int[Tensor, " rows"]
    value: Float[Tensor, " rows"]

    @classmethod
    def none(cls) -> Self:
        """No draws."""
        nothing = torch.empty(0, dtype=torch.long)
        return cls(nothing, nothing, nothing.double())

    def __len__(self) -> int:
        return len(self.value)

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """All draws, one after another."""
        columns = zip(*(vars(draws).values() for draws in several), strict=True)
        return cls(*(torch.cat(column) for column in columns))


@dataclass(frozen=True, eq=False)
class RegressionEstimate:
    """The estimate `mean` in nats, the contributions `influence` (N) of the examples to its error, and the spreads.

    `deviation` (parts) is the standard deviation of the residuals of each part, and `rows` (parts) the number of rows.
    `raw_deviation` (parts) is that of the draws themselves.
    """

    mean: float
    influence: Float[Tensor, " examples"]
    deviation: Float[Tensor, " parts"]
    raw_deviation: Float[Tensor, " parts"]
    rows: Int[Tensor, " parts"]
    from_controls: float
    """The part of error² that comes from the controls' mean over the test set: no further row reduces it."""

    @property
    def error(self) -> float:
        """The standard error of `mean`."""
        return self.influence.square().sum().sqrt().item()


def regression_estimate(draws: Draws, parts: int, controls: Float[Tensor, " examples controls"]) -> RegressionEstimate:
    """The regression estimate of the mean over the population, with its error; at least two rows of each part."""
    part, example, y = draws.part, draws.example, draws.value.double()
    rows = torch.bincount(part, minlength=parts).double()
    c = controls - controls.mean(0)
    slopes = _cross_fitted(part, y, c[example], example % FOLDS, parts)  # (rows, controls)
    adjusted = y - (slopes * c[example]).sum(1)
    mean, deviation, residual = _within(part, adjusted, rows)
    weight = (rows / (rows - 1)).sqrt() / rows  # unbiased variances
    influence = torch.zeros(len(c), dtype=torch.float64).index_add_(0, example, residual * weight[part])
    slope = torch.zeros(parts, c.shape[1], dtype=torch.float64).index_add_(0, part, slopes) / rows.unsqueeze(1)
    from_controls = c @ slope.sum(0) / len(c)
    return RegressionEstimate(
        mean=mean.sum().item(),
        influence=influence + from_controls,
        deviation=deviation,
        raw_deviation=_within(part, y, rows)[1],
        rows=rows.long(),
        from_controls=from_controls.square().sum().item(),
    )


def _within(part: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean and the standard deviation in each part (parts), and the deviation of each row (rows)."""
    zeros = torch.zeros(len(rows), dtype=torch.float64)
    mean = zeros.index_add(0, part, y) / rows
    residual = y - mean[part]
    variance = zeros.index_add(0, part, residual.square()) / (rows - 1)
    return mean, variance.sqrt(), residual


def _cross_fitted(part: Tensor, y: Tensor, c: Tensor, fold: Tensor, parts: int) -> Tensor:
    """The slope of each row (rows, controls), from the rows of the other folds; 0 where these are too few."""
    slopes = torch.zeros_like(c)
    for each in range(FOLDS if c.shape[1] else 0):
        others, own = fold != each, fold == each
        if bool((torch.bincount(part[others], minlength=parts) > 1).all()):
            slopes[own] = _slopes(part[others], y[others], c[others], parts)[part[own]]
    return slopes


def _slopes(part: Tensor, y: Tensor, c: Tensor, parts: int) -> Tensor:
    """b_h = s_h g, (parts, controls), by least squares.

    The parts differ by their spread s_h and share the shape g, so that a few rows of each part suffice.
    """
    rows = torch.bincount(part, minlength=parts)
    _, spread, residual = _within(part, y, rows)
    scaled = residual / spread.clamp(min=1e-300)[part]
    centred = torch.stack([_within(part, column, rows)[2] for column in c.unbind(1)], 1)
    prior = NO_SLOPE * torch.eye(c.shape[1], dtype=c.dtype)  # of standardised controls
    shape = torch.linalg.solve(centred.mT @ centred + prior, centred.mT @ scaled)
    return spread.unsqueeze(1) * shape


def allocation(found: RegressionEstimate, total: float) -> Int[Tensor, " parts"]:
    """The rows of each part at the next look, on the way to `total` rows, and of no part fewer than now.

    They are in proportion to the spreads (Neyman 1934). From one look to the next, the number of rows grows by 10 % to
    100 %.
    """
    now = int(found.rows.sum())
    next_ = min(max(total, GROWTH[0] * now), GROWTH[1] * now)
    weighted = found.rows * found.deviation.square()
    typical = weighted.sum() / now
    spread = ((weighted + EQUAL * typical) / (found.rows + EQUAL)).sqrt()
    return torch.maximum(found.rows, (next_ * spread / spread.sum()).ceil().long())
