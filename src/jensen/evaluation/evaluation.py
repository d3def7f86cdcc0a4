"""An evaluation on a test set: bounds, terms and gaps as means with standard errors, and warnings."""

import math
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import ConfigDict, Field, SkipValidation
from torch import Tensor

from jensen.bound import Estimate, root_mean_square
from jensen.data.examples import Examples, counted
from jensen.data.preparation import Preparation
from jensen.data.table_preparation import TablePreparation
from jensen.evaluation.claims import MANY, check_claims, contradictions
from jensen.evaluation.columns import ColumnBound
from jensen.evaluation.engine import Column, run_estimators
from jensen.evaluation.measure import Measure, doubts
from jensen.evaluation.profile import NoiseProfile, noise_profile
from jensen.evaluation.scores import Scores, at_once, examples_digest, note_shortage, prepare, score, spread
from jensen.evaluation.settings import EvaluationSettings
from jensen.evaluation.units import measure
from jensen.model import AbstractLatentVariableModel, Effort, Estimator
from jensen.pareto import UNTRUSTED
from jensen.provenance import Provenance, provenance
from jensen.records import Value

DIAGNOSED = 2000  # maximum number of examples for the diagnostics, which hold all of them in memory

# ---------------------------------------------------------------------------------------------- the record


class Weights(Value):
    """The reliability of a sum of K importance weights."""

    samples: int
    """K."""
    median_effective_sample_size: float
    minimum_effective_sample_size: float
    jensen_gap: Estimate
    """log E w - E log w >= 0 over the same draws (3.2), nats: the gain of averaging inside the logarithm."""
    median_pareto_shape: float = math.nan
    """Shape k of the weights' tail; above 0.7 neither the sum nor its error can be trusted; NaN if unknown."""
    untrusted: float = math.nan
    """Share of the examples with a k above 0.7."""
    trusted: float = math.nan
    """Share of the examples on which L_K and its error can be trusted, see `engine.trusted`."""

    @property
    def doubtful(self) -> bool:
        """Whether L_K cannot be trusted on more than a tenth of the examples."""
        return self.samples > 1 and 1 - self.trusted > MANY


class Bound(Measure):
    """A bound on log p(x), or another estimate of log p(x)."""

    name: str
    monte_carlo_error: float
    """Root mean square of the examples' Monte-Carlo standard errors, nats; NaN if they are unknown."""
    weights: Weights | None = None
    """The weights of an importance-weighted bound; None for other bounds."""


class Gap(Measure):
    """One bound minus another on the same examples, with the standard error of the differences."""

    name: str
    better: str
    worse: str


