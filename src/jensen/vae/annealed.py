"""Annealed importance sampling in groups of examples: memory does not grow with the number of examples."""

import math
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from jensen.bound import AnnealedEstimate
from jensen.gaussian import Gaussian
from jensen.model import Bracket
from jensen.progress import track
from jensen.vae.annealing import CHAINS, Annealing, LogDensity, annealed_estimate, reverse_estimate

ELEMENTS = {"cpu": 1 << 20, "gpu": 1 << 26}  # maximum number of values of x decoded together
LogJoint = Callable[[slice], LogDensity]  # for rows of x, log p(x, z) as a function of z (draws, rows, latent_dims)


def annealed_bound(
    log_joint: LogJoint,
    q: Gaussian,
    x: Float[Tensor, "batch ..."],
    annealing: Annealing,
    *,
    seed: int,
    numbers: Sequence[int],
) -> AnnealedEstimate:
    """A lower bound on log p(x), with proposals q (batch, latent_dims); `numbers` are the indices of the examples."""
    parts = []
    for rows in track(_groups(x, annealing), "annealed importance sampling"):
        own, some = log_joint(rows), q[rows]
        parts.append(annealed_estimate(own, some, annealing, seed=seed, numbers=numbers[rows]))
    return AnnealedEstimate.concatenate(parts)


def annealed_bracket(
    log_joint: LogJoint,
    q: Gaussian,
    x: Float[Tensor, "batch ..."],
    exact: Float[Tensor, " batch latent_dims"],
    annealing: Annealing,
    *,
    seed: int,
    numbers: Sequence[int],
) -> Bracket:
    """A lower and an upper bound on log p(x) for samples x of the model.

    `exact` is the z of each sample, so it is an exact draw from the posterior of x. Chains for the upper bound start at
    `exact`.
    """
    lower, upper = [], []
    for rows in track(_groups(x, annealing), "annealing in both directions"):
        own, some = log_joint(rows), q[rows]
        lower.append(annealed_estimate(own, some, annealing, seed=seed, numbers=numbers[rows]))
        upper.append(reverse_estimate(own, some, exact[rows], annealing, seed=seed, numbers=numbers[rows]))
    return Bracket(AnnealedEstimate.concatenate(lower), AnnealedEstimate.concatenate(upper))


def _groups(x: Tensor, annealing: Annealing) -> list[slice]:
    rows = ELEMENTS["cpu" if x.device.type == "cpu" else "gpu"] // math.prod(x.shape[1:])
    group = max(1, rows // min(CHAINS, annealing.chains))
    return [slice(start, start + group) for start in range(0, len(x), group)]
