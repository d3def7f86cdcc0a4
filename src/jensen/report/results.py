"""The contents of the pages about a run: one frozen value, without a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.pictures import pictures_of
from jensen.data.spec import DataSpec
from jensen.evaluation.evaluation import Evaluation
from jensen.evaluation.exhibits import Exhibits
from jensen.evaluation.scores import Scores
from jensen.evaluation.yardsticks import Yardsticks
from jensen.inference.row_scores import Cell
from jensen.report.words import Words


@dataclass(frozen=True)
class UnlikelyRow:
    """A row of a table with a low bound: its key, its bound, and its least likely cells with their texts."""

    key: str
    bound: Estimate
    cells: Sequence[Cell]
    texts: Sequence[str]


def numbered(number: int) -> str:
    """The name of an example of data without names: the index of the example in the evaluated data."""
    return f"No. {number}"


@dataclass(frozen=True, eq=False)
class Results:
    """One run and all measurements of the run, so that a page can show several runs side by side.

    `evaluation` includes the scores of single examples, as `evaluate` and `load_evaluation` return it.
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
    """Number of training steps done."""
    weights_step: int
    """The training step of the evaluated weights."""
    finished: bool = True
    """Whether training reached its last step or stopped early; False if it was interrupted."""
    labels: Tensor | None = None
    """Labels of the evaluated examples, one for each row of the scores."""
    names: Callable[[int], str] = numbered
    """The function from an index in `evaluation.scores.index` to the name of the example (a file or a row)."""
    unlikely: Sequence[UnlikelyRow] = ()
    """The rows of a table with the lowest bounds, lowest first."""
    recognition: Estimate | None = None
    """Share of samples in which a classifier trained on real data recognises the requested label."""
    yardsticks: Yardsticks | None = None
    first: Mapping[str, float] = field(default_factory=dict)
    """The training settings of the first part of the training, where `changes` replaced them later."""
    changes: Sequence[Mapping[str, float]] = ()
    """The training settings that each later part of the training changed, oldest first."""
    history: Sequence[str] = ()
    """One line for each change of the training settings, oldest first."""
    stale: Sequence[str] = ()
    """One sentence for each record of the run that is about other weights and not shown."""
    run: Path | None = None
    """The run's folder, for commands and links; None: `folder`."""
    comparison: Path | None = None
    """The page that compares this run with others, for a link back."""

    @property
    def scores(self) -> Scores:
        """The scores of the evaluated examples; `row` in other methods is a row of these scores."""
        if self.evaluation.scores is None:
            raise ValueError("this evaluation has no scores of single examples; read it by load_evaluation")
        return self.evaluation.scores

    @property
    def count(self) -> int:
        """The number of evaluated examples."""
        return len(self.scores.index)

    @property
    def run_folder(self) -> Path:
        """The run's folder."""
        return self.run or self.folder

    @property
    def image(self) -> bool:
        """Whether the examples can be shown as pictures."""
        return self.spec.pictured

    def name(self, row: int) -> str:
        """The name of the example in this row of the scores."""
        return self.names(int(self.scores.index[row]))

    def label(self, row: int) -> str:
        """The name of the example's label; empty without labels."""
        return "" if self.labels is None else self.label_name(int(self.labels[row]))

    def label_name(self, label: int) -> str:
        """The name of a label."""
        names = self.spec.label_names or ()
        return names[label] if label < len(names) else str(label)

    def pictures(self, x: Tensor) -> np.ndarray:
        """x as pictures (count, C, H, W)."""
        return pictures_of(x, self.spec)
