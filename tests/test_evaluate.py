"""Scores, evaluations and their errors: against closed forms, and independent of how examples are batched."""

import io
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy import stats
from torch import Tensor, nn

import jensen
from jensen.bound import Elbo, Estimate, ImportanceWeightedBound, Profile
from jensen.cli import main
from jensen.data.examples import Examples
from jensen.data.preparation import Dequantise, DynamicBinarisation, Levels, Preparation, Standardise, Threshold
from jensen.errors import InputError
from jensen.evaluation.evaluation import Evaluation, evaluate
from jensen.evaluation.measure import written
from jensen.evaluation.referee import referee
from jensen.evaluation.saved import load_evaluation, save_evaluation
from jensen.evaluation.scores import NUMBERS, at_once, examples_digest, score, spread
from jensen.evaluation.settings import EvaluationSettings, RefereeSettings
from jensen.likelihood import FixedScale, GaussianLikelihood
from jensen.model import AbstractLatentVariableModel, Batch, Effort, Estimator, Loss
from jensen.provenance import weights_digest
from jensen.randomness import Noise, generator, normal_per_example
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.report.bound import table
from jensen.vae import VAE, AmortisedPosterior

# ---------------------------------------------------------------------------------------------- probabilistic PCA

SIGMA, DATA, LATENT = 0.6, 5, 2


class ExactPosterior(nn.Module):
    """The posterior of probabilistic PCA whose W has orthogonal columns, so that it is diagonal; mu and log s."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        precision = torch.diag(weight.T @ weight) + SIGMA**2  # M
        self.linear = nn.Linear(DATA, LATENT)
        self.linear.weight.data = (weight / precision).T
        self.linear.bias.data = -(weight / precision).T @ bias
        self.log_scale = (SIGMA / precision.sqrt()).log()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.linear(x), self.log_scale.expand(len(x), -1)], dim=1)


class Decoder(nn.Module):
    """z to the mean Wz + b, with the axis of the likelihood's outputs."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.weight.T + self.bias).unsqueeze(1)


@pytest.fixture(scope="module")
def pca() -> tuple[VAE, Standardise, Examples, np.ndarray]:
    """Probabilistic PCA with its exact posterior, data in raw units, and log p(raw) of each."""
    noise = generator(1)
    weight = torch.linalg.qr(torch.randn(DATA, LATENT, generator=noise))[0] * torch.tensor([2.0, 0.7])
    bias = torch.randn(DATA, generator=noise)
    posterior = AmortisedPosterior(ExactPosterior(weight, bias), LATENT)
    model = VAE(posterior, Decoder(weight, bias), GaussianLikelihood((DATA,), FixedScale(SIGMA)))
    shift, scale = (1.0, -2.0, 0.0, 3.0, 10.0), (2.0, 0.5, 1.0, 4.0, 0.1)
    preparation = Standardise(
        dtype="float32", dimensions=DATA, resolution=1e-3, shift=shift, scale=scale, minimum=-9, maximum=9
    )
    x = model.sample(200, seed=3).numpy().astype(float)
    scales = np.diag(scale)
    covariance = scales @ (weight @ weight.T + SIGMA**2 * torch.eye(DATA)).double().numpy() @ scales
    raw = x @ scales + np.array(shift)
    likelihood = stats.multivariate_normal(bias.double().numpy() @ scales + np.array(shift), covariance).logpdf(raw)
    return model, preparation, Examples(torch.tensor(raw, dtype=torch.float32)), likelihood


def test_with_the_exact_posterior_the_bound_is_the_likelihood(pca) -> None:
    model, preparation, examples, likelihood = pca
    scores = score(model, examples, preparation, draws=64, seed=0)
    np.testing.assert_allclose(scores.bits_per_dimension, -scores.bound / (DATA * math.log(2)), rtol=1e-12)
    z = (scores.bound.numpy() - likelihood) / scores.standard_error.numpy()  # nats of the raw data
    # 200 values of Student's t with 63 degrees of freedom: mean within ±4/sqrt(200) fails once in 15,000,
    # variance 1.03 ± 4 sqrt(2/199) likewise
    assert abs(z.mean()) < 4 / math.sqrt(200)
    assert abs(z.var() - 63 / 61) < 4 * math.sqrt(2 / 199)


