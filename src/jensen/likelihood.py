"""p(x|z): a decoder's output becomes a distribution over x at once (4.2).

Two kinds of object. A *likelihood* is a module that turns the decoder's raw output into a distribution; it owns what
is learned beside the network (a shared variance, say). A *distribution* scores x, has a mean, and maps uniform noise
to a sample by its quantile function, so that a sample is a pure function of its noise:

| likelihood              | x                                 | distribution             |
|-------------------------|-----------------------------------|--------------------------|
| `GaussianLikelihood`    | continuous                        | `Gaussian`               |
| `BernoulliLikelihood`   | binary, {0, 1}                    | `Bernoulli`              |
| `DiscretisedLikelihood` | L levels on the grid of [-1, 1]   | `DiscretisedGaussian` or `DiscretisedLogistic` |
| `CategoricalLikelihood` | L levels on the grid of [-1, 1]   | `Categorical`            |
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
from jensen.gaussian import Gaussian

# ---------------------------------------------------------------------------------------------- distributions


@runtime_checkable
class Observation(Protocol):
    """A distribution over x; the trailing `event_dims` dimensions are one x, the others are batch."""

    @property
    def mean(self) -> Tensor:
        """E[x], shape (*batch, *shape)."""

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, shape (*batch)."""

    def quantile(self, u: Tensor) -> Tensor:
        """The inverse distribution function of each dimension: a sample where u ~ U(0, 1) has the shape of x."""


def _sum_event(values: Tensor, event_dims: int) -> Tensor:
    return values.flatten(values.ndim - event_dims).sum(-1)


@dataclass(frozen=True)
class Bernoulli:
    """x in {0, 1} with p(x = 1) = sigmoid(logits), independent over the trailing `event_dims` dimensions."""

    logits: Tensor
    event_dims: int

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        # log p(x) = x l - softplus(l); x may have fewer batch dimensions than the logits and is never expanded in memory
        chosen = torch.linalg.vecdot(
            self.logits.flatten(self.logits.ndim - self.event_dims), x.flatten(x.ndim - self.event_dims)
        )
        return chosen - _sum_event(F.softplus(self.logits), self.event_dims)

    def quantile(self, u: Tensor) -> Tensor:
        return (u < self.mean).to(self.logits.dtype)


