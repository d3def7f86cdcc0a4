"""The Fréchet distance from samples to the test split, for each sampler and number of steps: distances.json."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from jensen import processes
from jensen.bound import Estimate
from jensen.data.examples import Dataset
from jensen.data.preparation import Preparation
from jensen.errors import InputError
from jensen.evaluation.scores import spread
from jensen.features.classifier import Classifier, agreement, features, recognised
from jensen.features.fit import shown
from jensen.features.frechet_distance import frechet
from jensen.model import AbstractLatentVariableModel
from jensen.progress import track
from jensen.provenance import Provenance
from jensen.records import Value, write_file

DISTANCES = "distances.json"
FORMAT = 1
MOST = 10_000  # default number of samples, unless the training split is smaller
AT_ONCE = 250  # number of samples between two updates of the progress

# ---------------------------------------------------------------------------------------------- records


class Cell(Value):
    """The settings of one distance, for a run at one training step under one version of jensen."""

    sampler: str | None
    """None for a model without samplers; then steps and guidance are None too."""
    steps: int | None
    guidance: float | None
    guide: str | None = None
    """SHA-256 of the weights of the worse model of autoguidance; None for guidance by labels, or without guidance."""
    n: int
    """The number of samples."""
    seed: int
    """The seed of the samples."""
    weights: str
    """SHA-256 of the model's weights."""
    classifier: str
    """SHA-256 of the classifier's weights."""

    def __str__(self) -> str:
        return "samples" if self.sampler is None else f"{self.sampler}, {self.steps} steps"


class Distance(Value):
    """The measurements of one cell."""

    cell: Cell
    distance: Estimate
    """Fréchet distance of the samples to the test split; infinite if a sample is not finite."""
    floor: Estimate
    """The distance of as many training examples to the test split."""
    recognised: Estimate | None
    """The share of samples in which the classifier recognises the requested label; None without labels."""
    evaluations: float
    """Evaluations of the network per sample; an evaluation with label and one without count as two."""
    seconds: float
    """Seconds per sample, drawn in batches."""
    provenance: Provenance
    """The weights, software, machine and command that gave the distance."""

    @property
    def ratio(self) -> Estimate:
        """distance / floor; the error is too large, as it assumes independence although both share the test split."""
        a, b = self.distance, self.floor
        error = math.hypot(a.standard_error / b.mean, a.mean * b.standard_error / b.mean**2)
        return Estimate(a.mean / b.mean, error, a.count)


_DISTANCES = TypeAdapter(list[Distance])


def read_distances(run: Path) -> dict[Cell, Distance]:
    """The content of distances.json in the folder of the run; empty if there is no such file."""
    path = run / DISTANCES
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_bytes())
        written, found = int(record["format"]), record["distances"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged; restore it, or remove it to measure again") from error
    if written > FORMAT:
        raise InputError(f"{path} has format {written}, this jensen reads up to {FORMAT}; install a newer jensen")
    try:
        return {distance.cell: distance for distance in _DISTANCES.validate_python(found)}
    except ValidationError as error:
        raise InputError(f"{path} is damaged; restore it, or remove it to measure again") from error


def add_distance(run: Path, distance: Distance) -> None:
    """Add one distance to distances.json and keep the earlier distances."""
    merged = {**read_distances(run), distance.cell: distance}
    record = {"format": FORMAT, "distances": _DISTANCES.dump_python(list(merged.values()), mode="json")}
    write_file(run / DISTANCES, json.dumps(record, indent=1).encode())


# ---------------------------------------------------------------------------------------------- measure


@dataclass(frozen=True, eq=False)
class Reference:
    """The features of the real data that samples are compared with.

    `labels` (n) are the labels of the n training examples of the floor, or None for data without labels. Samples are
    drawn with the same labels, so labels are as frequent as in the training split.
    """

    classifier: Classifier
    preparation: Preparation
    test: Tensor
    floor: Estimate
    labels: Tensor | None

    @classmethod
    def of(cls, classifier: Classifier, dataset: Dataset, n: int) -> Self:
        """The reference of a data set.

        The floor uses n examples, which are spread evenly over the training split. Raises `InputError` if n exceeds the
        size of the training split, and for fewer than two examples of a split.
        """
        train, test, preparation = dataset.train, dataset.test, dataset.spec.preparation
        if not 2 <= n <= len(train):
            raise InputError(
                f"a distance of {n} samples: expected 2 to {len(train)}, the number of training examples, because the "
                "floor needs as many; change --n"
            )
        if len(test) < 2:
            raise InputError(f"{dataset.spec.source}: a test split of {len(test)} is too small to compare samples with")
        chosen = train[spread(len(train), n)]
        of_train, of_test = (features(classifier, shown(part, preparation)) for part in (chosen, test))
        return cls(classifier, preparation, of_test, frechet(of_train, of_test), chosen.labels)


def measure(
    model: AbstractLatentVariableModel,
    reference: Reference,
    cell: Cell,
    provenance: Callable[[float], Provenance],
) -> Distance:
    """Draw the samples of `cell` from the model, compare them with the reference, and count network evaluations.

    Processes started by torchrun divide the samples among themselves; the seconds are the sum over all processes.
    `provenance` is `Run.provenance`.
    """
    start = time.perf_counter()
    labels = None if model.classes is None else reference.labels
    mine: list[dict[str, Tensor]] = []
    seconds = 0.0
    with processes.together(), _rows_counted(model.networks) as rows_seen:
        for rows in track(processes.share(torch.arange(cell.n).split(AT_ONCE)), str(cell)):
            began = time.perf_counter()
            asked = None if labels is None else labels[rows]
            x = model.sample(len(rows), seed=cell.seed, first=int(rows[0]), labels=asked).cpu()
            seconds += time.perf_counter() - began
            seen = features(reference.classifier, reference.preparation.to_raw(x.nan_to_num()))
            mine.append({"seen": seen, "finite": x.isfinite().all()})
    parts = processes.gathered(mine)
    costs = processes.gathered([{"costs": torch.tensor([seconds, sum(rows_seen)], dtype=torch.float64)}])
    seconds, evaluations = torch.stack([part["costs"] for part in costs]).sum(0).tolist()
    samples, finite = torch.cat([part["seen"] for part in parts]), all(part["finite"] for part in parts)
    found = None if labels is None else agreement(recognised(reference.classifier, samples), labels)
    return Distance(
        cell=cell,
        distance=frechet(samples, reference.test) if finite else Estimate(math.inf, math.nan, cell.n),
        floor=reference.floor,
        recognised=found,
        evaluations=evaluations / cell.n,
        seconds=seconds / cell.n,
        provenance=provenance(start),
    )


@contextmanager
def _rows_counted(networks: Sequence[nn.Module]) -> Iterator[Sequence[int]]:
    """A context that records the number of rows of every batch through one of the networks."""
    counts: list[int] = []
    hooks = [n.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0]))) for n in networks]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()
