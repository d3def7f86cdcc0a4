"""Claims: relations that should hold between estimates of log p(x), checked by the difference on each example."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from jensen.bound import Estimate
from jensen.evaluation.engine import Column
from jensen.evaluation.measure import Measure
from jensen.evaluation.units import measure
from jensen.model import Estimator

ENOUGH = 10  # minimum number of examples; the standard error of fewer differences means little
CONTRADICTION = 3.0  # standard errors; chance exceeds this in about one of 700 comparisons
MANY = 0.1  # a larger share of untrusted examples is a doubt about the flags of all examples
NEGLIGIBLE = 0.05  # nats; an optimised q is left a few hundredths short of its optimum

Relation = Literal["<=", "="]
Named = tuple[str, Column]


class Claim(Measure):
    """A relation that should hold between two estimates, and the mean difference, second minus first."""

    first: str
    relation: Relation
    second: str
    holds: bool | None
    """Whether the relation holds; None if undecided, with too few examples or too few that can be trusted."""
    looser: str | None = None
    """The looser of two stochastic lower bounds that contradict each other."""
    trusted: float | None = None
    """Share of the examples on which the looser bound can be trusted; of an equality that is undecided because many
    examples cannot be trusted, the share of the estimate that can be trusted less often."""


def check_claims(estimators: Sequence[Estimator], columns: Mapping[str, Column]) -> tuple[Claim, ...]:
    """Check every claim of an estimator about another estimator that was also run."""
    claims = []
    for one in estimators:
        first = one.name, columns[one.name]
        pairs: list[tuple[Relation, str]] = [("<=", name) for name in one.at_most]
        pairs += [("=", name) for name in one.equal]
        claims += [check(first, how, (name, columns[name])) for how, name in pairs if name in columns]
    return tuple(_with_looser(claim, columns) for claim in claims)


def check(first: Named, relation: Relation, second: Named) -> Claim:
    """Check one claim about two estimates.

    An order is checked on all examples. An equality is checked on the examples where both estimates can be trusted. It
    is undecided if an estimate cannot be trusted on more than a tenth of the examples: if q is too narrow, the trusted
    examples are those whose draws missed the tail of the weights, and there the estimate is too low. Values that are
    not finite are left out. The logarithm of an average with standard error s is too low by s²/2 on
    average, so two estimates count as equal even if they differ by s²/2.
    """
    (name, low), (other, high) = first, second
    rows = (high.value - low.value).isfinite()
    share = None
    if relation == "=":
        share = min(one.trusted.double().mean().item() for one in (low, high))
        rows &= low.trusted & high.trusted
    difference = (high.value - low.value)[rows]
    found, holds = _measured(difference, low.observed[rows]), None
    doubtful = share is not None and 1 - share > MANY
    if len(difference) >= ENOUGH and not doubtful:
        bias = torch.maximum(low.bias[rows], high.bias[rows]).mean().item()
        allowed = NEGLIGIBLE + 1e-5 * abs(low.value[rows].mean().item())  # the latter for float32
        limit = max(CONTRADICTION * found.nats.standard_error, allowed + (bias if relation == "=" else 0.0))
        holds = bool((abs(found.nats.mean) if relation == "=" else -found.nats.mean) <= limit)
    trusted = share if doubtful else None
    return Claim(first=name, relation=relation, second=other, holds=holds, trusted=trusted, **dict(found))


def _measured(difference: Tensor, observed: Tensor) -> Measure:
    if len(difference):
        return measure(difference, observed)
    nothing = Estimate(math.nan, math.nan, 0)
    return Measure(nats=nothing, bits_per_dimension=nothing)


def _with_looser(claim: Claim, columns: Mapping[str, Column]) -> Claim:
    """The claim with the looser estimate: averages of weights are lower bounds, so the lower one had too few draws."""
    looser = claim.first if claim.nats.mean > 0 else claim.second
    if claim.holds is not False or "effective_sample_size" not in columns[looser].details:
        return claim
    share = columns[looser].trusted.double().mean().item()
    return claim.model_copy(update={"looser": looser, "trusted": share})


def contradictions(claims: Sequence[Claim]) -> tuple[str, ...]:
    """The claims that do not hold, in words."""
    return tuple(_contradiction(claim) for claim in claims if claim.holds is False)


def _contradiction(claim: Claim) -> str:
    found = (
        f"{abs(claim.nats.mean):.3g} ± {claim.nats.standard_error:.2g} nats, more than {CONTRADICTION:.0f} standard "
        "errors"
    )
    looser = ""
    if claim.looser and claim.trusted is not None:
        looser = (
            f"; {claim.looser} is the looser bound (its weights can be trusted for {100 * claim.trusted:.3g} % of the "
            "examples): give it more samples, chains or temperatures"
        )
    if claim.relation == "<=":
        return f"{claim.first} exceeds {claim.second} by {found}, though it should be below it{looser}"
    return (
        f"{claim.first} and {claim.second} differ by {found} on the {claim.nats.count} examples where both can be "
        f"trusted, though they should agree{looser}"
    )
