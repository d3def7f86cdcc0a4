"""The report of a run: one HTML page that needs no network, and its pictures as PNG files beside it."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jensen.bound import Estimate
from jensen.data import DataSpec, Examples, save_grid
from jensen.evaluate import page, pictures
from jensen.evaluate.evaluation import Evaluation, groups, remarks, score_chosen, written
from jensen.evaluate.families import FAMILIES, Family
from jensen.evaluate.scores import Scores, prepare, spread
from jensen.model import AbstractLatentVariableModel
from jensen.training.checkpoint import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = (("nats", "example"), ("bits", "dimension"))
SAMPLES, PAIRS, LOWEST, PROFILES = 64, 12, 12, 6
ENCODED = 250  # examples encoded at once
DRAWN = 500  # examples in a scatter plot, and as many samples
SMALL = 64  # images up to this many pixels high and wide are enlarged as squares


@dataclass(frozen=True)
class Results:
    """One model and what was measured of it: what a section shows, so that two models can stand side by side."""

    family: Family
    model: AbstractLatentVariableModel
    spec: DataSpec
    metrics: Sequence[Mapping[str, Any]]
    evaluation: Evaluation
    examples: Examples
    """Those that were evaluated."""
    scores: Scores
    """Of the same, in the same order."""
    folder: Path
    """Where pictures go."""

    def x(self, rows: Tensor) -> Tensor:
        """These examples as the model saw them, on its device."""
        seed = self.evaluation.settings.seed
        x = prepare(self.spec.preparation, self.examples.x[rows], self.scores.index[rows], seed)
        return x.to(self.model.device)

    def encoded(self, rows: Tensor) -> Tensor:
        """The latent representations of these examples, on the CPU."""
        seed, index = self.evaluation.settings.seed, self.scores.index[rows]
        return self.model.encode(self.x(rows), seed=seed, index=index).cpu()

    def reconstructed(self, rows: Tensor) -> list[Tensor]:
        """These examples and, where that is something else, their reconstructions."""
        x, seed = self.x(rows), self.evaluation.settings.seed
        if self.family.reconstructions is None:
            return [x]
        return [x, self.model.reconstruct(x, seed=seed, index=self.scores.index[rows])]

    def label(self, row: int) -> str:
        """The name of an example's label in plain text, empty where it has none."""
        if self.examples.labels is None:
            return ""
        label, names = int(self.examples.labels[row]), self.spec.label_names or ()
        return names[label] if label < len(names) else str(label)


@torch.no_grad()
def write_report(
    folder: Path,
    *,
    title: str,
    recipe: Mapping[str, Any],
    spec: DataSpec,
    metrics: Sequence[Mapping[str, Any]],
    evaluation: Evaluation,
    model: AbstractLatentVariableModel,
    examples: Examples,
) -> Path:
    """Write report.html, one page that needs no network, and pictures/*.png into `folder`; gives the page's path.

    `examples` are those that `evaluation` was made from. An evaluation that was read from JSON holds no single scores:
    then they are computed again.
    """
    family = FAMILIES[str(recipe["family"])]
    rows = spread(len(examples), evaluation.settings.examples)
    scores = evaluation.scores or score_chosen(model, examples, spec.preparation, evaluation.settings, rows)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    results = Results(family, model, spec, metrics, evaluation, examples[rows], scores, folder / "pictures")
    sections: list[Callable[[Results], str]] = [
        bound_section,
        training_section,
        sample_section,
        reconstruction_section,
        latent_section,
        example_section,
    ]
    body = [heading(title, results), *(make(results) for make in sections)]
    body += [data_section(spec), recipe_section(recipe, evaluation)]
    path = folder / "report.html"
    write_file(path, page.page(title, "\n".join(part for part in body if part)).encode())
    return path


# ---------------------------------------------------------------------------------------------- numbers


