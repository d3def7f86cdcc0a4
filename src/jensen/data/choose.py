"""Choose the preparation of data, by name or by dtype, and fit it to the training examples only."""

import math

import numpy as np

from jensen.data.any_preparation import AnyPreparation
from jensen.data.doubts import doubts_of_floats, doubts_of_integers
from jensen.data.moments import Columns, columns, smallest_gap
from jensen.data.options import PreparationWish
from jensen.data.preparation import (
    Dequantise,
    DynamicBinarisation,
    Levels,
    Standardise,
    StaticBinarisation,
    Threshold,
)
from jensen.data.readers.reading import Reading
from jensen.data.stored import selected
from jensen.data.survey import Survey
from jensen.data.table_preparation import SAMPLE, fit_table_preparation
from jensen.errors import InputError

_INTEGER: dict[str, type[Dequantise] | type[Levels]] = {"dequantise": Dequantise, "levels": Levels}
_BINARY: dict[str, type[Threshold] | type[StaticBinarisation] | type[DynamicBinarisation]] = {
    "threshold": Threshold,
    "static": StaticBinarisation,
    "dynamic": DynamicBinarisation,
}


def choose_preparation(
    wish: PreparationWish, reading: Reading, rows: np.ndarray
) -> tuple[AnyPreparation, tuple[str, ...]]:
    """The preparation named `wish`, fitted to the training examples `rows`, and doubts about the data.

    Each doubt is one line. The default is to dequantise integers and standardise floats. Raises InputError for an
    unknown name, and for a preparation that the data do not allow.
    """
    if reading.table is not None:
        return _of_table(reading, rows)
    name = wish(reading.levels) if callable(wish) else wish
    name = name or ("standardise" if reading.levels is None else "dequantise")
    dtype, dimensions = reading.values.dtype.name, math.prod(reading.values.shape[1:])
    doubts = () if reading.levels is None else doubts_of_integers(reading)
    if name in _INTEGER:
        if reading.levels is None:
            raise InputError(
                f"the preparation {name} needs integers but the data are {dtype}; "
                "give --likelihood gaussian, or data as uint8 or uint16"
            )
        return _INTEGER[name](dtype=dtype, dimensions=dimensions, levels=reading.levels), doubts
    if name in _BINARY:
        if reading.levels is None:
            refuse_outside_unit(reading.survey, f"the preparation {name}")
        return _BINARY[name](dtype=dtype, dimensions=dimensions, levels=reading.levels), doubts
    if name != "standardise":
        known = ", ".join([*_INTEGER, *_BINARY, "standardise"])
        raise InputError(f"preparation {name}: unknown; expected one of {known}")
    if reading.levels is not None:
        raise InputError(
            f"the preparation standardise needs floats but the data are {dtype} with {reading.levels} levels; "
            "dequantise them, or give data as float32"
        )
    found = columns(selected(reading.values, rows))
    preparation = standardise(found, dtype, dimensions, reading.epsilon)
    return preparation, doubts_of_floats(reading, found)


def _of_table(reading: Reading, rows: np.ndarray) -> tuple[AnyPreparation, tuple[str, ...]]:
    """The preparation of the rows of a table, fitted to some of the training rows if there are very many."""
    assert reading.table is not None
    some = selected(reading.values, rows[:: max(1, len(rows) // SAMPLE)])
    values = np.asarray(some[: len(some)])
    if (empty := np.isnan(values).all(axis=0)).any():
        name = reading.table.fields[int(empty.argmax())].name
        raise InputError(f"column {name!r}: missing in all training rows; leave it out by --columns")
    return fit_table_preparation(values, reading.table.fields, reading.epsilon)


def standardise(found: Columns, dtype: str, dimensions: int, epsilon: float) -> Standardise:
    """`Standardise` with the moments of the training examples.

    `epsilon` is the relative rounding of the given numbers. Raises InputError for a column that has only missing
    values.
    """
    empty = found.count == 0
    if empty.any():
        raise InputError(f"feature {int(empty.argmax())}: missing in all training examples; leave it out")
    return Standardise(
        dtype=dtype,
        dimensions=dimensions,
        resolution=smallest_gap(found, epsilon),
        shift=tuple(found.shift.tolist()),
        scale=tuple(found.scale.tolist()),
        constant=tuple(np.flatnonzero(found.constant).tolist()),
        minimum=float(found.low.min()),
        maximum=float(found.high.max()),
    )


def refuse_outside_unit(found: Survey, what: str) -> None:
    """Raises InputError unless all values lie in [0, 1], as probabilities must."""
    if found.missing:
        raise InputError(f"{what} does not accept missing values, and some are NaN; give --likelihood gaussian")
    low, high = found.minimum, found.maximum
    if low < 0 or high > 1:
        raise InputError(
            f"{what} needs values within [0, 1], the data lie in [{low:g}, {high:g}]; rescale them, "
            "or give --likelihood gaussian"
        )
