"""The mean bound to a wanted error, again and again on fresh test sets of cheap models: cases of error_bars.py."""

import torch
from linear_vae import as_vae, random_ppca
from mixtures import ExactDenoiser, three_clusters
from torch import Tensor

from jensen.bound import Estimate
from jensen.diffusion.bound import DiffusionBound, Strata, estimate_bound
from jensen.diffusion.parts import bound_parts
from jensen.diffusion.reverse import BetaVariance
from jensen.diffusion.schedule import LinearLogSnr, UniformLogSnr
from jensen.evaluation.source import Source
from jensen.evaluation.until import Goal, until
from jensen.model import Parts
from jensen.randomness import generator

REPEATS = 200


def silent(line: str) -> None:
    """Tell nobody."""


def source(parts: Parts, x: Tensor, seed: int) -> Source:
    """The parts of a model on the examples x, in nats of x."""
    ones = torch.ones(len(x), dtype=torch.float64)

    def draw(rows: Tensor, part: Tensor, visit: int) -> Tensor:
        return parts.draw(x[rows], part, 1000 * seed + visit, rows)

    return Source(parts.count, 0 * ones, ones, draw, parts.networks, 1000)


def energy(x: Tensor) -> Tensor:
    """A control: the squared length of standardised x."""
    squares = ((x - x.mean(0)) / x.std(0)).square().sum(1, keepdim=True)
    return (squares - squares.mean()) / squares.std()


def reached(drawn: Source, controls: Tensor, wanted: float, seed: int) -> Estimate:
    """The mean in nats, to a wanted error."""
    return until(drawn, controls, Goal(wanted, "nats per example"), seed=seed, tell=silent).measure.nats


def of_mixture(examples: int, wanted: float, *, control: bool) -> tuple[list[Estimate], float]:
    """The bound (5.11) of the exact denoiser of three clusters, and its mean over 20,000 others, by all terms."""
    mixture, grid = three_clusters(), UniformLogSnr()(LinearLogSnr(8, -10), 24)
    bound = DiffusionBound(ExactDenoiser(mixture), grid, BetaVariance())
    parts = bound_parts(bound, Strata.weighted(torch.linspace(1, 3, 23), 4, 0.01))
    found = []
    for seed in range(REPEATS):
        x = mixture.sample(examples, generator(seed, 21))
        found.append(reached(source(parts, x, seed), energy(x)[:, : int(control)], wanted, seed))
    others = mixture.sample(20_000, generator(0, 22))
    truth = estimate_bound(bound, others, Strata.every_step(24), draws=1).elbo().value.mean().item()
    return found, truth


def of_ppca(examples: int, wanted: float, *, control: bool) -> tuple[list[Estimate], float]:
    """The ELBO of PPCA with its exact posterior, whose mean is minus the entropy."""
    ppca = random_ppca()
    parts, law, found = as_vae(ppca).parts(), ppca.joint.marginal(), []
    for seed in range(REPEATS):
        x = law.rsample(generator(seed, 23), (examples,))
        found.append(reached(source(parts, x, seed), energy(x)[:, : int(control)], wanted, seed))
    return found, -law.entropy().item()


def of_skewed_parts(examples: int, wanted: float) -> tuple[list[Estimate], float]:
    """Four parts proportional to a log-normal number (sigma 0.7) of each example, with noise and a good control."""
    found, sizes = [], torch.arange(1.0, 5.0, dtype=torch.float64)
    for seed in range(REPEATS):
        a = torch.randn(examples, generator=generator(seed, 24), dtype=torch.float64)
        noise = generator(seed, 25)

        def draw(rows: Tensor, part: Tensor, visit: int, a: Tensor = a, noise: torch.Generator = noise) -> Tensor:
            own = 0.3 * torch.randn(len(rows), generator=noise, dtype=torch.float64)
            return -sizes[part] * torch.exp(0.7 * a[rows] + own)

        ones = torch.ones(examples, dtype=torch.float64)
        drawn = Source(4, 0 * ones, ones, draw, (), 10_000)
        found.append(reached(drawn, a.unsqueeze(1), wanted, seed))
    return found, -10 * float(torch.exp(torch.tensor((0.49 + 0.09) / 2)))
