"""Every standard error and interval that jensen prints, on cheap models, again and again: do they hold the truth?

`CASES` is what tests/test_error_bars.py checks and benchmarks/error_bars.py prints, the table of docs/errors.md.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from linear_vae import PPCA, as_vae, random_ppca
from made import PROVENANCE
from mean_bounds import of_mixture, of_ppca, of_skewed_parts
from mixtures import ExactDenoiser, three_clusters
from six_levels import SixLevels
from torch import Tensor, nn

from jensen.bound import Elbo, Estimate, ImportanceWeightedBound
from jensen.diffusion.bayes import Race, predict_by_bounds
from jensen.diffusion.bound import DiffusionBound, Strata, estimate_bound
from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.ode import ExactTrace, Flow, Hutchinson, Tolerance
from jensen.diffusion.reverse import BetaVariance
from jensen.diffusion.schedule import LinearLogSnr, UniformLogSnr
from jensen.features.copies import Nearest, memorisation
from jensen.features.distance import Cell, Distance
from jensen.features.frechet_distance import frechet
from jensen.features.jackknife import STUDENT, Interval
from jensen.features.precision_recall import fidelity
from jensen.features.two_sample import kernel_test, sliced_wasserstein
from jensen.gaussian import Gaussian
from jensen.inference.calibration import clustered_share
from jensen.inference.prediction import calibration_bins, calibration_error, chance_calibration_error
from jensen.inference.target_prediction import root_mean_squared_error
from jensen.model import TargetPrediction
from jensen.randomness import generator
from jensen.vae.annealing import Annealing, annealed_estimate
from jensen.vae.predict import predict_labels
from jensen.vae.target import LabelTarget

NORMAL = 1.96


@dataclass(frozen=True)
class Measured:
    """What repeats of one estimate say of its stated error."""

    repeats: int
    ratio: float
    """Spread of the estimates over the root mean square of their stated errors: 1 where the errors are right."""
    coverage: float
    """How often estimate ± 1.96 errors, or the 95 % interval, holds the truth."""
    doubted: float = 0.0
    """How often the estimate says itself that its error is not to be trusted."""


@dataclass(frozen=True)
class Case:
    """An estimate, a cheap model on which its truth is known, and what its errors must reach there."""

    number: str
    model: str
    run: Callable[[], Measured]
    coverage: float = 0.9
    """At least."""
    ratio: tuple[float, float] = (0.85, 1.15)
    """Between."""
    slow: bool = False


def measured(values: Tensor, errors: Tensor, truth: Tensor | float, doubts: Sequence[bool] = ()) -> Measured:
    """From one value and one error of each repeat."""
    covered = ((values - truth).abs() <= NORMAL * errors).double().mean().item()
    ratio = (values.std() / errors.square().mean().sqrt()).item()
    return Measured(len(values), ratio, covered, sum(doubts) / len(doubts) if doubts else 0.0)


def of_estimates(found: Sequence[Estimate], truth: float | None = None) -> Measured:
    """From estimates; of an unknown truth their mean takes the place."""
    values = torch.tensor([one.mean for one in found], dtype=torch.float64)
    errors = torch.tensor([one.standard_error for one in found], dtype=torch.float64)
    doubts = [one.doubt is not None for one in found]
    return measured(values, errors, values.mean() if truth is None else truth, doubts)


def of_intervals(found: Sequence[Interval], truth: float | None = None) -> Measured:
    """From 95 % intervals; the error is the half-width over Student's 2.093."""
    value, low, high = (
        torch.tensor([getattr(one, name) for one in found], dtype=torch.float64) for name in ("value", "low", "high")
    )
    expected = value.mean() if truth is None else truth
    covered = ((low <= expected) & (expected <= high)).double().mean().item()
    error = ((high - low) / (2 * STUDENT)).square().mean().sqrt()
    return Measured(len(found), (value.std() / error).item(), covered)


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(*shape, generator=generator(seed, 13), dtype=torch.float64)


def uniform(seed: int, *shape: int) -> Tensor:
    """Uniform numbers, float64."""
    return torch.rand(*shape, generator=generator(seed, 14), dtype=torch.float64)


