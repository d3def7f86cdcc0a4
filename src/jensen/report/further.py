"""Everything else that was measured of a run's weights, read from the records in its folder."""

from dataclasses import dataclass
from pathlib import Path

from jensen.compression.codelength import Codelength
from jensen.evaluation.referee import Verdict
from jensen.features.sample_metrics import SampleMetrics
from jensen.inference.calibration import Calibration, load_calibration
from jensen.inference.prediction import PredictionRecord, load_predictions
from jensen.inference.target_prediction import TargetRecord, load_targets
from jensen.records import read_record
from jensen.report.album import Album
from jensen.report.compression import RECORD as COMPRESSION
from jensen.report.compression import compression_section
from jensen.report.imputation import imputation_section
from jensen.report.predictions import prediction_section
from jensen.report.referee import referee_section
from jensen.report.render import Section
from jensen.report.sample_metrics import RECORD as SAMPLE_METRICS
from jensen.report.sample_metrics import metrics_section
from jensen.report.target_predictions import targets_section


@dataclass(frozen=True)
class Further:
    """The records about a run beside its evaluation; the report has a section for each."""

    verdict: Verdict | None = None
    sample_metrics: tuple[SampleMetrics, ...] = ()
    """One for each kind of features."""
    predictions: PredictionRecord | None = None
    targets: TargetRecord | None = None
    calibration: Calibration | None = None
    codelength: Codelength | None = None


def further_records(folder: Path, step: int) -> Further:
    """The records in a run's folder that are about the weights of training step `step`; without a verdict.

    Raises `InputError` for a damaged record. The caller adds the verdict of the evaluation at hand:
    `dataclasses.replace(further, verdict=verdict)`.
    """
    again = f"make it again: jensen features check {folder}"
    paths = sorted(folder.glob(SAMPLE_METRICS.format("*")))
    metrics = [read_record(path, SampleMetrics, again) for path in paths]
    predictions, targets, calibration = load_predictions(folder), load_targets(folder), load_calibration(folder)
    codelength = read_record(folder / COMPRESSION, Codelength, f"make it again: jensen compress {folder}")
    return Further(
        sample_metrics=tuple(one for one in metrics if one and one.weights == step),
        predictions=predictions if predictions and predictions.weights == step else None,
        targets=targets if targets and targets.weights == step else None,
        calibration=calibration if calibration and calibration.weights == step else None,
        codelength=codelength if codelength and codelength.weights == step else None,
    )


def further_sections(folder: Path, further: Further) -> list[Section | None]:
    """A section of the report in a run's folder for each record."""
    pictures = folder / "pictures"
    return [
        referee_section(further.verdict) if further.verdict else None,
        metrics_section(folder, further.sample_metrics),
        prediction_section(further.predictions, Album(pictures, "prediction-")) if further.predictions else None,
        targets_section(further.targets, Album(pictures, "targets-")) if further.targets else None,
        imputation_section(further.calibration, Album(pictures, "imputation-")) if further.calibration else None,
        compression_section(further.codelength) if further.codelength else None,
    ]
