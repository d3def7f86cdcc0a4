"""A diffusion model as p(z): its bound (5.11) on log p(z) makes the ELBO of the VAE a bound on log p(x).

For z ~ q(z|x) and u = (z - shift) / scale with the fixed moments of z,

    log p(x) >= E_q [log p(x|z) - log q(z|x) + log p(z)],      log p(z) = log p(u) - Σ_d log scale_d,
    log p(u) >= -L_0 - Σ_t L_{t-1} - L_T                       by the diffusion model, (5.11) with u as x_0.

Both inequalities are Jensen's (3.2), so the gap is the sum of KL(q(z|x) || p(z|x)) and E_q of the gap of the diffusion
model. Sources: Vahdat, Kreis & Kautz 2021 (the bound and joint training); Rombach et al. 2022 (two stages).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from jensen.bound import Elbo
from jensen.diffusion.model import DiffusionModel
from jensen.diffusion.weighting import AbstractDenoisingObjective
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.latent.moments import Moments
from jensen.model import Batch, Loss, Prediction
from jensen.randomness import Noise, Stream, derived_seed
from jensen.vae.prior import AbstractPrior, StandardNormal

PURPOSE = 11  # separates the random numbers of the prior from those of the VAE with the same seed
ENTROPY, LATENT = "entropy", "latent reconstruction"


class DiffusionPrior(AbstractPrior):
    """p(z) or p(z|y) by a diffusion `model` of the standardised z, u = (z - shift) / scale.

    u has the shape of the model. The prior gives a lower bound on log p(z), not log p(z) itself. Before training, the
    prior is N(0, I) if the output of the network starts at zero and the parameterisation is that of EDM with sigma_data
    = 1, because such a model is the exact denoiser of N(0, I).
    """

    exact = False
    usual_draws, usual_further_examples, usual_referee_examples = 2, 50, 20

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__(math.prod(model.shape))
        self.model, self.moments = model, Moments(model.shape)

    # -- scores

    def log_prob(self, z: Tensor) -> Tensor:
        raise InputError(
            "a diffusion prior gives a lower bound on log p(z), not log p(z): L_K, annealed importance sampling and an "
            "optimised q need log p(z); use the ELBO, or train a vae"
        )

    def rates(
        self,
        q: Gaussian,
        z: Tensor,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Mapping[str, Tensor]:
        """The four terms of log q(z|x) - bound of log p(z), each (draws, batch).

        `entropy` is log q(z|x), whose mean over draws estimates the negative entropy of q. `latent reconstruction` is
        L_0 + Σ_d log scale_d, where scale_d is the `moments.scale` of z_d. `denoising` is Σ_t L_{t-1} over t >= 2, and
        `prior` is L_T. Each draw of z has its own noise in the diffusion model.
        """

        def bound(u: Tensor, seed: int) -> Elbo:
            return self.model.elbo(u, seed=seed, index=index, labels=labels)

        elbos = _of_draws(bound, self.moments(z), seed)
        of_u = {name: torch.stack([elbo.rates[name] for elbo in elbos]).to(z) for name in elbos[0].rates}
        reconstruction = torch.stack([elbo.reconstruction for elbo in elbos]) + self.moments.log_volume
        return {ENTROPY: q.log_prob(z), LATENT: -reconstruction.to(z), **of_u}

    @property
    def variants(self) -> Mapping[str, AbstractPrior]:
        """Two other priors: the density of the flow by the same network, and N(0, I)."""
        return {"ELBO, flow prior": FlowPrior(self), "ELBO, N(0, I) prior": StandardNormal(self.latent_dims)}

    @torch.no_grad()
    def diagnostics(self, z: Tensor) -> dict[str, float]:
        """The ends of the chain, the largest L_T, and the range of the scales of z."""
        found = self.model.diagnostics(self.moments(z))
        scale = self.moments.scale
        return found | {"scale of z, smallest": float(scale.min()), "scale of z, largest": float(scale.max())}

    # -- training

    def loss(
        self, z: Tensor, batch: Batch, *, noise: Noise, objective: AbstractDenoisingObjective | None = None
    ) -> Loss:
        """The loss of the diffusion model on u, given z (batch, latent_dims); the default objective is the model's."""
        return self.model.loss_by(objective or self.model.objective, replace(batch, x=self.moments(z)), noise)

    def observe(self, noted: Mapping[str, Tensor]) -> None:
        """Add to the moments of z if the batch was measured, and record the errors of denoising if u was denoised."""
        if "latent_mean" in noted:
            self.moments.observe(noted["latent_mean"], noted["latent_square"])
        if "squared_error" in noted:
            self.model.observe(noted)

    # -- draws

    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draws of the diffusion model's sampler (5.19), with its guidance; by default the `known_labels` in turn."""
        seed = derived_seed(seed, Stream.SAMPLE, PURPOSE)
        return self.moments.back(self.model.sample(n, seed=seed, first=first, labels=labels))

    def to_normal(self, z: Tensor) -> Tensor:
        """The end u_T of the probability-flow ODE (5.20) from u, flattened."""
        return self.model.encode(self.moments(z))

    def from_normal(self, normal: Tensor) -> Tensor:
        """z at the other end of the flow."""
        return self.moments.back(self.model.decode_mean(normal))

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.model.networks

    # -- labels

    @property
    def classes(self) -> int | None:
        return self.model.classes

    @property
    def known_labels(self) -> tuple[int, ...]:
        return self.model.known_labels

    @property
    def label_draws(self) -> int:
        return self.model.scoring.race.draws

    def predict(self, z: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Prediction:
        """p(y|x) ∝ p(y) exp E_q bound of log p(z|y) (1.4); log p(x|z) and log q(z|x) are the same for every y."""
        return self.model.predict_mean(self.moments(z), seed=derived_seed(seed, PURPOSE), index=index)


class FlowPrior(AbstractPrior):
    """p(z) by the probability-flow ODE (5.20) of a diffusion prior; the network is the same, the density is another.

    The value of log p(z) has an error, which comes from the tolerance of the ODE and, in more than a few dimensions,
    from the noise of the trace. L_K would turn the noise into a bias, so the prior counts as not exact.
    """

    exact = False
    usual_draws = 1

    def __init__(self, prior: DiffusionPrior) -> None:
        super().__init__(prior.latent_dims)
        self.prior = prior

    def log_prob(self, z: Tensor) -> Tensor:
        return self.prior.log_prob(z)

    def rates(
        self,
        q: Gaussian,
        z: Tensor,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Mapping[str, Tensor]:
        """The two terms of log q(z|x) - log p(z), each (draws, batch): `entropy` is log q(z|x), `flow` is -log p(z)."""
        prior = self.prior

        def density(u: Tensor, seed: int) -> Elbo:
            return prior.model.ode_bound(u, samples=1, seed=seed, index=index, labels=labels)

        values = torch.stack([elbo.value for elbo in _of_draws(density, prior.moments(z), seed)])
        return {ENTROPY: q.log_prob(z), "flow": -(values + prior.moments.log_volume).to(z)}

    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        return self.prior.sample(n, seed=seed, first=first, labels=labels)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.prior.networks


def _of_draws(bound: Callable[[Tensor, int], Elbo], u: Tensor, seed: int) -> list[Elbo]:
    """The bound on log p(u) of each draw, for u (draws, batch, *shape); each draw has a seed of its own."""
    return [bound(draw, derived_seed(seed, PURPOSE, number)) for number, draw in enumerate(u)]
