"""DataFrames as Arrow tables and back: pandas, polars, pyarrow and any other with Arrow's own interface."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jensen.errors import InputError

if TYPE_CHECKING:
    import pyarrow


@runtime_checkable
class Frame(Protocol):
    """A DataFrame: any object that gives its columns by the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The columns, as Arrow streams them."""


def is_frame(given: object) -> bool:
    """Whether an object is a DataFrame or a table with named columns."""
    return isinstance(given, Frame) and (hasattr(given, "columns") or hasattr(given, "schema"))


def to_arrow(frame: Any) -> "pyarrow.Table":
    """The columns of a DataFrame as an Arrow table; the index of pandas is left out.

    Raises InputError for columns of Python objects of several types.
    """
    import pyarrow

    if isinstance(frame, pyarrow.Table):
        return frame
    names = [str(name) for name in getattr(frame, "columns", ())]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise InputError(f"the DataFrame has two columns {twice[0]!r}; rename one")
    try:
        if type(frame).__module__.split(".")[0] == "pandas":
            frame = frame.set_axis(names, axis=1)
            return pyarrow.Table.from_pandas(frame, preserve_index=False)
        return pyarrow.table(frame)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        reason = " ".join(" ".join(map(str, error.args)).split())[:200]
        raise InputError(
            f"the DataFrame has a column whose cells cannot be read ({reason}); give each column one type, of numbers, "
            "text, booleans or dates"
        ) from error


def like(arrow: "pyarrow.Table", frame: Any, *, same_rows: bool = False) -> Any:
    """An Arrow table as a DataFrame of the library of `frame`, with the types of its columns of the same names.

    Text becomes booleans if all of it is true or false; other text stays text. With `same_rows` the rows are those of
    `frame`, so a DataFrame of pandas with as many rows gets its index.
    """
    library = type(frame).__module__.split(".")[0]
    if library == "pandas":
        from pandas.api.types import is_bool_dtype

        arrow = _with_booleans(arrow, {str(name) for name, kind in frame.dtypes.items() if is_bool_dtype(kind)})
        found = arrow.to_pandas()
        if same_rows and len(found) == len(frame):
            found.index = frame.index
        known = {str(name): kind for name, kind in frame.dtypes.items()}
        kinds = {name: kind for name, kind in known.items() if name in found and _fits(found[name], kind)}
        objects = [name for name, kind in kinds.items() if str(kind) == "category"]
        return found.astype(dict.fromkeys(objects, object)).astype(kinds)  # else categories keep their own order
    if library == "polars":
        import polars

        booleans = {name for name, kind in frame.schema.items() if kind == polars.Boolean}
        columns = polars.DataFrame(_with_booleans(arrow, booleans))
        words = {name for name, kind in columns.schema.items() if kind == polars.String}
        kinds = {name: kind for name, kind in frame.schema.items() if name in columns.columns}
        return columns.cast({name: kind for name, kind in kinds.items() if name not in booleans & words})
    return arrow


def _with_booleans(arrow: "pyarrow.Table", names: set[str]) -> "pyarrow.Table":
    """The table with the columns `names` as booleans, of text only those that hold true and false.

    NumPy takes every text that is not empty, "false" as well, for true.
    """
    import pyarrow

    for place, name in enumerate(arrow.column_names):
        if name not in names or not pyarrow.types.is_string(arrow.schema.field(place).type):
            continue
        try:
            arrow = arrow.set_column(place, name, arrow.column(place).cast(pyarrow.bool_()))
        except pyarrow.ArrowInvalid:
            continue
    return arrow


def _fits(column: Any, kind: Any) -> bool:
    """Whether a column can have a type of pandas: integers and booleans of NumPy have no gaps, text no truth."""
    from pandas.api.types import is_bool_dtype

    if getattr(kind, "char", None) is not None and kind.kind in "iub" and bool(column.isna().any()):
        return False
    return not (is_bool_dtype(kind) and any(isinstance(cell, str) for cell in column))
