"""From an Arrow table to the matrix that a model sees, and back: float64 (N, D), NaN missing."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from jensen.data.table.cells import (
    MISSING,
    MISSING_NUMBER,
    Cells,
    RowName,
    decimal_of,
    is_number,
    numbers_of,
    refuse_infinite,
    shown,
    text_cells,
    typed_cells,
)
from jensen.data.table.column import Column, Field, Table
from jensen.data.table.dates import Moments, moments_of
from jensen.data.table.datetimes import DAY, moments_of_typed
from jensen.data.table.datetimes import decoded as decoded_moments
from jensen.data.table.datetimes import encoded as encoded_moments
from jensen.data.table.numbers import MOST_DECIMALS, rounded
from jensen.errors import InputError

if TYPE_CHECKING:
    import pyarrow


FORMS = {"date": "%Y-%m-%d", "time": "%H:%M:%S"}
"""The formats of text for columns of sources with types."""
NAMED = 3
"""The most rows that a note names."""
NOTHING: Mapping[str, Cells] = {}


def _row(row: int) -> str:
    return f"row {row}"


def encode(arrow: "pyarrow.Table", table: Table, row_name: RowName = _row) -> np.ndarray:
    """The matrix (N, D) of the rows of `arrow`, which may have further columns, in any order.

    Raises InputError for a column that is not there, and for a cell that the table does not know.
    """
    return encode_with_notes(arrow, table, row_name)[0]


def encode_with_notes(
    arrow: "pyarrow.Table", table: Table, row_name: RowName = _row, known: Mapping[str, Cells] = NOTHING
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The matrix as by `encode`, and a note for each column with cells beyond its range or between its steps.

    `known` are the cells of columns that were read before.
    """
    names = arrow.column_names
    absent = [column.name for column in table.columns if column.name not in names]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InputError(
            f"there is no column {absent[0]!r}{more}, which the run was trained on; add it, with empty cells if unknown"
        )
    matrix = np.empty((arrow.num_rows, len(table.fields)))
    notes: list[str] = []
    decimal = decimal_of(arrow) or table.decimal
    for column, places in zip(table.columns, table.places(), strict=True):
        fields = tuple(table.fields[place] for place in places)
        cells = known[column.name] if column.name in known else cells_of(column, arrow)
        matrix[:, list(places)] = _encoded(column, fields, cells, decimal, row_name, notes)
    return matrix, tuple(notes)


def _encoded(
    column: Column, fields: tuple[Field, ...], cells: Cells, decimal: str, row_name: RowName, notes: list[str]
) -> np.ndarray:
    """The fields of one column, (N, fields)."""
    raw = _unlimited(column, fields, cells, decimal, row_name, notes)
    for place, field in enumerate(fields):
        if field.law != "real":
            raw[:, place] = _on_grid(raw[:, place], field, row_name, notes)
    return raw


def _unlimited(
    column: Column, fields: tuple[Field, ...], cells: Cells, decimal: str, row_name: RowName, notes: list[str]
) -> np.ndarray:
    """The fields of one column, (N, fields), before they are limited to their grids and ranges."""
    if column.type == "datetime":
        return encoded_moments(_moments(column, cells, row_name), column, fields)
    if column.values and column.stored not in ("integer", "float"):
        return _codes(column, cells, row_name)[:, None]
    numbers = _numbers(column, cells, decimal, row_name)
    if column.values:
        return _codes_of_numbers(column, numbers, row_name, notes)[:, None]
    whole = column.type in ("integer", "count") and fields[0].law != "real"
    return ((numbers - column.low) / column.step if whole else numbers)[:, None]


def beyond_range(arrow: "pyarrow.Table", table: Table) -> dict[str, np.ndarray]:
    """The rows (N,), bool, whose cell counts as an end of the range of the training rows, by column if there are any.

    The cells must be such that `encode` takes them.
    """
    found: dict[str, np.ndarray] = {}
    decimal = decimal_of(arrow) or table.decimal
    for column, places in zip(table.columns, table.places(), strict=True):
        if column.values and (column.type != "ordinal" or column.stored not in ("integer", "float")):
            continue
        fields, cells = tuple(table.fields[place] for place in places), cells_of(column, arrow)
        if column.values:
            numbers, values = _numbers(column, cells, decimal, _row), [float(value) for value in column.values]
            beyond = np.array((numbers < min(values)) | (numbers > max(values)))
        else:
            raw = _unlimited(column, fields, cells, decimal, _row, [])
            beyond = np.array(np.stack([_beyond(raw[:, place], field) for place, field in enumerate(fields)]).any(0))
        if beyond.any():
            found[column.name] = beyond
    return found


