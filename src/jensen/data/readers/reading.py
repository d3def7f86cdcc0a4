"""What every reader returns, and how a reader refuses."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np

from jensen.data.stored import Values
from jensen.data.survey import Survey
from jensen.errors import InputError

Kind = Literal["digits", "idx", "array", "images", "table", "image table"]
Layout = Literal["image", "vector", "array"]

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
"""What folders and arrays of a split are called."""

Refuse = Callable[[str], None]
"""Takes the one line that says what is wrong. When loading it raises InputError; when checking it takes note and
returns, so that the reader goes on to the next problem."""


def refuse_at_once(problem: str) -> NoReturn:
    """The `Refuse` of loading: raises InputError."""
    raise InputError(problem)


def refuse_bomb(name: str, size: int) -> None:
    """Raises InputError before `size` bytes are unpacked that memory cannot hold: twice, since they are split."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 2 * size > memory:
        raise InputError(
            f"{name}: would take {size / 2**30:,.1f} GiB unpacked, of which this machine's memory, "
            f"{memory / 2**30:,.1f} GiB, does not hold two copies; unpack it on disk if it is what it should be"
        )


@dataclass(frozen=True)
class Reading:
    """All examples of a source in its own order, before any split.

    `values` is (N, *shape) of dtype uint8, uint16, float32 or float64, in memory or on disk; `labels` is (N,) int64;
    `targets` is (N, dims) float64, and there are never both; `supplied` is (N,) int8, the position in `SPLITS` of the
    split that the source itself puts each example in.
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
    precision: Literal["float16", "float32", "float64"] = "float32"
    """Of floats in the source; those of 16 bits are read as float32."""

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number in the precision of the source."""
        return float(np.finfo(np.dtype(self.precision)).eps)