def heading(title: str, results: Results) -> str:
    """What this is and the numbers to remember, and what is wrong with them."""
    evaluation = results.evaluation
    parameters = sum(parameter.numel() for parameter in results.model.parameters())
    trained = max((line["step"] for line in results.metrics), default=0)
    lead = (
        f"A {results.family.name} with {parameters:,} parameters, trained for {trained:,} steps; evaluated on "
        f"{evaluation.source}."
    )
    numbers = {
        "bits per dimension, at most": _written(evaluation.elbo.bits_per_dimension),
        "nats per example, at least": _written(evaluation.elbo.nats),
        "examples": f"{evaluation.examples:,}",
    }
    key = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in numbers.items())
    warnings = "".join(f'<p class="warning">{escape(warning)}.</p>' for warning in evaluation.warnings)
    return f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n<div class="key">{key}</div>\n{warnings}'


def bound_section(results: Results) -> str:
    """The bound by its terms, every further bound, the gaps, and how far they can be trusted."""
    evaluation = results.evaluation
    caption = (
        f"Means over the examples ± one standard error of that mean; {evaluation.settings.draws} draws per example. "
        "Nats: higher is better; bits per dimension: lower is better, and of a difference its size. A bound is "
        "below log p(x) by Jensen's inequality (3.1). Differences are taken example by example, so that what two "
        "estimates have in common cancels from the error."
    )
    notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(evaluation) if not remark.startswith("Warning"))
    return page.section(
        "The bound", _table(results), f'<p class="small">{caption}</p>', f'<ul class="small">{notes}</ul>'
    )


def _table(results: Results) -> str:
    units = "".join(f'<th scope="col" colspan="2" class="number">{unit} per {per}</th>' for unit, per in UNITS)
    bodies = []
    for heading, rows in groups(results.evaluation).items():
        lines = [f'<tr><th scope="colgroup" colspan="6" class="heading">{escape(heading)}</th></tr>']
        for name, measure in rows.items():
            cells = _cells(measure.nats) + _cells(measure.bits_per_dimension)
            name_cell = f'<th scope="row">{escape(name)}</th>'
            lines.append(f'<tr>{name_cell}{cells}<td class="formula">{results.family.formula(name)}</td></tr>')
        bodies.append("<tbody>\n" + "\n".join(lines) + "\n</tbody>")
    header = f"<thead><tr><td></td>{units}<td></td></tr></thead>"
    return '<div class="wide"><table>\n' + "\n".join([header, *bodies]) + "\n</table></div>"


def _cells(estimate: Estimate) -> str:
    value, error = _written(estimate).split(" ± ")
    return f'<td class="number">{value}</td><td class="error">± {error}</td>'


def _written(estimate: Estimate) -> str:
    return written(estimate).replace("-", "−")


# ---------------------------------------------------------------------------------------------- pictures


def training_section(results: Results) -> str:
    """The course of training and where the best validation bound was."""
    chart = pictures.loss_curve(results.metrics, results.family.comparable)
    if chart is None:
        return ""
    validated = any("validation_bound" in line for line in results.metrics)
    caption = f"Training loss: {results.family.loss}; each point is the mean of a logging window. " + (
        "Dots: the negative bound on the validation examples, with the same noise every time, so that its changes are "
        "the model's; the band is ± one standard error. The weights evaluated here are those of the dashed line."
        if validated
        else "There were no validation examples: the weights are those of the last step."
    )
    return page.section("Training", _chart(results, "loss", chart, "Training loss against the step", caption))


def sample_section(results: Results) -> str:
    """What the model makes up."""
    seed, spec = results.evaluation.settings.seed, results.spec
    if spec.layout != "image":
        return page.section("Samples", *_sample_charts(results, seed))
    drawn, means = results.family.samples, results.family.means
    content = _grid(results, "samples", results.model.sample(SAMPLES, seed=seed), None, drawn)
    figures = [page.figure(content, drawn)]
    if means is None:
        return page.section("Samples", *figures)
    content = _grid(results, "sample-means", results.model.sample_mean(SAMPLES, seed=seed), None, means)
    figures.insert(0, page.figure(content, means))
    note = "The same z on both sides. The bound scores the right one: noise there is uncertainty that the model states."
    return page.section("Samples", page.group("beside", figures), f'<p class="small">{note}</p>')


