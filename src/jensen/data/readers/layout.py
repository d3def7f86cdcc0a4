"""From arrays of any dtype and rank to examples: the standard dtypes, the labels and the targets."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.axes import arrange
from jensen.data.readers.reading import SPLITS, Kind, Reading, Refuse
from jensen.data.readers.tables import Cells, matrix_cells, read_table
from jensen.data.stored import Values, converted, joined
from jensen.data.survey import Survey, extremes, survey
from jensen.data.target_scaling import standard_targets
from jensen.errors import InputError

CONTINUOUS = "y are floats, read as continuous targets; labels would be integers or strings"
TABULAR = ("array", "arrays", "array in memory", "arrays in memory", "csv")
_KINDS = {"U": "text", "f": "floats"}


@dataclass(frozen=True)
class Part:
    """One array of a source, the labels or targets of its rows, and the split in the name of the array."""

    name: str
    values: Values
    labels: np.ndarray | None = None
    split: str | None = None


def assemble(kind: Kind, parts: Sequence[Part], options: ReadOptions, refuse: Refuse) -> Reading:
    """The reading of the arrays of one source: joined, converted to a standard dtype, and arranged as examples."""
    if options.layout == "table":
        if kind not in TABULAR:  # new data are read by `read_cells`, which knows these
            raise InputError(
                f"{parts[0].name}: --layout table is for CSV, Parquet, Arrow and NumPy; write the array as .npy, or "
                "leave --layout out"
            )
        return read_table(cells_of_parts(parts), options)
    first = parts[0]
    for part in parts:
        if part.values.ndim == 0 or part.values.size == 0:
            raise InputError(f"{part.name} has shape {part.values.shape}, so no examples; expected (N, ...)")
        if part.values.shape[1:] != first.values.shape[1:] or part.values.dtype != first.values.dtype:
            raise InputError(
                f"{part.name} holds examples {_described(part.values)} but {first.name} {_described(first.values)}; "
                "they must agree"
            )
    values, levels = standard_dtype(joined([part.values for part in parts]), first.name, options, refuse)
    labels, label_names, targets = None, None, None
    try:
        labels, label_names, targets = labels_or_targets(parts)
    except InputError as error:
        refuse(str(error))
    try:
        arranged, layout, note, doubtful = arrange(values, first.name, options.layout)
    except InputError:
        _refuse_unusable(survey(values), values, levels, first.name, options, refuse)
        raise
    found = survey(arranged)
    _refuse_unusable(found, values, levels, first.name, options, refuse)
    supplied = supplied_splits([(part.split, len(part.values)) for part in parts])
    notes = (*(() if doubtful else (note,)), *(() if targets is None else (CONTINUOUS,)))
    reading = Reading(
        kind, layout, arranged, found, levels, labels, label_names, supplied, notes=notes, targets=targets
    )
    doubts = (note,) if doubtful else ()
    return replace(reading, precision=_precision(first.values.dtype), doubts=doubts)


def cells_of_parts(parts: Sequence[Part]) -> Cells:
    """The cells of arrays (N, D): a column for each of the D numbers, and one called y for the labels or targets."""
    values = np.concatenate([np.asarray(part.values[:]) for part in parts])
    y = [part.labels for part in parts if part.labels is not None]
    beside = {"y": _column(np.concatenate(y))} if len(y) == len(parts) else {}
    cells = matrix_cells(parts[0].name, values, beside)
    return replace(cells, supplied=supplied_splits([(part.split, len(part.values)) for part in parts]))


def supplied_splits(parts: Sequence[tuple[str | None, int]]) -> np.ndarray | None:
    """The split of every row, as an index into `SPLITS`, from the split and length of each part; None for one part."""
    if len(parts) == 1:
        return None
    codes = [SPLITS.index(split or "train") for split, _ in parts]
    return np.repeat(np.array(codes, np.int8), [count for _, count in parts])


def _precision(given: np.dtype) -> Literal["float16", "float32", "float64"]:
    """The precision of floats; "float32" for other dtypes, which have none."""
    if given.kind != "f":
        return "float32"
    return {2: "float16", 4: "float32"}.get(given.itemsize, "float64")  # type: ignore[return-value]


def standard_dtype(values: Values, name: str, options: ReadOptions, refuse: Refuse) -> tuple[Values, int | None]:
    """The values as uint8, uint16, float32 or float64, and their levels (None for floats).

    Floats of 64 bits and more become float64, other floats become float32. Booleans become 2 levels. Other integers
    become uint8, or uint16 if uint8 cannot hold them all.
    """
    kind, levels = values.dtype.kind, options.levels
    if kind == "f":
        wide = np.dtype(np.float64 if values.dtype.itemsize >= 8 else np.float32)
        return converted(values, partial(_as, wide)), None
    if kind == "b":
        if levels not in (None, 2):
            refuse(f"{name} holds booleans, which have 2 levels, not {levels}; convert it to uint8")
        return converted(values, partial(_as, np.dtype(np.uint8))), 2
    if kind not in "iu":
        raise InputError(
            f"{name} holds {values.dtype}; expected integers or real floats: convert it to uint8, uint16 or float32"
        )
    if levels is not None and not 2 <= levels <= 65536:
        raise InputError(f"--levels {levels}: must be from 2 to 65536")
    if values.dtype.itemsize <= 2 and kind == "u":
        native = values.dtype.newbyteorder("=")
        return converted(values, partial(_as, native)), levels or 256**native.itemsize
    low, high = extremes(values)
    if low < 0 or high > 65535:
        raise InputError(
            f"{name} holds {values.dtype} from {low} to {high}; integers must lie in 0..65535: "
            "shift them, or convert to float32 for data without levels"
        )
    levels = levels or (256 if high < 256 else 65536)
    fitting = np.dtype(np.uint8 if max(levels - 1, high) < 256 else np.uint16)
    return converted(values, partial(_as, fitting)), levels


def _as(dtype: np.dtype, block: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        found = block.astype(dtype, copy=False)
    if dtype == np.float64 and block.size:
        highest = np.finfo(np.float32).max  # squares of larger numbers, and so moments, may overflow float64
        if max(np.fmax.reduce(found, axis=None), -np.fmin.reduce(found, axis=None)) > highest:
            return np.where(np.abs(found) > highest, np.inf, found)  # refused as infinite
    return found


def _refuse_unusable(
    found: Survey, values: Values, levels: int | None, name: str, options: ReadOptions, refuse: Refuse
) -> None:
    """Refuses integers beyond the levels, infinite values, and NaN unless NaN means a missing value."""
    if levels is not None:
        if found.maximum >= levels:
            refuse(
                f"{name} holds {found.maximum:.0f}, but with {levels} levels the highest is {levels - 1}; "
                f"rescale it or give --levels {found.maximum + 1:.0f}"
            )
        return
    missing = options.missing
    if bad := found.infinite + (0 if missing else found.missing):
        first = min(filter(None, (found.first_infinite, None if missing else found.first_missing)))
        refuse(
            f"{name}: {bad} of its {values.size} values are {'' if missing else 'NaN, '}infinite or beyond float32, "
            f"the first in example {first[0]} at {first[1:]}; remove or replace them"
        )


def standard_labels(labels: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return the labels as (N,) int64 >= 0, and their names.

    A string becomes its rank among the sorted distinct strings. Integers with gaps also become ranks, so that every
    class has examples.
    """
    if labels.ndim != 1:
        raise InputError(f"{name} have shape {labels.shape}; expected one label per example, shape (N,)")
    if labels.dtype.kind == "U":
        _refuse_other_than_text(labels, name)
        words, ranks = np.unique(labels, return_inverse=True)
        return ranks.astype(np.int64), tuple(str(word) for word in words)
    if labels.dtype.kind not in "biu":
        raise InputError(f"{name} are {labels.dtype}; expected integers or strings: convert them with astype")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= 2**31:
        raise InputError(f"{name} go from {low} to {high}; expected 0 to 2^31 - 1: renumber them")
    numbers, ranks = np.unique(labels, return_inverse=True)
    names = None if len(numbers) == high + 1 else tuple(str(int(number)) for number in numbers)
    return ranks.astype(np.int64), names


