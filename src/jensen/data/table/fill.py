"""The missing cells of a table, filled from draws: one value for each cell, its interval, and the file with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from jensen.data.table.cells import decimal_of, text_cells
from jensen.data.table.column import Table
from jensen.data.table.matrix import decode, typed_column
from jensen.data.table.views import compared_cells, is_ordered
from jensen.data.table.write import text_of

if TYPE_CHECKING:
    import pyarrow

Fill = Literal["median", "mean", "draw"]
"""The value that fills a cell: the median or the mean of the draws, or a single draw. A category gets the most frequent
one for median and mean, and a whole number its median for both."""

LEVELS = (0.8, 0.95)
"""The levels of the central intervals of a cell."""


@dataclass(frozen=True)
class FilledCell:
    """A cell that was missing: its row and column, and as text its value and the ends of its intervals.

    `share` is the share of the draws that equal the value; None for a column of real numbers. `ends` are the ends of
    the `LEVELS`, low and high of each; they are empty for categories, which have no order.
    """

    row: int
    column: int
    value: str
    share: float | None
    ends: tuple[str, ...]


def quantiles(draws: np.ndarray, table: Table, levels: Sequence[float]) -> np.ndarray:
    """Quantiles of the draws (draws, rows, fields) of each column, each of which is one of the draws.

    (levels, rows, fields); a column without an order has its first draw at every level.
    """
    count = len(draws)
    found = np.repeat(draws[:1], len(levels), 0)
    for index, places in enumerate(table.places()):
        column, fields, own = table.columns[index], tuple(table.fields[k] for k in places), draws[..., list(places)]
        if not is_ordered(column, fields):
            continue
        ranks = np.argsort(compared_cells(own, column, fields), axis=0, kind="stable")
        for at, level in enumerate(levels):
            place = ranks[min(count - 1, max(0, int(np.ceil(level * count)) - 1))]
            found[at][:, list(places)] = np.take_along_axis(own, place[None, :, None], 0)[0]
    return found


def centre(draws: np.ndarray, table: Table, fill: Fill) -> np.ndarray:
    """The values (rows, fields) that fill cells, from draws (draws, rows, fields) in the units of the data."""
    if fill == "draw":
        return draws[0]
    found = quantiles(draws, table, (0.5,))[0]
    for place, field in enumerate(table.fields):
        column = table.columns[field.column]
        if column.type == "datetime":
            continue
        if field.law == "codes":
            found[:, place] = _mode(draws[..., place])
        elif field.law == "real" and fill == "mean" and column.type == "continuous":
            found[:, place] = draws[..., place].mean(0)
    return found


def _mode(codes: np.ndarray) -> np.ndarray:
    """The most frequent code of each row; of equally frequent ones the smallest."""
    levels = int(codes.max(initial=0)) + 1
    return np.stack([(codes == level).sum(0) for level in range(levels)]).argmax(0).astype(float)


def filled_cells(draws: np.ndarray, values: np.ndarray, empty: np.ndarray, table: Table) -> list[FilledCell]:
    """The filled cells, row by row, from draws (draws, rows, fields), and `values` and `empty` (rows, fields)."""
    tails = [(1 + sign * level) / 2 for level in LEVELS for sign in (-1, 1)]
    ends = [_texts(part, table) for part in quantiles(draws, table, tails)]
    texts, found = _texts(values, table), []
    for row in np.flatnonzero(empty.any(1)).tolist():
        for index, places in enumerate(table.places()):
            if not empty[row, places[0]]:
                continue
            fields, own = tuple(table.fields[k] for k in places), list(places)
            real = any(field.law == "real" for field in fields)
            share = None if real else float((draws[:, row, own] == values[row, own]).all(-1).mean())
            ordered = is_ordered(table.columns[index], fields)
            around = tuple(part[index][row] for part in ends) if ordered else ()
            found.append(FilledCell(row, index, texts[index][row], share, around))
    return found


def _texts(matrix: np.ndarray, table: Table) -> list[list[str]]:
    """The cells of each column as text."""
    arrow = decode(matrix, table)
    return [text_of(one.name, arrow.column(one.name), one, table.decimal).to_pylist() for one in table.columns]


# ---------------------------------------------------------------------------------------------- into the source


def filled(
    source: "pyarrow.Table", values: np.ndarray, empty: np.ndarray, table: Table, *, text: bool
) -> "pyarrow.Table":
    """The rows of the source with `values` (rows, fields) in the cells that are `empty` (rows, fields).

    All other cells, and the columns that are not modelled, stay as they are. With `text`, the cells of a text file stay
    text; otherwise they get the types of their columns.
    """
    import pyarrow
    from pyarrow import compute

    arrow, of_text = decode(values, table), decimal_of(source) is not None
    for index, places in enumerate(table.places()):
        column = table.columns[index]
        if not text and of_text:
            source = _replaced(source, column.name, typed_column(column, source, table.decimal))
        missing = empty[:, places[0]]
        if not missing.any():
            continue
        given, new = source.column(column.name).combine_chunks(), arrow.column(column.name).combine_chunks()
        if text and of_text:
            new = text_of(column.name, arrow.column(column.name), column, table.decimal)
        if pyarrow.types.is_dictionary(given.type):
            given, new = given.dictionary_decode(), compute.cast(new, given.type.value_type)
            cells = compute.if_else(pyarrow.array(missing), new, given).dictionary_encode()
        else:
            cells = compute.if_else(pyarrow.array(missing), compute.cast(new, given.type, safe=False), given)
        source = _replaced(source, column.name, cells)
    return source


def empty_elsewhere(source: "pyarrow.Table", table: Table) -> dict[str, int]:
    """The number of empty cells of each column of the source that is not modelled, for columns with some."""
    modelled = {column.name for column in table.columns}
    found = {}
    for name in source.column_names:
        if name not in modelled:
            column = source.column(name)
            found[name] = column.null_count if decimal_of(source) is None else int(text_cells(column).missing.sum())
    return {name: many for name, many in found.items() if many}


def _replaced(source: "pyarrow.Table", name: str, cells: "pyarrow.Array") -> "pyarrow.Table":
    return source.set_column(source.column_names.index(name), name, cells)
