"""DataFrames with columns of several types: how an estimator tells, checks and returns them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jensen.data.readers.tables import table_package
from jensen.data.table.frames import is_frame, to_arrow

if TYPE_CHECKING:
    import pyarrow

TARGET = "target"
"""The name of the column of y in a table of x and y."""

NUMBERS = ("bool", "int", "uint", "halffloat", "float", "double", "decimal")
"""The beginnings of Arrow's names of types of numbers."""


def is_mixed(X: Any) -> bool:
    """Whether X is a DataFrame with a column that does not hold numbers, so that X is no matrix."""
    if not is_frame(X):
        return False
    library = library_of(X)
    if library == "pandas":
        return not all(kind.kind in "biuf" for kind in X.dtypes)
    if library == "polars":
        return not all(kind.is_numeric() or str(kind) == "Boolean" for kind in X.dtypes)
    return not all(str(kind).startswith(NUMBERS) for kind in X.schema.types)


def library_of(X: Any) -> str:
    """The package of a DataFrame: pandas, polars or pyarrow."""
    return type(X).__module__.partition(".")[0]


def as_frame(arrow: "pyarrow.Table", library: str) -> Any:
    """An Arrow table as a DataFrame of a library."""
    if library == "pandas":
        return arrow.to_pandas()
    if library == "polars":
        import polars

        return polars.DataFrame(arrow)
    return arrow


def with_target(X: Any, y: np.ndarray | None, kind: str) -> "pyarrow.Table":
    """The rows of X with a last column of y, which is empty if y is None; its cells have the Arrow type `kind`."""
    import pyarrow

    arrow = arrow_of(X)
    cells = pyarrow.nulls(len(arrow), kind) if y is None else pyarrow.array(y.tolist(), kind)
    return arrow.append_column(target_name(arrow.column_names), cells)


def arrow_of(X: Any) -> "pyarrow.Table":
    """The rows of X as an Arrow table. Raises `InputError` without the package pyarrow."""
    table_package("X")
    return to_arrow(X)


def target_name(names: list[str]) -> str:
    """A name for the column of y that no column of x has."""
    name = TARGET
    while name in names:
        name += "_"
    return name
