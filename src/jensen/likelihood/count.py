"""Columns of counts: negative binomial laws with additional zeros (4.12)."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jensen.likelihood.laws import Count
from jensen.likelihood.stack import Cells, Stack

LARGEST = 15.0
"""Bound of the logarithms of the ratio of the mean to the data's mean, and of the number of failures r. With r =
exp(15) the law is a Poisson law for every practical purpose."""

LAST = 1 - 2.0**-53
"""The largest number below 1 in float64: the quantile of 1 is infinite."""

CERTAIN = 1e-7
"""Below this chance of a failure, the Poisson noise of a count is below 1e-3 of it, and scipy's search takes long."""

RARE = 3.0
"""For outputs of 0 the logit of an additional zero is -RARE."""


@dataclass(frozen=True, eq=False)
class CountCells(Cells):
    """P(x = k) = p0 [k = 0] + (1 - p0) NB(k | m, r), NB with mean m and variance m + m² / r (4.12).

    Float64, because the logarithms of factorials of large counts cancel each other.
    """

    log_mean: Tensor
    log_failures: Tensor
    zero: Tensor  # logit of p0

    @property
    def levels(self) -> int | None:
        return None

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.zero) * self.log_mean.exp()

    def log_prob(self, x: Tensor) -> Tensor:
        k, r = x.double().round().clamp(min=0), self.log_failures.exp()
        logit = self.log_mean - self.log_failures  # of the probability of a success, m / (m + r)
        chosen = torch.lgamma(k + r) - torch.lgamma(r) - torch.lgamma(k + 1)
        law = chosen + k * F.logsigmoid(logit) + r * F.logsigmoid(-logit)
        law = F.logsigmoid(-self.zero) + law
        return torch.where(k == 0, torch.logaddexp(F.logsigmoid(self.zero), law), law)

    def cdf(self, x: Tensor) -> Tensor:
        """By scipy's incomplete beta function, on the CPU and without a gradient."""
        k, r, logit, zero = self._arrays(x.double().floor())
        return torch.from_numpy(np.where(k < 0, 0, zero + (1 - zero) * _cdf(k, r, logit))).to(x.device)

    def quantile(self, u: Tensor) -> Tensor:
        """By scipy, on the CPU and without a gradient; far above 1 by the gamma law that (4.12) comes to there."""
        from scipy.special import expit, gammaincinv
        from scipy.stats import nbinom

        u_, r, logit, zero = self._arrays(u.double())
        rest, failure = np.clip((u_ - zero) / (1 - zero), 0, LAST), expit(-logit)
        large = failure < CERTAIN
        k = nbinom.ppf(rest, np.where(large, 1, r), np.where(large, 0.5, failure))
        limit = np.floor(gammaincinv(r, rest) * np.exp(logit))
        return torch.from_numpy(np.maximum(np.where(large, limit, k), 0)).to(u.device)

    def at(self, field: int) -> "CountCells":
        parts = (each[..., field : field + 1] for each in (self.log_mean, self.log_failures, self.zero))
        return CountCells(*parts)

    def _arrays(self, values: Tensor) -> list[np.ndarray]:
        """Values, r, log m / r (the logit of a success) and p0 as arrays of one shape, float64."""
        log_failures = self.log_failures.double()
        logit, zero = self.log_mean.double() - log_failures, torch.sigmoid(self.zero.double())
        together = torch.broadcast_tensors(values, log_failures.exp(), logit, zero)
        return [each.detach().cpu().numpy() for each in together]


def _cdf(k: np.ndarray, r: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """P(k or less) of the negative binomial law."""
    from scipy.special import betainc, expit

    return np.where(k < 0, 0.0, betainc(r, np.maximum(k, 0) + 1, expit(-logit)))  # exact for rare failures, too


class CountStack(Stack):
    """All columns of counts."""

    log_mean: Tensor

    def __init__(self, laws: Sequence[Count]) -> None:
        super().__init__()
        means = torch.tensor([math.log(max(law.mean, 1e-6)) for law in laws], dtype=torch.float64)
        self.register_buffer("log_mean", means, persistent=False)

    @staticmethod
    def key(law: Count) -> Hashable:
        return Count

    def forward(self, raw: Tensor) -> CountCells:
        mean, failures, zero = raw.double().unflatten(-1, (-1, 3)).unbind(-1)
        return CountCells(self.log_mean + _bounded(mean), _bounded(failures), zero - RARE)


def _bounded(value: Tensor) -> Tensor:
    """About the value itself near 0, between -LARGEST and LARGEST everywhere, with a gradient everywhere."""
    return LARGEST * torch.tanh(value / LARGEST)
