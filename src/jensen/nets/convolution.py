"""Convolutional encoder and decoder for images (C, H, W) of any size, odd and non-square included."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.blocks import AbstractBlockNetwork


def _halvings(shape: Sequence[int], times: int) -> list[tuple[int, int]]:
    """Height and width after 0, 1, ..., `times` stride-2 convolutions; a convolution halves both, rounding up."""
    if len(shape) != 3:
        raise InputError(f"convolutional network for x of shape {tuple(shape)}: give (channels, height, width)")
    sizes = [(shape[1], shape[2])]
    for _ in range(times):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


class ConvolutionalEncoder(AbstractBlockNetwork):
    """(batch, C, H, W) -> (batch, outputs): a stride-2 3x3 convolution and SiLU for every width, then a linear layer.

    Raises `InputError` if `shape` is not (C, H, W).
    """

    def __init__(self, shape: Sequence[int], widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        height, width = _halvings(shape, len(widths))[-1]
        channels = [shape[0], *widths]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels))
        self.last = nn.Linear(channels[-1] * height * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.block(_halved, layer, x)
        return self.last(x.flatten(1))


class ConvolutionalDecoder(AbstractBlockNetwork):
    """(batch, latent) -> (batch, outputs, C, H, W): a linear layer; for every width SiLU, upsampling, 3x3 convolution.

    The decoder mirrors `ConvolutionalEncoder`: nearest-neighbour upsampling passes through the same sizes in reverse,
    so the output has exactly the given H and W. Raises `InputError` if `shape` is not (C, H, W).
    """

    def __init__(self, latent: int, shape: Sequence[int], widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.sizes = _halvings(shape, len(widths))[::-1]
        self.output = (outputs, *shape)
        channels = [*widths[::-1], outputs * shape[0]]
        self.start = (channels[0], *self.sizes[0])
        self.first = nn.Linear(latent, channels[0] * self.sizes[0][0] * self.sizes[0][1])
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels))

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z).unflatten(1, self.start)
        for layer, size in zip(self.layers, self.sizes[1:], strict=True):
            h = self.block(_enlarged, layer, h, size)
        return h.reshape(len(z), *self.output)


def _halved(layer: nn.Module, x: Tensor) -> Tensor:
    return F.silu(layer(x))


def _enlarged(layer: nn.Module, h: Tensor, size: tuple[int, int]) -> Tensor:
    return layer(F.interpolate(F.silu(h), size=size))