def _beyond(raw: np.ndarray, field: Field) -> np.ndarray:
    """Whether numbers (N,) lie beyond the range of a field; one that is missing does not, nor one of a real field."""
    if field.law == "real":
        return np.zeros(len(raw), bool)
    whole = np.rint(raw)
    return np.array((whole < 0) | (whole > (np.inf if field.levels is None else field.levels - 1)))


def cells_of(column: Column, arrow: "pyarrow.Table") -> Cells:
    """The cells of a known column in new data, which are text if `arrow` is from a text file."""
    cells = arrow.column(column.name)
    if decimal_of(arrow) is None:
        return typed_cells(column.name, cells)
    numeric = column.stored in ("integer", "float") or column.type == "datetime"
    return text_cells(cells, (*(MISSING_NUMBER if numeric else MISSING), *map(str.lower, column.missing_words)))


def typed_column(column: Column, arrow: "pyarrow.Table", decimal: str) -> "pyarrow.Array":
    """The cells of a known column of a text file with the column's type, also those beyond the range of training."""
    cells = cells_of(column, arrow)
    if column.type == "datetime":
        return _dates(_moments(column, cells, _row), column)
    if column.stored in ("integer", "float"):
        return typed_array(_numbers(column, cells, decimal, _row), column)
    if column.stored == "boolean":
        return _texts(_codes(column, cells, _row), column)
    assert cells.text is not None
    return cells.text


def _on_grid(values: np.ndarray, field: Field, row_name: RowName, notes: list[str]) -> np.ndarray:
    """Whole numbers within the range of a field, and a note if some were changed."""
    whole = np.rint(values)
    between = np.abs(whole - values) > 1e-6 * np.maximum(1, np.abs(whole))
    for which, what in ((_beyond(values, field), "lie beyond the range of the training rows, and count as its ends"),
                       (between, "lie between the steps of the training rows, and are rounded")):  # fmt: skip
        if which.any():
            notes.append(f"column {field.name!r}: {_counted(which, row_name)} {what}")
    return np.clip(whole, 0, None if field.levels is None else field.levels - 1)


def _counted(which: np.ndarray, row_name: RowName) -> str:
    """How many cells are among those of `which` (N,), bool, with the names of the first three rows."""
    rows = np.flatnonzero(which).tolist()
    first = ", ".join(map(row_name, rows[:NAMED])) + (", ..." if len(rows) > NAMED else "")
    return f"{len(rows):,} of {len(which):,} cells ({first})"


# ---------------------------------------------------------------------------------------------- cells of new data


def _numbers(column: Column, cells: Cells, decimal: str, row_name: RowName) -> np.ndarray:
    """The numbers of a column. Raises InputError for a cell that is none."""
    from pyarrow import compute

    numbers = cells.numbers
    if numbers is None and cells.text is not None:
        wrong = compute.invert(is_number(cells.text, decimal))
        if compute.any(wrong).as_py():
            _refuse_cell(column, cells.text, cells.text.filter(wrong)[0], "a number", row_name)
        numbers = numbers_of(cells.text, decimal)
    if numbers is None:
        raise InputError(f"column {column.name!r}: holds dates, but the run was trained on numbers; convert them")
    refuse_infinite(column.name, numbers, row_name)
    return numbers


def _codes(column: Column, cells: Cells, row_name: RowName) -> np.ndarray:
    """The codes of a column of texts. Raises InputError for a value that the training rows do not have."""
    import pyarrow
    from pyarrow import compute

    text = cells.text
    if text is None:
        raise InputError(f"column {column.name!r}: holds {cells.arrow}, but the run was trained on text; convert it")
    if column.stored == "boolean":
        text = compute.utf8_lower(text)
    codes = compute.index_in(text, value_set=pyarrow.array(column.values), skip_nulls=True)
    unknown = compute.and_(codes.is_null(), text.is_valid())
    if compute.any(unknown).as_py():
        first = text.filter(unknown)[0]
        _refuse_value(column, shown(first), row_name(compute.index(text, first).as_py()))
    return np.array(compute.cast(codes, pyarrow.float64()).to_numpy(zero_copy_only=False))


