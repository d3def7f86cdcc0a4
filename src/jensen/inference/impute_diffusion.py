"""Imputation by a diffusion model: replacement with resampling, and particles that are asymptotically exact.

Both methods go from point T of a chain to point 0, by the reverse steps p(x_s|x_t) (5.12) and at last by p(x_0|x_1) as
in the bound; so their model is the p(x_0) of this chain. y denotes the observed entries of x_0.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from jensen.diffusion.bound import reconstruction_law
from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.model import DiffusionModel
from jensen.diffusion.process import marginal, posterior, posterior_variance, step_kernel
from jensen.diffusion.reverse import reverse_step
from jensen.diffusion.schedule import AbstractGrid, UniformLogSnr, alpha_bar, one_minus_alpha_bar, signal_scale
from jensen.errors import InputError
from jensen.gaussian import Gaussian, normal_log_density
from jensen.inference.imputer import AbstractImputer, ExampleNoise, Imputation, chosen_by_weight, effective_sample_size
from jensen.likelihood import DiscretisedGaussian
from jensen.model import AbstractLatentVariableModel

FIRST, STEP, KNOWN, AGAIN, RESAMPLING, CHOICE, DATA = range(7)  # purposes of random numbers
ROWS = {"cpu": 500, "cuda": 4000}  # maximum number of rows in one call of the network


@dataclass(frozen=True, eq=False)
class _Chain:
    """The reverse chain of a model on the model's own grid; `log_snr` (T + 1) is inf at point 0."""

    model: DiffusionModel
    log_snr: Tensor

    @classmethod
    def of(cls, model: AbstractLatentVariableModel, grid: AbstractGrid, steps: int) -> "_Chain":
        if not isinstance(model, DiffusionModel):
            raise InputError(f"imputation by denoising with a {type(model).__name__}: expected a diffusion model")
        return cls(model, grid(model.schedule, steps).detach().cpu())

    @property
    def steps(self) -> int:
        return len(self.log_snr) - 1

    @property
    def denoiser(self) -> AbstractDenoiser:
        return self.model.denoiser

    def predict(self, x: Tensor, t: int) -> Denoised:
        """The denoiser's prediction for x (rows, *shape) at point t, without labels, in calls of bounded size."""
        parts = [self.denoiser(part, self.log_snr[t]) for part in x.split(ROWS.get(x.device.type, ROWS["cuda"]))]
        if len(parts) == 1:
            return parts[0]
        mixes = [part.variance_mix for part in parts if part.variance_mix is not None]
        x0, eps = torch.cat([part.x0 for part in parts]), torch.cat([part.eps for part in parts])
        return Denoised(x, self.log_snr[t], x0, eps, torch.cat(mixes) if mixes else None)

    def reverse(self, prediction: Denoised, t: int) -> Gaussian:
        """p(x_{t-1} | x_t) (5.12)."""
        return reverse_step(prediction, self.log_snr[t - 1], self.model.scoring.variance)

    def data(self, prediction: Denoised) -> Gaussian | DiscretisedGaussian:
        """p(x_0 | x_1), as in the bound."""
        scoring = self.model.scoring
        return reconstruction_law(prediction, scoring.variance, scoring.levels)


# ---------------------------------------------------------------------------------------------- replacement


@dataclass(frozen=True)
class Replacement(AbstractImputer):
    """RePaint: after each reverse step, y with noise of the same level (5.6) replaces the observed entries.

    Each step is repeated `resamplings` times, so that the missing entries adapt to the observed entries. Noise is added
    again before each repetition (5.1). One draw takes steps x resamplings calls of the network. The draws are biased
    for any number of steps and resamplings. Raises `InputError` for fewer than two steps or one resampling. Source:
    Lugmayr et al. 2022, algorithm 1, with jumps of one step.
    """

    steps: int = 50
    resamplings: int = 5
    grid: AbstractGrid = field(default_factory=UniformLogSnr)

    def __str__(self) -> str:
        return f"replacement, {self.steps} steps, each {self.resamplings} times"

    def __post_init__(self) -> None:
        if self.steps < 2 or self.resamplings < 1:
            raise InputError(
                f"replacement in {self.steps} steps with {self.resamplings} resamplings: expected at least 2 and 1"
            )

    def __call__(
        self, model: AbstractLatentVariableModel, x: Tensor, observed: Tensor, noise: ExampleNoise, draws: int
    ) -> Imputation:
        chain = _Chain.of(model, self.grid, self.steps)

        def per_draw(values: Tensor) -> Tensor:
            return values.repeat_interleave(draws, 0)  # rows: the draws of the first example, of the second, ...

        def normal(*path: int) -> Tensor:
            return noise.normal((draws, *model.shape), *path).flatten(0, 1).to(x)

        y, seen, state = per_draw(x.nan_to_num()), per_draw(observed), normal(FIRST)
        for t in range(chain.steps, 1, -1):
            for again in range(self.resamplings):
                if again:
                    kernel = step_kernel(state, chain.log_snr[t - 1], chain.log_snr[t])  # (5.1)
                    state = kernel.mean + kernel.scale * normal(AGAIN, t, again)
                kernel = chain.reverse(chain.predict(state, t), t)
                known = marginal(y, chain.log_snr[t - 1])  # (5.6)
                down = kernel.mean + kernel.scale * normal(STEP, t, again)
                state = torch.where(seen, known.mean + known.scale * normal(KNOWN, t, again), down)
        last = chain.data(chain.predict(state, 1))
        u = noise.uniform((draws, *model.shape), DATA).flatten(0, 1).to(x.device)
        return Imputation(last.quantile(u).unflatten(0, (-1, draws)).transpose(0, 1))


