"""Imputation against exact conditionals, by every method; what it must leave alone, refuse and never depend on."""

import math

import pytest
import torch
from linear_vae import as_vae, random_ppca
from mixtures import ExactDenoiser, one_gaussian, three_clusters
from networks import awake
from scipy import stats

from jensen.diffusion import BetaVariance, Denoiser, LinearLogSnr, Preconditioned, UniformTimes
from jensen.diffusion.analytic import AnalyticVariance, MeanSquaredErrors
from jensen.diffusion.model import DiffusionModel, Scoring
from jensen.diffusion.weighting import Simple, WeightedObjective
from jensen.errors import InputError
from jensen.inference.imputation import impute
from jensen.inference.impute_diffusion import Replacement, TwistedParticles
from jensen.inference.impute_mixture import ExactConditional
from jensen.inference.impute_vae import ImportanceResampling, MetropolisWithinGibbs
from jensen.inference.imputer import ExampleNoise
from jensen.mixture import GaussianMixture, mixture
from jensen.nets import ResidualMLP
from jensen.randomness import generator

CLUSTERS = three_clusters()
EXACT = mixture(CLUSTERS.weights, CLUSTERS.means, CLUSTERS.scales.square().diag_embed())
FIRST = torch.tensor([True, False])  # x_1 is observed, x_2 is not
ODD = torch.tensor([True, False, True, False, True])
PPCA = random_ppca()


def diffusion(denoiser, shape=(2,), variance=None, levels=None):
    scoring = Scoring(100, variance=variance or BetaVariance(), levels=levels)
    objective = WeightedObjective(Simple(), UniformTimes())
    return DiffusionModel(shape, denoiser, LinearLogSnr(10.0, -8.0), objective, scoring)


def clusters_model():
    return diffusion(ExactDenoiser(CLUSTERS)).double()


def p_value(u):
    """That u is uniform, by Kolmogorov and Smirnov."""
    return stats.kstest(u.flatten().numpy(), "uniform").pvalue


def uniform_if_right(draws, x):
    """u of draws (n, 5) of the linear VAE given its entries 1, 3 and 5, whitened: independent if they are right."""
    conditional = PPCA.joint.marginal().condition([0, 2, 4], x[:, ODD])
    centred = (draws[:, ~ODD] - conditional.mean).unsqueeze(-1)
    factor = conditional.cholesky.expand(len(x), 2, 2)
    return torch.special.ndtr(torch.linalg.solve_triangular(factor, centred, upper=False))


# ---------------------------------------------------------------------------------------------- against the exact


@pytest.mark.parametrize(
    "method", [ImportanceResampling(1000), MetropolisWithinGibbs(20, ImportanceResampling(1, prior_share=1.0))]
)
def test_a_linear_vae_draws_from_the_exact_conditional(method):
    x = PPCA.draw(500)
    found = impute(as_vae(PPCA), x, ODD, seed=3, method=method)
    assert p_value(uniform_if_right(found.draws[0], x)) > 0.001  # false alarms: 0.1 %


def test_chains_correct_an_encoder_that_is_wrong():
    x, vae = PPCA.draw(500), as_vae(PPCA)
    with torch.no_grad():
        vae.posterior.encoder.layers[0].bias[2:] -= 0.7  # half as wide as the posterior
    start = ImportanceResampling(1, prior_share=1.0)
    found = impute(vae, x, ODD, seed=3, method=MetropolisWithinGibbs(30, start))
    assert p_value(uniform_if_right(found.draws[0], x)) > 0.001  # false alarms: 0.1 %
    assert 0.3 < found.diagnostics["acceptance, independent"].mean() < 0.97


def test_the_test_sees_draws_from_the_prior():
    x = PPCA.draw(500)
    found = impute(as_vae(PPCA), x, ODD, seed=3, method=ImportanceResampling(1, prior_share=1.0))
    assert p_value(uniform_if_right(found.draws[0], x)) < 1e-6


