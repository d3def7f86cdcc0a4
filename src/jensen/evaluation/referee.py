"""The referee: all of a model's estimates of log p(x) on the same examples, with their costs and failed claims."""

import time
from collections.abc import Sequence
from pathlib import Path

from jensen.bound import root_mean_square
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.claims import Claim, check, check_claims, contradictions
from jensen.evaluation.engine import Column, Cost, counted, run_estimators
from jensen.evaluation.measure import Measure, doubts
from jensen.evaluation.scores import examples_digest, spread
from jensen.evaluation.settings import RefereeSettings
from jensen.evaluation.units import Units, measure
from jensen.model import AbstractLatentVariableModel, Effort
from jensen.pareto import UNTRUSTED
from jensen.provenance import Provenance, provenance
from jensen.records import Value, write_file

FILE = "referee.json"

# ---------------------------------------------------------------------------------------------- the record


class Account(Measure):
    """One estimate of log p(x), with mean, errors and cost per example."""

    name: str
    monte_carlo_error: float
    """Root mean square of the examples' Monte-Carlo standard errors, nats; NaN if they are unknown."""
    evaluations: float
    """Rows through the networks per example, counted by a hook on the networks."""
    gradients: float
    """Rows per example with a gradient, which roughly doubles the cost of a row."""
    seconds: float
    """Seconds per example."""
    median_effective_sample_size: float | None = None
    """Effective sample size of importance weights or annealed chains; None for other estimates."""
    untrusted: float | None = None
    """Share of the examples whose importance weights have a tail of Pareto shape above 0.7."""
    trusted: float | None = None
    """Share of the examples on which an average of weights or chains can be trusted, see `engine.trusted`."""
    acceptance: float | None = None
    """Mean acceptance of the transitions of annealed chains; None for other estimates."""
    values: tuple[float, ...]
    """One value per example, in nats of the raw data."""
    errors: tuple[float, ...]
    """The Monte-Carlo standard errors of the values."""


class Verdict(Value):
    """The record of a comparison of estimates; JSON both ways."""

    source: str
    """The data, in words."""
    examples_digest: str
    """The digest of all raw examples, as in evaluation.json."""
    index: tuple[int, ...]
    """The numbers of the examples that were compared."""
    settings: RefereeSettings
    samples: int
    seed: int
    accounts: tuple[Account, ...]
    claims: tuple[Claim, ...]
    simulated: tuple[Account, ...] = ()
    """Estimates for samples of the model: annealed importance sampling forwards and backwards."""
    warnings: tuple[str, ...] = ()
    """One sentence for each claim that does not hold, and for each reason to doubt the error of a mean."""
    provenance: Provenance
    """The weights, software and command that gave these results."""


# ---------------------------------------------------------------------------------------------- the comparison


def referee(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    settings: RefereeSettings,
    *,
    samples: int,
    seed: int,
    source: str,
    step: int | None = None,
) -> Verdict:
    """All estimates of log p(x) on the same x, the cost of each, and the checked claims.

    `samples` is the K of L_K. `source` names the data in words. `step` is the training step of the weights. With
    `settings.simulated`, and if the model has a bracket, log p(x) of samples of the model is bounded from below and
    above.
    """
    began = time.perf_counter()
    index = spread(len(examples), settings.referee_examples or model.usual_referee_examples)
    effort = Effort(
        samples=samples,
        temperatures=settings.temperatures,
        chains=settings.chains,
        temperatures_from_q=settings.temperatures_from_q,
        cross_checks=True,
    )
    columns = run_estimators(model, examples, preparation, effort, index, seed=seed)
    sides = _simulated(model, effort, settings.simulated, seed, preparation)
    claims = check_claims(model.estimators(effort), columns)
    if sides:
        lower, upper = sides.items()
        claims = (*claims, check(lower, "<=", upper))
    accounts = tuple(_account(name, column) for name, column in columns.items())
    simulated = tuple(_account(name, side) for name, side in sides.items())
    return Verdict(
        source=source,
        examples_digest=examples_digest(examples),
        index=tuple(index.tolist()),
        settings=settings,
        samples=samples,
        seed=seed,
        accounts=accounts,
        claims=claims,
        simulated=simulated,
        warnings=(*contradictions(claims), *_doubts(accounts, simulated, claims)),
        provenance=provenance(model, step, began),
    )


def _doubts(accounts: Sequence[Account], simulated: Sequence[Account], claims: Sequence[Claim]) -> list[str]:
    """Doubts about the errors; a single example, which has no error, and claims about no example are left out."""
    shown: dict[str, Measure] = {account.name: account for account in accounts}
    shown |= {f"{account.name}, simulated": account for account in simulated}
    shown |= {f"{claim.second} - {claim.first} ({claim.relation})": claim for claim in claims}
    return doubts({name: one for name, one in shown.items() if one.nats.count > 1})


def _simulated(
    model: AbstractLatentVariableModel, effort: Effort, count: int, seed: int, preparation: Preparation
) -> dict[str, Column]:
    """Bounds on log p(x) of `count` samples, from below and from above; nothing if the model has no bracket."""
    if not count:
        return {}
    networks = model.estimators(effort)[0].networks
    with counted(networks) as both:
        bracket = model.bracket(count, effort, seed=seed)
    if bracket is None:
        return {}
    half, units = Cost(both.rows // 2, both.gradients // 2, both.seconds / 2), Units.complete(preparation, count)
    sides = {"AIS, forwards": bracket.lower, "AIS, backwards": bracket.upper}
    return {name: Column.of(side, units, half) for name, side in sides.items()}


def _account(name: str, column: Column) -> Account:
    examples, cost, details = len(column.value), column.cost, column.details
    sizes, acceptance = details.get("effective_sample_size"), details.get("acceptance")
    shapes = details.get("pareto_shape")
    return Account(
        name=name,
        **dict(measure(column.value, column.observed, sign=-1)),
        monte_carlo_error=root_mean_square(column.standard_error),
        evaluations=cost.rows / examples,
        gradients=cost.gradients / examples,
        seconds=cost.seconds / examples,
        median_effective_sample_size=None if sizes is None else sizes.median().item(),
        untrusted=None if shapes is None else 1 - (shapes <= UNTRUSTED).double().mean().item(),
        trusted=None if sizes is None else column.trusted.double().mean().item(),
        acceptance=None if acceptance is None else acceptance.mean().item(),
        values=tuple(column.value.tolist()),
        errors=tuple(column.standard_error.tolist()),
    )


# ---------------------------------------------------------------------------------------------- saved


def save_verdict(folder: Path, verdict: Verdict) -> Path:
    """Write referee.json into `folder`. Returns its path."""
    write_file(folder / FILE, verdict.model_dump_json(indent=1).encode())
    return folder / FILE