# ---------------------------------------------------------------------------------------------- means and shares


def mean_of(draw: Callable[[int, int], Tensor], truth: float, count: int, repeats: int = 2000) -> Measured:
    """`Estimate.of` of `count` values."""
    return of_estimates([Estimate.of(row) for row in draw(repeats, count)], truth)


def share_of(p: float, count: int, repeats: int = 2000) -> Measured:
    """`Estimate.share` of `count` trials of probability p."""
    return of_estimates([Estimate.share(row < p) for row in uniform(1, repeats, count)], p)


def share_in_clusters(entries: int = 9, count: int = 100, repeats: int = 500) -> Measured:
    """`clustered_share`, where half of the variance of an entry is its example's, and some entries do not count."""
    found = []
    for seed in range(repeats):
        latent = math.sqrt(0.5) * (normal(seed, count, 1) + normal(seed + repeats, count, entries))
        found.append(clustered_share(latent < math.sqrt(0.5), uniform(seed, count, entries) < 0.8))
    return of_estimates(found, 0.5 * (1 + math.erf(0.5)))  # P(N(0, 1) < sqrt(1/2))


def root_mean_squares(count: int = 50, repeats: int = 2000) -> Measured:
    """`root_mean_squared_error` of N(0, 2²)."""
    return of_estimates([root_mean_squared_error(2 * row) for row in normal(2, repeats, count)], 2.0)


# ---------------------------------------------------------------------------------------------- bounds


def elbo_error(draws: int, repeats: int = 4000) -> Measured:
    """One example's ELBO from few draws: over repeats its errors are those of many examples."""
    found = Elbo.from_draws(3 * normal(3, draws, repeats), {})
    assert found.standard_error is not None
    return measured(found.value, found.standard_error, 0.0)


def diffusion_elbo_error(draws: int, terms: int, repeats: int = 1500) -> Measured:
    """One example's bound (5.11) from few terms and draws."""
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64).expand(repeats, 2)
    grid = UniformLogSnr()(LinearLogSnr(8, -10), 24)
    strata = Strata.weighted(torch.linspace(1, 3, 23), terms)
    found = estimate_bound(
        DiffusionBound(ExactDenoiser(three_clusters()), grid, BetaVariance()), x, strata, draws=draws
    )
    elbo = found.elbo()
    assert elbo.standard_error is not None
    return measured(elbo.value, elbo.standard_error, elbo.value.mean())


def flow_error(probes: int = 4, repeats: int = 400) -> Measured:
    """log p(x) by the ODE with Hutchinson's trace, against the exact trace."""
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64).expand(repeats, 2)
    flow = Flow(ExactDenoiser(three_clusters()), 8.0, -10.0, Tolerance(1e-4, 1e-4))
    exact = flow.log_density(x[:1], ExactTrace()).value
    found = flow.log_density(x, Hutchinson(probes))
    assert found.standard_error is not None
    return measured(found.value, found.standard_error, exact)


def importance_weights(kind: str, size: float, draws: int, repeats: int) -> Tensor:
    """log w (draws, repeats) with E w = 1: log-normal of deviation `size`, or in 10-D of q with variance 1 + `size`.

    p(z|x) has variance 1, so q is too wide for `size` > 0 and too narrow for `size` < 0.
    """
    if kind == "log-normal":
        return size * normal(4, draws, repeats) - size**2 / 2
    squares = normal(4, draws, repeats, 10).square().sum(-1)
    return 5 * math.log(1 + size) - size * squares / 2


def l_k(kind: str, size: float, draws: int, repeats: int = 2000, *, log_p: bool = False) -> Measured:
    """L_K about its own mean, or about log p(x) = 0; what is not trusted counts as doubted."""
    found = ImportanceWeightedBound.from_log_weights(importance_weights(kind, size, draws, repeats))
    truth = 0.0 if log_p else found.value.mean()
    return measured(found.value, found.standard_error, truth, (~found.trusted).tolist())


