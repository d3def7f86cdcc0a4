"""p(y|x) by self-normalised importance sampling (1.4), with the same draws from q(z|x) for both integrals.

p(y|x) = ∫ p(y|z) p(x, z) dz / ∫ p(x, z) dz ≈ Σ_k w_k p(y|z_k) / Σ_k w_k, w_k = p(x, z_k) / q(z_k|x) as in (4.9). The
bias of the ratio falls like 1/K, the Monte-Carlo error like 1/sqrt(K), where K is the effective sample size.
`standard_error` is the Monte-Carlo error by the delta method (Owen 2013, section 9.2). If the effective sample size is
near one, trust neither the ratio nor the standard error.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from jensen.gaussian import Gaussian
from jensen.model import Prediction, TargetPrediction
from jensen.vae.target import ContinuousTarget

Draws = Iterable[tuple[Tensor, Tensor]]  # chunks of z (draws, batch, latent_dims) and log w (draws, batch)


@dataclass(frozen=True, eq=False)
class _Sums:
    """The logarithms of Σ w, Σ w² (batch, 1) and Σ w p, Σ w² p, Σ w² p² (batch, classes) over draws, float64."""

    draws: int
    w: Tensor
    ww: Tensor
    wp: Tensor
    wwp: Tensor
    wwpp: Tensor

    @classmethod
    def of(cls, log_w: Tensor, log_p: Tensor) -> Self:
        """The sums over one chunk: log w (draws, batch), log p(y|z) (draws, batch, classes)."""
        w, p = log_w.double().unsqueeze(-1), log_p.double()
        terms = w, 2 * w, w + p, 2 * w + p, 2 * (w + p)
        return cls(len(w), *(term.logsumexp(0) for term in terms))

    def __add__(self, other: "_Sums") -> "_Sums":
        pairs = (
            (self.w, other.w),
            (self.ww, other.ww),
            (self.wp, other.wp),
            (self.wwp, other.wwp),
            (self.wwpp, other.wwpp),
        )
        return _Sums(self.draws + other.draws, *(torch.logaddexp(*pair) for pair in pairs))

    def prediction(self) -> Prediction:
        log_p = self.wp - self.w
        p, scale = log_p.exp(), -2 * self.w
        variance = (self.wwpp + scale).exp() - 2 * p * (self.wwp + scale).exp() + p.square() * (self.ww + scale).exp()
        size = torch.exp(2 * self.w - self.ww)[:, 0]
        correction = self.draws / (self.draws - 1) if self.draws > 1 else math.nan  # NaN: one draw has no spread
        error = (correction * variance.clamp(min=0)).sqrt()
        return Prediction(log_p, error, size, torch.full_like(size, self.draws))


def predict_labels(target: Callable[[Tensor], Tensor], draws: Draws) -> Prediction:
    """p(y|x) of every label from weighted draws of z, where `target` gives log p(y|z), (draws, batch, classes).

    Memory holds one chunk of draws at a time.
    """
    total: _Sums | None = None
    for z, log_weights in draws:
        part = _Sums.of(log_weights, target(z))
        total = part if total is None else total + part
    assert total is not None
    return total.prediction()


def predict_targets(target: ContinuousTarget, draws: Draws) -> TargetPrediction:
    """p(y|x) of continuous y from weighted draws of z: a mixture of the draws' p(y|z)."""
    log_weights, means, scales = [], [], []
    for z, log_w in draws:
        law = target(z)
        log_weights.append(log_w.double())
        means.append(law.mean.double())
        scales.append(law.scale.double().expand(law.shape))
    normalised = torch.cat(log_weights).log_softmax(0)
    components = Gaussian(torch.cat(means).transpose(0, 1), torch.cat(scales).transpose(0, 1))
    return TargetPrediction(normalised.mT, components, 1 / normalised.exp().square().sum(0))
