"""Predictions of continuous targets as a table for a terminal, as a picture, and as a section of a report."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from jensen.bound import Estimate
from jensen.evaluation.measure import typeset
from jensen.inference.target_prediction import Regression, TargetRecord, load_targets
from jensen.records import write_file
from jensen.report import page
from jensen.report.album import Album
from jensen.report.imputation import coverage_picture
from jensen.report.predictions import error_in_words

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 10  # numbers of y whose errors are in the table

# ---------------------------------------------------------------------------------------------- table


def targets_table(record: TargetRecord) -> "Table":
    """The model beside a linear regression and always predicting p(y), for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE, title=Text(f"{record.source}: {record.examples:,} examples"), title_justify="left")
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
    """What the numbers rest on, a line each."""
    linear = (
        "linear: Bayesian linear regression (scikit-learn's BayesianRidge) on the training examples."
        if record.linear
        else "The training examples could not be read again, so no linear regression stands beside."
    )
    return [
        linear,
        "always p(y): a normal with mean and standard deviation of the training targets.",
        f"Monte-Carlo error of the means, in predicted standard deviations: {error_in_words(record.standard_error)}.",
        f"Effective sample size: {record.effective_sample_size:.3g} (median).",
    ]


# ---------------------------------------------------------------------------------------------- page


def targets_section(folder: Path, weights: int) -> str:
    """The section of a report about predicted targets in a run's folder; empty where none are by these weights."""
    record = load_targets(folder)
    return "" if record is None or record.weights != weights else _section(record, _album(folder))


def _album(folder: Path) -> Album:
    return Album(folder / "pictures", "targets-")


def _section(record: TargetRecord, album: Album) -> str:
    notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(record))
    hidden = len(record.model.errors) - SHOWN
    more = f" Errors of {hidden} more numbers of y are in the record." if hidden > 0 else ""
    caption = (
        "Left: how often central intervals of p(y|x) hold y; on the dashed line as often as they should. Right: the "
        "probability of less than y; on the dashed line if p(y|x) is calibrated. Bars are two standard errors."
    )
    picture = coverage_picture(record.model.coverage, record.model.ranks, "p(Y ≤ y | x)")
    return page.section(
        "Prediction",
        page.columns(list(_predictors(record)), _rows(record)),
        f'<p class="small">Means over {record.examples:,} examples ± one standard error; densities and errors in the '
        f"units of y.{more}</p>",
        f'<ul class="small">{notes}</ul>',
        album.chart("calibration", picture, "Coverage of intervals and ranks of the truth", caption),
    )


def write_targets_page(folder: Path, record: TargetRecord, title: str) -> Path:
    """Write predictions.html, one page that needs no network, and its picture into `folder`; gives the page's path."""
    top = f'<h1>{escape(title)}</h1>\n<p class="lead">Targets predicted for {escape(record.source)}.</p>'
    path = folder / "predictions.html"
    body = "\n".join([top, _section(record, _album(folder))])
    write_file(path, page.page(f"{title}: predictions", body).encode())
    return path