def test_evaluation_of_the_exact_posterior_shows_no_gap_and_perfect_weights(pca) -> None:
    model, preparation, examples, likelihood = pca
    settings = EvaluationSettings(samples=50, further_examples=120)
    found = evaluate(model, examples, preparation, settings, "samples of the model")
    chosen = likelihood[spread(200, 120).numpy()]
    best = found.bounds[-1]
    assert [bound.name for bound in found.bounds] == ["ELBO", "optimised ELBO", "L_50"]
    assert best.nats.mean == pytest.approx(chosen.mean(), abs=1e-3)
    assert best.bits_per_dimension.mean == pytest.approx(-chosen.mean() / (DATA * math.log(2)), abs=1e-4)
    assert best.monte_carlo_error < 1e-3  # every weight is p(x)
    assert best.weights.minimum_effective_sample_size == pytest.approx(50, rel=1e-3)
    # three gaps that are zero up to what the optimisation of q leaves, each within 4 standard errors: 1 in 5,000
    assert all(abs(gap.nats.mean) < 4 * gap.nats.standard_error + 0.02 for gap in found.gaps)
    assert found.warnings == ()
    assert found.diagnostics["active units"] == LATENT


def test_terms_add_up_in_nats_and_in_bits(pca) -> None:
    model, preparation, examples, _ = pca
    scores = score(model, examples, preparation, draws=4, seed=0)
    assert torch.equal(sum(scores.terms.values()), scores.bound)
    found = evaluate(model, examples, preparation, EvaluationSettings(draws=4, samples=2, further_examples=2), "x")
    assert sum(term.nats.mean for term in found.terms.values()) == pytest.approx(found.elbo.nats.mean)
    bits = sum(term.bits_per_dimension.mean for term in found.terms.values())
    assert bits == pytest.approx(found.elbo.bits_per_dimension.mean)


# ---------------------------------------------------------------------------------------------- purity

PREPARATIONS = [
    Dequantise(dtype="uint8", dimensions=DATA, levels=16),
    Levels(dtype="uint8", dimensions=DATA, levels=16),
    DynamicBinarisation(dtype="uint8", dimensions=DATA, levels=16),
    Threshold(dtype="uint8", dimensions=DATA, levels=16),
]


def bytes_of(count: int) -> Examples:
    return Examples(torch.randint(0, 16, (count, DATA), generator=generator(5), dtype=torch.uint8))


@pytest.mark.parametrize("preparation", PREPARATIONS, ids=lambda preparation: preparation.kind)
def test_scores_do_not_depend_on_how_examples_are_batched(pca, preparation: Preparation) -> None:
    model, examples = pca[0], bytes_of(23)
    whole = score(model, examples, preparation, draws=3, seed=7)
    parts = score(model, examples, preparation, draws=3, seed=7, batch_size=4)
    alone = score(model, examples[9:10], preparation, draws=3, seed=7, index=torch.tensor([9]))
    close = {"rtol": 1e-5, "atol": 1e-5}  # the networks compute in float32
    torch.testing.assert_close(parts.bound, whole.bound, **close)
    torch.testing.assert_close(parts.standard_error, whole.standard_error, **close)
    torch.testing.assert_close(alone.bound, whole.bound[9:10], **close)
    other = score(model, examples, preparation, draws=3, seed=8)
    assert not torch.allclose(other.bound, whole.bound)


def test_a_batch_shrinks_where_examples_are_large() -> None:
    assert at_once(500, 16 * 784) == 500
    assert at_once(500, 16 * 3 * 64 * 64) == NUMBERS // (16 * 3 * 64 * 64)
    assert at_once(500, 2 * NUMBERS) == 1


# ---------------------------------------------------------------------------------------------- a model made up