# ---------------------------------------------------------------------------------------------- particles


@dataclass(frozen=True)
class TwistedParticles(AbstractImputer):
    """The twisted diffusion sampler: sequential Monte Carlo whose target at point t is p(x_t) psi_t(x_t).

    psi_t(x_t) = Π_observed N(y | x̂(x_t), v_t) approximates p(y|x_t); v_t is the mean squared error of x̂ in training.
    At point 1 the target uses p(y|x_1) itself, so for many `particles` the draws become exact draws of the chain, for
    any psi. Each draw has its own particle filter, so draws are independent. A filter resamples systematically when the
    effective sample size falls below half of the number of particles. The proposal of the missing entries is p(x_s |
    x_t) shifted by the gradient of log psi_t; the proposal of the observed entries is (5.8) with x_0 = y. On
    independent Gaussian data all weights are then equal. One draw takes one call and one gradient of the network for
    each step and particle. Raises `InputError` for fewer than two steps or one particle. Source: Wu et al. 2023,
    algorithm 1.
    """

    particles: int = 16
    steps: int = 100
    grid: AbstractGrid = field(default_factory=UniformLogSnr)

    def __str__(self) -> str:
        return f"twisted particles, {self.particles} in {self.steps} steps"

    def __post_init__(self) -> None:
        if self.steps < 2 or self.particles < 1:
            raise InputError(
                f"{self.particles} particles in {self.steps} steps: expected at least 1 particle and 2 steps"
            )

    def __call__(
        self, model: AbstractLatentVariableModel, x: Tensor, observed: Tensor, noise: ExampleNoise, draws: int
    ) -> Imputation:
        chain = _Chain.of(model, self.grid, self.steps)
        cloud = _Cloud(chain, x, observed, noise, (draws, self.particles))
        for t in range(chain.steps, 1, -1):
            cloud.weigh(t)
            cloud.resample(t)
            cloud.move(t)
        cloud.weigh(1)
        return Imputation(
            cloud.draw(),
            {
                "effective sample size, mean": cloud.sizes.mean(0).mean(1),
                "effective sample size, least": cloud.sizes.amin((0, 2)),
            },
        )

    def copies(self, draws: int) -> int:
        return draws * self.particles


