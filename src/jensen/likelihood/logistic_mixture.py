"""Mixtures of discretised logistic laws for levels, with dependent channels, as in PixelCNN++ (Salimans et al. 2017).

The channels x_1 .. x_C of a pixel share the component k of the mixture, and each channel's location is linear in the
channels before it:

    p(x_1, .., x_C) = Σ_k w_k Π_c L(x_c | m_ck + Σ_{j<c} a_cjk x_j, s_ck),      |a_cjk| < 1,        (4.18)

where L is the discretised logistic law. Pixels are independent given z.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.likelihood.distributions import DiscretisedLogistic
from jensen.likelihood.likelihoods import AbstractLikelihood
from jensen.likelihood.scales import floored_scale


@dataclass(frozen=True, eq=False)
class LogisticMixture:
    """x (*batch, C, *places) on the grid of `levels` levels; K components at each place.

    `log_weights` (*batch, K, *places) are normalised. `locations` and `scales` are (*batch, C, K, *places). `slopes`
    (*batch, C (C - 1) / 2, K, *places) are the a_cj of the pairs j < c, in the order (1, 0), (2, 0), (2, 1), ...
    """

    log_weights: Tensor
    locations: Tensor
    scales: Tensor
    slopes: Tensor
    levels: int
    places: int

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return self.locations.shape[self._axis - 1]

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (*batch): the sum over places of (4.18)."""
        return self._joint(x)[-1].logsumexp(self._axis).flatten(-self.places).sum(-1)

    def log_prob_by_dimension(self, x: Tensor) -> Tensor:
        """log p(x_c | x_<c) of each channel and place, (*batch, C, *places); the sum is `log_prob`."""
        sums = [joint.logsumexp(self._axis) for joint in self._joint(x)]
        return torch.stack([later - sooner for sooner, later in pairwise(sums)], self._axis)

    @property
    def mean(self) -> Tensor:
        """E[x], as the mean over components of E[x_c | k] with all channels before it at their own E[x_j | k]."""
        means: list[Tensor] = []
        for channel in range(self.channels):
            means.append(self._law(channel, means).mean)
        weights = self.log_weights.exp()
        return torch.stack([(weights * mean).sum(self._axis) for mean in means], self._axis)

    @torch.no_grad()
    def quantile(self, u: Tensor) -> Tensor:
        """For each channel, the lowest level whose distribution function, given the channels before it, reaches u."""
        wide, found = self.double(), list[Tensor]()
        log_weights = wide.log_weights
        for channel, share in enumerate(u.double().unbind(self._axis)):
            law = wide._law(channel, found)
            level = _quantile(law, log_weights.softmax(self._axis), share, self._axis)
            found.append(_grid(level, self.levels).unsqueeze(self._axis))
            log_weights = log_weights + law.log_prob_by_dimension(found[-1])
        return torch.cat(found, self._axis).to(self.locations.dtype)

    def conditional(self, channel: int, x: Tensor) -> tuple[Tensor, DiscretisedLogistic]:
        """The components of p(x_c | x_<c): weights and laws (*batch, K, *places), from the channels of x before c."""
        before = [x.narrow(self._axis, j, 1) for j in range(channel)]
        log_weights = self.log_weights
        for j in range(channel):
            log_weights = log_weights + self._law(j, before[:j]).log_prob_by_dimension(before[j])
        return log_weights.softmax(self._axis), self._law(channel, before)

    def double(self) -> "LogisticMixture":
        """The same distribution in float64."""
        return LogisticMixture(
            self.log_weights.double(),
            self.locations.double(),
            self.scales.double(),
            self.slopes.double(),
            self.levels,
            self.places,
        )

    def _joint(self, x: Tensor) -> list[Tensor]:
        """log p(k, x_1, .., x_c) for c = 0 .. C, each (*batch, K, *places)."""
        found = [self.log_weights]
        before = [x.narrow(self._axis, j, 1) for j in range(self.channels)]
        for channel, value in enumerate(before):
            found.append(found[-1] + self._law(channel, before[:channel]).log_prob_by_dimension(value))
        return found

    def _law(self, channel: int, before: Sequence[Tensor]) -> DiscretisedLogistic:
        """The laws of x_c of all components given the channels before it, (*batch, K or 1, *places) each."""
        location = self.locations.select(self._axis - 1, channel)
        first = channel * (channel - 1) // 2
        for j, value in enumerate(before):
            location = location + self.slopes.select(self._axis - 1, first + j) * value
        scale = self.scales.select(self._axis - 1, channel)
        return DiscretisedLogistic(location, scale, self.levels, self.places + 1)

    @property
    def _axis(self) -> int:
        """The axis of components, and of channels in x."""
        return -self.places - 1