class _Discretised(ABC):
    """A continuous law of (mean, scale) integrated over the L bins of [-1, 1]; the outer bins reach to infinity.

    x lies on the grid -1 + 2 k / (L - 1), k = 0..L-1; the bin of x is x ± 1 / (L - 1). Masses sum to one exactly.
    Abstract: subclasses give the law's log-mass and quantile.
    """

    location: Tensor
    scale: Tensor
    levels: int
    event_dims: int

    @abstractmethod
    def _log_mass(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log F(upper), log (F(upper) - F(lower)) and log (1 - F(lower)) of the standardised law."""

    @abstractmethod
    def _standard_quantile(self, u: Tensor) -> Tensor: ...

    def log_prob(self, x: Tensor) -> Tensor:
        half = 1 / (self.levels - 1)
        lower, upper = (x - half - self.location) / self.scale, (x + half - self.location) / self.scale
        lowest, inner, highest = self._log_mass(lower, upper)
        mass = torch.where(x < -1 + half, lowest, torch.where(x > 1 - half, highest, inner))
        return _sum_event(mass, self.event_dims)

    @property
    def mean(self) -> Tensor:
        """The law's location, clamped to the grid's range: the centre of the distribution, not its exact mean."""
        return self.location.clamp(-1, 1)

    def quantile(self, u: Tensor) -> Tensor:
        bins = (self.levels - 1) / 2
        value = self.location + self.scale * self._standard_quantile(u)
        return ((value.clamp(-1, 1) + 1) * bins).round().div(bins).sub(1).to(self.location.dtype)


@dataclass(frozen=True)
class DiscretisedGaussian(_Discretised):
    """A normal law integrated over the bins of L-level data (DDPM, section 3.3)."""

    location: Tensor
    scale: Tensor
    levels: int
    event_dims: int

    def _log_mass(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        lowest, highest = torch.special.log_ndtr(upper), torch.special.log_ndtr(-lower)
        return lowest, _log_normal_interval(lower, upper), highest

    def _standard_quantile(self, u: Tensor) -> Tensor:
        return torch.special.ndtri(u)


@dataclass(frozen=True)
class DiscretisedLogistic(_Discretised):
    """A logistic law integrated over the bins of L-level data (PixelCNN++, section 2.1, one component)."""

    location: Tensor
    scale: Tensor
    levels: int
    event_dims: int

    def _log_mass(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), exact and free of cancellation
        lowest, highest = F.logsigmoid(upper), F.logsigmoid(-lower)
        return lowest, lowest + highest + torch.log(-torch.expm1(lower - upper)), highest

    def _standard_quantile(self, u: Tensor) -> Tensor:
        return torch.logit(u)


def _log_normal_interval(lower: Tensor, upper: Tensor) -> Tensor:
    """log (Phi(upper) - Phi(lower)), lower < upper, without cancellation in the tails or in narrow bins."""
    middle, width = (lower + upper) / 2, upper - lower
    # Narrow: Phi(m + w/2) - Phi(m - w/2) = w phi(m) (1 + w² (m² - 1) / 24 + O(w⁴ m⁴)), for w max(1, |m|) << 1
    narrow = width * middle.abs().clamp(min=1) < 0.1
    correction = torch.where(narrow, width.square() * (middle.square() - 1) / 24, 0)
    density = torch.log(width) - 0.5 * middle.square() - 0.5 * math.log(2 * math.pi) + torch.log1p(correction)
    # Wide: reflect into the left tail, where log Phi keeps its relative accuracy, and subtract there
    right = middle > 0
    near, far = torch.where(right, -lower, upper), torch.where(right, -upper, lower)
    far = torch.where(narrow, near - 1, far)  # keeps the unused branch and its gradient finite
    log_near, log_far = torch.special.log_ndtr(near), torch.special.log_ndtr(far)
    return torch.where(narrow, density, log_near + torch.log(-torch.expm1(log_far - log_near)))


@dataclass(frozen=True)
class Categorical:
    """x on the grid of L levels in [-1, 1], one free probability per level; logits (*batch, L, *shape)."""

    logits: Tensor
    event_dims: int

    @property
    def levels(self) -> int:
        return self.logits.shape[-self.event_dims - 1]

    def log_prob(self, x: Tensor) -> Tensor:
        level = ((x + 1) * ((self.levels - 1) / 2)).round().long().unsqueeze(-self.event_dims - 1)
        log_probabilities = self.logits.log_softmax(-self.event_dims - 1)
        level = level.expand(*self.logits.shape[: -self.event_dims - 1], 1, *self.logits.shape[-self.event_dims :])
        return _sum_event(log_probabilities.gather(-self.event_dims - 1, level), self.event_dims + 1)

    @property
    def mean(self) -> Tensor:
        grid = torch.linspace(-1, 1, self.levels, dtype=self.logits.dtype, device=self.logits.device)
        return torch.movedim(self.logits.softmax(-self.event_dims - 1), -self.event_dims - 1, -1) @ grid

    def quantile(self, u: Tensor) -> Tensor:
        cumulative = self.logits.softmax(-self.event_dims - 1).cumsum(-self.event_dims - 1)
        level = (cumulative < u.unsqueeze(-self.event_dims - 1)).sum(-self.event_dims - 1).clamp(max=self.levels - 1)
        return (level * (2 / (self.levels - 1)) - 1).to(self.logits.dtype)


# ---------------------------------------------------------------------------------------------- scales


def floored_scale(raw: Float[Tensor, " *dims"], floor: float) -> Float[Tensor, " *dims"]:
    """exp(raw), bent smoothly so that it never falls below `floor`: floor + floor * (exp(softplus(r)) - 1), r = raw - log floor.

    For raw >> log floor this is exp(raw); for raw << log floor it is `floor`; the gradient never explodes.
    """
    log_floor = math.log(floor)
    return torch.exp(log_floor + F.softplus(raw - log_floor))


class AbstractScale(nn.Module, ABC):
    """Where the scale (standard deviation) of p(x|z) comes from; `outputs` extra decoder channels feed it."""

    outputs: int
    floor: float

    @abstractmethod
    def forward(self, raw: Tensor | None) -> Tensor:
        """The scale, broadcastable to x; `raw` is the decoder's extra channel, None where `outputs` is 0."""


class LearnedScale(AbstractScale):
    """A function of z, one scale per (x, z): the decoder's second channel, as log-scale above the floor."""

    outputs = 1

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, raw: Tensor | None) -> Tensor:
        assert raw is not None
        return floored_scale(raw, self.floor)


