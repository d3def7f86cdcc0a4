"""p(y|x) where y is a column of a table, by the run of an estimator."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.spec import DataSpec
from jensen.data.table.column import Table
from jensen.errors import InputError
from jensen.inference.columns import DRAWS, ColumnPrediction, predict_column
from jensen.inference.predict_column import from_x
from jensen.inference.prediction import AT_ONCE
from jensen.inference.rows import seen_rows
from jensen.progress import track
from jensen.run import Run

POINTS = 16  # values of y for each draw of z


def column_predictions(
    run: Run, examples: Examples, numbers: Tensor, field: int, draws: int | None, seed: int
) -> Iterator[ColumnPrediction]:
    """p(y|x) of batches of rows, where y is the field `field`."""
    for rows in track(torch.arange(len(examples)).split(AT_ONCE), "predicting"):
        x = seen_rows(examples.x[rows], run.spec, numbers[rows], seed).to(run.model.device)
        yield predict_column(run.model, x, field, draws=draws or DRAWS, seed=seed, index=numbers[rows])


def field_of(table: Table, name: str) -> int:
    """The field of y, the column `name`. Raises `InputError` if the column was left out of the table."""
    left_out = {one.name: one.why for one in table.left_out}
    if name in left_out:
        raise InputError(f"y, the column {name!r}, was left out of the table ({left_out[name]}); give a y to predict")
    return table.fields_of(table.named(name))[0]


def weighted_values(
    found: ColumnPrediction, spec: DataSpec, field: int
) -> tuple[Float[np.ndarray, "batch points"], Float[np.ndarray, "batch points"]]:
    """Values of y, the field `field`, in the units of the data and their weights, which together approximate p(y|x).

    The values are quantiles of p(y|z_k) at the midpoints of `POINTS` equal parts, for every draw z_k.
    """
    there = found.present()
    levels = (torch.arange(POINTS, device=there.log_weights.device, dtype=torch.float64) + 0.5) / POINTS
    shape = there.log_weights.shape
    y = torch.stack([there.law.quantile(u.expand(shape).unsqueeze(-1))[..., 0] for u in levels])
    weights = there.log_weights.exp().expand(POINTS, *shape).cpu().numpy() / POINTS
    return from_x(y, spec, field).reshape(-1, shape[1]).T, weights.reshape(-1, shape[1]).T


def quantiles_of(
    values: Float[np.ndarray, "batch points"],
    weights: Float[np.ndarray, "batch points"],
    levels: Float[np.ndarray, " q"],
) -> Float[np.ndarray, "batch q"]:
    """Quantiles of weighted values, row by row: the smallest value up to which the weights reach a level.

    >>> quantiles_of(np.array([[3.0, 1.0, 2.0]]), np.array([[0.25, 0.5, 0.25]]), np.array([0.5, 0.9]))
    array([[1., 3.]])
    """
    order = values.argsort(1)
    values, reached = np.take_along_axis(values, order, 1), np.take_along_axis(weights, order, 1).cumsum(1)
    places = [np.searchsorted(row / row[-1], levels - 1e-12) for row in reached]
    return np.take_along_axis(values, np.minimum(np.stack(places), values.shape[1] - 1), 1)
