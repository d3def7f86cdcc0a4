"""A score of unusual rows, by exact densities of the rows."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.errors import InputError
from jensen.mixture.kernels import KernelDensity


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
    """A density of rows, with the mean and the standard deviation of log p over training rows, each held out."""

    density: KernelDensity
    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, rows: Float[Tensor, "n d"], seed: int) -> "View":
        """The kernel density of `rows`; a row's own kernel does not count in the mean and the standard deviation."""
        density = KernelDensity.fit(rows, seed=seed)
        log_prob = density.held_out_log_prob(seed)
        scale = log_prob.std(correction=0)
        return cls(density, log_prob.mean(), torch.where(scale > 0, scale, 1))

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """(log p - mean) / scale."""
        return (self.density.log_prob(rows) - self.mean) / self.scale


@dataclass(frozen=True, eq=False)
class Novelty:
    """The mean of standardised log p(x) over two densities: low for an unusual row.

    `plain` is a `KernelDensity` of standardised columns, and `compressed` a `KernelDensity` of sign(x) log(1 + |x|) of
    standardised columns, in which heavy tails are short. From each log p its mean over training rows is subtracted, and
    the difference is divided by the standard deviation, so that both densities count the same. The score has no unit
    and is no log-density; for log p(x) see `KernelDensity`.
    """

    columns: Standardisation
    compressed_columns: Standardisation
    plain: View
    compressed: View

    @classmethod
    def fit(cls, rows: Float[Tensor, "n d"], *, seed: int = 0) -> "Novelty":
        """Fit to training rows, of which few are unusual.

        Raises `InputError` for missing cells, and as `KernelDensity.fit` does.
        """
        if bool(rows.isnan().any()):
            raise InputError("rows with missing cells (NaN) for a novelty score: leave them out, or fill the cells in")
        columns = Standardisation.fit(rows)
        standardised = columns(rows)
        compressed_columns = Standardisation.fit(compress(standardised))
        plain = View.fit(standardised, seed)
        return cls(columns, compressed_columns, plain, View.fit(compressed_columns(compress(standardised)), seed))

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The score of each row, (n)."""
        views = self.by_view(rows)
        return (views["plain"] + views["compressed"]) / 2

    def by_view(self, rows: Float[Tensor, "n d"]) -> dict[str, Tensor]:
        """Standardised log p of each row, (n), by the name of the density."""
        standardised = self.columns(rows.to(self.columns.mean))
        compressed = self.compressed_columns(compress(standardised))
        return {"plain": self.plain(standardised), "compressed": self.compressed(compressed)}


def compress(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sign(x) log(1 + |x|), elementwise."""
    return x.sign() * x.abs().log1p()