class Sum(AbstractLatentVariableModel):
    """A model whose bound is the sum of x, exactly, and whose further bounds lie above it by amounts of our choice.

    Each further bound claims to be above the ELBO, except for `unordered`, which claims nothing.
    """

    def __init__(self, further: dict[str, float] | None = None, spread: float = 0.0, log_weight: float = 0.0) -> None:
        super().__init__()
        self.shape, self.further, self.spread, self.log_weight = (DATA,), further or {}, spread, log_weight
        self.nothing = nn.Parameter(torch.zeros(()))

    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        return Elbo(x.sum(1), {"rate": torch.zeros(len(x))})

    def estimators(self, effort: Effort) -> list[Estimator]:
        (elbo,) = super().estimators(effort)
        ordered = tuple(name for name in self.further if name != "unordered")
        others = [Estimator(name, partial(self._above, above), ()) for name, above in self.further.items()]
        if self.log_weight:
            others.append(Estimator(f"L_{effort.samples}", partial(self._weighted, effort.samples), ()))
        return [replace(elbo, at_most=ordered), *others]

    def _above(self, above: float, x: Tensor, seed: int, index: Tensor) -> Elbo:
        noise = self.spread * normal_per_example(seed, index.tolist(), ()).squeeze()
        return Elbo(x.sum(1) + above + noise, {})

    def _weighted(self, samples: int, x: Tensor, seed: int, index: Tensor) -> ImportanceWeightedBound:
        log_weights = torch.zeros(samples, len(x))
        log_weights[0] = self.log_weight
        return ImportanceWeightedBound.from_log_weights(x.sum(1) + log_weights)

    def loss(self, batch: Batch, *, step: int, noise: Noise) -> Loss:
        raise NotImplementedError

    sample = sample_mean = codes = decode_mean = loss


def test_dequantisation_noise_is_in_the_error() -> None:
    preparation, draws = Dequantise(dtype="uint8", dimensions=DATA, levels=16), 16
    scores = score(Sum(), bytes_of(2000), preparation, draws=draws, seed=0)
    # a sum of D uniforms on intervals of width 2/L; the variance's estimate over 2000 x 15 degrees of freedom has a
    # relative error of at most sqrt(2/30000) = 0.8 %: 4 % is five of them
    expected = DATA / 12 * (2 / 16) ** 2 / draws
    assert scores.standard_error.square().mean() == pytest.approx(expected, rel=0.04)
    centre = (bytes_of(2000).x.double() + 0.5).sum(1) * 2 / 16 - DATA + DATA * math.log(2 / 16)  # nats of the raw data
    assert (scores.bound - centre).mean().abs() < 4 * math.sqrt(expected / 2000)  # fails once in 15,000


def test_dynamic_binarisation_is_another_data_set_and_not_noise() -> None:
    preparation = DynamicBinarisation(dtype="uint8", dimensions=DATA, levels=16)
    scores = score(Sum(), bytes_of(50), preparation, draws=8, seed=0)
    assert (scores.bound == scores.bound.round()).all()  # one binary image for all draws
    assert scores.standard_error.isnan().all()  # this model states none


STANDARD = Levels(dtype="uint8", dimensions=DATA, levels=16)


def test_gaps_are_paired_example_by_example() -> None:
    model, examples = Sum({"tighter": 0.25, "tightest": 1.0}, spread=0.1), bytes_of(400)
    found = evaluate(model, examples, STANDARD, EvaluationSettings(seed=2, further_examples=400), "bytes")
    gaps = {(gap.worse, gap.better): gap for gap in found.gaps}
    assert set(gaps) == {("ELBO", "tighter"), ("ELBO", "tightest"), ("tighter", "tightest")}
    noise = 0.1 * normal_per_example(2, range(400), ()).double()
    gap = gaps["ELBO", "tighter"]
    assert gap.nats.mean == pytest.approx(0.25 + noise.mean().item(), abs=1e-6)
    assert gap.nats.standard_error == pytest.approx(noise.std().item() / 20, rel=1e-4)
    assert gap.nats.standard_error < found.elbo.nats.standard_error / 5
    assert gap.bits_per_dimension.mean == pytest.approx(gap.nats.mean / (DATA * math.log(2)))
    assert gaps["tighter", "tightest"].nats.standard_error < 1e-6
    assert found.warnings == ()


def test_every_mean_that_is_shown_is_asked_for_doubt() -> None:
    """A gap, and bits per observed value, that one example carries, although the means in nats are sound."""

    class Rare(Sum):
        def estimators(self, effort: Effort) -> list[Estimator]:
            elbo, tighter = super().estimators(effort)[:2]

            def rare(x: Tensor, seed: int, index: Tensor) -> Elbo:
                found = elbo.estimate(x, seed, index)
                return Elbo(found.value + 0.5 * (index == 7), {})

            return [elbo, replace(tighter, estimate=rare)]

    found = evaluate(Rare({"tighter": 0.0}), bytes_of(100), STANDARD, EvaluationSettings(), "bytes")
    name = f"{found.gaps[0].name} of {found.gaps[0].nats.count} examples"
    assert found.warnings == (
        f"{name}: 1 of {found.gaps[0].nats.count} values carries the spread: do not trust the error",
    )


