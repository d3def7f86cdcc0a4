"""Text files of cells, CSV and TSV, as Arrow tables of text, and the form in which they are written."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from jensen.data.table.cells import MISSING_NUMBER, NUMBER, TEXT, RowName
from jensen.data.table.characters import BLOCK, MARK, Raw, count, lines, utf8_bytes
from jensen.data.table.infer import TextForm
from jensen.data.table.on_disk import columns_on_disk
from jensen.errors import InputError

if TYPE_CHECKING:
    import pyarrow

DELIMITERS = "\t;|, "
"""In this order, as numbers may hold commas and names may hold spaces."""
SAMPLE = 200
"""The rows by which delimiter, decimal sign and header are found."""
HEAD = 1 << 18
"""The first bytes by which the delimiter is found."""

_NUMBER = re.compile(NUMBER)
_WITH_COMMA = re.compile(r"^[+-]?\d*,\d+$")
_WITH_POINT = re.compile(r"^[+-]?\d*\.\d+([eE][+-]?\d+)?$")
_THOUSANDS = {".": r"^[+-]?\d{1,3}(,\d{3})*(\.\d+)?$", ",": r"^[+-]?\d{1,3}(\.\d{3})*(,\d+)?$"}
"""Numbers with a sign between thousands, by their decimal sign."""


@dataclass(frozen=True)
class TextTable:
    """A text file of cells: an Arrow table of text, its form, and notes about how it was read."""

    arrow: "pyarrow.Table"
    form: TextForm
    notes: tuple[str, ...]
    row_name: RowName
    """The name of a row, counted as a spreadsheet counts: the first row of the file is row 1."""


@dataclass(frozen=True)
class _Body:
    """The text below comments, and how it is divided."""

    path: Path
    raw: Raw
    start: int
    """The place of the first row in `raw`."""
    skipped: int
    """The number of lines above."""
    delimiter: str = ","

    @property
    def quoted(self) -> bool:
        """Whether there are quotes, so that a cell may hold delimiters and new lines."""
        return self.raw.find(b'"', self.start) >= 0

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """The number in the file and the cells of each row that is not blank. Raises InputError."""
        spaces = self.delimiter == " "
        reader = csv.reader(lines(self.raw, self.start), delimiter=self.delimiter, skipinitialspace=spaces)
        number = self.skipped
        while True:
            number += 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(f"{self.path}: row {number} is not sound CSV ({error}); write it again") from error
            if cells:
                yield number, cells


def read_text(path: Path, header: bool | None = None, on_disk: bool = False) -> TextTable:
    """The cells of a CSV or TSV file, whose first row has the names of the columns if `header`; None: by the cells.

    With `on_disk`, the cells are in a temporary file and not in memory. Raises InputError, with the row, for a file
    that is none.
    """
    notes: list[str] = []
    raw = utf8_bytes(path, notes, mapped=on_disk)
    start, skipped, given = _preface(raw, notes)
    if not re.compile(rb"[^\r\n\t ,;|]").search(raw, start):
        raise InputError(f"{path}: holds no cells; expected a row with the names of the columns, and rows of cells")
    delimiter = given or _delimiter(raw[start : start + HEAD].decode(errors="ignore"), len(raw) <= start + HEAD)
    body = _Body(path, raw, start, skipped, delimiter)
    if delimiter == " " and not body.quoted:  # columns aligned by several spaces
        even = re.sub(rb"(?m)^ +| +$", b"", re.sub(rb"[ \t]+", b" ", raw[start:]))
        body = _Body(path, even, 0, skipped, " ")
    first = [cells for _, cells in islice(body.records(), SAMPLE)]
    header = _has_header(first) if header is None else header
    _refuse_preface(body, first)
    _refuse_open_quote(body)
    if header and len(first) == 1:  # before pyarrow, whose threads may abort the process when no rows follow
        raise InputError(f"{path}: holds one row, the names of columns; expected rows of cells below")
    names = _names(first, header, notes)
    arrow = _parsed(body, names, header, on_disk)
    decimal = _decimal(arrow, delimiter)
    arrow = _without_thousands(arrow, decimal, notes).replace_schema_metadata({TEXT: decimal.encode()})
    form = TextForm(delimiter, decimal, header)
    return TextTable(arrow, form, tuple(notes), _row_names(body, header, arrow.num_rows))


# ---------------------------------------------------------------------------------------------- delimiter


def _preface(raw: Raw, notes: list[str]) -> tuple[int, int, str | None]:
    """The place of the first row, the number of lines above it, and the delimiter that a line `sep=;` gives."""
    start = len(MARK) if raw[: len(MARK)] == MARK else 0
    skipped, comments, given = 0, 0, None
    while start < len(raw):
        end = raw.find(b"\n", start) + 1 or len(raw)
        line = raw[start : min(end, start + HEAD)].strip(b"\r\n")
        separator = re.fullmatch(rb"sep=([\x20-\x7e\t])", line)
        if separator:
            given = separator[1].decode()
        elif line.startswith((b"# ", b"##")) or line == b"#":
            comments += 1
        elif line.strip():
            break
        start, skipped = end, skipped + 1
    if comments:
        notes.append(f"{comments} line{'s' if comments > 1 else ''} at the top that begin with # are passed over")
    return start, skipped, given


def _delimiter(sample: str, whole: bool) -> str:
    """The delimiter that divides the first rows into the same number of cells, or into nearly the same.

    `sample` is the beginning of the file, or all of it if `whole`.
    """
    best, best_share = ",", 0.0
    for delimiter in DELIMITERS:
        if delimiter not in sample:
            continue
        try:
            reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, skipinitialspace=delimiter == " ")
            widths = [len(cells) for cells in islice(reader, SAMPLE) if cells]
        except csv.Error:
            continue
        widths = widths if whole else widths[:-1] or widths
        most = max(set(widths), key=widths.count)
        share = widths.count(most) / len(widths) if most > 1 else 0.0
        if delimiter == " " and share < 1:
            continue
        if share > best_share:
            best, best_share = delimiter, share
    return best


# ---------------------------------------------------------------------------------------------- names and rows


def _has_header(rows: Sequence[list[str]]) -> bool:
    """Whether the first row has the names of the columns.

    It has them if a word stands above numbers, or above words that repeat and is none of them. It has none if a number
    stands above numbers, unless such numbers count the columns, or if all of its cells also stand below.
    """
    first, below = [cell.strip() for cell in rows[0]], [row for row in rows[1:] if len(row) == len(rows[0])]
    if not below:
        return True
    columns = [[row[place].strip() for row in below] for place in range(len(first))]
    numeric = [all(_is_number(cell) or cell.lower() in MISSING_NUMBER for cell in column) for column in columns]
    names_above_numbers = [
        bool(cell) and not _is_number(cell) and cell.lower() not in MISSING_NUMBER
        for cell, number in zip(first, numeric, strict=True)
        if number
    ]
    if any(names_above_numbers):
        return True
    repeating = [
        cell in column
        for cell, column, number in zip(first, columns, numeric, strict=True)
        if not number and 2 * len(set(column)) <= len(column)
    ]
    if repeating:
        return not all(repeating)
    if names_above_numbers:  # only numbers above columns of numbers
        numbers = [cell for cell, number in zip(first, numeric, strict=True) if number and cell]
        counted = [[str(number) for number in range(start, start + len(numbers))] for start in (0, 1)]
        return numbers in counted and (2 <= len(numbers) < len(first) or len(numbers) >= 10)
    return not all(cell in column for cell, column in zip(first, columns, strict=True))


def _is_number(cell: str) -> bool:
    return bool(_NUMBER.match(cell) or _WITH_COMMA.match(cell))


def _refuse_preface(body: _Body, rows: Sequence[list[str]]) -> None:
    """Raises InputError for a first row with fewer cells than most rows have, as a title has."""
    widths = [len(row) for row in rows[1:]] or [len(rows[0])]
    most = max(set(widths), key=widths.count)
    if len(rows[0]) < most - 1:
        raise InputError(
            f"{body.path}: row {body.skipped + 1} has {counted(len(rows[0]))} and the rows below have {most}, divided "
            f"by {sign_of(body.delimiter)}; remove the lines above the names of the columns, and use one delimiter"
        )


def counted(cells: int) -> str:
    """The number of cells, in words."""
    return "1 cell" if cells == 1 else f"{cells} cells"


def sign_of(delimiter: str) -> str:
    """A delimiter as a message shows it."""
    return "a tab" if delimiter == "\t" else repr(delimiter)


def _names(rows: Sequence[list[str]], header: bool, notes: list[str]) -> list[str]:
    """The names of the columns: those of the header, made different; `column 3` where there is none."""
    names = [name.strip() for name in rows[0]] if header else [""] * len(rows[0])
    if not header:
        notes.append("the first row holds cells and no names, so the columns are called 'column 1', 'column 2', ...")
    if header and len(rows) > 1 and len(rows[1]) == len(names) + 1:
        trailing = all(len(row) == len(names) + 1 and not row[-1].strip() for row in rows[1:])
        names = [*names, ""] if trailing else ["", *names]
        where = "last" if trailing else "first"
        notes.append(f"the rows have one more cell than the first row has names, so the {where} column has no name")
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    for number, name in enumerate(names):
        if name in names[:number]:
            others = {*names}
            new = next(f"{name}.{copy}" for copy in range(1, len(names) + 1) if f"{name}.{copy}" not in others)
            notes.append(f"two columns are called {name!r}; column {number + 1} is read as {new!r}")
            names[number] = new
    return names


def _parsed(body: _Body, names: list[str], header: bool, on_disk: bool) -> "pyarrow.Table":
    import pyarrow
    from pyarrow import csv as parser

    source = pyarrow.BufferReader(pyarrow.py_buffer(body.raw).slice(body.start))
    options = (
        parser.ReadOptions(column_names=names, skip_rows_after_names=int(header), block_size=BLOCK),
        parser.ParseOptions(delimiter=body.delimiter, newlines_in_values=body.quoted),
        parser.ConvertOptions(
            column_types={name: pyarrow.string() for name in names}, strings_can_be_null=False, null_values=[]
        ),
    )
    try:
        if not on_disk:
            return parser.read_csv(source, *options)
        batches = parser.open_csv(source, *options)
        return columns_on_disk(batches, batches.schema)
    except pyarrow.ArrowException as error:
        _refuse_ragged(body, len(names))
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{body.path}: is not sound CSV ({reason}); write it again") from error


def _refuse_ragged(body: _Body, width: int) -> None:
    """Raises InputError for the first row with another number of cells than there are names."""
    first = True
    for number, cells in body.records():
        if len(cells) != width and not (first and len(cells) == width - 1):
            sign = sign_of(body.delimiter)
            advice = (
                f"put cells that hold {sign} into quotes" if len(cells) > width else "add the cells that are missing"
            )
            raise InputError(
                f"{body.path}: row {number} has {counted(len(cells))} but there are {width} columns, divided by "
                f"{sign}; {advice}"
            )
        first = False


def _refuse_open_quote(body: _Body) -> None:
    """Raises InputError if the last cell has a quote that is never closed, so that it holds all rows below."""
    if not count(body.raw, b'"', body.start, len(body.raw)) % 2:
        return
    reader = csv.reader(lines(body.raw, body.start), delimiter=body.delimiter, strict=True)
    number = body.skipped
    try:
        for _ in reader:
            number += 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise InputError(f"{body.path}: row {number + 1} opens a quote that is never closed; close it") from error


def _row_names(body: _Body, header: bool, rows: int) -> RowName:
    ends = count(body.raw, b"\n", body.start, len(body.raw)) + (body.raw[-1:] != b"\n")
    above = body.skipped + header + 1
    if not body.quoted and ends == rows + header:
        return lambda row: f"row {row + above}"

    @lru_cache(maxsize=1)
    def numbers() -> list[int]:
        return [number for number, _ in body.records()][int(header) :]

    return lambda row: f"row {numbers()[row]}"


# ---------------------------------------------------------------------------------------------- numbers


def _decimal(arrow: "pyarrow.Table", delimiter: str) -> str:
    """The decimal sign: a comma if some columns have numbers with a comma, and none has numbers with a point."""
    commas = points = False
    for column in arrow.columns:
        cells = [cell.strip() for cell in column[:SAMPLE].to_pylist()]
        cells = [cell for cell in cells if cell.lower() not in MISSING_NUMBER]
        if not all(_is_number(cell) or re.match(_THOUSANDS[","], cell) for cell in cells):
            continue
        with_comma = [cell for cell in cells if re.match(r"^[+-]?[\d.]*,\d+$", cell)]
        thousands = delimiter == "," and all(re.match(_THOUSANDS["."], cell) for cell in with_comma)
        commas = commas or (bool(with_comma) and not thousands)
        points = points or any(_WITH_POINT.match(cell) for cell in cells)
    return "," if commas and not points else "."


def _without_thousands(arrow: "pyarrow.Table", decimal: str, notes: list[str]) -> "pyarrow.Table":
    """The same cells without the signs between thousands, in the columns of numbers that have such signs."""
    from pyarrow import compute

    sign = "," if decimal == "." else "."
    for place, name in enumerate(arrow.column_names):
        column = arrow.column(place)
        if not any(sign in cell for cell in column[:SAMPLE].to_pylist()):
            continue
        cells = compute.utf8_trim_whitespace(column)
        blank = compute.is_in(compute.utf8_lower(cells), value_set=_array(MISSING_NUMBER))
        number = compute.match_substring_regex(cells, _THOUSANDS[decimal])
        sure = r"," if decimal == "." else r"\..*[.,]"  # 1.234 may be a number with three decimals
        signs = compute.match_substring_regex(cells, sure)
        if compute.all(compute.or_(blank, number)).as_py() and compute.any(compute.and_(number, signs)).as_py():
            arrow = arrow.set_column(place, name, compute.replace_substring(cells, sign, ""))
            notes.append(f"column {name!r}: the signs {sign!r} between thousands are left out, also in what is written")
    return arrow


def _array(words: Sequence[str]) -> "pyarrow.Array":
    import pyarrow

    return pyarrow.array([*words])
