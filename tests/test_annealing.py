"""Annealed importance sampling against PPCA, where log p(x) and the posterior are formulas: value, bias, both sides."""

import math

import pytest
import torch
from linear_vae import as_vae, random_ppca

from jensen.errors import InputError
from jensen.evaluation.engine import counted
from jensen.gaussian import Gaussian
from jensen.likelihood import BernoulliLikelihood
from jensen.model import Effort
from jensen.nets import MLP
from jensen.vae import VAE, AmortisedPosterior
from jensen.vae.annealing import (
    WARM_UP,
    AbstractTemperatures,
    Annealing,
    AnnealingNoise,
    FromPosterior,
    FromPrior,
    LinearTemperatures,
    Path,
    SigmoidalTemperatures,
    annealed_estimate,
    reverse_estimate,
)

SHORT = Annealing(temperatures=30, chains=8, leapfrog=4, pilots=2)


@pytest.fixture(scope="module")
def ppca():
    return random_ppca(5, 2)


@pytest.fixture(scope="module")
def vae(ppca):
    """Its encoder says nothing of the posterior: the estimate has to do without."""
    return as_vae(ppca, exact_encoder=False)


def broad(vae, x):
    """A q that is wrong everywhere but as broad as a posterior."""
    mean = torch.zeros(len(x), vae.latent_dims).double()
    return Gaussian(mean, torch.full_like(mean, 0.5))


# ---------------------------------------------------------------------------------------------- the path


@pytest.mark.parametrize("schedule", [LinearTemperatures(), SigmoidalTemperatures()])
def test_temperatures_rise_from_0_to_1(schedule):
    betas = schedule(50)
    assert len(betas) == 51
    assert betas[0] == 0
    assert betas[-1] == 1
    assert (betas.diff() > 0).all()


def test_a_transition_leaves_its_density_invariant(ppca, vae):
    # f_beta of PPCA is Gaussian: precision I + beta W^T W / sigma², so that exact draws can be made. After one
    # transition mean and covariance are still its own. 2 means and 3 moments of 40,000 draws, limit 4 standard errors:
    # false alarm 5 * 6e-5 = 3e-4.
    x, beta, draws = ppca.draw(1), 0.4, 40_000
    precision = torch.eye(2).double() + beta * ppca.matrix.mT @ ppca.matrix / ppca.sigma**2
    covariance = torch.linalg.inv(precision)
    mean = beta * covariance @ ppca.matrix.mT @ (x[0] - ppca.offset) / ppca.sigma**2
    z = mean + torch.randn(draws, 1, 2).double() @ torch.linalg.cholesky(covariance).mT
    path = Path(lambda z: vae.log_joint(x, z), FromPrior()(broad(vae, x)), broad(vae, x), leapfrog=3)
    moved, probability = path.move(path.at(z), beta, torch.tensor([1.0]).double(), AnnealingNoise(0, [0]), (0, 0))
    assert 0.3 < probability.mean() < 0.97  # so that the refusals count
    centred = (moved.z - mean).squeeze(1)
    products = torch.stack([centred[:, 0] ** 2, centred[:, 1] ** 2, centred[:, 0] * centred[:, 1]], 1)
    seen = torch.cat([centred, products], 1)
    expected = torch.cat([torch.zeros(2).double(), covariance[[0, 1, 0], [0, 1, 1]]])
    assert ((seen.mean(0) - expected).abs() < 4 * seen.std(0) / math.sqrt(draws)).all()


# ---------------------------------------------------------------------------------------------- the estimate


@pytest.mark.parametrize("start", [FromPrior(), FromPosterior()])
def test_the_mean_weight_is_p_of_x_with_three_temperatures_only(ppca, vae, start):
    # E w = p(x) however few the temperatures. w / p(x) of 40 examples x 500 chains, each example's mean against its own
    # standard error, combined over the examples; limit 4: false alarm 6e-5, more for the skewness of the weights.
    x = ppca.draw(40)
    annealing = Annealing(temperatures=3, chains=500, leapfrog=3, pilots=4, start=start)
    q = ppca.factorised_posterior(x)
    wide = Gaussian(q.mean + 0.3, 1.3 * q.scale)  # broader than the posterior, so that weights have a variance
    found = annealed_estimate(lambda z: vae.log_joint(x, z), wide, annealing, seed=0, numbers=range(40))
    ratio = (found.value - ppca.log_prob(x)).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(40)
    assert ratio.std() / math.sqrt(40) < 0.1  # sharp enough to fail


def test_the_value_is_log_p_of_x_within_its_standard_error(ppca, vae):
    # z-scores of 40 examples: |mean| < 4 / sqrt(40) and root mean square below 1.6; false alarm below 1e-3.
    x = ppca.draw(40)
    found = vae.annealed_bound(x, Annealing(temperatures=100, chains=32, leapfrog=5), seed=0)
    z = (found.value - ppca.log_prob(x)) / found.standard_error
    assert abs(z.mean()) < 4 / math.sqrt(40)
    assert z.square().mean().sqrt() < 1.6
    assert found.standard_error.median() < 0.3