def hard_ppca() -> PPCA:
    """Little noise in 20 dimensions, 8 latent ones: a posterior far narrower than the prior."""
    return random_ppca(20, 8, sigma=0.02)


def ais(ppca: PPCA, temperatures: int, chains: int = 16, repeats: int = 250) -> Measured:
    """log p(x) of one x by annealed importance sampling, with other random numbers each time."""
    x, latent = ppca.draw(1).expand(repeats, -1), ppca.matrix.shape[1]
    vae = as_vae(ppca, exact_encoder=False)
    q = Gaussian(torch.zeros(repeats, latent).double(), torch.full((repeats, latent), 0.5).double())
    how = Annealing(temperatures=temperatures, chains=chains, leapfrog=4, pilots=2)
    found = annealed_estimate(lambda z: vae.log_joint(x, z), q, how, seed=0, numbers=range(repeats))
    return measured(found.value, found.standard_error, ppca.log_prob(x[:1]), (~found.trusted).tolist())


# ---------------------------------------------------------------------------------------------- L_0


def first_term(count: int, repeats: int = 300) -> Measured:
    """The mean L_0 of `count` examples."""
    case = SixLevels()
    return of_estimates([Estimate.of(case.terms(seed, count)) for seed in range(repeats)], case.mean())


# ---------------------------------------------------------------------------------------------- predictions


class Step(nn.Module):
    """z -> logits of two labels, (±(z - 1))."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([1 - z, z - 1], -1)


def label_probability(draws: int, width: float, repeats: int = 2000) -> Measured:
    """p(y|x) of a logistic p(y|z) under N(0, 1), by draws from N(0, width²)."""
    z = width * normal(5, draws, repeats, 1)
    log_w = (0.5 * (z / width).square() - 0.5 * z.square()).sum(-1) + math.log(width)
    found = predict_labels(LabelTarget(Step(), 2), [(z, log_w)])
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    density = torch.exp(-0.5 * grid.square())
    truth = (density * torch.sigmoid(2 * (grid - 1))).sum() / density.sum()
    return measured(found.probabilities[:, 1], found.standard_error[:, 1], truth)


def target_mean(draws: int, width: float, repeats: int = 2000) -> Measured:
    """The mean of p(y|x), y = z + noise, under N(0, 1), by draws from N(0.3, width²)."""
    z = 0.3 + width * normal(6, repeats, draws, 1)
    log_w = (0.5 * ((z - 0.3) / width).square() - 0.5 * z.square()).sum(-1)
    found = TargetPrediction(log_w.log_softmax(1), Gaussian(z, torch.ones_like(z)), torch.ones(repeats))
    return measured(found.mean[:, 0], found.standard_error[:, 0], 0.0)


class TwoClasses(AbstractDenoiser):
    """The exact denoiser of N(±0.4, 0.5²), the sign given by the label."""

    classes = 2

    def forward(self, x_t: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Denoised:
        assert labels is not None
        a2 = torch.sigmoid(log_snr).reshape(-1, 1)
        mean = (2.0 * labels.unsqueeze(1) - 1) * 0.4
        x0 = mean + a2.sqrt() * 0.25 / (a2 * 0.25 + 1 - a2) * (x_t - a2.sqrt() * mean)
        return Denoised.from_x0(x_t, log_snr, x0)


def raced_probability(draws: int, repeats: int = 500) -> Measured:
    """p(y|x) by Bayes' rule over bounds, no class dropped."""
    bound = DiffusionBound(TwoClasses(), UniformLogSnr()(LinearLogSnr(8, -8), 30), BetaVariance())
    x = torch.full((repeats, 1), 0.2, dtype=torch.float64)
    prior = torch.full((2,), 0.5, dtype=torch.float64).log()
    race = Race(first=2, draws=draws, terms=8, error=0.0)
    found = predict_by_bounds(bound, Strata.weighted(torch.ones(29), 8), x, prior, race)
    p = found.probabilities[:, 1]
    return measured(p, found.standard_error[:, 1], p.mean())


