"""Likelihood: turns a decoder's output into a distribution p(x|z) over x (4.2).

There are two kinds of object. A *likelihood* is a module that turns the decoder's raw output into a distribution, and
owns the learned parameters outside the network, such as a shared variance. A *distribution* has a log-density, a mean
and a quantile function. The quantile function maps uniform noise to a sample, so a sample is a pure function of the
noise:

| likelihood              | x                               | distribution                                   |
|-------------------------|---------------------------------|------------------------------------------------|
| `GaussianLikelihood`    | continuous                      | `Gaussian`                                     |
| `BernoulliLikelihood`   | binary, {0, 1}                  | `Bernoulli`                                    |
| `DiscretisedLikelihood` | L levels on the grid of [-1, 1] | `DiscretisedGaussian` or `DiscretisedLogistic` |
| `CategoricalLikelihood` | L levels on the grid of [-1, 1] | `Categorical`                                  |

The grid of L levels is -1 + 2k / (L - 1), k = 0..L-1. Values of x are not checked: reading them would make a GPU wait.
`jensen.vae.missing` restricts any likelihood to the observed dimensions.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.gaussian import LOG_SQRT_TWO_PI, Gaussian

SQRT_HALF = math.sqrt(0.5)
OUTERMOST = 1e12  # outer edge of the outer bins: works like infinity for any scale, without nan in gradients

# ---------------------------------------------------------------------------------------------- distributions


@runtime_checkable
class Observation(Protocol):
    """A distribution over x; the trailing `event_dims` dimensions form one x, the other dimensions are the batch."""

    @property
    def mean(self) -> Tensor:
        """E[x], shape (*batch, *shape)."""

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, shape (*batch); x may lack leading batch dimensions."""

    def log_prob_by_dimension(self, x: Tensor) -> Tensor:
        """log p(x_d) in nats, shape (*batch, *shape); the sum over the dimensions of x is `log_prob`."""

    def quantile(self, u: Tensor) -> Tensor:
        """The inverse distribution function of each dimension: a sample of x if u ~ U(0, 1), u of the shape of x."""


def _sum_event(values: Tensor, event_dims: int) -> Tensor:
    return values.flatten(values.ndim - event_dims).sum(-1)


