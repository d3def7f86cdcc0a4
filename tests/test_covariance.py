"""The posterior with a full covariance: its density, its factors, and the exact posterior of any linear model."""

from dataclasses import replace

import pytest
import torch
from linear_vae import random_ppca

from jensen.gaussian import Gaussian
from jensen.likelihood import FixedScale, GaussianLikelihood
from jensen.model import Batch, Effort
from jensen.nets import MLP
from jensen.randomness import Noise, generator
from jensen.vae import (
    VAE,
    CovariancePosterior,
    DoublyReparameterisedObjective,
    ElboObjective,
    ImportanceWeightedObjective,
)
from jensen.vae.covariance import outputs_of

SKEW = torch.tensor([[1.0, 0.9], [0.0, 0.5]]).double()
PPCA = replace(random_ppca(), matrix=random_ppca().matrix @ SKEW)  # its posterior is far from diagonal


def linear_vae(objective=None) -> VAE:
    """The model that is PPCA, with a linear encoder of mean and factor."""
    torch.manual_seed(1)
    decoder, encoder = MLP((2,), (), (1, 5)).double(), MLP((5,), (), (outputs_of(2),)).double()
    with torch.no_grad():
        decoder.layers[0].weight.copy_(PPCA.matrix)
        decoder.layers[0].bias.copy_(PPCA.offset)
    likelihood = GaussianLikelihood((5,), FixedScale(PPCA.sigma)).double()
    return VAE(CovariancePosterior(encoder, 2), decoder, likelihood, objective)


def exact_vae() -> VAE:
    """Mean and factor are those of the exact posterior."""
    vae = linear_vae()
    exact = PPCA.posterior(torch.cat([torch.zeros(1, 5), torch.eye(5)]).double())
    factor, layer = exact.cholesky.reshape(-1, 2, 2)[0], vae.posterior.encoder.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:2] = (exact.mean[1:] - exact.mean[0]).T
        layer.bias.copy_(torch.cat([exact.mean[0], factor.diagonal().log(), factor[1, :1]]))
    return vae


def test_the_density_is_that_of_the_normal_law_in_every_way_of_computing_it() -> None:
    vae, x = linear_vae(), PPCA.draw(4)
    q, eps = vae.infer(x), torch.randn(3, 4, 2).double()
    draw = q.draw(eps)
    expected = torch.distributions.MultivariateNormal(q.mean, scale_tril=q.normal.cholesky)
    torch.testing.assert_close(draw.law.log_prob(draw.z), expected.log_prob(draw.z))
    torch.testing.assert_close(q.log_prob(draw.z), expected.log_prob(draw.z))
    one_by_one = q.visit(lambda d, law: law.moved(eps[..., d]))
    torch.testing.assert_close(one_by_one.z, draw.z)
    torch.testing.assert_close(one_by_one.law.mean, draw.law.mean)
    torch.testing.assert_close(q[1:3].moved(eps[:, 1:3]), draw.z[:, 1:3])
    within = Gaussian(torch.randn(4, 2).double(), 0.1 + torch.rand(4, 2).double())
    torch.testing.assert_close(q.refined(within).moved(eps), q.moved(within.moved(eps)))


def test_with_the_exact_posterior_every_bound_is_the_likelihood() -> None:
    vae, x = exact_vae(), PPCA.draw(6)
    assert abs(PPCA.posterior(x).cholesky[..., 1, 0]).min() > 0.01  # there is a correlation to represent
    bound = vae.importance_weighted_bound(x, samples=5)
    torch.testing.assert_close(bound.value, PPCA.log_prob(x))
    effort = Effort(draws=400, samples=5, temperatures=4, chains=4, temperatures_from_q=3)
    *_, from_q = (one.estimate(x, 0, torch.arange(6)) for one in vae.estimators(effort))
    torch.testing.assert_close(from_q.value, PPCA.log_prob(x))  # the path starts at its end
    elbo = vae.elbo(x, draws=400)
    # 4.5 errors of the mean of six: 7e-6
    assert abs((elbo.value - PPCA.log_prob(x)).mean()) < 4.5 * elbo.standard_error.square().sum().sqrt() / 6


@pytest.mark.parametrize(
    "objective", [ElboObjective(), ImportanceWeightedObjective(2), DoublyReparameterisedObjective(2)]
)
def test_training_q_closes_the_gap_that_a_diagonal_q_leaves(objective) -> None:
    vae, x = exact_vae(), PPCA.draw(200)
    layer = vae.posterior.encoder.layers[0]
    with torch.no_grad():  # the best diagonal q: the scales of its factors are those given all other dimensions
        precision = PPCA.posterior(x).covariance.reshape(-1, 2, 2)[0].inverse()
        layer.bias[2:4], layer.bias[4] = -0.5 * precision.diagonal().log(), 0
        best_diagonal = vae.infer(x).normal.kl(PPCA.posterior(x)).mean()
    optimiser = torch.optim.Adam(vae.posterior.parameters(), 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 150)
    for step in range(150):
        optimiser.zero_grad()
        objective(vae, Batch(x, torch.arange(200)), step, Noise(generator(step))).value.backward()
        optimiser.step()
        schedule.step()
    assert vae.infer(x).normal.kl(PPCA.posterior(x)).mean() < 0.1 * best_diagonal
    assert best_diagonal > 0.05


def test_at_the_exact_posterior_the_doubly_reparameterised_gradient_of_q_is_zero() -> None:
    vae, x = exact_vae(), PPCA.draw(5)
    loss = DoublyReparameterisedObjective(3)(vae, Batch(x, torch.arange(5)), 0, Noise(generator(0))).value
    assert max(g.abs().max() for g in torch.autograd.grad(loss, list(vae.posterior.parameters()))) < 1e-10


def test_optimising_q_reaches_the_exact_posterior() -> None:
    vae, x = linear_vae(), PPCA.draw(5)
    found = vae.optimise(x, vae.infer(x), steps=150)
    # Within the noise of the encoder's factor only scales and means change, so the gap falls but need not vanish
    before, after = (q.normal.kl(PPCA.posterior(x)).mean() for q in (vae.infer(x), found))
    assert after < 0.2 * before
