"""What the pages about a run show: one frozen value without a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.spec import DataSpec
from jensen.evaluation.evaluation import Evaluation
from jensen.evaluation.exhibits import Exhibits
from jensen.evaluation.scores import Scores
from jensen.evaluation.yardsticks import Yardsticks
from jensen.report.words import Words


def numbered(number: int) -> str:
    """The name of an example without a name: its number in the data that were evaluated."""
    return f"No. {number}"


@dataclass(frozen=True, eq=False)
class Results:
    """One run and everything that was measured of it, so that several runs can stand side by side.

    `evaluation` has its scores example by example, as `evaluate` and `load_evaluation` give it.
    """

    title: str
    folder: Path
    """The folder of the report and of the evaluation that it shows: the run, or a folder of its own."""
    recipe: Mapping[str, Any]
    words: Words
    spec: DataSpec
    metrics: Sequence[Mapping[str, Any]]
    """The lines of metrics.jsonl."""
    evaluation: Evaluation
    exhibits: Exhibits
    trained_steps: int
    """Number of training steps that were made."""
    weights_step: int
    """The training step that the evaluated weights are from."""
    finished: bool = True
    """Whether training came to its planned end or stopped early by its own rule; False: it was interrupted."""
    labels: Tensor | None = None
    """Labels of the evaluated examples, one for each row of the scores."""
    names: Callable[[int], str] = numbered
    """The name of an example, by its number in `evaluation.scores.index`: its file or row."""
    recognition: Estimate | None = None
    """How often a classifier trained on real data finds in a sample the label that was asked for, from 0 to 1."""
    yardsticks: Yardsticks | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Versions, weights, command, date and so on, by label."""
    run: Path | None = None
    """The run's folder, for commands and links; None: `folder`."""
    comparison: Path | None = None
    """The page that compares this run with others, for a link back."""

    @property
    def scores(self) -> Scores:
        """Of the evaluated examples; a row elsewhere is a row of these."""
        if self.evaluation.scores is None:
            raise ValueError("this evaluation has no scores of single examples; read it by load_evaluation")
        return self.evaluation.scores

    @property
    def count(self) -> int:
        """Number of evaluated examples."""
        return len(self.scores.index)

    @property
    def run_folder(self) -> Path:
        """The run's folder."""
        return self.run or self.folder

    @property
    def image(self) -> bool:
        """Whether the data are images."""
        return self.spec.layout == "image"

    def name(self, row: int) -> str:
        """The name of the example in a row."""
        return self.names(int(self.scores.index[row]))

    def label(self, row: int) -> str:
        """The name of an example's label; empty where it has none."""
        return "" if self.labels is None else self.label_name(int(self.labels[row]))

    def label_name(self, label: int) -> str:
        """The name of a label."""
        names = self.spec.label_names or ()
        return names[label] if label < len(names) else str(label)

    def pictures(self, x: Tensor) -> np.ndarray:
        """x as uint8 images."""
        return self.spec.preparation.to_picture(x)
