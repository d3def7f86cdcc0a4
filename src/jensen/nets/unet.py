"""The U-Net: residual blocks at decreasing resolutions and back up, for signals, images and volumes of any size."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.blocks import AbstractBlockNetwork
from jensen.nets.details import waves
from jensen.nets.embedding import ConditionEmbedding
from jensen.nets.initial import at_the_edge, zeroed
from jensen.nets.layers import (
    Axes,
    Doubling,
    ResidualBlock,
    channels_last,
    convolution,
    halving,
    normalisation,
    sizes_of,
    taps_of,
)
from jensen.nets.patches import Patches


class UNet(AbstractBlockNetwork):
    """x (batch, C, *sizes), noise levels (batch), labels (batch) or None -> (batch, outputs * C, *sizes).

    The data are signals (C, L), images (C, H, W) or volumes (C, D, H, W). First, patches of `patch` pixels a side
    become channels. On the way down, each level has `blocks` residual blocks of its width and half the resolution of
    the previous level. On the way up, each level has `blocks` + 1 residual blocks, which also get the features from the
    way down (skip connections). The levels in `attention` (0: the finest) apply self-attention after every block. With
    `octaves` the input includes the Fourier features of `waves`, which low noise levels need. The initial output
    is zero. `shape` fixes the channels and the number of axes; `forward` accepts any size along the axes. For labels
    and augmentations see `ConditionEmbedding`. Raises `InputError` for any other shape, for no widths, and for
    attention at a level that does not exist. Source: Ho et al. 2020, appendix B; scale and shift: Dhariwal & Nichol
    2021.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int] = (64, 128),
        blocks: int = 2,
        attention: Sequence[int] = (),
        patch: int = 1,
        classes: int | None = None,
        outputs: int = 1,
        octaves: int = 0,
        augmentations: int = 0,
    ) -> None:
        super().__init__()
        if not widths or not set(attention) <= set(range(len(widths))):
            expected = f"levels from 0 to {len(widths) - 1}" if widths else "at least one width, one for each level"
            raise InputError(f"attention at levels {tuple(attention)} of widths {tuple(widths)}: expected {expected}")
        self.patches = Patches(shape, patch)
        taps = taps_of(sizes_of(shape))
        self.condition = ConditionEmbedding(widths[0], 4 * widths[0], classes, augmentations)
        self.octaves, self.ones = octaves, (1,) * len(taps)
        self.first = at_the_edge(convolution(self.patches.folded, widths[0], taps))
        # One tap: waves tell the exact value of each pixel, and they are many channels
        details = convolution(2 * octaves * self.patches.folded, widths[0], (1,) * len(taps)) if octaves else None
        self.details = details and at_the_edge(details)
        self.down, self.middle, self.up = _layers(widths, blocks, attention, taps)
        self.modulated = [2 * layer.outputs for layer in self.modules() if isinstance(layer, ResidualBlock)]
        self.modulation = at_the_edge(nn.Linear(4 * widths[0], sum(self.modulated)))
        self.norm = normalisation(widths[0])
        self.last = at_the_edge(zeroed(convolution(widths[0], outputs * self.patches.folded, taps)))

    def forward(
        self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Tensor:
        modulations = self._modulations(self.condition(noise_level, labels, augmentation))
        h = self._entered(self.patches.fold(x), noise_level)
        skips = [h]
        for layer in self.down:
            h = self.block(layer, h, next(modulations)) if isinstance(layer, ResidualBlock) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = self.block(layer, h, next(modulations))
        for layer in self.up:
            if isinstance(layer, Doubling):
                h = layer(h, skips[-1].shape[2:])
            else:
                h = self.block(_joined, layer, h, skips.pop(), next(modulations))
        return self.patches.unfold(self.last(F.silu(self.norm(h))), x.shape[2:])

    def _entered(self, x: Tensor, noise_level: Tensor) -> Tensor:
        """The features of the patches x before the first block."""
        h = self.first(x)
        if self.details is not None:
            h = h + self.details(waves(x, noise_level, self.octaves))
        return channels_last(h)

    def _modulations(self, condition: Tensor) -> Iterator[Tensor]:
        """Scale and shift of each residual block in turn, together (batch, 2 channels, 1, ...)."""
        modulation = self.modulation(F.silu(condition))  # one matrix product for all blocks
        return iter(modulation.unflatten(1, (-1, *self.ones)).split(self.modulated, dim=1))


def _joined(layer: nn.Module, h: Tensor, skip: Tensor, modulation: Tensor) -> Tensor:
    """A block on the way up, whose input includes the features `skip` from the way down."""
    return layer(torch.cat([h, skip], dim=1), modulation)


def _layers(
    widths: Sequence[int], blocks: int, attention: Sequence[int], taps: Axes
) -> tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]:
    """The layers of the way down, the middle and the way up. Each block on the way up consumes one skip connection."""
    channels, left = widths[0], [widths[0]]
    down, up = nn.ModuleList(), nn.ModuleList()
    for level, width in enumerate(widths):
        for _ in range(blocks):
            down.append(ResidualBlock(channels, width, taps, level in attention))
            channels = width
            left.append(width)
        if level < len(widths) - 1:
            down.append(halving(width, width, taps))
            left.append(width)
    last = len(widths) - 1 in attention
    middle = nn.ModuleList(ResidualBlock(channels, channels, taps, attend) for attend in (last, False))
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            up.append(ResidualBlock(channels + left.pop(), width, taps, level in attention))
            channels = width
        if level:
            up.append(Doubling(width, width, taps))
    return down, middle, up
