"""Exhibits: everything that a page shows of a model and of its test examples, as tensors. The model is called here."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.scores import Scores, prepare, spread
from jensen.model import AbstractLatentVariableModel, Film

SAMPLES = 100  # samples of a model without labels
CLASSES, PER_CLASS = 20, 10  # at most so many labels, and so many samples of each
FILMED, FRAMES = 5, 10  # examples in a film, and its frames at most
DRAWN = 500  # samples for histograms of data that are not images
PAIRS, LOWEST, PROFILES = 12, 12, 6  # reconstructed images, images of lowest bound, and of each where data are no images
ENCODED = 250  # examples encoded together


@dataclass(frozen=True)
class Selection:
    """Which exhibits are made."""

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
    """Chosen test examples: `rows` of the scores, x (count, *shape), and their reconstructions where those differ."""

    rows: Int[Tensor, " count"]
    x: Tensor
    reconstructions: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Exhibits:
    """What a page shows, on the CPU. Every x is prepared, as the model sees it; a row is a row of the scores."""

    parameters: int
    """Number of the model's parameters."""
    classes: int | None
    """Number of labels that the model can be asked for; None: none."""
    samples: Tensor | None = None
    """(n, *shape), images only. With labels: PER_CLASS of label 0, of label 1, and so on; see `rows_of_labels`."""
    sample_means: Tensor | None = None
    """(SAMPLES, *shape): the same samples without observation noise; images only."""
    real: Tensor | None = None
    """(n, *shape): test examples to stand beside the samples, with labels in the same order as the samples."""
    noising: Film | None = None
    """The examples `filmed` from data to noise."""
    denoising: Film | None = None
    """The first FILMED samples from noise to data."""
    filmed: Tensor | None = None
    """(FILMED): the rows of the examples in `noising`."""
    drawn: Shown | None = None
    """Examples for histograms, where the data are no images."""
    drawn_samples: Tensor | None = None
    """(count, *shape): as many samples, of the same labels where the model knows labels."""
    pairs: Shown | None = None
    """Examples spread evenly over the data, with their reconstructions."""
    lowest: Shown | None = None
    """The examples of the lowest bounds, lowest first."""
    codes: Tensor | None = None
    """(points, latent dimensions): the latent representations of the examples `encoded`."""
    encoded: Tensor | None = None
    """(points): their rows."""

    @property
    def rows_of_labels(self) -> int:
        """Number of labels that the grid of samples shows, one row each; 0 where the model knows no labels."""
        return min(self.classes or 0, CLASSES)


@torch.no_grad()
def make_exhibits(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    scores: Scores,
    selection: Selection,
    seed: int,
) -> Exhibits:
    """The exhibits of `model`; `examples` are all those that `scores.index` numbers, `seed` is that of the evaluation.

    Sample i is number i of the seed's stream, and each example's noise depends on the seed and its number alone.
    """
    raise NotImplementedError
