"""The calibration of imputations as a table for a terminal, as a picture, and as a section of a report."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jensen.bound import Estimate
from jensen.data.examples import counted
from jensen.inference.calibration import Calibration, Coverage
from jensen.report.album import Album
from jensen.report.charts import BLUE, GREY, INK, RESOLUTION, WIDTH, drawing, plain
from jensen.report.render import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

# ---------------------------------------------------------------------------------------------- table


def calibration_table(found: Calibration) -> "Table":
    """The nominal and the measured coverage, for a terminal."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE)
    shown.add_column("intervals of", justify="right")
    shown.add_column("hold the truth, %", justify="right", no_wrap=True)
    for name, (cell,) in _rows(found).items():
        shown.add_row(name, cell)
    return shown


def _rows(found: Calibration) -> dict[str, list[str]]:
    return {
        f"{100 * one.nominal:g} %": [
            f"{100 * one.share.mean:.1f} ± {100 * one.share.standard_error:.1f}".replace("-", "−")
        ]
        for one in found.coverage
    }


def remarks(found: Calibration) -> list[str]:
    """Notes on the numbers, one line each."""
    some = f"{found.undecided:,} of {found.entries:,} hidden entries count; in the others all draws equal the truth."
    return [
        f"{counted(found.examples)}, mask {found.mask}, {found.draws} draws each; ± is one standard error.",
        some if found.undecided < found.entries else f"All {found.entries:,} hidden entries count.",
    ]


# ---------------------------------------------------------------------------------------------- picture


@drawing
def calibration_picture(found: Calibration) -> "Figure":
    """Coverage and ranks of imputations."""
    return coverage_picture(found.coverage, found.ranks, "rank of the truth among the draws")


@drawing
def coverage_picture(coverage: Sequence[Coverage], ranks: Sequence[Estimate], of: str) -> "Figure":
    """Measured against nominal coverage, and a histogram of `ranks` with the label `of`, ± two standard errors."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 2.9), dpi=RESOLUTION, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_coverage(left, coverage)
    _draw_ranks(right, ranks)
    right.set_xlabel(of)
    for axes in (left, right):
        plain(axes)
    return figure


def _draw_coverage(axes: "Axes", coverage: Sequence[Coverage]) -> None:
    nominal = [one.nominal for one in coverage]
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    shares, errors = zip(*((one.share.mean, 2 * one.share.standard_error) for one in coverage), strict=True)
    axes.errorbar(nominal, shares, errors, color=BLUE, marker="o", markersize=4, linestyle="none", capsize=3)
    axes.set_xticks(nominal, [f"{100 * level:g} %" for level in nominal])
    axes.set_ylim(0, 1.03)
    axes.set_xlim(0.3, 1.03)
    axes.set_xlabel("central interval")
    axes.set_ylabel("share that holds the truth")


def _draw_ranks(axes: "Axes", ranks: Sequence[Estimate]) -> None:
    count = len(ranks)
    middles = [(number + 0.5) / count for number in range(count)]
    means, errors = zip(*((rank.mean, 2 * rank.standard_error) for rank in ranks), strict=True)
    axes.bar(middles, means, 0.94 / count, color="#c4c4c4", yerr=errors, ecolor=INK, error_kw={"elinewidth": 0.9})
    axes.axhline(1 / count, color=GREY, linestyle="--", linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("share")


# ---------------------------------------------------------------------------------------------- report


def imputation_section(found: Calibration, album: Album) -> Section:
    """The calibration of imputations as a section of a report."""
    picture = calibration_picture(found)
    return Section(
        "Imputation",
        "imputation",
        {
            "source": found.source,
            "method": found.method,
            "rows": {f"intervals of {name}": cells for name, cells in _rows(found).items()},
            "notes": remarks(found),
            "calibration": album.chart("calibration", picture, "Coverage of intervals and ranks of the truth"),
        },
    )
