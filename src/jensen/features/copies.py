"""Are samples copies of training examples? Their distances to the nearest one against those of held-out data."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jensen.features.jackknife import Interval
from jensen.features.neighbours import comparable, nearest
from jensen.randomness import Stream, generator
from jensen.records import Value

PLAUSIBLE = 0.01  # of held-out examples lie as near to a training example as a near copy
RESAMPLES = 1000
BOOTSTRAP = 3  # what randomness is for


@dataclass(frozen=True, eq=False)
class Nearest:
    """Distances to the nearest training example: of samples (n) and of held-out examples (m); float64.

    `row` (n) says which training example it is. That is all the memorisation check looks at.
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
    """Whether samples are nearer to the training examples than held-out examples are; intervals by the bootstrap."""

    samples: int
    held_out: int
    closer: Interval
    """P(a sample is nearer to its nearest training example than a held-out one to its own), ties counting half.

    1/2 for fresh data; 1 where every sample is nearer than every held-out example.
    """
    p_value: float
    """Of the one-sided Mann-Whitney test that `closer` is above 1/2."""
    near_copies: Interval
    """The share of samples that are nearer than all but `expected` of the held-out examples."""
    expected: float
    """That share for fresh data: 1 %, or more where there are few held-out examples."""
    near_copies_p_value: float
    """The probability of as many near copies or more among fresh data; exact."""
    threshold: float
    """The distance below which a sample is a near copy."""


def memorisation(distances: Nearest, seed: int = 0) -> Memorisation:
    """The check by the distances alone; both p-values are for fresh samples, from the law of the held-out examples.

    Given the training examples, the distances of either kind are independent and, for fresh data, of one law: ranks
    decide, whatever the features, and the bootstrap over distances is valid. A model that makes bad samples beside its
    copies hides them from `closer`, which asks for the average; the near copies show them. Sources: Meehan, Chaudhuri
    and Dasgupta 2020, section 3 (closer); Rosenbaum 1954 (exceedances).
    """
    from scipy.stats import mannwhitneyu

    of_samples, of_held_out = distances.samples, distances.held_out
    n, m = len(of_samples), len(of_held_out)
    rank = max(1, int(PLAUSIBLE * (m + 1)))
    values, place = torch.cat([of_samples, of_held_out]).unique(return_inverse=True)
    ranks = _Ranks(place[:n], place[n:], len(values), rank)
    closer, copies = ranks.of(torch.arange(n), torch.arange(m))
    of_closer, of_copies = ranks.intervals(seed)
    if copies in (0, 1):  # the bootstrap sees no other value: the exact interval of a share, one-sided
        most = 1 - 0.025 ** (1 / n)
        of_copies = (0.0, most) if copies == 0 else (1 - most, 1.0)
    test = mannwhitneyu(of_samples.numpy(), of_held_out.numpy(), alternative="less", method="asymptotic")
    return Memorisation(
        samples=n,
        held_out=m,
        closer=Interval(value=closer, low=of_closer[0], high=of_closer[1]),
        p_value=float(test.pvalue),
        near_copies=Interval(value=copies, low=of_copies[0], high=of_copies[1]),
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

    def intervals(self, seed: int) -> list[tuple[float, float]]:
        """The middle 95 % of both numbers when samples and held-out examples are drawn again, with replacement."""
        source = generator(seed, Stream.EVALUATION, BOOTSTRAP)
        n, m = len(self.samples), len(self.held_out)
        drawn = torch.tensor(
            [
                self.of(torch.randint(n, (n,), generator=source), torch.randint(m, (m,), generator=source))
                for _ in range(RESAMPLES)
            ],
            dtype=torch.float64,
        )
        low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
        return list(zip(low.tolist(), high.tolist(), strict=True))
