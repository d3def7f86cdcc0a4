"""Metrics of samples as a terminal table, and the nearest training examples as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from jensen.features.copies import Memorisation, Nearest
from jensen.features.sample_metrics import Likeness, SampleMetrics
from jensen.features.table_metrics import TableMetrics
from jensen.report.album import Picture
from jensen.report.charts import BLUE, GREY, INK, ORANGE, RESOLUTION, WIDTH, drawing
from jensen.report.render import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure
    from rich.table import Table

RECORD, PICTURE = "sample_metrics-{}.json", "pictures/nearest-{}.png"  # in the run's folder, by the features' name
SUSPICIOUS = 10  # number of samples shown beside their nearest training example

Row = tuple[str, str]  # a number with its interval, and its p-value


def metrics_table(metrics: SampleMetrics) -> "Table":
    """One row per metric: the value for the samples, and the value for real data in place of the samples."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    of, floor = metrics.samples, metrics.floor
    title = f"{of.count:,} samples against {of.test:,} test examples; features: {metrics.features}"
    shown = Table(box=box.SIMPLE, title=title, title_justify="left", caption_justify="left", padding=(0, 1, 0, 0))
    for header in ("", "samples", "p", f"{floor.count:,} training examples", "p"):
        narrow = header == "p"
        shown.add_column(header, justify="right" if narrow else "left", no_wrap=True, min_width=5 if narrow else None)
    for (name, row), other in zip(_likeness(of).items(), _likeness(floor).values(), strict=True):
        shown.add_row(name, *row, *other)
    shown.add_section()
    if metrics.table:
        for name, cells in _of_columns(metrics.table).items():
            shown.add_row(name, *cells)
        shown.add_section()
    found, fresh = metrics.memorisation, metrics.memorisation_floor
    shown.add_row(Text("memorisation", style="bold"), "", "", f"{fresh.samples:,} test examples", "")
    for (name, row), other in zip(_memorisation(found).items(), _memorisation(fresh).values(), strict=True):
        shown.add_row(name, *row, *other)
    lines = [
        "Brackets: 95 % intervals. Half of fresh samples are nearer to the training examples than a held-out example; "
        f"{100 * found.expected:.2g} % are near copies, nearer than {found.threshold:.4g}.",
        verdict(found),
    ]
    shown.caption = Text("\n".join(lines), style="not dim not italic")
    return shown


def metrics_section(folder: Path, records: Sequence[SampleMetrics]) -> Section | None:
    """The metrics of samples as a section, one part per kind of features, with the pictures in the run's folder."""
    parts = [_part(metrics, folder / PICTURE.format(metrics.features)) for metrics in records]
    return Section("Samples against data", "sample_metrics", {"parts": parts}) if parts else None


def _part(metrics: SampleMetrics, picture: Path) -> dict[str, Any]:
    of, found = metrics.samples, metrics.memorisation
    floors = {**_likeness(metrics.floor), **_memorisation(metrics.memorisation_floor)}
    alt = "Distances to the nearest training example"
    return {
        "samples": f"{of.count:,}",
        "test": f"{of.test:,}",
        "features": metrics.features,
        "rows": {name: [*row, *floors[name]] for name, row in {**_likeness(of), **_memorisation(found)}.items()}
        | (_of_columns(metrics.table) if metrics.table else {}),
        "table": metrics.table is not None,
        "columns": _worst(metrics.table) if metrics.table else "",
        "picture": Picture(picture, alt, "chart") if picture.exists() else None,
        "verdict": verdict(found),
    }


def verdict(found: Memorisation) -> str:
    """The result of the memorisation check in a sentence."""
    if found.sign == "none":
        return f"No sign of memorised examples among {found.samples:,} samples."
    if found.sign == "weak":
        return (
            f"A weak sign of memorised examples among {found.samples:,} samples; about 5 % of fresh sets show one. "
            "Look at the picture, or check more samples."
        )
    return (
        f"Warning: samples are nearer to the training examples than {found.held_out:,} held-out examples are; "
        "look at the picture."
    )


