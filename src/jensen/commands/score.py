"""`jensen score`: the bound of every example; a low bound marks an unusual example."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, NonNegativeInt

from jensen.commands.common import OfExamples, RunFolder
from jensen.commands.files import refuse_other_file, save_as_table
from jensen.data.options import Split
from jensen.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from jensen.data.examples import Examples
    from jensen.data.spec import DataSpec
    from jensen.evaluation.scores import Scores
    from jensen.inference.row_scores import RowScores
    from jensen.run import Run


class Score(OfExamples):
    """Score every example: bound, standard error; of a table also every column."""

    several_processes: ClassVar[bool] = True

    run: RunFolder
    """The folder of the run."""
    out: Path
    """The .csv to write; for a table also a .tsv, .parquet or .arrow."""
    draws: int | None = Field(default=None, ge=2)
    """Draws per example; the standard error falls as 1/sqrt(draws). Default: 16 (VAE) or 2 (diffusion)."""
    explained: NonNegativeInt | None = None
    """Tables: number of rows, the least likely first, of which each column is scored given all others.
    Default: 200, fewer for more than 20 columns, 0 for more than 200 or a model without p(column | others)."""
    seed: NonNegativeInt = 0
    """The seed of the draws."""

    def execute(self) -> None:
        """Write one row per example into the file."""
        from jensen import processes
        from jensen.data.examples import counted
        from jensen.records import refuse_existing_file
        from jensen.run import opened

        with processes.together():
            refuse_existing_file(self.out)
            run = opened(self.run)
            refuse_other_file(self.out, run.spec, ".csv")
        found = score(run, self.data, split=self.part, draws=self.draws, explained=self.explained, seed=self.seed)
        processes.on_main(lambda: found.save(self.out))
        print(f"{self.out}: {counted(len(found.scores.index))} scored")


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of `count` examples, with the names, labels (count) and the specification of the examples.

    A name says where in the source the example is; in a table with a column of identifiers it is the cell of that
    column. `columns` are log p(column | all others) of the rows of a table whose indices are in `explained`, the least
    likely row first; None for other data, and for a model without p(column | others). `beyond` has, by the index of a
    row, the cells of a table beyond the range of the training rows, which are scored as its ends, in words.
    """

    scores: "Scores"
    names: "Sequence[str]"
    labels: "Tensor | None"
    spec: "DataSpec"
    explained: "Tensor"
    columns: "RowScores | None"
    beyond: Mapping[int, "Sequence[str]"] = field(default_factory=dict)

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
        """Write a file with a row per example: .csv, or for a table also .tsv, .parquet and .arrow."""
        from jensen.records import write_csv

        out, table, columns = Path(out), self.spec.table, self._columns()
        refuse_other_file(out, self.spec, ".csv")
        if table is None:
            write_csv(out, list(columns), zip(*columns.values(), strict=True))
            return
        save_as_table(out, table, columns)

    def _columns(self) -> "dict[str, list[Any]]":
        """The columns of the file by name."""
        count = range(len(self.scores.index))
        columns: dict[str, list[Any]] = {
            "example": list(count),
            "name": list(self.names),
            "bound_nats": _rounded(self.bound),
            "standard_error_nats": _rounded(self.standard_error),
        }
        if self.spec.table is None:
            columns["bits_per_dim"] = _rounded(self.bits_per_dimension)
        if self.labels is not None:
            columns["label"] = [self.spec.label_name(label) for label in self.labels.tolist()]
        return columns if self.columns is None else columns | self._of_columns(self.columns)

    def _of_columns(self, scores: "RowScores") -> "dict[str, list[Any]]":
        """The columns that made each row unlikely, in words, and log p of each column given all others."""
        names, count = scores.names, len(self.scores.index)
        words: list[str | None] = ["; ".join(self.beyond[row]) if row in self.beyond else None for row in range(count)]
        nats: list[list[float | None]] = [[None] * count for _ in names]
        for place, row in enumerate(self.explained.tolist()):
            words[row] = "; ".join([*self.beyond.get(row, ()), *map(str, scores.unusual(place))])
        for row, values in zip(self.explained.tolist(), scores.log_prob.tolist(), strict=True):
            for column, value in zip(nats, values, strict=True):
                column[row] = None if math.isnan(value) else float(f"{value:.6g}")
        return {"least_likely": words, **{f"nats: {name}": each for name, each in zip(names, nats, strict=True)}}