def calibrated(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Confidences between 0.5 and 1, and whether calibrated predictions were right."""
    confidence = 0.5 + 0.5 * uniform(seed, count)
    return confidence, (uniform(seed + 10_000, count) < confidence).double()


def calibration_bars(count: int = 500, repeats: int = 300) -> Measured:
    """The share right in each bin of confidence, minus the mean confidence there, in its own error."""
    gaps, errors = [], []
    for seed in range(repeats):
        for one in calibration_bins(*calibrated(count, seed)):
            gaps.append(one.right.mean - one.confidence)
            errors.append(one.right.standard_error)
    return measured(torch.tensor(gaps).double(), torch.tensor(errors).double(), 0.0)


def calibration_by_chance(count: int = 200, repeats: int = 200) -> Measured:
    """The calibration error of calibrated predictions, beside what is stated for chance."""
    values, means, errors = [], [], []
    for seed in range(repeats):
        confidence, right = calibrated(count, seed)
        chance = chance_calibration_error(confidence)
        values.append(calibration_error(confidence, right))
        means.append(chance.mean)
        errors.append(chance.standard_error)
    difference = torch.tensor(values).double() - torch.tensor(means).double()
    return measured(difference, torch.tensor(errors).double(), 0.0)


# ---------------------------------------------------------------------------------------------- samples


def of_two_sets(
    name: str, count: int, *, scale: float = 1.5, shift: float = 0.5, dims: int = 2, repeats: int = 200
) -> Measured:
    """An interval between `count` normal examples and as many others, about its own mean over the repeats."""
    found = []
    for seed in range(repeats):
        a, b = normal(seed, count, dims), scale * normal(seed + 5000, count, dims) + shift
        if name == "Fréchet":
            found.append(Interval.of(frechet(b, a)))
        elif name == "MMD²":
            found.append(kernel_test(a, b, permutations=1).squared)
        elif name == "sliced Wasserstein":
            found.append(sliced_wasserstein(a, b, projections=20))
        else:
            found.append(getattr(fidelity(a, b), name))
    return of_intervals(found)


def over_floor(count: int, dims: int, repeats: int = 200) -> Measured:
    """Samples' Fréchet distance to test examples over that of training examples, all three sets `count` large.

    A ratio is doubted where the floor is within three errors of 0, as the table of distances says.
    """
    cell = Cell(sampler=None, steps=None, guidance=None, n=count, seed=0, weights="", classifier="")
    found = []
    for seed in range(repeats):
        test, train = normal(seed, count, dims), normal(seed + 5000, count, dims)
        distances = frechet(1.5 * normal(seed + 9000, count, dims) + 0.5, test), frechet(train, test)
        measures = {"recognised": None, "evaluations": 0.0, "seconds": 0.0, "provenance": PROVENANCE}
        found.append(Distance(cell=cell, distance=distances[0], floor=distances[1], **measures))
    seen = of_estimates([one.ratio for one in found])
    doubted = sum(one.floor.mean < 3 * one.floor.standard_error for one in found) / repeats
    return Measured(seen.repeats, seen.ratio, seen.coverage, doubted)


def copies(name: str, share: float, samples: int, held_out: int, repeats: int = 200) -> Measured:
    """Distances to the training set where `share` of the samples are copies; the sign of memory counts as doubt."""
    found = []
    for seed in range(repeats):
        own = normal(seed, samples).exp() * (uniform(seed, samples) >= share)
        found.append(memorisation(Nearest(own, own.long(), normal(seed + 5000, held_out).exp()), seed))
    expected = found[0].expected
    truth = {"near_copies": share + (1 - share) * expected, "closer": 0.5 + 0.5 * share}[name]
    seen = of_intervals([getattr(one, name) for one in found], truth)
    return Measured(seen.repeats, seen.ratio, seen.coverage, sum(one.sign != "none" for one in found) / repeats)


# ---------------------------------------------------------------------------------------------- the table

ANY = (0.0, 100.0)


def exponential(repeats: int, count: int) -> Tensor:
    return -uniform(7, repeats, count).log()


def log_normal(repeats: int, count: int) -> Tensor:
    return normal(8, repeats, count).exp()


SETS: dict[str, dict[str, int | float]] = {
    "100 and 100, wider and moved": {"count": 100},
    "300 and 300, of one law": {"count": 300, "scale": 1.0, "shift": 0.0},
}
MEAN_BOUNDS: dict[str, Callable[[], tuple[list[Estimate], float]]] = {
    "diffusion, 1,000 examples": lambda: of_mixture(1000, 0.15, control=False),
    "diffusion, 1,000 examples, control": lambda: of_mixture(1000, 0.15, control=True),
    "diffusion, 100 examples, revisited": lambda: of_mixture(100, 0.25, control=True),
    "VAE, 1,000 examples": lambda: of_ppca(1000, 0.1, control=False),
    "VAE, 1,000 examples, control": lambda: of_ppca(1000, 0.1, control=True),
}
ROOT_E = math.exp(0.5)
CASES = [
    Case("a mean", "100 normal values", lambda: mean_of(lambda *s: normal(9, *s), 0.0, 100), 0.93, (0.95, 1.05)),
    Case("a mean", "10 normal values", lambda: mean_of(lambda *s: normal(9, *s), 0.0, 10), 0.89, (0.95, 1.05)),
    Case("a mean", "10 exponential values", lambda: mean_of(exponential, 1.0, 10), 0.82, (0.9, 1.1)),
    Case("a mean", "100 exponential values", lambda: mean_of(exponential, 1.0, 100), 0.91, (0.95, 1.05)),
    Case("a mean", "100 log-normal values, sigma 1", lambda: mean_of(log_normal, ROOT_E, 100), 0.87, (0.85, 1.15)),
    Case("a mean", "1,000 log-normal values, sigma 1", lambda: mean_of(log_normal, ROOT_E, 1000), 0.91),
    Case("a share", "0.5 of 100", lambda: share_of(0.5, 100), 0.92),
    Case("a share", "0.05 of 100", lambda: share_of(0.05, 100), 0.92),
    Case("a share", "0.99 of 20", lambda: share_of(0.99, 20), 0.95, (0.2, 1.1)),
    Case("a share of entries (coverage, ranks)", "100 examples of 9 entries", share_in_clusters, 0.92),
    Case("a root mean square error", "50 normal errors", root_mean_squares, 0.91, (0.9, 1.1)),
    Case("Monte-Carlo error of one ELBO", "2 draws", lambda: elbo_error(2), 0.65, (0.96, 1.04)),
    Case("Monte-Carlo error of one ELBO", "4 draws", lambda: elbo_error(4), 0.83, (0.96, 1.04)),
    Case("Monte-Carlo error of one ELBO", "20 draws", lambda: elbo_error(20), 0.92, (0.96, 1.04)),
    Case("the same, diffusion", "4 of 23 terms, 2 draws", lambda: diffusion_elbo_error(2, 4), 0.6),
    Case("the same, diffusion", "4 of 23 terms, 8 draws", lambda: diffusion_elbo_error(8, 4), 0.85),
    Case("the ODE's density", "4 probes", flow_error, 0.8),
    *(
        Case(
            "mean bound, --error",
            model,
            lambda run=run: of_estimates(*run()),
            slow=model != "VAE, 1,000 examples, control",
        )
        for model, run in MEAN_BOUNDS.items()
    ),
    Case(
        "mean bound, --error",
        "log-normal parts, control",
        lambda: of_estimates(*of_skewed_parts(2000, 0.5)),
        0.82,
        (0.85, 1.3),
        slow=True,
    ),
    Case("L_K", "log-normal, sigma 1, K = 50", lambda: l_k("log-normal", 1, 50)),
    Case("L_K", "log-normal, sigma 2, K = 50", lambda: l_k("log-normal", 2, 50), 0.83, (0.7, 1.1)),
    Case("L_K", "log-normal, sigma 2, K = 1,000", lambda: l_k("log-normal", 2, 1000), 0.85, (0.7, 1.1)),
    Case("L_K", "log-normal, sigma 3, K = 1,000", lambda: l_k("log-normal", 3, 1000), 0.8, (0.6, 1.1)),
    Case("L_K", "q too wide in 10-D, K = 50", lambda: l_k("of q", 1, 50), 0.92, (0.85, 1.15)),
    Case("L_K as log p(x)", "log-normal, sigma 1, K = 50", lambda: l_k("log-normal", 1, 50, log_p=True), 0.88),
    Case("L_K as log p(x)", "log-normal, sigma 2, K = 50", lambda: l_k("log-normal", 2, 50, log_p=True), 0.7, ANY),
    Case("L_K as log p(x)", "log-normal, sigma 3, K = 50", lambda: l_k("log-normal", 3, 50, log_p=True), 0.5, ANY),
    Case("L_K as log p(x)", "q of scale 0.8 in 10-D, K = 50", lambda: l_k("of q", -0.36, 50, log_p=True), 0.8, ANY),
    Case("L_K as log p(x)", "q of scale 0.6 in 10-D, K = 50", lambda: l_k("of q", -0.64, 50, log_p=True), 0.5, ANY),
    Case("AIS", "PPCA, 300 temperatures", lambda: ais(random_ppca(), 300), 0.9, slow=True),
    Case("AIS", "PPCA, 60 temperatures", lambda: ais(random_ppca(), 60), 0.87, slow=True),
    Case("AIS", "PPCA, 10 temperatures", lambda: ais(random_ppca(), 10), 0.8, (0.7, 1.4), slow=True),
    Case("AIS", "PPCA of little noise, 60 temperatures", lambda: ais(hard_ppca(), 60), 0.0, ANY, slow=True),
    Case("L_0", "6 levels, exact denoiser, 500 examples", lambda: first_term(500), 0.3, ANY),
    Case("L_0", "6 levels, exact denoiser, 5,000 examples", lambda: first_term(5000), 0.8, ANY, slow=True),
    Case("p(y|x), joint VAE", "20 draws, q 1.5 times as wide", lambda: label_probability(20, 1.5)),
    Case("p(y|x), joint VAE", "20 draws, q 4 times as wide", lambda: label_probability(20, 4.0), 0.8),
    Case("p(y|x), race of bounds", "16 draws", lambda: raced_probability(16)),
    Case("p(y|x), race of bounds", "4 draws", lambda: raced_probability(4), 0.8),
    Case("mean of p(y|x)", "20 draws, q 1.5 times as wide", lambda: target_mean(20, 1.5), 0.88),
    Case("calibration curve", "500 examples in 8 bins", calibration_bars),
    Case("calibration error by chance", "200 examples", calibration_by_chance),
    Case("Fréchet distance", "100 and 100", lambda: of_two_sets("Fréchet", 100), ratio=(0.5, 1.15), slow=True),
    Case("distance over floor", "500 each in 16-D", lambda: over_floor(500, 16), ratio=(0.5, 1.15), slow=True),
    Case("distance over floor", "1,000 each in 2-D", lambda: over_floor(1000, 2), 0.0, ANY, slow=True),
    Case("MMD²", "100 and 100", lambda: of_two_sets("MMD²", 100), ratio=(0.7, 1.15), slow=True),
    Case("sliced Wasserstein", "100 and 100", lambda: of_two_sets("sliced Wasserstein", 100), slow=True),
    *(
        Case(name, model, partial(of_two_sets, name, **how), ratio=(0.3, 1.15), slow=True)
        for name in ("precision", "recall", "density", "coverage")
        for model, how in SETS.items()
    ),
    Case("nearer than fresh", "100 fresh, 300 held out", lambda: copies("closer", 0.0, 100, 300), slow=True),
    Case("nearer than fresh", "20 % copies of 100", lambda: copies("closer", 0.2, 100, 300), ratio=ANY, slow=True),
    Case("near copies", "500 fresh, 100 held out", lambda: copies("near_copies", 0.0, 500, 100), ratio=ANY, slow=True),
    Case("near copies", "20 % copies of 100", lambda: copies("near_copies", 0.2, 100, 300), ratio=ANY, slow=True),
]
