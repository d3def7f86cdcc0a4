"""Predictions of continuous targets as a terminal table, as a picture, and as a section of a report."""

from pathlib import Path
from typing import TYPE_CHECKING

from jensen.bound import Estimate
from jensen.data.examples import counted
from jensen.evaluation.measure import doubts, typeset
from jensen.inference.target_prediction import Regression, TargetRecord
from jensen.records import named_by
from jensen.report.album import Album
from jensen.report.imputation import coverage_picture
from jensen.report.predictions import NO_BASELINE, error_in_words
from jensen.report.render import Section

if TYPE_CHECKING:
    from rich.table import Table

MARGINAL = (
    "always p(y): the law of the column in the model of independent columns (see jensen evaluate), given that the cell "
    "is present; its mean and its intervals are those of the training cells."
)
SHOWN = 10  # maximum number of dimensions of y with errors in the table

# ---------------------------------------------------------------------------------------------- table


def targets_table(record: TargetRecord) -> "Table":
    """The quality of the model, of a linear regression and of the constant prediction p(y), for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE, title=Text(f"{record.source}: {counted(record.examples)}"), title_justify="left")
    for header in ("", *_predictors(record)):
        shown.add_column(header, justify="right" if header else "left", no_wrap=bool(header))
    for name, cells in _rows(record).items():
        shown.add_row(name, *cells)
    shown.caption = Text("\n".join(remarks(record)), style="not dim not italic")
    shown.caption_justify = "left"
    return shown


def _predictors(record: TargetRecord) -> dict[str, Regression]:
    found = {"p(y|x)": record.model, "linear": record.linear, "always p(y)": record.always}
    return {name: regression for name, regression in found.items() if regression is not None}


def _rows(record: TargetRecord) -> dict[str, list[str]]:
    predictors = list(_predictors(record).values())
    dims = len(record.model.errors)
    rows = {"log-density, nats": [typeset(one.log_density) for one in predictors]}
    for d in range(min(dims, SHOWN)):
        name = "root mean square error" if dims == 1 else f"RMS error, y[{d}]"
        rows[name] = [typeset(one.errors[d]) for one in predictors]
    for number, one in enumerate(record.model.coverage):
        cells = [_percent(predictor.coverage[number].share) for predictor in predictors]
        rows[f"{100 * one.nominal:g} % intervals hold, %"] = cells
    return rows


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f} ± {100 * estimate.standard_error:.1f}".replace("-", "−")


def remarks(record: TargetRecord) -> list[str]:
    """Notes on the results, one line each."""
    dims, column = len(record.model.errors), record.column
    names = [column or "y"] if dims == 1 else [f"y[{number}]" for number in range(dims)]
    errors = {f"error of {name}": error for name, error in zip(names, record.model.errors, strict=True)}
    return [
        *_of_simple(record),
        f"Monte-Carlo error of the means, in predicted standard deviations: {error_in_words(record.standard_error)}.",
        f"Effective sample size: {record.effective_sample_size:.3g} (median).",
        *doubts({f"log-density of {column or 'y'}": record.model.log_density, **errors}),
    ]


def _of_simple(record: TargetRecord) -> list[str]:
    """What the simple predictors are, or why they are missing."""
    if record.column is not None:
        return [MARGINAL if record.always else NO_BASELINE]
    linear = (
        "linear: Bayesian linear regression (scikit-learn's BayesianRidge) on the training examples."
        if record.linear
        else "There is no linear regression to compare with: the training data of the run could not be read again."
    )
    return [linear, "always p(y): a normal with mean and standard deviation of the training targets."]


# ---------------------------------------------------------------------------------------------- page


def targets_section(record: TargetRecord, pictures: Path) -> Section:
    """The quality of the predicted targets as a section of a report, with its charts in the folder `pictures`."""
    album = Album(pictures, f"{named_by('targets', record.column)}-")
    picture = coverage_picture(record.model.coverage, record.model.ranks, "p(Y ≤ y | x)")
    return Section(
        f"Prediction of {record.column}" if record.column else "Prediction",
        "target_predictions",
        {
            "heads": list(_predictors(record)),
            "rows": _rows(record),
            "examples": counted(record.examples),
            "hidden": max(len(record.model.errors) - SHOWN, 0),
            "notes": remarks(record),
            "calibration": album.chart("calibration", picture, "Coverage of intervals and ranks of the truth"),
        },
    )
