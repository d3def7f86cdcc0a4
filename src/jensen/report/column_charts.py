"""The columns of a table as charts: real cells against sampled ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jensen.data.table.column import Table
from jensen.data.table.datetimes import DAY
from jensen.data.table.matrix import decode
from jensen.data.table.views import compared, ordered_columns
from jensen.data.table.write import text_of
from jensen.report.charts import BLUE, RESOLUTION, WIDTH, drawing, plain, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 30  # columns that are drawn
BARS = 8  # values of a column that are drawn as bars; from this many on, the rest is one bar
FEW = 12  # up to this many different numbers are drawn as bars, too
INSIDE = (0.005, 0.995)  # the quantiles of real cells within which numbers are drawn
DATA, SAMPLES = {"color": "#c4c4c4", "label": "data"}, {"color": BLUE, "label": "samples"}


@drawing
def column_charts(data: np.ndarray, samples: np.ndarray, table: Table) -> "Figure":
    """A panel for each column: shares of real cells filled, of sampled cells as outlines; both are (rows, fields)."""
    from matplotlib.figure import Figure

    count = min(MOST, len(table.columns))
    rows = -(-count // 3)
    figure = Figure(figsize=(WIDTH, 1.75 * rows + 0.4), dpi=RESOLUTION, layout="constrained")
    panels = [plain(figure.add_subplot(rows, 3, place + 1)) for place in range(count)]
    numbers, ordered = (compared(data, table), compared(samples, table)), ordered_columns(table)
    for place, axes in enumerate(panels):
        column, both = table.columns[place], [of[:, place] for of in numbers]
        known = [values[~np.isnan(values)] for values in both]
        few = len(np.unique(np.concatenate(known))) <= FEW
        if ordered[place] and not few:
            grid = column.type in ("integer", "count") and table.fields[table.fields_of(place)[0]].law != "real"
            if column.type == "datetime":
                _histogram(axes, *(seconds / DAY for seconds in known))
                _date_ticks(axes, clock=column.stored == "time")
            else:
                _histogram(axes, *(column.low + column.step * one if grid else one for one in known))
        else:
            _bars(axes, both, _texts(table, place, data), _texts(table, place, samples), ordered=ordered[place])
        axes.set_title(plain_text(column.name, 30), fontsize=8)
        axes.set_yticks([])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    return figure


def _texts(table: Table, place: int, matrix: np.ndarray) -> list[str]:
    """The cells of a column as they are written; a missing cell is `missing`."""
    own = table.fields_of(place)
    one = table.model_copy(
        update={
            "columns": (table.columns[place],),
            "fields": tuple(table.fields[k].model_copy(update={"column": 0}) for k in own),
        }
    )
    column = decode(matrix[:, list(own)], one).column(0)
    texts = text_of(table.columns[place].name, column, table.columns[place], table.decimal).to_pylist()
    return ["missing" if null else text for null, text in zip(column.is_null().to_pylist(), texts, strict=True)]


def _histogram(axes: "Axes", data: np.ndarray, samples: np.ndarray) -> None:
    """Histograms within the central range of the data; cells beyond count, but are not drawn."""
    low, high = np.quantile(data if len(data) else samples, INSIDE)
    edges = np.linspace(low, high if high > low else low + 1, 31).tolist()
    shares = [np.full(len(values), 1 / max(1, len(values))) for values in (data, samples)]
    axes.hist(data, bins=edges, weights=shares[0], **DATA)  # type: ignore[arg-type]
    axes.hist(samples, bins=edges, weights=shares[1], histtype="step", linewidth=1.2, **SAMPLES)  # type: ignore[arg-type]
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5))
    axes.xaxis.get_offset_text().set_fontsize(7)


def _date_ticks(axes: "Axes", *, clock: bool) -> None:
    """At most four ticks for days after 1970: years where these are enough, else months, days or times."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, DateFormatter

    locator = AutoDateLocator(minticks=2, maxticks=4)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M") if clock else ConciseDateFormatter(locator))


def _bars(axes: "Axes", both: Sequence[np.ndarray], data: list[str], samples: list[str], *, ordered: bool) -> None:
    """Bars for the values: in their order if they have one, else the most frequent first."""
    shares = [{value: texts.count(value) / len(texts) for value in set(texts)} for texts in (data, samples)]
    place: dict[str, Any] = {}
    for numbers, texts in zip(both, (data, samples), strict=True):
        place |= dict(zip(texts, numbers.tolist(), strict=True))
    frequent = sorted(place, key=lambda value: -shares[0].get(value, 0))
    names = sorted(place, key=lambda value: np.nan_to_num(place[value], nan=np.inf)) if ordered else frequent
    if len(names) > max(BARS, FEW if ordered else 0):
        rest = names[BARS - 1 :]
        for of in shares:
            of["others"] = sum(of.get(name, 0) for name in rest)
        names = [*names[: BARS - 1], "others"]
    x = np.arange(len(names))
    axes.bar(x, [shares[0].get(name, 0) for name in names], width=0.8, **DATA)  # type: ignore[arg-type]
    outline = {"facecolor": "none", "edgecolor": BLUE, "linewidth": 1.2, "label": "samples"}
    axes.bar(x, [shares[1].get(name, 0) for name in names], width=0.55, **outline)  # type: ignore[arg-type]
    turned = sum(map(len, names)) > 24
    labels = [plain_text(name, 14) for name in names]
    axes.set_xticks(x, labels, rotation=40 if turned else 0, ha="right" if turned else "center", fontsize=6.5)
    axes.tick_params(axis="x", labelsize=6.5)
    axes.grid(visible=False, axis="x")
