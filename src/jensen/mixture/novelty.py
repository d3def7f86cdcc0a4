"""A score of unusual rows, by exact densities of the rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.errors import InputError
from jensen.mixture.kernels import Covariances, KernelDensity, column_variances, local_covariances

KERNELS: Mapping[str, Covariances] = {"local": local_covariances, "columns": column_variances}


@dataclass(frozen=True, eq=False)
class Standardisation:
    """(x - mean) / scale for each column; a constant column has scale 1."""

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]

    @classmethod
    def fit(cls, rows: Float[Tensor, "n d"]) -> "Standardisation":
        """By the mean and the standard deviation of each column."""
        scale = rows.std(0, correction=0)
        return cls(rows.mean(0), torch.where(scale > 0, scale, 1))

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return (rows - self.mean) / self.scale


@dataclass(frozen=True, eq=False)
class View:
    """A density of rows, with the mean and the standard deviation of log p over training rows, each held out.

    `held_out` are these log p, standardised, of up to 2,000 random training rows.
    """

    density: KernelDensity
    mean: Tensor
    scale: Tensor
    held_out: Float[Tensor, " held_out"]

    @classmethod
    def fit(cls, rows: Float[Tensor, "n d"], covariances: Covariances, seed: int) -> "View":
        """The kernel density of `rows`; a row's own kernel does not count in the mean and the standard deviation."""
        density = KernelDensity.fit(rows, covariances, seed=seed)
        log_prob = density.held_out_log_prob(seed)
        mean, deviation = log_prob.mean(), log_prob.std(correction=0)
        scale = torch.where(deviation > 0, deviation, 1)
        return cls(density, mean, scale, (log_prob - mean) / scale)

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """(log p - mean) / scale."""
        return (self.density.log_prob(rows) - self.mean) / self.scale


@dataclass(frozen=True, eq=False)
class Novelty:
    """The mean of standardised log p(x) over four densities: low for an unusual row.

    The densities are `KernelDensity`, of two kinds in two coordinates each. The kernels have `local_covariances`, which
    know what columns go together, or `column_variances`. The coordinates are standardised columns, or
    sign(x) log(1 + |x|) of standardised columns, in which heavy tails are short. From each log p its mean over training
    rows is subtracted, and the difference is divided by the standard deviation, so that all densities count the same.
    The score has no unit and is no log-density; for log p(x) see `KernelDensity`.
    """

    columns: Standardisation
    compressed_columns: Standardisation
    views: Mapping[tuple[str, str], View]

    @classmethod
    def fit(cls, rows: Float[Tensor, "n d"], *, seed: int = 0) -> "Novelty":
        """Fit to training rows, of which few are unusual.

        Raises `InputError` for missing cells, and as `KernelDensity.fit` does.
        """
        if bool(rows.isnan().any()):
            raise InputError("rows with missing cells (NaN) for a novelty score: leave them out, or fill the cells in")
        columns = Standardisation.fit(rows)
        compressed_columns = Standardisation.fit(compress(columns(rows)))
        unfitted = cls(columns, compressed_columns, {})
        views = {
            (kernels, name): View.fit(part, covariances, seed)
            for kernels, covariances in KERNELS.items()
            for name, part in unfitted.coordinates(rows).items()
        }
        return cls(columns, compressed_columns, views)

    @property
    def held_out(self) -> Float[Tensor, " held_out"]:
        """The scores of up to 2,000 random training rows, each without its own kernels: those of fresh usual rows."""
        return torch.stack([view.held_out for view in self.views.values()]).mean(0)

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The score of each row, (n)."""
        return torch.stack(list(self.by_view(rows).values())).mean(0)

    def by_view(self, rows: Float[Tensor, "n d"]) -> dict[tuple[str, str], Tensor]:
        """Standardised log p of each row, (n), by the names of the kernels and of the coordinates."""
        parts = self.coordinates(rows.to(self.columns.mean))
        return {(kernels, name): view(parts[name]) for (kernels, name), view in self.views.items()}

    def coordinates(self, rows: Float[Tensor, "n d"]) -> dict[str, Tensor]:
        """The rows in both coordinates, by name, each (n, d)."""
        standardised = self.columns(rows)
        return {"plain": standardised, "compressed": self.compressed_columns(compress(standardised))}


def compress(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sign(x) log(1 + |x|), elementwise."""
    return x.sign() * x.abs().log1p()
