"""Continuous targets y, standardised by the mean and standard deviation of the training examples."""

import math
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from jensen.data.moments import columns, smallest_gap
from jensen.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class TargetScaling(BaseModel):
    """y = shift + scale · t, where shift and scale are the mean and the standard deviation of the training examples.

    The model sees only t. A `TargetScaling` converts to JSON and back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    dimensions: int = Field(gt=0)
    """The number of dimensions of y."""
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    constant: tuple[int, ...] = ()
    """The dimensions that never vary in the training examples; their scale is 1."""
    resolution: float = Field(gt=0)
    """The smallest distance between two values of t."""

    @classmethod
    def of(cls, train: np.ndarray) -> "TargetScaling":
        """The scaling by mean and standard deviation of each column of training targets (N, dims), float64."""
        found = columns(train)
        return cls(
            dimensions=train.shape[1],
            shift=tuple(found.shift.tolist()),
            scale=tuple(found.scale.tolist()),
            constant=tuple(np.flatnonzero(found.constant).tolist()),
            resolution=smallest_gap(found, float(np.finfo(np.float64).eps)),
        )

    @property
    def deviation(self) -> tuple[float, ...]:
        """The standard deviation of each dimension over the training examples; 0 if it never varies."""
        return tuple(0.0 if place in self.constant else scale for place, scale in enumerate(self.scale))

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """t for y (N, dims), float32."""
        return ((raw - np.array(self.shift)) / np.array(self.scale)).astype(np.float32)

    def to_raw(self, t: "Tensor") -> "Tensor":
        """y for t (*batch, dims), float64."""
        values = t.double()
        return values * values.new_tensor(self.scale) + values.new_tensor(self.shift)

    @property
    def log_volume(self) -> float:
        """log p(y) - log p(t) in nats per example: -Σ_d log scale_d."""
        return -math.fsum(math.log(scale) for scale in self.scale)


def standard_targets(targets: np.ndarray, name: str) -> np.ndarray:
    """Targets as (N, dims) float64. Raises InputError for another shape, and for NaN and infinite targets."""
    if targets.ndim not in (1, 2):
        raise InputError(f"{name} have shape {targets.shape}; expected numbers for each example, (N,) or (N, dims)")
    table = targets.reshape(len(targets), -1).astype(np.float64)
    with np.errstate(over="ignore"):
        unusable = ~np.isfinite(table.astype(np.float32))
    if unusable.any():
        row, column = (int(axis[0]) for axis in np.nonzero(unusable))
        raise InputError(
            f"{name}: {int(unusable.sum())} of {table.size} targets are NaN, infinite or beyond float32, the first in "
            f"example {row} at {column}; leave such examples out"
        )
    return table
