"""Exhibits: the tensors that a page shows of a model and its test examples. This file calls the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.scores import Scores, prepare, spread
from jensen.model import AbstractLatentVariableModel, Film

SAMPLES = 100  # number of samples of a model without labels
CLASSES, PER_CLASS = 20, 10  # maximum number of labels shown, and number of samples per label
FILMED, FRAMES = 5, 10  # number of examples in a film, and maximum number of frames
DRAWN = 500  # number of samples for histograms of data that are not images
PAIRS, LOWEST = 12, 12  # numbers of images with reconstructions, and of images with the lowest bounds
PROFILES = 6  # replaces both numbers if the data are not images
ENCODED = 250  # number of examples encoded together


@dataclass(frozen=True)
class Selection:
    """The choice of exhibits."""

    image: bool
    """Whether the data are images: only images are shown as a grid of samples and in films."""
    means: bool
    """Whether the mean of a sample differs from the sample."""
    reconstructions: bool
    """Whether a reconstruction differs from its example."""
    points: int
    """Number of examples to encode; 0: none."""
    examples: bool = True
    """Whether to show examples of the lowest bound."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Some test examples: `rows` of the scores, x (count, *shape), and reconstructions unless they equal x."""

    rows: Int[Tensor, " count"]
    x: Tensor
    reconstructions: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Exhibits:
    """The tensors that a page shows, on the CPU. Every x is in the form of the run's preparation."""

    parameters: int
    """Number of the model's parameters."""
    labels: tuple[int, ...]
    """The labels that the model was trained on; empty for a model without labels."""
    samples: Tensor | None = None
    """Samples (n, *shape), images only. With labels: PER_CLASS samples of each of the `shown_labels`."""
    sample_means: Tensor | None = None
    """Means of the samples (SAMPLES, *shape), without observation noise; images only."""
    real: Shown | None = None
    """Examples to compare the samples with; with the same labels if each has PER_CLASS examples; images only."""
    noising: Film | None = None
    """The examples `filmed` from data to noise."""
    denoising: Film | None = None
    """The first FILMED samples from noise to data."""
    filmed: Tensor | None = None
    """The rows of the examples in `noising` (FILMED)."""
    drawn: Shown | None = None
    """Examples for histograms, if the data are not images."""
    drawn_samples: Tensor | None = None
    """As many samples (count, *shape) as in `drawn`, with the same labels if the model has labels."""
    pairs: Shown | None = None
    """Examples spread evenly over the data, with their reconstructions."""
    lowest: Shown | None = None
    """The examples of the lowest bounds, lowest first."""
    codes: Tensor | None = None
    """Latent representations (points, latent dimensions) of the examples `encoded`."""
    encoded: Tensor | None = None
    """The rows of the examples in `codes` (points)."""

    @property
    def shown_labels(self) -> tuple[int, ...]:
        """The labels that the grid of samples shows, with one row per label."""
        return self.labels[:CLASSES]


@torch.no_grad()
def make_exhibits(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    scores: Scores,
    selection: Selection,
    seed: int,
) -> Exhibits:
    """The exhibits of `model`.

    `scores.index` are indices of `examples`. `seed` is the seed of the evaluation. Sample i is a pure function of
    (seed, i), and the noise for example i is a pure function of (seed, i).
    """
    labels = None if examples.labels is None else examples.labels[scores.index]
    source = _Source(model, examples, preparation, scores, seed)
    made: dict[str, Any] = _generated(source, labels) if selection.image else {}
    if not selection.image and selection.examples:
        made |= _drawn(source, labels)
    if selection.reconstructions:
        rows = spread(source.count, PAIRS if selection.image else PROFILES)
        made["pairs"] = source.shown(rows, reconstructed=True)
    if selection.points and source.count > 1:
        rows = spread(source.count, selection.points)
        codes = torch.cat([source.encoded(part) for part in rows.split(ENCODED)])
        made |= {"codes": codes, "encoded": rows}
    if selection.examples and scores.bound.isfinite().any():
        lowest = scores.bound.argsort()[: LOWEST if selection.image else PROFILES]
        made["lowest"] = source.shown(lowest, reconstructed=selection.reconstructions)
    if selection.image and selection.means:
        made["sample_means"] = model.sample_mean(SAMPLES, seed=seed).cpu()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Exhibits(parameters=parameters, labels=model.known_labels, **made)


@dataclass(frozen=True, eq=False)
class _Source:
    """A model and the test examples that were scored."""

    model: AbstractLatentVariableModel
    examples: Examples
    preparation: Preparation
    scores: Scores
    seed: int

    @property
    def count(self) -> int:
        return len(self.scores.index)

    def x(self, rows: Tensor) -> Tensor:
        """The examples in these rows of the scores, after the run's preparation, on the model's device."""
        index = self.scores.index[rows]
        return prepare(self.preparation, self.examples.x[index], index, self.seed).to(self.model.device)

    def encoded(self, rows: Tensor) -> Tensor:
        return self.model.encode(self.x(rows), seed=self.seed, index=self.scores.index[rows]).cpu()

    def shown(self, rows: Tensor, *, reconstructed: bool = False) -> Shown:
        x = self.x(rows)
        if not reconstructed:
            return Shown(rows, x.cpu())
        reconstructions = self.model.reconstruct(x, seed=self.seed, index=self.scores.index[rows])
        return Shown(rows, x.cpu(), reconstructions.cpu())


def _generated(source: _Source, labels: Tensor | None) -> dict[str, Any]:
    """Samples for a grid, real examples to compare with the samples, and films."""
    model, seed, filmed = source.model, source.seed, spread(source.count, FILMED)
    shown = torch.tensor(model.known_labels[:CLASSES], dtype=torch.long)
    wanted = shown.repeat_interleave(PER_CLASS) if len(shown) else None
    count = SAMPLES if wanted is None else len(wanted)
    noising = model.noising(source.x(filmed), frames=FRAMES, seed=seed, index=source.scores.index[filmed])
    denoising = model.denoising(FILMED, frames=FRAMES, seed=seed)
    return {
        "samples": model.sample(count, seed=seed, labels=wanted).cpu(),
        "real": source.shown(_beside(source.count, labels, shown.tolist())),
        "noising": _on_cpu(noising),
        "denoising": _on_cpu(denoising),
        "filmed": filmed,
    }


def _beside(count: int, labels: Tensor | None, shown: Sequence[int]) -> Tensor:
    """The rows of the real examples beside the samples: PER_CLASS per label if there are enough, else any rows."""
    if shown and labels is not None:
        by_label = [(labels == label).nonzero().flatten() for label in shown]
        if min(len(rows) for rows in by_label) >= PER_CLASS:
            return torch.cat([rows[spread(len(rows), PER_CLASS)] for rows in by_label])
    return spread(count, SAMPLES)


def _on_cpu(film: Film | None) -> Film | None:
    if film is None:
        return None
    return Film(film.log_snr.cpu(), film.x.cpu(), None if film.estimate is None else film.estimate.cpu())


def _drawn(source: _Source, labels: Tensor | None) -> dict[str, Any]:
    """Examples for histograms, and as many samples, each with the label of its example if labels are known."""
    rows = spread(source.count, DRAWN)
    asked = None if source.model.classes is None or labels is None else labels[rows]
    samples = source.model.sample(len(rows), seed=source.seed, labels=asked).cpu()
    return {"drawn": source.shown(rows), "drawn_samples": samples}
