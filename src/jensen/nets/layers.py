"""Convolutional layers of the U-Net, the encoder and the decoder, for signals, images and volumes.

A signal counts as an image of height 1: oneDNN computes images stored channels last faster than signals. Along an axis
of one pixel, every kernel has one tap. Halving rounds up, and doubling crops to a given size, so every size is restored
exactly.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.attention import SelfAttention
from jensen.nets.initial import zeroed

GROUPS, HEAD_WIDTH = 8, 32
Axes = tuple[int, ...]  # one number for each axis: two for signals and images, three for volumes


def sizes_of(shape: Sequence[int]) -> Axes:
    """The sizes of data without the channels: (H, W) or (D, H, W), and (1, L) for a signal of shape (C, L).

    Raises `InputError` for any other shape.
    """
    if len(shape) not in (2, 3, 4):
        raise InputError(
            f"data of shape {tuple(shape)}: expected (C, L), (C, H, W) or (C, D, H, W); use an MLP for vectors"
        )
    return (1, shape[1]) if len(shape) == 2 else tuple(shape[1:])


def taps_of(sizes: Sequence[int]) -> Axes:
    """Taps of a kernel along each axis: 3, or 1 along an axis of one pixel."""
    return tuple(3 if size > 1 else 1 for size in sizes)


def halved(sizes: Sequence[int]) -> Axes:
    """The sizes after a convolution of stride 2, which rounds up."""
    return tuple((size + 1) // 2 for size in sizes)


def channels_last(h: Tensor) -> Tensor:
    """The same values with the channels of a position side by side in memory, which convolutions compute faster."""
    return h.contiguous(memory_format=torch.channels_last if h.ndim == 4 else torch.channels_last_3d)


def cropped(h: Tensor, sizes: Sequence[int]) -> Tensor:
    """The first `sizes` positions along the axes of h (batch, channels, *axes)."""
    for axis, size in enumerate(sizes, start=2):
        h = h.narrow(axis, 0, size)
    return h


def convolution(inputs: int, outputs: int, taps: Axes, stride: Axes | None = None) -> nn.Conv2d | nn.Conv3d:
    """A convolution that divides the sizes by the stride, rounding up; without a stride the sizes stay."""
    kind = nn.Conv2d if len(taps) == 2 else nn.Conv3d
    return kind(inputs, outputs, taps, stride or 1, tuple(tap // 2 for tap in taps))  # type: ignore[arg-type]


def halving(inputs: int, outputs: int, taps: Axes) -> nn.Conv2d | nn.Conv3d:
    """A convolution of stride 2, or 1 along an axis of one pixel."""
    return convolution(inputs, outputs, taps, _stride(taps))


def normalisation(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018) in up to 8 groups of at least two channels."""
    groups = math.gcd(GROUPS, channels)
    groups = groups // 2 if groups == channels > 1 else groups  # a group of one value would normalise it to 0
    return nn.GroupNorm(groups, channels, affine=affine)


class ResidualBlock(nn.Module):
    """h + conv(silu((1 + scale) norm(conv(silu(norm(h)))) + shift)), then h + attention(norm(h)) if `attend`.

    `modulation` (batch, 2 * outputs, 1, ...) holds scale and shift. A block that is not `modulated` has a learned
    scale and shift instead. The initial output of the residual branches is zero.
    """

    def __init__(self, inputs: int, outputs: int, taps: Axes, attend: bool = False, modulated: bool = True) -> None:
        super().__init__()
        self.outputs = outputs
        self.norm1, self.conv1 = normalisation(inputs), convolution(inputs, outputs, taps)
        self.norm2, self.conv2 = normalisation(outputs, not modulated), zeroed(convolution(outputs, outputs, taps))
        self.skip = nn.Identity() if inputs == outputs else convolution(inputs, outputs, (1,) * len(taps))
        self.attention = SpatialAttention(outputs) if attend else nn.Identity()

    def forward(self, h: Tensor, modulation: Tensor | None = None) -> Tensor:
        r = self.norm2(self.conv1(F.silu(self.norm1(h))))
        if modulation is not None:
            scale, shift = modulation.chunk(2, dim=1)
            r = torch.addcmul(shift, r, 1 + scale)
        return self.attention(self.skip(h) + self.conv2(F.silu(r)))


class SpatialAttention(nn.Module):
    """h + attention(norm(h)), where every position of h (batch, channels, *sizes) is a token."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.attention = normalisation(channels), SelfAttention(channels, HEAD_WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.norm(h).flatten(2).transpose(1, 2)
        return h + self.attention(tokens).transpose(1, 2).unflatten(2, h.shape[2:])


class Doubling(nn.Module):
    """Nearest-neighbour doubling followed by a convolution of 3 taps, cropped to a given size.

    Doubling and convolution are computed as one transposed convolution of 4 taps and stride 2. Each of its taps is the
    sum of the original taps that fall on the same coarse pixel. So images need 16 products instead of 36, and volumes
    64 instead of 216.
    """

    def __init__(self, inputs: int, outputs: int, taps: Axes) -> None:
        super().__init__()
        self.taps, self.convolution = taps, convolution(inputs, outputs, taps)

    def forward(self, h: Tensor, size: Sequence[int]) -> Tensor:
        axes = range(2, 2 + len(self.taps))
        kernel = self.convolution.weight.transpose(0, 1).flip(tuple(axes))  # torch.compile cannot unpack a range
        for axis, tap in zip(axes, self.taps, strict=True):
            if tap > 1:
                before = (0, 0) * (axes.stop - 1 - axis)  # `pad` counts axes from the last
                kernel = F.pad(kernel, (*before, 0, 1)) + F.pad(kernel, (*before, 1, 0))
        transposed = F.conv_transpose2d if len(self.taps) == 2 else F.conv_transpose3d
        padding = tuple(tap // 2 for tap in self.taps)
        h = transposed(h, kernel, self.convolution.bias, _stride(self.taps), padding)
        return cropped(h, size)


def _stride(taps: Axes) -> Axes:
    """2 along an axis of several pixels, 1 along an axis of one pixel."""
    return tuple(2 if tap > 1 else 1 for tap in taps)
