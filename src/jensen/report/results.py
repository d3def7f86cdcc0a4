"""What a report is about: a model, and what was measured of it and drawn from it, once for all pages that show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.examples import Examples
from jensen.data.spec import DataSpec
from jensen.evaluation.evaluation import Evaluation
from jensen.evaluation.scores import Scores, prepare, spread
from jensen.model import AbstractLatentVariableModel, Film
from jensen.report.families import FAMILIES, Family

SAMPLES = 100  # shown of a model without classes
CLASSES, PER_CLASS = 20, 10  # rows and columns of samples by label, at most
FILMED, FRAMES = 5, 10  # examples of a film, and frames at most


@dataclass(frozen=True)
class Results:
    """One model and what was measured of it: what a section shows, so that several models can stand side by side.

    `evaluation` has its single scores, as `evaluate` and `load_evaluation` give them. What is drawn is kept.
    """

    title: str
    folder: Path
    """The run; its report is report.html there."""
    recipe: Mapping[str, Any]
    spec: DataSpec
    metrics: Sequence[Mapping[str, Any]]
    model: AbstractLatentVariableModel
    evaluation: Evaluation
    examples: Examples
    """All those that `evaluation` was made from."""
    recognition: Estimate | None = None
    """How often a classifier trained on real data finds in a sample the label that was asked for, from 0 to 1."""

    @property
    def family(self) -> Family:
        """The words for this kind of model."""
        return FAMILIES[str(self.recipe["family"])]

    @property
    def scores(self) -> Scores:
        """Of the examples that were evaluated; rows below are rows of these."""
        if self.evaluation.scores is None:
            raise ValueError("this evaluation has no single scores; read it by load_evaluation")
        return self.evaluation.scores

    @property
    def count(self) -> int:
        """How many examples were evaluated."""
        return len(self.scores.index)

    @property
    def parameters(self) -> int:
        """How many the model has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def steps(self) -> int:
        """For how many steps it was trained."""
        return max((line["step"] for line in self.metrics), default=0)

    @property
    def image(self) -> bool:
        """Whether the data are images."""
        return self.spec.layout == "image"

    # -- examples

    def x(self, rows: Tensor) -> Tensor:
        """These examples as the model saw them, on its device."""
        index, seed = self.scores.index[rows], self.evaluation.settings.seed
        return prepare(self.spec.preparation, self.examples.x[index], index, seed).to(self.model.device)

    def encoded(self, rows: Tensor) -> Tensor:
        """The latent representations of these examples, on the CPU."""
        seed, index = self.evaluation.settings.seed, self.scores.index[rows]
        return self.model.encode(self.x(rows), seed=seed, index=index).cpu()

    def reconstructed(self, rows: Tensor) -> list[Tensor]:
        """These examples and, where that is something else, their reconstructions."""
        x, seed = self.x(rows), self.evaluation.settings.seed
        if self.family.reconstructions is None:
            return [x]
        return [x, self.model.reconstruct(x, seed=seed, index=self.scores.index[rows])]

    @property
    def labels(self) -> Tensor | None:
        """Of the examples that were evaluated."""
        return None if self.examples.labels is None else self.examples.labels[self.scores.index]

    def label(self, row: int) -> str:
        """The name of an example's label in plain text, empty where it has none."""
        return "" if self.labels is None else self.label_name(int(self.labels[row]))

    def label_name(self, label: int) -> str:
        """The name of a label in plain text."""
        names = self.spec.label_names or ()
        return names[label] if label < len(names) else str(label)

    def pictures(self, x: Tensor) -> np.ndarray:
        """x as uint8 images."""
        return self.spec.preparation.to_picture(x)

    # -- what the model draws

    @property
    def classes(self) -> int:
        """How many labels the samples show, a row of the grid for each; 0 where the model knows none."""
        return min(self.model.classes or 0, CLASSES)

    @cached_property
    def samples(self) -> Tensor:
        """Samples, the labels' one after the other."""
        seed = self.evaluation.settings.seed
        if not self.classes:
            return self.model.sample(SAMPLES, seed=seed).cpu()
        labels = torch.arange(self.classes).repeat_interleave(PER_CLASS)
        return self.model.sample(len(labels), seed=seed, labels=labels).cpu()

    @cached_property
    def sample_means(self) -> Tensor:
        """The same samples without the noise of observation."""
        return self.model.sample_mean(SAMPLES, seed=self.evaluation.settings.seed).cpu()

    @property
    def filmed(self) -> Tensor:
        """The rows of the examples whose way to the noise is shown."""
        return spread(self.count, FILMED)

    @cached_property
    def noising(self) -> Film | None:
        """The way of `filmed` from the data to the noise."""
        rows, seed = self.filmed, self.evaluation.settings.seed
        return self.model.noising(self.x(rows), frames=FRAMES, seed=seed, index=self.scores.index[rows])

    @cached_property
    def denoising(self) -> Film | None:
        """The way of the first samples from the noise to the data; sample i has the label i, as long as there are."""
        return self.model.denoising(FILMED, frames=FRAMES, seed=self.evaluation.settings.seed)
