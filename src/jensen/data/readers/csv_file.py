"""CSV: a matrix of numbers with a row for each example, with a header or without; one column may hold labels."""

import csv
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_names import LABEL_NAMES, listed
from jensen.data.readers.layout import Part, assemble
from jensen.data.readers.metadata import standard_column
from jensen.data.readers.reading import Reading, Refuse
from jensen.errors import AbsentColumnError, InputError

DELIMITERS = "\t;|, "  # in this order, as numbers may hold commas and names may hold spaces
CELLS_AT_ONCE = 1 << 16
MISSING = ("", "na", "n/a", "nan", "null", "none", "?")

HEADER_OF_NUMBERS = 10  # columns from which a first row 0, 1, 2, ... is taken for a header, as pandas writes

PIXELS = 64  # the least columns of pixels
FIRST_ROWS = 1000  # rows by which pixels are recognised

CELLS_AT_FIRST = 1 << 14  # cells by which columns are told apart

Row = tuple[int, list[str]]
"""A line's number and its cells."""


def read_csv(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """Read the columns of numbers, and one column of labels.

    --labels names the column of labels; by default it is the only column with a usual name for labels. Whole numbers
    from 0 to 65535 have levels; other numbers are floats, and an empty cell is NaN.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _Lines(path, file)
            rows = _rows(lines)
            first = next(rows)
            header = first[1] if _is_header(first[1]) else None
            beginning = [*([] if header else [first]), *islice(rows, CELLS_AT_FIRST // len(first[1]) + 2)]
            table = _Table(path, header, beginning, lines.delimiter, options)
            at_once, quoted = CELLS_AT_ONCE // len(first[1]) + 2, False
            while block := list(islice(lines, at_once)):
                quoted = quoted or any('"' in line for line in block)  # a quoted cell may hold delimiters and newlines
                if quoted or not table.add_lines(block):
                    lines.give_back(block)
                    table.add(list(islice(rows, at_once)))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error.reason}); write it again") from error
    except csv.Error as error:
        raise InputError(f"{path}: is not a sound CSV file ({error}); write it again") from error
    reading = assemble("csv", [Part(str(path), table.values(), table.labels())], options, refuse)
    return replace(reading, notes=(*table.notes(), *reading.notes), keys=table.keys())


def holds_pixels(path: Path) -> bool:
    """Whether the first rows of a file look like pixels: many columns of whole numbers with one common range."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [cells for _, cells in islice(_rows(_Lines(path, file)), FIRST_ROWS)]
        numbers = np.array(rows[1:], dtype=np.int64)
    except (UnicodeDecodeError, csv.Error, ValueError, OverflowError):
        return False
    if numbers.ndim != 2 or numbers.shape[1] < PIXELS or numbers.min() < 0 or numbers.max() > 65535:
        return False
    return bool((2 * numbers.max(axis=0) >= numbers.max()).mean() >= 0.5)


class _Lines(Iterator[str]):
    """The lines of a file that are neither empty nor comments, which numpy.savetxt begins with #."""

    def __init__(self, path: Path, file: Iterable[str]) -> None:
        self.path, self.number = path, 0
        self._file, self._again = iter(file), deque[str]()
        self.delimiter = ","
        first = next(self, None)
        if first is None:
            raise InputError(f"{path}: holds no rows; expected numbers")
        unquoted = re.sub(r'"[^"]*"', "", first.strip())
        self.delimiter = next((delimiter for delimiter in DELIMITERS if delimiter in unquoted), ",")
        self.give_back([first])

    def __next__(self) -> str:
        while True:
            line = self._again.popleft() if self._again else next(self._file)
            self.number += 1
            if line.strip() and not line.startswith("#"):
                return " ".join(line.split()) + "\n" if self.delimiter == " " else line

    def give_back(self, lines: Sequence[str]) -> None:
        """Makes `lines`, which were the last, the next lines."""
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)


def _rows(lines: _Lines) -> Iterator[Row]:
    """The cells of each row. Raises InputError for a row with another number of cells than the first."""
    width = 0
    for row in csv.reader(lines, delimiter=lines.delimiter, skipinitialspace=True):
        width = width or len(row)
        if len(row) != width:
            raise InputError(
                f"{lines.path}: row {lines.number} has {len(row)} cells but the first row has {width}; mend it"
            )
        yield lines.number, row


def _is_header(cells: list[str]) -> bool:
    numbers = [cell for cell in cells if _is_number(cell)]
    if not numbers:
        return any(cell.strip() for cell in cells)
    counted = [str(number) for start in (0, 1) for number in range(start, start + len(numbers))]
    in_order = numbers in (counted[: len(numbers)], counted[len(numbers) :])
    return in_order and (2 <= len(numbers) < len(cells) or len(numbers) >= HEADER_OF_NUMBERS)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell.strip().lower() not in MISSING


