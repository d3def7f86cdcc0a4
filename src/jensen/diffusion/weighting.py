"""5. Training losses: weightings of the terms of the bound, and the distribution of the time t.

Let first be the schedule's `first_time`, t = first + (1 - first) u with u ~ U(0, 1), and slope = -dlog snr/du. The
continuous-time bound (5.20) between first and 1 is

    -Σ_t L_{t-1}  ->  -E_{t, eps} ½ slope ||eps - epŝ||²         (T -> ∞; Kingma et al. 2021, equation 17),

and every `WeightedObjective` minimises E_{t, eps} weight ||eps - epŝ||². This is the bound with each noise level
multiplied by weight / (½ slope), the weighting of the bound. `BoundObjective` minimises the finite bound itself. A
`times` object draws t and divides the loss by the density of t, so `times` changes the variance of a loss but not the
mean.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from jensen.diffusion.bound import DiffusionBound, squared_error
from jensen.diffusion.denoiser import AbstractDenoiser, Told
from jensen.diffusion.process import marginal
from jensen.diffusion.schedule import AbstractSchedule
from jensen.errors import InputError
from jensen.gaussian import normal_log_density
from jensen.model import Loss
from jensen.randomness import Noise

# ---------------------------------------------------------------------------------------------- times


@dataclass(frozen=True, eq=False)
class Times:
    """u (batch) in [0, 1), and weight (batch), 1 / the density of u: mean(weight f(u)) estimates ∫_0^1 f(u) du."""

    u: Float[Tensor, " batch"]
    weight: Float[Tensor, " batch"]


class AbstractTimes(nn.Module, ABC):
    """The distribution of the times of a training batch; a history of losses, if there is one, is saved in buffers."""

    @abstractmethod
    def forward(self, count: int, noise: Noise) -> Times:
        """`count` times in float64, on the device of the noise."""

    def observe(self, u: Float[Tensor, " batch"], losses: Float[Tensor, " batch"]) -> None:
        """Record the losses of a batch at the times u, without the weights 1 / density."""


class UniformTimes(AbstractTimes):
    """Independent uniform times (5.18)."""

    def forward(self, count: int, noise: Noise) -> Times:
        u = noise.uniform((count,), torch.float64)
        return Times(u, torch.ones_like(u))


class LowDiscrepancyTimes(AbstractTimes):
    """Evenly spaced times with one random offset; each time is uniform, a batch covers [0, 1) (Kingma et al. 2021)."""

    def forward(self, count: int, noise: Noise) -> Times:
        u = noise.evenly_spaced(count)
        return Times(u, torch.ones_like(u))


class LossAwareTimes(AbstractTimes):
    """Times with a density proportional to sqrt(E loss²), which minimises the variance of the loss.

    Time is divided into `bins` equal bins. E loss² is a running mean over about `memory` losses of a bin. The part
    `uniform_share` of the density stays uniform. Until every bin has seen `memory` losses, the density is uniform.
    Times are evenly spaced under the density. Source: Nichol & Dhariwal 2021, section 3.3, with a mean over the last
    ten losses.
    """

    second_moment: Tensor
    seen: Tensor

    def __init__(self, bins: int = 100, memory: int = 10, uniform_share: float = 0.01) -> None:
        super().__init__()
        if not (bins > 0 and memory > 0 and 0 < uniform_share <= 1):
            raise InputError(
                f"loss-aware times with {bins} bins, memory {memory}, uniform share {uniform_share}: "
                "expected positive numbers and a share of at most 1"
            )
        self.bins, self.memory, self.uniform_share = bins, memory, uniform_share
        self.register_buffer("second_moment", torch.zeros(bins))
        self.register_buffer("seen", torch.zeros(bins))

    def probabilities(self) -> Tensor:
        """The probabilities of the bins, (bins), float64; they add up to one."""
        root = self.second_moment.double().sqrt()
        share = torch.where(root.sum() > 0, root / root.sum(), 1 / self.bins)
        aware = (1 - self.uniform_share) * share + self.uniform_share / self.bins
        return torch.where(self.seen.min() >= self.memory, aware, 1 / self.bins)

    def forward(self, count: int, noise: Noise) -> Times:
        probabilities, place = self.probabilities(), noise.evenly_spaced(count)
        edges = probabilities.cumsum(0)
        bins = torch.searchsorted(edges, place, right=True).clamp(max=self.bins - 1)
        inside = (place - (edges - probabilities)[bins]) / probabilities[bins]
        return Times((bins + inside.clamp(0, 1 - 1e-12)) / self.bins, 1 / (self.bins * probabilities[bins]))

    @torch.no_grad()
    def observe(self, u: Tensor, losses: Tensor) -> None:
        member = F.one_hot(step_of(u, self.bins) - 1, self.bins).float()  # sums in a fixed order
        count = member.sum(0)
        mean = losses.float().square() @ member / count.clamp(min=1)
        kept = (1 - 1 / self.memory) ** count  # 1 where there is nothing new
        kept = torch.where(self.seen == 0, torch.zeros_like(kept), kept)
        self.second_moment.copy_(torch.lerp(mean, self.second_moment, kept))
        self.seen.add_(count)


def step_of(u: Tensor, steps: int) -> Tensor:
    """The step 1..steps of each u in [0, 1); uniform for a uniform u."""
    return (u * steps).long().clamp(max=steps - 1) + 1


# ---------------------------------------------------------------------------------------------- weightings


class AbstractWeighting(ABC):
    """The weight of ||eps - epŝ||² at a uniform time, given the log-SNR and the slope -dlog snr/du > 0 at this time."""

    @abstractmethod
    def __call__(self, log_snr: Tensor, slope: Tensor) -> Tensor:
        """The weight, of the same shape as `log_snr` and `slope`."""


@dataclass(frozen=True)
class Simple(AbstractWeighting):
    """The weight 1: L_simple (5.17), the bound weighted by 2 / slope."""

    def __call__(self, log_snr: Tensor, slope: Tensor) -> Tensor:
        return torch.ones_like(log_snr)


@dataclass(frozen=True)
class ContinuousBound(AbstractWeighting):
    """½ slope: the denoising terms of the bound itself as T -> ∞ (5.20), weighted by 1."""

    def __call__(self, log_snr: Tensor, slope: Tensor) -> Tensor:
        return 0.5 * slope


@dataclass(frozen=True)
class MinSNR(AbstractWeighting):
    """min(snr, gamma) / snr: the bound weighted by 2 min(1, gamma / snr) / slope (Hang et al. 2023, section 3.4)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        _check_positive("min-SNR weighting", gamma=self.gamma)

    def __call__(self, log_snr: Tensor, slope: Tensor) -> Tensor:
        return torch.exp((math.log(self.gamma) - log_snr).clamp(max=0))


