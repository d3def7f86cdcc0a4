"""5. Bayes' rule over the class-conditional bounds (1.4): p(y|x) ∝ p(y) p(x|y), log p(x|y) replaced by (5.11).

All classes get the same noise at the same steps (common random numbers), so the shared part of their errors cancels in
the differences. The comparison is a race in rounds of doubling length. A round drops a class if its posterior odds
against the leader are below `negligible` even at the upper end of a one-sided Student interval for the mean of the
paired differences. A dropped class keeps its odds of the round in which it was dropped. The terms of a draw have
independent noise, so the variance of a draw is the sum of the variances of the terms, with the degrees of freedom of
Welch and Satterthwaite. Sources: Li et al. 2023 (diffusion classifiers, with stages and paired differences); Maron &
Moore 1994 (races); Satterthwaite 1946, equation 17.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.diffusion.bound import DiffusionBound, Strata, estimate_bound
from jensen.errors import InputError
from jensen.model import Prediction
from jensen.randomness import Stream, derived_seed


@dataclass(frozen=True)
class Race:
    """The number of draws for each class in a race of classes: from `first` up to `draws`.

    Every class gets `first` draws. The number then doubles, again and again, for the classes that are not dropped.
    `error` bounds the probability, per example, that the race drops a class whose odds against the leader are above
    `negligible`. This bound holds for normal differences. If `error` is 0, no class is dropped. One draw evaluates L_0
    and `terms` terms of the sum over t. Raises `InputError` for fewer than two draws or one term, and for shares
    outside of 0 to 1.
    """

    first: int = 2
    draws: int = 16
    terms: int = 8
    negligible: float = 0.01
    error: float = 0.05

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
        """The number of draws after each round."""
        ends = []
        end = min(self.first, self.draws)
        while end < self.draws:
            ends.append(end)
            end *= 2
        return [*ends, self.draws]

    def left(self, score: Tensor, values: Float[Tensor, " draws terms batch classes"], alive: Tensor) -> Tensor:
        """The classes among `alive` (batch, classes) that stay in the race; the leader by `score` always stays."""
        leader = score.argmax(1, keepdim=True)
        gap = score - score.gather(1, leader)
        variance, degrees = _variance_of_mean(values - values.take_along_dim(leader[None, None], 3))
        comparisons = len(self.rounds()) * max(1, values.shape[3] - 1)
        upper = gap + _student_quantile(1 - self.error / comparisons, degrees) * variance.sqrt()
        stays = ~(upper < math.log(self.negligible))
        return (alive & stays).scatter(1, leader, True)


def _variance_of_mean(values: Float[Tensor, " draws terms batch classes"]) -> tuple[Tensor, Tensor]:
    """The variance of the mean over draws of the sum over terms, and the degrees of freedom, each (batch, classes)."""
    draws = values.shape[0]
    by_term = values.var(0) / draws
    variance = by_term.sum(0)
    degrees = variance.square() * (draws - 1) / by_term.square().sum(0).clamp(min=torch.finfo(values.dtype).tiny)
    return variance, degrees.clamp(min=1)


Terms = Callable[[Tensor, Tensor, int, int], Tensor]
"""Terms of the bounds on log p(x|y), (draws, terms, rows), of examples `rows` with labels (rows), for draws start..end.

