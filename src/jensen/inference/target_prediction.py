"""p(y|x) over continuous y for a set of examples, in the units of y, and the quality of the predictions if y is known.

All results are about the raw y. The log-density of y is the log-density of the scaled targets, which the model sees,
minus Σ_d log scale_d.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from jensen.bound import Estimate, root_mean_square
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.data.target_scaling import TargetScaling
from jensen.evaluation.scores import prepare
from jensen.gaussian import MultivariateGaussian
from jensen.inference.calibration import LEVELS, MOST_BINS, Coverage, clustered_share
from jensen.inference.prediction import AT_ONCE
from jensen.mixture import Mixture
from jensen.model import AbstractLatentVariableModel, TargetPrediction
from jensen.progress import track
from jensen.provenance import Provenance
from jensen.records import Value, named_by, write_record

RECORD = "target-predictions.json"
ENDS = tuple(0.5 + side * level / 2 for level in LEVELS for side in (-1, 1))  # ends of the intervals, as quantiles
FITTED = 20_000  # maximum number of training examples for the linear regression

# ---------------------------------------------------------------------------------------------- predict


@dataclass(frozen=True, eq=False)
class TargetPredictions:
    """p(y|x) of `count` examples, with y in raw units.

    Tensors are (count, dims), float64, on the CPU. `index` (count) are the indices of the examples. `ends` (count,
    dims, 6) holds the lower and the upper end of the central interval at each of `LEVELS`. `standard_error` is the
    Monte-Carlo error of `mean`. `log_density` (count) is log p(y|x), and `rank` is p(Y_d <= y_d|x). `y`, `log_density`
    and `rank` are None if y is unknown; for single examples whose y is unknown they are NaN.
    """

    index: Int[Tensor, " count"]
    mean: Float[Tensor, " count dims"]
    deviation: Float[Tensor, " count dims"]
    ends: Float[Tensor, " count dims ends"]
    standard_error: Float[Tensor, " count dims"]
    effective_sample_size: Float[Tensor, " count"]
    y: Float[Tensor, " count dims"] | None = None
    log_density: Float[Tensor, " count"] | None = None
    rank: Float[Tensor, " count dims"] | None = None

    def known(self) -> Self:
        """The examples whose y is known."""
        assert self.y is not None
        rows = ~self.y.isnan().any(1)
        return type(self)(**{name: values[rows] for name, values in vars(self).items()})


def predict_target_examples(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    scaling: TargetScaling,
    *,
    draws: int | None = None,
    seed: int = 0,
    index: Tensor | None = None,
) -> TargetPredictions:
    """`model.predict_targets` for the examples whose indices are in `index` (default: all examples).

    Each mixture is reduced to the fields of `TargetPredictions`. Row i is a pure function of (seed, index[i]).
    """
    index = torch.arange(len(examples)) if index is None else index
    y = None if examples.targets is None else scaling.to_raw(examples.targets[index])
    parts = []
    for rows, numbers in zip(
        track(torch.arange(len(index)).split(AT_ONCE), "predicting"), index.split(AT_ONCE), strict=True
    ):
        x = prepare(preparation, examples.x[numbers], numbers, seed).to(model.device)
        found = model.predict_targets(x, draws=draws, seed=seed, index=numbers)
        parts.append(_kept(numbers, found, scaling, None if y is None else y[rows]))
    return _joined(parts)


def mixture_of(found: TargetPrediction) -> Mixture:
    """p(y|x) as a mixture for each example, (batch, draws) components."""
    components = MultivariateGaussian(found.components.mean, found.components.scale.diag_embed())
    return Mixture(found.log_weights, components)


def in_raw_units(found: Mixture, scaling: TargetScaling) -> Mixture:
    """p(y|x) from p(t|x) for y = shift + scale t, by changing the means and scales of the components."""
    parts = found.components
    factor = parts.cholesky * parts.cholesky.new_tensor(scaling.scale).unsqueeze(-1)
    return Mixture(found.log_weights, MultivariateGaussian(scaling.to_raw(parts.mean), factor))


def _kept(index: Tensor, found: TargetPrediction, scaling: TargetScaling, y: Tensor | None) -> TargetPredictions:
    law = in_raw_units(mixture_of(found), scaling)
    scale = law.mean.new_tensor(scaling.scale)
    u = law.mean.new_tensor(ENDS).reshape(-1, 1, 1).expand(-1, *law.mean.shape)
    known: list[Tensor | None] = [None, None, None]
    if y is not None:
        y = y.to(scale.device)
        known = [y, law.log_prob(y), law.cdf(y)]
    kept = [law.mean, law.variance.sqrt(), law.quantile(u).movedim(0, -1), found.standard_error * scale]
    tensors = [*kept, found.effective_sample_size, *known]
    return TargetPredictions(index, *(None if one is None else one.cpu().double() for one in tensors))  # type: ignore[arg-type]


def _joined(parts: Sequence[TargetPredictions]) -> TargetPredictions:
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return TargetPredictions(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- quality


class Regression(Value):
    """The quality of predictive distributions of known targets; means over examples."""

    log_density: Estimate
    """log p(y|x) of the whole y, nats."""
    errors: tuple[Estimate, ...]
    """Root mean square of y_d minus its predicted mean, for each d, in the units of y."""
    coverage: tuple[Coverage, ...]
    """The share of y_d inside central intervals, over all d."""
    ranks: tuple[Estimate, ...]
    """Shares of equally wide bins of p(Y_d <= y_d|x), all equal for calibrated predictions."""


class TargetRecord(Value):
    """The settings and the quality of predictions, beside two simple predictors; JSON both ways."""

    source: str
    """The data, in words."""
    column: str | None = None
    """The predicted column of a table; None for targets."""
    examples: int
    provenance: Provenance
    """The weights, software and command that gave the predictions."""
    draws: int | None
    """The requested number of draws; None for the model's default."""
    seed: int
    model: Regression
    linear: Regression | None
    """A Bayesian linear regression on the training examples; None for a table, or if they could not be read again."""
    always: Regression | None
    """A constant prediction: a normal with the mean and the standard deviation of the training targets. For a column of
    a table it is the law of `IndependentColumns`; None if the training rows could not be read."""
    standard_error: float
    """Root mean square of the Monte-Carlo errors of predicted means, in predicted standard deviations."""
    effective_sample_size: float
    """The median effective sample size."""