@dataclass(frozen=True)
class P2(AbstractWeighting):
    """1 / (k + snr)^gamma: the bound weighted by 2 / (slope (k + snr)^gamma) (Choi et al. 2022, equation 8)."""

    gamma: float = 1.0
    k: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("P2 weighting", k=self.k)

    def __call__(self, log_snr: Tensor, slope: Tensor) -> Tensor:
        log_sum = torch.logaddexp(log_snr, torch.full_like(log_snr, math.log(self.k)))
        return torch.exp(-self.gamma * log_sum)


@dataclass(frozen=True)
class EDMWeighting(AbstractWeighting):
    """The weight of EDM for log sigma ~ N(`mean`, `deviation`²), for any schedule.

    The loss is the squared error of the network of `Preconditioned` with the same sigma_data and skip, E ||x_0 - x̂||² /
    c_out² over this sigma. So the weight is slope p(log snr) sigma² / c_out², where p is the normal density of -2 log
    sigma and sigma² = 1 / snr. With skip = sigma_data it is slope p(log snr) (1 + 1 / (snr sigma_data²)). The loss is
    the bound weighted by 2 weight / slope. Source: Karras et al. 2022, table 1.
    """

    sigma_data: float = 0.5
    mean: float = -1.2
    deviation: float = 1.2
    skip: float | None = None

    def __post_init__(self) -> None:
        _check_positive("EDM weighting", sigma_data=self.sigma_data, deviation=self.deviation)
        if self.skip is not None:
            _check_positive("EDM weighting", skip=self.skip)

    def __call__(self, log_snr: Tensor, slope: Tensor) -> Tensor:
        centre, spread = (torch.full_like(log_snr, 2 * value) for value in (-self.mean, self.deviation))
        density = normal_log_density(log_snr, centre, spread).exp()
        skip, variance = self.skip or self.sigma_data, torch.exp(-log_snr)  # sigma²
        return slope * density * (variance + skip**2) ** 2 / (variance * self.sigma_data**2 + skip**4)


