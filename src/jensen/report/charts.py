"""The charts of a report: matplotlib figures on white, readable in greyscale, without text from the user."""

import io
import logging
import math
import string
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from jensen.evaluation.profile import NoiseProfile
from jensen.records import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, RESOLUTION = 6.8, 180  # inches, dots per inch
INK, GREY, BLUE, ORANGE = "#222222", "#8a8a8a", "#1f4e79", "#d9822b"
SYMBOLS = string.digits + string.ascii_lowercase + string.ascii_uppercase

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")


def drawing(make: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """A drawing function without matplotlib's warnings about fonts, caches and axes, which a user cannot act on."""

    @wraps(make)
    def quiet(*args: Arguments.args, **options: Arguments.kwargs) -> Drawn:
        with _quiet():
            return make(*args, **options)

    return quiet


@contextmanager
def _quiet() -> Iterator[None]:
    log = logging.getLogger("matplotlib")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


# ---------------------------------------------------------------------------------------------- training


@drawing
def loss_curve(metrics: Sequence[Mapping[str, Any]], comparable: bool = True) -> "Figure | None":
    """Training loss and the negative validation bound against the step; None for an empty log.

    If the loss is a bound in nats (`comparable`), both curves are in one panel. Otherwise each curve has its own panel.
    """
    from matplotlib.ticker import LogLocator

    training = _lines(metrics, "loss")
    validation = _lines(metrics, "validation_bound", "validation_standard_error")
    if not len(training):
        return None
    apart = not comparable and len(validation) > 0
    figure, panels = _stack(4.4, 2) if apart else _stack(3.2, 1)
    panels[0].plot(training[:, 0], training[:, 1], color=GREY, linewidth=1, label="training loss")
    panels[0].set_ylim(*_settled(training))
    if len(validation):
        _draw_validation(panels[-1], validation)
    if training[-1, 0] > 30 * training[0, 0]:
        panels[-1].set_xscale("log")
        panels[-1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[-1].xaxis.set_minor_formatter("")
    panels[-1].xaxis.set_major_formatter(lambda value, position: f"{value:,.0f}")
    panels[-1].set_xlabel("training step")
    panels[-1].set_ylabel("nats per example" if comparable or apart else "loss")
    if apart:
        panels[0].set_ylabel("loss")
    _legend(figure, panels, columns=3)
    return figure


def _lines(metrics: Sequence[Mapping[str, Any]], *names: str) -> np.ndarray:
    """The steps and values (count, 1 + len(names)) of the log lines that have all these names."""
    return np.array([[line[name] for name in ("step", *names)] for line in metrics if names[0] in line])


def _draw_validation(axes: "Axes", validation: np.ndarray) -> None:
    step, bound, error = validation.T
    axes.fill_between(step, -bound - error, -bound + error, color=BLUE, alpha=0.2, linewidth=0)
    label = "negative validation bound ± its standard error"
    axes.plot(step, -bound, color=BLUE, linewidth=1.4, marker="o", markersize=3, label=label)
    best = step[bound.argmax()]
    axes.axvline(best, color=ORANGE, linestyle="--", linewidth=1, label=f"best step, {best:,.0f}")


def _settled(training: np.ndarray) -> tuple[float, float]:
    """Limits of the axis that show all losses after the first tenth of training, and a part of the earlier losses."""
    step, loss = training.T
    low, high = loss.min(), loss[step >= step[-1] / 10].max()
    margin = 0.5 * (high - low) or 1.0
    return low - 0.2 * margin, min(high + 2 * margin, loss.max() + 0.1 * margin)


# ---------------------------------------------------------------------------------------------- latent space


@drawing
def latent_plane(codes: Tensor, labels: Tensor | None, symbols: Sequence[str] | None) -> "Figure":
    """Codes (count, latent dimensions) on the first two principal components, with a symbol for each label.

    Two-dimensional codes are shown as they are, and one-dimensional codes as a histogram. If there are no symbols, each
    label has its own shade.
    """
    figure, axes = _chart(5.6 if codes.shape[1] > 1 else 3.2)
    if codes.shape[1] == 1:
        axes.hist(codes[:, 0].numpy(), bins=_bins(len(codes)), color=BLUE)
        axes.set_xlabel("$z_1$")
        axes.set_ylabel("examples")
        return figure
    points, names = plane(codes)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_aspect("equal", adjustable="datalim")
    size = 44 if len(points) < 500 else 24
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=size / 3, color=BLUE, linewidths=0)
    elif symbols is None:
        shades = axes.scatter(points[:, 0], points[:, 1], s=size / 3, c=labels.numpy(), cmap="viridis", linewidths=0)
        figure.colorbar(shades, label="label", shrink=0.6)
    else:
        for label in labels.unique().tolist():
            chosen = points[(labels == label).numpy()]
            marker = rf"$\mathbf{{{symbols[label]}}}$"
            axes.scatter(chosen[:, 0], chosen[:, 1], s=size, marker=marker, color=f"C{label % 10}", linewidths=0)
    return figure


def plane(codes: Tensor) -> tuple[np.ndarray, tuple[str, str]]:
    """Codes (count, d >= 2) projected to two dimensions (count, 2), and the names of the axes."""
    if codes.shape[1] == 2:
        return codes.numpy(), ("$z_1$", "$z_2$")
    centred = (codes - codes.mean(0)).double()
    wide = centred.shape[1] > centred.shape[0]
    moments = centred @ centred.T if wide else centred.T @ centred
    values, vectors = torch.linalg.eigh(moments)
    values, vectors = values.flip(0)[:2].clamp(min=0), vectors.flip(1)[:, :2]
    points = vectors * values.sqrt() if wide else centred @ vectors
    shares = (100 * values / moments.trace().clamp(min=1e-30)).tolist()
    first, second = (f"principal component {k + 1}: {share:.0f} % of the variance" for k, share in enumerate(shares))
    return points.numpy(), (first, second)


def label_symbols(classes: int, names: Sequence[str] | None) -> list[str] | None:
    """One character per class: the names if all are single digits or letters, else 0-9a-zA-Z; None for more classes."""
    if names and len(set(names)) == len(names) and all(name in SYMBOLS and len(name) == 1 for name in names):
        return list(names)
    return list(SYMBOLS[:classes]) if classes <= len(SYMBOLS) else None


# ---------------------------------------------------------------------------------------------- scores


@drawing
def histogram(bound: Tensor, mean: float) -> "Figure":
    """A histogram of the bounds of examples, with the mean."""
    from matplotlib.ticker import MaxNLocator

    values = bound[bound.isfinite()].numpy()
    figure, axes = _chart(2.6)
    axes.hist(values, bins=_bins(len(values)), color=BLUE)
    axes.axvline(mean, color=ORANGE, linestyle="--", linewidth=1.4, label="mean")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("ELBO of an example, nats")
    axes.set_ylabel("examples")
    _legend(figure, [axes])
    return figure


# ---------------------------------------------------------------------------------------------- where the bits go


@drawing
def noise_costs(profile: NoiseProfile, nats_per_bit: float) -> "Figure":
    """A curve of bits per dimension per unit of log-SNR over the noise levels; beside it, the sums of the terms.

    `nats_per_bit` is the number of nats per example in one bit per dimension: ln 2 times the number of dimensions.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.4), dpi=RESOLUTION, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr, call-arg]
    levels, sums = (plain(axes) for axes in figure.subplots(1, 2, width_ratios=[3.2, 1]))
    _draw_levels(levels, profile)
    _draw_sums(sums, profile)
    _also_in_nats(levels, nats_per_bit, "nats per example per unit")
    _also_in_nats(sums, nats_per_bit, "nats per example")
    return figure


def _draw_levels(axes: "Axes", profile: NoiseProfile) -> None:
    levels = profile.levels[:0:-1]  # without L_0, from the noise to the data
    edges = np.array([levels[0].log_snr[1], *(level.log_snr[0] for level in levels)])
    cost = np.array([level.bits_per_dimension.mean / level.width for level in levels])
    error = np.array([level.bits_per_dimension.standard_error / level.width for level in levels])
    low, high = (np.append(values, values[-1]) for values in (cost - error, cost + error))
    axes.fill_between(edges, low, high, step="post", color="#8fb0d0", linewidth=0)
    axes.stairs(cost, edges, baseline=None, color=BLUE, linewidth=1.3)
    axes.set_ylim(bottom=min(0, (cost - error).min()))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("log-SNR of $x_t$: from noise to data")
    axes.set_ylabel("bits per dimension per unit of log-SNR")


def _draw_sums(axes: "Axes", profile: NoiseProfile) -> None:
    terms = [profile.prior, profile.denoising, profile.levels[0]]
    means = [term.bits_per_dimension.mean for term in terms]
    errors = [term.bits_per_dimension.standard_error for term in terms]
    axes.bar(range(3), means, color=[GREY, BLUE, ORANGE], width=0.62)
    axes.errorbar(range(3), means, errors, fmt="none", ecolor=INK, elinewidth=1, capsize=3)
    for place, (mean, error) in enumerate(zip(means, errors, strict=True)):
        text = f"{mean:.3f}" if abs(mean) >= 0.0005 else f"{mean:.0e}"
        side, end = (1, "bottom") if mean >= 0 else (-1, "top")
        tip = (place, mean + side * (error if math.isfinite(error) else 0))
        axes.annotate(text, tip, (0, 4 * side), textcoords="offset points", ha="center", va=end, fontsize=7.5)
    axes.margins(y=0.12)
    axes.set_xlim(-0.7, 2.7)
    axes.set_xticks(range(3), ["$L_T$", "$\\sum L_{t-1}$", "$L_0$"])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("bits per dimension")


@drawing
def rate_distortion(profile: NoiseProfile, nats_per_bit: float) -> "Figure":
    """Bits per dimension spent against the remaining error, with nats on a second scale."""
    figure, axes = _chart(3.0)
    points = np.array([[point.root_mean_squared_error, point.bits_per_dimension] for point in profile.rate_distortion])
    axes.plot(points[:, 0], points[:, 1], color=BLUE, linewidth=1.3, marker="o", markersize=2.5)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=min(0, points[:, 1].min()))
    axes.set_xlabel(f"root mean squared error of the estimate of $x_0$, {profile.unit}")
    axes.set_ylabel("bits per dimension")
    _also_in_nats(axes, nats_per_bit, "nats per example")
    return figure


def _also_in_nats(axes: "Axes", nats_per_bit: float, name: str) -> None:
    def nats(in_bits: Any) -> Any:
        return in_bits * nats_per_bit

    def in_bits(nats: Any) -> Any:
        return nats / nats_per_bit

    right = axes.secondary_yaxis("right", functions=(nats, in_bits))
    right.set_ylabel(name, fontsize=9)
    right.tick_params(labelsize=8)


# ---------------------------------------------------------------------------------------------- data without a picture


@drawing
def marginals(data: np.ndarray, samples: np.ndarray, dimensions: Sequence[int]) -> "Figure":
    """Histograms of single dimensions: data (count, D) filled, samples (count, D) as an outline."""
    figure, grid = _panels(len(dimensions), 1.7)
    for axes, dimension in zip(grid, dimensions, strict=True):
        _two_histograms(axes, data[:, dimension], samples[:, dimension])
        axes.set_xlabel(f"x[{dimension}]", fontsize=8)
    _legend(figure, grid)
    return figure


@drawing
def scatter_matrix(data: np.ndarray, samples: np.ndarray, dimensions: Sequence[int]) -> "Figure":
    """Every pair of `dimensions`: data (count, D) as dots, samples (count, D) as rings."""
    pairs = [(first, second) for place, second in enumerate(dimensions) for first in dimensions[:place]]
    figure, grid = _panels(len(pairs), 2.2)
    for axes, (first, second) in zip(grid, pairs, strict=True):
        axes.scatter(samples[:, first], samples[:, second], 14, "none", edgecolors=BLUE, lw=0.6, label="samples")
        axes.scatter(data[:, first], data[:, second], s=7, color=ORANGE, linewidths=0, label="data")
        axes.set_xlim(*_limits(data[:, first]))
        axes.set_ylim(*_limits(data[:, second]))
        axes.set_xlabel(f"x[{first}]", fontsize=8)
        axes.set_ylabel(f"x[{second}]", fontsize=8)
    _legend(figure, grid)
    return figure


@drawing
def profiles(lines: Sequence[np.ndarray], titles: Sequence[str]) -> "Figure":
    """Examples (count, D) over their dimensions: the originals as solid lines and, if given, reconstructions dashed."""
    from matplotlib.ticker import MaxNLocator

    figure, grid = _panels(len(titles), 1.7)
    positions = np.arange(lines[0].shape[1])
    dot, cross = ("o", "x") if len(positions) <= 30 else ("", "")
    original = {"color": INK, "linestyle": "-", "marker": dot, "markersize": 3, "label": "original"}
    reconstruction = {"color": ORANGE, "linestyle": "--", "marker": cross, "markersize": 4, "label": "reconstruction"}
    for place, (axes, title) in enumerate(zip(grid, titles, strict=True)):
        for line, style in zip(lines, (original, reconstruction), strict=False):
            axes.plot(positions, line[place], linewidth=1.1, **style)  # type: ignore[arg-type]
        axes.set_xlim(-0.5, len(positions) - 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.set_title(title, fontsize=8)
    figure.supxlabel("dimension", fontsize=9)
    figure.supylabel("x", fontsize=9)
    _legend(figure, grid)
    return figure


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.25 * (high - low) or 1.0
    return low - margin, high + margin


def _bins(count: int) -> int:
    return min(60, 6 + int(2 * count**0.5))


def _two_histograms(axes: "Axes", data: np.ndarray, samples: np.ndarray) -> None:
    """Histograms as shares of all data and of all samples; values beyond the axis count, but are not drawn."""
    edges = np.linspace(*_limits(data), _bins(len(data)) + 1).tolist()
    of_data, of_samples = (np.full(len(values), 1 / len(values)) for values in (data, samples))
    axes.hist(data, bins=edges, weights=of_data, color="#c4c4c4", label="data")
    axes.hist(samples, bins=edges, weights=of_samples, histtype="step", color=BLUE, linewidth=1.2, label="samples")
    axes.set_yticks([])


# ---------------------------------------------------------------------------------------------- canvas


@drawing
def save_chart(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG of 256 colours, a third of the size of matplotlib's PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    buffer = io.BytesIO()
    pixels.quantize(256, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    write_file(path, buffer.getvalue())


def _chart(height: float) -> "tuple[Figure, Axes]":
    """A figure as wide as the page, with one pair of axes."""
    figure, (axes,) = _stack(height, 1)
    return figure, axes


def _stack(height: float, count: int) -> "tuple[Figure, list[Axes]]":
    """A figure as wide as the page, with `count` panels above each other that share a horizontal axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=RESOLUTION, layout="constrained")
    return figure, [plain(axes) for axes in figure.subplots(count, sharex=True, squeeze=False)[:, 0]]


def _panels(count: int, height: float) -> "tuple[Figure, list[Axes]]":
    """A figure of `count` panels, at most three in a row, each `height` inches high."""
    from matplotlib.figure import Figure

    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, rows * height + 0.4), dpi=RESOLUTION, layout="constrained")
    return figure, [plain(figure.add_subplot(rows, columns, place + 1)) for place in range(count)]


def plain_text(text: str, length: int = 24) -> str:
    """A user's text for a chart: cut to `length`, without characters that matplotlib reads as mathematics."""
    return (text if len(text) <= length else f"{text[: length - 1]}…").replace("$", r"\$")


def plain(axes: "Axes") -> "Axes":
    """The axes without a frame above and to the right, with small print and a light grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.set_axisbelow(True)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    return axes


def _legend(figure: "Figure", panels: "Sequence[Axes]", columns: int = 2) -> None:
    """A legend above all panels, where it covers no data; each entry appears once."""
    named = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    handles, labels = list(named.values()), list(named)
    figure.legend(handles, labels, loc="outside upper right", ncols=columns, frameon=False, fontsize=8)
