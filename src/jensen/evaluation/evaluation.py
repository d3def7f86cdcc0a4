"""What a test set says of a model: bounds, terms and gaps as means with standard errors, and where they contradict."""

import math
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import ConfigDict, Field, SkipValidation
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.claims import check_claims, contradictions
from jensen.evaluation.engine import Column, run_estimators
from jensen.evaluation.measure import Measure, bits
from jensen.evaluation.profile import NoiseProfile, noise_profile
from jensen.evaluation.scores import Scores, at_once, examples_digest, prepare, score, spread
from jensen.evaluation.settings import EvaluationSettings
from jensen.model import AbstractLatentVariableModel, Effort, Estimator
from jensen.pareto import UNTRUSTED
from jensen.provenance import Provenance, provenance
from jensen.records import Value

DIAGNOSED = 2000  # examples at most for the diagnostics, which see them all at once
MANY = 0.1  # of the examples: a share above it makes a warning
FEW_DRAWS = 10.0  # an effective sample size below this makes L_K and its error unreliable

# ---------------------------------------------------------------------------------------------- what is recorded


class Weights(Value):
    """How well K importance weights carry their sum."""

    samples: int
    """K."""
    median_effective_sample_size: float
    minimum_effective_sample_size: float
    jensen_gap: Estimate
    """log E w - E log w >= 0 over the same draws (3.2), nats: what averaging inside the logarithm gained."""
    median_pareto_shape: float = math.nan
    """k of the tail of the weights: above 0.7 neither the sum nor its error is to be trusted; NaN where unknown."""
    untrusted: float = math.nan
    """The share of examples with a k above 0.7."""


class Bound(Measure):
    """A bound on log p(x), or another estimate of it."""

    name: str
    monte_carlo_error: float
    """The mean over examples of one example's Monte-Carlo standard error, nats; NaN where there is none."""
    weights: Weights | None = None
    """For an importance-weighted bound."""


class Gap(Measure):
    """One bound minus another on the same examples, the standard error taken over the differences."""

    name: str
    better: str
    worse: str


class Evaluation(Value):
    """What was evaluated, how, and what came out; JSON both ways."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    source: str
    """Which data, in words."""
    examples_digest: str
    """Of all the raw examples that were given: two evaluations that share it can be compared example by example."""
    examples: int
    """How many of them the ELBO was averaged over."""
    preparation: str
    """How raw data became x."""
    settings: EvaluationSettings
    elbo: Bound
    terms: dict[str, Measure]
    """Signed in nats, so that they add up to the ELBO."""
    profile: NoiseProfile | None = None
    """The same by noise level, where the model has any."""
    bounds: tuple[Bound, ...]
    """The ELBO and every further bound, all on the same examples; empty where the model has no further ones."""
    gaps: tuple[Gap, ...]
    diagnostics: dict[str, float]
    warnings: tuple[str, ...]
    """Contradictions, and numbers not to be trusted, in words."""
    provenance: Provenance
    """The weights, software and command that gave these numbers."""
    scores: Annotated[Scores | None, SkipValidation] = Field(None, exclude=True, repr=False)
    """Every example's. They are not in the JSON but in scores.npz, see `save_evaluation`."""


# ---------------------------------------------------------------------------------------------- evaluate


def evaluate(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    settings: EvaluationSettings,
    source: str,
    step: int | None = None,
) -> Evaluation:
    """The ELBO over `examples` term by term, every further bound the model has, their gaps, the model's diagnostics.

    `source` says in words which data these are. A pure function of its arguments, whatever the batch size.
    """
    began = time.perf_counter()
    settings = settings.completed(model.usual_draws, model.usual_further_examples)
    rows = spread(len(examples), settings.examples)
    draws, seed, size = settings.draws or model.usual_draws, settings.seed, settings.batch_size
    scores = score(model, examples[rows], preparation, draws=draws, seed=seed, batch_size=size, index=rows)
    few, effort = rows[spread(len(rows), settings.further_examples)], Effort(draws=draws, samples=settings.samples)
    estimators, columns = model.estimators(effort), {}
    if len(estimators) > 1:
        columns = run_estimators(model, examples, preparation, effort, few, seed=seed, batch_size=size)
    bounds = tuple(
        _bound(name, column.value, column.standard_error, column.details, preparation)
        for name, column in columns.items()
    )
    claims = check_claims(estimators, columns, preparation) if columns else ()
    return Evaluation(
        source=source,
        examples_digest=examples_digest(examples),
        examples=len(rows),
        preparation=preparation.__class__.__name__,
        settings=settings,
        elbo=_bound("ELBO", scores.bound, scores.standard_error, {}, preparation),
        terms={name: _term(name, values, preparation) for name, values in scores.terms.items()},
        profile=None if scores.profile is None else noise_profile(scores.profile, preparation),
        bounds=bounds,
        gaps=_gaps(estimators, columns, preparation) if columns else (),
        diagnostics=_diagnostics(model, examples, preparation, settings.seed, rows),
        warnings=(*_not_finite(scores.bound), *contradictions(claims), *_unreliable(bounds)),
        provenance=provenance(model, step, began),
        scores=scores,
    )


