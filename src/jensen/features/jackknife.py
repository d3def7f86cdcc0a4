"""95 % intervals by the jackknife over random parts of a set."""

import math
from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from jensen.bound import Estimate
from jensen.randomness import Stream, generator
from jensen.records import Value

GROUPS = 20  # number of parts of a set, each left out in turn
STUDENT = 2.093  # the 97.5 % quantile of Student's t with 19 degrees of freedom, one less than there are parts


def parts(count: int) -> Int[Tensor, " count"]:
    """The index of each example's part: 0 to 19, or 0 to count - 1 if there are fewer than 20 examples.

    The parts are random with a fixed seed, because regular parts of data sorted by label would be too similar.
    """
    return torch.randperm(count, generator=generator(0, Stream.EVALUATION)) % min(GROUPS, count)


def variance(left_out: Sequence[float]) -> float:
    """The variance (g - 1) / g Σ (v - mean v)² of a statistic from its values with each of g parts left out.

    Because each part has many examples, the variance is consistent even for statistics that are not smooth, such as
    shares. It is NaN if there are no values. Sources: Quenouille 1956; Shao and Wu 1989 for parts.
    """
    if not left_out:
        return math.nan
    centred = torch.tensor(left_out, dtype=torch.float64)
    centred = centred - centred.mean()
    return (len(left_out) - 1) / len(left_out) * centred.square().sum().item()


class Interval(Value):
    """A number and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def around(cls, value: float, *left_out: Sequence[float]) -> Self:
        """The interval from the values with parts left out, one sequence per independent set; variances are added."""
        half = STUDENT * math.sqrt(sum(variance(values) for values in left_out))
        return cls(value=value, low=value - half, high=value + half)

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """The interval of an estimate whose standard error is by the jackknife."""
        half = STUDENT * estimate.standard_error
        return cls(value=estimate.mean, low=estimate.mean - half, high=estimate.mean + half)

    @classmethod
    def share(cls, value: float, count: int, *left_out: Sequence[float]) -> Self:
        """The interval of a share among `count` examples, cut off at 0 and 1.

        Near 0 and 1 the jackknife's variance is too small. So the variance is at least the binomial variance after
        adding one success and one failure.
        """
        smoothed = (value * count + 1) / (count + 2)
        least = smoothed * (1 - smoothed) / count
        half = STUDENT * math.sqrt(max(sum(variance(values) for values in left_out), least))
        return cls(value=value, low=max(value - half, 0.0), high=min(value + half, 1.0))

    def scaled(self, factor: float) -> "Interval":
        """The interval multiplied by `factor`."""
        return Interval(value=factor * self.value, low=factor * self.low, high=factor * self.high)

    def __str__(self) -> str:
        """The interval as text, with the precision of a third of its half-width.

        >>> print(Interval(value=1.2345, low=1.2, high=1.3))
        1.23 [1.20, 1.30]
        """
        half = (self.high - self.low) / 2
        if math.isnan(half):
            return f"{self.value:.4g} (interval unknown: too few examples)"
        if not 0 < half < math.inf:
            return f"{self.value:.4g}"
        digits = max(math.ceil(-math.log10(half / 3)), 0)
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"
