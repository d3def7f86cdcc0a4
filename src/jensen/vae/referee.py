"""Every estimate of log p(x) that a VAE has, and what each claims; annealed importance sampling of any number of x."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jensen.bound import AnnealedEstimate, Elbo, ImportanceWeightedBound
from jensen.gaussian import Gaussian
from jensen.model import Bracket, Effort, Estimator
from jensen.progress import track
from jensen.vae.annealing import CHAINS, Annealing, FromPosterior, annealed_estimate, reverse_estimate
from jensen.vae.posterior import AmortisedPosterior

if TYPE_CHECKING:
    from jensen.vae.model import VAE

ELEMENTS = {"cpu": 1 << 20, "gpu": 1 << 26}  # of x, decoded together
DRAWS = 16  # of the ELBO


def annealed_bound(
    vae: "VAE", x: Tensor, annealing: Annealing, *, seed: int, numbers: Sequence[int]
) -> AnnealedEstimate:
    """log p(x) from below, a number of examples at a time: memory grows with neither examples nor chains."""
    q, parts = _inferred(vae, x), []
    for rows in track(_groups(x, annealing), "annealed importance sampling"):
        own, some = partial(vae.log_joint, x[rows]), Gaussian(q.mean[rows], q.scale[rows])
        parts.append(annealed_estimate(own, some, annealing, seed=seed, numbers=numbers[rows]))
    return AnnealedEstimate.concatenate(parts)


def bracket(vae: "VAE", n: int, annealing: Annealing, *, seed: int, first: int) -> Bracket:
    """log p(x) of the samples first..first+n-1 from below and, from the very z of each, from above."""
    x, exact = vae.sample(n, seed=seed, first=first), vae.prior_draws(n, seed=seed, first=first)
    q, numbers, lower, upper = _inferred(vae, x), range(first, first + n), [], []
    for rows in track(_groups(x, annealing), "annealing in both directions"):
        own, some = partial(vae.log_joint, x[rows]), Gaussian(q.mean[rows], q.scale[rows])
        lower.append(annealed_estimate(own, some, annealing, seed=seed, numbers=numbers[rows]))
        upper.append(reverse_estimate(own, some, exact[rows], annealing, seed=seed, numbers=numbers[rows]))
    return Bracket(AnnealedEstimate.concatenate(lower), AnnealedEstimate.concatenate(upper))


def estimators(vae: "VAE", effort: Effort) -> list[Estimator]:
    """ELBO, optimised ELBO, L_K and AIS: all bounds from below, of which AIS should come closest.

    L_K is to equal AIS where its weights can be trusted, and AIS from q is to equal AIS from the prior.
    """
    encoder = (vae.posterior.encoder,) if isinstance(vae.posterior, AmortisedPosterior) else ()
    networks, importance = (vae.decoder, *encoder), f"L_{effort.samples}"

    def optimised(x: Tensor, seed: int, index: Tensor) -> Elbo:
        return vae.elbo_of(vae.optimise(x, _inferred(vae, x)), x, draws=DRAWS, seed=seed, index=index)

    def weighted(x: Tensor, seed: int, index: Tensor) -> ImportanceWeightedBound:
        return vae.importance_weighted_bound_of(_inferred(vae, x), x, samples=effort.samples, seed=seed, index=index)

    def annealed(annealing: Annealing) -> Callable[[Tensor, int, Tensor], AnnealedEstimate]:
        return lambda x, seed, index: vae.annealed_bound(x, annealing, seed=seed, index=index)

    from_q = Annealing(max(1, effort.temperatures_from_q), effort.chains, start=FromPosterior())
    found = [
        Estimator(
            "ELBO",
            lambda x, seed, index: vae.elbo(x, draws=DRAWS, seed=seed, index=index),
            networks,
            at_most=("optimised ELBO", importance, "AIS"),
        ),
        Estimator("optimised ELBO", optimised, networks, at_most=("AIS",)),
        Estimator(importance, weighted, networks, at_most=("AIS",), equal=("AIS",)),
        Estimator("AIS", annealed(Annealing(effort.temperatures, effort.chains)), networks),
    ]
    if effort.temperatures_from_q:
        found.append(Estimator("AIS from q", annealed(from_q), networks, equal=("AIS",)))
    return found


def _inferred(vae: "VAE", x: Tensor) -> Gaussian:
    with torch.no_grad():
        q = vae.infer(x)
    return Gaussian(q.mean.detach(), q.scale.detach().expand_as(q.mean))


def _groups(x: Tensor, annealing: Annealing) -> list[slice]:
    rows = ELEMENTS["cpu" if x.device.type == "cpu" else "gpu"] // math.prod(x.shape[1:])
    group = max(1, rows // min(CHAINS, annealing.chains))
    return [slice(start, start + group) for start in range(0, len(x), group)]
