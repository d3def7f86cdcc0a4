"""Scales: where the standard deviation of p(x|z) comes from."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jensen.errors import InputError


def floored_scale(raw: Float[Tensor, "*dims"], floor: float) -> Float[Tensor, "*dims"]:
    """floor + exp(raw): a scale that is about exp(raw) far above the floor, and never below the floor.

    The gradient of its logarithm lies between 0 and 1.

    >>> floored_scale(torch.tensor([-100.0, 0.0]), floor=0.01)
    tensor([0.0100, 1.0100])
    """
    return floor + raw.exp()


class AbstractScale(nn.Module, ABC):
    """The way to find the scale (standard deviation) of p(x|z), from `outputs` extra channels of the decoder."""

    outputs: int
    floor: float

    @abstractmethod
    def forward(self, raw: Tensor | None) -> Tensor:
        """The scale, which broadcasts to x; `raw` is the decoder's extra channel, or None if `outputs` is 0."""


class LearnedScale(AbstractScale):
    """A scale that depends on z, one per dimension of x: floor + exp(second channel of the decoder)."""

    outputs = 1

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = _positive(floor, "floor of a scale")

    def forward(self, raw: Tensor | None) -> Tensor:
        assert raw is not None
        return floored_scale(raw, self.floor)


class FreeScale(AbstractScale):
    """A scale of free parameters: one per dimension if `shape` is the shape of x, a single one if `shape` is ().

    The initial scale is `floor` + `initial`.
    """

    outputs = 0

    def __init__(self, shape: Sequence[int], floor: float, initial: float = 0.5) -> None:
        super().__init__()
        self.floor = _positive(floor, "floor of a scale")
        self.log_scale = nn.Parameter(torch.full(tuple(shape), math.log(_positive(initial, "initial scale"))))

    def forward(self, raw: Tensor | None) -> Tensor:
        return floored_scale(self.log_scale, self.floor)


class FixedScale(AbstractScale):
    """A constant scale, not learned."""

    outputs = 0

    def __init__(self, value: float) -> None:
        super().__init__()
        self.floor = _positive(value, "fixed scale")
        self.register_buffer("value", torch.tensor(float(value)))

    def forward(self, raw: Tensor | None) -> Tensor:
        return self.get_buffer("value")


def _positive(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"{name} {value}: expected a standard deviation > 0; give a positive number")
    return value
