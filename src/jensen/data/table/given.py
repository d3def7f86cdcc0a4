"""Cells that are given for a row of a table, such as age=40: the numbers of the row, and which of them are hidden."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jensen.data.table.cells import TEXT
from jensen.data.table.column import Table
from jensen.data.table.matrix import encode_with_notes
from jensen.errors import InputError


def parsed_cells(words: Sequence[str]) -> dict[str, str]:
    """The cell of each column from words like age=40; the cell may hold more signs =.

    >>> parsed_cells(["age=40", "formula=a=b"])
    {'age': '40', 'formula': 'a=b'}

    Raises InputError for a word without =, and for a column that is given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, sign, cell = word.partition("=")
        if not sign or not name:
            raise InputError(f"--given {word!r}: expected COLUMN=CELL, as in 'age=40'")
        if name in found:
            raise InputError(f"--given {word!r}: column {name!r} is given twice; leave one out")
        found[name] = cell
    return found


def given_row(table: Table, cells: Mapping[str, object]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The numbers (D,) of a row of which only some cells are given, and notes about changed cells.

    A cell that is not given is inf, an empty one is NaN: it is known to be missing. Raises InputError for a column that
    the table does not have, for a cell that is not of the column's type, and for an empty cell in a column without any.
    """
    import pyarrow

    known = [column.name for column in table.columns]
    for name, cell in cells.items():
        if name not in known:
            raise InputError(f"--given {name}={cell}: {table.unknown(name)}")
    texts = {name: _text(cells.get(name), table.decimal) for name in known}
    arrow = pyarrow.table({name: pyarrow.array([text], pyarrow.string()) for name, text in texts.items()})
    arrow = arrow.replace_schema_metadata({TEXT: table.decimal.encode()})
    matrix, notes = encode_with_notes(arrow, table, lambda row: "--given")
    row = matrix[0]
    for place, field in enumerate(table.fields):
        name = table.columns[field.column].name
        if name not in cells:
            row[place] = math.inf
        elif np.isnan(row[place]) and not field.missing:
            raise InputError(f"--given {name}=: no training row has an empty cell in this column; give a value")
    return row, tuple(f"--given, {note}" for note in notes)


def _text(cell: object, decimal: str) -> str | None:
    """A cell as a text file of the table holds it."""
    if cell is None or isinstance(cell, str):
        return cell
    number = isinstance(cell, int | float | np.number) and not isinstance(cell, bool | np.bool_)
    return str(cell).replace(".", decimal) if number else str(cell)
