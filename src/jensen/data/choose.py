"""The preparation of given data: a default by dtype, the impossible refused, statistics of training data only."""

import math
from dataclasses import dataclass

import numpy as np

from jensen.data.options import PreparationWish
from jensen.data.preparation import (
    AnyPreparation,
    Dequantise,
    DynamicBinarisation,
    Levels,
    Standardise,
    StaticBinarisation,
    Threshold,
)
from jensen.data.readers.reading import Reading
from jensen.data.stored import Values, blocks, selected
from jensen.data.survey import Survey
from jensen.errors import InputError

SAMPLE = 1 << 20

_INTEGER: dict[str, type[Dequantise] | type[Levels]] = {"dequantise": Dequantise, "levels": Levels}
_BINARY: dict[str, type[Threshold] | type[StaticBinarisation] | type[DynamicBinarisation]] = {
    "threshold": Threshold,
    "static": StaticBinarisation,
    "dynamic": DynamicBinarisation,
}


def choose_preparation(wish: PreparationWish, reading: Reading, rows: np.ndarray) -> AnyPreparation:
    """The preparation that was wished for, fitted to training `rows`; None: dequantise integers, standardise floats.

    Raises InputError for an unknown name and for one that the data do not allow.
    """
    name = wish(reading.levels) if callable(wish) else wish
    name = name or ("standardise" if reading.levels is None else "dequantise")
    dtype, dimensions = reading.values.dtype.name, math.prod(reading.values.shape[1:])
    if name in _INTEGER:
        if reading.levels is None:
            raise InputError(
                f"the preparation {name} needs integers but the data are {dtype}; "
                "give --likelihood gaussian, or data as uint8 or uint16"
            )
        return _INTEGER[name](dtype=dtype, dimensions=dimensions, levels=reading.levels)
    if name in _BINARY:
        if reading.levels is None:
            refuse_outside_unit(reading.survey, f"the preparation {name}")
        return _BINARY[name](dtype=dtype, dimensions=dimensions, levels=reading.levels)
    if name != "standardise":
        known = ", ".join([*_INTEGER, *_BINARY, "standardise"])
        raise InputError(f"preparation {name}: unknown; expected one of {known}")
    if reading.levels is not None:
        raise InputError(
            f"the preparation standardise needs floats but the data are {dtype} with {reading.levels} levels; "
            "dequantise them, or give data as float32"
        )
    return standardise(selected(reading.values, rows))


def refuse_outside_unit(found: Survey, what: str) -> None:
    """Raises InputError unless all values lie in [0, 1], as probabilities must."""
    if found.missing:
        raise InputError(f"{what} knows no missing values, and some are NaN; give --likelihood gaussian")
    low, high = found.minimum, found.maximum
    if low < 0 or high > 1:
        raise InputError(
            f"{what} needs values within [0, 1], the data lie in [{low:g}, {high:g}]; rescale them, "
            "or give --likelihood gaussian"
        )


def standardise(train: Values) -> Standardise:
    """`Standardise` with the moments of training examples (N, ...), summed in float64; NaN are missing.

    Raises InputError for a column without any value.
    """
    found = columns(train)
    empty = found.count == 0
    if empty.any():
        raise InputError(f"feature {int(empty.argmax())}: no training example has a value of it; leave it out")
    constant = (found.low == found.high) | (found.deviation < np.finfo(np.float32).tiny)
    scale = np.where(constant, 1.0, found.deviation)
    return Standardise(
        dtype="float32",
        dimensions=math.prod(train.shape[1:]),
        resolution=smallest_gap(found.sample, scale),
        shift=tuple(found.mean.tolist()),
        scale=tuple(scale.tolist()),
        constant=tuple(np.flatnonzero(constant).tolist()),
        minimum=float(found.low.min()),
        maximum=float(found.high.max()),
    )


@dataclass(frozen=True, eq=False)
class Columns:
    """Moments and range of every column without its NaN, and some of the rows, evenly spread."""

    count: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sample: np.ndarray
    """About 2^20 numbers."""


def columns(values: Values) -> Columns:
    """Those of vectors (N, D), or of all numbers as one column, in two passes that hold some rows at a time."""
    width = values.shape[1] if values.ndim == 2 else 1
    count, total = np.zeros(width, np.int64), np.zeros(width)
    low, high = np.full(width, np.nan), np.full(width, np.nan)
    sample, every, done = [], max(1, values.size // SAMPLE), 0
    for block in blocks(values, "moments, pass 1 of 2"):
        table = block.reshape(-1, width)
        count += (~np.isnan(table)).sum(axis=0)
        total += np.nansum(table, axis=0, dtype=np.float64)
        low, high = np.fmin(low, np.fmin.reduce(table)), np.fmax(high, np.fmax.reduce(table))
        sample.append(table[-done % every :: every].copy())
        done += len(table)
    with np.errstate(invalid="ignore"):
        mean = total / count
        squares = np.zeros(width)
        for block in blocks(values, "moments, pass 2 of 2"):
            squares += np.nansum(np.square(block.reshape(-1, width).astype(np.float64) - mean), axis=0)
        return Columns(count, mean, np.sqrt(squares / count), low, high, np.concatenate(sample))


def moments(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column of (N, D) without its NaN."""
    found = columns(table)
    return found.mean, found.deviation


def smallest_gap(table: np.ndarray, scale: np.ndarray) -> float:
    """The smallest distance between two distinct values of a column of (N, D), over its scale; 1 if none varies.

    Looks at about 2^20 numbers, evenly spread rows. Distances below 8 float32 roundings of the column's largest value
    are taken for rounding, not for data: 0.1 and 0.1 + 1e-8 are one value.
    """
    rows = table[:: max(1, table.size // SAMPLE)].astype(np.float64)
    rounding = 8 * np.finfo(np.float32).eps * np.nanmax(np.abs(rows), axis=0, initial=0)
    gaps = np.diff(np.sort(rows, axis=0), axis=0)
    gaps = np.where(gaps > rounding, gaps, np.inf).min(axis=0, initial=np.inf)
    varies = np.nanmin(rows, axis=0, initial=np.inf) < np.nanmax(rows, axis=0, initial=-np.inf)
    distance = np.where(np.isfinite(gaps), gaps, rounding)[varies] / scale[varies]
    return float(distance.min()) if varies.any() else 1.0
