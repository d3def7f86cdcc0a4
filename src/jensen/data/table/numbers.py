"""Columns of numbers: the type of a column by its different numbers, and the decimals of written cells."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jensen.data.table.cells import Cells
from jensen.data.table.column import Column, ColumnType, Field, Law, LeftOut, Stored
from jensen.errors import InputError

if TYPE_CHECKING:
    import pyarrow

MOST_LEVELS = 1 << 20
"""The largest range of whole numbers whose numbers have masses; float32 holds each of them."""
MOST_DECIMALS = 9
"""The most decimals of numbers on a grid."""
ITSELF = 32
"""Up to this many whole numbers each have a probability of their own, with or without an order between them."""
FREQUENT = 20
"""The average number of rows per value from which the values themselves, and not a density, are the law."""
MOST_VALUES = 1024
"""The most different numbers that become ordered values."""
SPARSE = 20
"""Numbers are far from a grid if they are fewer than one in this many of the grid's numbers."""
WIDE = 50
"""Numbers with decimals are on a grid if the grid has at most this many numbers for each different one."""
COMB = 0.95
"""The share of rows from which the other rows are exceptions to a coarser grid."""
MOST_COUNT = 4096
"""The highest number of a count."""
LEAST_INDEX = 10
"""The least rows of which a counting column is the index."""
INDEX_NAMES = ("id", "no", "nr", "index", "key", "rowid", "row_id", "uuid")

Typed = tuple[Column, tuple[Field, ...]] | LeftOut
"""A column and the fields of its matrix, whose `column` is still 0; or the reason for leaving the column out."""


def rounded(numbers: np.ndarray, decimals: int) -> np.ndarray:
    """Numbers rounded to some decimals; numbers so large that float64 holds no more decimals stay as they are."""
    scale = 10.0**decimals
    return np.where(np.abs(numbers) * scale < 2.0**53, np.round(numbers, decimals), numbers)


@dataclass(frozen=True)
class Written:
    """The way in which the cells of a column of numbers are written; see `Column`."""

    decimals: int | None = None
    padded: int = 0
    exponent: int | None = None

    @classmethod
    def of(cls, column: Column) -> "Written":
        """The way in which the cells of a column are written."""
        return cls(column.decimals, column.padded, column.exponent)


