"""What is to be known of all values, found in one pass: range, missing and infinite ones, and the fingerprint."""

import hashlib
import math

import numpy as np

from jensen.data.stored import Values, blocks


class Survey:
    """What one pass over values (N, *shape) finds; they are added block by block, in order."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.minimum, self.maximum = math.nan, math.nan
        """Without NaN; NaN where there is nothing else."""
        self.missing, self.infinite = 0, 0
        """How many are NaN, how many infinite."""
        self.first_missing: tuple[int, ...] | None = None
        self.first_infinite: tuple[int, ...] | None = None
        """The example and the position in it."""
        self.first_empty: int | None = None
        """The first example that is NaN throughout."""
        self._digest = hashlib.blake2b(f"{dtype.name} {shape}".encode(), digest_size=16)
        self._done = 0

    def add(self, block: np.ndarray) -> None:
        """The next values (n, *shape)."""
        self._digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        self.minimum = float(np.fmin(self.minimum, np.fmin.reduce(block, axis=None)))
        self.maximum = float(np.fmax(self.maximum, np.fmax.reduce(block, axis=None)))
        if block.dtype.kind == "f":
            self._add_floats(block)
        self._done += len(block)

    def fingerprint(self, *beside: bytes) -> str:
        """BLAKE2b, 16 bytes in hexadecimal, of dtype, shape, values and what lies beside them."""
        digest = self._digest.copy()
        for content in beside:
            digest.update(content)
        return digest.hexdigest()

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
    """What one pass over all values finds."""
    found = Survey(values.shape, values.dtype)
    for block in blocks(values):
        found.add(block)
    return found


def extremes(values: Values) -> tuple[int, int]:
    """The lowest and the highest of integers."""
    ranges = [(int(block.min()), int(block.max())) for block in blocks(values)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)
