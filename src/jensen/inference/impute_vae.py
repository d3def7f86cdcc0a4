"""Imputation by a VAE: draw z given the observed entries by importance resampling or Markov chains, then x ~ p(x|z).

The entries of x are independent given z, so p(x_missing | x_observed) = ∫ p(x_missing|z) p(z|x_observed) dz, and only
p(z | x_observed) ∝ p(x_observed|z) p(z) is hard.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.inference.imputer import AbstractImputer, ExampleNoise, Imputation, chosen_by_weight, effective_sample_size
from jensen.inference.proposals import BLOCK, Proposals
from jensen.model import AbstractLatentVariableModel
from jensen.vae import VAE, Posterior, drawn
from jensen.vae.missing import HIDDEN, PartialObservation, PartlyObserved

CHOICE, DATA, INDEPENDENT, WALK = range(1, 5)  # purposes of random numbers, besides that of `Proposals`


@dataclass(frozen=True)
class ImportanceResampling(AbstractImputer):
    """Draw z from `samples` proposals with weights p(x_observed|z) p(z) / r(z), then x_missing ~ p(x_missing|z).

    A hidden value of a column with missing cells is known to be present, so P(present|z) counts in p(x_observed|z).
    For r and `prior_share` see `Proposals`. The draws become exact for many `samples`. A large effective sample size
    shows that the draws are nearly exact. Raises `InputError` for less than one sample, and for a share outside of 0
    to 1.
    """

    samples: int = 1000
    prior_share: float = 0.1
    unobserved = HIDDEN

    def __str__(self) -> str:
        return f"importance resampling, {self.samples} samples"

    def __post_init__(self) -> None:
        Proposals(self.samples, self.prior_share)  # raises for impossible numbers

    def __call__(
        self, model: AbstractLatentVariableModel, x: Tensor, observed: Tensor, noise: ExampleNoise, draws: int
    ) -> Imputation:
        vae = _checked(model)
        z, size, _ = self.start(vae, x, noise, draws)
        return Imputation(_decoded(vae, z, noise, 0), {"effective sample size": size})

    def start(self, vae: VAE, x: Tensor, noise: ExampleNoise, draws: int) -> tuple[Tensor, Tensor, Posterior]:
        """z (draws, batch, latent), the effective sample size (batch), and the fitted q."""
        vae, proposals = vae.partly_observed(), Proposals(self.samples, self.prior_share)
        q = proposals.q(vae, x)
        blocks = [(z, ratio + _log_likelihood(vae, x, z)) for z, ratio in proposals.blocks(vae, q, noise)]
        z, log_weights = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        chosen = chosen_by_weight(log_weights.mT, noise.uniform((draws,), CHOICE).to(x.device))  # (batch, draws)
        picked = z[chosen.mT, torch.arange(len(x), device=x.device)]
        return picked, effective_sample_size(log_weights.mT), q

    def copies(self, draws: int) -> int:
        return max(draws, min(self.samples, BLOCK))


@dataclass(frozen=True)
class MetropolisWithinGibbs(AbstractImputer):
    """Markov chains over (z, x_missing), one per draw, which start at the z of importance resampling.

    A sweep has three steps. Step 1 is Metropolis-Hastings on z given the completed x. The proposal z' comes from the
    encoder's q(z|x) and is accepted with probability min(1, p(x|z') p(z') q(z|x) / (p(x|z) p(z) q(z'|x))) (Mattei &
    Frellsen 2018, algorithm 1). Step 2 is a random walk on p(z | x_observed), with x_missing integrated out; it moves
    even if the encoder's q is too narrow. Step 3 is x_missing ~ p(x_missing|z). Each step leaves p(z, x_missing |
    x_observed) invariant, so the draws become exact for many `sweeps`. Raises `InputError` for less than one sweep.
    """

    sweeps: int = 100
    start: ImportanceResampling = field(default_factory=ImportanceResampling)
    unobserved = HIDDEN

    def __str__(self) -> str:
        return f"Metropolis within Gibbs, {self.sweeps} sweeps"

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise InputError(f"Metropolis within Gibbs of {self.sweeps} sweeps: expected at least 1")

    def __call__(
        self, model: AbstractLatentVariableModel, x: Tensor, observed: Tensor, noise: ExampleNoise, draws: int
    ) -> Imputation:
        vae = _checked(model)
        if isinstance(vae.likelihood, PartlyObserved) and vae.likelihood.generates:
            raise InputError(f"{self} for a table whose missing cells are values: use importance resampling")
        z, size, fitted = self.start.start(vae, x, noise, draws)
        chain = _Chain(vae, x, observed, noise, fitted, z, torch.where(observed, x, _decoded(vae, z, noise, 0)))
        for sweep in range(self.sweeps):
            chain.sweep(sweep)
        return Imputation(
            chain.complete,
            {
                "effective sample size of the start": size,
                "acceptance, independent": chain.accepted[0] / self.sweeps,
                "acceptance, random walk": chain.accepted[1] / self.sweeps,
            },
        )

    def copies(self, draws: int) -> int:
        return self.start.copies(draws)


class _Chain:
    """The state of the chains: z (draws, batch, latent) and the completed x (draws, batch, *shape)."""

    def __init__(
        self,
        vae: VAE,
        x: Tensor,
        observed: Tensor,
        noise: ExampleNoise,
        fitted: Posterior,
        z: Tensor,
        complete: Tensor,
    ) -> None:
        self.vae, self.partial = vae, vae.partly_observed()
        self.x, self.observed, self.noise, self.fitted = x, observed, noise, fitted
        self.z, self.complete = z, complete
        self.accepted = torch.zeros(2, len(x), device=x.device)

    def sweep(self, number: int) -> None:
        """One sweep; the random numbers are a function of `number`, the index of the sweep."""
        self._independent(number)
        self._walk(number)
        self.complete = torch.where(self.observed, self.x, _decoded(self.vae, self.z, self.noise, number + 1))

    def _independent(self, number: int) -> None:
        eps = self._eps(INDEPENDENT, number)
        if not self.vae.posterior.amortised:  # without an encoder, q is the one fitted to the observed entries
            z = drawn(self.fitted, eps).z
            change = self.fitted.log_prob(self.z) - self.fitted.log_prob(z)
        else:
            q, flat = self.vae.posterior.initial(self.complete.flatten(0, 1)), self.z.flatten(0, 1)
            draw = drawn(q, eps.flatten(0, 1))
            change = (q.log_prob(flat) - draw.law.log_prob(draw.z)).reshape(self.z.shape[:2])
            z = draw.z.reshape(self.z.shape)
        change = change + self.vae.log_joint(self.complete, z) - self.vae.log_joint(self.complete, self.z)
        self._accept(z, change, INDEPENDENT, number)

    def _walk(self, number: int) -> None:
        step = 2.38 / math.sqrt(self.vae.latent_dims)  # Gelman, Roberts & Gilks 1996
        z = self.z + step * self.fitted.scale * self._eps(WALK, number)
        change = self.partial.log_joint(self.x, z) - self.partial.log_joint(self.x, self.z)
        self._accept(z, change, WALK, number)

    def _eps(self, kind: int, number: int) -> Tensor:
        draws, _, latent = self.z.shape
        return self.noise.normal((draws, latent), kind, number, 0).transpose(0, 1).to(self.z)

    def _accept(self, z: Tensor, log_ratio: Tensor, kind: int, number: int) -> None:
        u = self.noise.uniform((len(z),), kind, number, 1).mT.to(self.z.device)
        accepted = u.log() < log_ratio  # a ratio of nan is never accepted
        self.z = torch.where(accepted.unsqueeze(-1), z, self.z)
        self.accepted[kind - INDEPENDENT] += accepted.float().mean(0)


def _log_likelihood(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x_observed, hidden values are present | z), (draws, batch)."""
    law = vae.decode(z)
    assert isinstance(law, PartialObservation)
    return law.log_prob(x) + law.log_presence(x)


def _decoded(vae: VAE, z: Tensor, noise: ExampleNoise, number: int) -> Tensor:
    """x ~ p(x|z, no cell is missing), (draws, batch, *shape)."""
    u = noise.uniform((len(z), *vae.shape), DATA, number).transpose(0, 1).to(z.device)
    law = vae.decode(z)
    return (law.present() if isinstance(law, PartialObservation) else law).quantile(u)


def _checked(model: AbstractLatentVariableModel) -> VAE:
    if not isinstance(model, VAE):
        raise InputError(f"imputation by the latent variables of a {type(model).__name__}: expected a VAE")
    return model
