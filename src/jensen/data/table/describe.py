"""The columns of a table as lines of text: the type of each, the share of missing cells, and the reason."""

from collections import Counter
from collections.abc import Sequence

from jensen.data.table.column import LeftOut, Table

SHOWN = 60
"""The most columns that are listed."""
WIDEST = 28
NAMED = 8
"""The most columns that one line names."""


def summary(table: Table) -> str:
    """The number of columns of each type, in words."""
    kinds = Counter(column.type for column in table.columns)
    many = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{many}{f'; {len(table.left_out)} left out' if table.left_out else ''}"


def left_out(columns: Sequence[LeftOut]) -> str:
    """Columns that are left out, in one line with the reasons; empty if there are none."""
    few = [f"{one.name!r} ({one.why})" for one in columns[:NAMED]]
    more = f" and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
    return f"{', '.join(few)}{more}"


def described(table: Table, missing: Sequence[float]) -> list[str]:
    """A line for each column, aligned; `missing` is the share of missing cells of each modelled column."""
    rows: list[tuple[str, str, str, str]] = [
        (_cut(column.name), column.type, f"{share:.1%} missing" if share else "", column.why)
        for column, share in zip(table.columns, missing, strict=True)
    ]
    rows += [(_cut(one.name), "left out", "", one.why) for one in table.left_out]
    more = len(rows) - SHOWN
    rows = rows[:SHOWN]
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)).rstrip() for row in rows
    ]
    return [*lines, *([f"and {more} more; --write-columns FILE writes them all"] if more > 0 else [])]


def _cut(name: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in name)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