def test_twisted_particles_draw_from_the_exact_conditional_and_one_particle_does_not():
    x = CLUSTERS.sample(2000, generator(5))  # so many that weights without p / r are found out: p = 7e-10
    conditional = EXACT.condition([0], x[:, :1])
    many, one = (
        impute(clusters_model(), x, FIRST, seed=3, method=TwistedParticles(particles, 50)).draws[0]
        for particles in (16, 1)
    )
    assert p_value(conditional.cdf(many[:, 1:])) > 0.001  # false alarms: 0.1 %
    assert p_value(conditional.cdf(one[:, 1:])) < 0.001


def test_on_independent_gaussian_data_all_particles_weigh_the_same():
    model = diffusion(ExactDenoiser(one_gaussian(0.0, 1.0, 3)), (3,), AnalyticVariance(MeanSquaredErrors())).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator(1))
    mask = torch.tensor([True, False, True])
    found = impute(model, x, mask, draws=2, method=TwistedParticles(8, 20))
    assert found.diagnostics["effective sample size, least"].min() > 7.9  # the last step alone is not Gaussian data's


def test_replacement_is_biased_and_resampling_helps():
    x = CLUSTERS.sample(600, generator(5))
    conditional = EXACT.condition([0], x[:, :1])

    def compared(resamplings):
        found = impute(clusters_model(), x, FIRST, seed=3, method=Replacement(25, resamplings)).draws[0]
        return stats.kstest(conditional.cdf(found[:, 1:])[:, 0].numpy(), "uniform")

    once, often = compared(1), compared(10)
    assert once.pvalue < 1e-6
    assert often.statistic < once.statistic - 0.02


def test_a_mixture_imputes_exactly_whatever_is_missing():
    model = GaussianMixture(EXACT)
    x = CLUSTERS.sample(1000, generator(5))
    mask = torch.rand(1000, 2, generator=generator(6)) < 0.5
    mask[~mask.any(1)] = FIRST
    found = impute(model, x, mask, ExactConditional(), seed=2).draws[0]
    for seen in (0, 1):
        rows = mask[:, seen] & ~mask[:, 1 - seen]
        conditional = EXACT.condition([seen], x[rows, seen : seen + 1])
        assert p_value(conditional.cdf(found[rows, 1 - seen : 2 - seen])) > 0.001  # false alarms: 0.1 % each
    assert torch.equal(found[mask.all(1)], x[mask.all(1)])


# ---------------------------------------------------------------------------------------------- what always holds

MODELS = {
    "importance": (as_vae(PPCA), ImportanceResampling(50)),
    "gibbs": (as_vae(PPCA), MetropolisWithinGibbs(3, ImportanceResampling(20))),
    "replacement": (diffusion(ExactDenoiser(one_gaussian(0.3, 0.7, 5)), (5,)).double(), Replacement(5, 2)),
    "particles": (diffusion(ExactDenoiser(one_gaussian(0.3, 0.7, 5)), (5,)).double(), TwistedParticles(4, 5)),
    "exact": (GaussianMixture(mixture(torch.ones(1), torch.zeros(1, 5), torch.eye(5)[None])), ExactConditional()),
}


@pytest.mark.parametrize("name", MODELS)
def test_draws_depend_on_seed_and_number_alone_and_leave_what_is_observed(name):
    model, method = MODELS[name]
    x = PPCA.draw(5)
    mask = torch.rand(5, 5, generator=generator(4)) < 0.5
    mask[:, 0] = True
    hidden = torch.where(mask, x, math.nan)
    found = impute(model, hidden, mask, draws=3, seed=7, method=method)
    assert found.draws.shape == (3, 5, 5)
    assert (found.draws == x)[:, mask].all()
    assert found.draws.isfinite().all()
    assert (found.draws[0] != found.draws[1])[~mask].all()
    part = impute(model, x[3:], mask[3:], draws=3, seed=7, index=torch.tensor([3, 4]), method=method)
    torch.testing.assert_close(part.draws, found.draws[:, 3:])
    for name_, values in found.diagnostics.items():
        torch.testing.assert_close(part.diagnostics[name_], values[3:], msg=name_)
    other = impute(model, x, mask, draws=3, seed=8, method=method)
    assert (other.draws != found.draws)[:, ~mask].all()