def _of_columns(metrics: TableMetrics) -> dict[str, tuple[str, ...]]:
    """The metrics of the columns of samples and of training rows."""
    rows = {
        "column shapes": "shapes",
        "pair trends": "pairs",
        "detection (1: not told apart)": "detection",
        f"{metrics.score} for {metrics.target}": "usefulness",
    }
    both = (metrics.samples, metrics.floor)
    return {name: tuple(cell for of in both for cell in (str(getattr(of, field)), "")) for name, field in rows.items()}


def _worst(metrics: TableMetrics, most: int = 5) -> str:
    """The columns with the least similar shapes, in words."""
    worst = sorted(metrics.samples.columns.items(), key=lambda one: one[1])[:most]
    return ", ".join(f"{name} {value:.3f} (real {metrics.floor.columns[name]:.3f})" for name, value in worst)


def _likeness(found: Likeness) -> dict[str, Row]:
    fidelity = found.fidelity
    return {
        "Fréchet distance": (str(found.frechet), ""),
        "sliced Wasserstein": (str(found.sliced_wasserstein), ""),
        "1000 MMD²": (str(found.kernel.squared.scaled(1000)), _p(found.kernel.p_value)),
        f"precision, k = {fidelity.k}": (str(fidelity.precision), ""),
        "recall": (str(fidelity.recall), ""),
        "density": (str(fidelity.density), ""),
        "coverage": (str(fidelity.coverage), ""),
    }


def _memorisation(found: Memorisation) -> dict[str, Row]:
    return {
        "nearer than fresh": (str(found.closer), _p(found.p_value)),
        "near copies, %": (str(found.near_copies.scaled(100)), _p(found.near_copies_p_value)),
    }


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


# ---------------------------------------------------------------------------------------------- picture


@drawing
def nearest_chart(nearest: Nearest, found: Memorisation, pictures: tuple[np.ndarray, np.ndarray] | None) -> "Figure":
    """A chart of the distances to the nearest training examples; for images, also the closest pairs as pictures.

    `pictures` are uint8 (count, C, H, W): the samples with the smallest distances, in order, and their nearest training
    examples. Each sample stands above its training example.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 4.4 if pictures else 2.8), dpi=RESOLUTION, layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[2.4, 2])
    above = figure.add_subfigure(halves[0]) if pictures else figure
    axes = above.subplots()
    values = [nearest.held_out.numpy(), nearest.samples.numpy()]
    edges = np.linspace(0, max(max(values[0].max(), values[1].max()), 1e-9), 61).tolist()
    of_samples, held_out = f"{len(values[1]):,} samples", f"{len(values[0]):,} held-out examples"
    axes.hist(values[0], bins=edges, density=True, color="#c4c4c4", label=held_out)
    axes.hist(values[1], bins=edges, density=True, histtype="step", color=BLUE, linewidth=1.4, label=of_samples)
    near = f"near copies: {100 * found.near_copies.value:.3g} % of samples, {100 * found.expected:.2g} % expected"
    axes.axvline(found.threshold, color=ORANGE, linestyle="--", linewidth=1.2, label=near)
    axes.set_xlim(0, edges[-1])
    axes.set_yticks([])
    axes.set_xlabel("distance to the nearest training example", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    above.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    if pictures:
        _pairs(figure.add_subfigure(halves[1]), nearest.samples.sort().values, pictures)
    return figure


def _pairs(figure: "SubFigure", distances: Tensor, pictures: tuple[np.ndarray, np.ndarray]) -> None:
    count = len(pictures[0])
    rows = figure.subplots(2, count, squeeze=False)
    for axes, shown in zip(rows, pictures, strict=True):
        for place, picture in enumerate(shown):
            channels = np.moveaxis(picture, 0, -1) if len(picture) in (3, 4) else picture[0]
            shade = channels / np.iinfo(channels.dtype).max
            axes[place].imshow(shade, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes[place].set_xticks([])
            axes[place].set_yticks([])
            axes[place].spines[:].set_color(GREY)
    for place in range(count):
        rows[1, place].set_xlabel(f"{distances[place]:.3g}", fontsize=8, color=INK)
    rows[0, 0].set_ylabel("sample", fontsize=8)
    rows[1, 0].set_ylabel("training\nexample", fontsize=8)
    figure.supxlabel("the samples nearest to a training example, and their distance", fontsize=9)
