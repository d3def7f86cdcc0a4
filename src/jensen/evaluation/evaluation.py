"""What a test set says of a model: bounds, terms and gaps as means with standard errors, and where they contradict."""

import math
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import ConfigDict, Field, SkipValidation
from torch import Tensor

from jensen import processes
from jensen.bound import Elbo, Estimate, ImportanceWeightedBound
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.measure import Measure, bits
from jensen.evaluation.profile import NoiseProfile, noise_profile
from jensen.evaluation.scores import Scores, at_once, examples_digest, monte_carlo_error, prepare, score, spread
from jensen.evaluation.settings import EvaluationSettings
from jensen.model import AbstractLatentVariableModel
from jensen.pareto import UNTRUSTED
from jensen.progress import track
from jensen.records import Value

AT_ONCE = 100  # examples whose further bounds are computed together, between two signs of progress
IN_FLIGHT = 128  # copies of each of them that a model may make meanwhile
DIAGNOSED = 2000  # examples at most for the diagnostics, which see them all at once
ENOUGH = 10  # examples
CONTRADICTION = 3.0  # standard errors; by chance in about one of 700 comparisons
NEGLIGIBLE = 0.05  # nats; an optimised q is left a few hundredths short of its optimum
UNORDERED = {"ODE"}  # the flow is another model than the chain: its log p(x) may be below the chain's bound
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

    @property
    def doubtful(self) -> bool:
        """Whether L_K cannot be trusted on many of the examples."""
        return self.median_effective_sample_size < FEW_DRAWS < self.samples or self.untrusted > MANY


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
    scores: Annotated[Scores | None, SkipValidation] = Field(None, exclude=True, repr=False)
    """Every example's. They are not in the JSON but in scores.npz, see `save_evaluation`."""


# ---------------------------------------------------------------------------------------------- evaluate


def evaluate(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    settings: EvaluationSettings,
    source: str,
) -> Evaluation:
    """The ELBO over `examples` term by term, every further bound the model has, their gaps, the model's diagnostics.

    `source` says in words which data these are. A pure function of its arguments, whatever the batch size.
    """
    settings = settings.completed(model.usual_draws, model.usual_further_examples)
    rows = spread(len(examples), settings.examples)
    draws, seed, size = settings.draws or model.usual_draws, settings.seed, settings.batch_size
    scores = score(model, examples[rows], preparation, draws=draws, seed=seed, batch_size=size, index=rows)
    few = rows[spread(len(rows), settings.further_examples)]
    further = _further_bounds(model, examples, preparation, settings, few)
    gaps = _gaps(further, preparation)
    bounds = tuple(_bound(name, column, preparation) for name, column in further.items())
    elbo = _bound("ELBO", {"value": scores.bound, "standard_error": scores.standard_error}, preparation)
    return Evaluation(
        source=source,
        examples_digest=examples_digest(examples),
        examples=len(rows),
        preparation=preparation.__class__.__name__,
        settings=settings,
        elbo=elbo,
        terms={name: _term(name, values, preparation) for name, values in scores.terms.items()},
        profile=None if scores.profile is None else noise_profile(scores.profile, preparation),
        bounds=bounds,
        gaps=gaps,
        diagnostics=_diagnostics(model, examples, preparation, settings.seed, rows),
        warnings=(*_not_finite(scores.bound), *_contradictions(gaps, elbo), *_unreliable(bounds)),
        scores=scores,
    )


def _diagnostics(
    model: AbstractLatentVariableModel, examples: Examples, preparation: Preparation, seed: int, rows: Tensor
) -> dict[str, float]:
    rows = rows[spread(len(rows), at_once(DIAGNOSED, preparation.dimensions))]
    x = prepare(preparation, examples.x[rows], rows, seed).to(model.device)
    return model.diagnostics(x, seed=seed, index=rows)


Column = dict[str, Tensor]  # a bound's quantities by name, each (count)


def _further_bounds(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    settings: EvaluationSettings,
    rows: Tensor,
) -> dict[str, Column]:
    """The ELBO and the model's further bounds by name, on the very same x, so that differences are paired."""
    size = at_once(min(AT_ONCE, settings.batch_size), IN_FLIGHT * preparation.dimensions)
    mine: list[Column] = []  # a batch's columns by "bound/quantity"
    with processes.together():
        for index in track(processes.share(rows.split(size)), "further bounds"):
            x = prepare(preparation, examples.x[index], index, settings.seed).to(model.device)
            found = model.further_bounds(x, samples=settings.samples, seed=settings.seed, index=index)
            if not found:
                break
            elbo = model.elbo(x, draws=settings.draws or model.usual_draws, seed=settings.seed, index=index)
            bounds = {"ELBO": elbo, **found}.items()
            mine.append({f"{name}/{key}": values for name, b in bounds for key, values in _column(b).items()})
    parts = processes.gathered(mine)
    columns: dict[str, Column] = {}
    for key in parts[0] if parts else ():
        name, quantity = key.rsplit("/", 1)
        columns.setdefault(name, {})[quantity] = torch.cat([part[key] for part in parts])
    return columns


