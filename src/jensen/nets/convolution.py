"""The convolutional encoder and decoder: residual networks for signals, images and volumes of any size.

Both have one level for each width. The first level works on patches, and each further level on half the resolution of
the previous level, rounded up.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.blocks import AbstractBlockNetwork
from jensen.nets.initial import at_the_edge
from jensen.nets.layers import (
    Axes,
    Doubling,
    ResidualBlock,
    channels_last,
    convolution,
    halved,
    halving,
    normalisation,
    taps_of,
)
from jensen.nets.patches import Patches

LARGEST_OVERLAPPING = 4  # side in pixels; smaller patches are coded much better together with their neighbours


@dataclass(frozen=True)
class Levels:
    """The levels of an encoder for data of `shape` (C, L), (C, H, W) or (C, D, H, W).

    A decoder has the same levels in reverse. Each width has `blocks` residual blocks. Before the first level, patches
    of `patch` pixels a side become channels. Raises `InputError` for any other shape, and for no widths.
    """

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    blocks: int = 1
    patch: int = 1

    def __post_init__(self) -> None:
        if not self.widths:
            raise InputError("convolutional network without widths: expected one for each level; give at least one")
        Patches(self.shape, self.patch)

    @property
    def grids(self) -> list[Axes]:
        """The sizes of each level, finest first. Signals have height 1."""
        grids = [Patches(self.shape, self.patch).grid]
        for _ in self.widths[1:]:
            grids.append(halved(grids[-1]))
        return grids

    @property
    def coarsest(self) -> Axes:
        """The sizes of the last level: (L), (H, W) or (D, H, W)."""
        return self.grids[-1][1:] if len(self.shape) == 2 else self.grids[-1]

    @property
    def taps(self) -> Axes:
        """Taps of the kernels along each axis."""
        return taps_of(self.grids[0])

    @property
    def outer_taps(self) -> Axes:
        """Taps of the first kernel of the encoder and the last of the decoder: 1 for large patches, of many values."""
        return self.taps if self.patch <= LARGEST_OVERLAPPING else (1,) * len(self.taps)


class ConvolutionalEncoder(AbstractBlockNetwork):
    """x (batch, C, *sizes) -> (batch, outputs): the levels, then a linear layer on all positions of the last level.

    A `spatial` encoder has no linear layer. It returns `outputs` channels at every position of the last level, as
    (batch, outputs * positions), one channel after the other. So `chunk(2, dim=1)` separates the first half of its
    channels from the second half.
    """

    def __init__(self, levels: Levels, outputs: int, spatial: bool = False) -> None:
        super().__init__()
        self.patches, taps, widths = Patches(levels.shape, levels.patch), levels.taps, levels.widths
        self.first = at_the_edge(convolution(self.patches.folded, widths[0], levels.outer_taps))
        self.layers = nn.ModuleList()
        for width, coarser in zip(widths, [*widths[1:], 0], strict=True):
            self.layers.extend(ResidualBlock(width, width, taps, modulated=False) for _ in range(levels.blocks))
            if coarser:
                self.layers.append(halving(width, coarser, taps))
        self.norm = normalisation(widths[-1])
        inputs = widths[-1] * math.prod(levels.coarsest)
        last = convolution(widths[-1], outputs, (1,) * len(taps)) if spatial else nn.Linear(inputs, outputs)
        self.last = at_the_edge(last)

    def forward(self, x: Tensor) -> Tensor:
        h = channels_last(self.first(self.patches.fold(x)))
        for layer in self.layers:
            h = self.block(layer, h)
        h = F.silu(self.norm(h))
        return self.last(h.flatten(1) if isinstance(self.last, nn.Linear) else h).flatten(1)


class ConvolutionalDecoder(AbstractBlockNetwork):
    """z (batch, latent) -> (batch, outputs, C, *sizes): a linear layer to all positions, then the levels in reverse.

    A `spatial` decoder has a convolution in place of the linear layer. Its z has `latent` channels at every position of
    the coarsest level, as (batch, latent * positions), one channel after the other. `latent_shape` is (latent,
    *coarsest level) for a spatial decoder, else (latent).
    """

    def __init__(self, levels: Levels, latent: int, outputs: int, spatial: bool = False) -> None:
        super().__init__()
        self.patches, taps, widths = Patches(levels.shape, levels.patch), levels.taps, levels.widths
        self.output, self.grids = (outputs, *levels.shape), levels.grids
        self.latent_shape = (latent, *levels.coarsest) if spatial else (latent,)
        start = widths[-1] * math.prod(levels.coarsest)
        self.first = at_the_edge(convolution(latent, widths[-1], taps) if spatial else nn.Linear(latent, start))
        self.layers = nn.ModuleList()
        for width, finer in zip(widths[::-1], [*widths[-2::-1], 0], strict=True):
            self.layers.extend(ResidualBlock(width, width, taps, modulated=False) for _ in range(levels.blocks))
            if finer:
                self.layers.append(Doubling(width, finer, taps))
        self.norm = normalisation(widths[0])
        self.last = at_the_edge(convolution(widths[0], outputs * self.patches.folded, levels.outer_taps))

    def forward(self, z: Tensor) -> Tensor:
        *finer, coarsest = self.grids
        if isinstance(self.first, nn.Linear):
            h = self.first(z).unflatten(1, (-1, *coarsest))
        else:
            h = self.first(z.unflatten(1, (self.latent_shape[0], *coarsest)))
        h = channels_last(h)
        for layer in self.layers:
            h = self.block(layer, h, finer.pop()) if isinstance(layer, Doubling) else self.block(layer, h)
        h = self.last(F.silu(self.norm(h)))
        return self.patches.unfold(h, self.output[2:]).reshape(z.shape[0], *self.output)
