"""Wishes about the types of columns, in TOML: `age = "integer"`, `grade = ["low", "high"]`, `id = "leave out"`."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from jensen.data.table.column import ColumnType, Table
from jensen.errors import InputError

LEAVE_OUT = "leave out"
_TYPES = (*get_args(ColumnType), LEAVE_OUT)


@dataclass(frozen=True)
class Wish:
    """The wish about one column; None and () leave the choice to the data."""

    type: ColumnType | None = None
    leave_out: bool = False
    values: tuple[str, ...] = ()
    """All values of an ordinal column, in ascending order."""
    format: str | None = None
    """The format of dates."""
    missing: tuple[str, ...] = ()
    """Further words for a missing cell."""


def toml_of(given: object) -> object:
    """The text of the wishes that a user gives as the path of a file, as text, or from Python as a dict.

    Raises InputError for a file that cannot be read and for wishes that cannot be understood.
    """
    if isinstance(given, Mapping):
        given = "".join(f"{json.dumps(str(name))} = {_toml(wish)}\n" for name, wish in given.items())
    if isinstance(given, Path) or (isinstance(given, str) and "=" not in given and given.strip()):
        try:
            given = Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read ({error}); give a file in TOML") from error
    if isinstance(given, str):
        parsed(given)
    return given


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(name))} = {_toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def parsed(text: str) -> dict[str, Wish]:
    """The wishes by the names of columns. Raises InputError."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f'is not TOML ({error}); write a line such as age = "integer"') from error
    return {name: _wish(name, wish) for name, wish in found.items()}


def _wish(name: str, given: Any) -> Wish:
    if isinstance(given, str):
        given = {"type": given}
    if isinstance(given, list):
        given = {"type": "ordinal", "values": given}
    if not isinstance(given, dict) or not given.keys() <= {"type", "values", "format", "missing"}:
        raise InputError(
            f"{name} = {given!r} is not understood; expected a type, a list of values, or a table with "
            "type, values, format and missing"
        )
    kind = given.get("type", "datetime" if "format" in given else None)
    if kind is not None and kind not in _TYPES:
        raise InputError(f"{name} is of the unknown type {kind!r}; expected one of {', '.join(_TYPES)}")
    lists = {key: given.get(key, []) for key in ("values", "missing")}
    for key, texts in lists.items():
        if not isinstance(texts, list) or len({str(text) for text in texts}) < len(texts):
            raise InputError(f"{key} of {name} is {texts!r}; expected a list of different texts")
    from jensen.data.table.dates import known  # needs NumPy, which options of reading do not

    form = given.get("format")
    if form is not None and (not isinstance(form, str) or not known(form)):
        raise InputError(f"the format of {name} is {form!r}; expected one such as '%d.%m.%Y %H:%M'")
    values, missing = (tuple(map(str, lists[key])) for key in ("values", "missing"))
    return Wish(None if kind == LEAVE_OUT else kind, kind == LEAVE_OUT, values, form, missing)


def written(table: Table) -> str:
    """The types of a table's columns as wishes in TOML, with the reasons as comments."""
    lines = [
        "# The type of each column: continuous, integer, count, boolean, categorical, ordinal, datetime or leave out.",
        '# A list is an ordinal scale: grade = ["low", "high"]. Dates have a format, as in strftime.',
        '# Further words for a missing cell: age = { type = "integer", missing = ["unknown"] }',
        "",
    ]
    for column in table.columns:
        wish: object = column.type
        if column.type == "ordinal" and column.stored == "text":
            wish = list(column.values)
        if column.format is not None:
            wish = {"type": "datetime", "format": column.format}
        if column.missing_words:
            extra = {"values": list(column.values)} if column.type == "ordinal" and column.stored == "text" else {}
            form = {} if column.format is None else {"format": column.format}
            wish = {"type": column.type, **extra, **form, "missing": list(column.missing_words)}
        lines.append(f"{json.dumps(column.name, ensure_ascii=False)} = {_toml(wish)}  # {_comment(column.why)}")
    lines += [
        f"{json.dumps(one.name, ensure_ascii=False)} = {json.dumps(LEAVE_OUT)}  # {_comment(one.why)}"
        for one in table.left_out
    ]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
