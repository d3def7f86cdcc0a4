"""What a model makes up: samples, by label where it knows labels, and the films from data to noise and back."""

import math

from torch import Tensor

from jensen.evaluation.scores import spread
from jensen.report import charts, page
from jensen.report.album import Album
from jensen.report.results import PER_CLASS, Results

DRAWN = 500  # examples in a scatter plot, and as many samples

# ---------------------------------------------------------------------------------------------- samples


def sample_section(results: Results, album: Album) -> str:
    """Samples of one model."""
    if not results.image:
        return page.section("Samples", *_sample_charts(results, album))
    if results.family.means is None:
        return page.section("Samples", sample_figure(results, album), recognition(results))
    figures = [mean_figure(results, album), sample_figure(results, album)]
    note = "The same z on both sides. The bound scores the right one: noise there is uncertainty that the model states."
    return page.section("Samples", page.group("beside", figures), f'<p class="small">{note}</p>')


def sample_figure(results: Results, album: Album) -> str:
    """A grid of samples, of a model that knows labels a row for each label."""
    caption = results.family.samples
    if not results.classes:
        return page.figure(album.grid("samples", results.pictures(results.samples), None, caption), caption)
    left_out = (results.model.classes or 0) - results.classes
    caption += " Every row was asked for the label beside it" + (f"; {left_out} more labels." if left_out else ".")
    content = album.grid("samples", results.pictures(results.samples), PER_CLASS, caption)
    names = [results.label_name(label) for label in range(results.classes)]
    return page.figure(page.labelled(content, names), caption)


def mean_figure(results: Results, album: Album) -> str:
    """A grid of the means that the samples were drawn around."""
    means = results.family.means or ""
    return page.figure(album.grid("sample-means", results.pictures(results.sample_means), None, means), means)


def recognition(results: Results) -> str:
    """What a classifier says of the samples, where one was asked."""
    if results.recognition is None:
        return ""
    return f"<p>A classifier trained on the real data agrees with the asked label for {agreement(results)}.</p>"


def agreement(results: Results) -> str:
    """How often, in HTML."""
    found = results.recognition
    assert found is not None
    percent, error = (f"{100 * value:.1f}" for value in (found.mean, found.standard_error))
    return f"{percent} ± {error} % of {found.count:,} samples"


def _sample_charts(results: Results, album: Album) -> list[str]:
    preparation = results.spec.preparation
    rows = spread(results.count, DRAWN)
    data = preparation.to_raw(results.x(rows))
    # Where labels are known, each sample gets that of its example: as many of each as the data have
    labels = None if results.model.classes is None or results.labels is None else results.labels[rows]
    seed = results.evaluation.settings.seed
    samples = preparation.to_raw(results.model.sample(len(data), seed=seed, labels=labels))
    data, samples = (values.reshape(len(values), -1).astype(float) for values in (data, samples))
    varying = [dimension for dimension in range(data.shape[1]) if data[:, dimension].std() > 0] or [0]
    shown = {
        "marginals": (
            charts.marginals(data, samples, varying[:6]),
            f"The first dimensions that vary, in raw units: {len(data)} examples filled, as many samples "
            "as an outline.",
        )
    }
    if len(varying) > 1:
        shown["pairs"] = (
            charts.scatter_matrix(data, samples, varying[:4]),
            f"Pairs of dimensions: {len(data)} examples as dots, as many samples as rings.",
        )
    return [album.chart(name, chart, caption, caption) for name, (chart, caption) in shown.items()]


# ---------------------------------------------------------------------------------------------- films


def film_section(results: Results, album: Album) -> str:
    """The ways from data to noise and back, for images; nothing for a model that has none."""
    return page.section("From data to noise, and back", *film_figures(results, album)) if has_films(results) else ""


def has_films(results: Results) -> bool:
    """Whether there is a way to be shown."""
    return results.image and results.noising is not None and results.denoising is not None


def film_figures(results: Results, album: Album) -> list[str]:
    """Three strips whose columns are the same noise levels: x_t of examples, x_t of samples, and the samples' x̂."""
    noising, denoising = results.noising, results.denoising
    assert noising is not None
    assert denoising is not None
    assert denoising.estimate is not None
    examples = [results.label(int(row)) for row in results.filmed]
    labels = [results.label_name(i % results.classes) if results.classes else "" for i in range(denoising.x.shape[1])]
    strips = {
        "noising": (
            noising.x,
            noising.log_snr,
            examples,
            "Noising: examples on the left, then x<sub>t</sub> by (5.6), one ε for the whole row.",
        ),
        "denoising": (
            denoising.x,
            denoising.log_snr,
            labels,
            "Denoising: the sampler's own x<sub>t</sub>, from pure noise on the left to the sample on the right.",
        ),
        "estimates": (
            denoising.estimate,
            denoising.log_snr,
            labels,
            "What the model takes each of these x<sub>t</sub> to become: its running estimate of x<sub>0</sub>.",
        ),
    }
    return [_strip(results, album, name, *strip) for name, strip in strips.items()]


def _strip(results: Results, album: Album, name: str, x: Tensor, log_snr: Tensor, rows: list[str], caption: str) -> str:
    """A row for each example, a column for each frame."""
    frames = results.pictures(x.transpose(0, 1).flatten(0, 1))
    content = album.grid(name, frames, len(x), f"{name}: a row for each example, a column for each noise level")
    levels = [_level(float(level)) for level in log_snr]
    return page.figure(page.labelled(content, rows, levels, "log-SNR"), caption)


def _level(log_snr: float) -> str:
    return f"{log_snr:+.1f}".replace("-", "−") if math.isfinite(log_snr) else "∞" if log_snr > 0 else "−∞"
