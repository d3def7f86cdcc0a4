"""3. Bounds on log p(x), each from Jensen's inequality log E w >= E log w (section 3), with its standard error."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from jensen.pareto import UNTRUSTED, pareto_shape, tail_length

WIDENING = 2.0  # of the error of L_K at small effective sample sizes, calibrated by benchmarks/error_bars.py
FEW = 3.0  # values that carry a spread: fewer are a few

# ---------------------------------------------------------------------------------------------- free functions


def root_mean_square(errors: Float[Tensor, " count"]) -> float:
    """The Monte-Carlo error of a typical example: sqrt(mean s_i²) over the standard errors s_i of all examples.

    The estimate s_i² is unbiased, but s_i is too low on average. For normal samples, the mean of s_i is too low by the
    factor c4, which is 0.80 for 2 draws and 0.92 for 4 draws. The result is NaN if an s_i is NaN, as for a single draw.

    >>> root_mean_square(torch.tensor([3.0, 4.0, 0.0, 0.0]))
    2.5
    """
    return errors.double().square().mean().sqrt().item()


def log_mean_exp(log_weights: Float[Tensor, " draws batch"]) -> Float[Tensor, " batch"]:
    """log (1/K) Σ_k w_k over the K draws, without overflow.

    >>> log_mean_exp(torch.tensor([[-1000.0], [-1000.0]]))
    tensor([-1000.])
    """
    return log_weights.logsumexp(0) - math.log(log_weights.shape[0])


# ---------------------------------------------------------------------------------------------- the bounds


@dataclass(frozen=True, eq=False)
class Profile:
    """The terms of the bound (5.11) of a chain x_1 .. x_T by noise level, in the order of increasing noise.

    Level 0 is the term L_0 of step 1. Each further level is a run of consecutive steps within 2..T; `last_step`
    (levels) is the last step of each level. `nats` (levels + 1, batch) is the cost of each level for each example, with
    L_T in the last row. `squared_error` (levels, batch) is the mean of ||x_0 - x̂||² / D over the steps of each level,
    where D is the number of dimensions of x. `log_snr` (T + 1) is the log-SNR at points 0 .. T of the chain; it is inf
    at point 0, the data. All tensors are on the CPU.
    """

    log_snr: Float[Tensor, " points"]
    last_step: Int[Tensor, " levels"]
    nats: Float[Tensor, " terms batch"]
    squared_error: Float[Tensor, " levels batch"]

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The profiles of several batches of examples along the same chain as one batch."""
        nats, errors = torch.cat([p.nats for p in parts], 1), torch.cat([p.squared_error for p in parts], 1)
        return cls(parts[0].log_snr, parts[0].last_step, nats, errors)

    @classmethod
    def average(cls, parts: Sequence[Self]) -> Self:
        """The mean over several draws for the same examples."""
        nats, errors = torch.stack([p.nats for p in parts]), torch.stack([p.squared_error for p in parts])
        return cls(parts[0].log_snr, parts[0].last_step, nats.mean(0), errors.mean(0))

    @property
    def steps(self) -> Tensor:
        """The number of steps of each level, (levels)."""
        return self.last_step.diff(prepend=torch.zeros(1, dtype=torch.long))

    @property
    def root_mean_squared_error(self) -> Tensor:
        """The root mean square of x_0 - x̂ over dimensions and examples, for each level (levels), in units of x."""
        return self.squared_error.mean(1).sqrt()

    def rate_distortion(self) -> tuple[Tensor, Tensor]:
        """The rate and the distortion at several points from noise to data.

        The rate is the mean number of nats until x_t is known; the distortion is the error of x̂ given x_t. The last
        point is x_0 itself, with all nats and error 0. In a level of n steps, x_t is known after (n - 1) / 2n of the
        nats of the level, on average. Source: Ho et al. 2020, section 4.3.
        """
        nats, steps = self.nats.mean(1), self.steps
        before = nats.flip(0).cumsum(0).flip(0)[1:]  # L_T and all noisier levels
        rate = before + nats[:-1] * (steps - 1) / (2 * steps)
        total, nothing = nats.sum().reshape(1), torch.zeros(1, dtype=nats.dtype)
        return torch.cat([rate.flip(0), total]), torch.cat([self.root_mean_squared_error.flip(0), nothing])


