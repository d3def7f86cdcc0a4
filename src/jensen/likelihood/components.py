"""Mixtures of C laws of one number that differ by location and scale: their parameters, and their quantiles."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.gaussian import LOG_SQRT_TWO_PI
from jensen.likelihood.scales import floored_scale

STEPS = 100
"""Steps of the search for a quantile at most; Newton's method takes about five."""

ROUNDING = 1e-12
"""Relative size of a step that ends the search."""

SMALLEST, ROUNDING_OF_ONE = 1e-300, 2.0**-53
"""The range of u: float64 has no number between 1 - 2^-53 and 1."""

WIDEST = 20.0
"""Largest logarithm of a scale. It is beyond any x, and its square is within the range of float32."""

SPREAD = 1.5
"""The locations of the components lie between -SPREAD and SPREAD for outputs of 0. If all components were equal, so
would be their gradients, and they would stay equal."""


@dataclass(frozen=True, eq=False)
class Components:
    """Log-weights, locations and scales of C components, each (*batch, fields, C)."""

    log_weights: Tensor
    locations: Tensor
    scales: Tensor

    @classmethod
    def of(cls, raw: Tensor, floor: Tensor) -> "Components":
        """The components of the outputs (*batch, fields, 3, C); `floor` (fields) is the smallest scale of a field."""
        weights, locations, scales = raw.unbind(-2)
        count = raw.shape[-1]
        start = torch.linspace(-SPREAD, SPREAD, count, dtype=raw.dtype, device=raw.device) if count > 1 else 0.0
        # For outputs of 0 the scale is the distance of two neighbours.
        scales = (scales - math.log(max(1.0, (count - 1) / (2 * SPREAD)))).clamp(max=WIDEST)
        return cls(weights.log_softmax(-1), locations + start, floored_scale(scales, 0.0) + floor[:, None])

    def standardised(self, value: Tensor) -> Tensor:
        """(value - location) / scale of each component, (*batch, fields, C)."""
        return (value.unsqueeze(-1) - self.locations) / self.scales

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture of symmetric laws, (*batch, fields)."""
        return (self.log_weights.exp() * self.locations).sum(-1)

    def at(self, field: int) -> "Components":
        """The components of one field."""
        return Components(
            *(each[..., field : field + 1, :] for each in (self.log_weights, self.locations, self.scales))
        )

    def cdf(self, value: Tensor, law: "Standard") -> Tensor:
        """P(value or less) of the mixture, float64, for value (*batch, fields)."""
        return (self.log_weights.double().exp() * law.cdf(self.standardised(value.double()))).sum(-1)

    @torch.no_grad()
    def quantile(self, u: Tensor, law: "Standard") -> Tensor:
        """The inverse of `cdf`, float64, by Newton's method with bisection as fallback; it has no gradient."""
        u = u.double().clamp(SMALLEST, 1 - ROUNDING_OF_ONE)
        weights, locations, scales, u = torch.broadcast_tensors(
            self.log_weights.double().exp(), self.locations.double(), self.scales.double(), u.unsqueeze(-1)
        )
        weights, locations, scales = (each.reshape(-1, each.shape[-1]) for each in (weights, locations, scales))
        return _quantile(weights, locations, scales, u[..., 0].flatten(), law).reshape(u.shape[:-1])


def _quantile(
    weights: Float[Tensor, "rows C"],
    locations: Float[Tensor, "rows C"],
    scales: Float[Tensor, "rows C"],
    u: Float[Tensor, " rows"],
    law: "Standard",
) -> Float[Tensor, " rows"]:
    """The u-quantile of each mixture. Rows leave the search as soon as they are found; most are after a few steps."""
    ends = locations + scales * law.quantile(u).unsqueeze(-1)
    low, high = ends.amin(-1), ends.amax(-1)  # no component has less of u below, none more
    value, step = (low + high) / 2, high - low
    found, rows = value.clone(), torch.arange(len(u), device=u.device)
    for _ in range(STEPS):
        t = (value.unsqueeze(-1) - locations) / scales
        excess = (weights * law.cdf(t)).sum(-1) - u
        low, high = torch.where(excess < 0, value, low), torch.where(excess < 0, high, value)
        newton = value - excess / (weights * law.density(t) / scales).sum(-1)
        halved = (newton - value).abs() < step.abs() / 2
        trusted = (newton > low) & (newton < high) & halved  # False for NaN
        step = torch.where(trusted, newton, (low + high) / 2) - value
        step = torch.where(excess.abs() > ROUNDING_OF_ONE, step, 0)
        value = value + step
        found[rows] = value
        moving = step.abs() > ROUNDING * (value.abs() + 1)
        if not bool(moving.any()):
            break
        weights, locations, scales, u, low, high, value, step, rows = (
            each[moving] for each in (weights, locations, scales, u, low, high, value, step, rows)
        )
    return found


class Standard(ABC):
    """A symmetric law of one number with location 0 and scale 1."""

    @abstractmethod
    def cdf(self, t: Tensor) -> Tensor:
        """P(t or less)."""

    @abstractmethod
    def density(self, t: Tensor) -> Tensor:
        """The slope of `cdf`."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The inverse of `cdf`."""


class Normal(Standard):
    """N(0, 1)."""

    def cdf(self, t: Tensor) -> Tensor:
        return torch.special.ndtr(t)

    def density(self, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * t.square() - LOG_SQRT_TWO_PI)

    def quantile(self, u: Tensor) -> Tensor:
        return torch.special.ndtri(u)


class Logistic(Standard):
    """The logistic law, 1 / (1 + exp(-t))."""

    def cdf(self, t: Tensor) -> Tensor:
        return torch.sigmoid(t)

    def density(self, t: Tensor) -> Tensor:
        return torch.sigmoid(t) * torch.sigmoid(-t)

    def quantile(self, u: Tensor) -> Tensor:
        return torch.logit(u)