def _sample_charts(results: Results, seed: int) -> list[str]:
    preparation = results.spec.preparation
    data = preparation.to_raw(results.x(spread(len(results.examples), DRAWN)))
    samples = preparation.to_raw(results.model.sample(len(data), seed=seed))
    data, samples = (values.reshape(len(values), -1).astype(float) for values in (data, samples))
    varying = [dimension for dimension in range(data.shape[1]) if data[:, dimension].std() > 0] or [0]
    charts = {
        "marginals": (
            pictures.marginals(data, samples, varying[:6]),
            f"The first dimensions that vary, in raw units: {len(data)} examples filled, as many samples "
            "as an outline.",
        )
    }
    if len(varying) > 1:
        charts["pairs"] = (
            pictures.scatter_matrix(data, samples, varying[:4]),
            f"Pairs of dimensions: {len(data)} examples as dots, as many samples as rings.",
        )
    return [_chart(results, name, chart, caption, caption) for name, (chart, caption) in charts.items()]


def reconstruction_section(results: Results) -> str:
    """Examples and what is left of them after encoding and decoding; nothing where that is everything."""
    if results.family.reconstructions is None:
        return ""
    image = results.spec.layout == "image"
    rows = spread(len(results.examples), PAIRS if image else PROFILES)
    if image:
        both = torch.cat(results.reconstructed(rows))
        caption = f"Upper row: examples, spread evenly over the data. Lower row: {results.family.reconstructions}."
        content = _grid(results, "reconstructions", both, len(rows), caption)
        return page.section("Reconstructions", page.figure(content, caption))
    return page.section("Reconstructions", _profile_chart(results, "reconstructions", rows))


def latent_section(results: Results) -> str:
    """Where the examples lie in the latent space."""
    rows = spread(len(results.examples), results.family.points)
    codes = torch.cat([results.encoded(part) for part in rows.split(ENCODED)])
    labels = None if results.examples.labels is None else results.examples.labels[rows]
    names, symbols, key = results.spec.label_names, None, ""
    if labels is not None:
        classes = int(labels.max()) + 1
        symbols = pictures.label_symbols(classes, names)
        if symbols and names and list(names) != symbols:
            named = zip(symbols, names, strict=False)
            key = " " + ", ".join(f"{symbol} = {escape(name)}" for symbol, name in named) + "."
    chart = pictures.latent_plane(codes, labels, symbols)
    caption = f"{len(codes):,} examples by {results.family.codes}, {codes.shape[1]:,} dimensions." + (
        f" Each is drawn as its label.{key}" if symbols else ""
    )
    alt = "Examples in the plane of the first two principal components of their latent representations"
    return page.section("Latent space", _chart(results, "latent", chart, alt, caption))


def example_section(results: Results) -> str:
    """Which examples the model finds likely and which not."""
    bound = results.scores.bound
    if not bound.isfinite().any():
        return ""
    mean = results.evaluation.elbo.nats.mean
    caption = "The ELBO of every example. A long left tail is where to look for anomalies."
    parts = [_chart(results, "bounds", pictures.histogram(bound, mean), "Histogram of the examples' bounds", caption)]
    lowest = bound.argsort()[:LOWEST]
    if results.spec.layout == "image":
        shown = torch.stack(results.reconstructed(lowest), dim=1)
        tiles = [_tile(results, place, int(row), shown[place]) for place, row in enumerate(lowest)]
        beside = ": the example on the left, its reconstruction on the right" if shown.shape[1] > 1 else ""
        caption = f"The lowest bounds{beside}."
        parts.append(page.figure(page.group("tiles", tiles), caption))
    else:
        parts.append(_profile_chart(results, "lowest", lowest[:PROFILES]))
    return page.section("Example by example", *parts)


def _tile(results: Results, place: int, row: int, shown: Tensor) -> str:
    number = int(results.scores.index[row])
    label = f", label {results.label(row)}" if results.label(row) else ""
    content = _grid(results, f"lowest-{place + 1:02d}", shown, len(shown), f"Example {number}{label}")
    return page.figure(content, f"No. {number}{escape(label)}<br>{_score(results, row)} nats")