@dataclass(frozen=True, eq=False)
class Elbo:
    """The evidence lower bound (4.4) in nats per example, never negated and never reweighted; higher is better.

    `reconstruction` is E_q log p(x|z). `rates` are the subtracted terms by name. Usually they are KL terms (4.6),
    (5.11), each >= 0. For a prior that is itself a model, they are the terms of E_q [log q(z|x) - bound of log p(z)],
    and a term may have any sign. All tensors have shape (batch). `standard_error` is the Monte-Carlo error of `value`
    over the draws from q; it is None for a single draw. For a model with noise levels, `profile` has the terms of the
    bound by noise level.

    >>> Elbo(torch.tensor([-80.0]), {"rate": torch.tensor([20.0])}).value
    tensor([-100.])
    """

    reconstruction: Float[Tensor, " batch"]
    rates: Mapping[str, Float[Tensor, " batch"]]
    standard_error: Float[Tensor, " batch"] | None = None
    profile: Profile | None = None

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
        cls, reconstruction: Float[Tensor, " draws batch"], rates: Mapping[str, Float[Tensor, "*draws batch"]]
    ) -> Self:
        """The average over draws of z.

        A rate of shape (batch) is exact; a rate of shape (draws, batch) has one value per draw. Each draw gives one
        value, the reconstruction minus the rates. The standard error is that of the mean of these values.
        """
        draws, drawn = reconstruction.shape[0], {name: rate for name, rate in rates.items() if rate.ndim > 1}
        error = (reconstruction - sum(drawn.values())).std(0) / math.sqrt(draws) if draws > 1 else None
        return cls(reconstruction.mean(0), {k: v.mean(0) if k in drawn else v for k, v in rates.items()}, error)


