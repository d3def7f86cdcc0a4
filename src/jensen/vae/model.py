"""The variational autoencoder (section 4): prior, decoder, posterior, and the bounds they give."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jensen.bound import Elbo, ImportanceWeightedBound
from jensen.gaussian import Gaussian
from jensen.likelihood import AbstractLikelihood, FixedScale, Observation
from jensen.model import AbstractLatentVariableModel, Batch, Loss
from jensen.randomness import Stream, derived_seed, normal_per_example, uniform_per_example
from jensen.vae.objective import AbstractObjective, ElboObjective
from jensen.vae.posterior import AbstractPosterior, AmortisedPosterior, optimise_posterior

BLOCK = 250  # draws whose noise is generated together; part of what (seed, index) means, so not an option
ROWS = 4000  # decoder rows per chunk: large enough for the matrix kernels, small enough to stay in cache


class VAE(AbstractLatentVariableModel):
    """p(z) = N(0, I) (4.1), p(x|z) = likelihood(decoder(z)) (4.2), q = posterior (4.5), trained by `objective`.

    `decoder` maps z (batch, latent_dims) to (batch, likelihood.outputs, *shape). `fit_steps` is how long q is optimised,
    theta fixed, for examples that a per-datapoint posterior has not seen in training.
    """

    def __init__(
        self,
        posterior: AbstractPosterior,
        decoder: nn.Module,
        likelihood: AbstractLikelihood,
        objective: AbstractObjective | None = None,
        fit_steps: int = 300,
    ) -> None:
        super().__init__()
        self.posterior, self.decoder, self.likelihood = posterior, decoder, likelihood
        self.objective = objective or ElboObjective()
        self.shape, self.latent_dims, self.fit_steps = likelihood.shape, posterior.latent_dims, fit_steps

    # -- the model

    def decode(self, z: Tensor) -> Observation:
        """p(x|z) for z (*batch, latent_dims) (4.2)."""
        output = self.decoder(z.flatten(0, -2))
        return self.likelihood(output.unflatten(0, z.shape[:-1]))

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z) for z (draws, batch, latent_dims): shape (draws, batch)."""
        return self.decode(z).log_prob(x) + Gaussian.standard(z.shape, dtype=z.dtype, device=z.device).log_prob(z)

    def infer(self, x: Tensor) -> Gaussian:
        """q(z) for any x: the encoder's, or, per-datapoint, optimised here with theta fixed."""
        start = self.posterior.initial(x)
        return start if isinstance(self.posterior, AmortisedPosterior) else self.optimise(x, start)

    def optimise(self, x: Tensor, start: Gaussian, steps: int | None = None) -> Gaussian:
        """The q that maximises the bound for each x with theta fixed, from `start`."""

        def negative_elbo(q: Gaussian, eps: Tensor) -> Tensor:
            return q.kl_to_standard() - self.decode(q.mean + q.scale * eps).log_prob(x).mean(0)

        return optimise_posterior(negative_elbo, start, steps=steps or self.fit_steps)

    # -- the contract

    def loss(self, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """The objective's loss; see its docstring for the weighting of the bound it is."""
        return self.objective(self, batch, step, generator)

    @torch.no_grad()
    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        """(4.6): E_q log p(x|z) over `draws` draws, minus the KL in closed form."""
        return self.elbo_of(self.infer(x), x, draws=draws, seed=seed, index=index)

    @torch.no_grad()
    def elbo_of(self, q: Gaussian, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        """The bound (4.6) that a given q gives."""
        eps = self._noise(x, draws, seed, index)
        return Elbo.from_draws(self.decode(q.mean + q.scale * eps).log_prob(x), {"rate": q.kl_to_standard()})

    @torch.no_grad()
    def importance_weighted_bound(
        self, x: Tensor, *, samples: int, seed: int = 0, index: Tensor | None = None
    ) -> ImportanceWeightedBound:
        """L_K (4.9), K = `samples`, in chunks: memory does not grow with K. One value per example."""
        index = torch.arange(len(x)) if index is None else index
        q = self.infer(x)
        group = max(1, ROWS // min(BLOCK, samples))
        parts = [
            self._importance_group(x[rows], Gaussian(q.mean[rows], q.scale[rows]), samples, seed, index[rows])
            for rows in torch.arange(len(x)).split(group)
        ]
        fields = ("log_sum", "log_sum_of_squares", "sum_of_logs")
        return ImportanceWeightedBound(
            samples, *(torch.cat([getattr(part, name) for part in parts]) for name in fields)
        )

    def _importance_group(
        self, x: Tensor, q: Gaussian, samples: int, seed: int, index: Tensor
    ) -> ImportanceWeightedBound:
        total: ImportanceWeightedBound | None = None
        for block, start in enumerate(range(0, samples, BLOCK)):
            eps = self._noise(x, BLOCK, seed, index, block)[: samples - start]
            z = q.mean + q.scale * eps
            part = ImportanceWeightedBound.from_log_weights(self.log_joint(x, z) - q.log_prob(z))
            total = part if total is None else total + part
        assert total is not None
        return total

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, first: int = 0) -> Tensor:
        """Ancestral: z ~ p(z), x ~ p(x|z)."""
        u = uniform_per_example(seed, range(first, first + n), self.shape, 1).to(self.device)
        return self._decode_prior(n, seed, first).quantile(u)

    @torch.no_grad()
    def sample_mean(self, n: int, *, seed: int = 0, first: int = 0) -> Tensor:
        """z ~ p(z), then E[x|z]."""
        return self._decode_prior(n, seed, first).mean

    @torch.no_grad()
    def encode(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
        """The mean of q(z|x)."""
        return self.infer(x).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
        """E[x|z] at the mean of q(z|x)."""
        return self.decode(self.encode(x)).mean

    def further_bounds(
        self, x: Tensor, *, samples: int, seed: int = 0, index: Tensor | None = None
    ) -> dict[str, Elbo | ImportanceWeightedBound]:
        """The bound with q optimised per example from where `infer` leaves it, and L_K with K = `samples`.

        Optimised minus encoder bound is the amortisation gap (Cremer et al. 2018).
        """
        optimised = self.optimise(x, self.infer(x))
        return {
            "optimised ELBO": self.elbo_of(optimised, x, draws=16, seed=seed, index=index),
            f"L_{samples}": self.importance_weighted_bound(x, samples=samples, seed=seed, index=index),
        }

    @torch.no_grad()
    def diagnostics(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> dict[str, float]:
        """Active units: latent dimensions whose posterior mean varies by more than 0.01 over x (Burda et al. 2016)."""
        mean = self.encode(x)
        found = {"active units": float((mean.var(0) > 0.01).sum()), "latent dimensions": float(self.latent_dims)}
        return found | self._scale_diagnostics(mean)

    def _scale_diagnostics(self, z: Tensor) -> dict[str, float]:
        scale = getattr(self.likelihood, "scale", None)
        if scale is None or isinstance(scale, FixedScale):
            return {}
        values = self.decode(z).scale  # type: ignore[attr-defined]
        return {
            "decoder scale, mean": float(values.mean()),
            "decoder scale, floor": scale.floor,
            "share of scales at the floor": float((values < 1.01 * scale.floor).float().mean()),
        }

    # -- noise

    def _noise(self, x: Tensor, draws: int, seed: int, index: Tensor | None, *path: int) -> Tensor:
        """Standard normal (draws, batch, latent_dims), example i's a function of (seed, index[i], path) alone."""
        numbers: Sequence[int] = range(len(x)) if index is None else index.tolist()
        stream = derived_seed(seed, Stream.EVALUATION)
        return normal_per_example(stream, numbers, (draws, self.latent_dims), *path).transpose(0, 1).to(x)

    def _decode_prior(self, n: int, seed: int, first: int) -> Observation:
        return self.decode(normal_per_example(seed, range(first, first + n), (self.latent_dims,), 0).to(self.device))