def _codes_of_numbers(column: Column, numbers: np.ndarray, row_name: RowName, notes: list[str]) -> np.ndarray:
    """The codes of numbers: a number of an ordinal column that is none of its values becomes the nearest of them."""
    values = np.array([float(value) for value in column.values])
    order = np.argsort(values)
    values = values[order]
    right = np.searchsorted(values, numbers).clip(0, len(values) - 1)
    left = (right - 1).clip(0)
    nearest = np.where(np.abs(values[left] - numbers) < np.abs(values[right] - numbers), left, right)
    other = ~np.isnan(numbers) & (np.abs(values[nearest] - numbers) > 1e-9 * np.maximum(1.0, np.abs(numbers)))
    if other.any() and column.type != "ordinal":
        row = int(other.argmax())
        _refuse_value(column, f"{numbers[row]:.12g}", row_name(row))
    if other.any():
        notes.append(
            f"column {column.name!r}: {_counted(other, row_name)} are none of the numbers of the "
            "training rows, and count as the nearest of them"
        )
    return np.where(np.isnan(numbers), np.nan, order[nearest])


def _moments(column: Column, cells: Cells, row_name: RowName) -> Moments:
    """The moments of a column. Raises InputError for a cell that is no date of its format."""
    if cells.moments is not None:
        return moments_of_typed(cells.moments)
    form = column.format or FORMS.get(column.stored, "%Y-%m-%d %H:%M:%S")
    if cells.text is None:
        raise InputError(f"column {column.name!r}: holds numbers, but the run was trained on dates; convert them")
    found = moments_of(cells.text, form)
    wrong = np.isnan(found.days) & cells.text.is_valid().to_numpy(zero_copy_only=False)
    if wrong.any():
        _refuse_cell(column, cells.text, cells.text[int(wrong.argmax())], f"a date of the format {form}", row_name)
    return found


def _refuse_cell(column: Column, text: "pyarrow.Array", cell: object, expected: str, row_name: RowName) -> NoReturn:
    from pyarrow import compute

    row = row_name(compute.index(text, cell).as_py())
    raise InputError(
        f"{row}, column {column.name!r}: holds {shown(cell)}, expected {expected}; correct it or empty the cell"
    )


def _refuse_value(column: Column, cell: str, row: str) -> NoReturn:
    known = ", ".join(column.values[:10]) + (", ..." if len(column.values) > 10 else "")
    raise InputError(
        f"{row}, column {column.name!r}: holds {cell}, which no training row has; expected one of {known}: correct it "
        "or empty the cell"
    )


# ---------------------------------------------------------------------------------------------- back to cells


def decode(matrix: np.ndarray, table: Table, *, as_read: bool = False) -> "pyarrow.Table":
    """The rows of a matrix (N, D), as an Arrow table with the columns of the source that are modelled.

    A source with types gets its own types back. The columns of a CSV file become integers, floats, text, dates or
    timestamps. A number below 0 in a column without negative cells becomes the least number from 0 on, unless the
    matrix is `as_read` from cells. The inverse of `encode` for values within the ranges of the fields.
    """
    import pyarrow

    matrix = np.asarray(matrix, np.float64)
    arrays = []
    for column, places in zip(table.columns, table.places(), strict=True):
        fields = tuple(table.fields[place] for place in places)
        column = column.model_copy(update={"nonnegative": False}) if as_read else column
        arrays.append(_decoded(matrix[:, list(places)], column, fields))
    return pyarrow.table(arrays, names=[column.name for column in table.columns])


def _decoded(matrix: np.ndarray, column: Column, fields: tuple[Field, ...]) -> "pyarrow.Array":
    if column.type == "datetime":
        return _dates(decoded_moments(matrix, column, fields), column)
    values, law = matrix[:, 0], fields[0].law
    if column.values:
        values = np.clip(np.rint(values), 0, len(column.values) - 1)
        if column.stored not in ("integer", "float"):
            return _texts(values, column)
        numbers = np.array([float(value) for value in column.values])
        return typed_array(np.where(np.isnan(values), np.nan, numbers[np.nan_to_num(values).astype(int)]), column)
    if column.type in ("integer", "count"):
        k = np.rint((values - column.low) / column.step if law == "real" else values)
        values = _multiple(column, np.maximum(k, -np.floor(column.low / column.step)) if column.nonnegative else k)
    else:
        values = np.maximum(values, 0) if column.nonnegative else values
        values = values if column.decimals is None else rounded(values, column.decimals)
    return typed_array(values, column)


