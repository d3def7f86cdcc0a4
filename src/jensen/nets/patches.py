"""Signals and images as grids of patches: the pixels of a patch become the channels of one position, and back."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from jensen.errors import InputError

Pair = tuple[int, int]  # (along the height, along the width)


class Patches:
    """Splits data of `shape` (C, L) or (C, H, W) into patches of `patch` pixels a side, for any L, H and W.

    A signal counts as an image of height 1. Along an axis of one pixel, patches are one pixel long. `folded` is the
    number of channels after `fold`. Raises `InputError` for any other shape, and for a `patch` below 1.
    """

    def __init__(self, shape: Sequence[int], patch: int) -> None:
        if len(shape) not in (2, 3):
            raise InputError(f"data of shape {tuple(shape)}: expected (C, L) or (C, H, W); use an MLP for vectors")
        if patch < 1:
            raise InputError(f"patches of {patch} pixels: expected 1 or more; choose a larger patch")
        self.channels = shape[0]
        self.extended: tuple[bool, bool] = (len(shape) == 3 and shape[1] > 1, shape[-1] > 1)  # more than one pixel
        self.patch: Pair = (patch if self.extended[0] else 1, patch if self.extended[1] else 1)
        self.folded = shape[0] * math.prod(self.patch)

    def fold(self, x: Tensor) -> Tensor:
        """(batch, C, L) or (batch, C, H, W) -> (batch, folded, rows, columns); `InputError` for wrong channels."""
        if x.shape[1] != self.channels:
            raise InputError(f"got {x.shape[1]} channels, expected {self.channels}; use a network made for these data")
        return fold_patches(x if x.ndim == 4 else x[:, :, None], self.patch)

    def unfold(self, h: Tensor, like: Tensor) -> Tensor:
        """The inverse of `fold`, cropped to the size of `like`; h may have a multiple of the channels of `like`."""
        x = unfold_patches(h, self.patch, (like.shape[-2] if like.ndim == 4 else 1, like.shape[-1]))
        return x if like.ndim == 4 else x[:, :, 0]


def fold_patches(
    x: Float[Tensor, " batch channels height width"], patch: Pair
) -> Float[Tensor, " batch folded rows columns"]:
    """Move patches of (height, width) = `patch` into channels, after padding with zeros at the bottom and the right."""
    (height, width), (down, right) = x.shape[2:], (-x.shape[2] % patch[0], -x.shape[3] % patch[1])
    if down or right:
        x = F.pad(x, (0, right, 0, down))
    grid = ((height + down) // patch[0], (width + right) // patch[1])
    return x.unflatten(3, (grid[1], patch[1])).unflatten(2, (grid[0], patch[0])).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def unfold_patches(
    h: Float[Tensor, " batch folded rows columns"], patch: Pair, size: Pair
) -> Float[Tensor, " batch channels height width"]:
    """The inverse of `fold_patches`, cropped to `size` = (height, width)."""
    grid = h.unflatten(1, (-1, *patch)).permute(0, 1, 4, 2, 5, 3)
    return grid.flatten(4, 5).flatten(2, 3)[:, :, : size[0], : size[1]]
