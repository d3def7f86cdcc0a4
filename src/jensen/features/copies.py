"""The check for copies: distances from samples to training examples, compared with distances from held-out data."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from jensen.features.jackknife import Interval
from jensen.features.neighbours import comparable, nearest
from jensen.randomness import Stream, generator
from jensen.records import Value

PLAUSIBLE = 0.01  # share of held-out examples that are as near to a training example as a near copy
RESAMPLES = 1000
BOOTSTRAP = 3  # the purpose of the bootstrap's random numbers
TAIL = 0.025  # probability beyond either end of a 95 % interval
WEAK, CLEAR = 0.05, 0.01  # significance levels of both tests together
QUANTILES = 2000  # number of quantiles of the threshold's distribution in averages over the threshold


@dataclass(frozen=True, eq=False)
class Nearest:
    """The distance of each sample (n), and of each held-out example (m), to the nearest training example, float64.

    `row` (n) is the index of the nearest training example of each sample. The memorisation check uses only this object.
    """

    samples: Float[Tensor, " samples"]
    row: Int[Tensor, " samples"]
    held_out: Float[Tensor, " held_out"]

    @classmethod
    def of(cls, samples: Tensor, train: Tensor, held_out: Tensor) -> Self:
        """The distances between features (count, dims).

        `train` must be exactly the model's training examples. Memory is bounded. Raises `InputError` for an empty set,
        different dims, and numbers that are not finite.
        """
        train, samples, held_out = comparable("a search for memorised examples", 1, train, samples, held_out)
        distances, row = nearest(samples, train)
        return cls(distances, row, nearest(held_out, train)[0])


class Memorisation(Value):
    """A test whether samples are nearer to the training examples than held-out examples are; intervals are 95 %."""

    samples: int
    held_out: int
    closer: Interval
    """P(a sample's distance to the training examples is less than a held-out example's); ties count half.

    It is 1/2 for fresh data, and 1 if every sample is nearer than every held-out example. The interval is by bootstrap.
    """
    p_value: float
    """The p-value of the one-sided Mann-Whitney test that `closer` is above 1/2."""
    near_copies: Interval
    """The share of samples that are nearer than all held-out examples except the nearest share `expected` of them.

    The interval is exact for a mixture of copies and fresh samples; it lies above `expected` if `near_copies_p_value`
    is below 0.025.
    """
    expected: float
    """The expected share of near copies in fresh data: 1 %, or more if there are few held-out examples."""
    near_copies_p_value: float
    """The exact probability of at least this many near copies in fresh data."""
    threshold: float
    """The distance below which a sample is a near copy."""

    @property
    def adjusted_p_value(self) -> float:
        """The p-value of both tests together: twice the smaller one, at most 1 (Bonferroni)."""
        return min(1.0, 2 * min(self.p_value, self.near_copies_p_value))

    @property
    def sign(self) -> Literal["none", "weak", "clear"]:
        """The verdict of all measures of this record: how clearly the model has memorised training examples.

        The verdict is "clear" if `adjusted_p_value` is at most 0.01. Otherwise it is "weak" if `adjusted_p_value` is at
        most 0.05, or if an interval lies above the value of fresh data. Otherwise it is "none". Fresh data give "clear"
        in about 1 % and "weak" in about 5 % of cases (docs/errors.md).
        """
        if self.adjusted_p_value <= CLEAR:
            return "clear"
        above = self.closer.low > 0.5 or self.near_copies.low > self.expected
        return "weak" if above or self.adjusted_p_value <= WEAK else "none"


def memorisation(distances: Nearest, seed: int = 0) -> Memorisation:
    """Check whether the model has memorised training examples, by distances to the training examples.

    The null hypothesis of both p-values is that samples are distributed like held-out data. Given the training
    examples, all distances are independent, and the distances of fresh samples have the same distribution as the
    distances of held-out examples. So tests by ranks are valid for any features, and the bootstrap over distances is
    valid for `closer`. If a model makes copies and also bad samples, the average `closer` can miss the copies;
    `near_copies` shows them. Sources: Meehan, Chaudhuri and Dasgupta 2020, section 3 (closer); Rosenbaum 1954
    (exceedances).
    """
    from scipy.stats import mannwhitneyu

    of_samples, of_held_out = distances.samples, distances.held_out
    n, m = len(of_samples), len(of_held_out)
    rank = max(1, int(PLAUSIBLE * (m + 1)))
    values, place = torch.cat([of_samples, of_held_out]).unique(return_inverse=True)
    ranks = _Ranks(place[:n], place[n:], len(values), rank)
    closer, copies = ranks.of(torch.arange(n), torch.arange(m))
    test = mannwhitneyu(of_samples.numpy(), of_held_out.numpy(), alternative="less", method="asymptotic")
    return Memorisation(
        samples=n,
        held_out=m,
        closer=ranks.interval(closer, seed),
        p_value=float(test.pvalue),
        near_copies=near_copies_interval(round(copies * n), n, m, rank),
        expected=rank / (m + 1),
        near_copies_p_value=_exceedance(round(copies * n), n, m, rank),
        threshold=of_held_out.kthvalue(rank).values.item(),
    )


def _exceedance(count: int, n: int, m: int, rank: int) -> float:
    """P(at least `count` of n values lie below the rank-th smallest of m values), all from one continuous law.

    The event occurs if fewer than `rank` of the count + rank - 1 smallest of all n + m values are among the m values.
    """
    from scipy.stats import hypergeom

    return 1.0 if count == 0 else float(hypergeom.cdf(rank - 1, n + m, m, count + rank - 1))


def near_copies_interval(count: int, n: int, m: int, rank: int) -> Interval:
    """The share of near copies, `count` of n samples, with a 95 % interval.

    The interval has all shares that are not rejected at 2.5 % per side. The threshold is the `rank`-th smallest of m
    distances. The share g of fresh data below the threshold has the distribution Beta(rank, m - rank + 1) with the mean
    `expected` = rank / (m + 1). A share s above `expected` is modelled as a mixture of copies and fresh samples: given
    g, a sample is near with probability 1 - a (1 - g). A share s below `expected` is modelled as a mixture of fresh
    samples and samples that are never near: given g, a sample is near with probability a g. The weight a is such that
    the mean over g is s. A bootstrap would ignore the randomness of the threshold, so a bootstrap interval would be too
    narrow.
    """
    from scipy.optimize import brentq
    from scipy.stats import beta, binom

    expected = rank / (m + 1)
    g = beta.ppf((np.arange(QUANTILES) + 0.5) / QUANTILES, rank, m - rank + 1)

    def at_least(share: float, least: int) -> float:
        """P(at least `least` near copies | share)."""
        near = 1 - (1 - share) / (1 - expected) * (1 - g) if share > expected else share / expected * g
        return float(binom.sf(least - 1, n, near.clip(0, 1)).mean())

    low, high = 0.0, 1.0
    if count > 0:
        low = brentq(lambda share: at_least(share, count) - TAIL, 0, 1)
    if count < n:
        high = brentq(lambda share: 1 - at_least(share, count + 1) - TAIL, 0, 1)
    return Interval(value=count / n, low=low, high=high)


@dataclass(frozen=True, eq=False)
class _Ranks:
    """Ranks of samples and held-out examples among the `values` different distances; rank 0 is the nearest."""

    samples: Int[Tensor, " samples"]
    held_out: Int[Tensor, " held_out"]
    values: int
    rank: int

    def of(self, samples: Tensor, held_out: Tensor) -> tuple[float, float]:
        """The statistics `closer` and `near_copies` of the given rows of samples and of held-out examples."""
        found = self.samples[samples].bincount(minlength=self.values)
        expected = self.held_out[held_out].bincount(minlength=self.values)
        below = found.cumsum(0) - found
        wins = (expected * below + 0.5 * expected * found).sum().item()  # held-out examples beaten, by place
        place = torch.searchsorted(expected.cumsum(0), self.rank)  # of the rank-th smallest held-out distance
        return wins / (len(samples) * len(held_out)), below[place].item() / len(samples)

    def interval(self, closer: float, seed: int) -> Interval:
        """The bootstrap interval of `closer`: the middle 95 % over resampled samples and held-out examples."""
        source = generator(seed, Stream.EVALUATION, BOOTSTRAP)
        n, m = len(self.samples), len(self.held_out)
        drawn = torch.tensor(
            [
                self.of(torch.randint(n, (n,), generator=source), torch.randint(m, (m,), generator=source))[0]
                for _ in range(RESAMPLES)
            ],
            dtype=torch.float64,
        )
        low, high = drawn.quantile(drawn.new_tensor([TAIL, 1 - TAIL])).tolist()
        return Interval(value=closer, low=low, high=high)