@dataclass(frozen=True, eq=False)
class Bernoulli:
    """x in {0, 1} with p(x = 1) = sigmoid(logits), independent over the trailing `event_dims` dimensions.

    >>> Bernoulli(torch.zeros(5, 8), event_dims=1).log_prob(torch.ones(8)) / 8
    tensor([-0.6931, -0.6931, -0.6931, -0.6931, -0.6931])
    """

    logits: Tensor
    event_dims: int

    @property
    def mean(self) -> Tensor:
        """p(x = 1)."""
        return torch.sigmoid(self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """Σ_d x_d logit_d - log(1 + exp(logit_d)) in nats."""
        return _sum_event(self.log_prob_by_dimension(x), self.event_dims)

    def log_prob_by_dimension(self, x: Tensor) -> Tensor:
        """The terms of `log_prob`."""
        return -torch.addcmul(F.softplus(self.logits), x, self.logits, value=-1)  # x l - log(1 + e^l) in one pass

    def quantile(self, u: Tensor) -> Tensor:
        """1 where u > p(x = 0), else 0."""
        # sigmoid(-l) = 1 - sigmoid(l) without cancellation
        return (u > torch.sigmoid(-self.logits)).to(self.logits.dtype)


@dataclass(frozen=True, eq=False)
class _Discretised(ABC):
    """A continuous law discretised to L levels: the probability of a level is the mass of the bin of the level.

    The bin of x is x ± 1 / (L - 1); the two outer bins extend to infinity. `location` and `scale` move the standard
    law, with location 0 and scale 1, which subclasses define.
    """

    location: Tensor
    scale: Tensor
    levels: int
    event_dims: int

    def log_prob(self, x: Tensor) -> Tensor:
        """Σ_d log of the mass of x_d's bin, in nats; x off the grid counts as the nearest level."""
        return _sum_event(self.log_prob_by_dimension(x), self.event_dims)

    def log_prob_by_dimension(self, x: Tensor) -> Tensor:
        """The terms of `log_prob`."""
        last = self.levels - 1
        level = ((x + 1) * (last / 2)).round()
        # The edges are computed from the level and not from x, so that the upper edge of a bin equals the lower edge
        # of the next one bit for bit. threshold(a, b, c) = (a if a > b else c) takes a fifth of the time of `where`.
        lower = F.threshold((2 * level - 1) / last - 1, -1, -OUTERMOST)
        upper = -F.threshold(1 - (2 * level + 1) / last, -1, -OUTERMOST)
        width = F.threshold(upper - lower, OUTERMOST / 2, 2 / last)
        lower, upper = ((edge - self.location) / self.scale for edge in (lower, upper))
        return self._log_mass(lower, upper, width / self.scale)

    @property
    def mean(self) -> Tensor:
        """The mean of the law clamped to [-1, 1], within half a level of E[x], much closer for scales above a level."""
        # clamp(y) = -1 + ∫_{-1}^{1} [y > t] dt, so E clamp(y) = -1 + ∫_{-1}^{1} (1 - F(t)) dt
        above_lowest, above_highest = (self.location + 1) / self.scale, (self.location - 1) / self.scale
        area = self._cdf_integral(above_lowest) - self._cdf_integral(above_highest)
        return (self.scale * area - 1).clamp(-1, 1)

    def quantile(self, u: Tensor) -> Tensor:
        """The level nearest to the quantile of u under the continuous law."""
        value = self.location + self.scale * self._standard_quantile(u)
        level = ((value.clamp(-1, 1) + 1) * ((self.levels - 1) / 2)).round()
        return (level * (2 / (self.levels - 1)) - 1).to(self.location.dtype)

    @abstractmethod
    def _log_mass(self, lower: Tensor, upper: Tensor, width: Tensor) -> Tensor:
        """log (F(upper) - F(lower)) of the standard law, width = upper - lower."""

    @abstractmethod
    def _cdf_integral(self, t: Tensor) -> Tensor:
        """∫_{-∞}^t F of the standard law, which is symmetric."""

    @abstractmethod
    def _standard_quantile(self, u: Tensor) -> Tensor: ...


class DiscretisedGaussian(_Discretised):
    """A normal law integrated over the bins of L-level data (Ho et al. 2020, eq. 13).

    >>> DiscretisedGaussian(torch.zeros(1), torch.ones(1), levels=2, event_dims=1).log_prob(torch.ones(1)).exp()
    tensor(0.5000)
    """

    def _log_mass(self, lower: Tensor, upper: Tensor, width: Tensor) -> Tensor:
        return log_normal_interval(lower, upper, width)

    def _cdf_integral(self, t: Tensor) -> Tensor:
        return t * torch.special.ndtr(t) + torch.exp(-0.5 * t.square() - LOG_SQRT_TWO_PI)

    def _standard_quantile(self, u: Tensor) -> Tensor:
        return torch.special.ndtri(u)


class DiscretisedLogistic(_Discretised):
    """A logistic law integrated over the bins of L-level data (Salimans et al. 2017, section 2.1, one component).

    >>> DiscretisedLogistic(torch.zeros(1), torch.ones(1), levels=2, event_dims=1).log_prob(torch.ones(1)).exp()
    tensor(0.5000)
    """

    def _log_mass(self, lower: Tensor, upper: Tensor, width: Tensor) -> Tensor:
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): no cancellation
        return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))

    def _cdf_integral(self, t: Tensor) -> Tensor:
        return F.softplus(t)

    def _standard_quantile(self, u: Tensor) -> Tensor:
        return torch.logit(u)


def log_normal_interval(
    lower: Float[Tensor, "*#shape"], upper: Float[Tensor, "*#shape"], width: Float[Tensor, "*#shape"]
) -> Float[Tensor, "..."]:
    """log (Phi(upper) - Phi(lower)) in nats; value and gradient are accurate even far in the tails.

    `lower` must be less than `upper`. `width` is upper - lower, computed without cancellation. The tails use `erfcx`,
    because rounding destroys the gradient of torch's `log_ndtr` there.
    """
    # Every branch is computed for all elements, then one is chosen. Elements outside a branch get harmless inputs:
    # an unchosen nan would still reach the gradient, because nan times zero is nan.
    middle = (lower + upper) / 2
    balance = (2000 * torch.finfo(width.dtype).eps) ** 0.2  # both branches have this error here
    narrow = width * middle.abs().clamp(min=1) < balance
    one_sided = ~narrow & ((lower >= 0) | (upper <= 0))
    two_sided = ~narrow & ~one_sided
    # Narrow interval: w phi(m) (1 + w² (m² - 1) / 24 + O(w⁴ m⁴ / 1920)), the midpoint rule and its first correction
    squared = torch.where(narrow, middle, 0).square()
    density = width.log() - 0.5 * squared - LOG_SQRT_TWO_PI
    density = density + torch.log1p(torch.where(narrow, width.square() * (squared - 1) / 24, 0))
    # Interval around 0: a sum of two positive terms
    above, below = torch.where(two_sided, upper, 1), torch.where(two_sided, lower, -1)
    across = torch.log(0.5 * (torch.erf(above * SQRT_HALF) - torch.erf(below * SQRT_HALF)))
    # One side: ½ exp(-near²/2) (erfcx(near/√2) - exp(-(far² - near²)/2) erfcx(far/√2)), where far² - near² = 2 |m| w
    near = torch.where(one_sided, torch.minimum(lower.abs(), upper.abs()), 1)
    far = torch.where(one_sided, torch.maximum(lower.abs(), upper.abs()), 2)
    erfcx_near, erfcx_far = torch.special.erfcx(near * SQRT_HALF), torch.special.erfcx(far * SQRT_HALF)
    tail = torch.log(0.5 * (erfcx_near - torch.exp(-middle.abs() * width) * erfcx_far)) - 0.5 * near.square()
    return torch.where(narrow, density, torch.where(one_sided, tail, across))


