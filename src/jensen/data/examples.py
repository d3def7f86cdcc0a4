"""Examples and data sets: tensors beside the specification that explains them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.data.spec import DataSpec


@dataclass(frozen=True)
class Examples:
    """Raw examples x (N, *shape), uint8, uint16 or float32, and their labels (N,) int64 if there are any.

    Or their continuous targets (N, dims), float32, in the units of the training examples' spread: `DataSpec.targets`.
    """

    x: Tensor
    labels: Tensor | None = None
    targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> "Examples":
        """The same examples on `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def __getitem__(self, rows: Tensor | slice) -> "Examples":
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Examples":
        beside = (None if tensor is None else change(tensor) for tensor in (self.labels, self.targets))
        return Examples(change(self.x), *beside)


@dataclass(frozen=True)
class Dataset:
    """What was read, split into training, validation and test examples."""

    spec: DataSpec
    train: Examples
    validation: Examples
    test: Examples
