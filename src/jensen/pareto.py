"""The tail of importance weights: the shape k of a generalised Pareto law that is fitted to the largest weights.

Weights with a tail of shape k have finite moments up to the order 1 / k. Above k = 0.7, averages of weights converge so
slowly that neither an average nor its standard error can be trusted, for any number of weights (Vehtari, Simpson,
Gelman, Yao and Gabry 2024, Pareto smoothed importance sampling).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

UNTRUSTED = 0.7  # k above it: Vehtari et al. 2024, section 3
FEWEST = 5  # weights in a tail, for a fit
PRIOR_COUNT, PRIOR_SHAPE = 10, 0.5  # the prior: ten exceedances of shape 0.5, section 6 there
ALIKE = 1e-3  # of the largest weight: a narrower tail may be rounding of float32, and is harmless
ELEMENTS = 1 << 22  # computed at once, of the grid of shapes x exceedances x examples


def tail_length(draws: int) -> int:
    """The number of weights in the tail: min(draws / 5, 3 sqrt(draws)), rounded up (Vehtari et al. 2024).

    >>> tail_length(5000)
    213
    """
    return math.ceil(min(draws / 5, 3 * math.sqrt(draws)))


def pareto_shape(largest: Float[Tensor, " kept batch"], draws: int) -> Float[Tensor, " batch"]:
    """The shape k of the tail of `draws` log-weights.

    `largest` are the largest log-weights in descending order, at least `tail_length(draws)` + 1 of them. k is NaN for a
    tail of fewer than five weights. k is 0 if the weights differ by less than a thousandth, because there is no tail.
    """
    length = tail_length(draws)
    if length < FEWEST or len(largest) <= length:
        return largest.new_full(largest.shape[1:], math.nan, dtype=torch.float64)
    weights = (largest[: length + 1].double() - largest[0].double()).exp()
    exceedances = (weights[:-1] - weights[-1]).flip(0)
    group = max(1, ELEMENTS // (length * _grid(length)))
    return torch.cat([_shapes(part) for part in exceedances.split(group, dim=1)])


def _shapes(exceedances: Float[Tensor, " count batch"]) -> Float[Tensor, " batch"]:
    """k of exceedances in ascending order, pulled to 0.5 by a prior with the weight of ten exceedances."""
    count = len(exceedances)
    alike = exceedances[-1] <= ALIKE
    safe = torch.where(alike, torch.ones_like(exceedances).cumsum(0), exceedances.clamp(min=1e-300))
    k = (count * generalised_pareto_shape(safe) + PRIOR_COUNT * PRIOR_SHAPE) / (count + PRIOR_COUNT)
    return torch.where(alike, 0.0, k)


def generalised_pareto_shape(exceedances: Float[Tensor, " count batch"]) -> Float[Tensor, " batch"]:
    """The k of the density (1 + k y / s)^(-1 - 1/k) / s of exceedances y > 0.

    The exceedances are in ascending order, float64. With b = -k / s, k(b) is the mean of log(1 - b y), and the profile
    log-likelihood of b is count * (log(-b / k(b)) - k(b) - 1). The estimate is k(b) at the posterior mean of b. The
    prior of b is weak, and the mean is a sum over a grid that depends on the data. Source: Zhang and Stephens 2009,
    with k of the opposite sign.
    """
    count, grid = len(exceedances), _grid(len(exceedances))
    place = 1 - torch.sqrt(grid / (torch.arange(1, grid + 1, dtype=torch.float64, device=exceedances.device) - 0.5))
    quartile = exceedances[int(count / 4 + 0.5) - 1]
    b = 1 / exceedances[-1] + place.unsqueeze(1) / (3 * quartile)  # (grid, batch)
    k = _shape_given(b, exceedances)
    log_likelihood = count * (torch.log(-b / k) - k - 1)
    mean = (b * log_likelihood.softmax(0)).sum(0, keepdim=True)
    return _shape_given(mean, exceedances).squeeze(0)


def _shape_given(b: Tensor, exceedances: Tensor) -> Tensor:
    return torch.log1p(-b.unsqueeze(1) * exceedances).mean(1)


def _grid(count: int) -> int:
    return 30 + int(math.sqrt(count))