def _refuse_other_than_text(words: np.ndarray, name: str) -> None:
    """Raises InputError for code points that are not characters: surrogates, and numbers beyond Unicode."""
    codes = np.ascontiguousarray(words).view(f"{words.dtype.str[0]}u4")
    wrong = ((codes >= 0xD800) & (codes < 0xE000)) | (codes > sys.maxunicode)
    if wrong.any():
        raise InputError(f"{name} hold U+{int(codes[wrong][0]):X}, which is no character; write them again as text")


def labels_or_targets(
    parts: Sequence[Part],
) -> tuple[np.ndarray | None, tuple[str, ...] | None, np.ndarray | None]:
    """Labels with their names, or targets: integers and strings are labels, floats are targets."""
    columns = [None if part.labels is None else _column(part.labels) for part in parts]
    present = [column for column in columns if column is not None]
    if not present:
        return None, None, None
    for part, column in zip(parts, columns, strict=True):
        what = "targets" if present[0].dtype.kind == "f" else "labels"
        if column is None:
            raise InputError(f"{part.name} has no {what} but others beside it have; give {what} for all or none")
        if len(column) != len(part.values):
            raise InputError(
                f"{part.name} holds {len(part.values)} examples but {len(column)} {what}; there must be one for each"
            )
    if len({(column.shape[1:], _KINDS.get(column.dtype.kind)) for column in present}) > 1:
        raise InputError(f"the labels of {parts[0].name} and {parts[1].name} are of different kinds; they must agree")
    joined = np.concatenate(present)
    if joined.dtype.kind == "f":
        return None, None, standard_targets(joined, f"the targets of {parts[0].name}")
    return *standard_labels(joined, f"the labels of {parts[0].name}"), None


def _column(labels: np.ndarray) -> np.ndarray:
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else np.atleast_1d(labels)


def _described(values: Values) -> str:
    return f"of shape {values.shape[1:]} and dtype {values.dtype}"