def _check_positive(name: str, **values: float) -> None:
    for key, value in values.items():
        if not 0 < value < math.inf:
            raise InputError(f"{name} with {key} {value}: expected a positive number")


class LogNormalNoise(AbstractSchedule):
    """EDM's noise levels for training: for uniform t, log sigma ~ N(mean, deviation²), where sigma² = 1 / snr.

    The normal distribution is cut at ±5 deviations. The slope of this schedule cancels the density p of `EDMWeighting`,
    so the remaining weight is smooth.
    """

    def __init__(self, mean: float = -1.2, deviation: float = 1.2) -> None:
        super().__init__()
        _check_positive("log-normal noise", deviation=deviation)
        self.mean, self.deviation = mean, deviation

    def log_snr(self, t: Tensor) -> Tensor:
        """-2 (mean + deviation Phi^{-1}(t)), t moved into [Phi(-5), Phi(5)]."""
        outside = 0.5 * math.erfc(5 / math.sqrt(2))
        quantile = torch.special.ndtri(outside + (1 - 2 * outside) * t.double())
        return (-2 * (self.mean + self.deviation * quantile)).to(t.dtype)


# ---------------------------------------------------------------------------------------------- objectives


class AbstractChain(ABC):
    """The parts of a model that an objective uses: the denoiser, the schedule and the bound."""

    denoiser: AbstractDenoiser
    schedule: AbstractSchedule

    @abstractmethod
    def bound(self) -> DiffusionBound:
        """The bound (5.11) with the model's chain, differentiable."""


class ToldChain(AbstractChain):
    """A chain whose network gets the augmentation (batch, numbers) of the examples."""

    def __init__(self, chain: AbstractChain, augmentation: Tensor) -> None:
        self._chain, self.schedule = chain, chain.schedule
        self.denoiser = Told(chain.denoiser, augmentation)

    def bound(self) -> DiffusionBound:
        return replace(self._chain.bound(), denoiser=self.denoiser)


class AbstractDenoisingObjective(nn.Module, ABC):
    """A loss of a diffusion model at times drawn by `times`, in nats or as weighted squared errors per example."""

    times: AbstractTimes

    @abstractmethod
    def forward(self, model: AbstractChain, x0: Tensor, labels: Tensor | None, noise: Noise) -> Loss:
        """The loss of x0 (batch, *shape) with labels (batch), some of which are already dropped, or None."""


class WeightedObjective(AbstractDenoisingObjective):
    """E_{t, eps} weight ||eps - epŝ||²: the continuous-time bound weighted by weight / (½ slope).

    t is uniform on [0, 1]. With `steps` = T, t is uniform on 1/T, 2/T .. 1 instead, and `Simple` then gives (5.18).
    `noise` is the schedule in training (default: the model's schedule). The schedule gets no gradient, because without
    L_0 and L_T the ends of the schedule would collapse.
    """

    def __init__(
        self,
        weighting: AbstractWeighting,
        times: AbstractTimes | None = None,
        steps: int | None = None,
        noise: AbstractSchedule | None = None,
    ) -> None:
        super().__init__()
        self.weighting, self.times, self.steps, self.noise = weighting, times or LowDiscrepancyTimes(), steps, noise

    def forward(self, model: AbstractChain, x0: Tensor, labels: Tensor | None, noise: Noise) -> Loss:
        times = self.times(len(x0), noise)
        log_snr, slope = self._noise_levels(times, self.noise or model.schedule)
        eps = noise.normal(x0.shape, x0.dtype)
        kernel = marginal(x0, log_snr)
        prediction = model.denoiser(kernel.mean + kernel.scale * eps, log_snr, labels)  # (5.6)
        squares = (eps - prediction.eps).square().flatten(1).sum(1)
        losses = self.weighting(log_snr, slope).to(squares) * squares
        noted = _noted(times, losses, log_snr, squared_error(prediction, x0))
        terms = {"eps_error": (times.weight.to(squares) * squares.detach()).mean() / x0[0].numel()}
        return Loss((times.weight.to(losses) * losses).mean(), terms, noted)

    def _noise_levels(self, times: Times, schedule: AbstractSchedule) -> tuple[Tensor, Tensor]:
        if self.steps is not None:
            return log_snr_and_slope(schedule, step_of(times.u, self.steps).double() / self.steps)
        width = 1 - schedule.first_time
        log_snr, slope = log_snr_and_slope(schedule, schedule.first_time + width * times.u)
        return log_snr, width * slope


