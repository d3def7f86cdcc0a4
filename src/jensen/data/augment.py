"""Augmentation: random changes of raw training examples, described by a vector that is zero for an unchanged example.

The changes act on raw values, before the preparation, so integers remain integers of the data's levels. An operation is
a deterministic function of the examples and of its parameters, which lie in [-1, 1]; all zero parameters leave an
example bit for bit as it is. A diffusion network gets the parameters as a condition (Karras et al. 2022, appendix F.2),
so that samples and bounds, whose parameters are zero, are about unchanged examples.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from jensen.data.augment_options import AugmentOptions
from jensen.data.preparation import Preparation, Standardise
from jensen.randomness import Noise

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as in `jensen.data.readers.image`


class AbstractOperation(ABC):
    """A change of raw examples (batch, C, *sides) by `numbers` parameters per example."""

    numbers: int

    @abstractmethod
    def parameters(self, uniform: Float[Tensor, " batch numbers"]) -> Float[Tensor, " batch numbers"]:
        """Parameters in [-1, 1] from uniform numbers in [0, 1)."""

    @abstractmethod
    def __call__(self, raw: Tensor, parameters: Float[Tensor, " batch numbers"]) -> Tensor:
        """The changed examples, of the dtype of `raw`."""


@dataclass(frozen=True)
class Flip(AbstractOperation):
    """Mirrors examples along `axis`; the parameter is 1 for a mirrored example."""

    axis: int
    numbers = 1

    def parameters(self, uniform: Tensor) -> Tensor:
        return torch.ones_like(uniform)

    def __call__(self, raw: Tensor, parameters: Tensor) -> Tensor:
        flipped = _movable(raw).flip(self.axis).view(raw.dtype)
        return torch.where(_rows(parameters[:, 0] != 0, raw), flipped, raw)


@dataclass(frozen=True)
class Shift(AbstractOperation):
    """Moves examples by whole pixels, at most `most` (*sides) along each axis; values beyond the edge are mirrored."""

    most: tuple[int, ...]

    @property
    def numbers(self) -> int:  # type: ignore[override]
        """One parameter per axis: the pixels divided by `most`."""
        return len(self.most)

    def parameters(self, uniform: Tensor) -> Tensor:
        most = torch.tensor(self.most, dtype=uniform.dtype, device=uniform.device)
        return ((uniform * (2 * most + 1)).floor() - most) / most.clamp(min=1)

    def __call__(self, raw: Tensor, parameters: Tensor) -> Tensor:
        for axis, most in enumerate(self.most):
            if most:
                pixels = (parameters[:, axis] * most).round().long()
                raw = _moved(raw, axis + 2, pixels)
        return raw


@dataclass(frozen=True)
class Crop(AbstractOperation):
    """Cuts a random crop out of images (batch, C, H, W) and resizes it to the whole size (bilinear).

    The first parameter is the part of each side that is cut off, divided by `share`. The other two parameters are the
    place of the crop along the height and the width, from -1 (top or left) to 1 (bottom or right).
    """

    share: float
    limits: tuple[float, float]
    numbers = 3

    def parameters(self, uniform: Tensor) -> Tensor:
        return torch.cat([uniform[:, :1], 2 * uniform[:, 1:] - 1], dim=1)

    def __call__(self, raw: Tensor, parameters: Tensor) -> Tensor:
        cut = self.share * parameters[:, 0]
        theta = parameters.new_zeros(len(raw), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = 1 - cut
        theta[:, 0, 2], theta[:, 1, 2] = cut * parameters[:, 2], cut * parameters[:, 1]
        grid = F.affine_grid(theta, list(raw.shape), align_corners=False)
        floating = raw.to(theta.dtype)
        resized = F.grid_sample(floating, grid, padding_mode="border", align_corners=False)
        return _changed(raw, resized, parameters, self.limits)


@dataclass(frozen=True)
class Jitter(AbstractOperation):
    """Changes brightness, contrast and saturation of images (batch, C, H, W); an alpha channel is not changed.

    The parameters (b, c, s) act one after the other. First, b share (high - low) is added, where `limits` are (low,
    high). Then the distance from the mean brightness is multiplied by 1 + c share. Last, for three colours, the
    distance from the luma is multiplied by 1 + s share.
    """

    share: float
    limits: tuple[float, float]
    numbers = 3

    def parameters(self, uniform: Tensor) -> Tensor:
        return 2 * uniform - 1

    def __call__(self, raw: Tensor, parameters: Tensor) -> Tensor:
        low, high = self.limits
        brightness, contrast, saturation = (self.share * parameters).view(-1, 3, 1, 1, 1).unbind(1)
        colours = {2: 1, 4: 3}.get(raw.shape[1], raw.shape[1])  # grey or RGB with alpha
        y = raw[:, :colours].to(parameters.dtype)
        y = y + brightness * (high - low)
        y = torch.lerp(y.mean((1, 2, 3), keepdim=True), y, 1 + contrast)
        if colours == 3:
            luma = (y * y.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
            y = torch.lerp(luma, y, 1 + saturation)
        return _changed(raw, torch.cat([y, raw[:, colours:].to(y.dtype)], dim=1), parameters, self.limits)


@dataclass(frozen=True)
class Gain(AbstractOperation):
    """Multiplies the distance of every channel from its mean by 1 + share times the parameter; NaN stays NaN."""

    share: float
    limits: tuple[float, float]
    numbers = 1

    def parameters(self, uniform: Tensor) -> Tensor:
        return 2 * uniform - 1

    def __call__(self, raw: Tensor, parameters: Tensor) -> Tensor:
        y = raw if raw.is_floating_point() else raw.to(parameters.dtype)
        mean = y.nanmean(tuple(range(2, raw.ndim)), keepdim=True)
        louder = mean + (1 + self.share * _rows(parameters[:, 0], raw)) * (y - mean)
        return _changed(raw, louder, parameters, self.limits)


@dataclass(frozen=True)
class Augmentation:
    """The operations of a training; each operation changes an example with probability `probability`, independently."""

    operations: tuple[AbstractOperation, ...]
    probability: float

    @classmethod
    def of(cls, options: AugmentOptions, shape: Sequence[int], preparation: Preparation) -> "Augmentation":
        """The operations in `options` that have an effect on examples of shape (C, *sides)."""
        sides = tuple(shape[1:])
        flips = [Flip(axis) for axis in flipped_axes(options, shape)]
        most = tuple(round(options.shift * side) for side in sides)
        shifts = [Shift(most)] if any(most) else []
        limits = _limits(preparation)
        crops = [Crop(options.crop, limits)] if options.crop and len(sides) == 2 else []
        coloured = len(sides) == 2 and 1 < limits[1] < math.inf
        jitters = [Jitter(options.jitter, limits)] if options.jitter and coloured else []
        gains = [Gain(options.gain, limits)] if options.gain and len(sides) in (1, 3) else []
        return cls((*flips, *shifts, *crops, *jitters, *gains), options.probability)

    @property
    def numbers(self) -> int:
        """The number of parameters per example; 0 without operations."""
        return sum(operation.numbers for operation in self.operations)

    def __call__(self, raw: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Changed examples (batch, C, *sides), and their parameters (batch, numbers), float32."""
        told = []
        uniform = noise.uniform((len(raw), len(self.operations) + self.numbers)).to(raw.device)
        chosen, values = uniform.split([len(self.operations), self.numbers], dim=1)
        parts = values.split([operation.numbers for operation in self.operations], dim=1)
        for place, (operation, part) in enumerate(zip(self.operations, parts, strict=True)):
            parameters = operation.parameters(part) * (chosen[:, place : place + 1] < self.probability)
            raw = operation(raw, parameters)
            told.append(parameters)
        return raw, torch.cat(told, dim=1)


