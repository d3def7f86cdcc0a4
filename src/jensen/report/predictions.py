"""Predictions as a table for a terminal, as pictures, and as a section of a report."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jensen.bound import Estimate
from jensen.evaluation.measure import typeset
from jensen.inference.prediction import PredictionRecord, load_predictions
from jensen.records import write_file
from jensen.report import page
from jensen.report.album import Album
from jensen.report.charts import BLUE, GREY, INK, RESOLUTION, WIDTH, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

WRITTEN_OUT = 20  # classes whose counts are written into the confusion matrix


# ---------------------------------------------------------------------------------------------- table


def predictions_table(record: PredictionRecord) -> "Table":
    """The model beside always predicting p(y), for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE, title=f"{record.source}: {record.examples:,} examples", title_justify="left")
    for header in ("", "p(y|x)", "always p(y)"):
        shown.add_column(header, justify="right" if header else "left", no_wrap=True)
    for name, cells in _rows(record).items():
        shown.add_row(name, *cells)
    shown.caption = Text("\n".join(remarks(record)), style="not dim not italic")
    shown.caption_justify = "left"
    return shown


def _rows(record: PredictionRecord) -> dict[str, tuple[str, str]]:
    return {
        "accuracy, %": (_percent(record.accuracy), _percent(record.baseline_accuracy)),
        "log-loss, nats": (typeset(record.log_loss), typeset(record.baseline_log_loss)),
        "expected calibration error, %": (f"{100 * record.calibration_error:.2f}", ""),
    }


def remarks(record: PredictionRecord) -> list[str]:
    """What the numbers rest on, a line each."""
    chance = record.chance_calibration_error
    lines = [
        f"A calibrated model of such confidence would show a calibration error of {100 * chance.mean:.2f} ± "
        f"{100 * chance.standard_error:.2f} % by chance.",
        f"Monte-Carlo error of the predicted label's probability, on average: {error_in_words(record.standard_error)}.",
    ]
    if np.isfinite(record.effective_sample_size):
        lines.append(f"Effective sample size: {record.effective_sample_size:.3g} (median).")
    cost = f"Network evaluations per example: {record.evaluations:.4g}"
    return [*lines, f"{cost}, {record.bounds:.2g} times one bound's." if record.bounds else f"{cost}."]


def error_in_words(error: float) -> str:
    """A Monte-Carlo error to two digits; of a single draw, which tells of none, that it is unknown."""
    return f"{error:.2g}" if np.isfinite(error) else "unknown (a single draw)"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.2f} ± {100 * estimate.standard_error:.2f}"


# ---------------------------------------------------------------------------------------------- pictures


def calibration_chart(record: PredictionRecord) -> "Figure":
    """How often the predicted label is right against its probability, and how many examples have that one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 4.6), dpi=RESOLUTION, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = record.calibration
    confidence, share = [b.confidence for b in bins], [b.right.mean for b in bins]
    errors = [b.right.standard_error for b in bins]
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    style = {"color": BLUE, "marker": "o", "markersize": 4, "linewidth": 1.2, "elinewidth": 0.9, "capsize": 2}
    upper.errorbar(confidence, share, errors, label="share right, ± one standard error", **style)
    upper.set_ylabel("share of right labels")
    upper.set_ylim(-0.03, 1.03)
    upper.legend(loc="upper left", frameon=False, fontsize=8)
    lower.bar([b.low for b in bins], [b.right.count for b in bins], bins[0].high - bins[0].low, align="edge",
              color="#c4c4c4", edgecolor="white")  # fmt: skip
    lower.set_yscale("log")
    lower.set_ylim(bottom=0.5)
    lower.set_ylabel("examples")
    lower.set_xlabel("probability of the predicted label")
    lower.set_xlim(0, 1)
    for axes in (upper, lower):
        plain(axes)
    return figure


def confusion_chart(record: PredictionRecord) -> "Figure":
    """Counts of true against predicted labels, the darker the larger their share of the true label's examples."""
    from matplotlib.figure import Figure

    counts = np.array(record.confusion)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(WIDTH * 0.8, WIDTH * 0.66), dpi=RESOLUTION, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Greys", vmin=0, vmax=1)
    places = range(len(counts))
    if len(counts) <= WRITTEN_OUT:
        axes.set_xticks(places, [_short(name) for name in record.class_names])
        axes.set_yticks(places, [_short(name) for name in record.class_names])
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if share[row, column] > 0.5 else INK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xlabel("predicted label")
    axes.set_ylabel("true label")
    axes.tick_params(labelsize=8)
    bar = figure.colorbar(image, ax=axes, shrink=0.7)
    bar.set_label("share of the true label's examples", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def _short(name: str) -> str:
    """A name that a user chose: cut, and without what matplotlib would take for mathematics."""
    return (name if len(name) <= 12 else f"{name[:11]}…").replace("$", r"\$")


# ---------------------------------------------------------------------------------------------- page


def prediction_section(folder: Path, weights: int) -> str:
    """The section of a report about the predictions in a run's folder; empty where there are none by these weights."""
    record = load_predictions(folder)
    if record is None or record.weights != weights:
        return ""
    return _section(record, Album(folder / "pictures", "prediction-"))


def _section(record: PredictionRecord, album: Album) -> str:
    notes = "".join(f"<li>{remark}</li>" for remark in remarks(record))
    return page.section(
        "Prediction",
        page.columns(("p(y|x) (1.4)", "always p(y)"), {name: list(cells) for name, cells in _rows(record).items()}),
        f'<p class="small">Means over {record.examples:,} examples ± one standard error.</p>',
        f'<ul class="small">{notes}</ul>',
        album.chart(
            "calibration",
            calibration_chart(record),
            "Share of right labels against the probability of the predicted label",
            "Above: on the dashed line, labels predicted with probability p are right as often as p says. Below: how "
            "many examples there are.",
        ),
        album.chart(
            "confusion",
            confusion_chart(record),
            "Counts of true against predicted labels",
            "How many examples of each true label (rows) got which predicted label (columns).",
        ),
    )


def write_page(folder: Path, record: PredictionRecord, title: str) -> Path:
    """Write predictions.html, one page that needs no network, and its pictures into `folder`; gives the page's path."""
    from html import escape

    top = f'<h1>{escape(title)}</h1>\n<p class="lead">Labels predicted for {escape(record.source)}.</p>'
    body = "\n".join([top, _section(record, Album(folder / "pictures", "prediction-"))])
    path = folder / "predictions.html"
    write_file(path, page.page(f"{title}: predictions", body).encode())
    return path
