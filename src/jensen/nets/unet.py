"""The U-Net: residual blocks at decreasing resolutions and back up, for signals and images of any size.

A signal (C, L) counts as an image of height 1; along an axis of one pixel, every kernel has one tap. Halving rounds up,
and doubling crops to the size on the way down, so every size is restored exactly. Tensors inside the network are stored
channels last, which convolutions compute faster.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.attention import SelfAttention
from jensen.nets.blocks import AbstractBlockNetwork
from jensen.nets.details import with_details
from jensen.nets.embedding import ConditionEmbedding
from jensen.nets.initial import at_the_edge, zeroed
from jensen.nets.patches import Pair, Patches

GROUPS, HEAD_WIDTH = 8, 32


class UNet(AbstractBlockNetwork):
    """x (batch, C, L) or (batch, C, H, W), noise levels (batch), labels (batch) or None -> (batch, outputs * C, ...).

    First, patches of `patch` pixels a side become channels. On the way down, each level has `blocks` residual blocks of
    its width and half the resolution of the previous level. On the way up, each level has `blocks` + 1 residual blocks,
    which also get the features from the way down (skip connections). The levels in `attention` (0: the finest) apply
    self-attention after every block. With `octaves` the input includes the Fourier features of `with_details`, which
    low noise levels need. The initial output is zero. `shape` fixes the channels and the number of axes; `forward`
    accepts any size along the axes. For labels and augmentations see
    `ConditionEmbedding`. Raises `InputError` for any other shape, for
    no widths, and for attention at a level that does not exist. Source: Ho et al. 2020, appendix B; scale and shift:
    Dhariwal & Nichol 2021.
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
        taps = (3 if self.patches.extended[0] else 1, 3 if self.patches.extended[1] else 1)
        self.condition = ConditionEmbedding(widths[0], 4 * widths[0], classes, augmentations)
        self.octaves = octaves
        self.first = at_the_edge(_convolution((1 + 2 * octaves) * self.patches.folded, widths[0], taps))
        self.down, self.middle, self.up = _layers(widths, blocks, attention, taps)
        self.modulated = [2 * layer.outputs for layer in self.modules() if isinstance(layer, ResidualBlock)]
        self.modulation = at_the_edge(nn.Linear(4 * widths[0], sum(self.modulated)))
        self.norm = _norm(widths[0])
        self.last = at_the_edge(zeroed(_convolution(widths[0], outputs * self.patches.folded, taps)))

    def forward(
        self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Tensor:
        modulations = self._modulations(self.condition(noise_level, labels, augmentation))
        h = self.patches.fold(x)
        h = with_details(h, noise_level, self.octaves) if self.octaves else h
        h = self.first(h).contiguous(memory_format=torch.channels_last)
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
        return self.patches.unfold(self.last(F.silu(self.norm(h))), like=x)

    def _modulations(self, condition: Tensor) -> Iterator[Tensor]:
        """Scale and shift of each residual block in turn, together (batch, 2 channels, 1, 1)."""
        modulation = self.modulation(F.silu(condition))  # one matrix product for all blocks
        return iter(modulation[:, :, None, None].split(self.modulated, dim=1))


def _joined(layer: nn.Module, h: Tensor, skip: Tensor, modulation: Tensor) -> Tensor:
    """A block on the way up, whose input includes the features `skip` from the way down."""
    return layer(torch.cat([h, skip], dim=1), modulation)


class ResidualBlock(nn.Module):
    """h + conv(silu((1 + scale) norm(conv(silu(norm(h)))) + shift)), then h + attention(norm(h)) if `attend`."""

    def __init__(self, inputs: int, outputs: int, taps: Pair, attend: bool) -> None:
        super().__init__()
        self.outputs = outputs
        self.norm1, self.conv1 = _norm(inputs), _convolution(inputs, outputs, taps)
        # No learned scale and shift in norm2: the modulation gives them
        self.norm2, self.conv2 = _norm(outputs, affine=False), zeroed(_convolution(outputs, outputs, taps))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.attention = SpatialAttention(outputs) if attend else nn.Identity()

    def forward(self, h: Tensor, modulation: Tensor) -> Tensor:
        scale, shift = modulation.chunk(2, dim=1)
        r = self.conv1(F.silu(self.norm1(h)))
        r = self.conv2(F.silu(torch.addcmul(shift, self.norm2(r), 1 + scale)))
        return self.attention(self.skip(h) + r)


class SpatialAttention(nn.Module):
    """h + attention(norm(h)), where every position of h (batch, C, H, W) is a token."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.attention = _norm(channels), SelfAttention(channels, HEAD_WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.norm(h).flatten(2).transpose(1, 2)
        return h + self.attention(tokens).transpose(1, 2).unflatten(2, h.shape[2:])


class Doubling(nn.Module):
    """Nearest-neighbour doubling followed by a convolution of 3 taps, cropped to a given size.

    Doubling and convolution are computed as one transposed convolution of 4 taps and stride 2. Each tap is the sum of
    the original taps that fall on the same coarse pixel, so 16 products replace 36.
    """

    def __init__(self, channels: int, taps: Pair) -> None:
        super().__init__()
        self.taps, self.convolution = taps, _convolution(channels, channels, taps)

    def forward(self, h: Tensor, size: Sequence[int]) -> Tensor:
        kernel = self.convolution.weight.transpose(0, 1).flip(2, 3)
        if self.taps[0] > 1:
            kernel = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
        if self.taps[1] > 1:
            kernel = F.pad(kernel, (0, 1)) + F.pad(kernel, (1, 0))
        h = F.conv_transpose2d(h, kernel, self.convolution.bias, _stride(self.taps), _padding(self.taps))
        return h[:, :, : size[0], : size[1]]


def _layers(
    widths: Sequence[int], blocks: int, attention: Sequence[int], taps: Pair
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
            down.append(_convolution(width, width, taps, _stride(taps)))
            left.append(width)
    last = len(widths) - 1 in attention
    middle = nn.ModuleList(ResidualBlock(channels, channels, taps, attend) for attend in (last, False))
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            up.append(ResidualBlock(channels + left.pop(), width, taps, level in attention))
            channels = width
        if level:
            up.append(Doubling(width, taps))
    return down, middle, up


def _convolution(inputs: int, outputs: int, taps: Pair, stride: Pair = (1, 1)) -> nn.Conv2d:
    """A convolution that divides the size by the stride, rounding up; stride 1 keeps the size."""
    return nn.Conv2d(inputs, outputs, taps, stride, _padding(taps))


def _stride(taps: Pair) -> Pair:
    """2 along an axis of several pixels, 1 along an axis of one pixel."""
    return (2 if taps[0] > 1 else 1, 2 if taps[1] > 1 else 1)


def _padding(taps: Pair) -> Pair:
    return (taps[0] // 2, taps[1] // 2)


def _norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    groups = math.gcd(GROUPS, channels)
    groups = groups // 2 if groups == channels > 1 else groups  # a group of one value would normalise it to 0
    return nn.GroupNorm(groups, channels, affine=affine)
