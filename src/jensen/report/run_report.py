"""The report of a run: one HTML page that needs no network, and its pictures as PNG files beside it."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jensen.bound import Estimate
from jensen.evaluation.evaluation import groups, remarks
from jensen.evaluation.measure import Groups, typeset
from jensen.evaluation.scores import spread
from jensen.records import write_file
from jensen.report import charts, page
from jensen.report.again import data_section, recipe_section
from jensen.report.album import Album
from jensen.report.bits import bits_section
from jensen.report.results import Results
from jensen.report.samples import film_section, sample_section

UNITS = (("nats", "example"), ("bits", "dimension"))
PAIRS, LOWEST, PROFILES = 12, 12, 6
ENCODED = 250  # examples encoded at once


@torch.no_grad()
def write_report(results: Results, further: Sequence[str] = ()) -> Path:
    """Write report.html, one page that needs no network, and pictures/*.png into the run; gives the page's path.

    `further` are sections in HTML of what is not about the bound.
    """
    album = Album(results.folder / "pictures")
    sections: list[Callable[[Results, Album], str]] = [
        training_section,
        sample_section,
        film_section,
        bits_section,
        reconstruction_section,
        latent_section,
        example_section,
    ]
    body = [heading(results), bound_section(results), *(make(results, album) for make in sections)]
    body += [*further, data_section(results.spec), recipe_section(results.recipe, results.evaluation)]
    path = results.folder / "report.html"
    write_file(path, page.page(results.title, "\n".join(part for part in body if part)).encode())
    return path


# ---------------------------------------------------------------------------------------------- numbers


def heading(results: Results) -> str:
    """What this is and the numbers to remember, and what is wrong with them."""
    evaluation = results.evaluation
    lead = (
        f"A {results.family.name} with {results.parameters:,} parameters, trained for {results.steps:,} "
        f"steps; evaluated on {evaluation.source}."
    )
    numbers = {
        "bits per dimension, at most": typeset(evaluation.elbo.bits_per_dimension),
        "nats per example, at least": typeset(evaluation.elbo.nats),
        "examples": f"{evaluation.examples:,}",
    }
    warnings = "".join(f'<p class="warning">{escape(warning)}.</p>' for warning in evaluation.warnings)
    top = f'<h1>{escape(results.title)}</h1>\n<p class="lead">{escape(lead)}</p>'
    return "\n".join([top, page.key(numbers), warnings])


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
    table = html_table(groups(evaluation), lambda heading, name: results.family.formula(name))
    return page.section("The bound", table, f'<p class="small">{caption}</p>', f'<ul class="small">{notes}</ul>')


def html_table(groups: Groups, formula: Callable[[str, str], str]) -> str:
    """Measures under their headings; `formula` says in HTML what a row, given by heading and name, is."""
    units = "".join(f'<th scope="col" colspan="2" class="number">{unit} per {per}</th>' for unit, per in UNITS)
    bodies = []
    for heading, rows in groups.items():
        lines = [f'<tr><th scope="colgroup" colspan="6" class="heading">{escape(heading)}</th></tr>']
        for name, measure in rows.items():
            cells = _cells(measure.nats) + _cells(measure.bits_per_dimension)
            name_cell = f'<th scope="row">{escape(name)}</th>'
            lines.append(f'<tr>{name_cell}{cells}<td class="formula">{formula(heading, name)}</td></tr>')
        bodies.append("<tbody>\n" + "\n".join(lines) + "\n</tbody>")
    header = f"<thead><tr><td></td>{units}<td></td></tr></thead>"
    return '<div class="wide"><table>\n' + "\n".join([header, *bodies]) + "\n</table></div>"


def _cells(estimate: Estimate) -> str:
    value, error = typeset(estimate).split(" ± ")
    return f'<td class="number">{value}</td><td class="error">± {error}</td>'


# ---------------------------------------------------------------------------------------------- pictures


def training_section(results: Results, album: Album) -> str:
    """The course of training and where the best validation bound was."""
    chart = charts.loss_curve(results.metrics, results.family.comparable)
    if chart is None:
        return ""
    validated = any("validation_bound" in line for line in results.metrics)
    caption = f"Training loss: {results.family.loss}; each point is the mean of a logging window. " + (
        "Dots: the negative bound on the validation examples, with the same noise every time, so that its changes are "
        "the model's; the band is ± one standard error. The weights evaluated here are those of the dashed line."
        if validated
        else "There were no validation examples: the weights are those of the last step."
    )
    curve = album.chart("loss", chart, "Training loss against the step", caption)
    return page.section("Training", curve, interventions(results.metrics))


def interventions(metrics: Sequence[Mapping[str, Any]]) -> str:
    """What training had to be helped over, by the lines that say so: steps left out, memory that ran out."""
    said = []
    for line in metrics:
        last, left_out, size = line["step"], line.get("left_out"), line.get("micro_batch_size")
        if isinstance(left_out, int):
            which = f"Steps {last - left_out + 1:,} to {last:,} were" if left_out > 1 else f"Step {last:,} was"
            said.append(f"{which} left out, and training rolled back to before: {line.get('reason')}")
        if isinstance(size, int):
            said.append(
                f"Memory ran out: batches went through the network, from step {last:,} on, {size:,} examples at a time"
            )
    return "".join(f'<p class="warning">{escape(sentence)}.</p>' for sentence in said)


def reconstruction_section(results: Results, album: Album) -> str:
    """Examples and what is left of them after encoding and decoding; nothing where that is everything."""
    if results.family.reconstructions is None:
        return ""
    rows = spread(results.count, PAIRS if results.image else PROFILES)
    if results.image:
        both = results.pictures(torch.cat(results.reconstructed(rows)))
        caption = f"Upper row: examples, spread evenly over the data. Lower row: {results.family.reconstructions}."
        content = album.grid("reconstructions", both, len(rows), caption)
        return page.section("Reconstructions", page.figure(content, caption))
    return page.section("Reconstructions", _profile_chart(results, album, "reconstructions", rows))


def latent_section(results: Results, album: Album) -> str:
    """Where the examples lie in the latent space."""
    rows = spread(results.count, results.family.points)
    if len(rows) < 2:
        return ""
    codes = torch.cat([results.encoded(part) for part in rows.split(ENCODED)])
    labels = None if results.labels is None else results.labels[rows]
    names, symbols, key = results.spec.label_names, None, ""
    if labels is not None:
        classes = int(labels.max()) + 1
        symbols = charts.label_symbols(classes, names)
        if symbols and names and list(names) != symbols:
            named = zip(symbols, names, strict=False)
            key = " " + ", ".join(f"{symbol} = {escape(name)}" for symbol, name in named) + "."
    chart = charts.latent_plane(codes, labels, symbols)
    caption = f"{len(codes):,} examples by {results.family.codes}, {codes.shape[1]:,} dimensions." + (
        f" Each is drawn as its label.{key}" if symbols else ""
    )
    alt = "Examples in the plane of the first two principal components of their latent representations"
    return page.section("Latent space", album.chart("latent", chart, alt, caption))


def example_section(results: Results, album: Album) -> str:
    """Which examples the model finds likely and which not."""
    bound = results.scores.bound
    if not bound.isfinite().any():
        return ""
    mean = results.evaluation.elbo.nats.mean
    caption = "The ELBO of every example. A long left tail is where to look for anomalies."
    parts = [album.chart("bounds", charts.histogram(bound, mean), "Histogram of the examples' bounds", caption)]
    lowest = bound.argsort()[:LOWEST]
    if results.image:
        shown = torch.stack(results.reconstructed(lowest), dim=1)
        tiles = [_tile(results, album, place, int(row), shown[place]) for place, row in enumerate(lowest)]
        beside = ": the example on the left, its reconstruction on the right" if shown.shape[1] > 1 else ""
        caption = f"The lowest bounds{beside}."
        parts.append(page.figure(page.group("tiles", tiles), caption))
    else:
        parts.append(_profile_chart(results, album, "lowest", lowest[:PROFILES]))
    return page.section("Example by example", *parts)


def _tile(results: Results, album: Album, place: int, row: int, shown: Tensor) -> str:
    number = int(results.scores.index[row])
    label = f", label {results.label(row)}" if results.label(row) else ""
    name, pictures_shown = f"lowest-{place + 1:02d}", results.pictures(shown)
    content = album.grid(name, pictures_shown, len(shown), f"Example {number}{label}")
    return page.figure(content, f"No. {number}{escape(label)}<br>{_score(results, row)} nats")


def _profile_chart(results: Results, album: Album, name: str, rows: Tensor) -> str:
    lines = [values.flatten(1).cpu().numpy() for values in results.reconstructed(rows)]
    titles = [f"no. {int(results.scores.index[row])}: {_score(results, int(row))} nats" for row in rows]
    beside = f": the original solid, dashed {results.family.reconstructions}" if len(lines) > 1 else ""
    caption = f"Examples over their dimensions, in the model's units{beside}. Above each its number and its bound."
    return album.chart(name, charts.profiles(lines, titles), caption, caption)


def _score(results: Results, row: int) -> str:
    scores = results.scores
    return typeset(Estimate(scores.bound[row].item(), scores.standard_error[row].item(), 1))
