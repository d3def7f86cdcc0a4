"""All measurements of a run's weights besides the evaluation, read from the records in its folder."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jensen.compression.codelength import Codelength
from jensen.evaluation.referee import FILE as REFEREE
from jensen.evaluation.referee import Verdict
from jensen.features.sample_metrics import SampleMetrics
from jensen.inference.calibration import RECORD as CALIBRATION
from jensen.inference.calibration import Calibration
from jensen.inference.prediction import RECORD as PREDICTIONS
from jensen.inference.prediction import PredictionRecord
from jensen.inference.target_prediction import RECORD as TARGETS
from jensen.inference.target_prediction import TargetRecord
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

Record = TypeVar("Record", Verdict, SampleMetrics, PredictionRecord, TargetRecord, Calibration, Codelength)


@dataclass(frozen=True)
class Further:
    """The records of a run besides the evaluation; the report has a section for each record."""

    verdict: Verdict | None = None
    sample_metrics: tuple[SampleMetrics, ...] = ()
    """One record per kind of features."""
    predictions: tuple[PredictionRecord, ...] = ()
    """One record, or for a table one per predicted column that has classes."""
    targets: tuple[TargetRecord, ...] = ()
    """One record, or for a table one per predicted column of numbers."""
    calibration: Calibration | None = None
    codelength: Codelength | None = None
    stale: tuple[str, ...] = ()
    """One sentence for each record that is left out because it is about other weights."""


def further_records(folder: Path, weights: str) -> Further:
    """The records in a run's folder that are about the weights with the SHA-256 `weights`.

    Raises `InputError` for a damaged record.
    """
    run = shlex.quote(str(folder))
    stale: list[str] = []

    def current(name: str, kind: type[Record], command: str) -> Record | None:
        record = read_record(folder / name, kind, f"make it again: {command}")
        made = None if record is None else record.provenance
        if record is None or (made is not None and made.weights == weights):
            return record
        stale.append(f"{name} is about other weights than the run's best and is left out; make it again: {command}")
        return None

    def every(name: str, kind: type[Record]) -> tuple[Record, ...]:
        """The records of predictions: of labels or targets, and of each column."""
        names = [name, *(path.name for path in sorted(folder.glob(name.replace(".", "-*."))))]
        found = [current(one, kind, f"jensen predict {run} --out predictions.csv") for one in names]
        return tuple(record for record in found if record)

    names = [path.name for path in sorted(folder.glob(SAMPLE_METRICS.format("*")))]
    metrics = [current(name, SampleMetrics, f"jensen features check {run}") for name in names]
    old = shlex.quote(str(folder / REFEREE))
    return Further(
        verdict=current(REFEREE, Verdict, f"rm {old}; jensen evaluate {run} --referee"),
        sample_metrics=tuple(one for one in metrics if one),
        predictions=every(PREDICTIONS, PredictionRecord),
        targets=every(TARGETS, TargetRecord),
        calibration=current(CALIBRATION, Calibration, f"jensen impute {run} --mask MASK --calibrate --out imputed"),
        codelength=current(COMPRESSION, Codelength, f"jensen compress {run} --out test.jensen"),
        stale=tuple(stale),
    )


def further_sections(folder: Path, further: Further) -> list[Section | None]:
    """A section of the report in a run's folder for each record."""
    pictures = folder / "pictures"
    return [
        referee_section(further.verdict) if further.verdict else None,
        metrics_section(folder, further.sample_metrics),
        *(prediction_section(record, pictures) for record in further.predictions),
        *(targets_section(record, pictures) for record in further.targets),
        imputation_section(further.calibration, Album(pictures, "imputation-")) if further.calibration else None,
        compression_section(further.codelength) if further.codelength else None,
    ]
