"""`jensen score`: the bound of every example; a low bound marks an unusual example."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, NonNegativeInt

from jensen.commands.common import OfExamples, RunFolder
from jensen.data.options import Split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from jensen.data.examples import Names
    from jensen.evaluation.scores import Scores
    from jensen.run import Run


class Score(OfExamples):
    """Score every example: bound in nats, standard error, bits/dim, as CSV."""

    several_processes: ClassVar[bool] = True

    run: RunFolder
    """The folder of the run."""
    out: Path
    """The .csv to write."""
    draws: int | None = Field(None, ge=2)
    """Draws per example; the standard error falls as 1/sqrt(draws). Default: 16 (VAE) or 2 (diffusion)."""
    seed: NonNegativeInt = 0
    """The seed of the draws."""

    def execute(self) -> None:
        """Write one row per example into the CSV."""
        from jensen import processes
        from jensen.data.examples import counted
        from jensen.records import refuse_existing_file
        from jensen.run import opened

        with processes.together():
            refuse_existing_file(self.out)
            run = opened(self.run)
        found = score(run, self.data, split=self.part, draws=self.draws, seed=self.seed)
        processes.on_main(lambda: found.save(self.out))
        print(f"{self.out}: {counted(len(found.scores.index))} scored")


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of `count` examples, the names and labels (count) of the examples, and the names of the labels."""

    scores: "Scores"
    names: "Names"
    labels: "Tensor | None"
    label_names: "Sequence[str] | None"

    @property
    def bound(self) -> "Tensor":
        """The ELBO of every example in nats, (count)."""
        return self.scores.bound

    @property
    def standard_error(self) -> "Tensor":
        """The Monte-Carlo standard error of the bound in nats, (count)."""
        return self.scores.standard_error

    @property
    def bits_per_dimension(self) -> "Tensor":
        """The bound in bits per dimension of the raw data, (count)."""
        return self.scores.bits_per_dimension

    def save(self, out: str | Path) -> None:
        """Write a CSV with a row per example."""
        from jensen.records import write_csv

        known = self.label_names
        labels = [] if self.labels is None else [known[n] if known else n for n in self.labels.tolist()]
        rows = zip(self.bound.tolist(), self.standard_error.tolist(), self.bits_per_dimension.tolist(), strict=True)
        table = [
            [number, self.names[number], *(f"{value:.6g}" for value in values), *([labels[number]] if labels else [])]
            for number, values in enumerate(rows)
        ]
        header = [
            "example",
            "name",
            "bound_nats",
            "standard_error_nats",
            "bits_per_dim",
            *(["label"] if labels else []),
        ]
        write_csv(Path(out), header, table)


def score(run: "Run", data: Any = None, *, split: Split = "test", draws: int | None = None, seed: int = 0) -> Scored:
    """The ELBO of every example of `data`, averaged over `draws` draws.

    If `data` is None, the examples are the split `split` of the run's own data. Processes started by torchrun divide
    the examples among themselves. Warns of bounds that are not finite.
    """
    from jensen import processes
    from jensen.evaluation.scores import score as score_examples

    with processes.together():
        examples = run.examples(data, split)
    draws = draws or run.model.usual_draws
    scores = score_examples(run.model, examples, run.spec.preparation, draws=draws, seed=seed)
    if scores.not_finite:
        warnings.warn(scores.not_finite, stacklevel=2)
    return Scored(scores, examples.names, examples.labels, run.spec.label_names)
