"""The losses that train a VAE: the ELBO or L_K, with options that `VAE.elbo` never uses."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.bound import log_mean_exp
from jensen.errors import InputError
from jensen.likelihood import Observation
from jensen.model import Batch, Loss
from jensen.randomness import Noise
from jensen.vae.posterior import AbstractPosterior
from jensen.vae.prior import AbstractPrior
from jensen.vae.sequential import Draw, Posterior, drawn

SMALLEST_SHARE = 1e-3  # nats per dimension; without it, parts with no KL at all would have weight 0


class AbstractJoint(ABC):
    """The parts of a model that an objective uses: p(x, y, z) and q(z)."""

    posterior: AbstractPosterior
    prior: AbstractPrior

    @abstractmethod
    def draw(self, q: Posterior, eps: Tensor) -> tuple[Draw, Observation]:
        """z ~ q by eps (*draws, batch, latent_dims) (4.7), and p(x|z) (4.2)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Observation:
        """p(x|z) for z (*batch, latent_dims) (4.2)."""

    @abstractmethod
    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z), (draws, batch)."""

    @abstractmethod
    def log_target(self, batch: Batch, z: Tensor) -> Tensor | float:
        """log p(y|z), (*draws, batch); 0 without a target."""

    @abstractmethod
    def with_prior(self, prior: AbstractPrior) -> "AbstractJoint":
        """The same p(x, y|z) and q(z), with shared weights, and another prior."""


class AbstractVAEObjective(ABC):
    """A loss for a VAE in nats per example, by a bound on log p(x), or on log p(x, y) if the model has a target.

    With q(z|x) in (4.4), log p(x, y) >= E_q [log p(x|z) + log p(y|z)] - KL(q(z|x) || p(z)). The weights of L_K have the
    same factors: p(x|z) p(y|z) p(z) / q(z|x).
    """

    @property
    def stages(self) -> tuple[int, ...]:
        """The first step of each stage after the first; empty for a single stage."""
        return ()

    @property
    def warmup(self) -> int:
        """The number of first steps in which the weights of the loss still change; 0 if they never change."""
        return 0

    @abstractmethod
    def __call__(self, vae: AbstractJoint, batch: Batch, step: int, noise: Noise) -> Loss:
        """The loss of a batch at training step `step`, a mean over the examples."""


@dataclass(frozen=True)
class ElboObjective(AbstractVAEObjective):
    """The loss (4.8): -(1/B) Σ_j [log p(x_j|z_j) - weight KL_j] over a batch of B examples, with one z each.

    `kl_weight` is the weight of the KL (the beta of Higgins et al. 2017). In the first `warmup_steps` steps the weight
    rises linearly, as kl_weight (step + 1) / warmup_steps (Bowman et al. 2016). `free_bits` replaces the batch-mean KL
    of each part of z, a dimension or a group of a hierarchy, by max(free_bits, KL) nats (Kingma et al. 2016, eq. 15).
    `balance` weights the KL of each part in the warm-up steps by its batch mean per dimension, relative to the mean of
    all parts, so that parts with a small KL are used sooner (Vahdat & Kautz 2020). With both, the loss is not a mean
    over examples, so the batch cannot be computed in parts. With a weight of 1 and the other settings zero, the loss is
    the negative ELBO; otherwise the loss weights the terms of the ELBO differently. The KL of a prior without parts is
    estimated by log q(z|x) - log p(z). Raises `InputError` for negative values, for a balance without warm-up, and for
    free bits or a balance with a part of a batch or with a prior without parts.
    """

    warmup_steps: int = 0
    free_bits: float = 0.0
    kl_weight: float = 1.0
    balance: bool = False

    def __post_init__(self) -> None:
        if self.warmup_steps < 0 or not (0 <= self.free_bits < math.inf and 0 <= self.kl_weight < math.inf):
            raise InputError(
                f"ELBO objective with warmup_steps = {self.warmup_steps}, free_bits = {self.free_bits}, kl_weight = "
                f"{self.kl_weight}: expected all >= 0; the usual ones are 0, 0 and 1"
            )
        if self.balance and not self.warmup_steps:
            raise InputError("a balance of the KL acts during the warm-up, which has 0 steps; give warm-up steps")

    @property
    def warmup(self) -> int:
        return self.warmup_steps

    def __call__(self, vae: AbstractJoint, batch: Batch, step: int, noise: Noise) -> Loss:
        if self._by_part and noise.count not in (None, len(batch.x)):
            raise InputError(
                f"{self._by_part} is about the mean of a whole batch, here {noise.count} examples, and only "
                f"{len(batch.x)} fit into memory; make the model or training.batch_size smaller, or leave it out"
            )
        q = vae.posterior(batch.x, batch.index)
        draw, law = vae.draw(q, noise.normal(q.shape, batch.x.dtype))
        reconstruction, target = law.log_prob(batch.x).mean(), vae.log_target(batch, draw.z)
        rate, penalty = self._rate(vae.prior, draw, step)
        terms = {"reconstruction": reconstruction.detach(), "rate": rate.detach()}
        if not isinstance(target, float):
            target = target.mean()
            terms["target"] = target.detach()
        return Loss(penalty - reconstruction - target, terms)  # (4.8)

    @property
    def _by_part(self) -> str | None:
        """The setting that weights the KL of each part of z, if there is one."""
        return "free_bits" if self.free_bits else "balance" if self.balance else None

    def _rate(self, prior: AbstractPrior, draw: Draw, step: int) -> tuple[Tensor, Tensor]:
        """The mean KL over the batch, and its weighted form in the loss."""
        weight = self.kl_weight * (min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0)
        kl = prior.kl_by_part(draw.law, draw.z)
        if kl is None:
            if self._by_part:
                prior_name = type(prior).__name__
                raise InputError(f"{self._by_part} with the prior {prior_name}: it has no KL by part; leave it out")
            rate = (draw.law.log_prob(draw.z) - prior.log_prob(draw.z)).mean()
            return rate, weight * rate
        by_part = kl.mean(0)
        penalty = by_part.clamp(min=self.free_bits) if self.free_bits else by_part
        if self.balance and step < self.warmup_steps:
            penalty = penalty * _shares(by_part, prior.part_sizes)
        return by_part.sum(), weight * penalty.sum()


def _shares(kl: Tensor, sizes: Sequence[int]) -> Tensor:
    """The KL per dimension of each part, divided by the mean of all parts; a constant, and 1 for equal parts."""
    each = kl.detach().clamp(min=0) / torch.tensor(sizes).to(kl) + SMALLEST_SHARE
    return each / each.mean()


@dataclass(frozen=True)
class ImportanceWeightedObjective(AbstractVAEObjective):
    """-(1/B) Σ_j L_K(x_j) (4.9) with the plain reparameterised gradient (Burda et al. 2016, eq. 13).

    `samples` is K; raises `InputError` below 1.
    """

    samples: int

    def __post_init__(self) -> None:
        _check_samples(self.samples)

    def __call__(self, vae: AbstractJoint, batch: Batch, step: int, noise: Noise) -> Loss:
        q = vae.posterior(batch.x, batch.index)
        draw, law = vae.draw(q, noise.normal((self.samples, *q.shape), batch.x.dtype, dim=1))
        log_joint = law.log_prob(batch.x) + vae.prior.log_prob(draw.z) + vae.log_target(batch, draw.z)
        log_weights = log_joint - draw.law.log_prob(draw.z)
        return _importance_loss(log_weights, log_mean_exp(log_weights).mean())


@dataclass(frozen=True)
class DoublyReparameterisedObjective(AbstractVAEObjective):
    """L_K (4.9) with the doubly reparameterised gradient for q (Tucker et al. 2019, eq. 8).

    The gradient is unbiased. If q is the posterior, the gradient has no noise. If q is far from the posterior, it has
    more noise than the plain gradient. The gradient for theta is Σ_k w̃_k grad log w_k. The gradient for q is Σ_k w̃_k²
    (d log w_k / d z_k) (d z_k / d q). Here w̃_k are the normalised weights, and the derivative of log w_k is taken only
    through z_k. K = 1 is "sticking the landing" (Roeder et al. 2017). The value of the loss is -L_K. `samples` is K;
    raises `InputError` below 1.
    """

    samples: int

    def __post_init__(self) -> None:
        _check_samples(self.samples)

    def __call__(self, vae: AbstractJoint, batch: Batch, step: int, noise: Noise) -> Loss:
        q = vae.posterior(batch.x, batch.index)
        z = drawn(q, noise.normal((self.samples, *q.shape), batch.x.dtype, dim=1)).z
        log_weights = vae.log_joint(batch.x, z) + vae.log_target(batch, z) - q.detach().log_prob(z)
        normalised = log_weights.detach().softmax(0)
        if z.requires_grad:
            z.register_hook(lambda gradient: normalised.unsqueeze(-1) * gradient)  # the loss gives w̃ once
        return _importance_loss(log_weights, log_mean_exp(log_weights).mean())  # grad log_mean_exp = Σ w̃ grad log w


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise InputError(f"L_K with K = {samples}: expected K >= 1; give a positive number of samples")


def _importance_loss(log_weights: Tensor, bound: Tensor) -> Loss:
    terms = {"importance_weighted_bound": bound.detach(), "elbo": log_weights.detach().mean()}
    return Loss(-bound, terms)