class FreeScale(AbstractScale):
    """Free parameters: of shape `shape`, one scale per dimension; of shape (), one shared by all."""

    outputs = 0

    def __init__(self, shape: Sequence[int], floor: float, initial: float = 0.5) -> None:
        super().__init__()
        self.floor = floor
        self.log_scale = nn.Parameter(torch.full(tuple(shape), math.log(initial)))

    def forward(self, raw: Tensor | None) -> Tensor:
        return floored_scale(self.log_scale, self.floor)


class FixedScale(AbstractScale):
    """A given constant, never learned."""

    outputs = 0

    def __init__(self, value: float) -> None:
        super().__init__()
        if not value > 0:
            raise InputError(f"fixed scale {value}: expected a standard deviation > 0; give a positive number")
        self.floor = value
        self.register_buffer("value", torch.tensor(float(value)))

    def forward(self, raw: Tensor | None) -> Tensor:
        return self.get_buffer("value")


# ---------------------------------------------------------------------------------------------- likelihoods


class AbstractLikelihood(nn.Module, ABC):
    """Turns decoder output (*batch, outputs, *shape) into a distribution over x (*batch, *shape) (4.2)."""

    shape: tuple[int, ...]
    outputs: int  # how many numbers the decoder must give per dimension of x

    @abstractmethod
    def forward(self, output: Tensor) -> Observation: ...

    def _location_and_scale(self, output: Tensor, scale: AbstractScale) -> tuple[Tensor, Tensor]:
        channel = -len(self.shape) - 1
        raw = output.select(channel, 1) if scale.outputs else None
        return output.select(channel, 0), scale(raw)


class GaussianLikelihood(AbstractLikelihood):
    """p(x|z) = N(x | mean(z), diag scale²), the scale where `scale` says (4.2).

    The scale's floor keeps constant pixels from driving the density to infinity; tie it to the data's resolution
    (a bin of width w that holds uniform noise has standard deviation w / sqrt(12)).
    """

    def __init__(self, shape: Sequence[int], scale: AbstractScale) -> None:
        super().__init__()
        self.shape, self.scale, self.outputs = tuple(shape), scale, 1 + scale.outputs

    def forward(self, output: Tensor) -> Gaussian:
        return Gaussian(*self._location_and_scale(output, self.scale), event_dims=len(self.shape))


class BernoulliLikelihood(AbstractLikelihood):
    """p(x|z) = prod_d Bernoulli(x_d | sigmoid(logit_d(z))) on binary data."""

    outputs = 1

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, output: Tensor) -> Bernoulli:
        return Bernoulli(output.select(-len(self.shape) - 1, 0), event_dims=len(self.shape))


class DiscretisedLikelihood(AbstractLikelihood):
    """The mass that a law (`DiscretisedGaussian` or `DiscretisedLogistic`) gives to each of L levels: true bits/dim."""

    def __init__(
        self,
        shape: Sequence[int],
        scale: AbstractScale,
        levels: int,
        law: type[DiscretisedGaussian] | type[DiscretisedLogistic],
    ) -> None:
        super().__init__()
        self.shape, self.scale, self.outputs = tuple(shape), scale, 1 + scale.outputs
        self.levels, self.law = levels, law

    def forward(self, output: Tensor) -> DiscretisedGaussian | DiscretisedLogistic:
        return self.law(*self._location_and_scale(output, self.scale), self.levels, event_dims=len(self.shape))


class CategoricalLikelihood(AbstractLikelihood):
    """One free probability per level and dimension; needs no order among the levels."""

    def __init__(self, shape: Sequence[int], levels: int) -> None:
        super().__init__()
        if not 2 <= levels <= 256:
            raise InputError(f"categorical likelihood over {levels} levels: expected 2 to 256; use a discretised law")
        self.shape, self.outputs = tuple(shape), levels

    def forward(self, output: Tensor) -> Categorical:
        return Categorical(output, event_dims=len(self.shape))