def _diagnostics(
    model: AbstractLatentVariableModel, examples: Examples, preparation: Preparation, seed: int, rows: Tensor
) -> dict[str, float]:
    rows = rows[spread(len(rows), at_once(DIAGNOSED, preparation.dimensions))]
    x = prepare(preparation, examples.x[rows], rows, seed).to(model.device)
    return model.diagnostics(x, seed=seed, index=rows)


def _bound(name: str, value: Tensor, error: Tensor, details: Mapping[str, Tensor], preparation: Preparation) -> Bound:
    weights = None
    if "samples" in details:
        sizes = details["effective_sample_size"]
        weights = Weights(
            samples=int(details["samples"][0]),
            median_effective_sample_size=sizes.median().item(),
            minimum_effective_sample_size=sizes.min().item(),
            jensen_gap=Estimate.of(details["jensen_gap"]),
            median_pareto_shape=details["pareto_shape"].median().item(),
            untrusted=_share(details["pareto_shape"], UNTRUSTED),
        )
    return Bound(
        name=name,
        nats=Estimate.of(value),
        bits_per_dimension=Estimate.of(preparation.bits_per_dimension(value)),
        monte_carlo_error=error.mean().item(),
        weights=weights,
    )


def _share(shapes: Tensor, limit: float) -> float:
    return (shapes > limit).double().mean().item() if bool(shapes.isfinite().all()) else math.nan


def _term(name: str, values: Tensor, preparation: Preparation) -> Measure:
    """The change of units belongs to the reconstruction, so that the bits of all terms add up as well."""
    cost = preparation.bits_per_dimension(values) if name == "reconstruction" else -bits(values, preparation)
    return Measure(nats=Estimate.of(values), bits_per_dimension=Estimate.of(cost))


def _gaps(estimators: Sequence[Estimator], columns: Mapping[str, Column], preparation: Preparation) -> tuple[Gap, ...]:
    """Every bound minus the ELBO, and minus the one before it, example by example."""
    elbo, *others = estimators
    gaps = []
    for worse, better in [*((elbo, other) for other in others), *pairwise(others)]:
        difference = columns[better.name].value - columns[worse.name].value
        gaps.append(
            Gap(
                name=worse.gaps.get(better.name, f"{better.name} - {worse.name}"),
                better=better.name,
                worse=worse.name,
                nats=Estimate.of(difference),
                bits_per_dimension=Estimate.of(bits(difference, preparation)),
            )
        )
    return tuple(gaps)


# ---------------------------------------------------------------------------------------------- warnings


def _not_finite(bound: Tensor) -> list[str]:
    bad = int((~bound.isfinite()).sum())
    return [f"the ELBO of {bad} of {len(bound)} examples is not finite, so neither is the mean"] if bad else []


def _unreliable(bounds: tuple[Bound, ...]) -> list[str]:
    return [
        f"half of the examples have an effective sample size below {bound.weights.median_effective_sample_size:.3g} of "
        f"{bound.weights.samples}: {bound.name} is not to be trusted as an estimate of log p(x), nor is its error; it "
        "remains a lower bound. Raise samples"
        for bound in bounds
        if bound.weights and bound.weights.median_effective_sample_size < FEW_DRAWS < bound.weights.samples
    ] + [
        f"{100 * bound.weights.untrusted:.3g} % of the examples have importance weights with a tail of Pareto shape "
        f"above {UNTRUSTED}: of those {bound.name} is not to be trusted as an estimate of log p(x), nor is its error; "
        "it remains a lower bound. Compare it with annealed importance sampling: --referee"
        for bound in bounds
        if bound.weights and bound.weights.untrusted > MANY
    ]
