"""The two halves of a hierarchy of gated dense layers, as in the VampPrior's paper (Tomczak & Welling 2018).

In the paper's names the top group is z_2 and the lower group is z_1. Widths, gates, the range of the log variances and
the initial weights are those of its code; the proposals are about z itself, not relative to p(z_1|z_2).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.initial import at_the_edge
from jensen.nets.ladder import AbstractBottomUp, AbstractTopDown

WIDTH = 300
LEAST, GREATEST = -6.0, 2.0
"""Range of a log variance."""


class Gated(nn.Module):
    """linear(h) ⊙ sigmoid(linear(h)), both by one product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = he_normal(nn.Linear(inputs, 2 * outputs))

    def forward(self, h: Tensor) -> Tensor:
        return F.glu(self.linear(h), -1)


class Normal(nn.Module):
    """h -> mean and scale; the log variance is cut to its range."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.linear = he_normal(nn.Linear(inputs, 2 * size))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.linear(h).chunk(2, -1)
        return mean, torch.exp(0.5 * log_variance.clamp(LEAST, GREATEST))


class GatedTopDown(AbstractTopDown):
    """p(z_1|z_2), and the output from both; the state is all z so far. `InputError` for other than two groups."""

    residual = False

    def __init__(self, sizes: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.sizes, self.outputs = tuple(sizes), tuple(outputs)
        top, lower = _two(sizes)
        self.prior = nn.Sequential(Gated(top, WIDTH), Gated(WIDTH, WIDTH), Normal(WIDTH, lower))
        self.from_top, self.from_lower = Gated(top, WIDTH), Gated(lower, WIDTH)
        self.joint = Gated(2 * WIDTH, WIDTH)
        self.last = at_the_edge(he_normal(nn.Linear(WIDTH, math.prod(outputs))))
        self.register_buffer("origin", torch.zeros(0), persistent=False)

    def start(self) -> Tensor:
        return self.get_buffer("origin")

    def shift_and_factor(self, group: int, state: Tensor) -> tuple[Tensor, Tensor]:
        if group:
            return self.prior(state)
        zero = state.new_zeros(self.sizes[0])
        return zero, zero + 1

    def enter(self, group: int, state: Tensor, z: Tensor) -> Tensor:
        return torch.cat([state.to(z.dtype), z], -1) if group else z

    def output(self, state: Tensor) -> Tensor:
        top, lower = state.reshape(-1, sum(self.sizes)).split(self.sizes, -1)
        h = self.joint(torch.cat([self.from_top(top), self.from_lower(lower)], -1))
        return self.last(h).unflatten(-1, self.outputs)

    @property
    def last_layer(self) -> nn.Module:
        return self.last


class GatedBottomUp(AbstractBottomUp):
    """q(z_2|x) and q(z_1|x, z_2)."""

    def __init__(self, shape: Sequence[int], sizes: Sequence[int]) -> None:
        super().__init__()
        inputs, (top, lower) = math.prod(shape), _two(sizes)
        self.top = nn.Sequential(Gated(inputs, WIDTH), Gated(WIDTH, WIDTH), Normal(WIDTH, top))
        self.from_x, self.from_top = Gated(inputs, WIDTH), Gated(top, WIDTH)
        self.joint = nn.Sequential(Gated(2 * WIDTH, WIDTH), Normal(WIDTH, lower))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        flat = x.flatten(1)
        return torch.cat(self.top(flat), -1), self.from_x(flat)

    def proposal(self, group: int, state: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        if not group:
            mean, scale = feature.chunk(2, -1)
            return mean, scale
        h = self.from_top(state)
        return self.joint(torch.cat([feature.to(h.dtype).expand(*h.shape[:-1], WIDTH), h], -1))


def he_normal(layer: nn.Linear) -> nn.Linear:
    """Initial weights N(0, 2 / inputs) (He et al. 2015); the biases keep torch's rule."""
    nn.init.normal_(layer.weight, 0, math.sqrt(2 / layer.in_features))
    return layer


def _two(sizes: Sequence[int]) -> Sequence[int]:
    if len(sizes) != 2:
        raise InputError(f"a gated ladder of {len(sizes)} groups: expected 2; choose network ladder for others")
    return sizes
