"""All metrics of samples, with the same metrics of training examples for comparison: sample_metrics.json."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen import processes
from jensen.data.preparation import Standardise
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.evaluation.scores import spread
from jensen.features.classifier import Classifier, features
from jensen.features.copies import Memorisation, Nearest, memorisation
from jensen.features.frechet_distance import frechet
from jensen.features.jackknife import Interval
from jensen.features.precision_recall import Fidelity, K, fidelity
from jensen.features.table_metrics import TableMetrics
from jensen.features.two_sample import KernelTest, kernel_test, sliced_wasserstein
from jensen.model import AbstractLatentVariableModel
from jensen.progress import track
from jensen.provenance import Provenance
from jensen.records import Value

FORMAT = 1
AT_ONCE = 250  # number of samples between two updates of the progress

FeatureFunction = Callable[[Tensor], Tensor]
"""Raw examples (count, *shape) -> (count, dims); called with all examples of a split at once."""

# ---------------------------------------------------------------------------------------------- features


def pixels(spec: DataSpec) -> FeatureFunction:
    """The raw values as features: integers are scaled to [0, 1], other floats to mean 0 and deviation 1."""
    preparation = spec.preparation

    def values(raw: Tensor) -> Tensor:
        scaled = preparation(raw) if isinstance(preparation, Standardise) else raw / ((spec.levels or 2) - 1)
        return scaled.flatten(1)

    return values


def seen_by(classifier: Classifier) -> FeatureFunction:
    """The features in the last hidden layer of a classifier."""
    return lambda raw: features(classifier, raw)


# ---------------------------------------------------------------------------------------------- records


class Likeness(Value):
    """All metrics of one set against test examples."""

    count: int
    """The size of the set."""
    test: int
    """The number of test examples that the set is compared with."""
    frechet: Interval
    sliced_wasserstein: Interval
    kernel: KernelTest
    fidelity: Fidelity


class SampleMetrics(Value):
    """The content of sample_metrics.json: samples against real data and, as a floor, real data against real data."""

    format: int = FORMAT
    features: str
    """The features of the distances: `pixels`, `classifier`, `columns`, or the name of another function."""
    seed: int
    provenance: Provenance | None = None
    """The weights, software and command that gave the samples; None if they are not a model's."""
    train: int
    """The number of training examples, all of which the check for copies uses."""
    samples: Likeness
    floor: Likeness
    """The metrics of training examples in place of the samples, as many as samples if there are enough."""
    memorisation: Memorisation
    memorisation_floor: Memorisation
    """The check with every second test example in place of the samples; the other test examples are held out."""
    table: TableMetrics | None = None
    """The metrics of columns, if the examples are the rows of a table."""


@dataclass(frozen=True, eq=False)
class Check:
    """The metrics, and the distances behind the memorisation check."""

    metrics: SampleMetrics
    nearest: Nearest


def check_samples(
    samples: Tensor, train: Tensor, test: Tensor, *, features: FeatureFunction, name: str, k: int = K, seed: int = 0
) -> Check:
    """Compare raw samples with raw test examples, and search the samples for copies of training examples.

    All three are (count, *shape). Two-sample metrics compare n samples with n test examples, spread evenly, or with all
    test examples if there are fewer than n. The memorisation check uses all test and training examples. Raises
    `InputError` for too few samples or examples, and for features that are not finite.
    """
    require(k, samples=len(samples), train=len(train), test=len(test))
    made, known, fresh = (features(raw).detach().cpu() for raw in (samples, train, test))
    against = fresh[spread(len(fresh), len(made))]
    nearest = Nearest.of(made, known, fresh)
    half = nearest.held_out[::2]
    fresh_half = Nearest(half, torch.zeros(len(half), dtype=torch.long), nearest.held_out[1::2])
    metrics = SampleMetrics(
        features=name,
        seed=seed,
        train=len(known),
        samples=likeness(made, against, k, seed),
        floor=likeness(known[spread(len(known), len(made))], against, k, seed),
        memorisation=memorisation(nearest, seed),
        memorisation_floor=memorisation(fresh_half, seed),
    )
    return Check(metrics, nearest)


def require(k: int, *, samples: int, train: int, test: int) -> None:
    """Raises `InputError` unless samples, training and test examples are enough for k neighbours."""
    least = 2 * k + 2
    for what, count in (("samples", samples), ("training examples", train), ("test examples", test)):
        if count < least:
            raise InputError(
                f"{count} {what} and {k} neighbours: expected at least {least} {what}; give more, or a lower k"
            )


def likeness(a: Tensor, test: Tensor, k: int, seed: int) -> Likeness:
    """All metrics of one set of features against the features of test examples."""
    return Likeness(
        count=len(a),
        test=len(test),
        frechet=Interval.of(frechet(a, test)),
        sliced_wasserstein=sliced_wasserstein(a, test, seed=seed),
        kernel=kernel_test(a, test, seed=seed),
        fidelity=fidelity(test, a, k=k),
    )


# ---------------------------------------------------------------------------------------------- samples of a model


def draw(model: AbstractLatentVariableModel, n: int, seed: int, labels: Tensor | None, *, gaps: bool = False) -> Tensor:
    """Samples 0 to n - 1 of `seed`, in the form of the run's preparation, on the CPU.

    The samples have n labels that are spread evenly over `labels`. Processes started by torchrun divide the samples
    among themselves. Raises `InputError` for samples that are not finite; with `gaps`, NaN is a missing cell.
    """
    asked = None
    if model.classes is not None and labels is not None:
        asked = labels[torch.arange(n) * len(labels) // n]  # repeated if there are fewer than n
    mine = []
    with processes.together():
        for rows in track(processes.share(torch.arange(n).split(AT_ONCE)), "sampling"):
            wanted = None if asked is None else asked[rows]
            mine.append({"x": model.sample(len(rows), seed=seed, first=int(rows[0]), labels=wanted).cpu()})
    x = torch.cat([part["x"] for part in processes.gathered(mine)])
    if bool((x.isinf() if gaps else ~x.isfinite()).any()):
        raise InputError(f"some of {n} samples are not finite; train the model with a lower learning rate")
    return x
