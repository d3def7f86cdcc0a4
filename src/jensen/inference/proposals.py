"""Weighted draws of z from p(z | any part of x), by importance sampling from a VAE's q (1.4)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.inference.imputer import ExampleNoise
from jensen.vae import VAE, AmortisedPosterior, Posterior, drawn

BLOCK = 100  # number of proposals scored together
POOL = 0  # the purpose of their random numbers


@dataclass(frozen=True)
class Proposals:
    """`samples` draws z_k ~ r with the weights w_k = p(x_o|z_k) p(z_k) / r(z_k), where x_o is the part of x not hidden.

    r = (1 - prior_share) q + prior_share N(0, I): the second part keeps the weights bounded. q is that of the
    encoder of parts, if the model has one. Otherwise `VAE.optimise` fits q to x_o for each example, starting from the
    encoder's. Raises `InputError` for less than one sample, and for a share outside of 0 to 1.
    """

    samples: int
    prior_share: float = 0.1

    def __post_init__(self) -> None:
        if self.samples < 1 or not 0 <= self.prior_share <= 1:
            raise InputError(
                f"importance resampling with {self.samples} samples, {self.prior_share} of them from the prior: "
                "expected at least 1 sample and a share from 0 to 1"
            )

    def q(self, vae: VAE, x: Tensor) -> Posterior:
        """q(z | part of x), for x with inf for hidden and NaN for missing values."""
        start = vae.posterior.initial(x)
        return start if knows_parts(vae) else vae.optimise(x, start)

    def blocks(self, vae: VAE, q: Posterior, noise: ExampleNoise) -> Iterator[tuple[Tensor, Tensor]]:
        """z (n, batch, latent) and log p(z) - log r(z) (n, batch), in blocks of `BLOCK` draws."""
        for start in range(0, self.samples, BLOCK):
            yield self._block(vae, q, noise, start)

    def _block(self, vae: VAE, q: Posterior, noise: ExampleNoise, start: int) -> tuple[Tensor, Tensor]:
        count = min(BLOCK, self.samples - start)
        eps = noise.normal((count, vae.latent_dims), POOL, start).transpose(0, 1).to(q.mean)
        number = torch.arange(start, start + count, device=eps.device)
        share = (number + 1) * self.prior_share
        of_prior = share.floor() > (number * self.prior_share).floor()  # spread evenly; their share is prior_share
        z = torch.where(of_prior.reshape(-1, 1, 1), eps, drawn(q, eps).z)
        return z, vae.prior.log_prob(z) - self._log_density(q, z)

    def _log_density(self, q: Posterior, z: Tensor) -> Tensor:
        standard = Gaussian.standard(z.shape[-1:], dtype=z.dtype, device=z.device)
        shares = torch.tensor([1 - self.prior_share, self.prior_share]).to(z).log()
        return torch.logaddexp(shares[0] + q.log_prob(z), shares[1] + standard.log_prob(z))


def knows_parts(vae: VAE) -> bool:
    """Whether the model has an encoder of parts of x, so that no q is fitted to an example."""
    return isinstance(vae.posterior, AmortisedPosterior) and vae.posterior.of_parts is not None
