"""The result of a reader, and the ways in which it refuses data."""

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, NoReturn

import numpy as np

from jensen.data.stored import Values
from jensen.data.survey import Survey
from jensen.data.table.column import Table
from jensen.errors import InputError

Kind = Literal[
    "digits",
    "idx",
    "array",
    "arrays",
    "array in memory",
    "arrays in memory",
    "images",
    "table",
    "list table",
    "image table",
    "wav",
    "nifti",
    "dicom",
    "fits",
    "hdf5",
    "matlab",
    "csv",
]
"""The kind of a source. `array` is a single array without a name (.npy), `arrays` are named arrays (.npz). `table` has
columns with types, `list table` a column of lists of numbers."""

Layout = Literal["vector", "signal", "image", "volume", "array", "table"]
"""Examples (D,), (C, L), (C, H, W), (C, D, H, W), arrays whose axes have no known meaning, and rows
of a table (D,), whose numbers are the fields of `Reading.table`."""

PICTURED: tuple[Layout, ...] = ("signal", "image", "volume")
"""The layouts with channels first, whose examples can be shown as pictures; see `jensen.data.pictures`."""

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
"""Words in the names of folders and arrays, and the split that each word means."""

Refuse = Callable[[str], None]
"""A function that takes one line about a problem. In loading it raises InputError. In checking it notes the line and
returns, so that the reader continues to the next problem."""

RowName = Callable[[int], str]
"""The function from a row of a source to its name, by which a user can find the example."""


def refuse_at_once(problem: str) -> NoReturn:
    """The `Refuse` of loading: raises InputError."""
    raise InputError(problem)


def refuse_bomb(name: str, size: int) -> None:
    """Raises InputError if memory cannot hold `size` unpacked bytes twice, which splitting requires."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 2 * size > memory:
        raise InputError(
            f"{name}: would take {size / 2**30:,.1f} GiB unpacked, and this machine's memory of "
            f"{memory / 2**30:,.1f} GiB does not hold two copies; if the file is sound, unpack it on disk"
        )


def row_name(row: int) -> str:
    """The name of a row of a source that is a single array.

    >>> row_name(17)
    'row 17'
    """
    return f"row {row}"


def numbered_rows(parts: Sequence[tuple[str, int]]) -> RowName:
    """The function from a row of several parts to the name of the row.

    `parts` has the name and the number of rows of each part. If there is a single part, the function is `row_name`.

    >>> numbered_rows([("x_train", 100), ("x_test", 20)])(103)
    'x_test row 3'
    """
    if len(parts) == 1:
        return row_name
    starts, part = _starts(parts), part_name(parts)
    return lambda row: f"{part(row)} {row_name(row - starts[bisect_right(starts, row) - 1])}"


def part_name(parts: Sequence[tuple[str, int]]) -> RowName:
    """The function from a row to the name of the part that contains the row.

    `parts` has the name and the number of rows of each part.

    >>> part_name([("x_train", 100), ("x_test", 20)])(103)
    'x_test'
    """
    starts = _starts(parts)
    return lambda row: parts[bisect_right(starts, row) - 1][0]


def _starts(parts: Sequence[tuple[str, int]]) -> list[int]:
    return list(accumulate((count for _, count in parts), initial=0))


@dataclass(frozen=True)
class Reading:
    """All examples of a source in the source's order, before any split.

    `values` is (N, *shape) of dtype uint8, uint16, float32 or float64, in memory or on disk. A source has either
    `labels` (N,) int64, or `targets` (N, dims) float64, or neither. `supplied` (N,) int8 is the split that the source
    assigns to each example, as an index into `SPLITS`. `names` returns the name of a row.
    """

    kind: Kind
    layout: Layout
    values: Values
    survey: Survey
    levels: int | None
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] | None = None
    supplied: np.ndarray | None = None
    skipped: int = 0
    notes: tuple[str, ...] = ()
    targets: np.ndarray | None = None
    names: RowName = row_name
    file: RowName | None = None
    """The function from a row to the path of its file, relative to DATA; None if no row has a file of its own."""
    keys: Mapping[str, Callable[[], np.ndarray]] = field(default_factory=dict)
    """Readers of the arrays or columns beside examples and labels, by name; see `ReadOptions.group`."""
    doubts: tuple[str, ...] = ()
    """Rules of reading that may have been wrong, one line each; training warns about them."""
    pieces: int = 1
    """The number of consecutive examples that are parts of one image and stay in one split."""
    table: Table | None = None
    """The columns, if the examples are the rows of a table; `values` are then the numbers of its fields."""
    precision: Literal["float16", "float32", "float64"] = "float32"
    """The precision of floats in the source; 16-bit floats are read as float32."""

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number in the precision of the source."""
        return float(np.finfo(np.dtype(self.precision)).eps)