@dataclass(frozen=True, eq=False)
class Categorical:
    """x on the grid of L levels in [-1, 1], with a free probability per level, by logits (*batch, L, *shape).

    >>> Categorical(torch.zeros(256, 1), event_dims=1).log_prob(torch.ones(1)) / math.log(256)
    tensor(-1.)
    """

    logits: Tensor
    event_dims: int

    @property
    def levels(self) -> int:
        """L, the number of levels."""
        return self.logits.shape[self._axis]

    def log_prob(self, x: Tensor) -> Tensor:
        """Σ_d log p(x_d) in nats, for x on the grid."""
        return _sum_event(self.log_prob_by_dimension(x), self.event_dims)

    def log_prob_by_dimension(self, x: Tensor) -> Tensor:
        """The terms of `log_prob`."""
        level = ((x + 1) * ((self.levels - 1) / 2)).round().long().unsqueeze(self._axis)
        log_probabilities = self.logits.log_softmax(self._axis)
        level = level.expand(*self.logits.shape[: self._axis], 1, *self.logits.shape[self._axis + 1 :])
        return log_probabilities.gather(self._axis, level).squeeze(self._axis)

    @property
    def mean(self) -> Tensor:
        """E[x]."""
        grid = torch.linspace(-1, 1, self.levels, dtype=self.logits.dtype, device=self.logits.device)
        return self.logits.softmax(self._axis).movedim(self._axis, -1) @ grid

    def quantile(self, u: Tensor) -> Tensor:
        """The lowest level whose cumulative probability reaches u."""
        # The clamp: by rounding, the last cumulative probability may be below u
        cumulative = self.logits.softmax(self._axis).cumsum(self._axis)
        level = (cumulative < u.unsqueeze(self._axis)).sum(self._axis).clamp(max=self.levels - 1)
        return (level * (2 / (self.levels - 1)) - 1).to(self.logits.dtype)

    @property
    def _axis(self) -> int:
        return -self.event_dims - 1


# ---------------------------------------------------------------------------------------------- scales


def floored_scale(raw: Float[Tensor, "*dims"], floor: float) -> Float[Tensor, "*dims"]:
    """floor + exp(raw): a scale that is about exp(raw) far above the floor, and never below the floor.

    The gradient of its logarithm lies between 0 and 1.

    >>> floored_scale(torch.tensor([-100.0, 0.0]), floor=0.01)
    tensor([0.0100, 1.0100])
    """
    return floor + raw.exp()


class AbstractScale(nn.Module, ABC):
    """The way to find the scale (standard deviation) of p(x|z), from `outputs` extra channels of the decoder."""

    outputs: int
    floor: float

    @abstractmethod
    def forward(self, raw: Tensor | None) -> Tensor:
        """The scale, which broadcasts to x; `raw` is the decoder's extra channel, or None if `outputs` is 0."""


class LearnedScale(AbstractScale):
    """A scale that depends on z, one per dimension of x: floor + exp(second channel of the decoder)."""

    outputs = 1

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = _positive(floor, "floor of a scale")

    def forward(self, raw: Tensor | None) -> Tensor:
        assert raw is not None
        return floored_scale(raw, self.floor)