def _multiple(column: Column, k: np.ndarray) -> np.ndarray:
    """low + step k, rounded to the decimals of the step so that 0.1 * 3 is 0.3."""
    decimals = next((decimals for decimals in range(MOST_DECIMALS + 1) if _whole(column, 10.0**decimals)), None)
    found = column.low + column.step * k
    return found if decimals is None else rounded(found, decimals)


def _whole(column: Column, scale: float) -> bool:
    return all(abs(number * scale - round(number * scale)) < 1e-6 for number in (column.low, column.step))


def typed_array(numbers: np.ndarray, column: Column) -> "pyarrow.Array":
    """Numbers (NaN: missing) as cells of the column's type."""
    import pyarrow
    from pyarrow import compute

    kind = arrow_type(column)
    missing = np.isnan(numbers)
    if column.stored == "integer":
        ends = np.iinfo(kind.to_pandas_dtype())
        above = np.nextafter(float(ends.max), 0.0) if ends.max >= 2**53 else float(ends.max)
        numbers = np.clip(np.rint(np.where(missing, 0, numbers)), float(ends.min), above)
    found = compute.cast(pyarrow.array(numbers, mask=missing), kind, safe=False)
    return found.dictionary_encode() if (column.arrow or "").startswith("dictionary") else found


def _texts(codes: np.ndarray, column: Column) -> "pyarrow.Array":
    import pyarrow
    from pyarrow import compute

    missing = np.isnan(codes)
    places = pyarrow.array(np.where(missing, 0, codes).astype(np.int32), mask=missing)
    if column.stored == "boolean":
        return compute.cast(pyarrow.array(column.values).take(places), pyarrow.bool_())
    values = pyarrow.array(column.values, pyarrow.string())
    if column.arrow is not None and column.arrow.startswith("dictionary"):
        return pyarrow.DictionaryArray.from_arrays(places, values, ordered=", ordered" in column.arrow)
    return compute.cast(values.take(places), arrow_type(column))


def _dates(moments: Moments, column: Column) -> "pyarrow.Array":
    import pyarrow
    from pyarrow import compute

    missing = np.isnan(moments.days)
    micros = np.where(missing, 0, moments.days) * (DAY * 1e6) + np.rint(np.where(missing, 0, moments.seconds) * 1e6)
    kind = arrow_type(column)
    if column.stored == "time":
        return compute.cast(
            pyarrow.array(micros.astype(np.int64), pyarrow.time64("us"), mask=missing), kind, safe=False
        )
    plain = pyarrow.array(micros.astype(np.int64), pyarrow.timestamp("us"), mask=missing)
    if getattr(kind, "tz", None):
        plain = compute.cast(plain, pyarrow.timestamp("us", "UTC"))
    return compute.cast(plain, kind, safe=False)


def arrow_type(column: Column) -> "pyarrow.DataType":
    """The Arrow type of the column's cells."""
    import pyarrow

    if column.arrow is None:
        return {
            "float": pyarrow.float64(), "integer": pyarrow.int64(), "boolean": pyarrow.bool_(),
            "text": pyarrow.string(), "date": pyarrow.date32(), "timestamp": pyarrow.timestamp("us"),
            "time": pyarrow.time64("us"),
        }[column.stored]  # fmt: skip
    words = column.arrow
    if found := re.fullmatch(r"dictionary<(.*?)(, ordered)?>", words):
        words = found[1]
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.*)\]", words):
        return pyarrow.timestamp(found[1], found[2])
    if found := re.fullmatch(r"decimal(\d+)\((\d+), (-?\d+)\)", words):
        return getattr(pyarrow, f"decimal{found[1]}")(int(found[2]), int(found[3]))
    return pyarrow.type_for_alias({"double": "float64", "float": "float32", "halffloat": "float16"}.get(words, words))