def test_bits_per_observed_value_have_a_doubt_of_their_own() -> None:
    """Every example costs 1 bit per observed value, but the one with 1,000 observed values costs 2."""
    sizes = torch.tensor([10.0] * 99 + [1000.0])
    costs = sizes.clone()
    costs[-1] = 2000
    assert Estimate.ratio(costs, sizes).carriers == pytest.approx(1, abs=0.1)
    assert Estimate.ratio(costs, sizes).doubt == "1 of 100 values carries the spread: do not trust the error"
    whole = torch.randn(100, generator=generator(3)).double()
    assert Estimate.ratio(whole, torch.full((100,), 5)).carriers == pytest.approx(Estimate.of(whole).carriers)


def test_a_bound_below_one_it_ought_to_improve_is_a_contradiction() -> None:
    found = evaluate(Sum({"tighter": -0.5}, spread=0.1), bytes_of(100), STANDARD, EvaluationSettings(), "bytes")
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("ELBO exceeds tighter by 0.5")
    noisy = evaluate(Sum({"tighter": -0.5}, spread=9.0), bytes_of(100), STANDARD, EvaluationSettings(), "bytes")
    assert noisy.warnings == ()
    other_model = evaluate(Sum({"unordered": -0.5}, spread=0.1), bytes_of(100), STANDARD, EvaluationSettings(), "bytes")
    assert other_model.warnings == ()


def test_few_effective_samples_are_not_to_be_trusted() -> None:
    found = evaluate(Sum(log_weight=20.0), bytes_of(30), STANDARD, EvaluationSettings(samples=200), "bytes")
    (bound,) = found.bounds[1:]
    assert bound.weights.median_effective_sample_size == pytest.approx(1, abs=0.01)
    assert bound.weights.jensen_gap.mean == pytest.approx(20 - math.log(200) - 20 / 200, abs=1e-3)
    assert bound.weights.trusted == 0
    assert any("L_200 is a lower bound but not an estimate" in warning for warning in found.warnings)


def test_bounds_that_are_not_finite_are_counted() -> None:
    class Broken(Sum):
        def elbo(self, x: Tensor, **arguments: object) -> Elbo:
            return Elbo(x.sum(1).log(), {})  # NaN below zero

    found = evaluate(Broken(), bytes_of(40), STANDARD, EvaluationSettings(), "bytes")
    bad = int((STANDARD(bytes_of(40).x).sum(1) < 0).sum())
    assert 0 < bad < 40
    assert found.warnings == (f"the ELBO of {bad} of 40 examples is not finite, so neither is the mean",)


def test_a_bound_that_is_not_a_number_is_the_worst_and_is_said() -> None:
    class Broken(Sum):
        def elbo(self, x: Tensor, **arguments: object) -> Elbo:
            return Elbo(x.sum(1).log(), {})  # NaN below zero

    scores = score(Broken(), bytes_of(40), STANDARD, draws=2, seed=0)
    below = STANDARD(bytes_of(40).x).sum(1) < 0
    assert f"{int(below.sum())} of 40 examples is not finite" in (scores.not_finite or "")
    assert torch.equal(scores.bound == -math.inf, below)
    assert not scores.bound.isnan().any()
    assert set(scores.bound.argsort()[: int(below.sum())].tolist()) == set(below.nonzero()[:, 0].tolist())


def test_score_warns_of_bounds_that_are_not_finite(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(80, 3)).astype("float32")
    recipe = VAERecipe(data=x, model=VAESettings(latent_dims=2, hidden=(8,)), training={"steps": 5})
    run = jensen.train(recipe, tmp_path / "run")
    with pytest.warns(UserWarning, match="the ELBO of 1 of 2 examples is not finite"):
        found = jensen.score(run, np.array([[1e30, 0, 0], [0, 0, 0]], dtype="float32"))
    assert found.bound.tolist()[0] == -math.inf


