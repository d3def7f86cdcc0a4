"""Annealed importance sampling of log p(x), from a normalised start to the unnormalised posterior p(x, z).

With a start p_0(z), the prior or q(z|x), and r(z) = p(x, z) / p_0(z), the path is

    f_t(z) = p_0(z) r(z)^beta_t,     0 = beta_0 < beta_1 < ... < beta_T = 1,     ∫ f_0 = 1,  ∫ f_T = p(x).

A chain starts with z_0 ~ p_0; z_t follows from z_{t-1} by a transition that leaves f_t invariant, here Hamiltonian
Monte Carlo. The weight w = Π_t r(z_{t-1})^(beta_t - beta_{t-1}) of a chain has E w = p(x) exactly (Neal 2001), even if
the transitions mix badly, so the log of a mean of weights is a stochastic lower bound on log p(x). The same
transitions, run backwards from an exact draw of the posterior, have E 1/w = 1 / p(x), which gives a stochastic upper
bound (Grosse, Ancha and Roy 2016).

E w = p(x) holds only if the transitions do not depend on the chain. So the leapfrog step is adapted for each example
and temperature on pilot chains, which have their own random numbers, and is then fixed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.bound import AnnealedEstimate, ImportanceWeightedBound
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.progress import track
from jensen.randomness import Stream, derived_seed, normal_per_example, uniform_per_example

CHAINS = 64  # maximum number of chains with noise from one call; not an option, as it changes the noise of a seed
PILOT, FORWARD, BACKWARD = range(3)  # the purpose of an example's random numbers
START, MOMENTUM, CHOICE = range(3)
WARM_UP = 20  # transitions of the pilots at the first temperature
ACCEPTANCE = 0.65  # the optimum of Hamiltonian Monte Carlo in many dimensions (Beskos et al. 2013)
GAIN, WARM_UP_GAIN = 0.3, 1.0  # change of the log of the step per unit of acceptance above the target
JITTER = 0.2  # every step varies by up to this share, so that no trajectory has exactly the length of a period

LogDensity = Callable[[Tensor], Tensor]  # of z (chains, batch, latent_dims): (chains, batch)

# ---------------------------------------------------------------------------------------------- settings


class AbstractTemperatures(ABC):
    """The inverse temperatures beta of the path."""

    @abstractmethod
    def __call__(self, count: int) -> Float[Tensor, " points"]:
        """beta_0 = 0 .. beta_count = 1, float64, ascending."""


@dataclass(frozen=True)
class LinearTemperatures(AbstractTemperatures):
    """beta_t = t / T."""

    def __call__(self, count: int) -> Float[Tensor, " points"]:
        return torch.linspace(0, 1, count + 1, dtype=torch.float64)


@dataclass(frozen=True)
class SigmoidalTemperatures(AbstractTemperatures):
    """sigmoid(slope (2t/T - 1)), scaled to [0, 1]: temperatures are closest at both ends (Grosse et al. 2015)."""

    slope: float = 4.0

    def __call__(self, count: int) -> Float[Tensor, " points"]:
        raw = torch.sigmoid(self.slope * torch.linspace(-1, 1, count + 1, dtype=torch.float64))
        return (raw - raw[0]) / (raw[-1] - raw[0])


class AbstractStart(ABC):
    """The normalised p_0(z) from which the path starts."""

    @abstractmethod
    def __call__(self, q: Gaussian) -> Gaussian:
        """p_0 (batch, latent_dims), given q(z|x)."""


class FromPrior(AbstractStart):
    """p_0 = N(0, I) (4.1); if this is the prior, f_t = p(z) p(x|z)^beta_t."""

    def __call__(self, q: Gaussian) -> Gaussian:
        return Gaussian(torch.zeros_like(q.mean), torch.ones_like(q.mean))


class FromPosterior(AbstractStart):
    """p_0 = q(z|x): the path is shorter if q is near the posterior, and bad if q is narrower than the posterior."""

    def __call__(self, q: Gaussian) -> Gaussian:
        return q


@dataclass(frozen=True)
class Annealing:
    """Settings of annealed importance sampling: T `temperatures`, C `chains`, `leapfrog` steps per transition.

    `pilots` is the number of chains that adapt the step size. Raises `InputError` for a number below 1.
    """

    temperatures: int = 500
    chains: int = 16
    leapfrog: int = 10
    pilots: int = 4
    schedule: AbstractTemperatures = field(default_factory=SigmoidalTemperatures)
    start: AbstractStart = field(default_factory=FromPrior)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("temperatures", "chains", "leapfrog", "pilots")}
        for name, value in given.items():
            if value < 1:
                raise InputError(f"annealing with {name} {value}: expected at least 1; give a positive number")

    @property
    def evaluations(self) -> int:
        """Evaluations of log p(x|z) per example, each together with the gradient with respect to z."""
        pilots = self.pilots * (1 + self.leapfrog * (WARM_UP + self.temperatures - 1))
        return pilots + self.chains * (1 + self.leapfrog * (self.temperatures - 1))


@dataclass(frozen=True)
class AnnealingNoise:
    """Random numbers for the chains of example i, a pure function of (seed, numbers[i], path)."""

    seed: int
    numbers: Sequence[int]

    def normal(self, like: Tensor, *path: int) -> Tensor:
        """Standard normal numbers of the shape (chains, batch, latent_dims) of `like`."""
        shape = (like.shape[0], like.shape[2])
        return normal_per_example(self._stream, self.numbers, shape, *path).transpose(0, 1).to(like)

    def uniform(self, like: Tensor, *path: int) -> Tensor:
        """Uniform numbers in (0, 1), (chains + 1, batch): one per chain, and one shared by the chains of an example."""
        draws = uniform_per_example(self._stream, self.numbers, (like.shape[0] + 1,), *path)
        return draws.transpose(0, 1).to(like.device)

    @property
    def _stream(self) -> int:
        return derived_seed(self.seed, Stream.ANNEALING)


# ---------------------------------------------------------------------------------------------- one transition


@dataclass(frozen=True, eq=False)
class Place:
    """The state of the chains: z (chains, batch, latent_dims), log p_0 and log r at z, and their gradients."""

    z: Tensor
    log_start: Tensor
    log_ratio: Tensor
    start_gradient: Tensor
    ratio_gradient: Tensor

    def log_density(self, beta: float) -> Tensor:
        """log f = log p_0 + beta log r, (chains, batch)."""
        return self.log_start + beta * self.log_ratio

    def gradient(self, beta: float) -> Tensor:
        """The gradient of `log_density` with respect to z."""
        return self.start_gradient + beta * self.ratio_gradient

    def where(self, moved: Tensor, other: "Place") -> "Place":
        """`other` for the chains that have moved, self for the rest; moved (chains, batch)."""
        rows = moved.unsqueeze(-1)
        return Place(
            torch.where(rows, other.z, self.z),
            torch.where(moved, other.log_start, self.log_start),
            torch.where(moved, other.log_ratio, self.log_ratio),
            torch.where(rows, other.start_gradient, self.start_gradient),
            torch.where(rows, other.ratio_gradient, self.ratio_gradient),
        )


@dataclass(frozen=True, eq=False)
class Path:
    """The densities f_t of some examples, and Hamiltonian Monte Carlo transitions for them.

    `q` gives the width of the posterior in each dimension. The unit of a leapfrog step is the scale with the precision
    (1 - beta) / s_0² + beta / s_q², where s_0 and s_q are the scales of p_0 and q. The scale suits a Gaussian f_t. For
    another f_t, an unsuitable scale costs only efficiency.
    """

    log_joint: LogDensity
    start: Gaussian
    q: Gaussian
    leapfrog: int

    def at(self, z: Tensor) -> Place:
        """The state at z; one evaluation of the network per row, and its gradient."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            log_joint = self.log_joint(leaf)
            gradient = torch.autograd.grad(log_joint.sum(), leaf)[0]
        log_start = self.start.log_prob(z)
        start_gradient = (self.start.mean - z) / self.start.variance
        return Place(z, log_start, log_joint.detach() - log_start, start_gradient, gradient - start_gradient)

    def move(
        self, place: Place, beta: float, step: Tensor, noise: AnnealingNoise, path: Sequence[int]
    ) -> tuple[Place, Tensor]:
        """One transition that leaves f_beta invariant.

        `step` (batch) is the size of the leapfrog steps. Returns the new state and the probability of acceptance,
        (chains, batch). The transition is reversible, so the same transition serves both directions. A trajectory that
        ends at inf or nan is rejected.
        """
        u = noise.uniform(place.z, *path, CHOICE)
        scale = torch.rsqrt((1 - beta) / self.start.variance + beta / self.q.variance)
        size = (step * (1 + JITTER * (2 * u[-1] - 1))).to(place.z).unsqueeze(-1) * scale
        momentum = noise.normal(place.z, *path, MOMENTUM)
        energy = place.log_density(beta) - 0.5 * momentum.square().sum(-1)
        end = place
        momentum = momentum + 0.5 * size * end.gradient(beta)
        for last in range(1, self.leapfrog + 1):
            end = self.at(end.z + size * momentum)
            momentum = momentum + (0.5 if last == self.leapfrog else 1.0) * size * end.gradient(beta)
        change = end.log_density(beta) - 0.5 * momentum.square().sum(-1) - energy
        probability = change.double().exp().clamp(max=1).nan_to_num(0.0)
        return place.where(u[:-1] < probability, end), probability


