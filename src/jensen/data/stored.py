"""Examples that stay on disk: rows are read on request, and batches are read before they are needed.

A NumPy array and an `AbstractRows` share a few members (length, shape, dtype, a block of rows). Code that works
block by block accepts both.
"""

import math
import os
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.progress import track

NUMBERS_AT_ONCE = 1 << 22
DENSE = 4  # rows are read in one piece, gaps included, if the piece is at most this many times as large as the rows
AHEAD = 3  # number of batches that are read ahead

Item = TypeVar("Item")


class AbstractRows(ABC):
    """Rows (N, *shape) on disk."""

    shape: tuple[int, ...]
    """The shape (N, *shape), like that of an array."""

    dtype: np.dtype

    @abstractmethod
    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows, at least one, as an array (batch, *shape). Raises InputError if the file has changed."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        numbers = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        return self.take(numbers) if len(numbers) else np.empty((0, *self.shape[1:]), self.dtype)

    @property
    def ndim(self) -> int:
        """The number of axes, including N."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of all values."""
        return math.prod(self.shape)


Values = np.ndarray | AbstractRows


class OpenFile:
    """A file that stays open and that any thread may read at any position.

    Because the file stays open, replacing it on disk cannot mix old and new data. The file is read, not memory-mapped,
    for two reasons: if a mapped file shrinks, the process ends (SIGBUS); and mapped pages count as resident memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def fill(self, view: memoryview, position: int) -> None:
        """Fill `view` with the bytes from `position`. Raises InputError if the file no longer has these bytes."""
        while view:
            try:
                count = os.preadv(self._descriptor, [view], position)
            except OSError as error:
                raise InputError(f"{self.path}: cannot be read any more ({error.strerror}); check the disk") from error
            if not count:
                raise InputError(f"{self.path}: has become shorter since it was opened; restore it")
            view, position = view[count:], position + count


class FileRows(AbstractRows):
    """An array in C order that begins at byte `offset` of a file."""

    def __init__(self, file: OpenFile, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._file, self._offset, self.shape, self.dtype = file, offset, shape, dtype
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize

    def take(self, rows: np.ndarray) -> np.ndarray:
        first, last = int(rows.min()), int(rows.max())
        between = last - first + 1
        if between <= DENSE * len(rows):
            block = self._read(first, np.empty((between, *self.shape[1:]), self.dtype))
            contiguous = between == len(rows) and bool((rows[1:] > rows[:-1]).all())
            return block if contiguous else block[rows - first]
        block = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows.tolist()):
            self._read(row, block[place : place + 1])
        return block

    def _read(self, first: int, block: np.ndarray) -> np.ndarray:
        self._file.fill(memoryview(block.reshape(-1).view(np.uint8).data), self._offset + first * self._row_bytes)
        return block


class Converted(AbstractRows):
    """Rows to which a function is applied block by block; the function may change the shape and dtype of a row."""

    def __init__(self, rows: AbstractRows, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self._rows, self._function = rows, function
        nothing = function(rows[:0])
        self.shape, self.dtype = (len(rows), *nothing.shape[1:]), nothing.dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._function(self._rows.take(rows))


class Joined(AbstractRows):
    """Rows of several sources with the same shape and dtype, one source after the other."""

    def __init__(self, parts: Sequence[AbstractRows]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        self.shape, self.dtype = (int(self._starts[-1]), *parts[0].shape[1:]), parts[0].dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for owner in np.unique(owners).tolist():
            mine = owners == owner
            found[mine] = self._parts[owner].take(rows[mine] - self._starts[owner])
        return found


class Selected(AbstractRows):
    """The rows with the given indices."""

    def __init__(self, rows: AbstractRows, numbers: np.ndarray) -> None:
        self._rows, self._numbers = rows, numbers
        self.shape, self.dtype = (len(numbers), *rows.shape[1:]), rows.dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._rows.take(self._numbers[rows])


def readable_by_rows(name: str, options: ReadOptions, hindrance: str | None) -> bool:
    """Whether single rows can be read. Raises InputError if they cannot be read and --stream is always."""
    if hindrance and options.stream == "always":
        what, advice = hindrance.split(": ")
        raise InputError(f"{name}: {what}, so single examples cannot be read; {advice}, or leave out --stream")
    return not hindrance


# ---------------------------------------------------------------------------------------------- arrays or rows


def converted(values: Values, function: Callable[[np.ndarray], np.ndarray]) -> Values:
    """All rows after `function`, which is applied to an array at once, and to rows on disk when they are read."""
    return Converted(values, function) if isinstance(values, AbstractRows) else function(values)


def joined(parts: Sequence[Values]) -> Values:
    """Several values, one after the other; the parts are either all arrays or all rows on disk."""
    if len(parts) == 1:
        return parts[0]
    rows = [part for part in parts if isinstance(part, AbstractRows)]
    return Joined(rows) if rows else np.concatenate([part[:] for part in parts])


def selected(values: Values, rows: np.ndarray) -> Values:
    """The values in the rows with the indices `rows`."""
    return Selected(values, rows) if isinstance(values, AbstractRows) else values[rows]


def blocks(values: Values, description: str = "reading") -> Iterator[np.ndarray]:
    """All rows in blocks of some millions of numbers, with a progress bar."""
    step = max(1, NUMBERS_AT_ONCE // math.prod(values.shape[1:]))
    for start in track(range(0, len(values), step), description):
        yield values[start : start + step]


# ---------------------------------------------------------------------------------------------- as tensors


class Stored:
    """Rows on disk that behave like a tensor (N, *shape) on the CPU; indexing reads rows into memory."""

    device = torch.device("cpu")

    def __init__(self, rows: AbstractRows) -> None:
        self.rows = rows
        self.shape = torch.Size(rows.shape)
        self.dtype = torch.from_numpy(np.empty(0, rows.dtype)).dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        found = self.rows[rows if isinstance(rows, slice) else rows.cpu().numpy()]
        return torch.from_numpy(np.ascontiguousarray(found))

    def index_select(self, dim: Literal[0], index: Tensor) -> Tensor:
        """The rows `index`, in memory."""
        return self[index]

    def select(self, rows: Tensor | slice) -> "Stored":
        """The given rows, still on disk."""
        return Stored(Selected(self.rows, torch.arange(len(self))[rows].numpy()))

    def to(self, device: torch.device) -> "Stored":
        """Returns itself; rows move to a device batch by batch, after reading."""
        return self

    def split(self, size: int) -> Iterator[Tensor]:
        """All rows in memory, `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))


def in_memory_or_stored(values: Values) -> Tensor | Stored:
    """An array as a tensor; rows on disk as a `Stored`."""
    return Stored(values) if isinstance(values, AbstractRows) else torch.from_numpy(np.ascontiguousarray(values))


class Ahead(Generic[Item]):
    """The items `read(number)` with the indices 0..end-1, read ahead by a thread.

    While the caller uses one item, the thread reads the next few items. Items may be requested in any order; after a
    jump the thread continues from the new index.
    """

    def __init__(self, read: Callable[[int], Item], end: int) -> None:
        self._read, self._end = read, end
        self._thread = ThreadPoolExecutor(1, "jensen-read")
        self._waiting: deque[tuple[int, Future[Item]]] = deque()

    def __call__(self, number: int) -> Item:
        if self._waiting and self._waiting[0][0] != number:
            self._forget()
        following = self._waiting[-1][0] + 1 if self._waiting else number
        for later in range(following, min(number + AHEAD, self._end - 1) + 1):
            self._waiting.append((later, self._thread.submit(self._read, later)))
        return self._waiting.popleft()[1].result()

    def _forget(self) -> None:
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