The arguments are the rows of x, the labels, `start` and `end`. All classes must get the same noise.
"""


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
    """p(y|x) for x (batch, *shape) by bounds on log p(x|y).

    Row i is a pure function of (x[i], seed, index[i]). A class with prior 0 has probability 0. The standard error is by
    the delta method. It covers the randomness of the draws, but not the gaps between the bounds and log p(x|y).
    `evaluations` counts calls of the network.
    """
    index = torch.arange(len(x)) if index is None else index.cpu()

    def terms(rows: Tensor, labels: Tensor, start: int, end: int) -> Tensor:
        found = estimate_bound(
            bound,
            x[rows.to(x.device)],
            strata,
            draws=end - start,
            seed=derived_seed(seed, Stream.EVALUATION, start),
            index=index[rows],
            labels=labels.to(x.device),
        )
        return found.label_terms

    return run_race(terms, strata.count + 1, len(x), log_prior, race)


@torch.no_grad()
def predict_by_mean_bounds(
    bound: DiffusionBound,
    strata: Strata,
    x: Tensor,
    log_prior: Float[Tensor, " classes"],
    race: Race,
    *,
    seed: int = 0,
    index: Tensor | None = None,
) -> Prediction:
    """p(y|.) ∝ p(y) exp E bound(x|y), where E is the mean over the draws x (draws, batch, *shape).

    Draw d of the bounds uses x[d] for all its terms, so each draw counts as one term in the standard error.
    `race.draws` must be the number of draws of x.
    """
    index = torch.arange(x.shape[1]) if index is None else index.cpu()

    def terms(rows: Tensor, labels: Tensor, start: int, end: int) -> Tensor:
        found = [
            estimate_bound(
                bound,
                x[draw][rows.to(x.device)],
                strata,
                seed=derived_seed(seed, Stream.EVALUATION, draw),
                index=index[rows],
                labels=labels.to(x.device),
            )
            for draw in range(start, end)
        ]
        return torch.cat([each.label_terms.sum(1, keepdim=True) for each in found])

    found = run_race(terms, 1, x.shape[1], log_prior, race)
    return replace(found, evaluations=found.evaluations * (strata.count + 1))


def run_race(
    terms: Terms, terms_per_draw: int, batch: int, log_prior: Float[Tensor, " classes"], race: Race
) -> Prediction:
    """p(y|x) ∝ p(y) exp E Σ terms for `batch` examples, by a race among the classes with positive prior."""
    log_prior = log_prior.double().cpu()
    values = torch.full((race.draws, terms_per_draw, batch, len(log_prior)), math.nan, dtype=torch.float64)
    alive = log_prior.isfinite().expand(batch, -1).clone()
    done = 0
    for end in race.rounds():
        open_ = alive & (alive.sum(1, keepdim=True) > 1) if done else alive
        rows, labels = open_.nonzero(as_tuple=True)
        if not len(rows):
            break
        values[done:end, :, rows, labels] = terms(rows, labels, done, end).cpu()
        done = end
        if race.error:
            score = (log_prior + values[:end].mean(0).sum(0)).masked_fill(~open_, -math.inf)
            alive = torch.where(open_, race.left(score, values[:end], open_), alive)
    return _prediction(values[:done], log_prior)


def _prediction(values: Float[Tensor, " draws terms batch classes"], log_prior: Tensor) -> Prediction:
    """p(y|x) from paired differences between each class and the leader, over the draws that both have."""
    seen = ~values[:, 0].isnan()
    count = seen.sum(0)
    most, once = count.amax(1, keepdim=True), count.clamp(min=1)
    score = (log_prior + values.nanmean(0).sum(0)).masked_fill((count < most) | (count == 0), -math.inf)
    leader = score.argmax(1, keepdim=True)
    difference = (values - values.take_along_dim(leader[None, None], 3)).nan_to_num()
    mean = difference.sum(0) / once
    log_p = (mean.sum(0) + log_prior - log_prior[leader]).masked_fill(count == 0, -math.inf).log_softmax(1)
    p = log_p.exp()
    # Delta method: each term of each draw changes p by dp = p (d gap - Σ p d gap). A dropped class has fewer draws, so
    # each of its draws has more weight
    moved = torch.where(seen.unsqueeze(1), difference - mean, 0) * (most / once)
    moved = p * (moved - (p * moved).sum(3, keepdim=True))
    error = (moved.square().sum((0, 1)) / (most * (most - 1))).sqrt()
    nothing_weighted = torch.full((len(p),), math.inf, dtype=p.dtype)
    return Prediction(log_p, error, nothing_weighted, count.sum(1).double() * values.shape[1])


def _student_quantile(probability: float, degrees: Tensor) -> Tensor:
    from scipy.special import stdtrit

    return torch.from_numpy(stdtrit(degrees.numpy(), probability))


def telling_strata(bound: DiffusionBound, nats: Tensor, terms: int) -> Strata:
    """Strata that suit the differences between classes.

    The importance of a step is the geometric mean of its nats and of its distance in log-SNR. On digits, differences
    between classes have the smallest variance with this importance: 0.7 times the variance with nats alone or with
    log-SNR alone (docs/prediction.md).
    """
    even = bound.log_snr[1:].diff().neg()
    return Strata.weighted((nats * even).sqrt(), min(terms, bound.steps - 1))
