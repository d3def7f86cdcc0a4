"""The files that a command may write for the data of a run. Imports no torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from jensen.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jensen.data.spec import DataSpec
    from jensen.data.table.column import Table

TABLES = (".csv", ".tsv", ".parquet", ".arrow")
"""The endings of tables."""


def save_as_table(out: Path, table: "Table", columns: "Mapping[str, Sequence[object]]") -> None:
    """Write columns in the format of the ending of `out`, CSV with the delimiter and decimal sign of `table`.

    A number that is NaN becomes an empty cell.
    """
    import pyarrow

    from jensen.data.table.write import write_table

    out.parent.mkdir(parents=True, exist_ok=True)
    plain = pyarrow.table({name: pyarrow.array(cells, from_pandas=True) for name, cells in columns.items()})
    write_table(plain, out, table.model_copy(update={"columns": (), "header": True}))


def refuse_table(spec: "DataSpec", verb: str, instead: str) -> None:
    """Raises `InputError` for a run on a table, which the verb cannot treat; `instead` is what to do."""
    if spec.table is not None:
        raise InputError(f"{verb}: the run was trained on a table, and {verb} is for examples of one kind; {instead}")


def refuse_other_file(out: Path, spec: "DataSpec", *others: str) -> None:
    """Raises `InputError` unless `out` is a table for a run on a table, or no table for any other run.

    If there are `others`, a file for any other run must end in one of them.
    """
    suffix = out.suffix.lower()
    if spec.table is not None and suffix not in TABLES:
        raise InputError(f"--out {out}: the run was trained on a table; give a file that ends in {', '.join(TABLES)}")
    if spec.table is None and (suffix not in others if others else suffix in TABLES):
        named = " or ".join(other or "a folder" for other in others or ("",))
        raise InputError(f"--out {out}: expected {named}, as the run was not trained on a table; change its ending")
