"""Moments, ranges and gaps of every column in float64, from two passes that hold a few rows in memory."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jensen.data.stored import Values, blocks

SAMPLE = 1 << 20

TINY = 1e-300
"""Smaller standard deviations count as 0, because float64 holds fewer digits of such small numbers."""

ROUNDINGS = 8
"""A distance of fewer roundings than this counts as rounding, not as data."""

FLOAT32 = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, eq=False)
class Columns:
    """Moments and range of every column, and a sample of evenly spread rows.

    NaN is ignored. Vectors (N, D) have one column per feature. Arrays of any other shape have a single column, which
    contains all numbers.
    """

    count: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sample: np.ndarray
    """About 2^20 numbers, (rows, columns), in the dtype of the values."""

    @property
    def constant(self) -> np.ndarray:
        """Marks the columns that never vary."""
        return (self.low == self.high) | (self.deviation < TINY)

    @property
    def scale(self) -> np.ndarray:
        """The standard deviation of every column; 1 for columns that never vary."""
        return np.where(self.constant, 1.0, self.deviation)

    @property
    def shift(self) -> np.ndarray:
        """The mean of every column, which is the value itself for columns that never vary."""
        return np.where(self.low == self.high, self.low, self.mean)


def width_of(shape: tuple[int, ...]) -> int:
    """The number of columns of values of the given shape, which includes N."""
    return shape[1] if len(shape) == 2 else 1


def columns(values: Values) -> Columns:
    """The `Columns` of values (N, *shape).

    The first pass sums distances from the mean of the first rows. The second pass corrects this mean, so that a
    standard deviation of 1 keeps all its digits even at a mean of 1e9.
    """
    width = width_of(values.shape)
    count, low, high = np.zeros(width, np.int64), np.full(width, np.nan), np.full(width, np.nan)
    origin, total = np.zeros(width), np.zeros(width)
    sample, every, done = [], max(1, values.size // SAMPLE), 0
    for block in blocks(values, "moments, pass 1 of 2"):
        table = block.reshape(-1, width)
        seen = (~np.isnan(table)).sum(axis=0)
        if not done:
            origin = np.nansum(table, axis=0, dtype=np.float64) / np.maximum(seen, 1)
        count += seen
        total += np.nansum(table - origin, axis=0)
        low, high = np.fmin(low, np.fmin.reduce(table)), np.fmax(high, np.fmax.reduce(table))
        sample.append(table[-done % every :: every].copy())
        done += len(table)
    with np.errstate(invalid="ignore"):
        mean = origin + total / count
        # A power of two near the range: distances in this unit have squares within the range of float64, without a
        # change of any digit.
        unit = np.ldexp(1.0, np.frexp(np.where(low < high, high / 2 - low / 2, 1.0))[1])
        rest, squares = np.zeros(width), np.zeros(width)
        for block in blocks(values, "moments, pass 2 of 2"):
            distance = (block.reshape(-1, width) - mean) / unit
            rest += np.nansum(distance, axis=0)
            squares += np.nansum(np.square(distance), axis=0)
        variance = np.maximum(squares / count - np.square(rest / count), 0)
        return Columns(count, mean + unit * (rest / count), unit * np.sqrt(variance), low, high, np.concatenate(sample))


# ---------------------------------------------------------------------------------------------- distinct values


def smallest_gap(found: Columns, epsilon: float) -> float:
    """The smallest distance between two distinct values of a column, divided by `scale`; 1 if no column varies.

    Only the values in the sample are compared. `epsilon` is the relative rounding of the given numbers, see `distinct`.
    """
    ordered, rounding, apart = distinct(found, epsilon)
    gaps = np.where(apart, np.diff(ordered, axis=0), np.inf).min(axis=0, initial=np.inf)
    varies = ~found.constant
    distance = np.where(np.isfinite(gaps), gaps, rounding)[varies]
    return float(distance.min()) if varies.any() else 1.0


def distinct(
    found: Columns, epsilon: float
) -> tuple[Float[np.ndarray, " rows columns"], Float[np.ndarray, " columns"], Bool[np.ndarray, " gaps columns"]]:
    """The sample x = (value - shift) / scale in ascending order, the rounding, and a mask of distinct neighbours.

    Two values are distinct if they are more than 8 roundings apart: 0.1 and 0.1 + 1e-8 are one value in float32. The
    rounding of a value is the larger of two: `epsilon` times the size of the given number, and the rounding of x in
    float32. Both are computed from the larger of the two neighbours. This neighbour counts as at most the 99 % quantile
    of the values, so that one fill value of 1e8 does not hide the distances between all other values.
    """
    shift, scale = found.shift, found.scale
    ordered = np.sort((found.sample - shift) / scale, axis=0)
    size = ROUNDINGS * np.maximum(FLOAT32 * np.abs(ordered), epsilon * np.abs(ordered + shift / scale))
    bulk = quantile(np.sort(size, axis=0), 0.99)
    threshold = np.maximum(np.maximum(size[1:], size[:-1]), bulk)
    return ordered, bulk, np.diff(ordered, axis=0) > threshold


def sample_moments(
    x: Float[np.ndarray, "rows columns"],
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"], Bool[np.ndarray, " columns"]]:
    """For every column of a sample in memory: the mean, the scale, and whether the column varies.

    NaN is ignored. As in `Columns`, the scale of a column that never varies is 1; a column of only NaN has the mean 0.
    """
    count = np.maximum((~np.isnan(x)).sum(axis=0), 1)
    mean = np.nansum(x, axis=0) / count
    deviation = np.sqrt(np.nansum((x - mean) ** 2, axis=0) / count)
    varies = deviation > np.maximum(FLOAT32 * 1e-3 * np.abs(mean), TINY)
    return mean, np.where(varies, deviation, 1.0), varies


def quantile(ordered: Shaped[np.ndarray, " rows columns"], share: float) -> Shaped[np.ndarray, " columns"]:
    """The `share` quantile of every column of `ordered`, whose columns are in ascending order with NaN last."""
    count = (~np.isnan(ordered)).sum(axis=0)
    place = np.floor(share * np.maximum(count - 1, 0)).astype(np.int64)
    return np.take_along_axis(ordered, place[None], axis=0)[0]
