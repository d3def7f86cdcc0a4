"""The types of a table's columns, inferred from all rows, each with the reason in words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from jensen.data.table.cells import (
    MISSING,
    MISSING_NUMBER,
    Cells,
    RowName,
    is_number,
    numbers_of,
    quick_numbers,
    refuse_infinite,
    shown,
    text_cells,
    typed_cells,
)
from jensen.data.table.column import BY_WISH, Column, Field, LeftOut, Table
from jensen.data.table.dates import Moments, formats_of, is_clock, looks_like_date, moments_of, usual_formats
from jensen.data.table.datetimes import datetime_column, moments_of_typed
from jensen.data.table.numbers import Typed, number_column, typed_form, written_form
from jensen.data.table.wishes import Wish
from jensen.data.table.words import text_column
from jensen.errors import InputError

if TYPE_CHECKING:
    import pyarrow

MIXED = 0.9
"""The share of numbers among the cells from which the other cells count as mistakes."""
FEW_NUMBERS = 12
REPEATED = 5
"""Up to 12 different numbers beside words on 5 rows each are categories, as 1, 2, 3, 4+."""
IN_ORDER = 0.98
"""The share of steps forward in time from which rows are in the order of their dates."""
NO_WISH = Wish()


@dataclass(frozen=True)
class TextForm:
    """The form of a text file of cells, all of whose columns are text."""

    delimiter: str = ","
    decimal: str = "."
    header: bool = True


@dataclass(frozen=True)
class _Context:
    """What the types of all columns depend on."""

    form: TextForm | None
    row_name: RowName
    notes: list[str]
    cells: dict[str, Cells]


@dataclass(frozen=True)
class Inferred:
    """The types of a table."""

    table: Table
    notes: tuple[str, ...]
    """Doubtful choices, one line each."""
    cells: Mapping[str, Cells]
    """The cells of the modelled columns, as they were read."""


def infer(
    arrow: "pyarrow.Table",
    form: TextForm | None,
    wishes: Mapping[str, Wish],
    row_name: RowName,
    keep: bool = True,
) -> Inferred:
    """The table of all rows, with notes about doubtful choices.

    `form` is that of a text file, whose columns are all text; None for columns with types. `row_name` gives the name of
    a row in messages. The cells are kept if `keep`, which takes the memory of all numbers. Raises InputError for mixed
    columns, and if no column can be modelled.
    """
    if unknown := [name for name in wishes if name not in arrow.column_names]:
        known = ", ".join(map(repr, arrow.column_names[:20]))
        raise InputError(f"--columns: there is no column {unknown[0]!r}; the columns are {known}")
    if not arrow.num_rows or not arrow.num_columns:
        raise InputError("holds no cells; expected rows of named columns")
    context = _Context(form, row_name, [], {})
    columns: list[Column] = []
    fields: list[Field] = []
    left_out: list[LeftOut] = []
    for name in arrow.column_names:
        found = _typed(name, arrow.column(name), wishes.get(name, NO_WISH), context)
        if not keep:
            context.cells.clear()
        if isinstance(found, LeftOut):
            left_out.append(found)
            continue
        column, own = found
        fields += [field.model_copy(update={"column": len(columns)}) for field in own]
        columns.append(column)
    if not columns:
        why = "; ".join(f"{one.name!r}: {one.why}" for one in left_out[:3])
        raise InputError(f"no column can be modelled ({why}); give other columns, or their types by --columns")
    form = form or TextForm()
    table = Table(
        columns=tuple(columns), fields=tuple(fields), left_out=tuple(left_out),
        delimiter=form.delimiter, decimal=form.decimal, header=form.header,
    )  # fmt: skip
    return Inferred(table, tuple(context.notes), context.cells)


def _typed(name: str, column: "pyarrow.ChunkedArray", wish: Wish, context: _Context) -> Typed:
    if wish.leave_out:
        return LeftOut(name=name, why=BY_WISH)
    if context.form is None:
        try:
            cells = typed_cells(name, column)
        except InputError as error:
            return LeftOut(name=name, why=str(error).split("; ")[0].split(" has ", 1)[1])
    else:
        cells = _text(column, wish, context.form)
    context.cells[name] = cells
    found = _of_cells(name, cells, wish, context)
    if isinstance(found, LeftOut):
        return found
    return found[0].model_copy(update={"missing_words": wish.missing}), found[1]


def _text(column: "pyarrow.ChunkedArray", wish: Wish, form: TextForm) -> Cells:
    """The cells of a column of text, and its numbers where all cells are plain numbers."""
    whole = column.combine_chunks()
    quick = None if wish.values or wish.missing or form.decimal != "." else quick_numbers(whole)
    if quick is not None:  # no cell is missing, or has spaces around
        return Cells("text", text=whole, numbers=quick)
    return text_cells(column, (*MISSING, *(word.lower() for word in wish.missing)))


def _of_cells(name: str, cells: Cells, wish: Wish, context: _Context) -> Typed:
    if cells.numbers is not None and cells.text is None:
        if wish.values:
            raise InputError(
                f"--columns: {name!r} holds numbers, which have an order; give the type ordinal without values"
            )
        refuse_infinite(name, cells.numbers, context.row_name)
        if wish.type == "datetime":
            raise InputError(f"--columns: {name!r} holds numbers, which are no dates; choose another type")
        form = typed_form(cells.numbers, cells.stored == "integer")
        return number_column(name, cells, cells.numbers, form, wish.type)
    if cells.moments is not None:
        if wish.type not in (None, "datetime"):
            raise InputError(f"--columns: {name!r} holds dates; choose the type datetime or leave out")
        return datetime_column(name, cells, moments_of_typed(cells.moments), None, f"cells of the type {cells.arrow}")
    assert cells.text is not None
    numbers = None
    if context.form is not None and wish.type != "datetime" and not wish.values:
        numbers = _numbers(name, cells, wish, context)
    as_text = context.form is None and cells.stored != "text"
    if wish.type in (None, "datetime") and not as_text and cells.order is None:
        found = _dates(name, cells, wish, context, numbers is not None)
        if found is not None:
            return found
    if numbers is not None:
        assert context.form is not None
        assert numbers.text is not None
        assert numbers.numbers is not None
        form = written_form(numbers.text.drop_null(), context.form.decimal)
        context.cells[name] = replace(numbers, text=None)
        return number_column(name, numbers, numbers.numbers, form, wish.type)
    if wish.type in ("continuous", "integer", "count", "datetime"):
        raise InputError(_not_as_wished(name, cells, wish, context))
    return text_column(name, cells, wish.type, _wished_values(name, cells, wish, context))


def _wished_values(name: str, cells: Cells, wish: Wish, context: _Context) -> tuple[str, ...]:
    """The values of a wish. Raises InputError if the column holds another value."""
    import pyarrow
    from pyarrow import compute

    if wish.values:
        assert cells.text is not None
        other = compute.invert(compute.is_in(cells.text.drop_null(), value_set=pyarrow.array(wish.values)))
        if compute.any(other).as_py():
            first = cells.text.drop_null().filter(other)[0]
            row = compute.index(cells.text, first).as_py()
            raise InputError(
                f"--columns: {name!r} holds {shown(first)} in {context.row_name(row)}, which is not among its values; "
                "add it"
            )
    return wish.values


def numbers_of_text(name: str, column: "pyarrow.ChunkedArray", form: TextForm, row_name: RowName) -> np.ndarray | None:
    """The numbers of a column of a text file, NaN where a cell is missing; None for a column of words.

    Raises InputError for numbers with a few mistakes.
    """
    found = _numbers(name, text_cells(column), NO_WISH, _Context(form, row_name, [], {}))
    return None if found is None else found.numbers


def _numbers(name: str, cells: Cells, wish: Wish, context: _Context) -> Cells | None:
    """The cells as numbers; None if they are words. Raises InputError for numbers with a few mistakes."""
    from pyarrow import compute

    assert cells.text is not None
    assert context.form is not None
    if cells.numbers is not None:
        return cells
    text = cells.text
    quick = quick_numbers(text) if context.form.decimal == "." else None
    if quick is not None:
        return replace(cells, numbers=quick)
    number = is_number(text, context.form.decimal)
    others = text.filter(compute.invert(number))
    present = len(text) - text.null_count
    if len(others) == present:
        return None
    if len(others):
        blank = compute.is_in(compute.utf8_lower(others), value_set=_words(MISSING_NUMBER))
        mistakes = others.filter(compute.invert(blank))
        wished = wish.type in ("continuous", "integer", "count")
        if len(mistakes) and not wished and _are_words(text, number, mistakes):
            return None
        if len(mistakes) and wish.type in ("boolean", "categorical", "ordinal"):
            return None
        if len(mistakes):
            raise InputError(_mixed(name, text, mistakes[0], len(mistakes), context))
        text = compute.if_else(number, text, None)
        usual = others[0].as_py()
        cells = replace(cells, text=text, blank=usual if len(others) > text.null_count - len(others) else cells.blank)
    return replace(cells, numbers=numbers_of(cells.text, context.form.decimal))


def _are_words(text: "pyarrow.Array", number: "pyarrow.Array", others: "pyarrow.Array") -> bool:
    """Whether a column of numbers and other words is one of words, and not one of numbers with mistakes."""
    from pyarrow import compute

    if len(others) > (1 - MIXED) * (len(text) - text.null_count):
        return True
    few = compute.count_distinct(text.filter(number)).as_py() <= FEW_NUMBERS
    return few and len(others) >= REPEATED * compute.count_distinct(others).as_py()


def _words(words: tuple[str, ...]) -> "pyarrow.Array":
    import pyarrow

    return pyarrow.array(words)


def _mixed(
    name: str, text: "pyarrow.Array", mistake: object, many: int, context: _Context, what: str = "numbers"
) -> str:
    from pyarrow import compute

    row = compute.index(text, mistake).as_py()
    such = f" ({many} such cells)" if many > 1 else ""
    wish = f"{json.dumps(name)} = {{ missing = [{json.dumps(str(mistake), ensure_ascii=False)}] }}"
    return (
        f"{context.row_name(row)}, column {name!r}: holds {shown(mistake)}{such}, but the other cells are {what}; "
        f"correct it, or say by --columns that it is missing: {wish}"
    )


def _not_as_wished(name: str, cells: Cells, wish: Wish, context: _Context) -> str:
    assert cells.text is not None
    present = np.flatnonzero(~cells.missing)
    what = f"dates of the format {wish.format}" if wish.format else "dates" if wish.type == "datetime" else "numbers"
    if not len(present):
        return f"--columns: {name!r} has no cells; leave it out"
    row = int(present[0])
    if wish.type == "datetime" and wish.format:
        row = int(np.flatnonzero(~cells.missing & np.isnan(moments_of(cells.text, wish.format).days))[0])
    return (
        f"--columns: {name!r} cannot be of type {wish.type}, because {context.row_name(row)} holds "
        f"{shown(cells.text[row])}; expected {what}"
    )


# ---------------------------------------------------------------------------------------------- dates


def _dates(name: str, cells: Cells, wish: Wish, context: _Context, digits: bool) -> Typed | None:
    """A column of dates; None if the cells have no known format of dates. With `digits` they are numbers, too."""
    from pyarrow import compute

    assert cells.text is not None
    text = cells.text
    if digits and not looks_like_date(text.drop_null()[:1].to_pylist()):
        return None
    blank = compute.is_in(compute.utf8_lower(text), value_set=_words(MISSING_NUMBER))
    if compute.any(blank).as_py():
        text = compute.if_else(blank, None, text)
    distinct = compute.unique(text.drop_null())
    forms = formats_of(distinct) if wish.format is None else [wish.format]
    if not len(distinct):
        return None
    if not forms and not digits:
        _refuse_mistaken_date(name, text, distinct, context)
    if not forms:
        return None
    moments = [moments_of(text, form) for form in forms]
    if wish.format and bool((np.isnan(moments[0].days) & text.is_valid().to_numpy(zero_copy_only=False)).any()):
        return None
    differing = [0, *(place for place, one in enumerate(moments) if not _same(one, moments[0]))]
    forms, moments = [forms[place] for place in differing], [moments[place] for place in differing]
    chosen = 0
    if len(forms) > 1:
        rising = [_rising(one.days, one.seconds) for one in moments]
        sorted_by = [place for place, share in enumerate(rising) if share > IN_ORDER]
        chosen = sorted_by[0] if len(sorted_by) == 1 else 0
        other = next(form for form in forms if form != forms[chosen])
        why = ", because the rows are then in order" if len(sorted_by) == 1 else ""
        context.notes.append(
            f"column {name!r}: its dates may be {forms[chosen]} or {other}; taken as {forms[chosen]}{why}; --columns "
            "changes it"
        )
    context.cells[name] = replace(cells, text=text)
    words = cells.text.filter(blank)
    cells = replace(cells, blank=words[0].as_py() if len(words) and not cells.missing.any() else cells.blank)
    what = "times" if is_clock(forms[chosen]) else "dates"
    return datetime_column(name, cells, moments[chosen], forms[chosen], f"{what} of the format {forms[chosen]}")


def _refuse_mistaken_date(name: str, text: "pyarrow.Array", distinct: "pyarrow.Array", context: _Context) -> None:
    """Raises InputError if nearly all texts are dates of one format, and a few are not."""
    for form in usual_formats(distinct):
        wrong = np.isnan(moments_of(distinct, form).days)
        if wrong.sum() < (1 - MIXED) * len(distinct):
            mistake = distinct[int(wrong.argmax())]
            raise InputError(_mixed(name, text, mistake, int(wrong.sum()), context, f"dates of the format {form}"))


def _same(one: Moments, other: Moments) -> bool:
    """Whether two formats give the same moments, as %H and %-H do for hours of two digits."""
    return np.array_equal(one.days, other.days, equal_nan=True) and np.array_equal(
        one.seconds, other.seconds, equal_nan=True
    )


def _rising(days: np.ndarray, seconds: np.ndarray) -> float:
    """The share of steps from row to row that do not go back in time."""
    moments = days + seconds / 86400
    steps = np.diff(moments[~np.isnan(moments)])
    return float((steps >= 0).mean()) if len(steps) else 0.0
