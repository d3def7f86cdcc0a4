"""4. Bounds on log p(x), each from Jensen's inequality log E w >= E log w (section 3), with its standard error."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

# ---------------------------------------------------------------------------------------------- free functions


def log_mean_exp(log_weights: Float[Tensor, " draws batch"]) -> Float[Tensor, " batch"]:
    """log (1/K) Σ_k w_k, without overflow.

    >>> log_mean_exp(torch.tensor([[-1000.0], [-1000.0]]))
    tensor([-1000.])
    """
    return log_weights.logsumexp(0) - math.log(log_weights.shape[0])


# ---------------------------------------------------------------------------------------------- the bounds


@dataclass(frozen=True, eq=False)
class Elbo:
    """The evidence lower bound (4.4), nats per example, higher is better; never negated, never reweighted.

    `reconstruction` is E_q log p(x|z); `rates` are the KL terms by name, each >= 0, that are subtracted (4.6), (5.11).
    All have shape (batch). `standard_error` is the Monte-Carlo error of `value` over the draws from q,
    None where a single draw was made.

    >>> Elbo(torch.tensor([-80.0]), {"rate": torch.tensor([20.0])}).value
    tensor([-100.])
    """

    reconstruction: Float[Tensor, " batch"]
    rates: Mapping[str, Float[Tensor, " batch"]]
    standard_error: Float[Tensor, " batch"] | None = None

    @property
    def value(self) -> Tensor:
        """reconstruction - Σ rates, shape (batch)."""
        return self.reconstruction - sum(self.rates.values())

    @property
    def terms(self) -> dict[str, Tensor]:
        """Every term by name, signed so that they add up to `value`."""
        return {"reconstruction": self.reconstruction, **{name: -rate for name, rate in self.rates.items()}}

    @classmethod
    def from_draws(
        cls, reconstruction: Float[Tensor, " draws batch"], rates: Mapping[str, Float[Tensor, " batch"]]
    ) -> Self:
        """Average over draws of z; the rates are exact (closed form), so the error is the reconstruction's."""
        draws = reconstruction.shape[0]
        error = reconstruction.std(0) / math.sqrt(draws) if draws > 1 else None
        return cls(reconstruction.mean(0), rates, error)


@dataclass(frozen=True, eq=False)
class ImportanceWeightedBound:
    """L_K = log (1/K) Σ_k w_k, w_k = p(x, z_k) / q(z_k|x) (4.9), as running sums, so that K draws never meet in memory.

    E L_K rises with K from the ELBO (K = 1) to log p(x). All sums have shape (batch). `+` merges further draws of the
    same examples, `concatenate` puts other examples beside them.

    >>> ImportanceWeightedBound.from_log_weights(torch.tensor([[1.0], [3.0]]).log()).value.exp()
    tensor([2.0000], dtype=torch.float64)
    """

    draws: int
    log_sum: Float[Tensor, " batch"]  # log Σ w
    log_sum_of_squares: Float[Tensor, " batch"]  # log Σ w²
    sum_of_logs: Float[Tensor, " batch"]  # Σ log w

    @classmethod
    def from_log_weights(cls, log_weights: Float[Tensor, " draws batch"]) -> Self:
        """The bound over one chunk of draws; summed in float64, since K may be large."""
        wide = log_weights.double()
        return cls(wide.shape[0], wide.logsumexp(0), (2 * wide).logsumexp(0), wide.sum(0))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The bounds of several batches of examples, all with the same number of draws, as one batch."""
        return cls(
            parts[0].draws,
            torch.cat([part.log_sum for part in parts]),
            torch.cat([part.log_sum_of_squares for part in parts]),
            torch.cat([part.sum_of_logs for part in parts]),
        )

    def __add__(self, other: "ImportanceWeightedBound") -> "ImportanceWeightedBound":
        return ImportanceWeightedBound(
            self.draws + other.draws,
            torch.logaddexp(self.log_sum, other.log_sum),
            torch.logaddexp(self.log_sum_of_squares, other.log_sum_of_squares),
            self.sum_of_logs + other.sum_of_logs,
        )

    @property
    def value(self) -> Tensor:
        """L_K in nats, shape (batch)."""
        return self.log_sum - math.log(self.draws)

    @property
    def elbo(self) -> Tensor:
        """E log w from the same draws: the ELBO (4.4), shape (batch)."""
        return self.sum_of_logs / self.draws

    @property
    def jensen_gap(self) -> Tensor:
        """log E w - E log w >= 0 (3.2) from the same draws, shape (batch): what the ELBO loses against L_K."""
        return self.value - self.elbo

    @property
    def effective_sample_size(self) -> Tensor:
        """(Σ w)² / Σ w², between 1 and K (Kong 1992), shape (batch)."""
        return torch.exp(2 * self.log_sum - self.log_sum_of_squares)

    @property
    def standard_error(self) -> Tensor:
        """Monte-Carlo error of `value` by the delta method, sqrt((K/ESS - 1) / (K - 1)), shape (batch); nan for K = 1.

        Var log ŵ ≈ Var w / (K (E w)²), and (K/ESS - 1) K / (K - 1) is the sample variance of w over its squared mean.
        It is itself untrustworthy where the effective sample size is near one.
        """
        relative_variance = (self.draws / self.effective_sample_size - 1).clamp(min=0)
        return (relative_variance / (self.draws - 1)).sqrt()  # 0 / 0 where K = 1


# ---------------------------------------------------------------------------------------------- estimates


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error over `count` independent values.

    >>> print(Estimate.of(torch.tensor([1.0, 2.0, 3.0])))
    2 ± 0.58
    """

    mean: float
    standard_error: float
    count: int

    @classmethod
    def of(cls, values: Float[Tensor, " count"]) -> Self:
        """The mean of one value per example; the error sd/sqrt(count) holds the examples' spread and their noise."""
        wide, count = values.double(), values.numel()
        error = (wide.std() / math.sqrt(count)).item() if count > 1 else math.nan
        return cls(wide.mean().item(), error, count)

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.standard_error:.2g}"
