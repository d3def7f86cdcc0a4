"""The cells of one column, as text or with a type: which are missing, and the values of the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jensen.data.table.column import Stored
from jensen.errors import InputError

if TYPE_CHECKING:
    import pyarrow

MISSING = ("", "na", "n/a", "nan", "nat", "null", "<na>", "#n/a", "?")
"""The words for a missing cell in any column, in lower case."""

MISSING_NUMBER = (*MISSING, "none", "-", "--", ".", "missing", "unknown")
"""The words for a missing cell in a column of numbers or dates, in lower case: elsewhere "none" may be a category."""

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
WITH_COMMA = r"^[+-]?(\d+,?\d*|,\d+)([eE][+-]?\d+)?$"
_CODE = r"^[+-]?0\d"  # 007 is a code, not the number 7
TEXT = b"jensen text"
"""The key in the metadata of a schema that marks a table from a text file, with the decimal sign as value."""
SHOWN = 40
"""The characters of a cell that a message shows."""

RowName = Callable[[int], str]


@dataclass(frozen=True)
class Cells:
    """The cells of a column (N,).

    One of `text` (an Arrow array of strings), `numbers` (float64) and `moments` (datetime64 of microseconds) holds the
    cells, with null, NaN or NaT where a cell is missing.
    """

    stored: Stored
    arrow: str | None = None
    text: "pyarrow.Array | None" = None
    numbers: np.ndarray | None = None
    moments: np.ndarray | None = None
    blank: str = ""
    """The usual text of a missing cell."""
    order: tuple[str, ...] | None = None
    """The categories of the source in their order, if the type of the column lists them."""
    ranked: bool = False
    """Whether the source says that the categories have an order."""

    @property
    def missing(self) -> np.ndarray:
        """Whether each cell is missing."""
        if self.text is not None:
            return self.text.is_null().to_numpy(zero_copy_only=False)
        if self.numbers is not None:
            return np.isnan(self.numbers)
        assert self.moments is not None
        return np.isnat(self.moments)


def text_cells(column: "pyarrow.ChunkedArray", words: Sequence[str] = MISSING) -> Cells:
    """The cells of a column of a CSV file: without spaces around them, and null where one of `words` stands."""
    import pyarrow
    from pyarrow import compute

    whole = compute.utf8_trim_whitespace(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
    lower = compute.utf8_lower(whole)
    missing = compute.fill_null(compute.is_in(lower, value_set=pyarrow.array([*words])), True)
    blanks = compute.filter(whole, missing)
    usual = "" if not len(blanks) else _most_frequent(blanks)
    if compute.any(missing).as_py():
        whole = compute.if_else(missing, pyarrow.scalar(None, whole.type), whole)
    return Cells("text", text=whole, blank=usual)


def _most_frequent(texts: "pyarrow.Array") -> str:
    counts = texts.drop_null().value_counts()
    if not len(counts):
        return ""
    place = int(np.argmax(counts.field("counts").to_numpy()))
    return counts.field("values")[place].as_py()


def typed_cells(name: str, column: "pyarrow.ChunkedArray") -> Cells:
    """The cells of a column with a type. Raises InputError for a type that has no cells, such as lists."""
    import pyarrow
    from pyarrow import compute, types

    whole = column.combine_chunks()
    kind, words = whole.type, str(whole.type)
    order, ranked = None, False
    if types.is_dictionary(kind) and not isinstance(kind.value_type, pyarrow.BaseExtensionType | pyarrow.StructType):
        ranked = kind.ordered
        if str(kind.value_type) == "string_view":  # of polars; Arrow has few functions for it
            values = compute.cast(whole.dictionary, pyarrow.string())
            whole = pyarrow.DictionaryArray.from_arrays(whole.indices, values)
        order, whole = _categories(whole), whole.dictionary_decode()
        kind = whole.type
        words = f"dictionary<{kind}{', ordered' if ranked else ''}>"
    if types.is_null(kind):
        return Cells("text", words, text=pyarrow.nulls(len(whole), pyarrow.string()))
    if types.is_boolean(kind):
        return Cells("boolean", words, text=compute.cast(whole, pyarrow.string()))
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        stored: Stored = "integer" if types.is_integer(kind) else "float"
        if order is not None:  # categories that are numbers
            return Cells(stored, words, text=compute.cast(whole, pyarrow.string()), order=order, ranked=ranked)
        numbers = compute.cast(whole, pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        return Cells(stored, words, numbers=np.array(numbers, np.float64))
    if types.is_date(kind) or types.is_timestamp(kind):
        moments = compute.cast(whole, pyarrow.timestamp("us", getattr(kind, "tz", None)), safe=False)
        moments = moments.to_numpy(zero_copy_only=False).astype("datetime64[us]")
        return Cells("date" if types.is_date(kind) else "timestamp", words, moments=moments)
    if types.is_time(kind):
        micros = compute.cast(compute.cast(whole, pyarrow.time64("us"), safe=False), pyarrow.int64())
        moments = compute.cast(micros, pyarrow.timestamp("us")).to_numpy(zero_copy_only=False)
        return Cells("time", words, moments=moments.astype("datetime64[us]"))
    if types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view":
        text = compute.cast(whole, pyarrow.string())
        return Cells("text", words, text=text, order=order, ranked=ranked)
    raise InputError(
        f"column {name!r} has cells of the type {words}; expected numbers, text, booleans or dates: convert it, or "
        "leave the column out"
    )


def _categories(whole: "pyarrow.DictionaryArray") -> tuple[str, ...]:
    import pyarrow
    from pyarrow import compute

    return tuple(compute.cast(whole.dictionary, pyarrow.string()).to_pylist())


def is_number(text: "pyarrow.Array", decimal: str = ".") -> "pyarrow.Array":
    """Whether each text is a number; null where the text is null. Digits after a leading 0, as in 007, are a code."""
    from pyarrow import compute

    number = compute.match_substring_regex(text, WITH_COMMA if decimal == "," else NUMBER)
    return compute.and_not(number, compute.match_substring_regex(text, _CODE))


def quick_numbers(text: "pyarrow.Array") -> np.ndarray | None:
    """The texts as float64 if all of them are plain finite numbers; None where a closer look is needed."""
    import pyarrow
    from pyarrow import compute

    try:
        found = compute.cast(text, pyarrow.float64())
    except pyarrow.ArrowInvalid:
        return None
    numbers = np.array(found.to_numpy(zero_copy_only=False), np.float64)
    odd = text.null_count == len(text) or np.isinf(numbers).any() or np.isnan(numbers).sum() > text.null_count
    return None if odd or compute.any(compute.match_substring_regex(text, _CODE)).as_py() else numbers


def numbers_of(text: "pyarrow.Array", decimal: str = ".") -> np.ndarray:
    """The texts as float64, NaN where the text is null; the texts must be numbers."""
    import pyarrow
    from pyarrow import compute

    if decimal == ",":
        text = compute.replace_substring(text, ",", ".")
    if compute.any(compute.starts_with(text, "+")).as_py():
        text = compute.replace_substring_regex(text, r"^\+", "")
    found = compute.cast(text, pyarrow.float64())
    return np.array(found.to_numpy(zero_copy_only=False), np.float64)


def refuse_infinite(name: str, numbers: np.ndarray, row_name: RowName) -> None:
    """Raises InputError if a number is infinite."""
    if np.isinf(numbers).any():
        row = int(np.isinf(numbers).argmax())
        raise InputError(f"{row_name(row)}, column {name!r}: holds an infinite number; replace it or empty the cell")


def decimal_of(arrow: "pyarrow.Table") -> str | None:
    """The decimal sign of a table from a text file, in which words such as NA mean a missing cell; None for others."""
    sign = (arrow.schema.metadata or {}).get(TEXT)
    return None if sign is None else sign.decode()


def shown(cell: object) -> str:
    """A cell as a message shows it, cut to some characters.

    >>> shown("a" * 50)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'..."
    """
    text = str(cell)
    return f"{text[:SHOWN]!r}{'...' if len(text) > SHOWN else ''}"
