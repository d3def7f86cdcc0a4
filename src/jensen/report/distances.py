"""Fréchet distances as a terminal table, and as a picture."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jensen.bound import Estimate
from jensen.evaluation.measure import aligned
from jensen.features.distance import Distance
from jensen.report.charts import GREY, RESOLUTION, WIDTH, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

# Sampler number i of a chart takes look i. Markers and lines tell samplers apart in greyscale too; there is one marker
# more than lines and colours, so that looks repeat only after 42 samplers.
MARKERS = ("o", "s", "^", "D", "v", "x", "P")
LINES = ("-", "--", "-.", (0, (9, 2)), ":", (0, (5, 1, 1, 1, 1, 1)))
COLOURS = ("#222222", "#1f4e79", "#d9822b", "#3b8ac4", "#6b4c9a", "#4c9a5b")


def distances_table(distances: Sequence[Distance], test: Estimate | None) -> "Table":
    """One row for the floor, then one per way of sampling; `test` is the classifier's accuracy on the test split."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    first = distances[0]
    title = f"Fréchet distance to the test split of {first.cell.n:,} samples"
    shown = Table(box=box.SIMPLE, title=title, title_justify="left", caption_justify="left", padding=(0, 1, 0, 0))
    shown.add_column("", overflow="fold")  # names fold where the terminal is narrow, numbers never
    for header in ("steps", "distance", "over\nfloor", "label\nright, %", "network\ncalls", "ms per\nsample"):
        shown.add_column(header, justify="right", no_wrap=True)
    values = aligned([first.floor, *(one.distance for one in distances)])
    ratios = aligned([one.ratio for one in distances])
    shown.add_row("training split", "", values[0], "1", "", "", "")
    shown.add_section()
    for one, value, ratio in zip(distances, values[1:], ratios, strict=True):
        steps = "" if one.cell.steps is None else str(one.cell.steps)
        cells = [value, ratio, _percent(one.recognised), f"{one.evaluations:.4g}", f"{1000 * one.seconds:.3g}"]
        shown.add_row(one.cell.sampler or "samples", steps, *cells)
    lines = [f"The classifier recognises {_percent(test)} % of the test split."] if test else []
    if first.cell.guidance:
        away = ", away from a worse model" if first.cell.guide else ""
        lines.append(f"Guidance {first.cell.guidance:g}{away}.")
    if first.floor.mean < 3 * first.floor.standard_error:
        lines.append("The floor is within three errors of 0, so the ratio to it is not to be trusted; raise --n.")
    lines.append(f"Times: {', '.join(sorted({_computer(one) for one in distances}))}.")
    shown.caption = Text(" ".join(lines), style="not dim not italic")
    return shown


def _computer(distance: Distance) -> str:
    """The machine on which a distance was measured."""
    made = distance.provenance
    return f"{made.device}, threads: {made.threads}, processes: {made.processes}"


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{100 * estimate.mean:.1f} ± {100 * estimate.standard_error:.1f}"


@drawing
def distances_chart(distances: Sequence[Distance]) -> "Figure | None":
    """Distance against the number of steps, one line per sampler, the floor dashed; None for a model without steps."""
    from matplotlib.figure import Figure

    drawn = [one for one in distances if one.cell.steps is not None and math.isfinite(one.distance.mean)]
    if not drawn:
        return None
    figure = Figure(figsize=(WIDTH, 4.2), dpi=RESOLUTION, layout="constrained")
    axes = figure.subplots()
    samplers = dict.fromkeys(str(one.cell.sampler) for one in drawn)  # in the order in which they were first measured
    for number, sampler in enumerate(samplers):
        _draw(axes, sampler, number, [one for one in drawn if one.cell.sampler == sampler])
    floor = drawn[0].floor
    axes.axhline(floor.mean, color=GREY, linestyle=(0, (6, 4)), linewidth=1.2, label="floor: training split")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes, [one.cell.steps or 1 for one in drawn])
    axes.set_xlabel("steps of the sampler")
    axes.set_ylabel(f"Fréchet distance to the test split, {drawn[0].cell.n:,} samples")
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=8, handlelength=3.6)
    return figure


def _draw(axes: "Axes", sampler: str, number: int, distances: Sequence[Distance]) -> None:
    rows = sorted((one.cell.steps or 1, one.distance.mean, one.distance.standard_error) for one in distances)
    steps, means, errors = zip(*rows, strict=True)
    line = LINES[number % len(LINES)]
    style = {
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 5,
        "markerfacecolor": "white",
        "color": COLOURS[number % len(COLOURS)],
        "linewidth": 1.3,
        "elinewidth": 0.9,
        "capsize": 2,
    }
    axes.errorbar(steps, means, errors, linestyle=line, label=distances[0].cell.sampler, **style)  # type: ignore[arg-type]


def _plain_numbers(axes: "Axes", steps: Sequence[int]) -> None:
    """Put ticks at the measured numbers of steps, and show distances as plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.xaxis.set_major_locator(FixedLocator(sorted(set(steps))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:,.4g}"))
        axis.label.set_fontsize(9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
