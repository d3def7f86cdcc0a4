"""The halves of a hierarchy of latent variables: a bottom-up network of x, and a top-down network that noise enters.

The top-down network carries a state through the groups g = 1..G. The noise u_g of a group becomes z_g = shift + factor
⊙ u_g, where shift and factor depend on the state; z_g then changes the state, and the last state gives the output. All
tensors may have further leading dimensions: a state of shape (width) serves all rows.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.nets.blocks import AbstractBlockNetwork
from jensen.nets.initial import at_the_edge, zeroed

STEEPEST = 5.0
"""Limit of the absolute logarithm of a factor, as in Vahdat & Kautz 2020."""

START, START_GAIN = -1.0, 0.1
"""Initial bias of the logarithm of a proposal's scale, and the factor of its initial weights."""


def bounded_exp(raw: Tensor) -> Tensor:
    """exp(raw) for small raw, and between exp(-5) and exp(5) for all others."""
    return torch.exp(STEEPEST * torch.tanh(raw / STEEPEST))


class AbstractTopDown(AbstractBlockNetwork):
    """u (rows, sum of `sizes`) -> (rows, *outputs), group by group; `sizes` are those of u_g, from the top group down.

    If `residual`, a proposal of `AbstractBottomUp` is relative to shift and factor, else it is about z_g itself.
    """

    sizes: tuple[int, ...]
    residual: bool = True

    @abstractmethod
    def start(self) -> Tensor:
        """The state before the first group."""

    @abstractmethod
    def shift_and_factor(self, group: int, state: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and factor of z_g, (*rows, size) each; 0 and 1 for the first group."""

    @abstractmethod
    def enter(self, group: int, state: Tensor, z: Tensor) -> Tensor:
        """The state after z_g (*rows, size) has entered."""

    @abstractmethod
    def output(self, state: Tensor) -> Tensor:
        """The output (rows, *outputs) of the last state, where the rows are all leading dimensions, flattened."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Module:
        """The layer that computes the output: one row through it is one pass."""

    def forward(self, u: Tensor) -> Tensor:
        state = self.start()
        for group, part in enumerate(u.split(self.sizes, dim=-1)):
            shift, factor = (each.to(u.dtype) for each in self.shift_and_factor(group, state))
            state = self.enter(group, state, torch.addcmul(shift, factor, part))
        return self.output(state)


class AbstractBottomUp(AbstractBlockNetwork):
    """x (batch, *shape) -> one feature per group, and proposals for the groups, given features and states."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The features (batch, ...) of the groups, from the top group down."""

    @abstractmethod
    def proposal(self, group: int, state: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale, (*rows, size) each, for u_g if the top-down network is `residual`, else for z_g."""


# ---------------------------------------------------------------------------------------------- vectors


class DenseTopDown(AbstractTopDown):
    """All groups are vectors, and the state is a vector of `width` numbers with `depth` residual blocks per group."""

    def __init__(self, sizes: Sequence[int], width: int, depth: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.sizes, self.outputs, self.width = tuple(sizes), tuple(outputs), width
        self.register_buffer("origin", torch.zeros(width), persistent=False)
        self.noises = nn.ModuleList(at_the_edge(NormedLinear(width, 2 * size, zero=True)) for size in sizes[1:])
        self.entries = nn.ModuleList(at_the_edge(glorot(nn.Linear(size, width))) for size in sizes)
        self.blocks = nn.ModuleList(DenseBlocks(width, depth, len(sizes)) for _ in sizes)
        self.last = at_the_edge(NormedLinear(width, math.prod(outputs)))

    def start(self) -> Tensor:
        return self.get_buffer("origin")

    def shift_and_factor(self, group: int, state: Tensor) -> tuple[Tensor, Tensor]:
        if not group:
            zero = state.new_zeros(self.sizes[0])
            return zero, zero + 1
        shift, raw = self.noises[group - 1](state).chunk(2, -1)
        return shift, bounded_exp(raw)

    def enter(self, group: int, state: Tensor, z: Tensor) -> Tensor:
        return self.block(self.blocks[group], state + self.entries[group](z))

    def output(self, state: Tensor) -> Tensor:
        return self.last(state.reshape(-1, self.width)).unflatten(-1, self.outputs)

    @property
    def last_layer(self) -> nn.Module:
        return self.last


class DenseBottomUp(AbstractBottomUp):
    """Residual blocks of x, flattened; the feature of the lowest group comes after the first `depth` blocks, and so on.

    The top group sees all blocks. A proposal is a layer on state and feature. Its initial scales are about exp(-1):
    with scales of 1, the noise hides from the decoder what the means say, and training spends long without any z.
    """

    def __init__(self, shape: Sequence[int], sizes: Sequence[int], width: int, depth: int) -> None:
        super().__init__()
        self.first = at_the_edge(glorot(nn.Linear(math.prod(shape), width)))
        self.blocks = nn.ModuleList(DenseBlocks(width, depth, len(sizes)) for _ in sizes)
        self.taps = nn.ModuleList(NormedLinear(width, width) for _ in sizes)
        self.states = nn.ModuleList(NormedLinear(width, width) for _ in sizes[1:])
        heads = [at_the_edge(glorot(nn.Linear(width, 2 * size))) for size in sizes]
        for size, head in zip(sizes, heads, strict=True):
            nn.init.constant_(head.bias[size:], START)
            with torch.no_grad():
                head.weight[size:].mul_(START_GAIN)
        self.heads = nn.ModuleList(heads)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h, features = self.first(x.flatten(1)), []
        for block, tap in zip(self.blocks, self.taps, strict=True):
            h = self.block(block, h)
            features.append(tap(h))
        return tuple(features[::-1])

    def proposal(self, group: int, state: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        h = feature + self.states[group - 1](state) if group else feature
        mean, raw = self.heads[group](F.silu(h)).chunk(2, -1)
        return mean, bounded_exp(raw)


class NormedLinear(nn.Module):
    """linear(norm(h))."""

    def __init__(self, inputs: int, outputs: int, zero: bool = False) -> None:
        super().__init__()
        self.norm, linear = nn.LayerNorm(inputs, elementwise_affine=False), nn.Linear(inputs, outputs)
        self.linear = zeroed(linear) if zero else glorot(linear)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(self.norm(h))


class DenseBlocks(nn.Module):
    """`depth` times h + linear(silu(linear(norm(h)))), one of `count` such stacks in a row.

    The initial weights of the branches are smaller, the more branches there are, so that h keeps its size.
    """

    def __init__(self, width: int, depth: int, count: int) -> None:
        super().__init__()
        self.firsts = nn.ModuleList(NormedLinear(width, width) for _ in range(depth))
        gain = 1 / math.sqrt(depth * count)
        self.seconds = nn.ModuleList(glorot(nn.Linear(width, width), gain) for _ in range(depth))

    def forward(self, h: Tensor) -> Tensor:
        for first, second in zip(self.firsts, self.seconds, strict=True):
            h = h + second(F.silu(first(h)))
        return h


def glorot(layer: nn.Linear, gain: float = 1.0) -> nn.Linear:
    """Initial weights by Glorot's uniform rule, and biases of zero."""
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