class Evaluation(Value):
    """The record of an evaluation: data, settings, results and provenance; JSON both ways."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    source: str
    """The data, in words."""
    examples_digest: str
    """The digest of all raw examples: evaluations with the same digest can be compared example by example."""
    examples: int
    """The number of examples in the mean of the ELBO."""
    preparation: str
    """The class of the preparation that turned raw data into x."""
    settings: EvaluationSettings
    elbo: Bound
    terms: dict[str, Measure]
    """The terms of the ELBO, with signs such that they add up to it."""
    profile: NoiseProfile | None = None
    """The ELBO by noise level; None for a model without noise levels."""
    columns: tuple[ColumnBound, ...] = ()
    """The reconstruction by column; empty if the examples are no rows of a table."""
    bounds: tuple[Bound, ...]
    """The ELBO and every further bound, all on the same examples; empty for a model without further bounds."""
    gaps: tuple[Gap, ...]
    diagnostics: dict[str, float]
    warnings: tuple[str, ...]
    """One sentence for each contradiction between estimates and each unreliable number."""
    provenance: Provenance
    """The weights, software and command that gave these results."""
    scores: Annotated[Scores | None, SkipValidation] = Field(default=None, exclude=True, repr=False)
    """The scores of all examples; saved in scores.npz instead of the JSON, see `save_evaluation`."""

    @property
    def of_table(self) -> bool:
        """Whether the examples are rows of a table, whose columns differ too much for a mean in bits per dimension."""
        return self.preparation == TablePreparation.__name__


# ---------------------------------------------------------------------------------------------- evaluate


def evaluate(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    settings: EvaluationSettings,
    source: str,
    step: int | None = None,
) -> Evaluation:
    """Evaluate the ELBO and its terms on `examples`, and all bounds, gaps and diagnostics on a part of `examples`.

    `source` names the data in words, `step` is the training step of the weights. The results are a pure function of the
    arguments and do not depend on the batch size.
    """
    began = time.perf_counter()
    settings = settings.completed(model.usual_draws, model.usual_further_examples)
    note_shortage(len(examples), settings.examples)
    rows = spread(len(examples), settings.examples)
    draws, seed, size = settings.draws or model.usual_draws, settings.seed, settings.batch_size
    scores = score(model, examples[rows], preparation, draws=draws, seed=seed, batch_size=size, index=rows)
    few, effort = rows[spread(len(rows), settings.further_examples)], Effort(draws=draws, samples=settings.samples)
    estimators, columns = model.estimators(effort), {}
    if len(estimators) > 1:
        columns = run_estimators(model, examples, preparation, effort, few, seed=seed, batch_size=size)
    bounds = tuple(
        _bound(name, column.value, column.standard_error, column.observed, _weights(column))
        for name, column in columns.items()
    )
    claims = check_claims(estimators, columns) if columns else ()
    elbo = _bound("ELBO", scores.bound, scores.standard_error, scores.observed)
    terms = {name: measure(values, scores.observed, sign=-1) for name, values in scores.terms.items()}
    profile = None if scores.profile is None else noise_profile(scores.profile, preparation, scores.observed)
    gaps = _gaps(estimators, columns) if columns else ()
    return Evaluation(
        source=source,
        examples_digest=examples_digest(examples),
        examples=len(rows),
        preparation=preparation.__class__.__name__,
        settings=settings,
        elbo=elbo,
        terms=terms,
        profile=profile,
        bounds=bounds,
        gaps=gaps,
        diagnostics=_diagnostics(model, examples, preparation, settings.seed, rows),
        warnings=(*_doubts(scores, _rows(elbo, terms, bounds, gaps)), *contradictions(claims), *_unreliable(bounds)),
        provenance=provenance(model, step, began),
        scores=scores,
    )


def _diagnostics(
    model: AbstractLatentVariableModel, examples: Examples, preparation: Preparation, seed: int, rows: Tensor
) -> dict[str, float]:
    rows = rows[spread(len(rows), at_once(DIAGNOSED, preparation.dimensions))]
    x = prepare(preparation, examples.x[rows], rows, seed).to(model.device)
    return model.diagnostics(x, seed=seed, index=rows)


def _bound(name: str, value: Tensor, error: Tensor, observed: Tensor, weights: Weights | None = None) -> Bound:
    found = measure(value, observed, sign=-1)
    return Bound(name=name, monte_carlo_error=root_mean_square(error), weights=weights, **dict(found))


def _weights(column: Column) -> Weights | None:
    details = column.details
    if "samples" not in details:
        return None
    sizes, shapes = details["effective_sample_size"], details["pareto_shape"]
    sizes = sizes[sizes.isfinite()] if bool(sizes.isfinite().any()) else sizes  # a bound of -inf has no weights
    return Weights(
        samples=int(details["samples"][0]),
        median_effective_sample_size=sizes.median().item(),
        minimum_effective_sample_size=sizes.min().item(),
        jensen_gap=Estimate.of(details["jensen_gap"]),
        median_pareto_shape=shapes.median().item(),
        untrusted=(shapes > UNTRUSTED).double().mean().item() if bool(shapes.isfinite().all()) else math.nan,
        trusted=column.trusted.double().mean().item(),
    )


def _gaps(estimators: Sequence[Estimator], columns: Mapping[str, Column]) -> tuple[Gap, ...]:
    """Every bound minus the ELBO, and every bound minus the bound before, example by example."""
    elbo, *others = estimators
    gaps = []
    for worse, better in [*((elbo, other) for other in others), *pairwise(others)]:
        difference = columns[better.name].value - columns[worse.name].value
        name = worse.gaps.get(better.name, f"{better.name} - {worse.name}")
        found = measure(difference, columns[worse.name].observed)
        gaps.append(Gap(name=name, better=better.name, worse=worse.name, **dict(found)))
    return tuple(gaps)


# ---------------------------------------------------------------------------------------------- warnings


def _rows(
    elbo: Bound, terms: Mapping[str, Measure], bounds: Sequence[Bound], gaps: Sequence[Gap]
) -> dict[str, Measure]:
    """Every mean of the evaluation's table by name."""
    few: Sequence[Bound | Gap] = (*bounds, *gaps)
    return {"ELBO": elbo, **terms, **{f"{one.name} of {counted(one.nats.count)}": one for one in few}}


def _doubts(scores: Scores, shown: Mapping[str, Measure]) -> list[str]:
    found = [scores.not_finite] if scores.not_finite else []
    if 1 in {one.nats.count for one in shown.values()}:
        found.append("a mean over 1 example has no standard error, shown as ± nan; evaluate more examples")
    return found + doubts({name: one for name, one in shown.items() if one.nats.count > 1})


def _unreliable(bounds: tuple[Bound, ...]) -> list[str]:
    return [
        f"{100 * (1 - bound.weights.trusted):.3g} % of the examples have importance weights that cannot be trusted "
        f"(median effective sample size {bound.weights.median_effective_sample_size:.3g} of {bound.weights.samples}): "
        f"for them {bound.name} is a lower bound but not an estimate of log p(x), and its error is too small; with so "
        "many, the other examples may have missed the largest weights. Raise --samples, or compare with annealed "
        "importance sampling: jensen evaluate RUN --referee"
        for bound in bounds
        if bound.weights and bound.weights.doubtful
    ]