@pytest.mark.parametrize("method", [TwistedParticles(3, 4), Replacement(4, 2)])
@pytest.mark.parametrize("levels", [None, 16])
def test_images_of_a_real_network_in_float32(method, levels):
    model = diffusion(
        Denoiser(awake(ResidualMLP((1, 4, 4), 16, 1)).float(), Preconditioned()), (1, 4, 4), levels=levels
    )
    x = (torch.randint(16, (3, 1, 4, 4), generator=generator(1)) * 2 / 15 - 1).float()
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[:, 2:] = False
    found = impute(model, x, mask, draws=2, method=method).draws
    assert found.dtype == torch.float32
    assert torch.equal(found[:, :, :, :2], x[:, :, :2].expand(2, 3, 1, 2, 4))
    level = (found + 1) * 7.5
    assert (levels is None) == bool((level - level.round()).abs().max() > 1e-4)


@pytest.mark.parametrize("method", [ImportanceResampling(4000), MetropolisWithinGibbs(5, ImportanceResampling(4000))])
def test_an_example_of_which_nothing_is_observed_is_drawn_from_the_model(method):
    """Against the closed form N(b, C) of PPCA: 5 means and 25 second moments within 4.5 errors, once in 5,000 not.

    1,000 draws from 4,000 proposals have a variance of 1 / 1,000 + 1 / 4,000 of one draw's.
    """
    x = PPCA.draw(2)
    observed = torch.ones(2, 5, dtype=torch.bool)
    observed[1] = False
    draws = impute(as_vae(PPCA), x, observed, draws=1000, method=method, seed=3).draws
    assert torch.equal(draws[:, 0], x[:1].expand(1000, 5))
    exact = PPCA.joint.marginal()
    away = draws[:, 1].double() - exact.mean
    products = torch.einsum("ni,nj->nij", away, away)
    for values, expected in ((away, torch.zeros(5)), (products, exact.covariance)):
        error = values.std(0) * math.sqrt(1 / 1000 + 1 / 4000)
        assert ((values.mean(0) - expected).abs() < 4.5 * error).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mask": torch.ones(4, dtype=torch.bool)}, "got a mask of shape"),
        ({"mask": torch.ones(5)}, "expected bool of shape"),
        ({"x": torch.full((2, 5), math.nan).double()}, "example 0: an observed value is not finite"),
        ({"x": torch.zeros(2, 4).double()}, "expected prepared floats of shape"),
        ({"draws": 0}, "0 draws: expected at least 1"),
        ({"method": TwistedParticles()}, "expected a diffusion model"),
        ({"method": ExactConditional()}, "expected a Gaussian mixture"),
    ],
)
def test_what_cannot_be_imputed_is_refused_in_one_line(change, says):
    with pytest.raises(InputError, match=says) as caught:
        impute(**{"model": as_vae(PPCA), "x": PPCA.draw(2), "mask": ODD, "method": ImportanceResampling()} | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImportanceResampling(0),
        lambda: ImportanceResampling(5, prior_share=1.5),
        lambda: MetropolisWithinGibbs(0),
        lambda: Replacement(1),
        lambda: Replacement(5, 0),
        lambda: TwistedParticles(0),
        lambda: TwistedParticles(4, 1),
    ],
)
def test_impossible_methods_are_refused(make):
    with pytest.raises(InputError, match="expected at least"):
        make()
    with pytest.raises(InputError, match="expected a VAE"):
        ImportanceResampling()(clusters_model(), torch.zeros(1, 2), FIRST, ExampleNoise(0, [0]), 1)
