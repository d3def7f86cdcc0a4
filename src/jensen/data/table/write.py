"""Tables as files: CSV as the source was written, Parquet and Arrow."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jensen.data.table.cells import typed_cells
from jensen.data.table.column import Column, Table
from jensen.data.table.dates import texts_of
from jensen.data.table.datetimes import moments_of_typed
from jensen.data.table.numbers import Written, number_texts
from jensen.errors import InputError
from jensen.records import write_file

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".csv", ".tsv", ".parquet", ".arrow")


def write_table(arrow: "pyarrow.Table", path: Path, table: Table) -> None:
    """Write rows to a file, in the format of its ending.

    CSV has the delimiter, decimal sign, decimals, date formats and words for missing cells of the source. Columns that
    `table` does not know are written too. Raises InputError for another ending.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: a table is written to a file that ends in {', '.join(SUFFIXES)}; change the name")
    if suffix in (".csv", ".tsv"):
        write_file(path, csv_bytes(arrow, table, "\t" if suffix == ".tsv" else table.delimiter))
        return
    import pyarrow
    from pyarrow import parquet

    content = pyarrow.BufferOutputStream()
    if suffix == ".parquet":
        parquet.write_table(arrow, content)
    else:
        with pyarrow.ipc.new_file(content, arrow.schema) as writer:
            writer.write_table(arrow)
    write_file(path, content.getvalue().to_pybytes())


def csv_bytes(arrow: "pyarrow.Table", table: Table, delimiter: str | None = None) -> bytes:
    """The rows as CSV in UTF-8, as the source of `table` was written."""
    import pyarrow
    from pyarrow import compute

    delimiter = delimiter or table.delimiter
    columns = {column.name: column for column in table.columns}
    texts = [
        _quoted(text_of(name, arrow.column(name), columns.get(name), table.decimal), delimiter, arrow.num_columns == 1)
        for name in arrow.column_names
    ]
    lines = compute.binary_join_element_wise(*texts, delimiter) if len(texts) > 1 else texts[0]
    if table.header:
        names = _quoted(pyarrow.array(arrow.column_names, pyarrow.string()), delimiter, False)
        lines = pyarrow.concat_arrays([pyarrow.array([delimiter.join(names.to_pylist())]), lines])
    return "".join(f"{line}\n" for line in lines.to_pylist()).encode()


def text_of(name: str, column: "pyarrow.ChunkedArray", known: Column | None, decimal: str = ".") -> "pyarrow.Array":
    """The cells of a column as text, written as those of the source; `known` is None for a column of another source."""
    import pyarrow
    from pyarrow import compute

    cells = typed_cells(name, column)
    text = cells.text
    if cells.numbers is not None:
        form = Written.of(known) if known else Written(0 if cells.stored == "integer" else None)
        text = compute.if_else(pyarrow.array(cells.missing), None, number_texts(np.nan_to_num(cells.numbers), form))
        text = text if decimal == "." else compute.replace_substring(text, ".", decimal)
    elif cells.moments is not None:
        moments = moments_of_typed(cells.moments)
        clock = bool(moments.seconds[~cells.missing].any())
        usual = "%H:%M:%S" if cells.stored == "time" else "%Y-%m-%d %H:%M:%S" if clock else "%Y-%m-%d"
        form_of_dates = (known and known.format) or usual
        text = texts_of(moments.days, moments.seconds, form_of_dates)
    assert text is not None
    return compute.fill_null(text, known.blank if known else "")


def _quoted(texts: "pyarrow.Array", delimiter: str, alone: bool) -> "pyarrow.Array":
    """The texts, in quotes where they hold a delimiter, a quote, a new line or spaces at an end.

    The only column of a file has also empty texts in quotes, as an empty line is no row.
    """
    from pyarrow import compute

    special = compute.match_substring_regex(
        texts, rf'[\r\n"{_escaped(delimiter)}]|^[\s#]|\s$' + ("|^$" if alone else "")
    )
    if not compute.any(special).as_py():
        return texts
    inside = compute.binary_join_element_wise('"', compute.replace_substring(texts, '"', '""'), '"', "")
    return compute.if_else(special, inside, texts)


def _escaped(delimiter: str) -> str:
    return "\\t" if delimiter == "\t" else f"\\{delimiter}" if delimiter in "|" else delimiter
