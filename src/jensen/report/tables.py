"""Tables of means with errors, for a terminal and for a page."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jensen.evaluation.measure import Groups, Measure, aligned, typeset

if TYPE_CHECKING:
    from rich.table import Table

Row = tuple[str, str, str, str, str, str]  # name, nats, its error, bits, its error, formula in HTML


def measures_table(title: str, groups: Groups, remarks: Sequence[str], *, bits: bool = True) -> "Table":
    """Measures for a terminal: nats per example and, with `bits`, bits per dimension, each ± standard error."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE, title=Text(title), title_justify="left", caption_justify="left")
    shown.add_column("", max_width=34, overflow="fold")  # names fold where the terminal is narrow, numbers never
    for header in ("nats per example", "bits per dimension") if bits else ("nats per row",):
        shown.add_column(header, no_wrap=True, min_width=max(len(header), 16))
    for heading, rows in groups.items():
        nats = aligned([measure.nats for measure in rows.values()])
        columns = [nats, aligned([measure.bits_per_dimension for measure in rows.values()])] if bits else [nats]
        shown.add_row(Text(heading, style="bold"))
        for name, *cells in zip(rows, *columns, strict=True):
            shown.add_row(Text(f"  {name}"), *cells)
        shown.add_section()
    shown.caption = Text("\n".join(remarks), style="not dim not italic")
    return shown


def measure_rows(groups: Groups, formula: Callable[[str, str], str]) -> dict[str, list[Row]]:
    """The rows of measures for a page; `formula` explains a row in HTML, given the heading and the name of the row."""
    return {
        heading: [_row(name, measure, formula(heading, name)) for name, measure in rows.items()]
        for heading, rows in groups.items()
    }


def _row(name: str, measure: Measure, formula: str) -> Row:
    nats, nats_error = typeset(measure.nats).split(" ± ")
    in_bits, bits_error = typeset(measure.bits_per_dimension).split(" ± ")
    return name, nats, nats_error, in_bits, bits_error, formula