@dataclass(frozen=True)
class TargetCircumstances:
    """The settings for a record."""

    source: str
    provenance: Provenance
    draws: int | None
    seed: int
    column: str | None = None


def assess_targets(
    found: TargetPredictions, always: Regression | None, linear: Regression | None, circumstances: TargetCircumstances
) -> TargetRecord:
    """The quality of predictions of known targets, beside two simple predictors."""
    y = found.y
    assert y is not None
    assert found.log_density is not None
    assert found.rank is not None
    return TargetRecord(
        **vars(circumstances),
        examples=len(y),
        model=regression(found.log_density, y - found.mean, found.rank),
        linear=linear,
        always=always,
        standard_error=root_mean_square((found.standard_error / found.deviation).flatten()),
        effective_sample_size=found.effective_sample_size.median().item(),
    )


def regression(
    log_density: Float[Tensor, " count"], errors: Float[Tensor, " count dims"], rank: Float[Tensor, " count dims"]
) -> Regression:
    """The measures of quality from the log-density, the errors and the ranks of each example."""
    every = torch.ones_like(rank, dtype=torch.bool)
    bins = min(MOST_BINS, max(2, len(rank) // 10))
    place = (rank * bins).long().clamp(0, bins - 1)
    return Regression(
        log_density=Estimate.of(log_density),
        errors=tuple(root_mean_squared_error(column) for column in errors.mT),
        coverage=tuple(
            Coverage(nominal=level, share=clustered_share((2 * rank - 1).abs() <= level, every)) for level in LEVELS
        ),
        ranks=tuple(clustered_share(place == number, every) for number in range(bins)),
    )


def assess_normal(
    y: Float[Tensor, " count dims"], mean: Float[Tensor, " count dims"], deviation: Float[Tensor, " count dims"]
) -> Regression:
    """The measures of independent predictions N(mean, deviation²) for each dimension of y."""
    standardised = (y - mean) / deviation
    log_density = -(0.5 * standardised.square() + deviation.log() + 0.5 * math.log(2 * math.pi)).sum(1)
    return regression(log_density, y - mean, torch.special.ndtr(standardised))


def assess_constant(y: Float[Tensor, " count dims"], scaling: TargetScaling) -> Regression:
    """The measures of a normal with the mean and the standard deviation of the training targets."""
    shift, scale = (y.new_tensor(values).expand_as(y) for values in (scaling.shift, scaling.scale))
    return assess_normal(y, shift, scale)


def assess_linear(
    train: Examples, test: Examples, y: Float[Tensor, " count dims"], preparation: Preparation, scaling: TargetScaling
) -> Regression:
    """The measures of scikit-learn's `BayesianRidge`, fitted separately to each dimension of y.

    The evidence sets the widths of the prior. The fit uses at most `FITTED` training examples, which are evenly spread.
    A missing value of x is replaced by the mean of its dimension.
    """
    from sklearn.linear_model import BayesianRidge

    assert train.targets is not None
    rows = torch.arange(0, len(train), math.ceil(len(train) / FITTED))
    inputs, targets = _flat(train, preparation, rows), train.targets[rows].double().numpy()
    asked = _flat(test, preparation, torch.arange(len(test)))
    means, deviations = [], []
    for column in targets.T:
        mean, deviation = BayesianRidge().fit(inputs, column).predict(asked, return_std=True)
        means.append(torch.from_numpy(mean))
        deviations.append(torch.from_numpy(deviation))
    scale = y.new_tensor(scaling.scale)
    return assess_normal(y, scaling.to_raw(torch.stack(means, 1)), torch.stack(deviations, 1) * scale)


def _flat(examples: Examples, preparation: Preparation, rows: Tensor) -> np.ndarray:
    x = prepare(preparation, examples.x[rows], rows, 0)
    return x.flatten(1).double().nan_to_num().numpy()


def root_mean_squared_error(errors: Float[Tensor, " count"]) -> Estimate:
    """sqrt(mean e²), with a standard error by the delta method.

    >>> print(root_mean_squared_error(torch.tensor([3.0, -3.0, 3.0])))
    3 ± 0
    """
    mean_square = Estimate.of(errors.double().square())
    root = math.sqrt(mean_square.mean)
    error = mean_square.standard_error / (2 * root) if root else 0.0
    return Estimate(root, error, mean_square.count, mean_square.carriers)


# ---------------------------------------------------------------------------------------------- files


def target_columns(found: TargetPredictions, examples: Iterable[str]) -> dict[str, list[int | float | str | None]]:
    """The columns of a file with a row per example: index, name, and for each y_d its mean, errors and intervals.

    If y has several dimensions, d is part of the name of each column: mean_0, mean_1. If y is known, y and log p(y|x)
    in nats follow; both are None for an example whose y is unknown.
    """
    names = ["mean", "standard_deviation", "standard_error"]
    names += [f"{side}_{100 * level:g}" for level in LEVELS for side in ("low", "high")]
    values = torch.cat([torch.stack([found.mean, found.deviation, found.standard_error], -1), found.ends], -1)
    if found.y is not None:
        names.append("target")
        values = torch.cat([values, found.y.unsqueeze(-1)], -1)
    count, dims = found.mean.shape
    header = [name if dims == 1 else f"{name}_{d}" for d in range(dims) for name in names]
    rows = values.reshape(count, -1)
    if found.log_density is not None:
        header.append("log_density")
        rows = torch.cat([rows, found.log_density.unsqueeze(1)], 1)
    columns: dict[str, list[int | float | str | None]] = {"example": found.index.tolist(), "name": list(examples)}
    for name, cells in zip(header, rows.mT.tolist(), strict=True):
        of_y = name.startswith(("target", "log_density"))
        columns[name] = [None if of_y and math.isnan(cell) else float(f"{cell:.10g}") for cell in cells]
    return columns


def save_targets(folder: Path, record: TargetRecord) -> Path:
    """Write target-predictions.json, or target-predictions-COLUMN.json for a table, into `folder`. Returns its path."""
    return write_record(folder / named_by(RECORD, record.column), record)
