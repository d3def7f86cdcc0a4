"""The variational autoencoder (section 4): prior, decoder, posterior, and bounds on log p(x)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from jensen.bound import AnnealedEstimate, Elbo, ImportanceWeightedBound
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.likelihood import AbstractLikelihood, Observation
from jensen.model import (
    AbstractLatentVariableModel,
    Batch,
    Bracket,
    Codes,
    Effort,
    Estimator,
    Loss,
    Prediction,
    TargetPrediction,
)
from jensen.randomness import Noise, Stream, derived_seed, normal_per_example, uniform_per_example
from jensen.vae.annealed import annealed_bound, annealed_bracket
from jensen.vae.annealing import Annealing, FromPosterior, FromPrior
from jensen.vae.missing import PartlyObserved
from jensen.vae.objective import AbstractJoint, AbstractVAEObjective, ElboObjective
from jensen.vae.posterior import AbstractPosterior, active_units, optimise_posterior
from jensen.vae.predict import predict_labels, predict_targets
from jensen.vae.prior import AbstractPrior, StandardNormal
from jensen.vae.sequential import Draw, Posterior, drawn
from jensen.vae.target import AbstractTarget, ContinuousTarget, LabelTarget

Target = TypeVar("Target", bound=AbstractTarget)
PREDICTION_DRAWS = 1000  # default number for p(y|x)
BLOCK = 100  # number of draws with noise from one call; not an option, as it changes the noise of a seed
ELEMENTS = {"cpu": 1 << 20, "gpu": 1 << 24}  # values of x decoded together; they fit a CPU's caches, and fill a GPU


class VAE(AbstractLatentVariableModel, AbstractJoint):  # in this order, or sharding cannot change its class
    """p(z) = prior (4.1), p(x|z) = likelihood(decoder(z)) (4.2), q = posterior (4.5), trained by `objective`.

    The default prior is N(0, I). If the prior is not exact, only the ELBO is available; L_K, annealed importance
    sampling and an optimised q raise `InputError`. With labels, the prior is p(z|y), and the model draws x given y.
    `decoder` maps z (batch, latent_dims) to (batch, likelihood.outputs, *shape). A per-datapoint posterior has a q only
    for training examples. For every other example, `fit_steps` steps optimise a new q with theta fixed. With a `target`
    the model is p(x, y, z) = p(z) p(x|z) p(y|z). The loss then bounds log p(x, y), while `elbo` bounds log p(x).
    """

    def __init__(
        self,
        posterior: AbstractPosterior,
        decoder: nn.Module,
        likelihood: AbstractLikelihood,
        objective: AbstractVAEObjective | None = None,
        fit_steps: int = 300,
        target: AbstractTarget | None = None,
        prior: AbstractPrior | None = None,
    ) -> None:
        super().__init__()
        self.target = target
        self.prior = StandardNormal(posterior.latent_dims) if prior is None else prior
        self.usual_draws, self.usual_further_examples, self.usual_referee_examples = (
            self.prior.usual_draws,
            self.prior.usual_further_examples,
            self.prior.usual_referee_examples,
        )
        self.posterior, self.decoder, self.likelihood = posterior, decoder, likelihood
        self.objective = objective or ElboObjective()
        self.shape, self.latent_dims, self.fit_steps = likelihood.shape, posterior.latent_dims, fit_steps

    # -- the model

    def decode(self, z: Tensor) -> Observation:
        """p(x|z) (4.2) for z (*batch, latent_dims)."""
        return self.likelihood(self._decoder_output(z))

    def draw(self, q: Posterior, eps: Tensor) -> tuple[Draw, Observation]:
        """z ~ q by eps (*draws, batch, latent_dims) (4.7), and p(x|z) (4.2)."""
        draw = drawn(q, eps)
        if draw.output is None:
            return draw, self.decode(draw.z)
        output = draw.output.to(draw.z.dtype)
        return draw, self.likelihood(output.reshape(*draw.z.shape[:-1], *output.shape[1:]))

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) = log p(x|z) + log p(z), shape (draws, batch), for z (draws, batch, latent_dims)."""
        return self.decode(z).log_prob(x) + self.prior.log_prob(z)

    def log_joint_of_noise(self, q: Posterior, x: Tensor, eps: Tensor) -> Tensor:
        """log p(x, z) |dz/deps| for z(eps) as in (4.7): the joint density in the coordinates in which q is N(0, I)."""
        standard = Gaussian.standard(eps.shape[-1:], dtype=eps.dtype, device=eps.device)
        return self._log_weights(q, x, eps)[1] + standard.log_prob(eps)

    def log_target(self, batch: Batch, z: Tensor) -> Tensor | float:
        """log p(y|z) of the batch's y, shape (draws, batch), for z (draws, batch, latent_dims); 0 without a target."""
        return 0.0 if self.target is None else self.target.log_prob(z, batch)

    def infer(self, x: Tensor) -> Posterior:
        """q(z) for any x: the encoder's q or, without an encoder, a q optimised now with theta fixed."""
        start = self.posterior.initial(x)
        return start if self.posterior.amortised else self.optimise(x, start)

    def partly_observed(self) -> "VAE":
        """The same model, with shared weights, for x with missing values (NaN).

        Bounds and q use only the observed values. Samples of x still have all dimensions. Raises `InputError` for a
        likelihood with dependent dimensions.
        """
        if isinstance(self.likelihood, PartlyObserved):
            return self
        if not self.likelihood.factorises:
            raise InputError(
                "missing values need channels that are independent given z, but likelihood logistic-mixture makes them "
                "depend on each other; train with --likelihood discretised-logistic"
            )
        return self._changed(likelihood=PartlyObserved(self.likelihood))

    def with_prior(self, prior: AbstractPrior, objective: AbstractVAEObjective | None = None) -> "VAE":
        """The same encoder, decoder and target, with shared weights, and another prior: another model of x."""
        return self._changed(prior=prior, objective=objective or self.objective)

    def _settled(self) -> "VAE":
        """The same model with a prior that is cheap to score many times; theta gets no gradient through it."""
        prior = self.prior.settled()
        return self if prior is self.prior else self._changed(prior=prior)

    def _changed(
        self,
        *,
        likelihood: AbstractLikelihood | None = None,
        prior: AbstractPrior | None = None,
        objective: AbstractVAEObjective | None = None,
    ) -> "VAE":
        return VAE(
            self.posterior,
            self.decoder,
            likelihood or self.likelihood,
            objective or self.objective,
            self.fit_steps,
            self.target,
            prior or self.prior,
        ).train(self.training)

    def optimise(self, x: Tensor, start: Posterior, steps: int | None = None) -> Posterior:
        """The q that maximises the bound for each x with theta fixed, from `start`.

        The gradient goes only through z (Roeder et al. 2017), so it has no noise if q is the posterior. If `start` is a
        product of factors, the search is for a normal law of the noise of all factors, so it starts at N(0, I).
        """
        model = self._settled()
        if isinstance(start, Gaussian):
            within, log_joint = start, partial(model.log_joint, x)
        else:
            within = Gaussian.standard(start.shape, dtype=x.dtype, device=x.device)
            log_joint = partial(model.log_joint_of_noise, start, x)

        def negative_elbo(q: Gaussian, eps: Tensor) -> Tensor:
            z = q.mean + q.scale * eps
            return (q.detach().log_prob(z) - log_joint(z)).mean(0)

        found = optimise_posterior(negative_elbo, within, steps=self.fit_steps if steps is None else steps)
        return found if isinstance(start, Gaussian) else start.refined(found)

    # -- the contract

    def loss(self, batch: Batch, *, step: int, noise: Noise) -> Loss:
        """The objective's loss; the docstring of the objective says how the loss weights the bound."""
        return self.objective(self, batch, step, noise)

    def observe(self, noted: Mapping[str, Tensor]) -> None:
        """Record in the prior the values that the prior noted."""
        self.prior.observe(noted)

    @property
    def stages(self) -> tuple[int, ...]:
        """The first steps of the later stages of the objective."""
        return self.objective.stages

    @property
    def warmup(self) -> int:
        """The number of first steps in which the objective's weights still change."""
        return self.objective.warmup

    @torch.no_grad()
    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        """The ELBO (4.6): E_q log p(x|z), averaged over `draws` draws, minus the prior's `rates`, such as the KL."""
        return self.elbo_of(self.infer(x), x, draws=draws, seed=seed, index=index)

    @torch.no_grad()
    def elbo_of(self, q: Posterior, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        """The bound (4.6) with a given q."""
        draw, law = self.draw(q, self._noise(x, draws, seed, _numbers(x, index)))
        return Elbo.from_draws(law.log_prob(x), self.prior.rates(draw.law, draw.z, seed=seed, index=index))

    @torch.no_grad()
    def reconstruction_by_dimension(
        self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None
    ) -> Tensor:
        """E_q log p(x_d|z) of each dimension d, (batch, *shape): the terms of the reconstruction in (4.6)."""
        _, law = self.draw(self.infer(x), self._noise(x, draws, seed, _numbers(x, index)))
        return law.log_prob_by_dimension(x).mean(0)

    def importance_weighted_bound(
        self, x: Tensor, *, samples: int, seed: int = 0, index: Tensor | None = None
    ) -> ImportanceWeightedBound:
        """L_K (4.9) with K = `samples`, one value per example; chunks of draws keep memory independent of K."""
        return self.importance_weighted_bound_of(self.infer(x), x, samples=samples, seed=seed, index=index)

    @torch.no_grad()
    def importance_weighted_bound_of(
        self, q: Posterior, x: Tensor, *, samples: int, seed: int = 0, index: Tensor | None = None
    ) -> ImportanceWeightedBound:
        """L_K (4.9) with a given q."""
        return ImportanceWeightedBound.concatenate(
            [_importance_bound(draws, samples) for draws in self._settled()._weighted_draws(q, x, samples, seed, index)]
        )

    def annealed_bound(
        self, x: Tensor, annealing: Annealing | None = None, *, seed: int = 0, index: Tensor | None = None
    ) -> AnnealedEstimate:
        """log p(x) by annealed importance sampling, a stochastic lower bound, one value per example."""
        how, numbers, q = annealing or Annealing(), _numbers(x, index), self._proposal(x)
        if isinstance(q, Gaussian) or isinstance(how.start, FromPrior):
            return annealed_bound(self._joints(x), _as_gaussian(q), x, how, seed=seed, numbers=numbers)
        # In the coordinates eps, the path starts at q itself: q is N(0, I) there
        standard = Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.mean))
        return annealed_bound(
            lambda rows: partial(self.log_joint_of_noise, q[rows], x[rows]),
            standard,
            x,
            how,
            seed=seed,
            numbers=numbers,
        )

    def bracket(self, n: int, effort: Effort, *, seed: int = 0, first: int = 0) -> Bracket | None:
        """A lower and an upper bound on log p(x) of samples, by annealed importance sampling.

        For the lower bound, chains run to the posterior. For the upper bound, chains start at the z of each sample and
        run backwards. The result is None if the prior is not exact.
        """
        if not self.prior.exact:
            return None
        annealing, numbers = Annealing(effort.temperatures, effort.chains), range(first, first + n)
        x, exact = self.sample(n, seed=seed, first=first), self.prior_draws(n, seed=seed, first=first)
        q = _as_gaussian(self._proposal(x))
        return annealed_bracket(self._joints(x), q, x, exact, annealing, seed=seed, numbers=numbers)

    def _joints(self, x: Tensor, q: Posterior | None = None) -> Callable[[slice], Callable[[Tensor], Tensor]]:
        """For rows of x, log p(x, z) as a function of z or, given q, of the noise of q."""
        model = self._settled()
        if q is None:
            return lambda rows: partial(model.log_joint, x[rows])
        return lambda rows: partial(model.log_joint_of_noise, q[rows], x[rows])

    def estimators(self, effort: Effort) -> Sequence[Estimator]:
        """ELBO, optimised ELBO, L_K and annealed importance sampling (AIS): lower bounds, from loose to tight.

        Inference gap = approximation gap + amortisation gap (Cremer et al. 2018). Here L_K, a lower bound, replaces log
        p(x). L_K usually exceeds the optimised ELBO. But the two use different q, so no theorem says so, and no claim
        is checked. If the prior is not exact, the ELBO is the only bound. A VAE with one of the `variants` of the prior
        is another model, so no claim compares its ELBO.
        """
        draws, networks = effort.draws or self.usual_draws, self._networks
        importance = f"L_{effort.samples}"

        def encoder(x: Tensor, seed: int, index: Tensor) -> Elbo:
            return self.elbo(x, draws=draws, seed=seed, index=index)

        def optimised(x: Tensor, seed: int, index: Tensor) -> Elbo:
            return self.elbo_of(self.optimise(x, self._proposal(x)), x, draws=draws, seed=seed, index=index)

        def weighted(x: Tensor, seed: int, index: Tensor) -> ImportanceWeightedBound:
            q = self._proposal(x)
            return self.importance_weighted_bound_of(q, x, samples=effort.samples, seed=seed, index=index)

        if not self.prior.exact:
            return [Estimator("ELBO", encoder, networks), *self._variant_estimators(draws)]
        above = "optimised ELBO", importance, "AIS"
        gaps = {"optimised ELBO": "amortisation gap", importance: "inference gap, at least"}
        gap = {importance: "approximation gap, at least"}
        return [
            Estimator("ELBO", encoder, networks, at_most=above, gaps=gaps),
            Estimator("optimised ELBO", optimised, networks, at_most=("AIS",), gaps=gap),
            Estimator(importance, weighted, networks, at_most=("AIS",), equal=("AIS",)),
            *self._annealed_estimators(effort),
        ]

    def _annealed_estimators(self, effort: Effort) -> list[Estimator]:
        def estimator(name: str, annealing: Annealing, equal: tuple[str, ...] = ()) -> Estimator:
            def annealed(x: Tensor, seed: int, index: Tensor) -> AnnealedEstimate:
                return self.annealed_bound(x, annealing, seed=seed, index=index)

            return Estimator(name, annealed, self._networks, equal=equal)

        found = []
        if effort.temperatures:
            found.append(estimator("AIS", Annealing(effort.temperatures, effort.chains)))
        if effort.temperatures_from_q:
            from_q = Annealing(effort.temperatures_from_q, effort.chains, start=FromPosterior())
            found.append(estimator("AIS from q", from_q, equal=("AIS",)))
        return found

    def _variant_estimators(self, draws: int) -> list[Estimator]:
        def estimator(name: str, prior: AbstractPrior) -> Estimator:
            other = self.with_prior(prior)

            def bound(x: Tensor, seed: int, index: Tensor) -> Elbo:
                return other.elbo(x, draws=min(draws, prior.usual_draws), seed=seed, index=index)

            return Estimator(name, bound, other._networks)

        return [estimator(name, prior) for name, prior in self.prior.variants.items()]

    @property
    def _networks(self) -> tuple[nn.Module, ...]:
        """The networks that an estimate of log p(x) evaluates."""
        decoder = getattr(self.decoder, "last_layer", self.decoder)  # a top-down network is called group by group
        return (decoder, *self.posterior.networks, *self.prior.networks)

    @torch.no_grad()
    def _proposal(self, x: Tensor) -> Posterior:
        q = self.infer(x)
        return Gaussian(q.mean.detach(), q.scale.detach().expand_as(q.mean)) if isinstance(q, Gaussian) else q

    # -- p(y|x)

    @property
    def predicted_classes(self) -> int | None:
        """The number of labels of the target, or else of the prior; None without labels."""
        return self.target.classes if isinstance(self.target, LabelTarget) else self.prior.classes

    @torch.no_grad()
    def joint_elbo(self, batch: Batch, *, draws: int = 1, seed: int = 0) -> Elbo:
        """The bound on log p(x, y) with q(z|x): E_q [log p(x|z) + log p(y|z)] - KL(q(z|x) || p(z)), in nats.

        The `reconstruction` of this ELBO is E_q [log p(x|z) + log p(y|z)]. Raises `InputError` for a model or a batch
        without y.
        """
        if self.target is None:
            raise InputError(_untrained("any y"))
        x = batch.x
        draw, law = self.draw(self.infer(x), self._noise(x, draws, seed, batch.index.tolist()))
        rates = self.prior.rates(draw.law, draw.z, seed=seed, index=batch.index)
        return Elbo.from_draws(law.log_prob(x) + self.log_target(batch, draw.z), rates)

    @torch.no_grad()
    def predict(self, x: Tensor, *, draws: int | None = None, seed: int = 0, index: Tensor | None = None) -> Prediction:
        """p(y|x) over labels (1.4), by `draws` (default 1,000) weighted draws from q(z|x); see `jensen.vae.predict`.

        If the model has no target, but its prior has labels, p(y|x) follows from p(z|y): see `AbstractPrior.predict`.
        """
        if self.target is None and self.prior.classes is not None:
            noise = self._noise(x, draws or self.prior.label_draws, seed, _numbers(x, index))
            return self.prior.predict(drawn(self.infer(x), noise).z, seed=seed, index=index)
        target = self._target(LabelTarget)
        groups = self._weighted_draws(self.infer(x), x, draws or PREDICTION_DRAWS, seed, index)
        return Prediction.concatenate([predict_labels(target, group) for group in groups])

    @property
    def predicted_targets(self) -> int | None:
        """The dimensions of the continuous target; None without one."""
        return self.target.dimensions if isinstance(self.target, ContinuousTarget) else None

    @torch.no_grad()
    def predict_targets(
        self, x: Tensor, *, draws: int | None = None, seed: int = 0, index: Tensor | None = None
    ) -> TargetPrediction:
        """p(y|x) over continuous y (1.4), by the same weighted draws: a mixture of `draws` normals per example."""
        target = self._target(ContinuousTarget)
        groups = self._weighted_draws(self.infer(x), x, draws or PREDICTION_DRAWS, seed, index)
        return TargetPrediction.concatenate([predict_targets(target, group) for group in groups])

    def _target(self, kind: type[Target]) -> Target:
        if not isinstance(self.target, kind):
            raise InputError(_untrained("labels" if kind is LabelTarget else "continuous targets"))
        return self.target

    # -- importance sampling

    def _weighted_draws(
        self, q: Posterior, x: Tensor, samples: int, seed: int, index: Tensor | None
    ) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """For each group of examples, chunks of draws z ~ q (draws, group, latent_dims), each with log w (4.9)."""
        numbers = _numbers(x, index)
        rows = ELEMENTS["cpu" if x.device.type == "cpu" else "gpu"] // math.prod(self.shape)
        group = max(1, rows // min(BLOCK, samples))  # examples
        for start in range(0, len(x), group):
            part = slice(start, start + group)
            yield self._chunks(q[part], x[part], samples, seed, numbers[part])

    def _chunks(
        self, q: Posterior, x: Tensor, samples: int, seed: int, numbers: Sequence[int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for block, start in enumerate(range(0, samples, BLOCK)):
            yield self._log_weights(q, x, self._noise(x, min(BLOCK, samples - start), seed, numbers, block))

    def _log_weights(self, q: Posterior, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """z ~ q by eps, and log w = log p(x, z) - log q(z|x) (4.9), (draws, batch)."""
        draw, law = self.draw(q, eps)
        return draw.z, law.log_prob(x) + self.prior.log_prob(draw.z) - draw.law.log_prob(draw.z)

    # -- samples and codes

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The decoder and the networks of the prior."""
        return (self.decoder, *self.prior.networks)

    @property
    def classes(self) -> int | None:
        """The number of labels of the prior; None without."""
        return self.prior.classes

    @property
    def known_labels(self) -> tuple[int, ...]:
        """The labels of the training examples, if the prior has labels."""
        return self.prior.known_labels

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """Ancestral samples: z ~ p(z) or p(z|label), x ~ p(x|z). Raises `InputError` for labels without classes."""
        u = uniform_per_example(seed, range(first, first + n), self.shape, 1).to(self.device)
        return self._decode_prior(n, seed, first, labels).quantile(u)

    @property
    def noisy_samples(self) -> bool:
        """True: p(x|z) has noise."""
        return True

    @torch.no_grad()
    def sample_mean(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """z ~ p(z) or p(z|label), then E[x|z]. Raises `InputError` for labels without classes."""
        return self._decode_prior(n, seed, first, labels).mean

    @torch.no_grad()
    def codes(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Codes:
        """The mean and the standard deviations of q(z|x)."""
        q = self._proposal(x)
        return Codes(q.mean, q.scale)

    @torch.no_grad()
    def decode_mean(self, z: Tensor) -> Tensor:
        """E[x|z], without observation noise."""
        return self.decode(z).mean

    def to_normal(self, z: Tensor) -> Tensor:
        """z in the coordinates of the prior: z itself for N(0, I)."""
        return self.prior.to_normal(z)

    def from_normal(self, normal: Tensor) -> Tensor:
        """The inverse of `to_normal`."""
        return self.prior.from_normal(normal)

    @torch.no_grad()
    def diagnostics(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> dict[str, float]:
        """The number of `active_units`, and numbers of the likelihood and of the prior."""
        mean = self.encode(x)
        found = {"active units": float(active_units(mean).sum()), "latent dimensions": float(self.latent_dims)}
        return found | self.likelihood.diagnostics(self._decoder_output(mean)) | self.prior.diagnostics(mean)

    def _decoder_output(self, z: Tensor) -> Tensor:
        """The decoder's output (*batch, outputs, *shape), in the precision of z even under autocast."""
        output = self.decoder(z.flatten(0, -2)).to(z.dtype)
        return output.reshape(*z.shape[:-1], *output.shape[1:])

    # -- noise

    def _noise(self, x: Tensor, draws: int, seed: int, numbers: Sequence[int], *path: int) -> Tensor:
        """Standard normal (draws, batch, latent_dims); row i of the batch depends only on (seed, numbers[i], path)."""
        stream = derived_seed(seed, Stream.EVALUATION)
        return normal_per_example(stream, numbers, (draws, self.latent_dims), *path).transpose(0, 1).to(x)

    def _decode_prior(self, n: int, seed: int, first: int, labels: Tensor | None) -> Observation:
        return self.decode(self.prior_draws(n, seed=seed, first=first, labels=labels))

    def prior_draws(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """The z that `sample` decodes into the samples first..first+n-1, (n, latent_dims)."""
        return self.prior.sample(n, seed=seed, first=first, labels=labels).to(next(self.parameters()))


def _numbers(x: Tensor, index: Tensor | None) -> Sequence[int]:
    """The index of the example in each row of x."""
    return range(len(x)) if index is None else index.tolist()


def _as_gaussian(q: Posterior) -> Gaussian:
    """q, or the factors at its mean, by which an annealing from the prior finds the size of its steps."""
    return q if isinstance(q, Gaussian) else Gaussian(q.mean, q.scale)


def _importance_bound(draws: Iterator[tuple[Tensor, Tensor]], samples: int) -> ImportanceWeightedBound:
    total: ImportanceWeightedBound | None = None
    for _, log_weights in draws:
        part = ImportanceWeightedBound.from_log_weights(log_weights, samples)
        total = part if total is None else total + part
    assert total is not None
    return total


def _untrained(of: str) -> str:
    kind = "target" if of == "continuous targets" else "label"
    return f"the model was trained without {of}, so it cannot predict them; try: jensen train vae --predict {kind}"
