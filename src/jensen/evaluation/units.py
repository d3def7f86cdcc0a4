"""Units: all results of an evaluation are about the raw data, in nats per example and in bits per observed value."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.preparation import Preparation
from jensen.evaluation.measure import Measure


@dataclass(frozen=True, eq=False)
class Units:
    """The conversion of log p(x) into log p(raw) and into bits.

    It needs two numbers per example, (batch), float64. `volume` is log |dx/draw| of the observed values, in nats;
    `observed` is the number of observed values. A missing value is NaN in the raw data, and log p(x) is about the
    observed values only.
    """

    volume: Tensor
    observed: Tensor

    @classmethod
    def of(cls, preparation: Preparation, raw: Tensor) -> "Units":
        """The units of a batch of raw examples (batch, *shape)."""
        return cls(preparation.log_volume_of(raw).double().cpu(), preparation.observed(raw).double().cpu())

    @classmethod
    def complete(cls, preparation: Preparation, count: int) -> "Units":
        """The units of `count` examples without missing values."""
        both = preparation.log_volume, preparation.dimensions
        return cls(*(torch.full((count,), float(number), dtype=torch.float64) for number in both))

    def nats(self, nats: Tensor) -> Tensor:
        """log p(raw) = log p(x) + volume from log p(x), nats per example (batch), float64 on the CPU."""
        return nats.detach().cpu().double() + self.volume


def in_bits(nats: Float[Tensor, " count"], observed: Float[Tensor, " count"]) -> Tensor:
    """Bits per observed value of each example, from nats; 0 for an example without observed values."""
    return nats / (observed.clamp(min=1) * math.log(2))


def measure(nats: Float[Tensor, " count"], observed: Float[Tensor, " count"], *, sign: int = 1) -> Measure:
    """The mean in nats per example, and `sign` times the mean in bits per observed value.

    `sign` is -1 for log p(raw) and its terms, because bits are a cost, and 1 for costs and differences. Bits are the
    ratio of sums Σ bits / Σ observed, not a mean of ratios; the two differ if examples have missing values.
    """
    bits = Estimate.ratio(sign * nats / math.log(2), observed)
    return Measure(nats=Estimate.of(nats), bits_per_dimension=bits)