@dataclass(frozen=True, eq=False)
class ImportanceWeightedBound:
    """L_K = log (1/K) Σ_k w_k, w_k = p(x, z_k) / q(z_k|x) (4.9), by running sums, so memory does not grow with K.

    E L_K rises with K from the ELBO (K = 1) to log p(x). All sums have shape (batch). `+` adds further draws for the
    same examples, `concatenate` adds further examples. `largest` has the largest log-weights in descending order, for
    `pareto_shape`; their number is the number of weights in the tail of all K draws.

    >>> ImportanceWeightedBound.from_log_weights(torch.tensor([[1.0], [3.0]]).log()).value.exp()
    tensor([2.0000], dtype=torch.float64)
    """

    draws: int
    log_sum: Float[Tensor, " batch"]  # log Σ w
    log_sum_of_squares: Float[Tensor, " batch"]  # log Σ w²
    sum_of_logs: Float[Tensor, " batch"]  # Σ log w
    largest: Float[Tensor, " kept batch"]  # log w
    keep: int
    """The most log-weights in `largest`."""

    @classmethod
    def from_log_weights(cls, log_weights: Float[Tensor, " draws batch"], of: int | None = None) -> Self:
        """The bound over one chunk of draws; `of` is K, the number of all draws (default: the size of the chunk)."""
        wide = log_weights.double()
        keep = tail_length(of or wide.shape[0]) + 1
        largest = wide.topk(min(keep, wide.shape[0]), dim=0).values
        return cls(wide.shape[0], wide.logsumexp(0), (2 * wide).logsumexp(0), wide.sum(0), largest, keep)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The bounds of several batches of examples, all with the same number of draws, as one batch."""
        return cls(
            parts[0].draws,
            torch.cat([part.log_sum for part in parts]),
            torch.cat([part.log_sum_of_squares for part in parts]),
            torch.cat([part.sum_of_logs for part in parts]),
            torch.cat([part.largest for part in parts], dim=1),
            parts[0].keep,
        )

    def __add__(self, other: "ImportanceWeightedBound") -> "ImportanceWeightedBound":
        largest, keep = torch.cat([self.largest, other.largest]), max(self.keep, other.keep)
        return ImportanceWeightedBound(
            self.draws + other.draws,
            torch.logaddexp(self.log_sum, other.log_sum),
            torch.logaddexp(self.log_sum_of_squares, other.log_sum_of_squares),
            self.sum_of_logs + other.sum_of_logs,
            largest.topk(min(keep, len(largest)), dim=0).values,
            keep,
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
        """log E w - E log w >= 0 (3.2) from the same draws, shape (batch): the distance from the ELBO to L_K."""
        return self.value - self.elbo

    @property
    def effective_sample_size(self) -> Tensor:
        """(Σ w)² / Σ w², between 1 and K (Kong 1992), shape (batch)."""
        return torch.exp(2 * self.log_sum - self.log_sum_of_squares)

    @property
    def standard_error(self) -> Tensor:
        """Monte-Carlo error of `value`, shape (batch), by a widened delta method; nan for K = 1.

        error² = (K/ESS - 1) / (K - 1) (1 + 2 log(K/ESS) / ESS). ESS is the effective sample size, and ŵ the mean of the
        weights. The first factor is the delta method, Var log ŵ ≈ Var w / (K (E w)²): (K/ESS - 1) K / (K - 1) is the
        sample variance of w divided by the squared mean of w. The first factor alone is too small if few weights carry
        the sum. At an ESS of 5 it gives about half of the true spread. The second factor is calibrated on log-normal
        weights, for which log(K/ESS) estimates the variance of log w. docs/errors.md has the coverage.
        """
        size = self.effective_sample_size.clamp(max=self.draws)
        relative_variance = (self.draws / size - 1) / (self.draws - 1)  # 0 / 0 where K = 1
        return (relative_variance * (1 + WIDENING * (self.draws / size).log() / size)).sqrt()

    @property
    def trusted(self) -> Tensor:
        """Whether `value` can be trusted as log p(x) with `standard_error` as its whole error; bool, shape (batch).

        Three conditions must hold: the `jensen_gap` is at most a third of log K, the effective sample size is at least
        2, and the `pareto_shape`, if known, is at most 0.7. About exp(KL(p(z|x) || q)) draws are needed (Chatterjee and
        Diaconis 2018). The gap estimates KL(q || p(z|x)), which equals KL(p(z|x) || q) for log-normal weights. The gap
        is the main condition. The other two conditions depend on the largest weights only, and can mislead: if K is
        much too small, examples whose draws missed the posterior have the largest effective sample sizes.
        """
        enough = self.jensen_gap <= math.log(self.draws) / 3
        return enough & (self.effective_sample_size >= 2) & ~(self.pareto_shape > UNTRUSTED)

    @property
    def pareto_shape(self) -> Tensor:
        """The Pareto shape k of the tail of the weights, shape (batch); do not trust L_K if k is above 0.7.

        The shape is NaN for fewer than 21 draws, and for a merged bound whose chunks were made without `of`. Source:
        Vehtari et al. 2024.
        """
        return pareto_shape(self.largest, self.draws)


@dataclass(frozen=True, eq=False)
class AnnealedEstimate:
    """log p(x) by annealed importance sampling (Neal 2001): log (1/C) Σ_c w_c over C chains, one value per example.

    `weights` are the weights of the chains, with E w = p(x), so that `value` is a stochastic lower bound: E value <=
    log p(x). For chains that run backwards from the posterior, E w = 1 / p(x), `sign` is -1, and `value` is a
    stochastic upper bound. `acceptance` (batch) is the mean probability of acceptance over transitions and chains.
    `step` (batch) is the mean leapfrog step.
    """

    weights: ImportanceWeightedBound
    acceptance: Float[Tensor, " batch"]
    step: Float[Tensor, " batch"]
    sign: int = 1

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The estimates of several batches of examples as one batch."""
        weights = ImportanceWeightedBound.concatenate([part.weights for part in parts])
        acceptance, step = torch.cat([part.acceptance for part in parts]), torch.cat([part.step for part in parts])
        return cls(weights, acceptance, step, parts[0].sign)

    @property
    def value(self) -> Tensor:
        """The estimate in nats, (batch)."""
        return self.sign * self.weights.value

    @property
    def standard_error(self) -> Tensor:
        """The Monte-Carlo error (batch) of `value` over the chains, by the delta method; nan for a single chain."""
        return self.weights.standard_error

    @property
    def trusted(self) -> Tensor:
        """Whether `value` can be trusted as log p(x), by `ImportanceWeightedBound.trusted`: bool, (batch)."""
        return self.weights.trusted

    @property
    def effective_sample_size(self) -> Tensor:
        """(Σ w)² / Σ w² over the chains, between 1 and the number of chains, (batch)."""
        return self.weights.effective_sample_size


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
    carriers: float | None = None
    """How many values carry the spread, (Σ d²)² / Σ d⁴ over the deviations d_i: 1 to `count`; None where unknown."""

    @classmethod
    def of(cls, values: Float[Tensor, " count"]) -> Self:
        """The mean of one value per example; its error sd/sqrt(count) covers the spread and the noise of the values."""
        wide, count = values.double(), values.numel()
        if count < 2:
            return cls(wide.mean().item(), math.nan, count)
        error = (wide.std() / math.sqrt(count)).item()
        return cls(wide.mean().item(), error, count, _carriers(wide - wide.mean()))

    @classmethod
    def of_contributions(cls, mean: float, contributions: Float[Tensor, " examples"], count: int) -> Self:
        """A mean over `count` examples whose error is a sum of independent contributions U_i: error² = Σ_i U_i².

        >>> print(Estimate.of_contributions(2.0, torch.tensor([0.3, -0.4]), 2))
        2 ± 0.5
        """
        wide = contributions.double()
        return cls(mean, wide.square().sum().sqrt().item(), count, _carriers(wide))

    @property
    def doubt(self) -> str | None:
        """The reason not to trust the standard error, in a few words; None if there is no such reason.

        A single value has no error. The number of values that carry the spread is (sum d²)² / sum d⁴, where d are the
        deviations from the mean. If it is below min(3, 1 + count / 20), the error is a guess: adding or removing one
        value would change it much. The probability of a false alarm depends on the distribution of the values. For
        normal values the probability is below 0.001 for any count from 10. For exponential values the probability is
        0.03 for 10 values, 0.04 for 20, 0.015 for 50, below 0.002 from 100 on. For log-normal values (sigma = 1) the
        probability is 0.10 for 10 values, 0.19 for 50, 0.04 for 300, below 0.01 from 1000 on. For such log-normal
        values, ± 1.96 errors contain the mean in 80 % of cases at 10 values, 89 % at 50, 93 % at 300 and 95 % at 1000
        (docs/errors.md).
        """
        if self.count < 2:
            return f"{'one value' if self.count else 'no values'}: its error is unknown"
        if self.carriers is None or self.carriers >= min(FEW, 1 + self.count / 20):
            return None
        few = round(self.carriers)
        return f"{few} of {self.count:,} values {'carries' if few == 1 else 'carry'} the spread: do not trust the error"

    @classmethod
    def ratio(cls, values: Float[Tensor, " count"], sizes: Shaped[Tensor, " count"]) -> Self:
        """R = Σ_i y_i / Σ_i n_i: a mean per unit of size, such as bits per observed value.

        y_i are `values` and n_i are `sizes`; the examples are independent. The error is by the delta method: sd(y_i - R
        n_i) / (sqrt(count) mean(n)). For equal sizes it equals the error of `Estimate.of` (Cochran 1977, section 6.3).

        >>> print(Estimate.ratio(torch.tensor([2.0, 4.0, 12.0]), torch.tensor([1, 2, 3])))
        3 ± 0.76
        """
        wide, weights, count = values.double(), sizes.double(), values.numel()
        ratio, size = (wide.sum() / weights.sum()).item(), weights.mean().item()
        deviations = wide - ratio * weights
        if count < 2:
            return cls(ratio, math.nan, count)
        return cls(ratio, (deviations.std() / (math.sqrt(count) * size)).item(), count, _carriers(deviations))

    @classmethod
    def share(cls, hits: Shaped[Tensor, " count"], sizes: Shaped[Tensor, " count"] | None = None) -> Self:
        """The share of hits in all trials of independent examples.

        Example i has h_i hits in n_i = `sizes` trials (default: one trial). The error is the binomial error of `count`
        trials, times sqrt(effect). One success and one failure are added, so that the error is not 0 where all trials
        succeed. The effect Σ_i (h_i - share n_i)² / (count mean(n)² share (1 - share)) is 1 for single trials (Cochran
        1977, section 2.11). For one example, and for a share of 0 or 1, the effect is set to 1.

        >>> print(Estimate.share(torch.ones(98)))
        1 ± 0.01
        """
        found, count = hits.double(), len(hits)
        trials = torch.ones_like(found) if sizes is None else sizes.double()
        if not count:
            return cls(math.nan, math.nan, 0)
        share, size = (found.sum() / trials.sum()).item(), trials.mean().item()
        p = (share * count + 1) / (count + 2)
        variance = p * (1 - p) / count
        if count > 1 and 0 < share < 1:
            spread = (found - share * trials).square().mean().item()
            variance *= spread / (size**2 * share * (1 - share))
        return cls(share, math.sqrt(variance), count)

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.standard_error:.2g}"


def _carriers(deviations: Tensor) -> float | None:
    """(Σ d²)² / Σ d⁴; None if all deviations are 0, or if one is not finite."""
    squares = (deviations / deviations.abs().max()).square()  # scaled, so that no power overflows
    carriers = (squares.sum().square() / squares.square().sum()).item()
    return carriers if math.isfinite(carriers) else None
