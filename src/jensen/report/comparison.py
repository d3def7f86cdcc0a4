"""Several models of the same data side by side: one table, one page."""

import math
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import torch

from jensen.bound import Estimate
from jensen.data.preparation import Dequantise, Levels, Standardise
from jensen.evaluation.evaluation import Bound
from jensen.evaluation.measure import Groups, Measure, measures_table, typeset
from jensen.records import write_file
from jensen.report import page
from jensen.report.album import Album
from jensen.report.bits import bits_figures
from jensen.report.results import Results
from jensen.report.run_report import html_table
from jensen.report.samples import agreement, film_figures, has_films, mean_figure, sample_figure

if TYPE_CHECKING:
    from rich.table import Table

DIFFERENCES = "Differences of the ELBO on each example"

# ---------------------------------------------------------------------------------------------- numbers


def difference(first: Results, second: Results) -> Measure | str:
    """ELBO of the second minus that of the first, paired on the same test examples; or why there is none, in words.

    In nats of log p(raw), more being better, and in bits per dimension, fewer being better: the units in which two
    preparations of the same raw data can be compared.
    """
    reason = _incomparable(first, second)
    if reason:
        return f"{second.title} − {first.title}: no difference is given, {reason}"
    in_bits = second.scores.bits_per_dimension - first.scores.bits_per_dimension
    nats_per_bit = second.spec.preparation.dimensions * math.log(2)
    return Measure(nats=Estimate.of(-in_bits * nats_per_bit), bits_per_dimension=Estimate.of(in_bits))


def _incomparable(one: Results, other: Results) -> str:
    if one.evaluation.examples_digest != other.evaluation.examples_digest:
        return "since the two were not evaluated on the same raw examples"
    if not torch.equal(one.scores.index, other.scores.index):
        return "since different examples of the test data were chosen"
    kinds = [results.spec.preparation for results in (one, other)]
    seeds = [results.evaluation.settings.seed for results in (one, other)]
    binary = [not isinstance(kind, Levels | Dequantise | Standardise) for kind in kinds]
    same = kinds[0] == kinds[1] and (kinds[0].deterministic or seeds[0] == seeds[1])
    if any(binary) and not same:
        names = " and ".join(f"{type(kind).__name__} with seed {seed}" for kind, seed in zip(kinds, seeds, strict=True))
        return f"since binarised data are other data: prepared by {names}"
    return ""


def comparison_groups(compared: Sequence[Results]) -> tuple[Groups, list[str]]:
    """The rows of the table under their headings, in the units of the raw data, and what is missing from it."""
    groups: dict[str, dict[str, Measure]] = {results.title: _bounds(results) for results in compared}
    first, *others = compared
    found = {f"{other.title} − {first.title}": difference(first, other) for other in others}
    measured = {name: value for name, value in found.items() if isinstance(value, Measure)}
    if measured:
        groups[DIFFERENCES] = measured
    return groups, [value for value in found.values() if isinstance(value, str)]


def _bounds(results: Results) -> dict[str, Measure]:
    """Every bound by name, the number of its examples with it where that is not the ELBO's."""
    evaluation, count = results.evaluation, results.evaluation.elbo.nats.count
    rows: dict[str, Bound] = {"ELBO": evaluation.elbo}
    for bound in evaluation.bounds:
        if bound.nats.count == count:
            rows.setdefault(bound.name, bound)
        else:
            rows[f"{bound.name}, {bound.nats.count} examples"] = bound
    return {name: _in_raw_units(bound, results.spec.preparation.dimensions) for name, bound in rows.items()}


def _in_raw_units(bound: Bound, dimensions: int) -> Measure:
    """Nats of log p(raw), which every preparation has in common, in place of those of log p(x)."""
    in_bits, nats_per_bit = bound.bits_per_dimension, dimensions * math.log(2)
    nats = Estimate(-in_bits.mean * nats_per_bit, in_bits.standard_error * nats_per_bit, in_bits.count)
    return Measure(nats=nats, bits_per_dimension=in_bits)


def comparison_table(compared: Sequence[Results]) -> "Table":
    """The bounds of several models for a terminal, and the differences of their ELBOs."""
    groups, missing = comparison_groups(compared)
    return measures_table(_where(compared), groups, missing)


def _where(compared: Sequence[Results]) -> str:
    return "; ".join(dict.fromkeys(f"{r.evaluation.source}: {r.count:,} examples" for r in compared))


