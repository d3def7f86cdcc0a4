"""Columns of text: categories, ordered scales, booleans, identifiers and free text."""

import re
from collections.abc import Sequence

import numpy as np

from jensen.data.table.cells import Cells, shown
from jensen.data.table.column import Column, ColumnType, Field, LeftOut
from jensen.data.table.numbers import LEAST_INDEX, Typed

MOST_CATEGORIES = 4096
FEW = 12
"""Up to this many different texts are categories also where they stand on few rows."""
ROWS = 5
"""The average number of rows per value from which texts are categories."""

_SIGNED = re.compile(r"^([^\w\s.,+-]{0,2}) ?[+-]?\d[\d.,]* ?([^\d\s.,+-]{0,6})$")
"""A number with a sign before or after, such as $5, 12 kg or 3%."""
_PAIRS = (("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"))
_SCALES: tuple[tuple[str, ...], ...] = (
    ("very low", "low", "medium", "high", "very high"),
    ("low", "moderate", "high"),
    ("low", "middle", "high"),
    ("small", "medium", "large"),
    ("xs", "s", "m", "l", "xl", "xxl"),
    ("very bad", "bad", "poor", "fair", "ok", "good", "very good", "excellent"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
    ("first", "second", "third", "fourth", "fifth"),
    ("1st", "2nd", "3rd", "4th", "5th"),
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
     "december"),
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
)  # fmt: skip
"""Known ordered scales, in lower case."""


def text_column(name: str, cells: Cells, wish: ColumnType | None, order: Sequence[str] = ()) -> Typed:
    """The type of a column of text, or `wish`, with its reason; `order` are all values in the wished order."""
    from pyarrow import compute

    assert cells.text is not None
    found = compute.value_counts(cells.text.drop_null())
    values = found.field("values").to_pylist()
    counts = found.field("counts").to_numpy()
    missing = cells.text.null_count > 0
    if not values:
        return LeftOut(name=name, why="every cell is missing")
    ordered = tuple(order) or _ordered(values, cells)
    many = f"{len(ordered)} different values" if len(ordered) > 1 else "only one value beside missing cells"
    if wish is not None:
        kind, why = wish, "by --columns"
    elif len(values) == 1 and not missing:
        return LeftOut(name=name, why=f"constant: every cell is {shown(values[0])}")
    elif cells.stored == "boolean":
        kind, why, ordered = "boolean", "booleans", ("false", "true")
    elif cells.order is not None:
        kind, why = ("ordinal" if cells.ranked else "categorical"), f"categories of the source, {many}"
    elif _pair(values):
        kind, why = "boolean", f"only the words {ordered[0]!r} and {ordered[1]!r}"
    elif _scale(values):
        kind, why = "ordinal", f"a known scale, {ordered[0]!r} to {ordered[-1]!r}"
    else:
        reason = _reason_to_leave_out(values, counts)
        if reason:
            return LeftOut(name=name, why=reason)
        kind, why = "categorical", f"text with {many}"
    column = Column(
        name=name, type=kind, why=why, stored=cells.stored, arrow=cells.arrow, values=ordered, missing=missing,
        blank=cells.blank,
    )  # fmt: skip
    return column, (Field(name=name, column=0, law="codes", levels=len(ordered), missing=missing),)


def _ordered(values: list[str], cells: Cells) -> tuple[str, ...]:
    if cells.order is not None:
        return cells.order
    scale = _scale(values) or _pair(values)
    return tuple(sorted(values, key=lambda value: scale.index(value.lower()) if scale else value))


def _pair(values: list[str]) -> tuple[str, ...] | None:
    lower = {value.lower() for value in values}
    return next((pair for pair in _PAIRS if lower == set(pair) and len(values) == len(pair)), None)


def _scale(values: list[str]) -> tuple[str, ...] | None:
    lower = {value.lower() for value in values}
    if len(values) < 3 or len(lower) < len(values):
        return None
    return next((scale for scale in _SCALES if lower <= set(scale)), None)


def _reason_to_leave_out(values: list[str], counts: np.ndarray) -> str | None:
    """The reason why texts are no categories; None if they are."""
    rows, many = int(counts.sum()), len(values)
    if many <= min(MOST_CATEGORIES, rows / ROWS) or many <= min(FEW, rows / 2):
        return None
    if signed := _SIGNED.match(values[0]):
        sign = next(filter(None, signed.groups()), "")
        if sign and all(sign in value and _SIGNED.match(value) for value in values[:1000]):
            return f"numbers with {sign!r}, such as {values[0]!r}: write the numbers alone"
    if many == rows and rows >= LEAST_INDEX and not _prose(values):
        return "identifier: a different text in every row"
    if many == rows and not _prose(values):
        return f"a different text in each of only {rows} rows"
    what = "free text" if _prose(values) else "text"
    few = f"too many for categories (at most {MOST_CATEGORIES:,})" if many > MOST_CATEGORIES else "too few rows of each"
    return f"{what}: {many:,} different values on {rows:,} rows, {few}"


def _prose(values: list[str]) -> bool:
    """Whether texts have three words or more on average."""
    some = values[:1000]
    return sum(len(value.split()) for value in some) >= 3 * len(some)