class LogisticMixtureLikelihood(AbstractLikelihood):
    """p(x|z) on L levels by `components` discretised logistic laws at each place (4.18).

    The decoder has `outputs` numbers for each dimension of x; those of all channels of a place together are the
    parameters of its mixture, and up to C - 1 numbers stay unused. For outputs of 0 the mixture is about uniform.
    Scales are at least `floor`. Raises `InputError` for vectors, for less than one component, and for less than 2 or
    more than 65536 levels.
    """

    def __init__(self, shape: Sequence[int], components: int, levels: int, floor: float) -> None:
        super().__init__()
        if components < 1 or not 2 <= levels <= 2**16:
            raise InputError(
                f"a mixture of {components} discretised laws over {levels} levels: expected at least 1 component, and "
                "2 to 65536 levels"
            )
        if len(shape) < 2:
            raise InputError(
                f"a mixture of logistic laws for vectors of shape {tuple(shape)}: it is for images, signals and "
                "volumes; choose likelihood discretised-logistic"
            )
        self.shape, self.levels, self.components, self.floor = tuple(shape), levels, components, floor
        self.channels, self.places = shape[0], len(shape) - 1
        pairs = self.channels * (self.channels - 1) // 2
        self._sizes = [self.components, *[self.channels * components] * 2, pairs * components]
        self.outputs = math.ceil(sum(self._sizes) / self.channels)

    @property
    def factorises(self) -> bool:
        """Whether the dimensions of x are independent given z."""
        return self.channels == 1

    def forward(self, output: Tensor) -> LogisticMixture:
        axis = -self.places - 1
        by_place = output.flatten(axis - 1, axis)
        rest = by_place.shape[axis] - sum(self._sizes)
        logits, *others, _ = by_place.split([*self._sizes, rest], axis)
        locations, scales, slopes = (each.unflatten(axis, (-1, self.components)) for each in others)
        count = self.components
        start = torch.linspace(1 / count - 1, 1 - 1 / count, count, dtype=output.dtype, device=output.device)
        start = start.reshape(-1, *[1] * self.places)
        scales = floored_scale(scales - math.log(count), self.floor)
        return LogisticMixture(
            logits.log_softmax(axis), locations + start, scales, torch.tanh(slopes), self.levels, self.places
        )

    def diagnostics(self, output: Tensor) -> dict[str, float]:
        """The scales' mean and floor, and the share of scales within 1 % of the floor."""
        scales = self(output).scales
        return {
            "decoder scale, mean": scales.mean().item(),
            "decoder scale, floor": self.floor,
            "share of scales at the floor": (scales < 1.01 * self.floor).float().mean().item(),
        }


def _grid(level: Tensor, levels: int) -> Tensor:
    return level * (2 / (levels - 1)) - 1


def _quantile(law: DiscretisedLogistic, weights: Tensor, u: Tensor, axis: int) -> Tensor:
    """The lowest level k with Σ_components w F(edge above k) >= u, by bisection over the levels."""
    low, high = torch.zeros_like(u), torch.full_like(u, law.levels - 1.0)
    for _ in range(math.ceil(math.log2(law.levels))):
        middle = ((low + high) / 2).floor()
        edge = (2 * middle + 1) / (law.levels - 1) - 1
        below = (weights * torch.sigmoid((edge.unsqueeze(axis) - law.location) / law.scale)).sum(axis)
        reached = (below >= u) | (middle >= law.levels - 1)
        low, high = torch.where(reached, low, middle + 1), torch.where(reached, middle, high)
    return high