# ---------------------------------------------------------------------------------------------- all transitions


def adapted_steps(path: Path, betas: Tensor, pilots: int, noise: AnnealingNoise) -> Float[Tensor, " transitions batch"]:
    """The leapfrog step of each transition for each example, from pilot chains that no estimate uses.

    The pilots walk the path once. After each transition, the logarithm of the step grows by `GAIN` times (acceptance -
    `ACCEPTANCE`). The first `WARM_UP` transitions only adapt the step, with `WARM_UP_GAIN` in place of `GAIN`.
    """
    place = path.at(_drawn(path.start, pilots, noise, (PILOT,)))
    log_step = torch.full(place.z.shape[1:2], -0.25 * math.log(place.z.shape[2]), dtype=torch.float64)
    log_step, steps = log_step.to(place.z.device), []
    schedule = [(float(betas[1]), WARM_UP_GAIN)] * WARM_UP + [(float(beta), GAIN) for beta in betas[1:-1]]
    for number, (beta, gain) in enumerate(track(schedule, "annealing, pilots")):
        steps.append(log_step.exp())
        place, probability = path.move(place, beta, steps[-1], noise, (PILOT, number))
        log_step = log_step + gain * (probability.mean(0) - ACCEPTANCE)
    return torch.stack([*steps[WARM_UP:], log_step.exp()])  # one more, so that the stack is never empty


