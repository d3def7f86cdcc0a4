"""Tables: the cells of a text file, of Parquet and Arrow files, of a DataFrame or of named arrays, as examples."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_names import listed
from jensen.data.readers.reading import Reading, RowName, row_name
from jensen.data.stored import NUMBERS_AT_ONCE, Values
from jensen.data.survey import survey
from jensen.data.table.cells import Cells as ColumnCells
from jensen.data.table.cells import decimal_of
from jensen.data.table.column import Table
from jensen.data.table.describe import left_out
from jensen.data.table.infer import TextForm, infer
from jensen.data.table.matrix import NOTHING, encode_with_notes
from jensen.data.table.on_disk import rows_on_disk
from jensen.data.table.wishes import parsed
from jensen.errors import AbsentColumnError, InputError

if TYPE_CHECKING:
    import pyarrow


NO_ARRAYS: Mapping[str, np.ndarray] = {}


@dataclass(frozen=True)
class Cells:
    """All cells of a source, before anything is known about the types of the columns.

    `supplied` (N,) int8 is the split that the source assigns to each row, as in `Reading`. Raises InputError for a
    source without rows.
    """

    name: str
    """The name of the source in messages."""
    arrow: "pyarrow.Table"
    form: TextForm | None = None
    """The form of a text file; None for columns with types."""
    notes: tuple[str, ...] = ()
    names: RowName = row_name
    supplied: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.arrow.num_rows:
            raise InputError(f"{self.name}: holds no cells; expected rows of named columns")

    def row(self, row: int) -> str:
        """The name of a row in a message: the source, and the row."""
        return f"{self.name}: {self.names(row)}"


def table_package(name: str) -> None:
    """Raises InputError if the package that reads tables is not installed; `name` is the source."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{name}: tables and CSV files are read by the package pyarrow, which is not installed; pip install "
            "'jensen[tables]'"
        ) from error


def text_cells_of(path: Path, options: ReadOptions, header: bool | None = None) -> Cells:
    """The cells of a CSV or TSV file; for `header` see `read_text`."""
    table_package(str(path))
    from jensen.data.table.text import read_text

    found = read_text(path, header, options.streams(path.stat().st_size))
    return Cells(str(path), found.arrow, found.form, found.notes, found.row_name)


def read_table(cells: Cells, options: ReadOptions) -> Reading:
    """The reading of a table whose types are inferred from its cells, or given by --columns."""
    wishes = parsed(options.columns) if options.columns else {}
    try:
        keep = not options.streams(cells.arrow.nbytes)
        found = infer(cells.arrow, cells.form, wishes, cells.names, keep)
    except InputError as error:
        raise InputError(f"{cells.name}: {error}") from error
    reading = _reading(cells, found.table, options, _notes_of(found.table, cells), found.cells)
    return replace(reading, doubts=(*cells.notes, *_left_out(found.table), *found.notes))


def read_by_table(cells: Cells, table: Table, options: ReadOptions, absent: bool = False) -> Reading:
    """The reading of cells by a known table, as that of a run; with `absent`, columns may be missing as a whole."""
    lost = [column.name for column in table.columns if column.name not in cells.arrow.column_names]
    if not absent or not lost or len(lost) == len(table.columns):
        return _reading(cells, table, options, cells.notes)
    import pyarrow

    arrow = cells.arrow
    for name in lost:
        arrow = arrow.append_column(name, pyarrow.nulls(len(arrow), pyarrow.string()))
    note = f"there is no column {listed(lost)}, so its cells count as missing"
    return _reading(replace(cells, arrow=arrow), table, options, (*cells.notes, note))


def _reading(
    cells: Cells, table: Table, options: ReadOptions, notes: tuple[str, ...], known: Mapping[str, ColumnCells] = NOTHING
) -> Reading:
    for option, name, there in (
        ("labels", options.labels, [column.name for column in table.columns]),
        ("group", options.group, cells.arrow.column_names),
    ):
        if name is not None and name not in there:
            if name in cells.arrow.column_names:
                raise AbsentColumnError(f"{cells.name}: --{option} {name}: {table.unknown(name)}", option)
            raise AbsentColumnError(f"{cells.name}: has no column {name!r}; --{option} may be {listed(there)}", option)
    try:
        matrix, more = _matrix(cells, table, options, known)
    except InputError as error:
        raise InputError(f"{cells.name}: {error}") from error
    return Reading(
        "table",
        "table",
        matrix,
        survey(matrix),
        None,
        supplied=cells.supplied,
        notes=(*notes, *more),
        names=cells.names,
        keys={name: key_of(cells.arrow, name) for name in cells.arrow.column_names},
        precision="float64",
        table=table,
    )


