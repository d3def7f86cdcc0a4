"""The losses of a VAE with a diffusion prior, stage by stage."""

from dataclasses import dataclass, field

import torch

from jensen.diffusion.weighting import BoundObjective, LowDiscrepancyTimes
from jensen.errors import InputError
from jensen.latent.prior import DiffusionPrior
from jensen.model import Batch, Loss
from jensen.randomness import Noise
from jensen.vae.objective import AbstractJoint, AbstractVAEObjective, ElboObjective
from jensen.vae.prior import StandardNormal

MEASURED = 100  # first steps of the second stage, which also measure the moments of z


@dataclass(frozen=True)
class StagedObjective(AbstractVAEObjective):
    """Trains a VAE whose prior is a `DiffusionPrior` in three stages.

    1. The first `vae_steps` steps minimise the loss `first` of the VAE with the prior N(0, I).
    2. The next `prior_steps` steps (None: all others) train the prior by its own objective on draws z ~ q(z|x), with
       encoder and decoder fixed. The first `MEASURED` of these steps also measure the moments of z.
    3. All further steps minimise the negative bound on log p(x), in nats, over encoder, decoder and prior together:
       -E_q [log p(x|z) - log q(z|x) + bound of log p(z)], with one term of the bound (5.11) per example. In this loss
       the bound of the prior has the weight 1.

    Raises `InputError` for a negative number of steps.
    """

    vae_steps: int
    prior_steps: int | None = None
    first: AbstractVAEObjective = field(default_factory=ElboObjective)

    def __post_init__(self) -> None:
        if self.vae_steps < 0 or (self.prior_steps is not None and self.prior_steps < 0):
            raise InputError(
                f"stages of {self.vae_steps} and {self.prior_steps} steps: expected no negative number of steps"
            )

    @property
    def stages(self) -> tuple[int, ...]:
        ends = [self.vae_steps] if self.prior_steps is None else [self.vae_steps, self.vae_steps + self.prior_steps]
        return tuple(end for end in dict.fromkeys(ends) if end)

    @property
    def warmup(self) -> int:
        return min(self.first.warmup, self.vae_steps)

    def __call__(self, vae: AbstractJoint, batch: Batch, step: int, noise: Noise) -> Loss:
        prior = vae.prior
        assert isinstance(prior, DiffusionPrior)
        if step < self.vae_steps:
            return self.first(vae.with_prior(StandardNormal(prior.latent_dims)), batch, step, noise)
        if self.prior_steps is None or step < self.vae_steps + self.prior_steps:
            return _prior_loss(vae, prior, batch, noise, measured=step < self.vae_steps + MEASURED)
        return _joint_loss(vae, prior, batch, noise)


def _prior_loss(vae: AbstractJoint, prior: DiffusionPrior, batch: Batch, noise: Noise, *, measured: bool) -> Loss:
    with torch.no_grad():
        q = vae.posterior(batch.x, batch.index)
        z = q.moved(noise.normal(q.shape, q.mean.dtype))  # (4.7)
    loss = prior.loss(z, batch, noise=noise)
    return Loss(loss.value, loss.terms, {**loss.noted, **prior.moments.noted(z)}) if measured else loss


def _joint_loss(vae: AbstractJoint, prior: DiffusionPrior, batch: Batch, noise: Noise) -> Loss:
    q = vae.posterior(batch.x, batch.index)
    z = q.moved(noise.normal(q.shape, q.mean.dtype))  # (4.7)
    reconstruction, entropy = vae.decode(z).log_prob(batch.x).mean(), q.entropy().mean()
    of_u = prior.loss(z, batch, noise=noise, objective=BoundObjective(LowDiscrepancyTimes()))  # -(5.11)
    of_z = of_u.value - prior.moments.log_volume.to(of_u.value)
    parts = {"reconstruction": reconstruction, "entropy": entropy, "prior_bound": -of_z}
    return Loss(of_z - entropy - reconstruction, {name: part.detach() for name, part in parts.items()}, of_u.noted)