def _column(bound: Elbo | ImportanceWeightedBound) -> Column:
    column = {"value": bound.value, "standard_error": monte_carlo_error(bound)}
    if isinstance(bound, ImportanceWeightedBound):
        column |= {
            "samples": torch.full_like(bound.value, bound.draws),
            "effective_sample_size": bound.effective_sample_size,
            "jensen_gap": bound.jensen_gap,
            "pareto_shape": bound.pareto_shape,
        }
    return {name: values.detach().cpu().double() for name, values in column.items()}


def _bound(name: str, column: Column, preparation: Preparation) -> Bound:
    weights = None
    if "samples" in column:
        sizes = column["effective_sample_size"]
        weights = Weights(
            samples=int(column["samples"][0]),
            median_effective_sample_size=sizes.median().item(),
            minimum_effective_sample_size=sizes.min().item(),
            jensen_gap=Estimate.of(column["jensen_gap"]),
            median_pareto_shape=column["pareto_shape"].median().item(),
            untrusted=_share(column["pareto_shape"], UNTRUSTED),
        )
    return Bound(
        name=name,
        nats=Estimate.of(column["value"]),
        bits_per_dimension=Estimate.of(preparation.bits_per_dimension(column["value"])),
        monte_carlo_error=column["standard_error"].mean().item(),
        weights=weights,
    )


def _share(shapes: Tensor, limit: float) -> float:
    return (shapes > limit).double().mean().item() if bool(shapes.isfinite().all()) else math.nan


def _term(name: str, values: Tensor, preparation: Preparation) -> Measure:
    """The change of units belongs to the reconstruction, so that the bits of all terms add up as well."""
    cost = preparation.bits_per_dimension(values) if name == "reconstruction" else -bits(values, preparation)
    return Measure(nats=Estimate.of(values), bits_per_dimension=Estimate.of(cost))


def _gaps(further: dict[str, Column], preparation: Preparation) -> tuple[Gap, ...]:
    """Every bound minus the ELBO, and minus the one before it, example by example."""
    names = list(further)
    pairs = dict.fromkeys([*((names[0], better) for better in names[1:]), *pairwise(names)])
    gaps = []
    for worse, better in pairs:
        difference = further[better]["value"] - further[worse]["value"]
        gaps.append(
            Gap(
                name=_gap_name(worse, better),
                better=better,
                worse=worse,
                nats=Estimate.of(difference),
                bits_per_dimension=Estimate.of(bits(difference, preparation)),
            )
        )
    return tuple(gaps)


def _gap_name(worse: str, better: str) -> str:
    """Inference gap = approximation gap + amortisation gap (Cremer et al. 2018), log p(x) replaced by L_K below it."""
    names = {("ELBO", "optimised ELBO"): "amortisation gap"}
    if better.startswith("L_"):
        names["ELBO", better] = "inference gap, at least"
        names["optimised ELBO", better] = "approximation gap, at least"
    return names.get((worse, better), f"{better} - {worse}")


# ---------------------------------------------------------------------------------------------- warnings


def _not_finite(bound: Tensor) -> list[str]:
    bad = int((~bound.isfinite()).sum())
    return [f"the ELBO of {bad} of {len(bound)} examples is not finite, so neither is the mean"] if bad else []


def _contradictions(gaps: tuple[Gap, ...], elbo: Bound) -> list[str]:
    allowed = NEGLIGIBLE + 1e-5 * abs(elbo.nats.mean)  # the latter for float32
    return [
        f"{gap.worse} exceeds {gap.better} by {-gap.nats.mean:.3g} ± {gap.nats.standard_error:.2g} nats, more than "
        f"{CONTRADICTION:.0f} standard errors, though {gap.better} should be closer to log p(x)"
        for gap in gaps
        if gap.nats.count >= ENOUGH  # for the standard error of a few differences to mean something
        and UNORDERED.isdisjoint({gap.better, gap.worse})
        and -gap.nats.mean > max(CONTRADICTION * gap.nats.standard_error, allowed)
    ]


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