def _matrix(
    cells: Cells, table: Table, options: ReadOptions, known: Mapping[str, ColumnCells]
) -> tuple[Values, tuple[str, ...]]:
    """The numbers of all rows, in memory or in a temporary file, and notes."""
    count, width = cells.arrow.num_rows, len(table.fields)
    if not options.streams(8 * count * width):
        return encode_with_notes(cells.arrow, table, cells.names, known)
    notes: dict[str, None] = {}

    def blocks() -> Iterator[np.ndarray]:
        step = max(1, NUMBERS_AT_ONCE // width)
        for start in range(0, count, step):
            block, more = encode_with_notes(cells.arrow.slice(start, step), table, partial(_later, cells.names, start))
            notes.update(dict.fromkeys(more))
            yield block

    return rows_on_disk(blocks(), width), tuple(notes)


def _later(names: RowName, start: int, row: int) -> str:
    """The name of a row of a part that begins at `start`."""
    return names(start + row)


def key_of(arrow: "pyarrow.Table", name: str) -> Callable[[], np.ndarray]:
    """The function that gives a column as the group of each row."""
    return partial(_key, arrow, name)


def _key(arrow: "pyarrow.Table", name: str) -> np.ndarray:
    import pyarrow
    from pyarrow import compute

    column = arrow.column(name).combine_chunks()
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return np.array(compute.fill_null(compute.cast(column, pyarrow.string()), "").to_pylist())


def _left_out(table: Table) -> tuple[str, ...]:
    """One line about the columns that are left out though the user did not ask for it, or none."""
    lost = [one for one in table.left_out if not one.wished]
    return (f"columns left out: {left_out(lost)}; --columns may give them a type",) if lost else ()


def _notes_of(table: Table, cells: Cells) -> tuple[str, ...]:
    """What a user should know about the values of categories."""
    notes: list[str] = []
    none: list[str] = []
    for column in table.columns:
        lower: dict[str, str] = {}
        for value in column.values:
            other = lower.setdefault(" ".join(value.lower().split()), value)
            if other != value:
                notes.append(f"column {column.name!r}: {other!r} and {value!r} are two values; should they be one?")
        if "none" in lower and decimal_of(cells.arrow):
            none.append(column.name)
    if none:
        notes.append(
            f"'none' is taken for a value in {listed(none)}; if it means a missing cell, give --columns with "
            f'{json.dumps(none[0])} = {{ missing = ["none"] }}'
        )
    return tuple(notes)


# ---------------------------------------------------------------------------------------------- typed columns


def array_cells(name: str, arrays: Mapping[str, np.ndarray]) -> Cells:
    """The cells of named arrays of one axis and one length, of which each is a column."""
    table_package(name)
    import pyarrow

    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        sizes = ", ".join(f"{key!r} {len(array)}" for key, array in list(arrays.items())[:4])
        raise InputError(f"{name}: its columns have several lengths ({sizes}, ...); give columns of one length")
    return Cells(name, pyarrow.table({key: _column(name, key, array) for key, array in arrays.items()}))


def _column(name: str, key: str, array: np.ndarray) -> "pyarrow.Array":
    import pyarrow

    if array.dtype.kind == "U":
        return pyarrow.array(array.tolist(), pyarrow.string())
    if array.dtype.kind == "c":
        raise InputError(f"{name}: column {key!r} holds {array.dtype}; expected real numbers, text or dates")
    return pyarrow.array(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))


def are_columns(arrays: Mapping[str, Any]) -> bool:
    """Whether named arrays are the columns of a table: at least two, each with one axis, none called x or data."""
    shapes = [getattr(array, "shape", ()) for array in arrays.values()]
    return len(shapes) > 1 and all(len(shape) == 1 for shape in shapes)


def matrix_cells(name: str, matrix: np.ndarray, beside: Mapping[str, np.ndarray] = NO_ARRAYS) -> Cells:
    """The cells of an array (N, D), whose columns are called x0, x1, ..., and of the arrays `beside`."""
    if matrix.ndim != 2:
        raise InputError(f"{name}: has shape {matrix.shape}; a table needs (N, D): reshape it, or leave --layout out")
    return array_cells(name, {f"x{place}": matrix[:, place] for place in range(matrix.shape[1])} | dict(beside))
