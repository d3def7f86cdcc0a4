"""p(y|x) of one column y of a table for a set of rows, given all other columns, as predictions of labels or targets."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.spec import DataSpec
from jensen.data.table.column import Column, Table
from jensen.data.table_preparation import TablePreparation
from jensen.errors import InputError
from jensen.evaluation.columns import FITTED, IndependentColumns
from jensen.evaluation.scores import spread
from jensen.inference.columns import DRAWS, ColumnPrediction, predict_column
from jensen.inference.imputer import ExampleNoise
from jensen.inference.prediction import AT_ONCE, Predictions
from jensen.inference.rows import seen_rows
from jensen.inference.target_prediction import ENDS, Regression, TargetPredictions, regression
from jensen.model import AbstractLatentVariableModel, Prediction
from jensen.progress import track

UNKNOWN = -1  # the label of a row whose cell is empty
EACH = 5  # values of y drawn for each draw of z
VALUES, RANKS = 200, 201  # purposes of random numbers; `predict_column` uses smaller numbers


def target_column(table: Table, target: str) -> int:
    """The place in the matrix of the column `target`. Raises `InputError` for another column and for a date."""
    try:
        index = table.named(target)
    except KeyError as error:
        raise InputError(f"--target {target}: {table.unknown(target)}") from error
    if table.columns[index].type == "datetime":
        raise InputError(
            f"--target {target}: a date is predicted by jensen impute, from data in which its cells are empty"
        )
    return table.fields_of(index)[0]


def predict_classes(
    model: AbstractLatentVariableModel,
    examples: Examples,
    spec: DataSpec,
    field: int,
    *,
    draws: int | None = None,
    seed: int = 0,
    index: Tensor | None = None,
) -> Predictions:
    """P(y = k | all other columns, y is not missing) for a column of codes or values.

    The labels are the codes, and -1 for an empty cell; they are None if all are empty. Row i is a pure function of
    (seed, index[i]).
    """
    index = torch.arange(len(examples)) if index is None else index
    parts = []
    for rows in track(index.split(AT_ONCE), "predicting"):
        found = _column(model, examples.x[rows], spec, field, draws, seed, rows).classes()
        parts.append(Prediction(*(one.cpu().double() for one in vars(found).values())))
    y = examples.x[index][:, field]
    labels = torch.where(y.isnan(), float(UNKNOWN), y).long()
    return Predictions(index, Prediction.concatenate(parts), None if bool(y.isnan().all()) else labels)


def predict_numbers(
    model: AbstractLatentVariableModel,
    examples: Examples,
    spec: DataSpec,
    field: int,
    *,
    draws: int | None = None,
    seed: int = 0,
    index: Tensor | None = None,
) -> TargetPredictions:
    """p(y | all other columns, y is not missing) for a column of numbers, in the units of the data.

    The log-density is a log-mass for whole numbers and atoms. y is NaN for an empty cell; y, log-density and rank are
    None if all are empty. Row i is a pure function of (seed, index[i]).
    """
    index = torch.arange(len(examples)) if index is None else index
    parts = [
        _numbers(model, examples.x[rows], spec, field, draws, seed, rows)
        for rows in track(index.split(AT_ONCE), "predicting")
    ]
    mean, deviation, ends, error, size, y, log_density, rank = (torch.cat(one) for one in zip(*parts, strict=True))
    if bool(y.isnan().all()):
        return TargetPredictions(index, mean, deviation, ends, error, size)
    return TargetPredictions(index, mean, deviation, ends, error, size, y, log_density, rank)


def assess_marginal(
    train: Examples, examples: Examples, found: TargetPredictions, spec: DataSpec, field: int, seed: int
) -> Regression:
    """The measures of p(y | y is not missing) of `IndependentColumns` for the rows of `found`, whose y is known.

    The mean and the ranks are those of the training cells; equal cells are put in a random order.
    """
    assert spec.table is not None
    assert isinstance(spec.preparation, TablePreparation)
    assert found.y is not None
    alone = IndependentColumns.fit(train, spec.preparation)
    log_p = alone.log_prob(examples.x[found.index])[:, field] - (-alone.missing[field]).log1p()
    cells = _in_units(train.x[spread(len(train), FITTED)][:, field].double().numpy(), spec.table, field)
    cells, y = np.sort(cells[~np.isnan(cells)]), found.y[:, 0].numpy()
    below, reached = (torch.from_numpy(np.searchsorted(cells, y, side) / len(cells)) for side in ("left", "right"))
    v = ExampleNoise(seed, found.index.tolist()).uniform((), RANKS).to(below)
    return regression(log_p, found.y - cells.mean(), (below + v * (reached - below)).unsqueeze(1))


def _column(
    model: AbstractLatentVariableModel,
    raw: Tensor,
    spec: DataSpec,
    field: int,
    draws: int | None,
    seed: int,
    rows: Tensor,
) -> ColumnPrediction:
    x = seen_rows(raw, spec, rows, seed).to(model.device)
    return predict_column(model, x, field, draws=draws or DRAWS, seed=seed, index=rows).present()


def _numbers(
    model: AbstractLatentVariableModel,
    raw: Tensor,
    spec: DataSpec,
    field: int,
    draws: int | None,
    seed: int,
    rows: Tensor,
) -> tuple[Tensor, ...]:
    """Mean, deviation, ends, error, effective sample size, y, log-density and rank of some rows."""
    preparation = spec.preparation
    assert isinstance(preparation, TablePreparation)
    law, noise = _column(model, raw, spec, field, draws, seed, rows), ExampleNoise(seed, rows.tolist())

    def units(x: Tensor) -> Tensor:
        return torch.from_numpy(from_x(x, spec, field))

    weights = law.log_weights.exp().cpu()
    u = noise.uniform((EACH, len(weights)), VALUES).movedim(0, -1).to(law.log_weights.device)
    values = units(law.law.quantile(u.unsqueeze(-1))[..., 0])  # (each, draws, batch)
    mean = (weights * values.mean(0)).sum(0)
    variance = (weights * (values - mean).square().mean(0)).sum(0)
    error = (weights.square() * (values.mean(0) - mean).square()).sum(0).sqrt()
    ends = torch.stack([units(law.quantile(law.log_weights.new_full((len(raw),), end))) for end in ENDS], -1)
    known = raw[:, field].isnan().logical_not()
    x = preparation(torch.where(known[:, None], raw, raw.new_zeros(())))[:, field].to(law.log_weights.device)
    volume = preparation.log_volume_by_field(raw)[:, field]
    log_density = torch.where(known, law.log_prob(x).cpu() + volume, math.nan)
    rank = torch.where(known, _rank(law, x, preparation.fields[field].law, noise).cpu(), math.nan)
    assert spec.table is not None
    y = torch.from_numpy(_in_units(raw[:, field].double().numpy(), spec.table, field))
    kept = (mean.unsqueeze(1), variance.sqrt().unsqueeze(1), ends.unsqueeze(1), error.unsqueeze(1))
    return *kept, law.effective_sample_size.cpu(), y.unsqueeze(1), log_density, rank.unsqueeze(1)


def _rank(law: ColumnPrediction, x: Tensor, kind: str, noise: ExampleNoise) -> Tensor:
    """P(Y < y) + v P(Y = y) with v ~ U(0, 1): uniform for a calibrated law, whether y has a density or a mass."""
    below = law.cdf(torch.nextafter(x, x.new_full((), -torch.inf)) if kind == "real" else x - 1)
    v = noise.uniform((), RANKS).to(below)
    return below + v * (law.cdf(x) - below)


def from_x(x: Float[Tensor, "*shape"], spec: DataSpec, field: int) -> Float[np.ndarray, "*shape"]:
    """Values of a column of numbers from the model's units into those of the data, float64."""
    assert spec.table is not None
    assert isinstance(spec.preparation, TablePreparation)
    return _in_units(spec.preparation.field_to_raw(x, field), spec.table, field)


def _in_units(raw: np.ndarray, table: Table, field: int) -> np.ndarray:
    """The cells of a column of numbers from the numbers of its field."""
    column: Column = table.columns[table.fields[field].column]
    values = np.asarray(raw, np.float64)
    return values if table.fields[field].law == "real" else column.low + column.step * values


def class_counts(train: Examples, field: int, names: Sequence[str]) -> tuple[int, ...]:
    """The number of training rows with each value of a column."""
    y = np.asarray(train.x[: len(train)][:, field])
    return tuple(np.bincount(y[~np.isnan(y)].astype(int), minlength=len(names)).tolist())
