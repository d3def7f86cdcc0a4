"""Examples and data sets: tensors together with their specification."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.data.readers.reading import RowName, row_name
from jensen.data.spec import DataSpec
from jensen.data.stored import Stored


@dataclass(frozen=True, eq=False)
class Names:
    """The name of each example, which says where in the source the example is.

    Names are made on demand. `names[3]` is "row 17", "x_test row 17", "train-0.parquet row 17", or the path of an image
    relative to the folder of the data.
    """

    name: RowName
    """The function from a row of the source to its name."""

    rows: Tensor
    """The row in the source of each example, (N,) int64."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> str:
        return self.name(int(self.rows[number]))

    def __iter__(self) -> Iterator[str]:
        return map(self.name, self.rows.tolist())


_BY_ROW = Names(row_name, torch.empty(0, dtype=torch.int64))


@dataclass(frozen=True)
class Examples:
    """Raw examples x (N, *shape), with labels or continuous targets if the data have them.

    x is uint8, uint16, float32 or float64. Labels are (N,) int64. Targets are (N, dims) float32, scaled by
    `DataSpec.targets`. `names[i]` is the name of example i; by default it is "row i". A `Stored` x is on disk:
    `examples[rows].x` is still on disk, `examples.x[rows]` is in memory.
    """

    x: Tensor | Stored
    labels: Tensor | None = None
    targets: Tensor | None = None
    names: Names = _BY_ROW

    def __post_init__(self) -> None:
        if self.names is _BY_ROW:  # the default needs x
            object.__setattr__(self, "names", Names(row_name, torch.arange(len(self.x), device=self.x.device)))

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> "Examples":
        """The same examples on `device`; an x on disk stays there."""
        return self._with(self.x.to(device), lambda tensor: tensor.to(device))

    def __getitem__(self, rows: Tensor | slice) -> "Examples":
        x = self.x.select(rows) if isinstance(self.x, Stored) else self.x[rows]
        return self._with(x, lambda tensor: tensor[rows])

    def _with(self, x: Tensor | Stored, change: Callable[[Tensor], Tensor]) -> "Examples":
        labels, targets = (None if tensor is None else change(tensor) for tensor in (self.labels, self.targets))
        return Examples(x, labels, targets, Names(self.names.name, change(self.names.rows)))


@dataclass(frozen=True)
class Dataset:
    """Data split into training, validation and test examples."""

    spec: DataSpec
    train: Examples
    validation: Examples
    test: Examples


def counted(count: int) -> str:
    """The number of examples, in words.

    >>> counted(1), counted(1797)
    ('1 example', '1,797 examples')
    """
    return "1 example" if count == 1 else f"{count:,} examples"