def flipped_axes(options: AugmentOptions, shape: Sequence[int]) -> tuple[int, ...]:
    """The axes that `options.flip` names in examples (batch, C, *sides), without axes of length 1.

    >>> flipped_axes(AugmentOptions(flip="all"), (3, 32, 32)), flipped_axes(AugmentOptions(flip="vertical"), (12, 256))
    ((-1, -2), ())
    """
    axes = {"none": (), "horizontal": (-1,), "vertical": (-2,), "all": tuple(range(-1, -len(shape), -1))}[options.flip]
    return tuple(axis for axis in axes if -axis < len(shape) and shape[axis] > 1)


def _limits(preparation: Preparation) -> tuple[float, float]:
    """The lowest and highest raw value that the preparation accepts."""
    if isinstance(preparation, Standardise):
        return -math.inf, math.inf
    return 0.0, float((preparation.levels or 2) - 1)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """Values (batch) as (batch, 1, ..., 1), with as many axes as `like`."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def _changed(raw: Tensor, values: Tensor, parameters: Tensor, limits: tuple[float, float]) -> Tensor:
    """The values, clamped and for integers rounded, where a parameter is not zero; else `raw` itself."""
    values = values.clamp(*limits)
    values = values if raw.is_floating_point() else values.round()
    return torch.where(_rows((parameters != 0).any(1), raw), values.to(raw.dtype), raw)


def _moved(raw: Tensor, axis: int, pixels: Tensor) -> Tensor:
    """Each example moved along `axis` by its number of pixels, at most the side less one; edges are mirrored."""
    side = raw.shape[axis]
    source = torch.arange(side, device=raw.device) - pixels[:, None]
    source = (side - 1) - ((side - 1) - source.abs()).abs()  # ... 2 1 [0 1 2 3] 2 1 ...
    shape = [1] * raw.ndim
    shape[0], shape[axis] = source.shape
    return _movable(raw).gather(axis, source.view(shape).expand_as(raw)).view(raw.dtype)


def _movable(raw: Tensor) -> Tensor:
    """The same bits in a type that torch can flip and gather; it cannot for uint16."""
    return raw.view(torch.int16) if raw.dtype == torch.uint16 else raw
