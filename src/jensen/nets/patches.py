"""Signals, images and volumes as grids of patches: the pixels of a patch become the channels of one position."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from jensen.errors import InputError
from jensen.nets.layers import Axes, cropped, sizes_of


class Patches:
    """Splits data of `shape` (C, L), (C, H, W) or (C, D, H, W) into patches of `patch` pixels a side.

    The sizes need not be multiples of `patch`. A signal counts as an image of height 1. Along an axis of one pixel,
    patches are one pixel long. `folded` is the number of channels after `fold`. `grid` has the number of patches along
    each axis. Raises `InputError` for any other shape, and for a `patch` below 1.
    """

    def __init__(self, shape: Sequence[int], patch: int) -> None:
        sizes = sizes_of(shape)
        if patch < 1:
            raise InputError(f"patches of {patch} pixels: expected 1 or more; choose a larger patch")
        self.channels, self.signal = shape[0], len(shape) == 2
        self.patch: Axes = tuple(patch if size > 1 else 1 for size in sizes)
        self.grid: Axes = tuple(-(-size // side) for size, side in zip(sizes, self.patch, strict=True))
        self.folded = shape[0] * math.prod(self.patch)

    def fold(self, x: Tensor) -> Tensor:
        """(batch, C, *sizes) -> (batch, folded, *grid); raises `InputError` for another number of channels."""
        if x.shape[1] != self.channels:
            raise InputError(f"got {x.shape[1]} channels, expected {self.channels}; use a network made for these data")
        return fold_patches(x[:, :, None] if self.signal else x, self.patch)

    def unfold(self, h: Tensor, sizes: Sequence[int]) -> Tensor:
        """The inverse of `fold`, cropped to `sizes`, the axes of x; h may have a multiple of the channels of x."""
        x = unfold_patches(h, self.patch, (1, *sizes) if self.signal else tuple(sizes))
        return x[:, :, 0] if self.signal else x


def fold_patches(x: Float[Tensor, " batch channels *sizes"], patch: Axes) -> Float[Tensor, " batch folded *grid"]:
    """Move patches of the sides `patch` into channels, after padding with zeros at the end of each axis."""
    missing = [-size % side for size, side in zip(x.shape[2:], patch, strict=True)]
    if any(missing):
        x = F.pad(x, [amount for after in reversed(missing) for amount in (0, after)])
    for axis, side in reversed(list(enumerate(patch, start=2))):
        x = x.unflatten(axis, (x.shape[axis] // side, side))
    return x.permute(0, 1, *range(3, x.ndim, 2), *range(2, x.ndim, 2)).flatten(1, 1 + len(patch))


def unfold_patches(
    h: Float[Tensor, " batch folded *grid"], patch: Axes, sizes: Axes
) -> Float[Tensor, " batch channels *sizes"]:
    """The inverse of `fold_patches`, cropped to `sizes`."""
    count = len(patch)
    h = h.unflatten(1, (-1, *patch))
    x = h.permute(0, 1, *(axis for i in range(count) for axis in (2 + count + i, 2 + i)))
    for axis in range(2, 2 + count):
        x = x.flatten(axis, axis + 1)
    return cropped(x, sizes)
