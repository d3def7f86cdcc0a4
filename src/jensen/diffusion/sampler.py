"""5. Samplers: from noise x_T to data x_0 along any grid, by any denoiser.

`trajectory` is the only loop, and yields the first state of a sampler, then the state after each step. A sampler has
the methods `init` and `step`; the state holds the sampler's memory of earlier steps. Coefficients are computed in
float64.

| sampler           | draws noise | order | denoiser calls per step | source                                 |
|-------------------|-------------|-------|-------------------------|----------------------------------------|
| `Ancestral`       | yes         | -     | 1                       | (5.19), Ho et al. 2020                 |
| `DDIM`            | eta > 0     | 1     | 1                       | Song et al. 2020                       |
| `Heun`            | churn > 0   | 2     | 2                       | Karras et al. 2022, algorithms 1 and 2 |
| `DPMSolver2M`     | eta > 0     | 2     | 1                       | Lu et al. 2022, algorithm 2            |
| `UniPC`           | no          | 3     | 1                       | Zhao et al. 2023, order 2 with UniC    |
| `DDIMInversion`   | no          | 1     | 1                       | Song et al. 2020, section 4.3          |

The order is the order of the error at a fixed noise level, for small steps of a deterministic sampler.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.process import step_kernel
from jensen.diffusion.reverse import AbstractReverseVariance, BetaVariance, reverse_step
from jensen.diffusion.schedule import noise_scale, signal_scale
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.randomness import normal_per_example

# ---------------------------------------------------------------------------------------------- the loop

Denoise = Callable[[Tensor, Tensor], Denoised]  # from x_t and log_snr (); labels are bound
StepNoise = Callable[[int], Tensor]  # standard normal, for the step that starts at this point of the grid


@dataclass(frozen=True)
class SeededNoise:
    """Noise for row i, a pure function of (seed, indices[i], position) in any batch; position 0 gives x_T."""

    seed: int
    indices: Sequence[int]
    shape: Sequence[int]
    device: torch.device | str = "cpu"

    def __call__(self, position: int) -> Tensor:
        return normal_per_example(self.seed, self.indices, self.shape, position).to(self.device)


@dataclass(frozen=True, eq=False)
class State:
    """The state of a sampler: x (batch, *shape) at point `position` of the grid; past predictions, newest first."""

    x: Tensor
    position: int
    history: tuple[Denoised, ...] = ()


class AbstractSampler(ABC):
    """A method that moves x from one point of the grid to the point before."""

    def init(self, x: Tensor, grid: Tensor) -> State:
        """The state at the last point of the grid."""
        return State(x, len(grid) - 1)

    @abstractmethod
    def step(self, state: State, denoise: Denoise, grid: Tensor, noise: StepNoise) -> State:
        """The state at the point before; `grid` is log snr (T + 1) in float64 on the CPU."""


def trajectory(
    sampler: AbstractSampler,
    denoiser: AbstractDenoiser,
    grid: Tensor,
    noise: StepNoise,
    x: Tensor | None = None,
    labels: Tensor | None = None,
) -> Iterator[State]:
    """All T + 1 states from the last point of the grid to point 0, both included.

    `grid` holds log snr at points 0..T of an `AbstractGrid`, or at any part of these points. x is the state at point T
    (default: noise(0)). Gradients flow if enabled. Raises `InputError` for a grid that is not strictly monotone.
    """
    grid = grid.detach().to("cpu", torch.float64)
    if grid.ndim != 1 or len(grid) < 2 or abs(float(grid.diff().sign().sum())) != len(grid) - 1:
        raise InputError(
            "log-SNRs of a grid that neither fall nor rise throughout; make the grid by a class like UniformTime"
        )
    state = sampler.init(noise(0) if x is None else x, grid)
    yield state

    def denoise(x_t: Tensor, log_snr: Tensor) -> Denoised:
        # A denoiser may return one log-SNR per example; samplers need the single number that they gave
        return replace(denoiser(x_t, log_snr, labels), log_snr=log_snr)

    while state.position > 0:
        state = sampler.step(state, denoise, grid, noise)
        yield state


def _ends(state: State, grid: Tensor) -> tuple[Tensor, Tensor]:
    """log snr at the end and at the start of the step."""
    return grid[state.position - 1], grid[state.position]


def _is_data(log_snr: Tensor) -> bool:
    return bool(torch.isposinf(log_snr))


# ---------------------------------------------------------------------------------------------- the samplers


class LastStep(Enum):
    """The last step of the ancestral sampler, from p_theta(x_0 | x_1) = N(x̂, sigma_1² I) (5.12)."""

    MEAN = "mean"
    """x̂: zeta = 0 at t = 1 (5.19), as in DDPM, so that pictures show no noise of the last step."""
    DRAW = "draw"
    """x̂ + sigma_1 zeta: an exact draw from the model p_theta (5.9), which the bound (5.11) is about."""


@dataclass(frozen=True)
class Ancestral(AbstractSampler):
    """DDPM's sampler (5.19): x_{t-1} is a draw from p_theta(x_{t-1} | x_t) (5.12); `last` chooses x_0."""

    variance: AbstractReverseVariance = field(default_factory=BetaVariance)
    last: LastStep = LastStep.MEAN

    def step(self, state: State, denoise: Denoise, grid: Tensor, noise: StepNoise) -> State:
        log_snr_s, log_snr_t = _ends(state, grid)
        prediction = denoise(state.x, log_snr_t)
        kernel = reverse_step(prediction, log_snr_s, self.variance)
        still = _is_data(log_snr_s) and self.last is LastStep.MEAN
        x = kernel.mean if still else kernel.mean + kernel.scale * noise(state.position).to(state.x)
        return State(x, state.position - 1, (prediction,))


