"""One pass over all values: their range, the missing and the infinite values, and the fingerprint."""

import hashlib
import math

import numpy as np

from jensen.data.moments import width_of
from jensen.data.stored import Values, blocks


class Survey:
    """The results of one pass over values (N, *shape), which are added block by block, in order.

    As in `moments.Columns`, vectors have one column per feature, and other arrays have a single column.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.low, self.high = (np.full(width_of(shape), np.nan) for _ in range(2))
        """The range of every column without NaN; NaN for a column that holds only NaN."""
        self.low_at, self.high_at = (np.zeros(width_of(shape), np.int64) for _ in range(2))
        """The first lowest and highest value of every column, as indices among all values; see `position`."""
        self.missing, self.infinite = 0, 0
        """The numbers of NaN and of infinite values."""
        self.first_missing: tuple[int, ...] | None = None
        self.first_infinite: tuple[int, ...] | None = None
        """The example of the first such value, and the position in the example."""
        self.first_empty: int | None = None
        """The first example that holds only NaN."""
        self._shape = shape
        self._digest = hashlib.blake2b(f"{dtype.name} {shape}".encode(), digest_size=16)
        self._done = 0

    def add(self, block: np.ndarray) -> None:
        """Add the next values (n, *shape)."""
        self._digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        self._extend(block.reshape(-1, len(self.low)))
        if block.dtype.kind == "f":
            self._add_floats(block)
        self._done += len(block)

    @property
    def minimum(self) -> float:
        """The lowest value, ignoring NaN; NaN if all values are NaN."""
        return float(np.fmin.reduce(self.low))

    @property
    def maximum(self) -> float:
        """The highest value, ignoring NaN; NaN if all values are NaN."""
        return float(np.fmax.reduce(self.high))

    def position(self, number: int) -> tuple[int, ...]:
        """The example, and the position in the example, of the value with the index `number` among all values."""
        return tuple(int(axis) for axis in np.unravel_index(number, self._shape))

    def fingerprint(self, *beside: bytes) -> str:
        """BLAKE2b digest (16 bytes, hexadecimal) of dtype, shape, values and the further bytes `beside`."""
        digest = self._digest.copy()
        for content in beside:
            digest.update(content)
        return digest.hexdigest()

    def _extend(self, table: np.ndarray) -> None:
        """Update the extremes of every column, and their positions, by the next rows (rows, columns)."""
        width = table.shape[1]
        before = self._done * math.prod(self._shape[1:])
        sides = ((np.fmin, self.low, self.low_at), (np.fmax, self.high, self.high_at))
        for better, extreme, place in sides:
            found = better.reduce(table, axis=0)
            # NaN differs from every value, so the first value always replaces the initial NaN
            new = np.flatnonzero((better(extreme, found) != extreme) & ~np.isnan(found))
            for column in new.tolist():
                extreme[column] = found[column]
                place[column] = before + int((table[:, column] == found[column]).argmax()) * width + column

    def _add_floats(self, block: np.ndarray) -> None:
        missing, infinite = np.isnan(block), np.isinf(block)
        self.missing += int(missing.sum())
        self.infinite += int(infinite.sum())
        self.first_missing = self.first_missing or self._first(missing)
        self.first_infinite = self.first_infinite or self._first(infinite)
        empty = missing.reshape(len(block), -1).all(1)
        if self.first_empty is None and empty.any():
            self.first_empty = self._done + int(empty.argmax())

    def _first(self, which: np.ndarray) -> tuple[int, ...] | None:
        if not which.any():
            return None
        row, *rest = (int(axis) for axis in np.unravel_index(int(which.argmax()), which.shape))
        return (self._done + row, *rest)


def survey(values: Values) -> Survey:
    """The survey of all values."""
    found = Survey(values.shape, values.dtype)
    for block in blocks(values):
        found.add(block)
    return found


def extremes(values: Values) -> tuple[int, int]:
    """The lowest and the highest of integers."""
    ranges = [(int(block.min()), int(block.max())) for block in blocks(values)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)
