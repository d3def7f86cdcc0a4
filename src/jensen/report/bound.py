"""The bound, the terms of the bound, further bounds and all differences, as a terminal table and as a section."""

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from jensen.bound import Estimate
from jensen.data.examples import counted
from jensen.evaluation.evaluation import Evaluation
from jensen.evaluation.measure import Measure, typeset
from jensen.evaluation.yardsticks import Yardsticks
from jensen.pareto import UNTRUSTED
from jensen.report.render import Section, address_from, back_link
from jensen.report.results import Results
from jensen.report.tables import measure_rows, measures_table

if TYPE_CHECKING:
    from rich.table import Table

# ---------------------------------------------------------------------------------------------- for a terminal


def table(evaluation: Evaluation) -> "Table":
    """The evaluation for a terminal: nats per example and bits per dimension, each ± standard error."""
    title = f"{evaluation.source}: {counted(evaluation.examples)}, {evaluation.settings.draws} draws each"
    warned = [f"Warning: {warning}" for warning in evaluation.warnings]
    return measures_table(title, groups(evaluation), [*remarks(evaluation), *warned], bits=not evaluation.of_table)


def groups(evaluation: Evaluation) -> dict[str, dict[str, Measure]]:
    """The rows of the evaluation by heading: the terms of the bound, all bounds on the same examples, the gaps."""
    shown: dict[str, dict[str, Measure]] = {"The bound by its terms": {**evaluation.terms, "ELBO": evaluation.elbo}}
    if evaluation.bounds:
        same = f"On the same {counted(evaluation.bounds[0].nats.count)}"
        shown[same] = {bound.name: bound for bound in evaluation.bounds}
        shown["Differences on each example"] = {gap.name: gap for gap in evaluation.gaps}
    return shown


def remarks(evaluation: Evaluation) -> list[str]:
    """Results other than means over examples, one line each: errors, effective sample sizes, diagnostics."""
    lines = []
    if math.isfinite(evaluation.elbo.monte_carlo_error):
        lines.append(f"Monte-Carlo error of one example's ELBO: {evaluation.elbo.monte_carlo_error:.2g} nats")
    for bound in evaluation.bounds:
        if bound.weights:
            weights = bound.weights
            median, least = weights.median_effective_sample_size, weights.minimum_effective_sample_size
            sizes = f"{median:.3g} of {weights.samples} (median), {least:.3g} (least)"
            lines.append(f"{bound.name}: effective sample size {sizes}")
            if math.isfinite(weights.untrusted):
                many = f"above {UNTRUSTED} for {100 * weights.untrusted:.3g} % of the examples"
                lines.append(f"{bound.name}: Pareto k {weights.median_pareto_shape:.2g} (median), {many}")
    return lines + [f"{name}: {value:.4g}" for name, value in evaluation.diagnostics.items()]


# ---------------------------------------------------------------------------------------------- for a page


def heading(results: Results) -> Section:
    """The top of a report: the model, the main results beside yardsticks, and warnings."""
    evaluation = results.evaluation
    sentences = (*evaluation.warnings, *results.stale)
    warnings = [(sentence[:1].upper() + sentence[1:], "") for sentence in sentences] + unfinished(results)
    return Section(
        results.title,
        "heading",
        {
            "title": results.title,
            "lead": _lead(results),
            "back": _back(results),
            "numbers": _numbers(evaluation),
            "yardsticks": None if results.yardsticks is None else yardstick_words(results.yardsticks, results.count),
            "unit": "nats per row" if evaluation.of_table else "bits per dimension",
            "warnings": warnings,
            "advice": advice(evaluation, results.run_folder),
        },
    )


def _numbers(evaluation: Evaluation) -> dict[str, str]:
    """The main results: nats per row of a table, otherwise bits per dimension first."""
    if evaluation.of_table:
        return {"nats per row, at least": typeset(evaluation.elbo.nats), "rows": f"{evaluation.examples:,}"}
    return {
        "bits per dimension, at most": typeset(evaluation.elbo.bits_per_dimension),
        "nats per example, at least": typeset(evaluation.elbo.nats),
        "examples": f"{evaluation.examples:,}",
    }


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lead(results: Results) -> str:
    exhibits, evaluation = results.exhibits, results.evaluation
    return (
        f"A {results.words.name} with {exhibits.parameters:,} parameters, trained for {results.trained_steps:,} steps. "
        f"The weights of step {results.weights_step:,} were evaluated on {evaluation.source}."
    )


def _back(results: Results) -> str:
    return "" if results.comparison is None else back_link(address_from(results.folder, results.comparison))


def unfinished(results: Results) -> list[tuple[str, str]]:
    """A warning that training was interrupted, with the command to continue; empty if training is finished."""
    if results.finished:
        return []
    planned = results.recipe.get("training", {}).get("steps")
    of = "" if planned is None else f" of {planned:,}"
    sentence = f"Training is unfinished: it stopped at step {results.trained_steps:,}{of}. Continue it with"
    return [(sentence, f"jensen resume {shlex.quote(str(results.run_folder))}")]


def advice(evaluation: Evaluation, folder: Path) -> list[str]:
    """Commands that help if importance weights cannot be trusted."""
    if not any(bound.weights and bound.weights.doubtful for bound in evaluation.bounds):
        return []
    again = f"jensen evaluate {shlex.quote(str(folder))}"
    return [f"{again} --samples {10 * evaluation.settings.samples}", f"{again} --referee"]


def yardstick_words(found: Yardsticks, count: int) -> dict[str, str]:
    """Bits per dimension, or nats per row of a table, of simple models on the same examples, with their names."""
    of = "" if found.examples == count else f", {found.examples:,} of the examples"
    independent = f"independent dimensions, fitted on {found.fitted:,} training examples{of}"
    if found.independent_nats is not None:
        return {
            f"independent columns, fitted on {found.fitted:,} training rows{of}": _with_doubt(found.independent_nats)
        }
    rows = {
        "all values equally likely": None if found.uniform is None else f"{found.uniform:.3f}",
        independent: None if found.independent is None else _with_doubt(found.independent),
        f"PNG, all images in one file{of}": None if found.png is None else f"{found.png:.3f}",
    }
    return {name: value for name, value in rows.items() if value is not None}


def _with_doubt(estimate: Estimate) -> str:
    return typeset(estimate) + (f" ({estimate.doubt})" if estimate.doubt else "")


def bound_section(results: Results) -> Section:
    """The terms of the bound, all further bounds, the gaps, and remarks on the reliability of these results."""
    evaluation = results.evaluation
    return Section(
        "The bound",
        "bound",
        {
            "groups": measure_rows(groups(evaluation), lambda heading, name: results.words.formula(name)),
            "draws": evaluation.settings.draws,
            "bits": not evaluation.of_table,
            "notes": remarks(evaluation),
        },
    )