def _profile_chart(results: Results, name: str, rows: Tensor) -> str:
    lines = [values.flatten(1).cpu().numpy() for values in results.reconstructed(rows)]
    titles = [f"no. {int(results.scores.index[row])}: {_score(results, int(row))} nats" for row in rows]
    beside = f": the original solid, dashed {results.family.reconstructions}" if len(lines) > 1 else ""
    caption = f"Examples over their dimensions, in the model's units{beside}. Above each its number and its bound."
    return _chart(results, name, pictures.profiles(lines, titles), caption, caption)


def _score(results: Results, row: int) -> str:
    scores = results.scores
    return _written(Estimate(scores.bound[row].item(), scores.standard_error[row].item(), 1))


def _chart(results: Results, name: str, chart: "Figure", alt: str, caption: str) -> str:
    """Save a matplotlib figure and put it on the page; `caption` is HTML."""
    path = results.folder / f"{name}.png"
    pictures.save_chart(chart, path)
    return page.figure(page.image(path, alt, "chart"), caption)


def _grid(results: Results, name: str, x: Tensor, columns: int | None, alt: str) -> str:
    """Save images as a grid and put it on the page."""
    path = results.folder / f"{name}.png"
    save_grid(results.spec.preparation.to_picture(x), path, columns)
    return page.image(path, alt, "pixels" if max(results.spec.shape[1:]) <= SMALL else "photograph")


# ---------------------------------------------------------------------------------------------- what, and again


def data_section(spec: DataSpec) -> str:
    """What was read."""
    counts = ", ".join(f"{count:,} {split}" for split, count in spec.counts.items())
    classes = "none" if spec.classes is None else str(spec.classes)
    if spec.label_names:
        classes += f": {', '.join(spec.label_names[:20])}{', ...' if len(spec.label_names) > 20 else ''}"
    levels = "floats, no levels" if spec.levels is None else f"{spec.levels} levels"
    preparation = (type(spec.preparation).__doc__ or "").partition("\n")[0]
    return page.section(
        "What was read",
        page.definitions(
            {
                "source": spec.source,
                "examples": counts,
                "splits": spec.splits,
                "shape": f"{' x '.join(map(str, spec.shape))}, read as {spec.layout}",
                "numbers": f"{spec.dtype} from {spec.minimum:g} to {spec.maximum:g}, {levels}",
                "classes": classes,
                "preparation": f"{type(spec.preparation).__name__}. {preparation}",
                "left out": f"{spec.skipped} files that could not be read" if spec.skipped else "nothing",
                "fingerprint": spec.fingerprint,
            }
        ),
    )


def recipe_section(recipe: Mapping[str, Any], evaluation: Evaluation) -> str:
    """Everything the run depended on, and the commands that make it again."""
    flags = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in evaluation.settings.model_dump().items()
        if value is not None and name != "batch_size"
    ]
    commands = [
        f"jensen train {shlex.quote(str(recipe['family']))} --config recipe.toml --out again",
        " \\\n    ".join(["jensen evaluate again", " ".join(flags)]),
    ]
    return page.section(
        "Again",
        "<p>Save this as <code>recipe.toml</code>:</p>",
        page.preformatted(toml(recipe), "columns"),
        "<p>Then the same data, seed and version give the same numbers with:</p>",
        page.preformatted("\n".join(commands)),
    )


def toml(recipe: Mapping[str, Any]) -> str:
    """A recipe of plain values and one level of tables as TOML; what is None is left out.

    >>> print(toml({"data": "digits", "seed": 0, "model": {"hidden": [200, 200], "clip": None}}))
    data = "digits"
    seed = 0
    <BLANKLINE>
    [model]
    hidden = [200, 200]
    """
    top = [f"{name} = {_literal(value)}" for name, value in recipe.items() if not isinstance(value, Mapping | None)]
    tables = [
        "\n".join(["", f"[{name}]", *(f"{key} = {_literal(item)}" for key, item in value.items() if item is not None)])
        for name, value in recipe.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join([*top, *tables])


def _literal(value: Any) -> str:
    """JSON, whose scalars, strings and arrays are TOML as well."""
    return json.dumps(value, ensure_ascii=False)