@dataclass(frozen=True)
class DDIM(AbstractSampler):
    """The non-Markovian family of Song et al. 2020: deterministic at eta = 0, (5.12) with beta~ at eta = 1."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        _check_eta(self.eta)

    def step(self, state: State, denoise: Denoise, grid: Tensor, noise: StepNoise) -> State:
        log_snr_s, log_snr_t = _ends(state, grid)
        prediction = denoise(state.x, log_snr_t)
        x = _ddim(state, prediction.x0, log_snr_s, log_snr_t, self.eta, noise)
        return State(x, state.position - 1, (prediction,))


@dataclass(frozen=True)
class DDIMInversion(AbstractSampler):
    """DDIM from data to noise, as an encoder.

    Call `trajectory` with the flipped grid and with the data as x. The denoiser cannot predict eps from noise-free
    data. So the first step predicts eps from sqrt(alpha_bar) x_0 at the noise level where the step ends.
    """

    def step(self, state: State, denoise: Denoise, grid: Tensor, noise: StepNoise) -> State:
        log_snr_s, log_snr_t = _ends(state, grid)
        a, s = signal_scale(log_snr_s), noise_scale(log_snr_s)
        if _is_data(log_snr_t):
            prediction = denoise(a * state.x, log_snr_s)
            return State(a * state.x + s * prediction.eps, state.position - 1, (prediction,))
        prediction = denoise(state.x, log_snr_t)
        return State(a * prediction.x0 + s * prediction.eps, state.position - 1, (prediction,))


@dataclass(frozen=True)
class Heun(AbstractSampler):
    """Heun's method on dx/dsigma = eps, x = x_t / sqrt(alpha_bar), with EDM's churn.

    Churn means that noise is added before a step. It is added if the step starts at `churn_from` <= sigma <=
    `churn_to`. Then sigma grows by the factor 1 + min(churn / T, sqrt(2) - 1), where T is the number of steps. The
    added noise is multiplied by `inflation`. Source: Karras et al. 2022, algorithm 2, where `churn`, `churn_from`,
    `churn_to` and `inflation` are S_churn, S_tmin, S_tmax and S_noise.
    """

    churn: float = 0.0
    churn_from: float = 0.0
    churn_to: float = math.inf
    inflation: float = 1.0

    def __post_init__(self) -> None:
        if not (self.churn >= 0 and self.inflation > 0):
            raise InputError(f"churn {self.churn}, inflation {self.inflation}: expected churn >= 0 and inflation > 0")

    def step(self, state: State, denoise: Denoise, grid: Tensor, noise: StepNoise) -> State:
        log_snr_s, log_snr_t = _ends(state, grid)
        x, log_snr = self._churned(state, log_snr_t, len(grid) - 1, noise)
        here = denoise(x, log_snr)
        x_s = signal_scale(log_snr_s) * here.x0 + noise_scale(log_snr_s) * here.eps  # Euler's method, which is DDIM
        if not _is_data(log_snr_s):
            there = denoise(x_s, log_snr_s)
            ratio = torch.exp(0.5 * (F.logsigmoid(log_snr_s) - F.logsigmoid(log_snr)))  # sqrt(alpha_bar) at s over here
            slope = 0.5 * (here.eps + there.eps)
            x_s = ratio * x + (noise_scale(log_snr_s) - ratio * noise_scale(log_snr)) * slope
        return State(x_s, state.position - 1, (here,))

    def _churned(self, state: State, log_snr: Tensor, steps: int, noise: StepNoise) -> tuple[Tensor, Tensor]:
        inside = self.churn_from <= math.exp(-0.5 * float(log_snr)) <= self.churn_to
        gamma = min(self.churn / steps, math.sqrt(2) - 1) if inside else 0.0
        if gamma == 0:
            return state.x, log_snr
        noisier = log_snr - 2 * math.log1p(gamma)  # sigma grows by 1 + gamma
        kernel = step_kernel(state.x, log_snr, noisier)  # (5.1)
        return kernel.mean + self.inflation * kernel.scale * noise(state.position).to(state.x), noisier


@dataclass(frozen=True)
class DPMSolver2M(AbstractSampler):
    """DPM-Solver++ (2M): a DDIM step with x̂ extrapolated from the last two predictions to the middle of the step.

    eta = 1 gives the SDE form. The first step, and the last step (to the data), do not extrapolate.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        _check_eta(self.eta)

    def step(self, state: State, denoise: Denoise, grid: Tensor, noise: StepNoise) -> State:
        log_snr_s, log_snr_t = _ends(state, grid)
        prediction = denoise(state.x, log_snr_t)
        x0 = prediction.x0
        if state.history and not _is_data(log_snr_s):
            previous = state.history[0]
            ratio = (log_snr_s - log_snr_t) / (log_snr_t - previous.log_snr)  # 1 / r
            x0 = x0 + 0.5 * ratio * (x0 - previous.x0)
        x = _ddim(state, x0, log_snr_s, log_snr_t, self.eta, noise)
        return State(x, state.position - 1, (prediction,))


