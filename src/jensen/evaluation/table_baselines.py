"""Simple models of a table, fitted to the training rows: log p(row) in the same units as that of every run."""

import math
from dataclasses import dataclass
from itertools import count as counting

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.table_preparation import PreparedField, TablePreparation
from jensen.evaluation.columns import FITTED, IndependentColumns
from jensen.evaluation.scores import spread
from jensen.likelihood import log_normal_interval
from jensen.monotone import Curves

ROUNDS = 100  # of the EM algorithm
MOST_CLASSES = 64
ROWS_EACH = 20  # training rows for each class at least
SMALLEST = 0.03  # deviation of a class in a column whose numbers are about N(0, 1)
FAR = 1e3  # beyond any T(x)


def table_baselines(
    train: Examples, raw: Float[Tensor, " rows fields"], preparation: TablePreparation, seed: int = 0
) -> dict[str, Tensor]:
    """log p(row) of raw rows under each simple model, in nats of the data, (rows), float64.

    "independent columns" is `IndependentColumns`. "Gaussian" has a full covariance of T(x) over the real columns that
    have no atoms and no missing cells, and independent other columns; it needs two such columns. "mixture of K classes"
    has independent columns in each class; K is that of the lowest BIC (Schwarz 1978).
    """
    known = train.x[spread(len(train), FITTED)]
    alone = IndependentColumns.fit(train, preparation)
    by_field = alone.log_prob(raw)
    found = {"independent columns": by_field.sum(1)}
    x, own = (preparation(rows).double() for rows in (raw, known))
    dense = [
        place
        for place, field in enumerate(preparation.fields)
        if field.law == "real" and not field.atoms and not bool(own[:, place].isnan().any())
    ]
    if len(dense) > 1 and not bool(x[:, dense].isnan().any()):
        volume = preparation.log_volume_by_field(raw)[:, dense].sum(1)
        others = [place for place in range(x.shape[1]) if place not in dense]
        found["Gaussian"] = _gaussian(own[:, dense], x[:, dense]) + volume + by_field[:, others].sum(1)
    mixture = best_mixture(own, preparation, seed)
    classes = len(mixture.log_weights)
    found[f"mixture of {classes} class{'es' if classes > 1 else ''}"] = mixture.log_prob(x) + preparation.log_volume_of(
        raw
    )
    return found


def _gaussian(train: Float[Tensor, " train dims"], x: Float[Tensor, " rows dims"]) -> Tensor:
    """log N(x | mean, covariance) of training rows, with a hundredth of the variances added to keep it regular."""
    covariance = train.mT.cov()
    covariance = covariance + 0.01 * covariance.diag().diag()
    return torch.distributions.MultivariateNormal(train.mean(0), covariance).log_prob(x)


# ---------------------------------------------------------------------------------------------- a mixture


