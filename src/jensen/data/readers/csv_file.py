"""CSV: a matrix of numbers with a row for each example, with a header or without; one column may hold labels."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_names import LABEL_NAMES, listed
from jensen.data.readers.layout import Part, assemble
from jensen.data.readers.metadata import standard_column
from jensen.data.readers.reading import Reading, Refuse
from jensen.errors import InputError

DELIMITERS = "\t;|, "  # in this order, as numbers may hold commas and names may hold spaces
CELLS_AT_ONCE = 1 << 16
MISSING = ("", "na", "n/a", "nan", "null", "none", "?")

HEADER_OF_NUMBERS = 10  # columns from which a first row 0, 1, 2, ... is taken for a header, as pandas writes

Row = tuple[int, list[str]]
"""A line's number and its cells."""


def read_csv(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """The columns of numbers; labels are the column of --labels, or the only one with a name for labels.

    Whole numbers from 0 to 65535 have levels; other numbers are floats, and an empty cell is NaN.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _rows(path, file)
            table = _Table(path, *_beginning(rows), options)
            while block := list(islice(rows, table.rows_at_once)):
                table.add(block)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error.reason}); write it again") from error
    except csv.Error as error:
        raise InputError(f"{path}: is not a sound CSV file ({error}); write it again") from error
    reading = assemble("csv", [Part(str(path), table.values(), table.labels())], options, refuse)
    return replace(reading, notes=(*table.notes(), *reading.notes))


def _rows(path: Path, file: Iterable[str]) -> Iterator[Row]:
    """The rows that are not empty. Raises InputError for a row with another number of cells than the first."""
    lines = (line for line in file if not line.startswith("#"))  # numpy.savetxt puts # before a header
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise InputError(f"{path}: holds no rows; expected numbers")
    unquoted = re.sub(r'"[^"]*"', "", first.strip())
    delimiter = next((delimiter for delimiter in DELIMITERS if delimiter in unquoted), ",")
    whole: Iterable[str] = chain([first], lines)
    if delimiter == " ":
        whole = (" ".join(line.split()) for line in whole)
    reader = csv.reader(whole, delimiter=delimiter, skipinitialspace=True)
    width = 0
    for row in reader:
        if not row:
            continue
        width = width or len(row)
        if len(row) != width:
            raise InputError(
                f"{path}: row {reader.line_num} has {len(row)} cells but the first row has {width}; mend it"
            )
        yield reader.line_num, row


def _beginning(rows: Iterator[Row]) -> tuple[list[str] | None, list[Row]]:
    """The header, if there is one, and the first rows of numbers."""
    first = next(rows)
    header = first[1] if _is_header(first[1]) else None
    count = max(2, CELLS_AT_ONCE // len(first[1]))
    return header, [*([] if header else [first]), *islice(rows, count)]


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

    def __init__(self, path: Path, header: list[str] | None, first: list[Row], options: ReadOptions) -> None:
        if not first:
            raise InputError(f"{path}: holds a header and no rows; expected numbers")
        self._path, self._header = path, header
        width = len(first[0][1])
        self._names = [name.strip() for name in header or map(str, range(width))]
        self.rows_at_once = max(2, CELLS_AT_ONCE // width)
        self._y = self._column_of_labels(options)
        cells = list(zip(*(row for _, row in first), strict=True))
        numeric = [column for column in range(width) if column != self._y and _numeric(cells[column])]
        self._index = [column for column in numeric if not self._names[column] and _counts_up(cells[column])]
        self._x = [column for column in numeric if column not in self._index]
        if not self._x:
            raise InputError(
                f"{path}: is text without a column of numbers; expected numbers with a point, separated by commas, "
                "semicolons, tabs or spaces"
            )
        self._parts: list[np.ndarray] = []
        self._labels: list[str] = []
        self.add(first)

    def add(self, block: list[Row]) -> None:
        """Adds the next rows. Raises InputError for a cell that is not a number."""
        cells = np.array([[row[column] for column in self._x] for _, row in block])
        if self._y is not None:
            self._labels += [row[self._y].strip() for _, row in block]
            if "" in self._labels[-len(block) :]:
                raise InputError(f"{self._path}: column {self._names[self._y]!r} has empty cells; leave such rows out")
        self._parts.append(self._numbers(cells, block))

    def values(self) -> np.ndarray:
        """All numbers (N, D): integers if all are whole and lie in 0..65535, else float64."""
        values = np.concatenate(self._parts)
        if values.dtype.kind == "i" and (values.min() < 0 or values.max() > 65535):
            return values.astype(np.float64)
        return values

    def labels(self) -> np.ndarray | None:
        """The labels or targets, if any."""
        return None if self._y is None else standard_column(self._labels)

    def notes(self) -> tuple[str, ...]:
        """The applied rules, one line."""
        others = [self._names[column] for column in range(len(self._names)) if column not in (*self._x, self._y)]
        header = "the first row is the header" if self._header else "there is no header"
        y = f"y is column {self._names[self._y]!r}" if self._y is not None else "no column is named label"
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

    def _column_of_labels(self, options: ReadOptions) -> int | None:
        if options.labels is not None:
            if self._names.count(options.labels) != 1:
                raise InputError(
                    f"{self._path}: has no column {options.labels!r}; --labels may be {listed(self._names)}"
                )
            return self._names.index(options.labels)
        found = [column for column, name in enumerate(self._names) if name.lower() in LABEL_NAMES]
        if len(found) > 1:
            names = listed(self._names[column] for column in found)
            raise InputError(f"{self._path}: which column holds the labels? give --labels as one of {names}")
        return found[0] if found else None


def _parsed(cells: np.ndarray) -> np.ndarray:
    return np.vectorize(_is_number, otypes=[bool])(cells)


def _numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers: each cell is a number or missing, and one is a number."""
    given = [cell for cell in cells if cell.strip().lower() not in MISSING]
    return bool(given) and all(map(_is_number, given))


def _counts_up(cells: Sequence[str]) -> bool:
    """Whether a column without a name is the index that pandas writes."""
    return list(cells) == [str(number) for number in range(len(cells))]
