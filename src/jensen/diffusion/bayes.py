"""7. Bayes' rule over the class-conditional bounds (1.4): p(y|x) ∝ p(y) p(x|y), log p(x|y) replaced by (5.11).

Every class is judged by the same noise at the same steps, so that what the classes have in common cancels from their
differences (common random numbers), and drops out of the race as soon as it is hopeless: in rounds of doubling length,
a class is dropped whose posterior odds against the leader are below `negligible` even at the upper end of a one-sided
Student interval for the mean of the paired differences. A dropped class keeps the odds it had.
Sources: Li et al. 2023 (diffusion classifiers, with the stages and the paired differences); Maron & Moore 1994 (races).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.diffusion.bound import DiffusionBound, Strata, estimate_bound
from jensen.errors import InputError
from jensen.model import Prediction
from jensen.randomness import Stream, derived_seed


@dataclass(frozen=True)
class Race:
    """How long classes are compared: `first` draws for all, then twice as many for those left, up to `draws`.

    `error` is how probable it is, at most and for normal differences, that any class of an example is dropped though
    its odds against the leader are above `negligible`; 0 drops none. A draw has `terms` terms of the sum over t, and
    L_0. Raises `InputError` for numbers that make no race.
    """

    first: int = 4
    draws: int = 16
    terms: int = 8
    negligible: float = 1e-3
    error: float = 0.01

    def __post_init__(self) -> None:
        if min(self.first, self.draws) < 2 or self.terms < 1:
            raise InputError(
                f"a race of {self.first} to {self.draws} draws of {self.terms} terms: expected at least 2 draws, so "
                "that there is a standard error, and a term"
            )
        if not (0 < self.negligible < 1 and 0 <= self.error < 1):
            raise InputError(
                f"a race with negligible = {self.negligible}, error = {self.error}: expected odds between 0 and 1 and "
                "a probability below 1"
            )

    def rounds(self) -> list[int]:
        """How many draws there are after each round."""
        ends = []
        end = min(self.first, self.draws)
        while end < self.draws:
            ends.append(end)
            end *= 2
        return [*ends, self.draws]

    def left(self, score: Tensor, values: Float[Tensor, " draws batch classes"], alive: Tensor) -> Tensor:
        """Which of the classes `alive` (batch, classes) are not hopeless; the leader never is."""
        draws, classes = values.shape[0], values.shape[2]
        leader = score.argmax(1, keepdim=True)
        gap = score - score.gather(1, leader)
        difference = values - values.take_along_dim(leader.unsqueeze(0), 2)
        comparisons = len(self.rounds()) * max(1, classes - 1)
        upper = gap + _student_quantile(1 - self.error / comparisons, draws - 1) * difference.std(0) / math.sqrt(draws)
        hopeful = ~(upper < math.log(self.negligible))
        return (alive & hopeful).scatter(1, leader, True)


@torch.no_grad()
def predict_by_bounds(
    bound: DiffusionBound,
    strata: Strata,
    x: Tensor,
    log_prior: Float[Tensor, " classes"],
    race: Race,
    *,
    seed: int = 0,
    index: Tensor | None = None,
) -> Prediction:
    """p(y|x) of x (batch, *shape), each a function of (x, seed, index) alone; a class of prior 0 has probability 0.

    The standard error is that of the draws, by the delta method; how far the bounds are below log p(x|y) it does not
    know. `evaluations` are those of the network.
    """
    index = torch.arange(len(x)) if index is None else index.cpu()
    log_prior = log_prior.double().cpu()
    values = torch.full((race.draws, len(x), len(log_prior)), math.nan, dtype=torch.float64)
    alive = log_prior.isfinite().expand(len(x), -1).clone()
    done = 0
    for end in race.rounds():
        open_ = alive & (alive.sum(1, keepdim=True) > 1) if done else alive
        rows, labels = open_.nonzero(as_tuple=True)
        if not len(rows):
            break
        found = estimate_bound(
            bound,
            x[rows.to(x.device)],
            strata,
            draws=end - done,
            seed=derived_seed(seed, Stream.EVALUATION, done),
            index=index[rows],
            labels=labels.to(x.device),
        )
        values[done:end, rows, labels] = (found.reconstruction - found.nats.sum(1) - found.prior).cpu()
        done = end
        if race.error:
            score = (log_prior + values[:end].mean(0)).masked_fill(~open_, -math.inf)
            alive = torch.where(open_, race.left(score, values[:end], open_), alive)
    return _prediction(values[:done], log_prior, strata.count + 1)


def _prediction(values: Float[Tensor, " draws batch classes"], log_prior: Tensor, terms: int) -> Prediction:
    """Each class against the leader, over the draws that both have seen."""
    seen = ~values.isnan()
    count = seen.sum(0)
    most = count.amax(1, keepdim=True)
    score = (log_prior + values.nanmean(0)).masked_fill((count < most) | (count == 0), -math.inf)
    leader = score.argmax(1, keepdim=True)
    difference = (values - values.take_along_dim(leader.unsqueeze(0), 2)).nan_to_num()
    gap = difference.sum(0) / count.clamp(min=1) + log_prior - log_prior[leader]
    log_p = gap.masked_fill(count == 0, -math.inf).log_softmax(1)
    p = log_p.exp()
    # What each draw moves p by: dp = p (d gap - Σ p d gap); the few draws of a dropped class count for more
    mean = difference.sum(0) / count.clamp(min=1)
    moved = torch.where(seen, difference - mean, 0) * (most / count.clamp(min=1))
    moved = p * (moved - (p * moved).sum(2, keepdim=True))
    error = (moved.square().sum(0) / (most * (most - 1))).sqrt()
    none = torch.full((len(p),), math.inf, dtype=p.dtype)
    return Prediction(log_p, error, none, count.sum(1).double() * terms)


def _student_quantile(probability: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
