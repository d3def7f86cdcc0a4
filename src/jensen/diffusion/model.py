"""5. The diffusion model (5.9) behind the contract, with the bound (5.11), an objective for training, and a sampler."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from jensen.bound import Elbo
from jensen.diffusion.analytic import AnalyticVariance, MeanSquaredErrors
from jensen.diffusion.bayes import Race, predict_by_bounds, predict_by_mean_bounds, telling_strata
from jensen.diffusion.bound import BoundEstimate, DiffusionBound, Strata, estimate_bound
from jensen.diffusion.denoiser import AbstractDenoiser, AutoGuided, Guided
from jensen.diffusion.ode import AbstractDequantisation, ChainDequantisation, Flow, PlainDensity, Tolerance, flow_bound
from jensen.diffusion.parts import PARTS, UNIFORM, bound_parts
from jensen.diffusion.process import marginal
from jensen.diffusion.reverse import AbstractReverseVariance, BetaVariance
from jensen.diffusion.sampler import AbstractSampler, DPMSolver2M, SeededNoise, State, trajectory
from jensen.diffusion.schedule import AbstractGrid, AbstractSchedule, UniformLogSnr, UniformTime
from jensen.diffusion.weighting import AbstractChain, AbstractDenoisingObjective, ToldChain
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel, Batch, Codes, Effort, Estimator, Film, Loss, Parts, Prediction
from jensen.randomness import Noise, Stream, derived_seed, normal_per_example

ROWS = 500  # samples generated together: changes memory and speed, never a sample
CODES = Tolerance(1e-5, 1e-5)  # of codes: ten times finer than of bounds, or 256 levels would not come back exactly


@dataclass(frozen=True)
class Scoring:
    """The settings of bounds on log p(x): the chain of (5.11), the evaluated terms, the flow, and the race of labels.

    For `levels` see `DiffusionBound`. `terms` is the number of strata (`Strata`) in an estimate of the sum over t. If
    `terms` is None, all terms are computed. `probes` is a maximum for the flow's bound: of Hutchinson probes, or of
    draws of a dequantisation. `label_counts` is the number of training examples of each class; p(y) is the share of
    class y. `label_counts` is None if unknown.
    """

    steps: int = 1000
    grid: AbstractGrid = field(default_factory=UniformTime)
    variance: AbstractReverseVariance = field(default_factory=BetaVariance)
    levels: int | None = None
    terms: int | None = None
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(1e-4, 1e-4))
    probes: int = 4
    dequantisation: AbstractDequantisation | None = None  # None: `PlainDensity`, with levels `ChainDequantisation`
    race: Race = field(default_factory=Race)
    label_counts: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.terms is not None and self.terms < 1) or self.probes < 1:
            raise InputError(f"scoring with terms {self.terms}, probes {self.probes}: expected at least 1 of each")


@dataclass(frozen=True)
class Generation:
    """The settings of sampling: the sampler, the number of steps, the grid of noise levels, and the guidance.

    Without a `guide`, guidance is towards the samples' labels (`Guided`). With a `guide`, guidance is away from this
    worse denoiser (`AutoGuided`).
    """

    sampler: AbstractSampler = field(default_factory=DPMSolver2M)
    steps: int = 50
    grid: AbstractGrid = field(default_factory=UniformLogSnr)
    guidance: float = 0.0
    guide: AbstractDenoiser | None = None


class DiffusionModel(AbstractLatentVariableModel, AbstractChain):  # in this order, or sharding cannot change its class
    """p(x_{0:T}) = p(x_T) Π_t p_theta(x_{t-1}|x_t) (5.9) by one denoiser, trained by `objective`.

    If the denoiser has classes, the model is class-conditional. Training then drops labels with probability
    `label_dropout`, so that the model learns p(x) in addition to p(x|y). Every method takes `labels` (batch), integers
    0..classes; the label `classes` means no label. Without `labels`, bounds are on log p(x), and samples get the
    `known_labels` in turn. Raises `InputError` for more steps than the schedule has, for guidance or labels without
    classes, and for data of another shape.
    """

    usual_draws, usual_further_examples, usual_referee_examples = 2, 50, 20

    def __init__(
        self,
        shape: Sequence[int],
        denoiser: AbstractDenoiser,
        schedule: AbstractSchedule,
        objective: AbstractDenoisingObjective,
        scoring: Scoring | None = None,
        generation: Generation | None = None,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 <= label_dropout <= 1:
            raise InputError(
                f"label dropout {label_dropout}: expected a probability, from 0 to 1; the usual one is 0.1"
            )
        self.shape, self.label_dropout = tuple(shape), label_dropout
        self.latent_dims = math.prod(self.shape)
        self.denoiser, self.schedule, self.objective = denoiser, schedule, objective
        self.scoring, self.generation = scoring or Scoring(), generation or Generation()
        variance = self.scoring.variance
        self.errors = variance.errors if isinstance(variance, AnalyticVariance) else MeanSquaredErrors()
        self.bound(), self._sampling_grid(), self._sampling_denoiser()  # raise for bad settings now, not in use

    def bound(self) -> DiffusionBound:
        """The bound (5.11) with this model's chain; differentiable, also with respect to the schedule."""
        scoring = self.scoring
        grid = scoring.grid(self.schedule, scoring.steps).to(self.device)
        return DiffusionBound(self.denoiser, grid, scoring.variance, scoring.levels)

    @property
    def device(self) -> torch.device:
        """The device of the model, even if it has no parameters."""
        return self.errors.total.device

    @property
    def classes(self) -> int | None:
        """The number of labels of the denoiser; None without."""
        return self.denoiser.classes

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The denoiser and, if samples are guided by a worse model, the guide."""
        guide = self.generation.guide
        return (self.denoiser,) if guide is None else (self.denoiser, guide)

    # -- training

    def loss(self, batch: Batch, *, step: int, noise: Noise) -> Loss:
        """The objective's loss; the objective's docstring says how it weights the bound."""
        return self.loss_by(self.objective, batch, noise)

    def loss_by(self, objective: AbstractDenoisingObjective, batch: Batch, noise: Noise) -> Loss:
        """The loss of this model by the given objective.

        The network gets the augmentation of every example. The bound uses a table of errors; the errors of augmented
        examples do not enter this table.
        """
        labels = self._training_labels(batch, noise)
        if batch.augmentation is None:
            return objective(self, batch.x, labels, noise)
        loss = objective(ToldChain(self, batch.augmentation), batch.x, labels, noise)
        errors, unchanged = loss.noted["squared_error"], (batch.augmentation == 0).all(1)
        return replace(loss, noted={**loss.noted, "squared_error": torch.where(unchanged, errors, torch.nan)})

    def observe(self, noted: Mapping[str, Tensor]) -> None:
        """Record the loss and error at each noise level, for the times of later batches and the bound's variance."""
        self.objective.times.observe(noted["times"], noted["losses"])
        self.errors.observe(noted["log_snr"], noted["squared_error"])

    def _training_labels(self, batch: Batch, noise: Noise) -> Tensor | None:
        if self.classes is None:
            return None
        if batch.labels is None:
            raise InputError("a class-conditional model got data without labels: give labelled data, or classes None")
        dropped = noise.uniform((len(batch.x),)) < self.label_dropout
        return torch.where(dropped, self.classes, batch.labels)

    # -- scores

    def elbo(
        self,
        x: Tensor,
        *,
        draws: int = 1,
        seed: int = 0,
        index: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Elbo:
        """The bound (5.11) on log p(x) or log p(x|labels): -L_0 minus `prior` = L_T and `denoising` = Σ_t L_{t-1}.

        The `profile` of the bound gives the cost of each noise level.
        """
        return self.bound_estimate(x, draws=draws, seed=seed, index=index, labels=labels).elbo()

    @torch.no_grad()
    def bound_estimate(
        self, x: Tensor, *, draws: int, seed: int, index: Tensor | None, labels: Tensor | None
    ) -> BoundEstimate:
        """Every term of the bound by draws, strata and examples."""
        self._refuse_others(x)
        bound, labels = self.bound(), self._checked(labels, len(x))
        return estimate_bound(bound, x, self._strata(bound), draws=draws, seed=seed, index=index, labels=labels)

    def _strata(self, bound: DiffusionBound) -> Strata:
        """All steps, or `terms` strata of about equal nats, estimated from the errors in training by (5.20)."""
        terms = self.scoring.terms
        if terms is None or terms >= bound.steps - 1:
            return Strata.every_step(bound.steps)
        return Strata.weighted(self._nats(bound), terms)

    def _nats(self, bound: DiffusionBound) -> Tensor:
        """The relative costs of steps 2..T, estimated from the errors in training by (5.20)."""
        s, t = bound.log_snr[1:-1], bound.log_snr[2:]
        return torch.exp(t) * torch.expm1(s - t) * self.errors(t)

    def ode_bound(
        self,
        x: Tensor,
        *,
        samples: int,
        seed: int = 0,
        index: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Elbo:
        """log p(x), or log p(x|labels), by the probability-flow ODE (5.20), in nats.

        `samples` is the number of probes, or of draws of the dequantisation; it is limited by `Scoring.probes`.
        """
        self._refuse_others(x)
        scoring = self.scoring
        default = PlainDensity() if scoring.levels is None else ChainDequantisation()
        return flow_bound(
            self.bound(),
            x,
            scoring.dequantisation or default,
            scoring.tolerance,
            min(samples, scoring.probes),
            seed=seed,
            index=index,
            labels=self._checked(labels, len(x)),
        )

    def estimators(self, effort: Effort) -> list[Estimator]:
        """The bound by some of its terms, and the ODE; with `cross_checks` also the bound by all terms.

        The two bounds have the same expectation. The ODE's estimate may lie above or below the bounds, because the flow
        is another model.
        """
        networks, draws = (self.denoiser,), effort.draws or self.usual_draws

        def estimated(x: Tensor, seed: int, index: Tensor) -> Elbo:
            return self.elbo(x, draws=draws, seed=seed, index=index)

        def every_term(x: Tensor, seed: int, index: Tensor) -> Elbo:
            bound = self.bound()
            every = Strata.every_step(bound.steps)
            return estimate_bound(bound, x, every, draws=1, seed=seed, index=index).elbo()

        def by_flow(x: Tensor, seed: int, index: Tensor) -> Elbo:
            return self.ode_bound(x, samples=effort.samples, seed=seed, index=index)

        checks = [Estimator("ELBO, all terms", every_term, networks)] if effort.cross_checks else []
        elbo = Estimator("ELBO", estimated, networks, equal=("ELBO, all terms",))
        return [elbo, *checks, Estimator("ODE", by_flow, networks)]

    def parts(self) -> Parts:
        """The bound (5.11) in parts of one evaluation each: -L_0 - L_T, and `PARTS` strata of steps 2..T."""
        bound = self.bound()
        return bound_parts(bound, Strata.weighted(self._nats(bound), PARTS, UNIFORM))

    @torch.no_grad()
    def diagnostics(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> dict[str, float]:
        """The log-SNRs at both ends of the chain, and the largest L_T over x, which a good chain keeps near 0."""
        bound = self.bound()
        return {
            "chain, steps": float(bound.steps),
            "chain, log-SNR of x_1": float(bound.log_snr[1]),
            "chain, log-SNR of x_T": float(bound.log_snr[-1]),
            "prior term L_T, largest, nats": float(bound.prior(x).max()),
        }

    # -- labels

    @property
    def predicted_classes(self) -> int | None:
        """The number of labels of the denoiser; None without."""
        return self.denoiser.classes

    @property
    def bound_evaluations(self) -> int:
        """Evaluations of the denoiser for one example's ELBO with the default draws."""
        return self.usual_draws * (self._strata(self.bound()).count + 1)

    @torch.no_grad()
    def predict(self, x: Tensor, *, draws: int | None = None, seed: int = 0, index: Tensor | None = None) -> Prediction:
        """p(y|x) ∝ p(y) exp bound(x|y) (1.4), by a race of up to `draws` draws (None: as in `scoring.race`).

        p(y) is the share of y in `scoring.label_counts`. Raises `InputError` if the model or `label_counts` has no
        labels.
        """
        self._refuse_others(x)
        race = self.scoring.race if draws is None else replace(self.scoring.race, draws=draws)
        bound, log_prior = self.bound(), self._label_log_prior()
        strata = telling_strata(bound, self._nats(bound), race.terms)
        return predict_by_bounds(bound, strata, x, log_prior, race, seed=seed, index=index)

    @torch.no_grad()
    def predict_mean(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Prediction:
        """p(y|.) ∝ p(y) exp E bound(x|y), where E is the mean over the draws x (draws, batch, *shape).

        If this model is the prior of a VAE, the draws are those of q(z|x). Raises `InputError` as `predict` does.
        """
        self._refuse_others(x.flatten(0, 1))
        race, bound = replace(self.scoring.race, draws=len(x)), self.bound()
        strata = telling_strata(bound, self._nats(bound), race.terms)
        return predict_by_mean_bounds(bound, strata, x, self._label_log_prior(), race, seed=seed, index=index)

    def _label_log_prior(self) -> Tensor:
        if self.classes is None:
            raise InputError("the model was trained without labels, so it has no p(y|x); train one on labelled data")
        counts = self.scoring.label_counts
        if counts is None or len(counts) != self.classes or sum(counts) == 0:
            raise InputError(
                f"label counts {counts} for {self.classes} classes: expected the number of training examples of each"
            )
        prior = torch.tensor(counts, dtype=torch.float64)
        return (prior / prior.sum()).log()

    # -- samples

    @property
    def known_labels(self) -> tuple[int, ...]:
        """All classes except those without training examples in `scoring.label_counts`."""
        counts = self.scoring.label_counts
        return tuple(k for k in range(self.classes or 0) if counts is None or counts[k])

    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """The sampler's x_0 from x_T ~ N(0, I) (5.19); labels (n), by default the `known_labels` in turn."""
        return self._at_the_end(lambda last: last.x, n, seed, first, labels)

    def sample_mean(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """x̂ of the sampler's last step: `sample` itself, unless the last step adds noise (`LastStep.DRAW`)."""
        return self._at_the_end(lambda last: last.history[0].x0, n, seed, first, labels)

    def _at_the_end(
        self, of: Callable[[State], Tensor], n: int, seed: int, first: int, labels: Tensor | None
    ) -> Tensor:
        parts, labels = [], self._checked(labels, n)
        for start in range(0, n, ROWS):
            count = min(ROWS, n - start)
            chosen = None if labels is None else labels[start : start + count]
            *_, last = self.trajectory(count, seed=seed, first=first + start, labels=chosen)
            parts.append(of(last))
        return torch.cat(parts) if parts else torch.empty(0, *self.shape, device=self.device)

    @torch.no_grad()
    def trajectory(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Iterator[State]:
        """Every state, from noise to data, of samples first..first+n-1; sample i is a pure function of (seed, i)."""
        noise = SeededNoise(seed, range(first, first + n), self.shape, self.device)
        yield from trajectory(
            self.generation.sampler,
            self._sampling_denoiser(),
            self._sampling_grid(),
            noise,
            labels=self._sampling_labels(n, first, labels),
        )

    # -- films

    @torch.no_grad()
    def noising(self, x: Tensor, *, frames: int, seed: int = 0, index: Tensor | None = None) -> Film:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (5.6) in every frame, with one eps per example."""
        log_snr = self._film_grid(frames)[1]
        numbers = list(range(len(x))) if index is None else index.tolist()
        eps = normal_per_example(derived_seed(seed, Stream.EVALUATION), numbers, self.shape).to(x)
        kernels = [marginal(x, level) for level in log_snr]
        return Film(log_snr, torch.stack([kernel.mean + kernel.scale * eps for kernel in kernels]))

    @torch.no_grad()
    def denoising(self, n: int, *, frames: int, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Film:
        """The sampler's states at the log-SNRs of `noising`, and the guided prediction x̂ in each state."""
        labels = self._sampling_labels(n, first, labels)
        points, log_snr = self._film_grid(frames)
        denoise, path, estimates = self._sampling_denoiser(), [], []
        for state in self.trajectory(n, seed=seed, first=first, labels=labels):
            if state.position in points:
                level = self._sampling_grid()[state.position]
                path.append(state.x)
                estimates.append(denoise(state.x, level, labels).x0 if state.position else state.x)
        return Film(log_snr.flip(0), torch.stack(path), torch.stack(estimates))

    def _film_grid(self, frames: int) -> tuple[list[int], Tensor]:
        """Points of the sampling grid with log-SNRs: both ends, and between the ends visibly different noise levels.

        The points between the ends divide the angle arccos sqrt(alpha_bar) most evenly.
        """
        grid = self._sampling_grid().cpu()
        angle = torch.atan(torch.exp(-0.5 * grid))
        wanted = torch.linspace(float(angle[0]), float(angle[-1]), frames, dtype=angle.dtype)
        points = torch.unique((angle - wanted.unsqueeze(1)).abs().argmin(1))
        return points.tolist(), grid[points]

    def _sampling_grid(self) -> Tensor:
        return self.generation.grid(self.schedule, self.generation.steps).detach()

    def _sampling_denoiser(self) -> AbstractDenoiser:
        scale, guide = self.generation.guidance, self.generation.guide
        if scale == 0:
            return self.denoiser
        return AutoGuided(self.denoiser, guide, scale) if guide else Guided(self.denoiser, scale)

    # -- codes

    @torch.no_grad()
    def codes(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None, labels: Tensor | None = None) -> Codes:
        """x_T, flattened, by the probability-flow ODE: a deterministic code, distributed as N(0, I) if p is exact."""
        bound = self.bound()
        start = bound.log_snr[1].sigmoid().sqrt() * x
        return Codes(self._flow(bound, labels, len(x)).encode(start).flatten(1))

    @torch.no_grad()
    def decode_mean(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The x at the other end of the flow: the inverse of `codes` with the same labels, up to the tolerance."""
        bound = self.bound()
        scale = bound.log_snr[1].sigmoid().sqrt()
        return self._flow(bound, labels, len(z)).decode(z.unflatten(1, self.shape)) / scale

    def _flow(self, bound: DiffusionBound, labels: Tensor | None, count: int) -> Flow:
        first, last = float(bound.log_snr[1]), float(bound.log_snr[-1])
        return Flow(self.denoiser, first, last, CODES, self._checked(labels, count))

    # -- refused arguments

    def _refuse_others(self, x: Tensor) -> None:
        if x.shape[1:] != self.shape or not x.is_floating_point():
            raise InputError(
                f"got {x.dtype} of shape {tuple(x.shape)}, expected prepared floats of shape (batch, "
                f"{', '.join(map(str, self.shape))}); prepare raw data by the run's spec.preparation"
            )

    def _sampling_labels(self, n: int, first: int, labels: Tensor | None) -> Tensor | None:
        if labels is None and self.classes is not None:
            known = torch.tensor(self.known_labels, device=self.device)
            return known[torch.arange(first, first + n, device=self.device) % len(known)]
        return self._checked(labels, n)

    def _checked(self, labels: Tensor | None, count: int) -> Tensor | None:
        """The labels on the model's device. Raises `InputError` for a wrong number of labels or an unknown class."""
        if labels is None:
            return None
        classes = self.classes
        if classes is None:
            raise InputError("got labels for a model that was trained without labels; leave the labels out")
        if labels.shape != (count,) or labels.is_floating_point() or labels.dtype == torch.bool:
            raise InputError(
                f"got labels of shape {tuple(labels.shape)} and type {labels.dtype} for {count} examples: "
                "expected one integer for each"
            )
        if count and not bool(((labels >= 0) & (labels <= classes)).all()):
            wrong = labels[(labels < 0) | (labels > classes)][0]
            raise InputError(f"label {int(wrong)}: expected 0 to {classes - 1}, or {classes} for no label; choose one")
        return labels.to(self.device)
