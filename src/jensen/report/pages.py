"""Whole pages as files: the report of a run, a comparison of several runs, and predictions for one set of examples."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from jensen.inference.prediction import PredictionRecord
from jensen.inference.target_prediction import TargetRecord
from jensen.records import named_by, write_file
from jensen.report.again import data_section, provenance_section, recipe_section
from jensen.report.album import Album
from jensen.report.bits import bits_section
from jensen.report.bound import bound_section, heading
from jensen.report.columns import column_section
from jensen.report.comparison import NONE, comparison_sections
from jensen.report.examples import example_section, latent_section, reconstruction_section
from jensen.report.files import PICTURES, file_section
from jensen.report.films import film_section
from jensen.report.further import Further, further_sections
from jensen.report.predictions import prediction_section
from jensen.report.render import BACK, Section, address_from, back_link, write_page
from jensen.report.results import Results
from jensen.report.samples import sample_section
from jensen.report.target_predictions import targets_section
from jensen.report.training import training_section

REPORT = "report.html"
NOTHING = Further()


def write_report(results: Results, further: Further = NOTHING) -> Path:
    """Write report.html and pictures/*.png into the folder of the results. Returns the page's path."""
    album = Album(results.folder / PICTURES)
    sections = [
        bound_section(results),
        training_section(results, album),
        column_section(results, album),
        sample_section(results, album),
        film_section(results, album),
        bits_section(results, album),
        reconstruction_section(results, album),
        latent_section(results, album),
        example_section(results, album),
        *further_sections(results.folder, further),
        data_section(results.spec),
        provenance_section(results),
        recipe_section(results),
        file_section(results, further),
    ]
    return write_page(results.folder / REPORT, results.title, heading(results), sections)


def write_comparison(
    folder: Path, compared: Sequence[Results], title: str = "Comparison", baselines: Mapping[str, Tensor] = NONE
) -> Path:
    """Write a page about several runs into `folder`, and return the path of the page.

    The files are report.html and pictures/*.png. Differences are relative to the first run. Every run's own report gets
    a link back to this page.
    """
    albums = [Album(folder / PICTURES, f"{number}-") for number in range(1, len(compared) + 1)]
    top, sections = comparison_sections(folder, compared, albums, title, baselines)
    path = write_page(folder / REPORT, title, top, sections)
    for results in compared:
        _link_back(results.folder / REPORT, path)
    return path


def _link_back(report: Path, comparison: Path) -> None:
    """Add to a report the link to a comparison; a report that cannot be written stays as it is."""
    with suppress(OSError):
        link = back_link(address_from(report.parent, comparison))
        text = report.read_text(encoding="utf-8")
        if link not in text:
            write_file(report, BACK.sub(lambda found: found[0] + link, text, count=1).encode())


def write_predictions(folder: Path, record: PredictionRecord | TargetRecord, title: str) -> Path:
    """Write predictions.html, or predictions-COLUMN.html for a table, and its pictures. Returns the page's path."""
    if isinstance(record, TargetRecord):
        section, kind = targets_section(record, folder / PICTURES), "Targets"
    else:
        section, kind = prediction_section(record, folder / PICTURES), "Labels"
    kind = "Cells" if record.column is not None else kind
    top = Section(title, "plain_heading", {"title": title, "lead": f"{kind} predicted for {record.source}."})
    return write_page(folder / named_by("predictions.html", record.column), f"{title}: predictions", top, [section])
