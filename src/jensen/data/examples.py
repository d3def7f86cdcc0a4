"""Examples and data sets: tensors beside the specification that explains them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.data.spec import DataSpec


@dataclass(frozen=True)
class Examples:
    """Raw examples x (N, *shape), uint8, uint16 or float32, and their labels (N,) int64 if there are any."""

    x: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> "Examples":
        """The same examples on `device`."""
        return Examples(self.x.to(device), None if self.labels is None else self.labels.to(device))

    def __getitem__(self, rows: Tensor | slice) -> "Examples":
        return Examples(self.x[rows], None if self.labels is None else self.labels[rows])


@dataclass(frozen=True)
class Dataset:
    """What was read, split into training, validation and test examples."""

    spec: DataSpec
    train: Examples
    validation: Examples
    test: Examples
