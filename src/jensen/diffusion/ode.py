"""The probability-flow ODE (5.20): log-likelihood, encoder and decoder, by an adaptive Runge-Kutta method.

With the log-SNR lambda as time, x̂ = E[x_0 | x_t] and v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x̂ the flow is

    dx / dlambda = ½ sqrt(alpha_bar) (x̂ - sqrt(alpha_bar) x) = -½ sqrt(alpha_bar (1 - alpha_bar)) v,

and the flow has the same marginals as the diffusion (Song et al. 2021, eq. 13). In this time variable the flow is
smooth at both ends. The density at the log-SNR `data`, near the data, follows from the normal density at the log-SNR
`noise`:

    log p(x_data) = log N(x_noise | 0, I) + ∫_data^noise div (dx / dlambda) dlambda.

Every example has its own steps, so the result for an example does not depend on the batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.bound import Elbo
from jensen.diffusion.bound import DiffusionBound
from jensen.diffusion.denoiser import AbstractDenoiser
from jensen.diffusion.process import marginal, per_example
from jensen.diffusion.schedule import noise_scale, signal_scale
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.randomness import Stream, derived_seed, normal_per_example, uniform_per_example

# ---------------------------------------------------------------------------------------------- the integrator

# Dormand and Prince 1980, RK5(4)7M. The last stage is at the new point, so the next step reuses it as its first stage.
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # fifth order minus fourth
TRACE, START = 2, 3  # purposes of an example's random numbers, beside those of `jensen.diffusion.bound`
EXACT = 16  # maximum number of dimensions with an exact trace

FIRST, SHRINK, GROW, SAFETY = 0.01, 0.2, 5.0, 0.9  # first step as a share of the interval; limits of step changes

Derivative = Callable[[Tensor, Tensor, Tensor], Tensor]  # (time (rows), state (rows, columns), row numbers) -> slope


@dataclass(frozen=True)
class Tolerance:
    """A step is accepted if the root mean square of error / (absolute + relative |state|) is at most one.

    `attempts` is the maximum number of tried steps.
    """

    relative: float = 1e-5
    absolute: float = 1e-5
    attempts: int = 10_000

    def __post_init__(self) -> None:
        if not (self.relative >= 0 and self.absolute > 0 and self.attempts > 0):
            raise InputError(
                f"tolerance relative {self.relative}, absolute {self.absolute}, attempts {self.attempts}: "
                "expected relative >= 0 and the others > 0; 1e-5 for both suits float32"
            )


@dataclass(frozen=True)
class Solution:
    """The state at the end (batch, columns), float64, and the evaluations of the derivative per example (batch)."""

    state: Tensor
    evaluations: Tensor


def integrate(
    derivative: Derivative, state: Tensor, begin: float, end: float, tolerance: Tolerance, position: int
) -> Solution:
    """Solve d state / dtime = derivative from `begin` to `end`.

    Each row of the state (batch, columns) has its own steps. The first `position` columns and the other columns must
    each meet the tolerance. A common average over many coordinates would hide the error of a log-determinant. Sums are
    in float64, whatever the precision of the derivative. Raises `InputError` if the tolerance is not reached.
    """
    state = state.double().clone()
    time = torch.full_like(state[:, 0], begin)
    step = torch.full_like(time, FIRST * (end - begin))
    rows = torch.arange(len(state), device=state.device)
    slope = derivative(time, state, rows).double()
    evaluations = torch.ones_like(rows)
    for _ in range(tolerance.attempts):
        left = end - time[rows]
        trial = torch.where(step[rows].abs() >= left.abs(), left, step[rows])
        new, last_slope, error = _attempt(derivative, time[rows], state[rows], slope[rows], trial, rows)
        evaluations[rows] += len(STAGES) - 1
        size = _error_size(error, state[rows], new, tolerance, position)
        factor = (SAFETY * size.clamp(min=1e-10) ** -0.2).clamp(SHRINK, GROW).nan_to_num(SHRINK)
        step[rows] = trial * factor
        done = size <= 1  # False for nan
        moved = rows[done]
        state[moved], slope[moved] = new[done], last_slope[done]
        time[moved] = torch.where(trial == left, end, time[rows] + trial)[done]
        rows = rows[time[rows] != end]
        if not len(rows):
            return Solution(state, evaluations)
        if bool((step[rows].abs() < 1e-12 * abs(end - begin)).any()):
            break
    raise InputError(
        f"the ODE did not reach tolerance {tolerance.relative} (relative), {tolerance.absolute} (absolute) between the "
        f"log-SNRs {begin:.4g} and {end:.4g}: give a larger tolerance, or check that the network's output is finite"
    )


def _attempt(
    derivative: Derivative, time: Tensor, state: Tensor, slope: Tensor, step: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step: the fifth-order state, its slope, and its difference from the fourth-order state."""
    slopes, h, point = [slope], step.unsqueeze(1), state
    for node, weights in zip(NODES[1:], STAGES[1:], strict=True):
        point = state + h * sum(w * k for w, k in zip(weights, slopes, strict=True) if w)
        slopes.append(derivative(time + node * step, point, rows).double())
    return point, slopes[-1], h * sum(w * k for w, k in zip(ERROR, slopes, strict=True) if w)


