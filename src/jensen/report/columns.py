"""The columns of a table in a report: their types, terms of the bound and charts; and the most unlikely rows."""

from typing import TYPE_CHECKING, Any

from jensen.evaluation.columns import ColumnBound
from jensen.evaluation.evaluation import Evaluation
from jensen.evaluation.measure import typeset
from jensen.report.album import Album
from jensen.report.column_charts import MOST, column_charts
from jensen.report.render import Section
from jensen.report.results import Results, UnlikelyRow

if TYPE_CHECKING:
    from rich.table import Table

LISTED = 40  # columns in the table of a terminal


def columns_table(evaluation: Evaluation) -> "Table | None":
    """The bound by columns for a terminal; None if the data are no table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not evaluation.columns:
        return None
    shown = Table(box=box.SIMPLE, title=Text("The reconstruction by columns"), title_justify="left")
    heads = ("", "type", "missing", "nats per row", "independent columns")
    for place, head in enumerate(heads):
        shown.add_column(head, justify="left" if place < 2 else "right", no_wrap=place > 0)
    for column in evaluation.columns[:LISTED]:
        shown.add_row(Text(column.name), *cells(column))
    more = len(evaluation.columns) - LISTED
    lines = [*([f"and {more} more columns in evaluation.json"] if more > 0 else []), EXPLAINED]
    shown.caption = Text("\n".join(lines), style="not dim not italic")
    shown.caption_justify = "left"
    return shown


EXPLAINED = (
    "nats per row: E_q log p(x_j|z), the term of each column in the bound. Independent columns: log p(x_j) of a model "
    "fitted to the training rows that knows nothing of the other columns."
)


def cells(column: ColumnBound) -> list[str]:
    """Type, share of missing cells, nats and those of the independent model, as text."""
    alone = "" if column.independent is None else typeset(column.independent)
    return [column.type, f"{column.missing:.1%}" if column.missing else "", typeset(column.nats), alone]


def column_section(results: Results, album: Album) -> Section | None:
    """The columns of a table: types, terms of the bound, and real against sampled cells; None for other data."""
    table, drawn, made = results.spec.table, results.exhibits.drawn, results.exhibits.drawn_samples
    if table is None or drawn is None or made is None:
        return None
    data, samples = (results.spec.preparation.to_raw(x) for x in (drawn.x, made))
    alt = "Shares of real and of sampled cells in each column"
    values: dict[str, Any] = {
        "rows": {column.name: cells(column) for column in results.evaluation.columns},
        "left_out": {one.name: one.why for one in table.left_out},
        "why": {column.name: column.why for column in table.columns},
        "picture": album.chart("columns", column_charts(data, samples, table), alt),
        "count": f"{len(data):,}",
        "hidden": max(0, len(table.columns) - MOST),
        "explained": EXPLAINED,
    }
    return Section("Columns", "columns", values)


def unlikely_rows(results: Results) -> list[dict[str, Any]]:
    """The most unlikely rows for a page: key, bound, and the cells that make the row unlikely."""
    return [_row(row) for row in results.unlikely]


def _row(row: UnlikelyRow) -> dict[str, Any]:
    return {
        "key": row.key,
        "bound": typeset(row.bound),
        "why": [
            f"{cell.column} = {text or 'missing'} ({cell.log_prob:.1f} nats, usually {cell.usual:.1f})"
            for cell, text in zip(row.cells, row.texts, strict=True)
        ],
    }
