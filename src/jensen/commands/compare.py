"""`jensen compare`: evaluations of several runs side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field, NonNegativeInt

from jensen.commands.common import Command
from jensen.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from jensen.report.results import Results
    from jensen.run import Run


class Compare(Command):
    """Show evaluations of several runs side by side: a table, and report.html."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN [RUN ...]")]
    """The folders of runs evaluated on their test examples. Differences are relative to the first run."""
    out: Path
    """The folder for report.html and its pictures."""
    error: float | None = Field(default=None, gt=0)
    """Only estimate the differences between ELBOs, each to this standard error in bits per dimension (tables and
    continuous data: nats). Draws share examples and random numbers. Needs no evaluation; written to
    differences.json."""
    baselines: bool = False
    """Tables: add simple models fitted to the same training rows: independent columns, a Gaussian, a mixture of classes
    whose number is chosen by BIC. One run is then enough."""
    seed: NonNegativeInt | None = None
    """With --error: seed of all draws. Default: 0."""

    def execute(self) -> None:
        """Print the table of the runs' evaluations and write report.html; with --error only differences.json."""
        from jensen.commands.mean_bound import show_differences
        from jensen.run import RECIPE, opened

        if len(set(self.runs)) < (1 if self.baselines else 2) or len(set(self.runs)) < len(self.runs):
            raise InputError(f"compare {' '.join(map(str, self.runs))}: expected at least two runs, each once")
        if (self.out / RECIPE).exists():
            raise InputError(f"--out {self.out} is a run, and its report would be overwritten; give another folder")
        if self.error is None and self.seed is not None:
            raise InputError(f"--seed {self.seed} without --error has no effect: the evaluations are made; add --error")
        if self.error is not None and self.baselines:
            raise InputError("--baselines with --error: simple models have no draws; leave one of the two out")
        runs = [opened(folder) for folder in self.runs]
        if self.error is not None:
            show_differences(runs, self.error, self.seed or 0, self.out)
        else:
            self._show(compare(runs, baselines=self.baselines))

    def _show(self, found: "Comparison") -> None:
        from rich.console import Console

        page = found.save(self.out)
        Console().print(found.table())
        print(f"{page} written")


@dataclass(frozen=True, eq=False)
class Comparison:
    """The evaluations of several runs; differences are relative to the first run.

    `baselines` are log p(row) of simple models by name, in nats, for the rows of the first run's scores.
    """

    results: "Sequence[Results]"
    baselines: "Mapping[str, Tensor]" = field(default_factory=dict)

    def table(self) -> Any:
        """The bounds of every run, and the differences between ELBOs, as a rich table."""
        from jensen.report.comparison import comparison_table

        return comparison_table(self.results, self.baselines)

    def save(self, folder: str | Path, title: str = "") -> Path:
        """Write report.html and its pictures into `folder`. Returns the page's path."""
        from jensen.report.pages import write_comparison

        titles = " and ".join(results.title for results in self.results)
        return write_comparison(Path(folder), self.results, title or titles, self.baselines)


def compare(runs: "Sequence[Run]", *, baselines: bool = False) -> Comparison:
    """Compare the evaluations that are saved in the folders of `runs`.

    Every evaluation must be of the run's own test examples and of the run's present weights; otherwise `InputError` is
    raised. With `baselines`, simple models fitted to the first run's training rows stand beside the runs; they are for
    tables only.
    """
    names = [run.folder.name for run in runs]
    titles = names if len(set(names)) == len(names) else [str(run.folder) for run in runs]
    results = [_evaluated(run, title) for run, title in zip(runs, titles, strict=True)]
    return Comparison(results, _baselines(runs[0], results[0]) if baselines else {})


def _baselines(run: "Run", results: "Results") -> "dict[str, Tensor]":
    """log p(row) of simple models for the rows of the run's scores. Raises `InputError` unless the data are a table."""
    from jensen.data.table_preparation import TablePreparation
    from jensen.evaluation.table_baselines import table_baselines

    preparation = run.spec.preparation
    if not isinstance(preparation, TablePreparation):
        raise InputError(f"--baselines: {run.folder} was not trained on a table; leave it out")
    return table_baselines(run.dataset.train, run.examples().x[results.scores.index], preparation)


def _evaluated(run: "Run", title: str) -> "Results":
    """The results of a run, from the evaluation in the run's folder."""
    from jensen.commands.evaluate import Evaluated
    from jensen.evaluation.saved import load_evaluation
    from jensen.evaluation.scores import examples_digest

    evaluation, examples = load_evaluation(run.folder), run.examples()
    if examples_digest(examples) != evaluation.examples_digest:
        raise InputError(
            f"{run.folder} was evaluated on {evaluation.source}, not on its own test examples; "
            f"evaluate its test examples with: jensen evaluate {run.folder}"
        )
    if evaluation.provenance.weights != run.weights:
        raise InputError(
            f"the evaluation in {run.folder} used other weights (step {evaluation.provenance.step}) than the run's "
            f"best (step {run.step}); evaluate again with: jensen evaluate {run.folder}"
        )
    return Evaluated(run, examples, evaluation, run.folder).shown(title, compared=True)
