"""Columns of dates and times: weeks, weekdays and seconds of the day, which together give the moment back.

A column of times without dates has the seconds of the day only."""

import numpy as np

from jensen.data.table.cells import Cells
from jensen.data.table.column import Column, Field, LeftOut, Stored
from jensen.data.table.dates import Moments, is_clock
from jensen.data.table.numbers import Typed

DAY = 86400
_STEPS = (DAY // 24, 60, 1)
"""Steps of a time in seconds."""


def moments_of_typed(moments: np.ndarray) -> Moments:
    """The days and the seconds of the day of datetime64 values (N,)."""
    missing = np.isnat(moments)
    ticks = np.where(missing, np.datetime64(0, "us"), moments).astype("datetime64[us]").astype(np.int64)
    days, micros = np.divmod(ticks, DAY * 1_000_000)
    return Moments(np.where(missing, np.nan, days), np.where(missing, np.nan, micros / 1e6))


def datetime_column(name: str, cells: Cells, moments: Moments, form: str | None, why: str) -> Typed:
    """A column of dates, or of dates with times."""
    present = ~np.isnan(moments.days)
    days, seconds = moments.days[present], moments.seconds[present]
    if not len(days):
        return LeftOut(name=name, why="every cell is missing")
    if present.all() and len(np.unique(days)) == 1 and len(np.unique(seconds)) == 1:
        return LeftOut(name=name, why="constant: every cell is the same date")
    low = float(_monday(days.min()))
    weeks = int((_monday(days.max()) - low) // 7) + 1
    clock = cells.stored == "time" if form is None else is_clock(form)
    step = float(next((step for step in _STEPS if not (seconds % step).any()), 0))
    missing = bool(~present.all())
    fields = [
        Field(name=f"{name}: week", column=0, law="whole", levels=max(2, weeks), missing=missing),
        Field(name=f"{name}: weekday", column=0, law="codes", levels=7, missing=missing),
    ]
    fields = [] if clock else fields
    if clock or seconds.any():
        law, levels = ("whole", DAY // int(step)) if step else ("real", None)
        fields.append(Field(name=f"{name}: second of day", column=0, law=law, levels=levels, missing=missing))
    in_text: Stored = "time" if clock else "timestamp" if seconds.any() else "date"
    stored = cells.stored if form is None else in_text
    column = Column(
        name=name, type="datetime", why=why, stored=stored, arrow=cells.arrow, low=low, step=step or 1.0, format=form,
        missing=missing, blank=cells.blank,
    )  # fmt: skip
    return column, tuple(fields)


def encoded(moments: Moments, column: Column, fields: tuple[Field, ...]) -> np.ndarray:
    """The weeks, weekdays and, if the column has times, the times (N, fields), before any limit to their ranges."""
    monday = _monday(moments.days)
    parts = [] if len(fields) == 1 else [(monday - column.low) / 7, moments.days - monday]
    if len(fields) != 2:
        parts.append(moments.seconds / (column.step if fields[-1].law == "whole" else 1.0))
    return np.stack(parts, axis=1)


def decoded(matrix: np.ndarray, column: Column, fields: tuple[Field, ...]) -> Moments:
    """The inverse of `encoded`; no date lies before the first week."""
    days = seconds = np.zeros(len(matrix))
    if len(fields) > 1:
        days = column.low + 7 * np.maximum(np.rint(matrix[:, 0]), 0) + np.rint(matrix[:, 1])
    if len(fields) != 2 and fields[-1].law == "whole":
        seconds = column.step * np.rint(matrix[:, -1])
    elif len(fields) != 2:
        seconds = np.clip(np.round(matrix[:, -1], 6), 0, DAY - 1e-6)
    missing = np.isnan(days) | np.isnan(seconds)
    return Moments(np.where(missing, np.nan, days), np.where(missing, np.nan, seconds))


def _monday(days: np.ndarray | float) -> np.ndarray | float:
    """The Monday of the week of a day; 1970-01-01 was a Thursday."""
    return days - (days + 3) % 7
