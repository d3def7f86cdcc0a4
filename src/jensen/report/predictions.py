"""Predictions as a table for a terminal, as pictures, and as a section of a report."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jensen.bound import Estimate
from jensen.data.examples import counted
from jensen.evaluation.measure import doubts, typeset
from jensen.inference.prediction import PredictionRecord
from jensen.records import named_by
from jensen.report.album import Album
from jensen.report.charts import BLUE, GREY, INK, RESOLUTION, WIDTH, drawing, plain, plain_text
from jensen.report.render import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

NO_BASELINE = "There is no constant prediction to compare with: the training data of the run could not be read again."
WRITTEN_OUT = 20  # maximum number of classes for which counts are written into the confusion matrix


# ---------------------------------------------------------------------------------------------- table


def predictions_table(record: PredictionRecord) -> "Table":
    """The quality of the model beside the quality of the constant prediction p(y), for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE, title=f"{record.source}: {counted(record.examples)}", title_justify="left")
    for header in ("", *_heads(record)):
        shown.add_column(header, justify="right" if header else "left", no_wrap=True)
    for name, cells in _rows(record).items():
        shown.add_row(name, *cells)
    shown.caption = Text("\n".join(remarks(record)), style="not dim not italic")
    shown.caption_justify = "left"
    return shown


def _heads(record: PredictionRecord) -> tuple[str, ...]:
    return ("p(y|x)",) if record.baseline_log_loss is None else ("p(y|x)", "always p(y)")


def _rows(record: PredictionRecord) -> dict[str, tuple[str, ...]]:
    rows: dict[str, tuple[str, ...]] = {
        "accuracy, %": (_percent(record.accuracy),),
        "log-loss, nats": (typeset(record.log_loss),),
        "expected calibration error, %": (f"{100 * record.calibration_error:.2f}",),
    }
    if record.baseline_accuracy is None or record.baseline_log_loss is None:
        return rows
    always = (_percent(record.baseline_accuracy), typeset(record.baseline_log_loss), "")
    return {name: (*cells, cell) for (name, cells), cell in zip(rows.items(), always, strict=True)}


def remarks(record: PredictionRecord) -> list[str]:
    """Notes on the results, one line each."""
    chance = record.chance_calibration_error
    lines = [] if record.baseline_log_loss else [NO_BASELINE]
    lines += [
        f"A calibrated model with these probabilities would have a calibration error of {100 * chance.mean:.2f} ± "
        f"{100 * chance.standard_error:.2f} % by chance.",
        f"Monte-Carlo error of the predicted label's probability, on average: {error_in_words(record.standard_error)}.",
    ]
    if np.isfinite(record.effective_sample_size):
        lines.append(f"Effective sample size: {record.effective_sample_size:.3g} (median).")
    cost = f"Network evaluations per example: {record.evaluations:.4g}"
    lines.append(f"{cost}, {record.bounds:.2g} times one bound's." if record.bounds else f"{cost}.")
    return lines + doubts({"log loss": record.log_loss, "accuracy": record.accuracy})


def error_in_words(error: float) -> str:
    """A Monte-Carlo error to two digits; "unknown" for a single draw."""
    return f"{error:.2g}" if np.isfinite(error) else "unknown (a single draw)"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.2f} ± {100 * estimate.standard_error:.2f}"


# ---------------------------------------------------------------------------------------------- pictures


@drawing
def calibration_chart(record: PredictionRecord) -> "Figure":
    """The share of right labels against the predicted probability, and the examples at each probability."""
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


@drawing
def confusion_chart(record: PredictionRecord) -> "Figure":
    """Counts of true against predicted labels; darker cells have a larger share of the examples of the true label."""
    from matplotlib.figure import Figure

    counts = np.array(record.confusion)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(WIDTH * 0.8, WIDTH * 0.66), dpi=RESOLUTION, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Greys", vmin=0, vmax=1)
    places = range(len(counts))
    if len(counts) <= WRITTEN_OUT:
        axes.set_xticks(places, [plain_text(name, 12) for name in record.class_names])
        axes.set_yticks(places, [plain_text(name, 12) for name in record.class_names])
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


# ---------------------------------------------------------------------------------------------- page


def prediction_section(record: PredictionRecord, pictures: Path) -> Section:
    """The quality of the predicted labels as a section of a report, with its charts in the folder `pictures`."""
    album = Album(pictures, f"{named_by('prediction', record.column)}-")
    calibration, confusion = calibration_chart(record), confusion_chart(record)
    return Section(
        f"Prediction of {record.column}" if record.column else "Prediction",
        "predictions",
        {
            "heads": ("p(y|x) (1.4)", *_heads(record)[1:]),
            "rows": _rows(record),
            "examples": counted(record.examples),
            "notes": remarks(record),
            "calibration": album.chart(
                "calibration", calibration, "Share of right labels against the probability of the predicted label"
            ),
            "confusion": album.chart("confusion", confusion, "Counts of true against predicted labels"),
        },
    )