def test_one_example_is_said_to_have_no_error() -> None:
    found = evaluate(Sum(), bytes_of(1), STANDARD, EvaluationSettings(), "bytes")
    assert [warning for warning in found.warnings if "1 example has no standard error" in warning]
    assert evaluate(Sum(), bytes_of(2), STANDARD, EvaluationSettings(), "bytes").warnings == ()


class Noisy(Sum):
    """A model whose ELBO is the mean of draws with a normal error of 1 each."""

    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        return Elbo.from_draws(x.sum(1) + normal_per_example(seed, index.tolist(), (draws,)).T, {})


@pytest.mark.parametrize("draws", [2, 4])
def test_the_error_of_one_example_is_not_too_low_for_few_draws(draws: int) -> None:
    # s² has a relative sd of sqrt(2 / (draws - 1)); the root of its mean over 4000 half of that / sqrt(4000): at most
    # 1.1 %. Limit 5 %, beyond 4.4 of them; the mean of s is low by 20 % (2 draws) and 8 % (4).
    found = evaluate(Noisy(), bytes_of(4000), STANDARD, EvaluationSettings(draws=draws), "bytes")
    assert found.elbo.monte_carlo_error == pytest.approx(1 / math.sqrt(draws), rel=0.05)


def test_an_evaluation_says_which_weights_it_is_of(pca) -> None:
    model, preparation, examples, _ = pca
    settings = EvaluationSettings(samples=2, further_examples=2)
    found = evaluate(model, examples[:20], preparation, settings, "x", step=7).provenance
    assert (found.step, found.weights) == (7, weights_digest(model))


# ---------------------------------------------------------------------------------------------- missing values


class Normal(Sum):
    """Independent N(0, 1) over what is observed of x, exactly."""

    def elbo(self, x: Tensor, **arguments: object) -> Elbo:
        return Elbo(-0.5 * (x.square() + math.log(2 * math.pi)).nansum(1), {"rate": torch.zeros(len(x))})

    def estimators(self, effort: Effort) -> list[Estimator]:
        (elbo,) = AbstractLatentVariableModel.estimators(self, effort)
        return [elbo, replace(elbo, name="again")]


def test_missing_values_count_neither_in_the_volume_nor_in_the_dimensions() -> None:
    shift, scale = np.array([1.0, -2.0, 0.0, 3.0, 10.0]), np.array([2.0, 0.5, 1.0, 4.0, 0.1])
    preparation = Standardise(
        dtype="float32",
        dimensions=DATA,
        resolution=1e-3,
        shift=tuple(shift),
        scale=tuple(scale),
        minimum=-9,
        maximum=20,
    )
    noise = np.random.default_rng(3)
    raw = noise.normal(shift, scale, size=(60, DATA)).astype(np.float32)
    raw[noise.random(raw.shape) < 0.3] = np.nan
    raw[0] = [np.nan, np.nan, np.nan, np.nan, 10.1]
    log_p = np.nansum(stats.norm.logpdf(raw.astype(float), shift, scale), axis=1)
    observed = np.isfinite(raw).sum(1)
    examples = Examples(torch.from_numpy(raw))
    scores = score(Normal(), examples, preparation, draws=2, seed=0)
    np.testing.assert_allclose(scores.bound, log_p, atol=1e-4)
    np.testing.assert_allclose(scores.bits_per_dimension[0], -log_p[0] / math.log(2), rtol=1e-4)
    found = evaluate(Normal(), examples, preparation, EvaluationSettings(batch_size=7), "table")
    bits = -log_p.sum() / (observed.sum() * math.log(2))
    for bound in (found.elbo, *found.bounds):
        assert bound.nats.mean == pytest.approx(log_p.mean(), abs=1e-4)
        assert bound.bits_per_dimension.mean == pytest.approx(bits, rel=1e-4)
    assert sum(term.bits_per_dimension.mean for term in found.terms.values()) == pytest.approx(bits, rel=1e-4)
    verdict = referee(Normal(), examples, preparation, RefereeSettings(), samples=1, seed=0, source="table")
    assert verdict.accounts[0].nats.mean == pytest.approx(log_p.mean(), abs=1e-4)
    assert verdict.accounts[0].bits_per_dimension.mean == pytest.approx(bits, rel=1e-4)


