"""Are samples copies of training examples? Their distances to the nearest one against those of held-out data."""

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

PLAUSIBLE = 0.01  # of held-out examples lie as near to a training example as a near copy
RESAMPLES = 1000
BOOTSTRAP = 3  # the purpose of random numbers
TAIL = 0.025  # outside either end of a 95 % interval
WEAK, CLEAR = 0.05, 0.01  # levels of both tests together
QUANTILES = 2000  # of the threshold's law, which near copies are averaged over


@dataclass(frozen=True, eq=False)
class Nearest:
    """Distances to the nearest training example: of samples (n) and of held-out examples (m); float64.

    `row` (n) says which training example it is. The memorisation check looks at nothing else.
    """

    samples: Float[Tensor, " samples"]
    row: Int[Tensor, " samples"]
    held_out: Float[Tensor, " held_out"]

    @classmethod
    def of(cls, samples: Tensor, train: Tensor, held_out: Tensor) -> Self:
        """From features (count, dims) of each; the very examples that the model was trained on are `train`.

        Memory is bounded. Raises `InputError` for none of any, other dims, and numbers that are not finite.
        """
        train, samples, held_out = comparable("a search for memorised examples", 1, train, samples, held_out)
        distances, row = nearest(samples, train)
        return cls(distances, row, nearest(held_out, train)[0])


class Memorisation(Value):
    """Whether samples are nearer to the training examples than held-out examples are; 95 % intervals."""

    samples: int
    held_out: int
    closer: Interval
    """P(a sample is nearer to its nearest training example than a held-out one to its own), ties counting half.

    1/2 for fresh data; 1 where every sample is nearer than every held-out example. The interval is the bootstrap's.
    """
    p_value: float
    """Of the one-sided Mann-Whitney test that `closer` is above 1/2."""
    near_copies: Interval
    """The share of samples that are nearer than all but `expected` of the held-out examples.

    The interval is for a mixture of copies and fresh samples, exact: it lies above `expected` where
    `near_copies_p_value` is below 0.025.
    """
    expected: float
    """That share for fresh data: 1 %, or more where there are few held-out examples."""
    near_copies_p_value: float
    """The probability of as many near copies or more among fresh data; exact."""
    threshold: float
    """The distance below which a sample is a near copy."""

    @property
    def adjusted_p_value(self) -> float:
        """Of both tests together: twice the smaller p-value, at most 1 (Bonferroni)."""
        return min(1.0, 2 * min(self.p_value, self.near_copies_p_value))

    @property
    def sign(self) -> Literal["none", "weak", "clear"]:
        """The verdict, from every number above: is there a sign of memorised training examples?

        "clear" where `adjusted_p_value` is at most 0.01, "weak" where it is at most 0.05 or an interval lies above what
        fresh data give, "none" where neither is so. Fresh data are "clear" in about 1 % and "weak" in about 5 % of
        cases (docs/errors.md).
        """
        if self.adjusted_p_value <= CLEAR:
            return "clear"
        above = self.closer.low > 0.5 or self.near_copies.low > self.expected
        return "weak" if above or self.adjusted_p_value <= WEAK else "none"


def memorisation(distances: Nearest, seed: int = 0) -> Memorisation:
    """The check by the distances alone; both p-values are for fresh samples, from the law of the held-out examples.

    Given the training examples, the distances of either kind are independent and, for fresh data, of one law: ranks
    decide for any features, and the bootstrap over distances is valid for `closer`. A model that makes bad
    samples beside its copies hides them from `closer`, an average; the near copies show them. Sources: Meehan,
    Chaudhuri and Dasgupta 2020, section 3 (closer); Rosenbaum 1954 (exceedances).
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
    """P(at least `count` of n lie below the rank-th smallest of m), all n + m of one continuous law.

    That is: among the smallest count + rank - 1 of all, fewer than rank are of the m.
    """
    from scipy.stats import hypergeom

    return 1.0 if count == 0 else float(hypergeom.cdf(rank - 1, n + m, m, count + rank - 1))


def near_copies_interval(count: int, n: int, m: int, rank: int) -> Interval:
    """The share of near copies, `count` of n samples, with the shares that a one-sided test at 2.5 % does not refuse.

    The share g of fresh data below the threshold, the `rank`-th smallest of m, has the law Beta(rank, m - rank + 1) of
    mean `expected` = rank / (m + 1). Samples with the share s > `expected` are a mixture of copies and fresh ones, with
    s < `expected` of fresh ones and others that are never near: given g, each is near with probability 1 - a (1 - g) or
    a g, so that s is its mean. A bootstrap ignores the randomness of the threshold, and is too narrow.
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
    """Places of samples and held-out examples among the `values` different distances, 0 the nearest."""

    samples: Int[Tensor, " samples"]
    held_out: Int[Tensor, " held_out"]
    values: int
    rank: int

    def of(self, samples: Tensor, held_out: Tensor) -> tuple[float, float]:
        """`closer` and `near_copies` of these rows of either."""
        found = self.samples[samples].bincount(minlength=self.values)
        expected = self.held_out[held_out].bincount(minlength=self.values)
        below = found.cumsum(0) - found
        wins = (expected * below + 0.5 * expected * found).sum().item()  # held-out examples beaten, by place
        place = torch.searchsorted(expected.cumsum(0), self.rank)  # of the rank-th smallest held-out distance
        return wins / (len(samples) * len(held_out)), below[place].item() / len(samples)

    def interval(self, closer: float, seed: int) -> Interval:
        """The middle 95 % of `closer` when samples and held-out examples are drawn again, with replacement."""
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
