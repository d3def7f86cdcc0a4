"""A comparison of several models of the same data: a terminal table, and the sections of a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jensen.data.examples import counted
from jensen.data.preparation import Dequantise, Levels, Preparation, Standardise
from jensen.data.table_preparation import TablePreparation
from jensen.evaluation.evaluation import Bound
from jensen.evaluation.measure import Groups, Measure, doubts, typeset
from jensen.evaluation.units import measure
from jensen.report.album import Album
from jensen.report.bits import bits_section
from jensen.report.bound import advice, unfinished, yardstick_words
from jensen.report.films import film_section
from jensen.report.render import Section, address_from
from jensen.report.results import Results
from jensen.report.samples import agreement, mean_grid, real_grid, sample_grid
from jensen.report.tables import measure_rows, measures_table

if TYPE_CHECKING:
    from rich.table import Table

DIFFERENCES = "Differences of the ELBO on each example"

# ---------------------------------------------------------------------------------------------- numbers


def difference(first: Results, second: Results) -> Measure | str:
    """The second ELBO minus the first, paired on the same test examples, or the reason why it is unknown.

    The units are nats of log p(raw) (more are better) and bits per dimension (fewer are better). In both units, two
    preparations of the same raw data can be compared.
    """
    reason = _incomparable(first, second)
    if reason:
        return f"{second.title} − {first.title}: no difference is given, {reason}"
    return measure(second.scores.bound - first.scores.bound, first.scores.observed, sign=-1)


def _incomparable(one: Results, other: Results) -> str:
    if one.evaluation.examples_digest != other.evaluation.examples_digest:
        return "because the two were not evaluated on the same raw examples"
    if not torch.equal(one.scores.index, other.scores.index):
        return "because different examples of the test data were chosen"
    kinds = [results.spec.preparation for results in (one, other)]
    seeds = [results.evaluation.settings.seed for results in (one, other)]
    if _measures(kinds[0]) != _measures(kinds[1]):
        return "because the columns of their tables have different types or atoms, so the units differ"
    binary = [not isinstance(kind, Levels | Dequantise | Standardise | TablePreparation) for kind in kinds]
    same = kinds[0] == kinds[1] and (kinds[0].deterministic or seeds[0] == seeds[1])
    if any(binary) and not same:
        names = " and ".join(f"{type(kind).__name__} with seed {seed}" for kind, seed in zip(kinds, seeds, strict=True))
        return f"because their binarised data differ: prepared by {names}"
    return ""


def _measures(preparation: Preparation) -> list[tuple[str, tuple[float, ...]]]:
    """The kind of probability of each field of a table, and its atoms; empty for other data."""
    if not isinstance(preparation, TablePreparation):
        return []
    return [("density" if field.law == "real" else "mass", field.atoms) for field in preparation.fields]


def comparison_groups(compared: Sequence[Results]) -> tuple[Groups, list[str]]:
    """The rows of the table by heading, in the units of the raw data, and notes on missing rows and doubtful errors."""
    groups: dict[str, dict[str, Measure]] = {results.title: _bounds(results) for results in compared}
    first, *others = compared
    found = {f"{other.title} − {first.title}": difference(first, other) for other in others}
    measured = {name: value for name, value in found.items() if isinstance(value, Measure)}
    if measured:
        groups[DIFFERENCES] = measured
    return groups, [value for value in found.values() if isinstance(value, str)] + doubts(measured)


def _bounds(results: Results) -> dict[str, Measure]:
    """Every bound by name; the name includes the number of examples if the ELBO has another number of examples."""
    evaluation, count = results.evaluation, results.evaluation.elbo.nats.count
    rows: dict[str, Bound] = {"ELBO": evaluation.elbo}
    for bound in evaluation.bounds:
        if bound.nats.count == count:
            rows.setdefault(bound.name, bound)
        else:
            rows[f"{bound.name}, {counted(bound.nats.count)}"] = bound
    return dict(rows)


def comparison_table(compared: Sequence[Results]) -> "Table":
    """The bounds of several models for a terminal, and the differences between the ELBOs."""
    groups, notes = comparison_groups(compared)
    warned = [f"Warning: {one.title}: {warning}" for one in compared for warning in one.evaluation.warnings]
    return measures_table(_where(compared), groups, [*notes, *warned], bits=not _of_table(compared))


def _of_table(compared: Sequence[Results]) -> bool:
    return all(results.evaluation.of_table for results in compared)


def _where(compared: Sequence[Results]) -> str:
    return "; ".join(dict.fromkeys(f"{r.evaluation.source}: {counted(r.count)}" for r in compared))


# ---------------------------------------------------------------------------------------------- for a page


def comparison_sections(
    folder: Path, compared: Sequence[Results], albums: Sequence[Album], title: str
) -> tuple[Section, list[Section | None]]:
    """The top and the sections of the page in `folder` that compares several models."""
    own = [
        section
        for results, album in zip(compared, albums, strict=True)
        for section in (
            film_section(results, album, f"{results.title}: from data to noise, and back"),
            bits_section(results, album, f"{results.title}: where the bits go"),
        )
    ]
    sections = [_bound_section(compared), _model_section(folder, compared), _sample_section(compared, albums), *own]
    return _heading(title, compared), sections


def _heading(title: str, compared: Sequence[Results]) -> Section:
    """The top of the page: the models, the data, the main results, and warnings."""
    unit = "nats per row" if _of_table(compared) else "bits per dimension"
    numbers = {
        f"{one.title}: {unit}, at {'least' if one.evaluation.of_table else 'most'}": typeset(
            one.evaluation.elbo.nats if one.evaluation.of_table else one.evaluation.elbo.bits_per_dimension
        )
        for one in compared
    }
    warnings = [(f"{results.title}: {warning}", "") for results in compared for warning in results.evaluation.warnings]
    warnings += [(f"{one.title}: {text}", command) for one in compared for text, command in unfinished(one)]
    yardsticks = next((results.yardsticks for results in compared if results.yardsticks), None)
    return Section(
        title,
        "heading",
        {
            "title": title,
            "lead": f"{len(compared)} models of the same data, evaluated on {_where(compared)}.",
            "back": "",
            "numbers": numbers,
            "unit": unit,
            "yardsticks": yardsticks and yardstick_words(yardsticks, compared[0].count),
            "warnings": warnings,
            "advice": [command for one in compared for command in advice(one.evaluation, one.run_folder)],
        },
    )


def _bound_section(compared: Sequence[Results]) -> Section:
    words = {results.title: results.words for results in compared}
    groups, notes = comparison_groups(compared)

    def formula(heading: str, name: str) -> str:
        if heading in words:
            return words[heading].formula(name.partition(",")[0])
        return "the first-named bound minus the second; more nats, fewer bits are better"

    values = {
        "groups": measure_rows(groups, formula),
        "warnings": [(note, "") for note in notes],
        "bits": not _of_table(compared),
    }
    return Section("The bounds", "comparison_bounds", values)


def _model_section(folder: Path, compared: Sequence[Results]) -> Section:
    steps = [f"{one.trained_steps:,}{'' if one.finished else ', unfinished'}" for one in compared]
    rows = {
        "model": [results.words.name for results in compared],
        "parameters": [f"{results.exhibits.parameters:,}" for results in compared],
        "training steps": steps,
        "weights of step": [f"{results.weights_step:,}" for results in compared],
        "draws per example": [f"{results.evaluation.settings.draws}" for results in compared],
        "preparation": [results.evaluation.preparation for results in compared],
        "number of labels": [f"{len(results.exhibits.labels) or 'none'}" for results in compared],
    }
    if any(results.recognition for results in compared):
        rows["label right, by a classifier of real data"] = [agreement(results) or "unknown" for results in compared]
    titles = [results.title for results in compared]
    links = [(results.title, _link(folder, results)) for results in compared]
    return Section("The models", "models", {"titles": titles, "rows": rows, "links": links})


def _link(folder: Path, results: Results) -> str:
    """The address of a run's own report; empty if the run has no report."""
    target = results.folder / "report.html"
    return address_from(folder, target) if target.exists() else ""


def _sample_section(compared: Sequence[Results], albums: Sequence[Album]) -> Section | None:
    """One column per model, with samples above the means of the samples, and one column of real data."""
    columns = []
    for results, album in zip(compared, albums, strict=True):
        if results.image:
            grids = [sample_grid(results, album), mean_grid(results, album)]
            columns.append((results.title, [grid for grid in grids if grid]))
    if not columns:
        return None
    most = max(range(len(compared)), key=lambda number: len(compared[number].exhibits.shown_labels))
    if real := real_grid(compared[most], albums[most]):
        columns.append(("Real data", [real]))
    return Section("Samples", "comparison_samples", {"columns": columns})
