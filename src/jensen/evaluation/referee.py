"""The referee: every estimate of log p(x) a model has, on the same examples, its cost counted, contradictions named.

A claim is checked by the mean of the differences on each example against its standard error. What runs on several
examples at once gives each the same number as alone, so the count of examples changes no value.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jensen.bound import AnnealedEstimate, Elbo, Estimate, ImportanceWeightedBound
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.evaluation import AT_ONCE, CONTRADICTION, ENOUGH, IN_FLIGHT, NEGLIGIBLE
from jensen.evaluation.measure import Measure, bits
from jensen.evaluation.scores import at_once, examples_digest, monte_carlo_error, prepare, spread
from jensen.evaluation.settings import RefereeSettings
from jensen.model import AbstractLatentVariableModel, Bracket, Effort, Estimator
from jensen.pareto import UNTRUSTED
from jensen.progress import track
from jensen.records import Value, write_file

FILE = "referee.json"

# ---------------------------------------------------------------------------------------------- what is recorded


class Account(Measure):
    """One estimate of log p(x): its mean, how sure it is, and what it cost for each example."""

    name: str
    monte_carlo_error: float
    """The mean over examples of one example's Monte-Carlo standard error, nats; NaN where there is none."""
    evaluations: float
    """Rows that went through the network, counted by a hook on it."""
    gradients: float
    """How many of them were differentiated too, which costs about as much again."""
    seconds: float
    median_effective_sample_size: float | None = None
    """Of importance weights or annealed chains."""
    untrusted: float | None = None
    """The share of examples whose importance weights have a tail of Pareto shape above 0.7."""
    acceptance: float | None = None
    """Of the transitions of annealed chains."""
    values: tuple[float, ...]
    """Every example's, nats."""
    errors: tuple[float, ...]
    """Their Monte-Carlo standard errors."""


class Claim(Measure):
    """What two estimates should be to each other, and the mean of their difference, second minus first."""

    first: str
    relation: Literal["<=", "="]
    second: str
    holds: bool | None
    """None where fewer than ten examples could tell."""


class Verdict(Value):
    """What the referee found; JSON both ways."""

    source: str
    examples_digest: str
    """Of all the raw examples that were given, as in evaluation.json."""
    index: tuple[int, ...]
    """The numbers of the examples that were compared."""
    settings: RefereeSettings
    samples: int
    seed: int
    accounts: tuple[Account, ...]
    claims: tuple[Claim, ...]
    simulated: tuple[Account, ...] = ()
    """Of examples drawn from the model: annealed importance sampling forwards and backwards."""
    warnings: tuple[str, ...] = ()
    """The contradictions in words."""


# ---------------------------------------------------------------------------------------------- counting


@dataclass
class Count:
    """Rows that went through networks, how many of them with a gradient, and the seconds it took."""

    rows: int = 0
    gradients: int = 0
    seconds: float = 0.0

    def see(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        """A forward hook."""
        rows = len(arguments[0])
        self.rows += rows
        self.gradients += rows * torch.is_grad_enabled()


@contextmanager
def counted(networks: Sequence[nn.Module]) -> Iterator[Count]:
    """Within, every row through one of `networks` is counted."""
    count, began = Count(), time.perf_counter()
    hooks = [network.register_forward_hook(count.see) for network in networks]
    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()
        count.seconds = time.perf_counter() - began


# ---------------------------------------------------------------------------------------------- the comparison

Found = Elbo | ImportanceWeightedBound | AnnealedEstimate


@dataclass(frozen=True)
class _Column:
    """One estimate of all examples, on the CPU in float64."""

    value: Tensor
    error: Tensor
    bias: Tensor
    """How far below its limit each value lies on average: error² / 2 of the log of an average, else 0."""
    trusted: Tensor
    count: Count
    details: dict[str, float] = field(default_factory=dict)


def referee(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    settings: RefereeSettings,
    *,
    samples: int,
    seed: int,
    source: str,
) -> Verdict:
    """Every estimate of log p(x) on the same x, what each cost, and which contradict each other.

    With `settings.simulated`, x drawn from the model too, whose log p(x) the model brackets if it can.
    """
    index = spread(len(examples), settings.referee_examples or model.usual_referee_examples)
    x = prepare(preparation, examples.x[index], index, seed).to(model.device)
    chosen = {"temperatures": settings.temperatures, "chains": settings.chains}
    effort = Effort(samples=samples, temperatures_from_q=settings.temperatures_from_q, **chosen)
    estimators = model.estimators(effort)
    columns = {one.name: _column(one, x, seed, index) for one in estimators}
    claims = _claims(estimators, columns, preparation)
    simulated, more = _simulated(model, effort, settings.simulated, seed, preparation)
    return Verdict(
        source=source,
        examples_digest=examples_digest(examples),
        index=tuple(index.tolist()),
        settings=settings,
        samples=samples,
        seed=seed,
        accounts=tuple(_account(name, column, preparation) for name, column in columns.items()),
        claims=(*claims, *more),
        simulated=simulated,
        warnings=tuple(_contradiction(claim) for claim in (*claims, *more) if claim.holds is False),
    )


def _column(estimator: Estimator, x: Tensor, seed: int, index: Tensor) -> _Column:
    size = at_once(AT_ONCE, IN_FLIGHT * x[0].numel())
    with counted(estimator.networks) as count:
        parts = [
            estimator.estimate(x[rows], seed, index[rows])
            for rows in track(torch.arange(len(x)).split(size), estimator.name)
        ]
    return _joined(parts, count)


def _joined(parts: Sequence[Found], count: Count) -> _Column:
    value, error = _cat([part.value for part in parts]), _cat([_error(part) for part in parts])
    trusted, details = torch.ones_like(value, dtype=torch.bool), {}
    weights = [part for part in parts if isinstance(part, ImportanceWeightedBound)]
    chains = [part for part in parts if isinstance(part, AnnealedEstimate)]
    bias = torch.zeros_like(error) if not (weights or chains) else error.square().nan_to_num(0.0) / 2
    if weights:
        trusted = _cat([part.pareto_shape for part in weights]) <= UNTRUSTED
        details["untrusted"] = 1 - trusted.double().mean().item()
    if weights or chains:
        sizes = _cat([part.effective_sample_size for part in weights or chains])
        details["median_effective_sample_size"] = sizes.median().item()
    if chains:
        details["acceptance"] = _cat([part.acceptance for part in chains]).mean().item()
    return _Column(value, error, bias, trusted, count, details)


def _error(part: Found) -> Tensor:
    return part.standard_error if isinstance(part, AnnealedEstimate) else monte_carlo_error(part)


def _cat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().cpu().double() for part in parts])


