"""Examples and data sets: tensors beside the specification that explains them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.data.spec import DataSpec
from jensen.data.stored import Stored


@dataclass(frozen=True)
class Examples:
    """Raw examples x (N, *shape), uint8, uint16, float32 or float64, with their labels or targets if there are any.

    Labels are (N,) int64. Continuous targets are (N, dims) float32, scaled by `DataSpec.targets`. A `Stored` x lies on
    disk, also in parts of the examples; `x[rows]` is in memory.
    """

    x: Tensor | Stored
    labels: Tensor | None = None
    targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> "Examples":
        """The same examples on `device`, but for x on disk, which stays there."""
        return self._with(self.x.to(device), lambda tensor: tensor.to(device))

    def __getitem__(self, rows: Tensor | slice) -> "Examples":
        x = self.x.select(rows) if isinstance(self.x, Stored) else self.x[rows]
        return self._with(x, lambda tensor: tensor[rows])

    def _with(self, x: Tensor | Stored, change: Callable[[Tensor], Tensor]) -> "Examples":
        return Examples(x, *(None if tensor is None else change(tensor) for tensor in (self.labels, self.targets)))


@dataclass(frozen=True)
class Dataset:
    """What was read, split into training, validation and test examples."""

    spec: DataSpec
    train: Examples
    validation: Examples
    test: Examples