class _Table:
    """The columns of examples and of labels, block by block."""

    def __init__(
        self, path: Path, header: list[str] | None, first: list[Row], delimiter: str, options: ReadOptions
    ) -> None:
        if not first:
            raise InputError(f"{path}: holds a header and no rows; expected numbers")
        self._path, self._header, self._delimiter = path, header, delimiter
        width = len(first[0][1])
        self._names = [name.strip() for name in header or map(str, range(width))]
        self._y = self._column_of_labels(options)
        self._group = self._column_of_groups(options)
        cells = list(zip(*(row for _, row in first), strict=True))
        numeric = [
            column for column in range(width) if column not in (self._y, self._group) and _numeric(cells[column])
        ]
        self._index = [column for column in numeric if not self._names[column] and _counts_up(cells[column])]
        self._x = [column for column in numeric if column not in self._index]
        if not self._x:
            raise InputError(
                f"{path}: is text without a column of numbers; expected numbers with a point, separated by commas, "
                "semicolons, tabs or spaces"
            )
        self._parts: list[np.ndarray] = []
        self._labels: list[str] = []
        self._groups: list[str] = []
        self.add(first)

    def add(self, block: list[Row]) -> None:
        """Adds the next rows. Raises InputError for a cell that is not a number."""
        cells = np.array([[row[column] for column in self._x] for _, row in block])
        if self._y is not None:
            self._labels += [row[self._y].strip() for _, row in block]
            if "" in self._labels[-len(block) :]:
                raise InputError(f"{self._path}: column {self._names[self._y]!r} has empty cells; leave such rows out")
        if self._group is not None:
            self._groups += [row[self._group].strip() for _, row in block]
        self._parts.append(self._numbers(cells, block))

    def add_lines(self, lines: Sequence[str]) -> bool:
        """Add rows without quoted or missing cells, which is quick; returns False and adds nothing if that fails."""
        if any(line.count(self._delimiter) != len(self._names) - 1 for line in lines):
            return False
        for dtype in (np.int64, np.float64):
            with suppress(ValueError, OverflowError, DeprecationWarning), warnings.catch_warnings(action="error"):
                x = np.loadtxt(lines, dtype, None, self._delimiter, usecols=self._x, ndmin=2)
                if self._y is not None:
                    y = self._cells(lines, self._y)
                    if "" in y:
                        return False
                    self._labels += y
                if self._group is not None:
                    self._groups += [
                        line.split(self._delimiter, self._group + 1)[self._group].strip() for line in lines
                    ]
                self._parts.append(x)
                return True
        return False

    def values(self) -> np.ndarray:
        """All numbers (N, D): integers if all are whole and lie in 0..65535, else float64."""
        values = np.concatenate(self._parts)
        if values.dtype.kind == "i" and (values.min() < 0 or values.max() > 65535):
            return values.astype(np.float64)
        return values

    def labels(self) -> np.ndarray | None:
        """The labels or targets, if any."""
        return None if self._y is None else standard_column(self._labels)

    def keys(self) -> dict[str, Callable[[], np.ndarray]]:
        """The column of --group by its name."""
        return {} if self._group is None else {self._names[self._group]: lambda: np.array(self._groups)}

    def notes(self) -> tuple[str, ...]:
        """The applied rules, one line."""
        others = [self._names[column] for column in range(len(self._names)) if column not in (*self._x, self._y)]
        header = "the first row is the header" if self._header else "there is no header"
        unlabelled = "no column is named label (--labels names another)"
        y = unlabelled if self._y is None else f"y is column {self._names[self._y]!r}"
        x = f"x are {len(self._x)} columns of numbers, {self._names[self._x[0]]!r} to {self._names[self._x[-1]]!r}"
        return (f"{header}; {x}; {y}; left out: {listed(others)}",)

    def _numbers(self, cells: np.ndarray, block: list[Row]) -> np.ndarray:
        with suppress(ValueError, OverflowError):
            return cells.astype(np.int64)
        with suppress(ValueError):
            return cells.astype(np.float64)
        missing = np.isin(np.char.lower(np.char.strip(cells)), MISSING)
        try:
            return np.where(missing, "nan", cells).astype(np.float64)
        except ValueError:
            row, place = np.argwhere(~(missing | _parsed(cells)))[0].tolist()
            raise InputError(
                f"{self._path}: row {block[row][0]} holds {str(cells[row, place])[:40]!r} in column "
                f"{self._names[self._x[place]]!r}; expected a number"
            ) from None

    def _cells(self, lines: Sequence[str], column: int) -> list[str]:
        """The cells of a column of lines without quotes."""
        return [line.split(self._delimiter, column + 1)[column].strip() for line in lines]

    def _named(self, name: str, option: str) -> int:
        if self._names.count(name) != 1:
            known = listed(self._names)
            raise AbsentColumnError(f"{self._path}: has no column {name!r}; --{option} may be {known}", option)
        return self._names.index(name)

    def _column_of_groups(self, options: ReadOptions) -> int | None:
        return None if options.group is None else self._named(options.group, "group")

    def _column_of_labels(self, options: ReadOptions) -> int | None:
        if options.labels is not None:
            return self._named(options.labels, "labels")
        found = [column for column, name in enumerate(self._names) if name.lower() in LABEL_NAMES]
        if len(found) > 1:
            names = listed(self._names[column] for column in found)
            raise InputError(f"{self._path}: which column holds the labels? give --labels as one of {names}")
        return found[0] if found else None


def _parsed(cells: np.ndarray) -> np.ndarray:
    return np.vectorize(_is_number, otypes=[bool])(cells)


def _numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers: each cell is a number or is missing, and at least one cell is a number."""
    given = [cell for cell in cells if cell.strip().lower() not in MISSING]
    return bool(given) and all(map(_is_number, given))


def _counts_up(cells: Sequence[str]) -> bool:
    """Whether a column without a name is the index that pandas writes."""
    return list(cells) == [str(number) for number in range(len(cells))]
