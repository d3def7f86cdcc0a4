"""The files beside a report, each with a description and a link."""

from jensen.evaluation.referee import FILE as REFEREE
from jensen.evaluation.saved import MEANS, SCORES
from jensen.inference.calibration import RECORD as CALIBRATION
from jensen.inference.prediction import RECORD as PREDICTIONS
from jensen.inference.target_prediction import RECORD as TARGETS
from jensen.records import named_by
from jensen.report.compression import RECORD as COMPRESSION
from jensen.report.further import Further
from jensen.report.render import Section, address_from
from jensen.report.results import Results
from jensen.report.sample_metrics import RECORD as SAMPLE_METRICS

PICTURES = "pictures"  # the folder beside a page


def _of(predicted: str) -> str:
    return f"the quality of predicted {predicted}"


def file_section(results: Results, further: Further) -> Section | None:
    """Links to the records behind the report, and to the tables in the same folder."""
    beside = {
        MEANS: "the bounds, their errors and settings",
        SCORES: "the bound of every example",
        REFEREE: "all estimates of log p(x), example by example" if further.verdict else "",
        PICTURES: "every picture of this page as a PNG file",
    }
    of_the_run = {
        **{named_by(PREDICTIONS, one.column): _of(one.column or "labels") for one in further.predictions},
        **{named_by(TARGETS, one.column): _of(one.column or "targets") for one in further.targets},
        CALIBRATION: "the calibration of imputations" if further.calibration else "",
        COMPRESSION: "the sizes of the compressed file" if further.codelength else "",
        **{SAMPLE_METRICS.format(one.features): "metrics of samples" for one in further.sample_metrics},
        **{path.name: "a table made by a command" for path in sorted(results.run_folder.glob("*.csv"))},
        "metrics.jsonl": "the log of training",
        "recipe.json": "all settings",
        "data.json": "the description of the data",
    }
    described = [(results.folder / name, text) for name, text in beside.items()]
    described += [(results.run_folder / name, text) for name, text in of_the_run.items()]
    found = [(path, text) for path, text in described if text and path.exists()]
    links = [(path.name, address_from(results.folder, path), text) for path, text in found]
    return Section("Files", "files", {"files": links}) if links else None