# ---------------------------------------------------------------------------------------------- by noise level


class Chain(Sum):
    """A model of four steps whose bound is the sum of x, half of it spent at step 1, and whose error is 0.1 t²."""

    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        total = x.sum(1).double()
        profile = Profile(
            log_snr=torch.tensor([math.inf, 5.0, 3.0, 0.0, -4.0], dtype=torch.float64),
            last_step=torch.tensor([1, 3, 4]),
            nats=-torch.tensor([[0.5], [0.25], [0.125], [0.125]]).double() * total,
            squared_error=torch.tensor([[0.01], [0.16], [1.0]]).double().expand(3, len(x)),
        )
        return Elbo(total / 2, {"prior": -total / 8, "denoising": -total * 3 / 8}, None, profile)


FLOATS = Standardise(
    dtype="float32", dimensions=DATA, resolution=1e-3, shift=(1.0,), scale=(4.0,), minimum=0, maximum=15
)


@pytest.mark.parametrize("preparation", [*PREPARATIONS[:2], FLOATS], ids=lambda preparation: preparation.kind)
def test_the_levels_add_up_to_the_bound_in_nats_and_in_bits_and_their_errors_are_raw(preparation: Preparation) -> None:
    examples = bytes_of(60)
    examples = Examples(examples.x.float()) if isinstance(preparation, Standardise) else examples
    found = evaluate(Chain(), examples, preparation, EvaluationSettings(draws=3, batch_size=7), "bytes")
    profile = found.profile
    costs = [*profile.levels, profile.prior]
    assert -sum(cost.nats.mean for cost in costs) == pytest.approx(found.elbo.nats.mean)
    bits = sum(cost.bits_per_dimension.mean for cost in costs)
    assert bits == pytest.approx(found.elbo.bits_per_dimension.mean)
    first, second, third = profile.levels
    assert [(level.first_step, level.last_step) for level in profile.levels] == [(1, 1), (2, 3), (4, 4)]
    assert [level.log_snr for level in profile.levels] == [(math.inf, 5.0), (5.0, 0.0), (0.0, -4.0)]
    assert second.width == 5
    assert profile.denoising.nats.mean == pytest.approx(second.nats.mean + third.nats.mean)
    raw = {"dequantise": 8, "levels": 7.5, "standardise": 4}[preparation.kind]  # raw units in one of x
    assert [level.root_mean_squared_error for level in profile.levels] == pytest.approx([0.1 * raw, 0.4 * raw, raw])
    last = profile.rate_distortion[-1]
    if preparation.kind == "levels":
        assert last.root_mean_squared_error == 0
        assert last.bits_per_dimension == pytest.approx(bits)
    else:  # a density has no last bit: the curve ends where x_1 is known
        assert last.root_mean_squared_error == pytest.approx(0.1 * raw)
        assert last.bits_per_dimension == pytest.approx(bits - first.bits_per_dimension.mean)
    assert Evaluation.model_validate_json(found.model_dump_json()).profile == profile


# ---------------------------------------------------------------------------------------------- what is kept and shown


def test_an_evaluation_is_kept_with_every_score(pca, tmp_path) -> None:
    model, preparation, examples, _ = pca
    found = evaluate(model, examples, preparation, EvaluationSettings(samples=3, further_examples=5), "x")
    save_evaluation(tmp_path, found)
    again = load_evaluation(tmp_path)
    assert again.model_dump_json() == found.model_dump_json()  # nan is not nan otherwise
    for name in ("index", "bound", "standard_error", "bits_per_dimension"):
        assert torch.equal(getattr(again.scores, name), getattr(found.scores, name))
    assert again.scores.terms.keys() == found.scores.terms.keys()
    assert found.examples_digest == examples_digest(examples) != examples_digest(examples[:-1])