@dataclass(frozen=True, eq=False)
class _Column:
    """One field for the mixture: a state (code, atom, missing, any other number), and T of any other number."""

    field: PreparedField
    states: int

    @classmethod
    def of(cls, field: PreparedField) -> "_Column":
        states = field.levels or 1 if field.law == "codes" else 1 + len(field.images)
        return cls(field, states + 1)

    def state(self, x: Tensor) -> Tensor:
        """The state of each cell; the last one is a missing cell, and 0 is a number that is no atom."""
        value = x.nan_to_num()
        if self.field.law == "codes":
            found = value.long()
        else:
            same = value[:, None] == value.new_tensor(self.field.images or (math.inf,))
            found = torch.where(same.any(1), 1 + same.int().argmax(1), 0)
        return torch.where(x.isnan(), self.states - 1, found)

    def number(self, x: Tensor) -> Tensor:
        """T of each cell in state 0 of a column of numbers, NaN for all others."""
        if self.field.law == "codes":
            return torch.full_like(x, math.nan)
        value = x if self.field.law == "real" else self._curved(x.nan_to_num())
        return torch.where(self.state(x) == 0, value, math.nan)

    def log_prob(self, x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """log p of the numbers given each class, (rows, classes): a mass of whole numbers; 0 for other cells."""
        value = self.number(x)[:, None]
        if self.field.law in ("codes", "real"):
            found = torch.distributions.Normal(mean, deviation).log_prob(value.nan_to_num())
        else:
            k = x.nan_to_num()
            low = torch.where(k <= 0, -FAR, self._curved(k - 0.5))[:, None]
            last = math.inf if self.field.levels is None else self.field.levels - 1
            high = torch.where(k >= last, FAR, self._curved(k + 0.5))[:, None]
            low, high = (low - mean) / deviation, (high - mean) / deviation
            found = log_normal_interval(low, high, high - low)
        return torch.where(value.isnan(), 0, found)

    def _curved(self, x: Tensor) -> Tensor:
        assert self.field.curve is not None
        return Curves([self.field.curve])(x[:, None])[:, 0]


@dataclass(frozen=True, eq=False)
class ClassMixture:
    """p(row) = Σ_c w_c Π_j p_j(x_j | c): probabilities of states, and a normal law of T of numbers, in each class."""

    columns: list[_Column]
    log_weights: Tensor
    tables: list[Tensor]
    means: list[Tensor]
    deviations: list[Tensor]

    def log_prob(self, x: Float[Tensor, " rows fields"]) -> Tensor:
        """log p(x) of prepared rows in nats, (rows)."""
        joint = self.log_weights.expand(len(x), -1).clone()
        for j, column in enumerate(self.columns):
            joint += self.tables[j][column.state(x[:, j])]
            joint += column.log_prob(x[:, j], self.means[j], self.deviations[j])
        return joint.logsumexp(1)

    @property
    def parameters(self) -> int:
        """The number of free parameters, for the BIC."""
        each = sum(column.states - 1 + 2 * (column.field.law != "codes") for column in self.columns)
        return len(self.log_weights) * (each + 1) - 1


def best_mixture(x: Float[Tensor, " rows fields"], preparation: TablePreparation, seed: int = 0) -> ClassMixture:
    """The mixture of the lowest BIC among 1, 2, 4, ... classes; the search ends when the BIC rises."""
    best, lowest = None, math.inf
    for power in counting():
        classes = 2**power
        if best is not None and (classes > MOST_CLASSES or classes * ROWS_EACH > len(x)):
            break
        mixture = fit_mixture(x, preparation, classes, seed)
        score = mixture.parameters * math.log(len(x)) - 2 * float(mixture.log_prob(x).sum())
        if best is not None and score >= lowest:
            break
        best, lowest = mixture, score
    assert best is not None
    return best


def fit_mixture(
    x: Float[Tensor, " rows fields"], preparation: TablePreparation, classes: int, seed: int = 0
) -> ClassMixture:
    """A mixture fitted to prepared rows by EM, which starts at random rows; each class has a row of pseudo-counts."""
    columns = [_Column.of(field) for field in preparation.fields]
    states = [column.state(x[:, j]) for j, column in enumerate(columns)]
    numbers = [column.number(x[:, j]) for j, column in enumerate(columns)]
    source = torch.Generator().manual_seed(seed)
    centres = torch.randperm(len(x), generator=source)[:classes]
    distance = torch.zeros(len(x), classes, dtype=torch.float64)
    for state, number in zip(states, numbers, strict=True):
        distance += (state[:, None] != state[centres]).double()
        distance += (number[:, None] - number[centres]).nan_to_num().square()
    shares, mixture = torch.softmax(-distance, 1), None
    for _ in range(ROUNDS if classes > 1 else 1):
        mixture = _maximised(columns, states, numbers, shares)
        joint = mixture.log_weights.expand(len(x), -1).clone()
        for j, (state, number) in enumerate(zip(states, numbers, strict=True)):
            normal = torch.distributions.Normal(mixture.means[j], mixture.deviations[j])
            log_density = normal.log_prob(number.nan_to_num()[:, None])
            joint += mixture.tables[j][state] + torch.where(number.isnan()[:, None], 0, log_density)
        shares = joint.softmax(1)
    assert mixture is not None
    return mixture


def _maximised(columns: list[_Column], states: list[Tensor], numbers: list[Tensor], shares: Tensor) -> ClassMixture:
    """The mixture of the classes in which each row has its shares."""
    log_weights = ((shares.sum(0) + 1) / (len(shares) + shares.shape[1])).log()
    tables, means, deviations = [], [], []
    for column, state, number in zip(columns, states, numbers, strict=True):
        counts = torch.zeros(column.states, shares.shape[1], dtype=torch.float64).index_add_(0, state, shares)
        counts = counts + counts.sum(1, keepdim=True) / counts.sum() + 1e-3 / column.states
        tables.append((counts / counts.sum(0)).log())
        seen, value = shares * ~number.isnan()[:, None], number.nan_to_num()[:, None]
        total = seen.sum(0) + 1.0
        mean = (seen * value).sum(0) / total
        means.append(mean)
        deviations.append((((seen * (value - mean).square()).sum(0) + 1.0) / total).sqrt().clamp(min=SMALLEST))
    return ClassMixture(columns, log_weights, tables, means, deviations)