# ---------------------------------------------------------------------------------------------- the page


@torch.no_grad()
def write_comparison(folder: Path, compared: Sequence[Results], title: str = "Comparison") -> Path:
    """Write report.html, one page about all models in `compared`, and pictures/*.png into `folder`; gives its path.

    Differences are to the first model. What `write_report` has drawn of the same `Results` is not drawn again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    albums = [Album(folder / "pictures", f"{number}-") for number in range(1, len(compared) + 1)]
    body = [
        _heading(title, compared),
        _bound_section(compared),
        _model_section(folder, compared),
        _sample_section(compared, albums),
        *(_own_sections(results, album) for results, album in zip(compared, albums, strict=True)),
    ]
    path = folder / "report.html"
    write_file(path, page.page(title, "\n".join(part for part in body if part)).encode())
    return path


def _heading(title: str, compared: Sequence[Results]) -> str:
    """What is compared, on what, and the numbers to remember."""
    names = [f"{results.title}: bits per dimension, at most" for results in compared]
    numbers = {
        name: typeset(results.evaluation.elbo.bits_per_dimension) for name, results in zip(names, compared, strict=True)
    }
    warnings = "".join(
        f'<p class="warning">{escape(results.title)}: {escape(warning)}.</p>'
        for results in compared
        for warning in results.evaluation.warnings
    )
    lead = f"{len(compared)} models of the same data, evaluated on {_where(compared)}."
    top = f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>'
    return "\n".join([top, page.key(numbers), warnings])


def _bound_section(compared: Sequence[Results]) -> str:
    families = {results.title: results.family for results in compared}
    groups, missing = comparison_groups(compared)
    caption = (
        "Means over the examples ± one standard error of that mean, in the units of the raw data. Nats: higher is "
        "better; bits per dimension: lower is better. Each is a bound on, or an estimate of, log p(x); that models "
        "bound it in different ways does not matter to what a bound says, only to how tight it is. The difference is "
        "taken example by example, so that what is hard about an example for both cancels from its error."
    )

    def formula(heading: str, name: str) -> str:
        if heading in families:
            return families[heading].formula(name.partition(",")[0])
        return "the bound of the one minus that of the other; more nats, fewer bits are better"

    notes = "".join(f'<p class="warning">{escape(reason)}.</p>' for reason in missing)
    return page.section("The bounds", html_table(groups, formula), f'<p class="small">{caption}</p>', notes)


def _model_section(folder: Path, compared: Sequence[Results]) -> str:
    rows = {
        "model": [results.family.name for results in compared],
        "parameters": [f"{results.parameters:,}" for results in compared],
        "training steps": [f"{results.steps:,}" for results in compared],
        "draws per example": [f"{results.evaluation.settings.draws}" for results in compared],
        "preparation": [results.evaluation.preparation for results in compared],
        "labels that it knows": [f"{results.model.classes or 'none'}" for results in compared],
    }
    if any(results.recognition for results in compared):
        asked = [agreement(results) if results.recognition else "not asked" for results in compared]
        rows["label right, by a classifier of real data"] = asked
    rows["its own report"] = [_link(folder, results) for results in compared]
    return page.section("The models", page.columns([escape(results.title) for results in compared], rows))


def _link(folder: Path, results: Results) -> str:
    """A relative link, so that the whole tree can be moved."""
    target = results.folder / "report.html"
    if not target.exists():
        return "none"
    address = quote(Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix())
    return f'<a href="{escape(address)}">{escape(results.title)}</a>'


def _sample_section(compared: Sequence[Results], albums: Sequence[Album]) -> str:
    """A column for each model: honest samples on top, below them means, where those are something else."""
    parts = []
    for results, album in zip(compared, albums, strict=True):
        if results.image:
            figures = [sample_figure(results, album)]
            if results.family.means is not None:
                figures.append(mean_figure(results, album))
            parts.append(page.part(results.title, *figures))
    return page.section("Samples", page.group("beside", parts)) if parts else ""


def _own_sections(results: Results, album: Album) -> str:
    """The films and the noise levels of a model that has them."""
    parts = []
    if has_films(results):
        parts.append(page.section(f"{results.title}: from data to noise, and back", *film_figures(results, album)))
    if results.evaluation.profile:
        parts.append(page.section(f"{results.title}: where the bits go", *bits_figures(results, album)))
    return "\n".join(parts)