def test_an_evaluation_that_cannot_be_used_is_one_line(pca, tmp_path) -> None:
    model, preparation, examples, _ = pca
    with pytest.raises(InputError, match="jensen evaluate"):
        load_evaluation(tmp_path)
    settings = EvaluationSettings(samples=3, further_examples=5)
    save_evaluation(tmp_path, evaluate(model, examples[:50], preparation, settings, "x"))
    scores = (tmp_path / "scores.npz").read_bytes()
    save_evaluation(tmp_path, evaluate(model, examples[:60], preparation, settings, "x"))
    (tmp_path / "scores.npz").write_bytes(scores)
    with pytest.raises(InputError, match="belong to different evaluations"):
        load_evaluation(tmp_path)
    for damage in (scores[:100], b""):
        (tmp_path / "scores.npz").write_bytes(damage)
        with pytest.raises(InputError, match="damaged") as caught:
            load_evaluation(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "evaluation.json").write_text('{"source": "an older jensen"}')
    with pytest.raises(InputError, match="of another version") as caught:
        load_evaluation(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_examples_are_spread_over_the_data(pca) -> None:
    model, preparation, examples, _ = pca
    few = EvaluationSettings(examples=40, further_examples=7, samples=2)
    found = evaluate(model, examples, preparation, few, "x")
    assert found.examples == found.elbo.nats.count == 40
    assert {bound.nats.count for bound in found.bounds} == {7}
    whole = score(model, examples, preparation, draws=16, seed=0)
    assert found.elbo.nats.mean == pytest.approx(whole.bound[spread(200, 40)].mean().item(), rel=1e-6)


@pytest.mark.parametrize("count", [1, 12])
def test_an_evaluation_survives_json(count: int) -> None:
    model = Sum({"tighter": 0.5}, log_weight=3.0)
    found = evaluate(model, bytes_of(count), STANDARD, EvaluationSettings(samples=3), "a 'source', ü")
    text = found.model_dump_json(indent=1)
    again = Evaluation.model_validate_json(text)
    assert again.model_dump_json(indent=1) == text
    assert again.elbo.nats.count == count
    assert math.isnan(again.elbo.nats.standard_error) == (count == 1)


def test_the_table_says_everything_within_80_columns(pca) -> None:
    model, preparation, examples, _ = pca
    found = evaluate(model, examples, preparation, EvaluationSettings(samples=30), "[bold]a source[/bold]")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(found))
    shown = console.export_text()
    assert "[bold]a source[/bold]: 200 examples, 16 draws each" in shown
    for name in ("reconstruction", "rate", "ELBO", "optimised ELBO", "L_30", "amortisation gap", "active units: 2"):
        assert name in shown
    assert written(found.elbo.nats) in shown
    assert "…" not in shown  # nothing is cut off
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80


def test_reading_the_settings_loads_neither_torch_nor_matplotlib() -> None:
    program = "import jensen.evaluation.settings, sys; print({'torch', 'matplotlib'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"


def test_an_estimate_is_written_to_two_digits_of_its_error() -> None:
    assert written(Estimate(-10451.3, 313.0, 75)) == "-10451 ± 313"
    assert written(Estimate(0.0123456, 0.000499, 75)) == "0.01235 ± 0.00050"
    assert written(Estimate(-0.0000164, 0.0000033, 4)) == "-1.64e-05 ± 3.3e-06"
    assert written(Estimate(-0.001, 0.4, 4)) == "0.00 ± 0.40"
    assert written(Estimate(1.0, math.nan, 1)) == "1.0000 ± nan"


# ---------------------------------------------------------------------------------------------- records of a run


RECORDS = {
    "predictions.json": "make it again: jensen predict",
    "calibration.json": "--mask MASK --calibrate",
    "compression.json": "make it again: jensen compress",
    "sample_metrics-pixels.json": "make it again: jensen features check",
}


@pytest.fixture(scope="module")
def brief_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "brief"
    training = {"steps": 2, "batch_size": 32, "validate_every": 2, "ema_decay": None}
    jensen.train(VAERecipe(model=VAESettings(latent_dims=2, hidden=(8,)), training=training), out)
    return out


@pytest.mark.parametrize("name", RECORDS)
def test_a_damaged_record_is_refused_before_the_evaluation(name, brief_run, capsys) -> None:
    (brief_run / name).write_text('{"half": ')
    try:
        assert main(["evaluate", str(brief_run)]) == 2
    finally:
        (brief_run / name).unlink()
    told = capsys.readouterr().err
    assert f"{name} is damaged or of another version" in told
    assert RECORDS[name] in told
    assert told.count("\n") == 1
    assert not (brief_run / "evaluation.json").exists()
