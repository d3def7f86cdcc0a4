"""The rows of a table behind the examples of a verb: their cells in the source, and the key of each row."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    from jensen.data.examples import Names
    from jensen.data.table.column import Table
    from jensen.run import Run


def source_rows(run: "Run", data: Any, names: "Names") -> "tuple[pyarrow.Table, Table]":
    """The rows of the source in which the examples with these names stand, and the run's table in the source's form.

    The rows have all columns of the source. `data` is the source, or None for the run's own data.
    """
    from jensen.data.readers.read import read_cells

    table = run.spec.table
    assert table is not None
    own = run.spec.source if run.data is None else run.data
    cells = read_cells(own if data is None else data, table.header)
    if cells.form is not None:
        form = {name: getattr(cells.form, name) for name in ("delimiter", "decimal", "header")}
        table = table.model_copy(update=form)
    return _plain(cells.arrow).take(names.rows.numpy()), table


def _plain(arrow: "pyarrow.Table") -> "pyarrow.Table":
    """The same table with texts of polars, of which Arrow can take no rows, as plain texts."""
    import pyarrow
    from pyarrow import compute

    for place, name in enumerate(arrow.column_names):
        column = arrow.column(place).combine_chunks()
        if "string_view" not in str(column.type):
            continue
        if pyarrow.types.is_dictionary(column.type):
            values = compute.cast(column.dictionary, pyarrow.string())
            column = pyarrow.DictionaryArray.from_arrays(column.indices, values, ordered=column.type.ordered)
        else:
            column = compute.cast(column, pyarrow.string())
        arrow = arrow.set_column(place, name, column)
    return arrow


def keys(run: "Run", data: Any, names: "Names") -> list[str]:
    """The key of each example: of a table its cell in the first column of identifiers, otherwise its name."""
    table = run.spec.table
    known = [] if table is None else [one.name for one in table.left_out if one.identifier]
    if known:
        arrow, _ = source_rows(run, data, names)
        if known[0] in arrow.column_names:
            return [str(cell) for cell in arrow.column(known[0]).to_pylist()]
    return list(names)


def shown_cells(matrix: "np.ndarray", table: "Table") -> list[list[str]]:
    """The cells of rows (N, fields) as text, a list for each row; an empty text is a missing cell."""
    from jensen.data.table.matrix import decode
    from jensen.data.table.write import text_of

    arrow = decode(matrix, table, as_read=True)
    columns = [
        text_of(column.name, arrow.column(column.name), column, table.decimal).to_pylist() for column in table.columns
    ]
    return [list(row) for row in zip(*columns, strict=True)]