class FreeScale(AbstractScale):
    """A scale of free parameters: one per dimension if `shape` is the shape of x, a single one if `shape` is ().

    The initial scale is `floor` + `initial`.
    """

    outputs = 0

    def __init__(self, shape: Sequence[int], floor: float, initial: float = 0.5) -> None:
        super().__init__()
        self.floor = _positive(floor, "floor of a scale")
        self.log_scale = nn.Parameter(torch.full(tuple(shape), math.log(_positive(initial, "initial scale"))))

    def forward(self, raw: Tensor | None) -> Tensor:
        return floored_scale(self.log_scale, self.floor)


class FixedScale(AbstractScale):
    """A constant scale, not learned."""

    outputs = 0

    def __init__(self, value: float) -> None:
        super().__init__()
        self.floor = _positive(value, "fixed scale")
        self.register_buffer("value", torch.tensor(float(value)))

    def forward(self, raw: Tensor | None) -> Tensor:
        return self.get_buffer("value")


def _positive(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"{name} {value}: expected a standard deviation > 0; give a positive number")
    return value


# ---------------------------------------------------------------------------------------------- likelihoods


class AbstractLikelihood(nn.Module, ABC):
    """Turns decoder output (*batch, outputs, *shape) into a distribution over x (*batch, *shape) (4.2)."""

    shape: tuple[int, ...]
    outputs: int  # decoder outputs per dimension of x

    @abstractmethod
    def forward(self, output: Tensor) -> Observation:
        """p(x|z), given the decoder's output for z."""

    def diagnostics(self, output: Tensor) -> dict[str, float]:
        """Numbers for the report by name, computed from the decoder's output for many z."""
        return {}


class _ScaledLikelihood(AbstractLikelihood):
    """Base of the likelihoods with a location and a scale; the decoder's first channel is the location."""

    def __init__(self, shape: Sequence[int], scale: AbstractScale) -> None:
        super().__init__()
        self.shape, self.scale, self.outputs = tuple(shape), scale, 1 + scale.outputs

    def _location_and_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        location, *raw = output.unbind(-len(self.shape) - 1)
        return location, self.scale(raw[0] if raw else None)

    def diagnostics(self, output: Tensor) -> dict[str, float]:
        """The scale's mean and floor, and the share of scales within 1 % of the floor; nothing for a fixed scale."""
        if isinstance(self.scale, FixedScale):
            return {}
        scale, floor = self._location_and_scale(output)[1], self.scale.floor
        return {
            "decoder scale, mean": scale.mean().item(),
            "decoder scale, floor": floor,
            "share of scales at the floor": (scale < 1.01 * floor).float().mean().item(),
        }


class GaussianLikelihood(_ScaledLikelihood):
    """p(x|z) = N(x | mean(z), diag scale²) (4.2); the argument `scale` gives the standard deviation.

    The scale needs a floor, because constant pixels would drive the density to infinity. Derive the floor from the
    data's resolution: uniform noise in a bin of width w has standard deviation w / sqrt(12).
    """

    def forward(self, output: Tensor) -> Gaussian:
        return Gaussian(*self._location_and_scale(output), event_dims=len(self.shape))


class BernoulliLikelihood(AbstractLikelihood):
    """p(x|z) = prod_d Bernoulli(x_d | sigmoid(logit_d(z))), for binary data."""

    outputs = 1

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, output: Tensor) -> Bernoulli:
        return Bernoulli(output.squeeze(-len(self.shape) - 1), event_dims=len(self.shape))


class DiscretisedLikelihood(_ScaledLikelihood):
    """p(x|z) on L levels by `law`, a discretised Gaussian or logistic; bounds are on log-masses, in true bits/dim."""

    def __init__(
        self,
        shape: Sequence[int],
        scale: AbstractScale,
        levels: int,
        law: type[DiscretisedGaussian] | type[DiscretisedLogistic],
    ) -> None:
        super().__init__(shape, scale)
        if not 2 <= levels <= 2**16:
            raise InputError(
                f"discretised likelihood over {levels} levels: expected 2 to 65536; use a Gaussian likelihood"
            )
        self.levels, self.law = levels, law

    def forward(self, output: Tensor) -> DiscretisedGaussian | DiscretisedLogistic:
        return self.law(*self._location_and_scale(output), self.levels, event_dims=len(self.shape))


class CategoricalLikelihood(AbstractLikelihood):
    """A free probability for every level and dimension; the levels need no order."""

    def __init__(self, shape: Sequence[int], levels: int) -> None:
        super().__init__()
        if not 2 <= levels <= 256:
            raise InputError(f"categorical likelihood over {levels} levels: expected 2 to 256; use a discretised law")
        self.shape, self.outputs = tuple(shape), levels

    def forward(self, output: Tensor) -> Categorical:
        return Categorical(output, event_dims=len(self.shape))