class BoundObjective(AbstractDenoisingObjective):
    """The negative bound -(5.11), estimated without bias.

    The estimate per example is T times one of the T terms, plus L_T. The objective uses the model's own chain and
    variance. No other objective trains a learned schedule. This objective also trains a `LearnedVariance` (L_vlb of
    Nichol & Dhariwal 2021).
    """

    def __init__(self, times: AbstractTimes | None = None) -> None:
        super().__init__()
        self.times = times or LossAwareTimes()

    def forward(self, model: AbstractChain, x0: Tensor, labels: Tensor | None, noise: Noise) -> Loss:
        bound = model.bound()
        times = self.times(len(x0), noise)
        step = step_of(times.u, bound.steps)
        eps = noise.normal(x0.shape, x0.dtype)
        prediction = bound.predict(x0, step, eps, labels)
        losses = bound.steps * bound.term(prediction, x0, step)
        noted = _noted(times, losses, prediction.log_snr, squared_error(prediction, x0))
        prior = bound.prior(x0).mean()
        later = (times.weight.to(losses) * losses).mean()
        return Loss(prior + later, {"prior": prior.detach(), "other_terms": later.detach()}, noted)


class HybridObjective(AbstractDenoisingObjective):
    """L_simple (5.17) + `share` times -(5.11), for `LearnedVariance`.

    The bound trains only the variance. Both losses use one step t ~ U{1..T} of the chain per example. The mean gets the
    gradient of `Simple`. The variance gets `share` times the gradient of the bound. Source: Nichol & Dhariwal 2021,
    equation 16.
    """

    def __init__(self, share: float = 1e-3, times: AbstractTimes | None = None) -> None:
        super().__init__()
        _check_positive("hybrid objective", share=share)
        self.share, self.times = share, times or LowDiscrepancyTimes()

    def forward(self, model: AbstractChain, x0: Tensor, labels: Tensor | None, noise: Noise) -> Loss:
        bound = model.bound()
        bound = replace(bound, log_snr=bound.log_snr.detach())  # only `BoundObjective` trains a schedule
        times = self.times(len(x0), noise)
        step = step_of(times.u, bound.steps)
        eps = noise.normal(x0.shape, x0.dtype)
        prediction = bound.predict(x0, step, eps, labels)
        squares = (eps - prediction.eps).square().flatten(1).sum(1)
        fixed_mean = replace(prediction, x0=prediction.x0.detach(), eps=prediction.eps.detach())
        bound_terms = bound.steps * bound.term(fixed_mean, x0, step)
        losses = squares + self.share * bound_terms
        noted = _noted(times, losses, prediction.log_snr, squared_error(prediction, x0))
        weight = times.weight.to(losses)
        terms = {"simple": (weight * squares).mean().detach(), "bound": (weight * bound_terms).mean().detach()}
        return Loss((weight * losses).mean(), terms, noted)


def _noted(times: Times, losses: Tensor, log_snr: Tensor, squared_error: Tensor) -> dict[str, Tensor]:
    """The columns per example that `DiffusionModel.observe` reads."""
    found = {"times": times.u, "losses": losses, "log_snr": log_snr, "squared_error": squared_error}
    return {name: values.detach() for name, values in found.items()}


def log_snr_and_slope(schedule: AbstractSchedule, t: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
    """log snr_t and -dlog snr_t/dt at each t, both detached."""
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        log_snr = schedule.log_snr(t)
        (derivative,) = torch.autograd.grad(log_snr.sum(), t)
    return log_snr.detach(), -derivative
