"""The bound of a table by its columns, beside a model whose columns are independent."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.examples import Examples
from jensen.data.spec import DataSpec
from jensen.data.table_preparation import PreparedField, TablePreparation
from jensen.evaluation.scores import at_once, prepare, spread
from jensen.gaussian import LOG_SQRT_TWO_PI
from jensen.model import AbstractLatentVariableModel
from jensen.monotone import Curves
from jensen.records import Value

FITTED = 100_000  # training rows of the independent model at most
SMALLEST = 1e-300  # the least probability of a number


class ColumnBound(Value):
    """One column of a table: its terms of the bound, and the log-probability of a model of independent columns."""

    name: str
    type: str
    """The type of the column in words."""
    missing: float
    """The share of missing cells."""
    nats: Estimate
    """E_q log p(x_j|z) of the column in nats per row; the sum over the columns is the reconstruction of the ELBO."""
    independent: Estimate | None = None
    """log p(x_j) of the independent model, in the same units; None without the training rows."""


@torch.no_grad()
def column_bounds(
    model: AbstractLatentVariableModel,
    examples: Examples,
    train: Examples | None,
    spec: DataSpec,
    index: Tensor,
    *,
    draws: int,
    seed: int,
) -> tuple[ColumnBound, ...]:
    """The terms of every column for the rows whose indices are in `index`; empty if the model has no such terms."""
    table, preparation = spec.table, spec.preparation
    assert table is not None
    assert isinstance(preparation, TablePreparation)
    parts, size = [], at_once(500, draws * preparation.dimensions)
    for rows in index.split(size):
        raw = examples.x[rows]
        x = prepare(preparation, raw, rows, seed).to(model.device)
        terms = model.reconstruction_by_dimension(x, draws=draws, seed=seed, index=rows)
        if terms is None:
            return ()
        parts.append(terms.cpu().double() + preparation.log_volume_by_field(raw))
    nats, raw = torch.cat(parts), examples.x[index]
    alone = None if train is None else IndependentColumns.fit(train, preparation).log_prob(raw)
    return tuple(
        ColumnBound(
            name=column.name,
            type=column.type,
            missing=float(raw[:, places[0]].isnan().double().mean()),
            nats=Estimate.of(nats[:, list(places)].sum(1)),
            independent=None if alone is None else Estimate.of(alone[:, list(places)].sum(1)),
        )
        for column, places in zip(table.columns, table.places(), strict=True)
    )


# ---------------------------------------------------------------------------------------------- independent columns


@dataclass(frozen=True, eq=False)
class IndependentColumns:
    """p(row) = the product over fields of p_j(x_j), fitted to training rows, on the same measure as every model.

    A code has its frequency, smoothed by one row that is uniform over the codes. A whole number has its frequency, or
    with the probability of a value that was not seen (the share of values seen once; Good 1953) the mass of its bin
    under a normal law of T(x). A real number has the frequencies of its atoms, and
    otherwise a normal density of T(x) (4.15). A missing cell has its frequency, smoothed by one row.
    """

    preparation: TablePreparation
    masses: tuple[Tensor, ...]
    """For each field: log-probabilities of its codes or atoms, with all other numbers last; frequencies of numbers."""
    normals: Float[Tensor, " fields 2"]
    """Mean and standard deviation of T(x) of the numbers that are no atoms."""
    missing: Float[Tensor, " fields"]
    """The probability of a missing cell; 0 where it is no value."""
    new: Float[Tensor, " fields"]
    """The probability of a whole number that was not seen."""

    @classmethod
    def fit(cls, train: Examples, preparation: TablePreparation) -> "IndependentColumns":
        """The model fitted to training rows, evenly spread."""
        raw = train.x[spread(len(train), FITTED)].double()
        x = preparation(raw).double()
        gaps = raw.isnan().double().sum(0)
        missing = torch.where(gaps > 0, (gaps + 0.5) / (len(raw) + 1), 0)
        masses, normals, new = [], [], []
        for place, field in enumerate(preparation.fields):
            known = x[:, place][~x[:, place].isnan()]
            once = (known.unique(return_counts=True)[1] == 1).sum()
            new.append((once.double() + 1) / (len(known) + 1))
            if field.law == "real":
                atoms = torch.tensor(field.images, dtype=torch.float64)
                equal = known[:, None] == atoms
                counts = torch.cat([equal.sum(0).double(), (~equal.any(1)).sum()[None].double()])
                masses.append(_smoothed(counts, len(known)))
                normals.append(_moments(known[~equal.any(1)]))
                continue
            counts = torch.bincount(known.long(), minlength=field.levels or 1).double()
            if field.law == "codes":
                masses.append(_smoothed(counts, len(known)))
            else:
                masses.append(counts / max(1, len(known)))
            normals.append(_moments(_curved(field, known)) if field.law != "codes" else known.new_tensor([0.0, 1.0]))
        return cls(preparation, tuple(masses), torch.stack(normals), missing, torch.stack(new))

    def log_prob(self, raw: Float[Tensor, " batch fields"]) -> Tensor:
        """log p of each field in nats of the data, (batch, fields); 0 for a missing cell that is no value."""
        x, volume = self.preparation(raw).double(), self.preparation.log_volume_by_field(raw)
        found = torch.stack([self._present(x[:, place], place) for place in range(x.shape[1])], 1) + volume
        present = found + (1 - self.missing).log()
        absent = torch.where(self.missing > 0, self.missing.log(), 0).expand_as(x)
        return torch.where(x.isnan(), absent, present)

    def _present(self, x: Tensor, place: int) -> Tensor:
        """log p of the present cells of a field, with any number for missing ones."""
        field, masses, filled = self.preparation.fields[place], self.masses[place], x.nan_to_num()
        mean, deviation = self.normals[place]
        if field.law == "codes":
            return masses[filled.long()]
        if field.law != "real":
            seen = torch.where(filled < len(masses), masses[filled.long().clamp(max=len(masses) - 1)], 0)
            above = (_curved(field, filled + 0.5) - mean) / deviation
            below = (_curved(field, filled - 0.5) - mean) / deviation
            above = torch.where(filled + 1 == (field.levels or math.inf), torch.inf, above)
            below = torch.where(filled == 0, -torch.inf, below)
            # the difference of two upper tails keeps its digits far above the mean, that of lower tails far below it
            upper = torch.special.ndtr(-below) - torch.special.ndtr(-above)
            lower = torch.special.ndtr(above) - torch.special.ndtr(below)
            new = self.new[place]
            return ((1 - new) * seen + new * torch.where(below > 0, upper, lower)).clamp(min=SMALLEST).log()
        density = -0.5 * ((filled - mean) / deviation).square() - deviation.log() - LOG_SQRT_TWO_PI + masses[-1]
        for image, mass in zip(field.images, masses.tolist(), strict=False):
            density = torch.where(filled == image, mass, density)
        return density


def _smoothed(counts: Float[Tensor, " values"], rows: int) -> Tensor:
    """Log-frequencies, smoothed by one row that is uniform over the values."""
    return ((counts + 1 / len(counts)) / (rows + 1)).log()


def _curved(field: PreparedField, x: Float[Tensor, " count"]) -> Tensor:
    """T(x) of whole numbers and counts."""
    assert field.curve is not None
    return Curves([field.curve])(x[:, None].double())[:, 0]


def _moments(values: Float[Tensor, " count"]) -> Tensor:
    """Mean and standard deviation; 0 and 1 for less than two values or equal ones."""
    if len(values) < 2 or float(values.std()) == 0:
        return values.new_tensor([float(values.mean()) if len(values) else 0.0, 1.0])
    return torch.stack([values.mean(), values.std()])