def _error_size(error: Tensor, old: Tensor, new: Tensor, tolerance: Tolerance, position: int) -> Tensor:
    allowed = tolerance.absolute + tolerance.relative * torch.maximum(old.abs(), new.abs())
    parts = (error / allowed).square().tensor_split([position], dim=1)
    return torch.stack([part.mean(1).sqrt() for part in parts if part.shape[1]]).amax(0)


# ---------------------------------------------------------------------------------------------- the trace


class AbstractTrace(ABC):
    """An estimator of the divergence of the flow, the trace of its Jacobian; `columns` estimates per example."""

    columns: int

    @abstractmethod
    def noise(self, x: Tensor, seed: int, index: Tensor) -> Tensor:
        """Random numbers (batch, ...), used along the whole path; row i is a pure function of (seed, index[i])."""

    @abstractmethod
    def __call__(self, velocity: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        """The trace of d velocity / d x, (rows, columns), for velocity and x of shape (rows, *shape)."""


@dataclass(frozen=True)
class ExactTrace(AbstractTrace):
    """Σ_d d velocity_d / d x_d: one backward pass per dimension of x."""

    columns = 1

    def noise(self, x: Tensor, seed: int, index: Tensor) -> Tensor:
        return x.new_empty(len(x), 0)

    def __call__(self, velocity: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        flat, total = velocity.flatten(1), x.new_zeros(len(x))
        for d in range(flat.shape[1]):
            total = total + _pulled_back(flat[:, d].sum(), x).flatten(1)[:, d]
        return total.unsqueeze(1)


@dataclass(frozen=True)
class Hutchinson(AbstractTrace):
    """An unbiased estimate of the trace: the mean of n^T (d velocity / d x) n over `probes` random vectors n of ±1.

    Each vector takes one backward pass. Another `number` gives independent vectors. Source: Hutchinson 1990.
    """

    probes: int = 1
    number: int = 0

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise InputError(f"{self.probes} probes of the trace: expected at least 1; give a positive number")

    @property
    def columns(self) -> int:  # type: ignore[override]
        return self.probes

    def noise(self, x: Tensor, seed: int, index: Tensor) -> Tensor:
        stream = derived_seed(seed, Stream.EVALUATION)
        draws = normal_per_example(stream, index.tolist(), (self.probes, *x.shape[1:]), TRACE, self.number)
        return torch.where(draws < 0, -1.0, 1.0).to(x)

    def __call__(self, velocity: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        estimates = [(n * _pulled_back((n * velocity).sum(), x)).flatten(1).sum(1) for n in noise.unbind(1)]
        return torch.stack(estimates, dim=1)


def _pulled_back(scalar: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(scalar, x, retain_graph=True)[0]


# ---------------------------------------------------------------------------------------------- the flow


@dataclass(frozen=True)
class Flow:
    """The flow of one denoiser between the log-SNRs `data` (at the data) and `noise`; labels (batch) or None."""

    denoiser: AbstractDenoiser
    data: float
    noise: float
    tolerance: Tolerance = Tolerance()
    labels: Tensor | None = None

    def velocity(self, x: Tensor, log_snr: Tensor, rows: Tensor) -> Tensor:
        """dx / dlambda = -½ sqrt(alpha_bar (1 - alpha_bar)) v (5.20) at x (rows, *shape), log_snr (rows)."""
        labels = None if self.labels is None else self.labels[rows]
        speed = -0.5 * signal_scale(log_snr) * noise_scale(log_snr)
        return per_example(speed, x) * self.denoiser(x, log_snr, labels).v

    def encode(self, x: Tensor) -> Tensor:
        """Carry x (batch, *shape) from `data` to `noise`."""
        return self._carry(x, self.data, self.noise)

    def decode(self, x: Tensor) -> Tensor:
        """Carry x (batch, *shape) from `noise` to `data`: the inverse of `encode`."""
        return self._carry(x, self.noise, self.data)

    @torch.no_grad()
    def _carry(self, x: Tensor, begin: float, end: float) -> Tensor:
        def derivative(time: Tensor, state: Tensor, rows: Tensor) -> Tensor:
            return self.velocity(state.to(x).unflatten(1, x.shape[1:]), time.to(x), rows).flatten(1)

        flat = x.flatten(1)
        return (
            integrate(derivative, flat, begin, end, self.tolerance, flat.shape[1]).state.unflatten(1, x.shape[1:]).to(x)
        )

    @torch.no_grad()
    def log_density(self, x: Tensor, trace: AbstractTrace, seed: int = 0, index: Tensor | None = None) -> "LogDensity":
        """log p(x) for x (batch, *shape) at `data`, with N(0, I) at `noise`; exact except for tolerance and trace."""
        index = torch.arange(len(x)) if index is None else index
        noise, dimensions = trace.noise(x, seed, index), math.prod(x.shape[1:])

        def derivative(time: Tensor, state: Tensor, rows: Tensor) -> Tensor:
            with torch.enable_grad():
                point = state[:, :dimensions].to(x).unflatten(1, x.shape[1:]).requires_grad_()
                velocity = self.velocity(point, time.to(x), rows)
                divergence = trace(velocity, point, noise[rows])
            return torch.cat([velocity.detach().flatten(1), divergence.detach()], dim=1)

        start = torch.cat([x.flatten(1), x.new_zeros(len(x), trace.columns)], dim=1)
        solution = integrate(derivative, start, self.data, self.noise, self.tolerance, dimensions)
        end, integrals = solution.state.tensor_split([dimensions], dim=1)
        prior = Gaussian.standard(end.shape, dtype=end.dtype, device=end.device).log_prob(end)
        return LogDensity(prior.unsqueeze(1) + integrals, solution.evaluations)


@dataclass(frozen=True)
class LogDensity:
    """log p(x) in nats (batch, columns), one column per estimate of the trace, and evaluations per example (batch)."""

    estimates: Float[Tensor, " batch columns"]
    evaluations: Tensor

    @property
    def value(self) -> Tensor:
        """The mean of the estimates, (batch); unbiased up to the tolerance if the trace is unbiased."""
        return self.estimates.mean(1)

    @property
    def standard_error(self) -> Tensor | None:
        """The standard error of `value` over the probes of the trace, (batch); None for a single probe."""
        columns = self.estimates.shape[1]
        return self.estimates.std(1) / math.sqrt(columns) if columns > 1 else None


# ---------------------------------------------------------------------------------------------- from the flow to x

Draw = tuple[int, list[int], int]  # arguments of the random numbers: seed, examples' numbers, draw's number


class AbstractDequantisation(ABC):
    """Turns the flow's density at x_1, the first point of the chain, into a bound on log p(x) or on a log-mass.

    The bound is log p(x) >= E [log_weight + log p_flow(x_1)] over the random x_1, with equality for a fixed x_1
    (`random` False).
    """

    random = True

    @abstractmethod
    def __call__(self, bound: DiffusionBound, x: Tensor, labels: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor]:
        """A draw of x_1 (batch, *shape), and its log_weight (batch)."""


class PlainDensity(AbstractDequantisation):
    """The density of x_1 / sqrt(alpha_bar_1) at x, for continuous data and very little noise in x_1."""

    random = False

    def __call__(self, bound: DiffusionBound, x: Tensor, labels: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor]:
        scale = signal_scale(bound.log_snr[1])
        return scale * x, (x[0].numel() * scale.log()).expand(len(x))


class UniformDequantisation(AbstractDequantisation):
    """The density at x + u times the volume of the bin of x, where u is uniform over this bin.

    For x on a grid of levels, the mean of the logarithm of this product over u is a lower bound on the log-mass of x.
    The bound is tight only for a model that was trained on x + u. Source: Theis et al. 2016, section 3.1.
    """

    def __call__(self, bound: DiffusionBound, x: Tensor, labels: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor]:
        if bound.levels is None:
            raise InputError(
                "uniform dequantisation of data without levels: give the number of levels, or PlainDensity"
            )
        seed, numbers, number = draw
        width = 2 / (bound.levels - 1)
        u = uniform_per_example(derived_seed(seed, Stream.EVALUATION), numbers, x.shape[1:], START, number).to(x)
        point, log_weight = PlainDensity()(bound, x + width * (u - 0.5), labels, draw)
        return point, log_weight + x[0].numel() * math.log(width)


class ChainDequantisation(AbstractDequantisation):
    """x_1 ~ q(x_1|x), weighted by p_theta(x|x_1) / q(x_1|x).

    The result is the bound (5.11) with the flow in place of x_2 .. x_T. This bound shares L_0 with the bound of the
    chain, and holds for levels and for densities.
    """

    def __call__(self, bound: DiffusionBound, x: Tensor, labels: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor]:
        seed, numbers, number = draw
        eps = normal_per_example(derived_seed(seed, Stream.EVALUATION), numbers, x.shape[1:], START, number).to(x)
        first = torch.ones(len(x), dtype=torch.long, device=x.device)
        prediction = bound.predict(x, first, eps, labels)
        log_q = marginal(x, bound.log_snr[1]).log_prob(prediction.x_t)
        return prediction.x_t, -bound.reconstruction_term(prediction, x, first) - log_q


@torch.no_grad()
def flow_bound(
    bound: DiffusionBound,
    x: Tensor,
    dequantisation: AbstractDequantisation,
    tolerance: Tolerance,
    draws: int,
    *,
    seed: int = 0,
    index: Tensor | None = None,
    labels: Tensor | None = None,
) -> Elbo:
    """log p(x) in nats (batch), by the flow between x_1 and x_T of the bound's chain.

    The trace is exact for up to EXACT dimensions, else estimated with `draws` probes. A random dequantisation is drawn
    `draws` times, each time with another probe. The standard error covers probes and dequantisation. The error is None
    for a single draw, and 0 for an exact trace without dequantisation.
    """
    if draws < 1:
        raise InputError(f"{draws} draws for the flow's bound: expected at least 1; give a positive number")
    numbers = list(range(len(x))) if index is None else index.tolist()
    first, last = float(bound.log_snr[1]), float(bound.log_snr[-1])
    flow = Flow(bound.denoiser, first, last, tolerance, labels)
    exact = x[0].numel() <= EXACT
    estimates = []
    for number in range(draws if dequantisation.random else 1):
        point, log_weight = dequantisation(bound, x, labels, (seed, numbers, number))
        probes = 1 if dequantisation.random else draws
        trace = ExactTrace() if exact else Hutchinson(probes, number)
        density = flow.log_density(point, trace, seed, torch.tensor(numbers))
        estimates.append(density.estimates + log_weight.double().unsqueeze(1))
    value = torch.cat(estimates, dim=1)
    if exact and not dequantisation.random:
        return Elbo(value.squeeze(1), {}, torch.zeros_like(value.squeeze(1)))
    return Elbo.from_draws(value.T, {})
