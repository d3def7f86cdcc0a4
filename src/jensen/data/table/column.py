"""The columns of a table: the type of each column, and the fields of the matrix that a model sees. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

ColumnType = Literal["continuous", "integer", "count", "boolean", "categorical", "ordinal", "datetime"]
"""The types of columns that are modelled."""

Law = Literal["codes", "whole", "count", "real"]
"""The kind of distribution of a field.

codes: one of `levels` values without distance, 0 to levels - 1. whole: 0 to levels - 1 with distances; a larger value
counts as levels - 1, a smaller one as 0. count: 0, 1, 2, ... without an upper end. real: any number."""

Stored = Literal["float", "integer", "boolean", "text", "date", "timestamp", "time"]
"""The types of cells in a source."""


class Column(BaseModel):
    """A column that is modelled: its type, the reason for the type, and the way in which its cells are written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str

    type: ColumnType

    why: str
    """The reason for the type, in words: "text with 4 different values"."""

    stored: Stored
    """The type of a cell in the source, which is also the type of a written cell."""

    arrow: str | None = None
    """A source with types (Parquet, Arrow, a DataFrame): the type in Arrow's words, such as "int32"; None for text."""

    values: tuple[str, ...] = ()
    """Boolean, categorical and ordinal: the values as text; the place of a value is its code."""

    low: float = 0.0
    step: float = 1.0
    """Integer and count: cell = low + step * k, where k = 0, 1, 2, ... is the number in the matrix.
    Datetime: `low` is the Monday of the first week, in days after 1970-01-01, and `step` that of the time in
    seconds."""

    decimals: int | None = None
    """Numbers: the most decimals of a written cell; None for the shortest text that gives the number back."""

    nonnegative: bool = False
    """Numbers: no cell of the source is below 0, so no cell is written below 0."""

    padded: int = 0
    """Numbers: the fewest decimals of a written cell; 2 for 1.50, 0 for 1.5 and 1."""

    exponent: int | None = None
    """Numbers: the decimals before the exponent of a written cell; 3 for 1.234e-05. None for a cell without one."""

    format: str | None = None
    """Datetime: the format of a written cell, as in strftime; None for a source with types."""

    missing: bool = False
    """Whether training examples have missing cells in the column."""

    blank: str = ""
    """CSV: the text of a missing cell, such as NA."""

    missing_words: tuple[str, ...] = ()
    """CSV: further words for a missing cell, by the wish of the user."""


class Field(BaseModel):
    """One column of the matrix. A datetime has several fields, any other column has one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """The name of the column, or for a part of a datetime "when: weekday"."""

    column: int
    """The index in `Table.columns`."""

    law: Law

    levels: int | None = None
    """The number of values of codes and whole; None for count and real."""

    missing: bool = False
    """Whether training examples have missing values (NaN)."""


BY_WISH = "by --columns"
"""The reason for what the user asked of a column."""


class LeftOut(BaseModel):
    """A column that is not modelled, and the reason in words."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str

    why: str

    @property
    def identifier(self) -> bool:
        """Whether the column tells the rows apart, so that its cells are the keys of the rows."""
        return self.why.startswith("identifier")

    @property
    def wished(self) -> bool:
        """Whether the user asked to leave the column out."""
        return self.why == BY_WISH


class Table(BaseModel):
    """The columns of a table in the source's order, with the fields of the matrix. JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    columns: tuple[Column, ...]

    fields: tuple[Field, ...]

    left_out: tuple[LeftOut, ...] = ()

    delimiter: str = ","
    decimal: str = "."
    """CSV: the delimiter and the decimal sign of the source."""

    header: bool = True
    """CSV: whether the first row has the names of the columns."""

    def fields_of(self, column: int) -> tuple[int, ...]:
        """The places in the matrix of the fields of a column."""
        return tuple(place for place, field in enumerate(self.fields) if field.column == column)

    def places(self) -> list[tuple[int, ...]]:
        """`fields_of` every column."""
        found: list[list[int]] = [[] for _ in self.columns]
        for place, field in enumerate(self.fields):
            found[field.column].append(place)
        return [*map(tuple, found)]

    def unknown(self, name: str) -> str:
        """The reason, in words, why `columns` has no column `name`."""
        for one in self.left_out:
            if one.name == name:
                return f"column {name!r} was left out ({one.why}); give another, or train with a type for it"
        known = ", ".join(repr(column.name) for column in self.columns[:20])
        return f"there is no column {name!r}; expected one of {known}{', ...' if len(self.columns) > 20 else ''}"

    def named(self, name: str) -> int:
        """The index in `columns` of the column `name`; raises KeyError."""
        for index, column in enumerate(self.columns):
            if column.name == name:
                return index
        raise KeyError(name)
