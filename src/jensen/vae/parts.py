"""q(z | any part of x): training of a second encoder, whose q is the proposal for the posterior given a part of x.

The posterior given a part is a mean of posteriors given the whole: p(z|x_o) = E_{x_h|x_o} p(z|x). The closest normal
law to this mean has its moments, and r(z|x_o) with the least E KL(q(z|x) || r(z|x_o)) has them. (Ivanov et al. 2019
train the prior of a conditional model so.) Such an r is wide enough to be a proposal of importance sampling. The
gradient of the KL reaches only r, so the model and its bound are the same as without r.
Only a clipped gradient differs: its norm is that of all parameters, with those of r.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.model import Batch, Loss
from jensen.randomness import Noise
from jensen.vae.missing import HIDDEN
from jensen.vae.objective import AbstractJoint, AbstractVAEObjective
from jensen.vae.posterior import AmortisedPosterior


@dataclass(frozen=True)
class PartsObjective(AbstractVAEObjective):
    """The loss `whole`, plus the mean of KL(q(z|x) || r(z | random part of x)), which trains the encoder of parts only.

    Each example hides a share of its values, uniform between 0 and 1; each value is hidden with this probability.
    """

    whole: AbstractVAEObjective

    @property
    def stages(self) -> tuple[int, ...]:
        return self.whole.stages

    @property
    def warmup(self) -> int:
        return self.whole.warmup

    def __call__(self, vae: AbstractJoint, batch: Batch, step: int, noise: Noise) -> Loss:
        loss = self.whole(vae, batch, step, noise)
        posterior = vae.posterior
        assert isinstance(posterior, AmortisedPosterior)
        with torch.no_grad():
            q = posterior.whole(batch.x)
        kl = q.kl(posterior.part(randomly_hidden(batch.x, noise))).mean()
        return Loss(loss.value + kl, {**loss.terms, "parts": kl.detach()}, loss.noted)


def randomly_hidden(x: Float[Tensor, " batch *shape"], noise: Noise) -> Float[Tensor, " batch *shape"]:
    """x with inf for hidden values: of each example a share that is uniform between 0 and 1."""
    share = noise.uniform((len(x),)).to(x).view(-1, *[1] * (x.ndim - 1))
    return torch.where(noise.uniform(x.shape).to(x) < share, HIDDEN, x)
