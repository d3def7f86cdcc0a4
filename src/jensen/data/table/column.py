"""The columns of a table: the type of each column, and the fields of the matrix that a model sees. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

ColumnType = Literal["continuous", "integer", "count", "boolean", "categorical", "ordinal", "datetime"]
"""The types of columns that are modelled."""

Law = Literal["codes", "whole", "count", "real"]
"""The kind of distribution of a field.

codes: one of `levels` values without distance, 0 to levels - 1. whole: 0 to levels - 1 with distances; a larger value
counts as levels - 1, a smaller one as 0. count: 0, 1, 2, ... without an upper end. real: any number."""


class Column(BaseModel):
    """A column that is modelled: its type, the reason for the type, and the way in which its cells are written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str

    type: ColumnType

    why: str
    """The reason for the type, in words: "text with 4 different values"."""

    stored: Literal["float", "integer", "boolean", "text", "date", "timestamp"]
    """The type of a cell in the source, which is also the type of a written cell."""

    values: tuple[str, ...] = ()
    """Boolean, categorical and ordinal: the values as text; the place of a value is its code."""

    low: float = 0.0
    step: float = 1.0
    """Integer and count: cell = low + step * k, where k = 0, 1, 2, ... is the number in the matrix."""

    decimals: int | None = None
    """Continuous: the number of decimals of a written cell; None for the shortest text that gives the number back."""

    format: str | None = None
    """Datetime: the format of a written cell, as in strftime; None for a typed source."""

    missing: bool = False
    """Whether training examples have missing cells in the column."""


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


class LeftOut(BaseModel):
    """A column that is not modelled, and the reason in words."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str

    why: str


class Table(BaseModel):
    """The columns of a table in the source's order, with the fields of the matrix. JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    columns: tuple[Column, ...]

    fields: tuple[Field, ...]

    left_out: tuple[LeftOut, ...] = ()

    delimiter: str = ","
    decimal: str = "."
    """CSV: the delimiter and the decimal sign of the source."""