@torch.no_grad()
def annealed_estimate(
    log_joint: LogDensity, q: Gaussian, annealing: Annealing, *, seed: int, numbers: Sequence[int]
) -> AnnealedEstimate:
    """A lower bound on log p(x) for each example.

    `log_joint(z)` is log p(x, z), and `q` is q(z|x) (batch, latent_dims). `numbers` are the indices of the examples.
    Memory grows with the number of examples times at most `CHAINS`, not with the number of temperatures.
    """
    return _Run(log_joint, q, annealing, AnnealingNoise(seed, numbers)).estimate(None)


@torch.no_grad()
def reverse_estimate(
    log_joint: LogDensity, q: Gaussian, exact: Tensor, annealing: Annealing, *, seed: int, numbers: Sequence[int]
) -> AnnealedEstimate:
    """An upper bound on log p(x): every chain starts at `exact` (batch, latent_dims), an exact draw of the posterior.

    For a sample x of the model, `exact` is the z of the sample. All chains of an example start at the same `exact`, and
    the standard error does not cover the randomness of `exact`. E value >= log p(x) still holds for the mean over
    examples.
    """
    return _Run(log_joint, q, annealing, AnnealingNoise(seed, numbers)).estimate(exact)


class _Run:
    """One path for some examples with adapted steps, and the chains that walk it in either direction."""

    def __init__(self, log_joint: LogDensity, q: Gaussian, annealing: Annealing, noise: AnnealingNoise) -> None:
        q = Gaussian(q.mean, q.scale.expand_as(q.mean))
        self.annealing, self.noise = annealing, noise
        self.path = Path(log_joint, annealing.start(q), q, annealing.leapfrog)
        self.betas = annealing.schedule(annealing.temperatures)
        self.steps = adapted_steps(self.path, self.betas, annealing.pilots, noise)

    def estimate(self, exact: Tensor | None) -> AnnealedEstimate:
        """The estimate by chains forwards from p_0 or, given `exact`, backwards from this draw of the posterior."""
        chains, total, accepted = self.annealing.chains, None, torch.zeros_like(self.steps[0])
        for block, first in enumerate(range(0, chains, CHAINS)):
            log_weights, probability = self._walk(min(CHAINS, chains - first), block, exact)
            part = ImportanceWeightedBound.from_log_weights(log_weights, chains)
            total, accepted = part if total is None else total + part, accepted + probability
        assert total is not None
        acceptance = accepted / max(1, chains * (self.annealing.temperatures - 1))
        return AnnealedEstimate(total, acceptance, self.steps.mean(0), 1 if exact is None else -1)

    def _walk(self, chains: int, block: int, exact: Tensor | None) -> tuple[Tensor, Tensor]:
        """log w or, backwards, -log w, (chains, batch), float64; and the acceptances summed over transitions, (batch).

        Backwards, the order is reversed: r(z*)^(beta_T - beta_{T-1}), transition T-1, and so on.
        """
        order, powers = range(1, self.annealing.temperatures), self.betas.diff()
        if exact is None:
            purpose, z = FORWARD, _drawn(self.path.start, chains, self.noise, (FORWARD, block))
        else:
            purpose, z = BACKWARD, exact.expand(chains, *exact.shape)
            order, powers = order[::-1], -powers.flip(0)
        place = self.path.at(z)
        log_weights, accepted = float(powers[0]) * place.log_ratio.double(), torch.zeros_like(self.steps[0])
        for t, power in zip(track(order, "annealing"), powers[1:].tolist(), strict=True):
            step = self.steps[t - 1]
            place, probability = self.path.move(place, float(self.betas[t]), step, self.noise, (purpose, block, t))
            log_weights = log_weights + power * place.log_ratio.double()
            accepted = accepted + probability.sum(0)
        return log_weights, accepted


def _drawn(start: Gaussian, chains: int, noise: AnnealingNoise, path: Sequence[int]) -> Tensor:
    eps = noise.normal(start.mean.expand(chains, *start.mean.shape), *path, START)
    return start.mean + start.scale * eps