class _Cloud:
    """The particles of many filters at one point of the chain; x is flat, (batch x draws x particles, *shape)."""

    def __init__(self, chain: _Chain, x: Tensor, observed: Tensor, noise: ExampleNoise, shape: tuple[int, int]) -> None:
        self.chain, self.noise, self.shape = chain, noise, shape
        copies = shape[0] * shape[1]
        self.y, self.seen = x.nan_to_num().repeat_interleave(copies, 0), observed.repeat_interleave(copies, 0)
        self.x = self._normal(FIRST)
        self.offsets = noise.uniform((shape[0], chain.steps), RESAMPLING).to(x.device)
        self.log_weight = torch.zeros(len(self.x), dtype=torch.float64, device=x.device)
        self.log_psi = torch.zeros_like(self.log_weight)
        self._sizes: list[Tensor] = []

    @property
    def sizes(self) -> Tensor:
        """The effective sample sizes before each resampling, (steps, batch, draws)."""
        return torch.stack(self._sizes)

    def weigh(self, t: int) -> None:
        """Multiply the weights by psi_t(x_t), and keep x̂ and the gradient of log psi_t for the next step."""
        with torch.set_grad_enabled(t > 1):
            x = self.x.detach().requires_grad_(t > 1)
            self.prediction = self.chain.predict(x, t)
            log_psi = torch.where(self.seen, self._log_psi(t), 0).flatten(1).sum(1)
            self.pull = torch.autograd.grad(log_psi.sum(), x)[0] if t > 1 else torch.zeros_like(x)
        self.log_psi = log_psi.detach().double()
        self.log_weight = self.log_weight + self.log_psi
        self._sizes.append(effective_sample_size(self._by_filter(self.log_weight)))

    def _log_psi(self, t: int) -> Tensor:
        """log psi_t by dimension; at point 1 log p(y|x_1)."""
        if t == 1:
            return self.chain.data(self.prediction).log_prob_by_dimension(self.y)
        errors = self.chain.model.errors
        variance = errors(self.chain.log_snr[t].to(errors.total.device))
        return normal_log_density(self.y, self.prediction.x0, variance.sqrt().to(self.y))

    def resample(self, t: int) -> None:
        """Resample systematically the filters whose effective sample size is below half of the number of particles."""
        particles = self.shape[1]
        weights = self._by_filter(self.log_weight)
        u = self.offsets[..., t - 1 : t]
        place = (torch.arange(particles, device=u.device) + u) / particles
        chosen = chosen_by_weight(weights.flatten(0, 1), place.flatten(0, 1)).reshape(weights.shape)
        few = (self._sizes[-1] < particles / 2).unsqueeze(-1)
        own = torch.arange(particles, device=u.device).expand_as(chosen)
        start = torch.arange(len(self.x), device=u.device).reshape(weights.shape)[..., :1]
        rows = (start + torch.where(few, chosen, own)).flatten()
        self._select(rows)
        self.log_weight = torch.where(few, 0, weights).flatten()

    def move(self, t: int) -> None:
        """Draw x_{t-1} from the proposal r; multiply the weights by p(x_{t-1}|x_t) / (r(x_{t-1}) psi_t(x_t))."""
        kernel, proposal = self.chain.reverse(self.prediction, t), self._proposal(t)
        self.x = proposal.mean + proposal.scale * self._normal(STEP, t)
        ratio = kernel.log_prob(self.x) - proposal.log_prob(self.x)
        self.log_weight = self.log_weight + ratio.double() - self.log_psi

    def _proposal(self, t: int) -> Gaussian:
        log_snr_s, log_snr_t = self.chain.log_snr[t - 1], self.chain.log_snr[t]
        kernel = self.chain.reverse(self.prediction, t)
        # E[x_0 | x_t, y] = x̂ + (1 - alpha_bar_t) / sqrt(alpha_bar_t) grad log p(y|x_t), times its weight in (5.8)
        on_x0 = signal_scale(log_snr_s) * -torch.expm1(log_snr_t - log_snr_s)
        moved = kernel.mean + on_x0 * one_minus_alpha_bar(log_snr_t) / alpha_bar(log_snr_t).sqrt() * self.pull
        known = posterior(self.prediction.x_t, self.y, log_snr_s, log_snr_t).mean  # (5.8)
        scale = posterior_variance(log_snr_s, log_snr_t).sqrt()
        mean = torch.where(self.seen, known, moved)
        return Gaussian(mean, torch.where(self.seen, scale.to(mean), kernel.scale.to(mean)), kernel.event_dims)

    def draw(self) -> Tensor:
        """x_0 ~ p(x_0|x_1) of one particle of each filter, chosen by weight: (draws, batch, *shape)."""
        draws, particles = self.shape
        weights = self._by_filter(self.log_weight)
        u = self.noise.uniform((draws, 1), CHOICE).to(weights.device)
        chosen = chosen_by_weight(weights.flatten(0, 1), u.flatten(0, 1))[:, 0]
        self._select(chosen + particles * torch.arange(len(chosen), device=chosen.device))
        u = self.noise.uniform((draws, *self.x.shape[1:]), DATA).flatten(0, 1).to(self.x.device)
        return self.chain.data(self.prediction).quantile(u).unflatten(0, (-1, draws)).transpose(0, 1)

    def _select(self, rows: Tensor) -> None:
        old = self.prediction
        mix = None if old.variance_mix is None else old.variance_mix.detach()[rows]
        x_t, x0, eps = (values.detach()[rows] for values in (old.x_t, old.x0, old.eps))
        self.prediction = Denoised(x_t, old.log_snr, x0, eps, mix)
        self.pull, self.log_psi = self.pull[rows], self.log_psi[rows]

    def _by_filter(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *self.shape)

    def _normal(self, *path: int) -> Tensor:
        shape = (*self.shape, *self.y.shape[1:])
        return self.noise.normal(shape, *path).flatten(0, 2).to(self.y)