def test_forwards_and_backwards_bracket_log_p_of_x_and_meet(ppca, vae):
    # lower - log p(x) and upper - log p(x) over 60 examples, on the wrong side by at most 4 standard errors: 6e-5 each.
    x = ppca.draw(60)
    exact = ppca.posterior(x).rsample(torch.Generator().manual_seed(3))
    gaps = []
    for temperatures in (4, 64):
        annealing = Annealing(temperatures=temperatures, chains=4, leapfrog=4)

        def log_joint(z):
            return vae.log_joint(x, z)

        below = annealed_estimate(log_joint, broad(vae, x), annealing, seed=0, numbers=range(60)).value
        above = reverse_estimate(log_joint, broad(vae, x), exact, annealing, seed=0, numbers=range(60)).value
        low, high = below - ppca.log_prob(x), above - ppca.log_prob(x)
        assert low.mean() < 4 * low.std() / math.sqrt(60)
        assert high.mean() > -4 * high.std() / math.sqrt(60)
        gaps.append(((above - below).mean(), (above - below).std() / math.sqrt(60)))
    assert gaps[0][0] > 4 * gaps[0][1]  # few temperatures: far apart
    assert gaps[1][0] < gaps[0][0] / 4


class CubicTemperatures(AbstractTemperatures):
    """Not the same from either end, so that a path walked backwards in the wrong order shows."""

    def __call__(self, count):
        return torch.linspace(0, 1, count + 1, dtype=torch.float64) ** 1.5


def test_backwards_weights_have_the_mean_1_over_p_of_x(ppca, vae):
    # E 1/w = 1 / p(x) over the exact posterior, by 400 exact draws of one z each; false alarm 6e-5 at 4 errors.
    x = ppca.draw(1).expand(400, -1)
    exact = ppca.posterior(x).rsample(torch.Generator().manual_seed(4))
    annealing = Annealing(temperatures=24, chains=1, leapfrog=3, pilots=2, schedule=CubicTemperatures())
    q = broad(vae, x)
    found = reverse_estimate(lambda z: vae.log_joint(x, z), q, exact, annealing, seed=0, numbers=range(400))
    ratio = (ppca.log_prob(x) - found.value).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 20
    assert ratio.std() / 20 < 0.2


# ---------------------------------------------------------------------------------------------- what it depends on


def test_an_example_is_the_same_alone_and_in_a_batch(ppca, vae):
    x = ppca.draw(5)
    together = vae.annealed_bound(x, SHORT, seed=2)
    alone = vae.annealed_bound(x[3:4], SHORT, seed=2, index=torch.tensor([3]))
    torch.testing.assert_close(together.value[3:4], alone.value, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(together.value, vae.annealed_bound(x, SHORT, seed=3).value)


def test_an_example_is_the_same_in_any_group(ppca, vae, monkeypatch):
    x = ppca.draw(5)
    together = vae.annealed_bound(x, SHORT)
    monkeypatch.setattr("jensen.vae.annealed.ELEMENTS", {"cpu": 5 * 8 * 2})  # two examples at a time
    torch.testing.assert_close(together.value, vae.annealed_bound(x, SHORT).value, rtol=1e-9, atol=1e-9)


def test_steps_are_adapted_until_about_two_thirds_are_accepted(ppca, vae):
    found = vae.annealed_bound(ppca.draw(10), Annealing(temperatures=150, chains=8, leapfrog=4))
    assert ((found.acceptance > 0.5) & (found.acceptance < 0.8)).all()


def test_evaluations_are_those_a_hook_counts(ppca, vae):
    x = ppca.draw(3)
    with counted([vae.decoder]) as count:
        vae.annealed_bound(x, SHORT)
    assert count.rows == 3 * SHORT.evaluations
    assert count.gradients == count.rows
    assert SHORT.evaluations == 2 * (1 + 4 * (WARM_UP + 29)) + 8 * (1 + 4 * 29)


# ---------------------------------------------------------------------------------------------- other likelihoods


def test_any_likelihood_a_sum_over_a_grid(ppca):
    # One latent dimension, four binary pixels: p(x) is a sum. 8 examples within 4 standard errors of 64 chains: 5e-4.
    encoder, decoder = MLP((4,), (5,), (2,)), MLP((1,), (5,), (1, 4))
    vae = VAE(AmortisedPosterior(encoder, 1), decoder, BernoulliLikelihood((4,))).double()
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter.mul_(3)
    x = (torch.rand(8, 4) > 0.5).double()
    grid = torch.linspace(-9, 9, 4001).double()
    with torch.no_grad():
        log_joint = vae.log_joint(x, grid.reshape(-1, 1, 1).expand(-1, 8, 1))
    exact = log_joint.logsumexp(0) + math.log(18 / 4000)
    found = vae.annealed_bound(x, Annealing(temperatures=40, chains=64, leapfrog=4))
    assert ((found.value - exact).abs() < 4 * found.standard_error).all()


def test_the_bracket_of_a_model_holds_its_own_log_p(ppca):
    vae = as_vae(ppca)
    found = vae.bracket(30, Effort(temperatures=40, chains=4), seed=1)
    exact = ppca.log_prob(vae.sample(30, seed=1))
    for side, sign in ((found.lower, 1), (found.upper, -1)):
        excess = sign * (side.value - exact)
        assert excess.mean() < 4 * excess.std() / math.sqrt(30)  # 6e-5 each
        assert excess.abs().mean() < 1


def test_numbers_that_make_no_path_are_refused():
    with pytest.raises(InputError, match="chains 0"):
        Annealing(chains=0)
