"""The bound (5.11) in parts that cost one evaluation of the denoiser each, for means over many examples.

The examples of a test set differ more than the draws of one example do. So a mean over a test set needs many examples,
but only one term of the bound on each of them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jensen.diffusion.bound import CHOICE, NOISE, DiffusionBound, Strata
from jensen.model import Parts
from jensen.randomness import Stream, derived_seed, normal_per_example, uniform_per_example

PARTS = 16  # strata of about equal nats: with 24 the error is the same, with 8 it is 2 % larger (docs/errors.md)
UNIFORM = 0.01  # least share of the uniform probability of a step: with one draw of few terms, 0.1 would waste a tenth


def bound_parts(bound: DiffusionBound, strata: Strata) -> Parts:
    """Part 0 is -L_0 - L_T; part h >= 1 is minus the sum of L_{t-1} over the steps t of stratum h."""

    def draw(x: Tensor, part: Tensor, seed: int, index: Tensor) -> Tensor:
        return drawn_parts(bound, strata, x, part, seed, index)

    return Parts(strata.count + 1, draw, (bound.denoiser,))


@torch.no_grad()
def drawn_parts(
    bound: DiffusionBound,
    strata: Strata,
    x0: Float[Tensor, " batch *shape"],
    part: Int[Tensor, " batch"],
    seed: int,
    index: Int[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """One draw of one part of each example's bound: a random step of the stratum, divided by its probability."""
    stream, numbers = derived_seed(seed, Stream.EVALUATION), index.tolist()
    u = uniform_per_example(stream, numbers, (strata.count,), CHOICE)
    step, inverse_probability = strata.draw(u)  # (batch, strata)
    stratum = (part - 1).clamp(min=0).unsqueeze(1)
    first = part == 0
    step = torch.where(first, 1, step.gather(1, stratum).squeeze(1)).to(x0.device)
    weight = torch.where(first, 1.0, inverse_probability.gather(1, stratum).squeeze(1))
    eps = normal_per_example(stream, numbers, x0.shape[1:], NOISE).to(x0)
    nats = bound.term(bound.predict(x0, step, eps), x0, step).double().cpu()
    return -(nats * weight + torch.where(first, bound.prior(x0).double().cpu(), 0.0))
