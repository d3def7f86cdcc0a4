"""The variational autoencoder (section 4): prior, decoder, posterior, and the bounds they give."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from jensen.bound import AnnealedEstimate, Elbo, ImportanceWeightedBound
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.likelihood import AbstractLikelihood, Observation
from jensen.model import AbstractLatentVariableModel, Batch, Bracket, Effort, Estimator, Loss, Prediction
from jensen.randomness import Noise, Stream, derived_seed, normal_per_example, uniform_per_example
from jensen.vae.annealing import Annealing
from jensen.vae.missing import PartlyObserved
from jensen.vae.objective import AbstractVAEObjective, ElboObjective
from jensen.vae.posterior import AbstractPosterior, AmortisedPosterior, optimise_posterior
from jensen.vae.predict import TargetPrediction, predict_labels, predict_targets
from jensen.vae.referee import annealed_bound, bracket, estimators
from jensen.vae.target import AbstractTarget, ContinuousTarget, LabelTarget

Target = TypeVar("Target", bound=AbstractTarget)
PREDICTION_DRAWS = 1000  # usual for p(y|x):

BLOCK = 100  # draws whose noise is generated together; part of what (seed, index) means, so not an option
ELEMENTS = {"cpu": 1 << 20, "gpu": 1 << 24}  # of x, decoded together: what a CPU's caches hold, what fills a GPU


class VAE(AbstractLatentVariableModel):
    """p(z) = N(0, I) (4.1), p(x|z) = likelihood(decoder(z)) (4.2), q = posterior (4.5), trained by `objective`.

    `decoder` maps z (batch, latent_dims) to (batch, likelihood.outputs, *shape). `fit_steps` is how long q is
    optimised, theta fixed, for examples that a per-datapoint posterior has not seen in training. With a `target` it is
    the joint model p(x, y, z) = p(z) p(x|z) p(y|z): the loss is then about log p(x, y), `elbo` still about log p(x).
    """

    def __init__(
        self,
        posterior: AbstractPosterior,
        decoder: nn.Module,
        likelihood: AbstractLikelihood,
        objective: AbstractVAEObjective | None = None,
        fit_steps: int = 300,
        target: AbstractTarget | None = None,
    ) -> None:
        super().__init__()
        self.target = target
        self.posterior, self.decoder, self.likelihood = posterior, decoder, likelihood
        self.objective = objective or ElboObjective()
        self.shape, self.latent_dims, self.fit_steps = likelihood.shape, posterior.latent_dims, fit_steps

    # -- the model

    def decode(self, z: Tensor) -> Observation:
        """p(x|z) for z (*batch, latent_dims) (4.2)."""
        return self.likelihood(self._decoder_output(z))

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z) for z (draws, batch, latent_dims): shape (draws, batch)."""
        prior = Gaussian.standard(z.shape[-1:], dtype=z.dtype, device=z.device)  # (4.1)
        return self.decode(z).log_prob(x) + prior.log_prob(z)

    def log_target(self, batch: Batch, z: Tensor) -> Tensor | float:
        """log p(y|z) of the batch's y for z (draws, batch, latent_dims), (draws, batch); 0 without a target."""
        return 0.0 if self.target is None else self.target.log_prob(z, batch)

    def infer(self, x: Tensor) -> Gaussian:
        """q(z) for any x: the encoder's, or, per-datapoint, optimised here with theta fixed."""
        start = self.posterior.initial(x)
        return start if isinstance(self.posterior, AmortisedPosterior) else self.optimise(x, start)

    def partly_observed(self) -> "VAE":
        """This model, its weights shared, for x with missing values: bounds and q are those of the observed ones.

        A missing value is NaN in x. A draw of x still has every dimension.
        """
        if isinstance(self.likelihood, PartlyObserved):
            return self
        likelihood = PartlyObserved(self.likelihood)
        return VAE(self.posterior, self.decoder, likelihood, self.objective, self.fit_steps, self.target).train(
            self.training
        )

    def optimise(self, x: Tensor, start: Gaussian, steps: int | None = None) -> Gaussian:
        """The q that maximises the bound for each x with theta fixed, from `start`.

        By the gradient through z alone (Roeder et al. 2017), whose noise vanishes where q is the posterior.
        """

        def negative_elbo(q: Gaussian, eps: Tensor) -> Tensor:
            z = q.mean + q.scale * eps
            return (q.detach().log_prob(z) - self.log_joint(x, z)).mean(0)

        return optimise_posterior(negative_elbo, start, steps=self.fit_steps if steps is None else steps)

    # -- the contract

    def loss(self, batch: Batch, *, step: int, noise: Noise) -> Loss:
        """The objective's loss; see its docstring for the weighting of the bound it is."""
        return self.objective(self, batch, step, noise)

    @torch.no_grad()
    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        """(4.6): E_q log p(x|z) over `draws` draws, minus the KL in closed form."""
        return self.elbo_of(self.infer(x), x, draws=draws, seed=seed, index=index)

    @torch.no_grad()
    def elbo_of(self, q: Gaussian, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        """The bound (4.6) that a given q gives."""
        eps = self._noise(x, draws, seed, _numbers(x, index))
        return Elbo.from_draws(self.decode(q.mean + q.scale * eps).log_prob(x), {"rate": q.kl_to_standard()})

    def importance_weighted_bound(
        self, x: Tensor, *, samples: int, seed: int = 0, index: Tensor | None = None
    ) -> ImportanceWeightedBound:
        """L_K (4.9), K = `samples`, one value per example. In chunks: memory does not grow with K."""
        return self.importance_weighted_bound_of(self.infer(x), x, samples=samples, seed=seed, index=index)

    @torch.no_grad()
    def importance_weighted_bound_of(
        self, q: Gaussian, x: Tensor, *, samples: int, seed: int = 0, index: Tensor | None = None
    ) -> ImportanceWeightedBound:
        """The L_K (4.9) that a given q gives."""
        return ImportanceWeightedBound.concatenate(
            [_importance_bound(draws, samples) for draws in self._weighted_draws(q, x, samples, seed, index)]
        )

    # -- p(y|x)

    @property
    def predicted_classes(self) -> int | None:
        """Of the target, where it is labels."""
        return self.target.classes if isinstance(self.target, LabelTarget) else None

    @torch.no_grad()
    def joint_elbo(self, batch: Batch, *, draws: int = 1, seed: int = 0) -> Elbo:
        """The bound on log p(x, y) with q(z|x): E_q [log p(x|z) + log p(y|z)] - KL(q(z|x) || p(z)), in nats.

        `reconstruction` is that of x and y. Raises `InputError` for a model or a batch without y.
        """
        q, x = self.infer(batch.x), batch.x
        z = q.mean + q.scale * self._noise(x, draws, seed, batch.index.tolist())
        if self.target is None:
            raise InputError(_untrained("any y"))
        return Elbo.from_draws(self.decode(z).log_prob(x) + self.log_target(batch, z), {"rate": q.kl_to_standard()})

    @torch.no_grad()
    def predict(self, x: Tensor, *, draws: int | None = None, seed: int = 0, index: Tensor | None = None) -> Prediction:
        """p(y|x) over labels (1.4), by `draws` weighted draws from q(z|x), by default 1,000: `jensen.vae.predict`."""
        target = self._target(LabelTarget)
        groups = self._weighted_draws(self.infer(x), x, draws or PREDICTION_DRAWS, seed, index)
        return Prediction.concatenate([predict_labels(target, group) for group in groups])

    @torch.no_grad()
    def predict_targets(
        self, x: Tensor, *, draws: int | None = None, seed: int = 0, index: Tensor | None = None
    ) -> TargetPrediction:
        """p(y|x) over continuous y (1.4), in the same way: a mixture of `draws` normals for each example."""
        target = self._target(ContinuousTarget)
        groups = self._weighted_draws(self.infer(x), x, draws or PREDICTION_DRAWS, seed, index)
        return TargetPrediction.concatenate([predict_targets(target, group) for group in groups])

    def _target(self, kind: type[Target]) -> Target:
        if not isinstance(self.target, kind):
            raise InputError(_untrained("labels" if kind is LabelTarget else "continuous targets"))
        return self.target

    # -- importance sampling

    def _weighted_draws(
        self, q: Gaussian, x: Tensor, samples: int, seed: int, index: Tensor | None
    ) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """For each group of examples the chunks of its draws z ~ q (draws, group, latent_dims), with log w (4.9)."""
        numbers = _numbers(x, index)
        rows = ELEMENTS["cpu" if x.device.type == "cpu" else "gpu"] // math.prod(self.shape)
        group = max(1, rows // min(BLOCK, samples))  # examples
        for start in range(0, len(x), group):
            part = slice(start, start + group)
            yield self._chunks(Gaussian(q.mean[part], q.scale[part]), x[part], samples, seed, numbers[part])

    def _chunks(
        self, q: Gaussian, x: Tensor, samples: int, seed: int, numbers: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for block, start in enumerate(range(0, samples, BLOCK)):
            eps = self._noise(x, min(BLOCK, samples - start), seed, numbers, block)
            z = q.mean + q.scale * eps
            yield z, self.log_joint(x, z) - q.log_prob(z)

    # -- samples and codes

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """Ancestral: z ~ p(z), x ~ p(x|z). Knows no labels."""
        _refuse(labels)
        u = uniform_per_example(seed, range(first, first + n), self.shape, 1).to(self.device)
        return self._decode_prior(n, seed, first).quantile(u)

    @torch.no_grad()
    def sample_mean(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """z ~ p(z), then E[x|z]. Knows no labels."""
        _refuse(labels)
        return self._decode_prior(n, seed, first).mean

    @torch.no_grad()
    def encode(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
        """The mean of q(z|x)."""
        return self.infer(x).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
        """E[x|z] at the mean of q(z|x)."""
        return self.decode(self.encode(x)).mean

    @torch.no_grad()
    def further_bounds(
        self, x: Tensor, *, samples: int, seed: int = 0, index: Tensor | None = None
    ) -> dict[str, Elbo | ImportanceWeightedBound]:
        """The bound with q optimised per example from where `infer` leaves it, and L_K with K = `samples`.

        Optimised minus encoder bound is the amortisation gap (Cremer et al. 2018).
        """
        q = self.infer(x)
        return {
            "optimised ELBO": self.elbo_of(self.optimise(x, q), x, draws=16, seed=seed, index=index),
            f"L_{samples}": self.importance_weighted_bound_of(q, x, samples=samples, seed=seed, index=index),
        }

    def annealed_bound(
        self, x: Tensor, annealing: Annealing | None = None, *, seed: int = 0, index: Tensor | None = None
    ) -> AnnealedEstimate:
        """log p(x) by annealed importance sampling, a stochastic lower bound."""
        return annealed_bound(self, x, annealing or Annealing(), seed=seed, numbers=_numbers(x, index))

    def estimators(self, effort: Effort) -> Sequence[Estimator]:
        """ELBO, optimised ELBO, L_K and annealed importance sampling."""
        return estimators(self, effort)

    def bracket(self, n: int, effort: Effort, *, seed: int = 0, first: int = 0) -> Bracket:
        """log p(x) of samples by annealed importance sampling forwards, and backwards from the z they were made of."""
        return bracket(self, n, Annealing(effort.temperatures, effort.chains), seed=seed, first=first)

    @torch.no_grad()
    def diagnostics(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> dict[str, float]:
        """Active units: latent dimensions whose posterior mean varies by more than 0.01 over x (Burda et al. 2016)."""
        mean = self.encode(x)
        found = {
            "active units": float((mean.var(0, correction=0) > 0.01).sum()),
            "latent dimensions": float(self.latent_dims),
        }
        return found | self.likelihood.diagnostics(self._decoder_output(mean))

    def _decoder_output(self, z: Tensor) -> Tensor:
        """(*batch, outputs, *shape), in the precision of z, also where autocast runs the decoder in another."""
        output = self.decoder(z.flatten(0, -2)).to(z.dtype)
        return output.reshape(*z.shape[:-1], *output.shape[1:])

    # -- noise

    def _noise(self, x: Tensor, draws: int, seed: int, numbers: Sequence[int], *path: int) -> Tensor:
        """Standard normal (draws, batch, latent_dims), example i's a function of (seed, numbers[i], path) alone."""
        stream = derived_seed(seed, Stream.EVALUATION)
        return normal_per_example(stream, numbers, (draws, self.latent_dims), *path).transpose(0, 1).to(x)

    def _decode_prior(self, n: int, seed: int, first: int) -> Observation:
        return self.decode(self.prior_draws(n, seed=seed, first=first))

    def prior_draws(self, n: int, *, seed: int = 0, first: int = 0) -> Tensor:
        """The z that `sample` decodes to the samples first..first+n-1, (n, latent_dims)."""
        z = normal_per_example(seed, range(first, first + n), (self.latent_dims,), 0)
        return z.to(next(self.parameters()))


def _numbers(x: Tensor, index: Tensor | None) -> Sequence[int]:
    """Which example each row of x is."""
    return range(len(x)) if index is None else index.tolist()


def _importance_bound(draws: Iterator[tuple[Tensor, Tensor]], samples: int) -> ImportanceWeightedBound:
    total: ImportanceWeightedBound | None = None
    for _, log_weights in draws:
        part = ImportanceWeightedBound.from_log_weights(log_weights, samples)
        total = part if total is None else total + part
    assert total is not None
    return total


def _untrained(of: str) -> str:
    kind = "target" if of == "continuous targets" else "label"
    return f"the model was trained without {of}, so it has no p(y|x) of them; try: jensen train vae --predict {kind}"


def _refuse(labels: Tensor | None) -> None:
    if labels is not None:
        raise InputError("got labels for a variational autoencoder, which knows none; leave the labels out")
