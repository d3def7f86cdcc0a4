"""The preparation of given data: a default by dtype, the impossible refused, statistics of training data only."""

import math

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
from jensen.data.reading import Reading
from jensen.errors import InputError

SAMPLE = 1 << 20
ROWS_AT_ONCE = 1 << 22

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
            refuse_outside_unit(reading.values, f"the preparation {name}")
        return _BINARY[name](dtype=dtype, dimensions=dimensions, levels=reading.levels)
    if name != "standardise":
        known = ", ".join([*_INTEGER, *_BINARY, "standardise"])
        raise InputError(f"preparation {name}: unknown; expected one of {known}")
    if reading.levels is not None:
        raise InputError(
            f"the preparation standardise needs floats but the data are {dtype} with {reading.levels} levels; "
            "dequantise them, or give data as float32"
        )
    return standardise(reading.values[rows])


def refuse_outside_unit(values: np.ndarray, what: str) -> None:
    """Raises InputError unless all values lie in [0, 1], as probabilities must."""
    if np.isnan(values).any():
        raise InputError(f"{what} knows no missing values, and some are NaN; give --likelihood gaussian")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise InputError(
            f"{what} needs values within [0, 1], the data lie in [{low:g}, {high:g}]; rescale them, "
            "or give --likelihood gaussian"
        )


def standardise(train: np.ndarray) -> Standardise:
    """`Standardise` with the moments of training examples (N, ...), summed in float64; NaN are missing.

    Raises InputError for a column without any value.
    """
    table = train if train.ndim == 2 else train.reshape(-1, 1)
    empty = np.isnan(table).all(axis=0)
    if empty.any():
        raise InputError(f"feature {int(empty.argmax())}: no training example has a value of it; leave it out")
    shift, deviation = moments(table)
    constant = (np.nanmin(table, axis=0) == np.nanmax(table, axis=0)) | (deviation < np.finfo(np.float32).tiny)
    scale = np.where(constant, 1.0, deviation)
    return Standardise(
        dtype="float32",
        dimensions=math.prod(train.shape[1:]),
        resolution=smallest_gap(table, scale),
        shift=tuple(shift.tolist()),
        scale=tuple(scale.tolist()),
        constant=tuple(np.flatnonzero(constant).tolist()),
        minimum=float(np.nanmin(train)),
        maximum=float(np.nanmax(train)),
    )


def moments(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column without its NaN, in two passes that convert some rows at a time."""
    step = max(1, ROWS_AT_ONCE // table.shape[1])
    blocks = [slice(start, start + step) for start in range(0, len(table), step)]
    count = sum((~np.isnan(table[block])).sum(axis=0) for block in blocks)
    mean = sum(np.nansum(table[block], axis=0, dtype=np.float64) for block in blocks) / count
    squares = sum(np.nansum(np.square(table[block].astype(np.float64) - mean), axis=0) for block in blocks)
    return mean, np.sqrt(squares / count)


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
