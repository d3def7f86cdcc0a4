"""Whole pages as files: the report of a run, a comparison of several, and predictions for one set of examples."""

from collections.abc import Sequence
from pathlib import Path

from jensen.inference.prediction import PredictionRecord
from jensen.inference.target_prediction import TargetRecord
from jensen.report.further import Further
from jensen.report.results import Results


def write_report(results: Results, further: Further = Further()) -> Path:  # noqa: B008
    """Write report.html and pictures/*.png into the run's folder; gives the page's path."""
    raise NotImplementedError


def write_comparison(folder: Path, compared: Sequence[Results], title: str = "Comparison") -> Path:
    """Write report.html, one page about several runs, and pictures/*.png into `folder`; gives the page's path.

    Differences are to the first run. Every run's own report gets a link back to this page.
    """
    raise NotImplementedError


def write_predictions(folder: Path, record: PredictionRecord | TargetRecord, title: str) -> Path:
    """Write predictions.html and its pictures into `folder`; gives the page's path."""
    raise NotImplementedError