@dataclass(frozen=True)
class UniPC(AbstractSampler):
    """UniPC: each step predicts x, calls the denoiser once, and corrects x; the error has the order `order` + 1.

    Predictor and corrector integrate a polynomial in the log-SNR that interpolates x̂. The predictor uses the last
    `order` points; the corrector also uses the new point. B, the paper's function of the step h in log-SNR, is exp(h) -
    1 here. B changes the result only for a polynomial through two points, where the paper's coefficient rho is 1/2; for
    more points B cancels. The state holds the predicted x; its history holds the corrected x. The first step has no
    history. With `order` 3, the error is then of order 3, unless x̂ is constant in the first step.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise InputError(f"UniPC of order {self.order}: expected 1, 2 or 3")

    def step(self, state: State, denoise: Denoise, grid: Tensor, noise: StepNoise) -> State:
        log_snr_s, log_snr_t = _ends(state, grid)
        prediction = denoise(state.x, log_snr_t)
        if state.history:
            corrected = _exponential_step(state.history[0].x_t, (prediction, *state.history), 1, log_snr_t)
            prediction = replace(prediction, x_t=corrected)
        history = (prediction, *state.history)[: self.order]
        x = prediction.x0 if _is_data(log_snr_s) else _exponential_step(prediction.x_t, history, 0, log_snr_s)
        return State(x, state.position - 1, history)


# ---------------------------------------------------------------------------------------------- steps


def _check_eta(eta: float) -> None:
    if not 0 <= eta <= 1:
        raise InputError(f"eta {eta}: expected a number from 0 (deterministic) to 1 (the noise of the chain)")


def _ddim(state: State, x0: Tensor, log_snr_s: Tensor, log_snr_t: Tensor, eta: float, noise: StepNoise) -> Tensor:
    """A draw from `ddim_kernel`."""
    kernel = ddim_kernel(state.x, x0, log_snr_s, log_snr_t, eta)
    if eta == 0 or _is_data(log_snr_s):
        return kernel.mean
    return kernel.mean + kernel.scale * noise(state.position).to(state.x)


def ddim_kernel(x_t: Tensor, x0: Tensor, log_snr_s: Tensor, log_snr_t: Tensor, eta: float) -> Gaussian:
    """q_eta(x_s | x_t, x_0) (Song et al. 2020, equation 7): eta = 1 is (5.8), eta = 0 has no noise.

    N(sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s - eta² beta~) eps, eta² beta~) with eps from (5.6). As beta~ is
    (1 - alpha_bar_s) (1 - exp(d)), d = log_snr_t - log_snr_s, the square root is sqrt(1 - alpha_bar_s) g,
    g² = 1 - eta² (1 - exp(d)).
    """
    d = log_snr_t - log_snr_s
    g = torch.sqrt(torch.exp(d) - (1 - eta**2) * torch.expm1(d))
    on_x_t = g * noise_scale(log_snr_s) / noise_scale(log_snr_t)
    on_x0 = signal_scale(log_snr_s) * (1 - g * torch.exp(0.5 * d))
    scale = eta * noise_scale(log_snr_s) * torch.sqrt(-torch.expm1(d))
    return Gaussian(on_x_t * x_t + on_x0 * x0, scale, x_t.ndim - 1)


def _exponential_step(x: Tensor, predictions: tuple[Denoised, ...], start: int, log_snr_s: Tensor) -> Tensor:
    """x at log_snr_s from x at predictions[start].log_snr, by variation of constants with a polynomial x̂ of log snr.

    With half log-SNRs l: x_s = (s_s / s_t) x_t + a_s ∫_0^h exp(u - h) x̂(l_t + u) du (Lu et al. 2022, proposition
    4.1), where the polynomial passes through all predictions.
    """
    log_snr_t = predictions[start].log_snr
    h = 0.5 * (log_snr_s - log_snr_t)
    nodes = torch.stack([0.5 * (prediction.log_snr - log_snr_t) / h for prediction in predictions])
    moments = _moments(h, len(nodes))
    if len(nodes) == 2:
        moments[1] = 0.5 * moments[0]  # rho = 1/2: second order as well, and more stable in large steps
    weights = torch.linalg.solve(torch.vander(nodes, increasing=True).mT, moments)
    integral = sum(weight * prediction.x0 for weight, prediction in zip(weights, predictions, strict=True))
    return noise_scale(log_snr_s) / noise_scale(log_snr_t) * x + signal_scale(log_snr_s) * integral


def _moments(h: Tensor, count: int) -> Tensor:
    """M_k = ∫_0^1 h exp(h (r - 1)) r^k dr, k = 0..count-1, by Gauss's rule; exact up to rounding for h up to 60."""
    r, weights = (0.5 * torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(40))
    r = r + 0.5
    return torch.vander(r, count, increasing=True).mT @ (weights * h * torch.exp(h * (r - 1)))