@dataclass(frozen=True)
class Distinct:
    """The different numbers of a column in ascending order, and on how many rows each stands."""

    values: np.ndarray
    counts: np.ndarray
    missing: bool

    @property
    def rows(self) -> int:
        """The number of rows with a number."""
        return int(self.counts.sum())

    @property
    def repeated(self) -> bool:
        """Whether most values stand on several rows: on 20 on average, and three quarters of the values on 5."""
        often = self.rows >= FREQUENT * len(self.values)
        return often and float(np.quantile(self.counts, 0.25)) >= 5

    def decimals(self, most: int | None) -> int | None:
        """The least decimals with which every number can be written; None if more than `most` or 9 are needed."""
        largest = float(np.abs(self.values).max())
        for decimals in range(min(MOST_DECIMALS, MOST_DECIMALS if most is None else most) + 1):
            if largest * 10.0**decimals >= 2.0**53:
                return None
            if (rounded(self.values, decimals) == self.values).all():
                return decimals
        return None

    def fills(self, decimals: int) -> bool:
        """Whether the numbers lie on a grid of some decimals and are repeated, as those of a coarse scale are."""
        span, many = float(self.values[-1] - self.values[0]) * 10.0**decimals, len(self.values)
        return (5 * many <= self.rows and span <= WIDE * many) or (3 * many <= self.rows and span <= 5 * many)

    def comb(self, decimals: int) -> int | None:
        """Fewer decimals that do for nearly all rows, as of whole numbers with a few mistakes; None if there are none.

        Such numbers lie on the teeth of a comb, so neither a density nor the fine grid suits them.
        """
        if len(self.values) > min(MOST_VALUES, self.rows // 5):
            return None
        for fewer in range(decimals):
            if self.counts[np.round(self.values, fewer) == self.values].sum() >= COMB * self.rows:
                return fewer
        return None

    def ticks(self, decimals: int) -> np.ndarray:
        """The numbers as integers, in units of the last of the decimals."""
        return np.rint(self.values * 10.0**decimals).astype(np.int64)


def number_column(name: str, cells: Cells, numbers: np.ndarray, written: Written, wish: ColumnType | None) -> Typed:
    """The type of a column of numbers (NaN: missing), or `wish`, with its reason."""
    present = ~np.isnan(numbers)
    values, counts = np.unique(numbers[present], return_counts=True)
    values = values + 0.0  # -0.0 and 0.0 are one number
    found = Distinct(values, counts, bool(~present.all()))
    if not len(values):
        return LeftOut(name=name, why="every cell is missing")
    if len(values) == 1 and not found.missing:
        return LeftOut(name=name, why=f"constant: every cell is {number_text(float(values[0]), written)}")
    base = Column(
        name=name, type="continuous", why="", stored=_stored(cells, values, written), arrow=cells.arrow,
        decimals=written.decimals, padded=written.padded, exponent=written.exponent, missing=found.missing,
        blank=cells.blank, nonnegative=bool(values[0] >= 0),
    )  # fmt: skip
    if wish is not None:
        return _as_wished(base, found, written, wish)
    decimals = found.decimals(written.decimals)
    why = None if decimals is None else _index(name, found, decimals)
    if why:
        return LeftOut(name=name, why=why)
    if len(values) <= 2:
        return of_values(base, found, _kind_of_pair(found), _words_of_pair(found, written))
    coarse = found.comb(decimals) if decimals else None
    if coarse is not None:
        most = "whole" if coarse == 0 else f"of at most {coarse} decimals"
        return of_values(base, found, "ordinal", f"{len(values)} different numbers, on nearly all rows {most}")
    if decimals is not None and (decimals == 0 or found.fills(decimals)):
        return _whole(base, found, decimals)
    if found.repeated and len(values) <= MOST_VALUES:
        many = f"{len(values)} different numbers, each on {found.rows // len(values)} rows on average"
        return of_values(base, found, "ordinal", f"{many}, not evenly spaced")
    return _real(base, found)


def _stored(cells: Cells, values: np.ndarray, written: Written) -> Stored:
    if cells.arrow is not None:
        return cells.stored
    return "integer" if written.decimals == 0 and float(np.abs(values).max()) < 2.0**63 else "float"


def _index(name: str, found: Distinct, decimals: int) -> str | None:
    """The reason why a column is an index of the rows; None if it is none."""
    if decimals or found.missing or len(found.values) != found.rows:
        return None
    low, high = int(found.values[0]), int(found.values[-1])
    if high - low + 1 == found.rows and (found.rows >= LEAST_INDEX or not name):
        return f"identifier: counts the rows from {low} to {high}"
    words = name.lower().replace("-", "_").split("_")
    if found.rows >= LEAST_INDEX and (words[-1] in INDEX_NAMES or name.endswith(("Id", "ID"))):
        return "identifier: a different number in every row, and the name says so"
    return None


def _kind_of_pair(found: Distinct) -> ColumnType:
    return "boolean" if found.values.tolist() == [0.0, 1.0] else "categorical"


def _words_of_pair(found: Distinct, written: Written) -> str:
    each = " and ".join(number_text(value, written) for value in found.values.tolist())
    return f"only {'the number' if len(found.values) == 1 else 'the numbers'} {each}"


def of_values(base: Column, found: Distinct, kind: ColumnType, why: str) -> Typed:
    """A column whose different numbers are values with codes."""
    written = Written.of(base)
    values = tuple(number_text(value, written) for value in found.values.tolist())
    law = "whole" if kind == "ordinal" and len(values) > ITSELF else "codes"
    column = base.model_copy(update={"type": kind, "why": why, "values": values})
    return column, (Field(name=base.name, column=0, law=law, levels=len(values), missing=base.missing),)


def _whole(base: Column, found: Distinct, decimals: int) -> Typed:
    """A column of whole numbers, or of whole multiples of a step."""
    ticks = found.ticks(decimals)
    apart = int(np.gcd.reduce(np.diff(ticks)))
    enough = len(ticks) >= FREQUENT or found.rows >= FREQUENT * len(ticks)
    apart = apart if enough else 1  # few numbers may be multiples of a step by chance
    levels = int(ticks[-1] - ticks[0]) // apart + 1
    step = apart / 10**decimals
    first, last = (number_text(float(found.values[place]), Written(decimals, 0)) for place in (0, -1))
    span = f"{first} to {last}"
    steps = "" if step == 1 else f" in steps of {step:.12g}"
    if levels > SPARSE * len(ticks) and found.repeated and len(ticks) <= MOST_VALUES:
        why = f"{len(ticks)} different numbers, each on {found.rows // len(ticks)} rows on average, {span}"
        return of_values(base, found, "ordinal", why)
    kind: ColumnType = "integer"
    low = float(found.values[0])
    if step == 1 and low == 0 and _counts_events(found, levels):
        kind, law, size = "count", "count", None
        why = f"whole numbers from 0, most often 0, with a long tail to {last}"
    elif levels <= ITSELF and found.rows >= FREQUENT * levels:
        law, size = "codes", levels
        many = f"{levels} whole numbers" if step == 1 else f"{levels} numbers"
        why = f"{many}, {span}{steps}: each has its own probability, as they may be codes"
    elif levels <= MOST_LEVELS:
        law, size = "whole", levels
        why = f"whole numbers {span}{steps}" if decimals == 0 else f"numbers {span}{steps}, often repeated"
    else:
        law, size = "real", None
        why = f"whole numbers {span}{steps}: too many for masses, so a density, rounded when written"
    column = base.model_copy(update={"type": kind, "why": why, "low": low, "step": step})
    return column, (Field(name=base.name, column=0, law=law, levels=size, missing=base.missing),)


def _counts_events(found: Distinct, levels: int) -> bool:
    """Whether numbers from 0 look like counts of events: 0 is the most frequent, and there is a long thin tail."""
    mean = float(found.values @ found.counts) / found.rows
    return ITSELF // 3 < levels <= MOST_COUNT and int(found.counts.argmax()) == 0 and 3 * mean < levels


def _real(base: Column, found: Distinct) -> Typed:
    many = f"{len(found.values):,} different numbers"
    decimals = "" if base.decimals is None else f" with up to {base.decimals} decimals"
    column = base.model_copy(update={"type": "continuous", "why": f"{many}{decimals} on {found.rows:,} rows"})
    return column, (Field(name=base.name, column=0, law="real", missing=base.missing),)


def _as_wished(base: Column, found: Distinct, written: Written, wish: ColumnType) -> Typed:
    if wish in ("boolean", "categorical", "ordinal"):
        return of_values(base, found, wish, "by --columns")
    if wish == "continuous":
        column = base.model_copy(update={"why": "by --columns"})
        return column, (Field(name=base.name, column=0, law="real", missing=base.missing),)
    decimals = found.decimals(written.decimals)
    if decimals is None or (wish == "count" and (decimals or found.values[0] < 0)):
        expected = "whole numbers from 0" if wish == "count" else f"numbers with at most {MOST_DECIMALS} decimals"
        raise InputError(
            f"--columns: {base.name!r} cannot be of type {wish}, which needs {expected}; choose continuous instead"
        )
    if wish == "count":
        column = base.model_copy(update={"type": "count", "why": "by --columns"})
        return column, (Field(name=base.name, column=0, law="count", missing=base.missing),)
    ticks = found.ticks(decimals)
    apart = max(1, int(np.gcd.reduce(np.diff(ticks)))) if len(ticks) > FREQUENT else 1
    levels = int(ticks[-1] - ticks[0]) // apart + 1
    law: Law = "whole" if levels <= MOST_LEVELS else "real"
    update: dict[str, object] = {
        "type": "integer",
        "why": "by --columns",
        "low": float(found.values[0]),
        "step": apart / 10**decimals,
    }
    field = Field(name=base.name, column=0, law=law, levels=levels if law == "whole" else None, missing=base.missing)
    return base.model_copy(update=update), (field,)


# ---------------------------------------------------------------------------------------------- written numbers


def written_form(text: "pyarrow.Array", decimal: str) -> Written:
    """The decimals of the numbers in a column of text without nulls."""
    from pyarrow import compute

    if compute.any(compute.match_substring(text, "e", ignore_case=True)).as_py():
        mantissas = compute.extract_regex(text, rf"^-?\d[{decimal}](?P<decimals>\d+)e[+-]\d\d\d?$")
        lengths = compute.unique(compute.utf8_length(compute.struct_field(mantissas, "decimals"))).to_pylist()
        return Written(exponent=lengths[0]) if len(lengths) == 1 else Written()
    place = compute.find_substring(text, decimal).to_numpy(zero_copy_only=False)
    length = compute.utf8_length(text).to_numpy(zero_copy_only=False)
    decimals = np.where(place < 0, 0, length - place - 1)
    ends = compute.ends_with(text, "0").to_numpy(zero_copy_only=False) & (decimals > 0)
    padded = int(decimals[ends].max()) if ends.any() else 0
    most = int(decimals.max()) if len(decimals) else 0
    padded = padded if len(decimals) and int(decimals.min()) >= padded else 0
    return Written(most if most <= 2 * MOST_DECIMALS - 3 else None, min(padded, 2 * MOST_DECIMALS))


def typed_form(numbers: np.ndarray, whole: bool) -> Written:
    """The decimals of numbers with a type."""
    present = numbers[~np.isnan(numbers)]
    if whole or not len(present):
        return Written(0 if whole else None, 0)
    return Written(Distinct(present, np.ones(len(present)), False).decimals(6), 0)


def number_texts(numbers: np.ndarray, written: Written) -> "pyarrow.Array":
    """The texts of numbers (N,), as by `number_text`."""
    import pyarrow
    from pyarrow import compute

    values, places = np.unique(numbers, return_inverse=True)
    values = values if written.decimals is None else rounded(values, written.decimals)
    quick = compute.cast(pyarrow.array(values), pyarrow.string())  # the shortest text, but with exponents
    slow = compute.match_substring_regex(quick, r"e|^-0$" if written.padded == 0 else r"e|^[^.]*$|0$|^-0")
    if written.padded > 1 or written.decimals is None or written.exponent is not None:
        slow = compute.is_valid(quick)
    which = np.flatnonzero(slow.to_numpy(zero_copy_only=False))
    texts = pyarrow.array([number_text(value, written) for value in values[which].tolist()], pyarrow.string())
    return compute.replace_with_mask(quick, slow, texts).take(pyarrow.array(places))


def number_text(value: float, written: Written) -> str:
    """The text of a number.

    >>> number_text(1.5, Written(2, 2)), number_text(1.5, Written(3, 0)), number_text(2.0, Written(None, 1))
    ('1.50', '1.5', '2.0')
    """
    if written.exponent is not None:
        return f"{value:.{written.exponent}e}"
    if written.decimals is None:
        text = repr(float(value))
        return text if written.padded or not text.endswith(".0") else text[:-2]
    text = f"{value + 0.0:.{written.decimals}f}"
    if written.decimals > written.padded:
        whole, _, fraction = text.partition(".")
        fraction = fraction.rstrip("0").ljust(written.padded, "0")
        text = f"{whole}.{fraction}" if fraction else whole
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text
