"""One number for each cell of a table, by which cells are compared. Imports no torch."""

from collections.abc import Sequence

import numpy as np

from jensen.data.table.column import Column, Field, Table
from jensen.data.table.datetimes import DAY, decoded


def is_ordered(column: Column, fields: Sequence[Field]) -> bool:
    """Whether the cells of a column have an order: categories have none."""
    return column.type == "datetime" or fields[0].law != "codes"


def ordered_columns(table: Table) -> tuple[bool, ...]:
    """`is_ordered` for each column."""
    return tuple(
        is_ordered(column, [table.fields[place] for place in places])
        for column, places in zip(table.columns, table.places(), strict=True)
    )


def compared_cells(cells: np.ndarray, column: Column, fields: tuple[Field, ...]) -> np.ndarray:
    """The number of each cell (*rows, fields) of a column, (*rows): seconds of a date, the code of a category."""
    if column.type != "datetime":
        return cells[..., 0]
    moments = decoded(cells.reshape(-1, len(fields)), column, fields)
    return (moments.days * DAY + moments.seconds).reshape(cells.shape[:-1])


def compared(matrix: np.ndarray, table: Table) -> np.ndarray:
    """`compared_cells` of all columns: (N, columns) from the matrix (N, fields), NaN missing."""
    parts = [
        compared_cells(matrix[:, list(places)], column, tuple(table.fields[place] for place in places))
        for column, places in zip(table.columns, table.places(), strict=True)
    ]
    return np.stack(parts, 1).astype(np.float64)
