"""The record of a mean of the bound, or of a difference of two bounds, to a wanted error."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import NonNegativeInt

from jensen.data.examples import Examples, counted
from jensen.data.preparation import Preparation, Standardise
from jensen.data.table_preparation import TablePreparation
from jensen.errors import InputError
from jensen.evaluation.controls import controls
from jensen.evaluation.measure import Measure, doubts
from jensen.evaluation.scores import examples_digest
from jensen.evaluation.source import ELBO, parts_of, source_of
from jensen.evaluation.until import Goal, Reached, Unit, until
from jensen.model import AbstractLatentVariableModel, Effort
from jensen.provenance import Provenance, provenance
from jensen.records import Value

FILE = "mean_bound.json"
FEWEST = 20  # examples


class Part(Value):
    """The draws of one part of the bound, which add up to the mean."""

    draws: int
    deviation: float
    """Standard deviation of a draw, nats."""
    residual_deviation: float
    """Standard deviation of a draw minus its prediction from the controls, nats."""


class MeanBound(Measure):
    """The mean of the ELBO over a population of examples, in both units, to a wanted standard error; JSON both ways."""

    name: str
    """The averaged quantity: ELBO, another estimate of log p(x), or a difference of two ELBOs."""
    source: str
    """The data, in words."""
    examples_digest: str
    """The digest of all raw examples, as in evaluation.json."""
    examples: int
    """The number of examples from which the draws chose."""
    visited: int
    """The number of examples with at least one draw."""
    wanted: float
    """The wanted standard error, in `unit`."""
    unit: Unit
    draws: int
    """The number of draws of a part."""
    evaluations: float
    """Rows through the networks."""
    forecast: float
    """The number of draws that the pilot foretold; NaN if the pilot sufficed, inf if the error seemed out of reach."""
    seconds: float
    controls: tuple[str, ...]
    """The controls: numbers that are known for every example, from which the bound is predicted."""
    parts: tuple[Part, ...]
    seed: NonNegativeInt
    warnings: tuple[str, ...]
    provenance: tuple[Provenance, ...]
    """The weights, software and command of each model."""

    @property
    def left(self) -> float:
        """The share of a draw's variance that the controls leave: a fall of the cost to the same share."""
        raw = sum(part.deviation for part in self.parts)
        return (sum(part.residual_deviation for part in self.parts) / raw) ** 2 if raw else 1.0


class Differences(Value):
    """The mean differences between several ELBOs and the first."""

    differences: tuple[MeanBound, ...]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with its preparation and the training step of its weights."""

    model: AbstractLatentVariableModel
    preparation: Preparation
    step: int | None = None


def unit_of(preparation: Preparation) -> Unit:
    """Bits per dimension; nats for continuous data, whose bits depend on the unit of measurement, and for tables."""
    if isinstance(preparation, TablePreparation):
        return "nats per row"
    return "nats per example" if isinstance(preparation, Standardise) else "bits per dimension"


def mean_bound(
    subjects: Sequence[Subject],
    examples: Examples,
    train: Examples | None,
    error: float,
    *,
    seed: int,
    source: str,
    of: str = ELBO,
    effort: Effort | None = None,
    name: str = ELBO,
    control: bool = True,
) -> MeanBound:
    """The mean ELBO of one subject, or the first subject's minus the second's, to a standard error of `error`.

    `of` is the name of another estimator to average instead of the ELBO; its cost per example is limited by `effort`.
    The unit is that of `unit_of`. `train` are the examples to which controls are fitted; without `control` there are
    none. Raises `InputError` for fewer than 20 examples.
    """
    if len(examples) < FEWEST:
        raise InputError(f"{counted(len(examples))}: expected at least {FEWEST}; leave out --error for a table of all")
    began, preparation = time.perf_counter(), subjects[0].preparation
    unit = unit_of(preparation)
    known = controls(train, examples, preparation, seed) if control else {}
    table = torch.stack(list(known.values()), 1) if known else torch.empty(len(examples), 0, dtype=torch.float64)
    sources = [
        source_of(one.model, parts_of(one.model, of, effort or Effort()), examples, one.preparation, seed)
        for one in subjects
    ]
    drawn = sources[0] if len(sources) == 1 else sources[0] - sources[1]
    goal = Goal(error, unit)
    reached = until(drawn, table, goal, seed=seed)
    found = reached.found
    parts = zip(found.rows.tolist(), found.raw_deviation.tolist(), found.deviation.tolist(), strict=True)
    return MeanBound(
        **dict(reached.measure),
        name=name,
        source=source,
        examples_digest=examples_digest(examples),
        examples=len(examples),
        visited=reached.visited,
        wanted=error,
        unit=unit,
        draws=int(found.rows.sum()),
        evaluations=reached.evaluations,
        forecast=reached.forecast,
        seconds=time.perf_counter() - began,
        controls=tuple(known),
        parts=tuple(Part(draws=n, deviation=raw, residual_deviation=rest) for n, raw, rest in parts),
        seed=seed,
        warnings=tuple(_warnings(reached, goal, name)),
        provenance=tuple(provenance(one.model, one.step, began) for one in subjects),
    )


def _warnings(reached: Reached, goal: Goal, name: str) -> list[str]:
    estimate = goal.estimate(reached.measure)
    if not estimate.standard_error < torch.inf:
        return ["a draw of the bound is not finite, so neither is the mean; jensen score finds the examples"]
    if reached.limit is None:
        return doubts({name: estimate})
    return [
        f"± {goal.error:g} is out of reach: {counted(reached.visited)} leave ± {reached.limit:.2g} {goal.unit} after "
        f"any number of draws; about {reached.visited * (reached.limit / goal.error) ** 2:,.0f} examples would do"
    ]


def sentences(found: MeanBound) -> list[str]:
    """The cost, the use of the controls and the warnings, a sentence each."""
    parts = f" of {len(found.parts)} parts of the bound" if len(found.parts) > 1 else ""
    draws = f"{found.draws:,} draws{parts} on {found.visited:,} of "
    cost = f"{counted(found.examples)}: {found.evaluations:,.0f} evaluations of the network, {found.seconds:.1f} s"
    left = f"the controls ({', '.join(found.controls)}) left {100 * found.left:.0f} % of the variance"
    return [draws + cost, *([left] if found.controls else []), *(f"Warning: {warning}" for warning in found.warnings)]