def _account(name: str, column: _Column, preparation: Preparation) -> Account:
    examples, count = len(column.value), column.count
    return Account(
        name=name,
        nats=Estimate.of(column.value),
        bits_per_dimension=Estimate.of(preparation.bits_per_dimension(column.value)),
        monte_carlo_error=column.error.mean().item(),
        evaluations=count.rows / examples,
        gradients=count.gradients / examples,
        seconds=count.seconds / examples,
        values=tuple(column.value.tolist()),
        errors=tuple(column.error.tolist()),
        **column.details,
    )


def _simulated(
    model: AbstractLatentVariableModel, effort: Effort, count: int, seed: int, preparation: Preparation
) -> tuple[tuple[Account, ...], tuple[Claim, ...]]:
    if not count:
        return (), ()
    networks = model.estimators(effort)[0].networks
    with counted(networks) as both:
        bracket: Bracket | None = model.bracket(count, effort, seed=seed)
    if bracket is None:
        return (), ()
    half = Count(both.rows // 2, both.gradients // 2, both.seconds / 2)
    below, above = _joined([bracket.lower], half), _joined([bracket.upper], half)
    names = "AIS, forwards", "AIS, backwards"
    accounts = tuple(_account(name, side, preparation) for name, side in zip(names, (below, above), strict=True))
    return accounts, (_claim((names[0], below), "<=", (names[1], above), preparation),)


# ---------------------------------------------------------------------------------------------- the claims


def _claims(
    estimators: Sequence[Estimator], columns: dict[str, _Column], preparation: Preparation
) -> tuple[Claim, ...]:
    claims = []
    for one in estimators:
        first = one.name, columns[one.name]
        claims += [_claim(first, "<=", (name, columns[name]), preparation) for name in one.at_most]
        claims += [_claim(first, "=", (name, columns[name]), preparation) for name in one.equal]
    return tuple(claims)


def _claim(
    first: tuple[str, _Column], relation: Literal["<=", "="], second: tuple[str, _Column], preparation: Preparation
) -> Claim:
    """An order is checked on all examples, an equality on those where neither estimate is known to be unreliable.

    The log of an average that has the standard error s lies too low by s²/2 on average, so two such may differ by that;
    an ELBO is itself an average.
    """
    (name, low), (other, high) = first, second
    rows = (low.trusted & high.trusted) if relation == "=" else torch.ones_like(low.trusted)
    difference = (high.value - low.value)[rows]
    if not len(difference):
        nothing = Estimate(float("nan"), float("nan"), 0)
        return Claim(first=name, relation=relation, second=other, holds=None, nats=nothing, bits_per_dimension=nothing)
    found = Estimate.of(difference)
    bias = torch.maximum(low.bias[rows], high.bias[rows]).mean().item()
    allowed = NEGLIGIBLE + 1e-5 * abs(low.value.mean().item())  # the latter for float32
    limit = max(CONTRADICTION * found.standard_error, allowed + (bias if relation == "=" else 0.0))
    excess = abs(found.mean) if relation == "=" else -found.mean
    return Claim(
        first=name,
        relation=relation,
        second=other,
        holds=bool(excess <= limit) if len(difference) >= ENOUGH else None,
        nats=found,
        bits_per_dimension=Estimate.of(bits(difference, preparation)),
    )


def _contradiction(claim: Claim) -> str:
    found = f"{abs(claim.nats.mean):.3g} ± {claim.nats.standard_error:.2g} nats, more than {CONTRADICTION:.0f} standard"
    if claim.relation == "<=":
        return f"{claim.first} exceeds {claim.second} by {found} errors, though it should be below it"
    return (
        f"{claim.first} and {claim.second} differ by {found} errors on the {claim.nats.count} examples where both can "
        "be trusted, though they should agree"
    )


# ---------------------------------------------------------------------------------------------- saved


def save_verdict(folder: Path, verdict: Verdict) -> Path:
    """Write referee.json into `folder`; gives its path."""
    write_file(folder / FILE, verdict.model_dump_json(indent=1).encode())
    return folder / FILE
