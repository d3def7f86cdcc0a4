"""CSV: a table, or a matrix of numbers with a row for each example, of which one column may hold labels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_names import LABEL_NAMES, listed
from jensen.data.readers.layout import Part, assemble
from jensen.data.readers.metadata import standard_column
from jensen.data.readers.reading import Reading, Refuse
from jensen.data.readers.tables import Cells, key_of, read_table, text_cells_of
from jensen.errors import AbsentColumnError, InputError

PIXELS = 64
"""The least columns of pixels."""
FIRST_ROWS = 1000
"""The rows by which pixels are recognised."""


def read_csv(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """A CSV file as a table, or as a matrix of numbers: for pixels, and with a --layout other than table."""
    cells = text_cells_of(path, options)
    pixels = options.layout == "auto" and options.columns is None and _holds_pixels(cells)
    if not pixels and options.layout in ("auto", "table"):
        return read_table(cells, options)
    reading = _read_matrix(cells, options, refuse)
    if not pixels:
        return reading
    many = f"{cells.arrow.num_columns} columns of whole numbers of one range"
    note = f"{many} are taken for pixels; --layout table reads a table"
    return replace(reading, notes=(note, *reading.notes))


def _holds_pixels(cells: Cells) -> bool:
    """Whether the first rows look like pixels: many columns of whole numbers with one common range."""
    arrow = cells.arrow
    if arrow.num_columns < PIXELS:
        return False
    try:
        rows = [np.array(column[:FIRST_ROWS].to_pylist()).astype(np.int64) for column in arrow.columns]
    except (ValueError, OverflowError):
        return False
    highest = np.array([row.max() for row in rows])
    if min(row.min() for row in rows) < 0 or highest.max() > 65535:
        return False
    return bool((2 * highest >= highest.max()).mean() >= 0.5)


def _read_matrix(cells: Cells, options: ReadOptions, refuse: Refuse) -> Reading:
    """The columns of numbers, and one column of labels.

    --labels names the column of labels; by default it is the only column with a usual name for labels. Whole numbers
    from 0 to 65535 have levels; other numbers are floats, and an empty cell is NaN.
    """
    names = cells.arrow.column_names
    y = _column_of_labels(cells, options)
    if options.group is not None:
        _refuse_absent(cells, options.group, "group")
    read = {name: _numbers(cells, name) for name in names if name not in (y, options.group)}
    numeric = {name: column for name, column in read.items() if column is not None}
    if not numeric:
        raise InputError(f"{cells.name}: is text without a column of numbers; leave --layout {options.layout} out")
    values = np.stack([*numeric.values()], axis=1)
    if not np.isnan(values).any() and (values == np.floor(values)).all() and 0 <= values.min() <= values.max() <= 65535:
        values = values.astype(np.int64)
    labels = None if y is None else _labels(cells, y)
    reading = assemble("csv", [Part(cells.name, values, labels)], options, refuse)
    keys: dict[str, Callable[[], np.ndarray]] = {}
    if options.group is not None:
        keys[options.group] = key_of(cells.arrow, options.group)
    x = [*numeric]
    others = [name for name in names if name not in (*x, y)]
    of_y = "no column is named label (--labels names another)" if y is None else f"y is column {y!r}"
    note = f"x are {len(x)} columns of numbers, {x[0]!r} to {x[-1]!r}; {of_y}; left out: {listed(others)}"
    return replace(reading, notes=(*cells.notes, note, *reading.notes), keys=keys, names=cells.names)


def _numbers(cells: Cells, name: str) -> np.ndarray | None:
    """A column of numbers; None for text, and for a column without a name that counts the rows, as pandas writes."""
    from jensen.data.table.infer import numbers_of_text

    assert cells.form is not None
    column = numbers_of_text(name, cells.arrow.column(name), cells.form, cells.row)
    if column is None or np.isnan(column).all():
        return None
    unnamed = name == f"column {cells.arrow.column_names.index(name) + 1}" and cells.form.header
    return None if unnamed and np.array_equal(column, np.arange(len(column))) else column


def _labels(cells: Cells, y: str) -> np.ndarray:
    texts = [cell.strip() for cell in cells.arrow.column(y).to_pylist()]
    if "" in texts:
        raise InputError(f"{cells.name}: column {y!r} has empty cells; leave such rows out")
    return standard_column(texts)


def _refuse_absent(cells: Cells, name: str, option: str) -> None:
    names = cells.arrow.column_names
    if name not in names:
        known = listed(names)
        raise AbsentColumnError(f"{cells.name}: has no column {name!r}; --{option} may be {known}", option)


def _column_of_labels(cells: Cells, options: ReadOptions) -> str | None:
    if options.labels is not None:
        _refuse_absent(cells, options.labels, "labels")
        return options.labels
    found = [name for name in cells.arrow.column_names if name.lower() in LABEL_NAMES]
    if len(found) > 1:
        raise InputError(f"{cells.name}: which column holds the labels? give --labels as one of {listed(found)}")
    return found[0] if found else None
