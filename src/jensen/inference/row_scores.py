"""Which columns make a row of a table unlikely: log p(column | all others), in the units of the data."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.spec import DataSpec
from jensen.data.table_preparation import TablePreparation
from jensen.evaluation.scores import spread
from jensen.inference.columns import DRAWS, ColumnScores, score_columns
from jensen.inference.rows import seen_rows
from jensen.model import AbstractLatentVariableModel

EXPLAINED = 200  # rows of a narrow table that are scored by default
COMPARED = 100  # rows, spread evenly over the data, whose median is the usual score of a column; fewer of wide tables
WIDE = 200  # columns from which no row is scored by default, as the cost grows with the square of their number
NAMED = 3  # columns of a row that are named


def affordable_rows(columns: int) -> int:
    """The number of rows that are scored by default: 200, fewer of a table with many columns, none of a wide one.

    >>> [affordable_rows(columns) for columns in (10, 40, 150, 1000)]
    [200, 50, 5, 0]
    """
    return 0 if columns > WIDE else max(5, min(EXPLAINED, 80_000 // columns**2))


@dataclass(frozen=True)
class Cell:
    """A cell that is unlikely given all other cells of its row; both numbers are in nats."""

    column: str
    log_prob: float
    usual: float
    """The median of log p(cell | others) over rows of the same data."""

    def __str__(self) -> str:
        """The cell in words.

        >>> print(Cell("age", -9.124, -3.4))
        age -9.12 (usually -3.40)
        """
        return f"{self.column} {self.log_prob:.2f} (usually {self.usual:.2f})"


@dataclass(frozen=True, eq=False)
class RowScores:
    """log p(cell | all other cells of its row) in nats of the data, with Monte-Carlo errors, (rows, columns).

    A cell that is left out of log p(x) is NaN. `usual` (columns) is the median over rows of the same data.
    """

    names: tuple[str, ...]
    log_prob: Float[Tensor, " rows columns"]
    standard_error: Float[Tensor, " rows columns"]
    usual: Float[Tensor, " columns"]

    def unusual(self, row: int, most: int = NAMED) -> list[Cell]:
        """The cells of a row that are less likely than the usual score of their columns, least likely first.

        The comparison makes columns of all kinds and units comparable: a density per cent is lower than one per euro.
        """
        excess = self.log_prob[row] - self.usual
        places = [place for place in excess.argsort(stable=True).tolist() if excess[place] < 0][:most]
        return [Cell(self.names[k], float(self.log_prob[row, k]), float(self.usual[k])) for k in places]


def score_rows(
    model: AbstractLatentVariableModel, examples: Examples, spec: DataSpec, rows: Tensor, *, seed: int = 0
) -> RowScores:
    """The scores of every cell in some rows of the examples, given by their indices (rows).

    The draws for row i are a pure function of (seed, i). Raises `InputError` for a model without p(column | others).
    """
    assert spec.table is not None
    compared = spread(len(examples), min(COMPARED, max(10, affordable_rows(len(spec.table.columns)))))
    index = torch.cat([rows, compared])
    found = score_cells(model, examples.x[index], spec, seed=seed, index=index)
    usual = found.log_prob[len(rows) :].nanmedian(0).values
    names = tuple(column.name for column in spec.table.columns)
    return RowScores(names, found.log_prob[: len(rows)], found.standard_error[: len(rows)], usual)


def score_cells(
    model: AbstractLatentVariableModel,
    raw: Tensor,
    spec: DataSpec,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    index: Tensor | None = None,
) -> ColumnScores:
    """log p(cell | all other cells of its row) in nats, (batch, columns), for raw rows (batch, fields).

    Densities are per unit of the data. A cell that is left out of log p(x) is NaN. Raises `InputError` like
    `score_columns`.
    """
    preparation, table = spec.preparation, spec.table
    assert table is not None
    assert isinstance(preparation, TablePreparation)
    index = torch.arange(len(raw)) if index is None else index
    x = seen_rows(raw, spec, index, seed).to(model.device)
    groups = table.places()
    found = score_columns(model, x, groups, draws=draws, seed=seed, index=index)
    volume = preparation.log_volume_by_field(raw)
    by_column = torch.stack([volume[:, list(group)].sum(1) for group in groups], 1)
    return ColumnScores(found.log_prob.cpu() + by_column, found.standard_error.cpu(), found.effective_sample_size.cpu())