def _rounded(values: "Tensor") -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def score(
    run: "Run",
    data: Any = None,
    *,
    split: Split = "test",
    draws: int | None = None,
    explained: int | None = None,
    seed: int = 0,
) -> Scored:
    """The ELBO of every example of `data`, averaged over `draws` draws.

    If `data` is None, the examples are the split `split` of the run's own data. `explained` is the number of rows of a
    table, the least likely ones, of which log p(column | all others) is computed for every column. The default is
    `affordable_rows`, or none for a model without p(column | others). Processes started by torchrun divide the
    examples among themselves. Warns of bounds that are not finite. Raises `InputError` for `explained` without a table.
    """
    from jensen import processes
    from jensen.commands.rows import keys
    from jensen.evaluation.scores import score as score_examples
    from jensen.inference.rows import marginalised

    with processes.together():
        most = _explained(run, explained)
        unknown = marginalised(run.model, run.spec)
        examples = run.examples(data, split, gaps=unknown is not None)
    draws = draws or run.model.usual_draws
    scores = score_examples(run.model, examples, run.spec.preparation, draws=draws, seed=seed, unknown=unknown)
    if scores.not_finite:
        warnings.warn(scores.not_finite, stacklevel=2)
    rows = scores.bound.argsort(stable=True)[:most]
    columns = processes.on_main(lambda: _score_columns(run, examples, rows, seed)) if most else None
    names = processes.on_main(lambda: keys(run, data, examples.names))
    beyond = processes.on_main(lambda: _beyond(run, data, examples)) if columns is not None and data is not None else {}
    return Scored(scores, names or list(examples.names), examples.labels, run.spec, rows, columns, beyond or {})


def _beyond(run: "Run", data: Any, examples: "Examples") -> dict[int, list[str]]:
    """The cells beyond the range of the training rows, in words, by the index of the row."""
    import numpy as np

    from jensen.commands.rows import source_rows
    from jensen.data.table.matrix import beyond_range
    from jensen.data.table.write import text_of

    arrow, table = source_rows(run, data, examples.names)
    found: dict[int, list[str]] = {}
    for name, which in beyond_range(arrow, table).items():
        rows = np.flatnonzero(which)
        known = table.columns[table.named(name)]
        texts = text_of(name, arrow.column(name).take(rows), known, table.decimal).to_pylist()
        for row, text in zip(rows.tolist(), texts, strict=True):
            found.setdefault(row, []).append(f"{name} {text} (beyond the range)")
    return found


def _explained(run: "Run", wanted: int | None) -> int:
    """The number of rows to explain."""
    from jensen.inference.columns import checked
    from jensen.inference.row_scores import affordable_rows

    if run.spec.table is None:
        if wanted is not None:
            raise InputError(f"--explained {wanted}: {run.folder} was not trained on a table; leave it out")
        return 0
    if wanted is None:
        try:
            checked(run.model)
        except InputError as error:
            warnings.warn(f"columns are not scored: {error}", stacklevel=3)
            return 0
        columns = len(run.spec.table.columns)
        if not affordable_rows(columns):
            warnings.warn(
                f"columns are not scored: there are {columns}, and the cost grows with their square; --explained 10 "
                "scores them for 10 rows",
                stacklevel=3,
            )
        return affordable_rows(columns)
    if wanted:
        checked(run.model)
    return wanted


def _score_columns(run: "Run", examples: "Examples", rows: "Tensor", seed: int) -> "RowScores":
    from jensen.inference.row_scores import score_rows

    return score_rows(run.model, examples, run.spec, rows, seed=seed)
