"""p(y|x) over labels for a set of examples, and the quality of the predictions if the labels are known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float, Int
from pydantic import model_validator
from torch import Tensor

from jensen import processes
from jensen.bound import Estimate, root_mean_square
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.scores import prepare
from jensen.model import AbstractLatentVariableModel, Prediction
from jensen.progress import track
from jensen.provenance import Provenance
from jensen.randomness import Stream, generator
from jensen.records import Value, named_by, write_record

RECORD = "predictions.json"
AT_ONCE = 50  # number of examples predicted together, between two updates of the progress
BINS = 15  # number of equally wide bins of the calibration curve (Guo et al. 2017)
SIMULATIONS = 200  # sets of labels simulated from the predicted probabilities, for a calibrated model's error

# ---------------------------------------------------------------------------------------------- predict


@dataclass(frozen=True, eq=False)
class Predictions:
    """p(y|x) of some examples: the indices, the prediction, and the labels or None; on the CPU.

    A label is -1 if it is unknown.
    """

    index: Int[Tensor, " count"]
    prediction: Prediction
    labels: Int[Tensor, " count"] | None

    def known(self) -> Self:
        """The examples whose labels are known."""
        assert self.labels is not None
        rows = self.labels >= 0
        parts = {each.name: getattr(self.prediction, each.name)[rows] for each in fields(self.prediction)}
        return type(self)(self.index[rows], Prediction(**parts), self.labels[rows])


def predict_examples(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    *,
    draws: int | None = None,
    seed: int = 0,
    index: Tensor | None = None,
) -> Predictions:
    """`model.predict` for the examples whose indices are in `index` (default: all examples).

    Row i is a pure function of (seed, index[i]). Processes started by torchrun divide the batches among themselves.
    """
    index = torch.arange(len(examples)) if index is None else index
    mine = []
    with processes.together():
        for rows in track(processes.share(index.split(AT_ONCE)), "predicting"):
            x = prepare(preparation, examples.x[rows], rows, seed).to(model.device)
            mine.append(_columns(model.predict(x, draws=draws, seed=seed, index=rows)))
    labels = None if examples.labels is None else examples.labels[index]
    parts = [Prediction(**columns) for columns in processes.gathered(mine)]
    return Predictions(index, Prediction.concatenate(parts), labels)


def _columns(found: Prediction) -> dict[str, Tensor]:
    return {each.name: getattr(found, each.name).detach().cpu().double() for each in fields(found)}


# ---------------------------------------------------------------------------------------------- quality


class CalibrationBin(Value):
    """The examples whose predicted label has a probability between `low` and `high`."""

    low: float
    high: float
    confidence: float
    """The mean probability of the predicted labels."""
    right: Estimate
    """The share of examples whose predicted label is right."""


class PredictionRecord(Value):
    """The settings and the quality of predictions; JSON both ways."""

    source: str
    """The data, in words."""
    column: str | None = None
    """The predicted column of a table; None for labels."""
    examples: int
    provenance: Provenance
    """The weights, software and command that gave the predictions."""
    draws: int | None
    """The requested number of draws; None for the model's default."""
    seed: int
    class_names: tuple[str, ...]
    accuracy: Estimate
    log_loss: Estimate
    """-log p(y|x) of the true label, nats."""
    baseline_accuracy: Estimate | None
    """The accuracy of a constant prediction, the shares of the training labels; None if they could not be read."""
    baseline_log_loss: Estimate | None
    calibration_error: float
    """Expected calibration error: the mean of |share right - confidence| over bins (Guo et al. 2017)."""
    chance_calibration_error: Estimate
    """The calibration error of labels simulated from the probabilities: its mean and standard deviation."""
    calibration: tuple[CalibrationBin, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Counts of examples: one row per true label, one column per predicted label."""
    standard_error: float
    """Root mean square over examples of the Monte-Carlo error of the predicted label's probability."""
    effective_sample_size: float
    """The median effective sample size; inf without importance weights."""
    evaluations: float
    """Mean number of evaluations of the network per example."""
    bounds: float | None
    """`evaluations` divided by those of one bound, for a model with one bound per class."""

    @model_validator(mode="after")
    def _square(self) -> Self:
        if {len(self.class_names)} != {len(self.confusion), *map(len, self.confusion)}:
            raise ValueError("confusion: expected a row and a column for every class")
        return self


@dataclass(frozen=True)
class Circumstances:
    """The settings for a record, and the counts of training labels for the baseline; None leaves it out."""

    source: str
    provenance: Provenance
    draws: int | None
    seed: int
    class_names: tuple[str, ...]
    label_counts: tuple[int, ...] | None
    bound_evaluations: int | None = None
    column: str | None = None


def assess(predictions: Predictions, circumstances: Circumstances) -> PredictionRecord:
    """The quality of predictions of known labels, and of the constant prediction p(y)."""
    labels, found = predictions.labels, predictions.prediction
    assert labels is not None
    log_p, classes = found.log_probabilities, found.log_probabilities.shape[1]
    confidence, guess = log_p.exp().max(1)
    right = (guess == labels).double()
    accuracy, log_loss = _baseline(labels, circumstances.label_counts)
    bins = calibration_bins(confidence, right)
    confusion = torch.bincount(labels * classes + guess, minlength=classes**2).unflatten(0, (classes, classes))
    evaluations = found.evaluations.mean().item()
    return PredictionRecord(
        source=circumstances.source,
        column=circumstances.column,
        examples=len(labels),
        provenance=circumstances.provenance,
        draws=circumstances.draws,
        seed=circumstances.seed,
        class_names=circumstances.class_names,
        accuracy=Estimate.share(right),
        log_loss=Estimate.of(-log_p.gather(1, labels.unsqueeze(1))[:, 0]),
        baseline_accuracy=accuracy,
        baseline_log_loss=log_loss,
        calibration_error=calibration_error(confidence, right),
        chance_calibration_error=chance_calibration_error(confidence),
        calibration=bins,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        standard_error=root_mean_square(found.standard_error.gather(1, guess.unsqueeze(1))[:, 0]),
        effective_sample_size=found.effective_sample_size.median().item(),
        evaluations=evaluations,
        bounds=evaluations / circumstances.bound_evaluations if circumstances.bound_evaluations else None,
    )


def _baseline(labels: Tensor, label_counts: tuple[int, ...] | None) -> tuple[Estimate | None, Estimate | None]:
    """The accuracy and the log-loss of the shares of the training labels; None without their counts."""
    if label_counts is None:
        return None, None
    counts = torch.tensor(label_counts, dtype=torch.float64)
    log_shares = (counts / counts.sum()).log()
    return Estimate.share(labels == counts.argmax()), Estimate.of(-log_shares[labels])


def calibration_error(confidence: Float[Tensor, " count"], right: Float[Tensor, " count"]) -> float:
    """Σ_bins |accuracy - mean confidence| · fraction of the examples in the bin (Guo et al. 2017, equation 3).

    >>> round(calibration_error(torch.tensor([0.9, 0.9]), torch.tensor([1.0, 0.0])), 6)
    0.4
    """
    place = _bin(confidence)
    excess = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, right.double() - confidence.double())
    return round(excess.abs().sum().item() / len(confidence), 12)


