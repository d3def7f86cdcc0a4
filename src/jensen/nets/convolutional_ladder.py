"""The two halves of a hierarchy whose groups are feature maps, for signals, images and volumes of any size.

A level is a grid of positions. The top-down network starts at the coarsest level; after the last group of a level its
state moves on to the next finer level. The bottom-up network goes the other way.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.convolution import Levels
from jensen.nets.initial import at_the_edge, zeroed
from jensen.nets.ladder import AbstractBottomUp, AbstractTopDown, bounded_exp
from jensen.nets.layers import Axes, Doubling, ResidualBlock, channels_last, convolution, halving, normalisation
from jensen.nets.patches import Patches


class MapGroups:
    """The groups of a hierarchy of maps: `counts` are the numbers of groups of the levels, coarsest level first.

    Each group has `channels` numbers at every position of its level. Raises `InputError` unless there is one count for
    each level, at least 1.
    """

    def __init__(self, levels: Levels, counts: Sequence[int], channels: int) -> None:
        if len(counts) != len(levels.widths) or min(counts) < 1:
            raise InputError(
                f"numbers of groups {' '.join(map(str, counts))} for {len(levels.widths)} levels: expected one for each"
                " level, coarsest level first, and at least 1"
            )
        self.levels, self.channels = levels, channels
        self.widths, self.grids = levels.widths[::-1], levels.grids[::-1]
        self.level_of = [level for level, count in enumerate(counts) for _ in range(count)]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of dimensions of each group, from the top group down."""
        return tuple(self.channels * math.prod(self.grids[level]) for level in self.level_of)

    @property
    def group_widths(self) -> list[int]:
        """The width of the state at each group."""
        return [self.widths[level] for level in self.level_of]

    def grid(self, group: int) -> Axes:
        """The positions of a group."""
        return self.grids[self.level_of[group]]


class ConvolutionalTopDown(AbstractTopDown):
    """u -> (rows, outputs, *shape) for data of the shape of the levels, each group with `levels.blocks` blocks."""

    def __init__(self, groups: MapGroups, outputs: int) -> None:
        super().__init__()
        levels, widths, one = groups.levels, groups.group_widths, (1,) * len(groups.levels.taps)
        self.groups, self.sizes, self.axes = groups, groups.sizes, len(one)
        self.patches, self.outputs = Patches(levels.shape, levels.patch), (outputs, *levels.shape)
        self.first = nn.Parameter(torch.zeros(widths[0], *groups.grid(0)))
        twice, own = 2 * groups.channels, groups.channels
        self.noises = nn.ModuleList(
            at_the_edge(Normed(width, zeroed(convolution(width, twice, one)))) for width in widths[1:]
        )
        self.entries = nn.ModuleList(at_the_edge(convolution(own, width, one)) for width in widths)
        self.blocks = nn.ModuleList(Blocks(width, levels.taps, levels.blocks) for width in widths)
        self.moves = nn.ModuleList(Doubling(coarse, fine, levels.taps) for coarse, fine in pairwise(groups.widths))
        self.last = at_the_edge(
            Normed(widths[-1], convolution(widths[-1], outputs * self.patches.folded, levels.outer_taps))
        )

    def start(self) -> Tensor:
        return self.first

    def shift_and_factor(self, group: int, state: Tensor) -> tuple[Tensor, Tensor]:
        if not group:
            zero = state.new_zeros(self.sizes[0])
            return zero, zero + 1
        shift, raw = self._mapped(self.noises[group - 1], state).flatten(-self.axes - 1).chunk(2, -1)
        return shift, bounded_exp(raw)

    def enter(self, group: int, state: Tensor, z: Tensor) -> Tensor:
        maps = z.unflatten(-1, (self.groups.channels, *self.groups.grid(group)))
        state = self._mapped(self.blocks[group], state + self._mapped(self.entries[group], maps))
        level, following = self.groups.level_of[group], self.groups.level_of[group + 1 : group + 2]
        if following and following[0] > level:
            state = self._mapped(self.moves[level], state, self.groups.grids[level + 1])
        return state

    def output(self, state: Tensor) -> Tensor:
        h = self.last(channels_last(state.reshape(-1, *state.shape[-self.axes - 1 :])))
        return self.patches.unfold(h, self.outputs[2:]).reshape(-1, *self.outputs)

    @property
    def last_layer(self) -> nn.Module:
        return self.last

    def _mapped(self, module: nn.Module, h: Tensor, *others: Axes) -> Tensor:
        return mapped(self.block, module, h, self.axes, *others)


class ConvolutionalBottomUp(AbstractBottomUp):
    """Residual blocks from the finest level to the coarsest; each group has a feature map after blocks of its own."""

    def __init__(self, groups: MapGroups) -> None:
        super().__init__()
        levels, widths, one = groups.levels, groups.group_widths, (1,) * len(groups.levels.taps)
        self.groups, self.axes = groups, len(one)
        self.patches = Patches(levels.shape, levels.patch)
        self.first = at_the_edge(convolution(self.patches.folded, levels.widths[0], levels.outer_taps))
        self.blocks = nn.ModuleList(Blocks(width, levels.taps, levels.blocks) for width in widths)
        self.taps = nn.ModuleList(Normed(width, convolution(width, width, one)) for width in widths)
        self.states = nn.ModuleList(Normed(width, convolution(width, width, one)) for width in widths[1:])
        self.heads = nn.ModuleList(
            at_the_edge(convolution(width, 2 * groups.channels, levels.taps)) for width in widths
        )
        self.moves = nn.ModuleList(halving(fine, coarse, levels.taps) for coarse, fine in pairwise(groups.widths))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h, features = channels_last(self.first(self.patches.fold(x))), list[Tensor]()
        level = len(self.groups.grids) - 1
        for group in reversed(range(len(self.blocks))):
            if level > self.groups.level_of[group]:
                level -= 1
                h = self.moves[level](h)
            h = self.block(self.blocks[group], h)
            features.append(self.taps[group](h))
        return tuple(features[::-1])

    def proposal(self, group: int, state: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        h = feature
        if group:
            h = feature + mapped(self.block, self.states[group - 1], state, self.axes)
        both = mapped(self.block, self.heads[group], F.silu(h), self.axes).flatten(-self.axes - 1)
        mean, raw = both.chunk(2, -1)
        return mean, bounded_exp(raw)


class Normed(nn.Module):
    """layer(silu(norm(h)))."""

    def __init__(self, width: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm, self.layer = normalisation(width), layer

    def forward(self, h: Tensor) -> Tensor:
        return self.layer(F.silu(self.norm(h)))


class Blocks(nn.Module):
    """`count` residual blocks."""

    def __init__(self, width: int, taps: Axes, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ResidualBlock(width, width, taps, modulated=False) for _ in range(count))

    def forward(self, h: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(h)
        return h


def mapped(block: Callable[..., Tensor], module: nn.Module, h: Tensor, axes: int, *others: Axes) -> Tensor:
    """module(h, *others) for h (*rows, channels, *axes) with any number of leading dimensions."""
    out = block(module, channels_last(h.reshape(-1, *h.shape[-axes - 1 :])), *others)
    return out.reshape(*h.shape[: -axes - 1], *out.shape[1:])
