"""A score of unusual rows, by exact densities of the rows at several scales."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.errors import InputError
from jensen.gaussian import MultivariateGaussian
from jensen.mixture.kernels import RIDGE, KernelDensity


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
    """One density of rows, with the mean and the standard deviation of log p over training rows."""

    density: KernelDensity | MultivariateGaussian
    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, density: KernelDensity | MultivariateGaussian, log_prob: Float[Tensor, " rows"]) -> "View":
        """The view by `density`; `log_prob` are values for training rows."""
        scale = log_prob.std(correction=0)
        return cls(density, log_prob.mean(), torch.where(scale > 0, scale, 1))

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """(log p - mean) / scale."""
        return (self.density.log_prob(rows) - self.mean) / self.scale


@dataclass(frozen=True, eq=False)
class Novelty:
    """The mean over three densities of standardised log p(x): low for an unusual row.

    The densities are `local`, a `KernelDensity` of standardised columns; `compressed`, a `KernelDensity` of
    sign(x) log(1 + |x|) of standardised columns, in which heavy tails are short; and `whole`, one Gaussian (1.6) of all
    standardised columns. From every log p its mean over training rows is subtracted, and the difference is divided by
    the standard deviation, so that each density counts the same. A kernel density leaves out the row's own kernel.
    The score has no unit, and is no log-density: for densities in the units of the data see `KernelDensity`.
    """

    columns: Standardisation
    short_columns: Standardisation
    local: View
    compressed: View
    whole: View

    @classmethod
    def fit(cls, rows: Float[Tensor, "n d"], *, seed: int = 0) -> "Novelty":
        """Fit to training rows, of which few are unusual. Raises `InputError` as `KernelDensity.fit` does."""
        if rows.ndim != 2 or len(rows) < 2 or not bool(rows.isfinite().all()):
            raise InputError(
                f"rows of shape {tuple(rows.shape)} for a novelty score: expected (N, d) with N >= 2, and finite "
                "numbers; leave out rows with missing cells, or fill the cells in"
            )
        columns = Standardisation.fit(rows)
        plain = columns(rows)
        short_columns = Standardisation.fit(compress(plain))
        views = []
        for standardised in (plain, short_columns(compress(plain))):
            density = KernelDensity.fit(standardised, seed=seed)
            views.append(View.of(density, density.held_out_log_prob(seed)))
        gaussian = _gaussian(plain)
        return cls(columns, short_columns, *views, View.of(gaussian, gaussian.log_prob(plain)))

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The score of each row, (n)."""
        return torch.stack(list(self.by_view(rows).values())).mean(0)

    def by_view(self, rows: Float[Tensor, "n d"]) -> dict[str, Tensor]:
        """Standardised log p of each row by the name of the density."""
        plain = self.columns(rows.to(self.columns.mean))
        short = self.short_columns(compress(plain))
        return {"local": self.local(plain), "compressed": self.compressed(short), "whole": self.whole(plain)}


def compress(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sign(x) log(1 + |x|), elementwise."""
    return x.sign() * x.abs().log1p()


def _gaussian(rows: Float[Tensor, "n d"]) -> MultivariateGaussian:
    centred = rows - rows.mean(0)
    covariance = centred.mT @ centred / len(rows)
    ridge = RIDGE * covariance.trace() / len(covariance) * torch.eye(len(covariance)).to(rows)
    return MultivariateGaussian(rows.mean(0), torch.linalg.cholesky(covariance + ridge))