def calibration_bins(confidence: Float[Tensor, " count"], right: Float[Tensor, " count"]) -> tuple[CalibrationBin, ...]:
    """The bins with any examples, from low to high confidence."""
    place = _bin(confidence)
    return tuple(
        CalibrationBin(
            low=b / BINS,
            high=(b + 1) / BINS,
            confidence=confidence[place == b].mean().item(),
            right=Estimate.share(right[place == b]),
        )
        for b in place.unique().tolist()
    )


def _bin(confidence: Tensor) -> Tensor:
    return (confidence * BINS).long().clamp(max=BINS - 1)


def chance_calibration_error(confidence: Float[Tensor, " count"]) -> Estimate:
    """The calibration error of calibrated predictions: mean and standard deviation over simulated labels."""
    source = generator(0, Stream.EVALUATION)
    draws = torch.rand(SIMULATIONS, len(confidence), generator=source, dtype=torch.float64) < confidence
    errors = torch.tensor([calibration_error(confidence, draw.double()) for draw in draws], dtype=torch.float64)
    return Estimate(errors.mean().item(), errors.std().item(), SIMULATIONS)


# ---------------------------------------------------------------------------------------------- files


def label_columns(
    predictions: Predictions, class_names: Sequence[str], names: Iterable[str]
) -> dict[str, list[int | float | str | None]]:
    """The columns of a file with a row per example: index, name, prediction, p of every class, error, true label.

    `names` are the names of the examples. The column `standard_error` is the Monte-Carlo error of the predicted label's
    probability. An unknown true label is None.
    """
    found = predictions.prediction
    guess = found.labels
    errors = found.standard_error.gather(1, guess.unsqueeze(1))[:, 0].tolist()
    columns: dict[str, list[int | float | str | None]] = {
        "example": predictions.index.tolist(),
        "name": list(names),
        "predicted": [class_names[one] for one in guess.tolist()],
    }
    for name, shares in zip(class_names, found.probabilities.mT.tolist(), strict=True):
        columns[f"p({name})"] = [float(f"{p:.6g}") for p in shares]
    columns["standard_error"] = [float(f"{error:.2g}") for error in errors]
    if predictions.labels is not None:
        columns["label"] = [None if one < 0 else class_names[one] for one in predictions.labels.tolist()]
    return columns


def save_record(folder: Path, record: PredictionRecord) -> Path:
    """Write predictions.json, or predictions-COLUMN.json for a table, into `folder`. Returns its path."""
    return write_record(folder / named_by(RECORD, record.column), record)
