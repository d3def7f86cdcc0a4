"""Everything else that was measured of a run's weights, read from the records in its folder."""

from dataclasses import dataclass
from pathlib import Path

from jensen.compression.codelength import Codelength
from jensen.evaluation.referee import Verdict
from jensen.features.sample_metrics import SampleMetrics
from jensen.inference.calibration import Calibration
from jensen.inference.prediction import PredictionRecord
from jensen.inference.target_prediction import TargetRecord


@dataclass(frozen=True)
class Further:
    """The records about a run beside its evaluation; a section of the report for each."""

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
    raise NotImplementedError
