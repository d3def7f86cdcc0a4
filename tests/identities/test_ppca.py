"""Probabilistic PCA (section 4): the bound is exact where q is the posterior, and training finds the ML solution.

q is diagonal, the posterior has covariance sigma² (W^T W + sigma² I)^{-1}. The likelihood only sees W W^T, so it leaves
W free up to a rotation W R; the bound is tight exactly where the columns of W are orthogonal, so training finds those.
"""

import math

import pytest
import torch
from linear_vae import as_vae, learned_ppca, linear_vae, random_ppca
from scipy import stats
from scipy.linalg import subspace_angles

from jensen.gaussian import Gaussian
from jensen.model import Batch
from jensen.randomness import Noise, Stream, generator
from jensen.vae import DoublyReparameterisedObjective, ElboObjective, PerDatapointPosterior

# ---------------------------------------------------------------------------------------------- the bound


def test_the_closed_forms_are_scipys():
    ppca = random_ppca(orthogonal=False)
    x = ppca.draw(10)
    covariance = ppca.matrix @ ppca.matrix.mT + ppca.sigma**2 * torch.eye(5)
    expected = stats.multivariate_normal(ppca.offset.numpy(), covariance.numpy()).logpdf(x.numpy())
    torch.testing.assert_close(ppca.log_prob(x), torch.from_numpy(expected))
    precision = ppca.matrix.mT @ ppca.matrix + ppca.sigma**2 * torch.eye(2)  # M
    torch.testing.assert_close(ppca.posterior(x).mean, (x - ppca.offset) @ ppca.matrix @ precision.inverse())
    torch.testing.assert_close(ppca.posterior(x).covariance, ppca.sigma**2 * precision.inverse())


def test_with_the_exact_posterior_every_weight_is_the_likelihood():
    """log p(x, z) - log q(z|x) = log p(x) for every z: L_K has no error at all."""
    ppca = random_ppca()
    x = ppca.draw(10)
    bound = as_vae(ppca).importance_weighted_bound(x, samples=30)
    torch.testing.assert_close(bound.value, ppca.log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bound.elbo, ppca.log_prob(x), rtol=1e-12, atol=1e-12)
    assert bound.standard_error.max() < 1e-7
    torch.testing.assert_close(bound.effective_sample_size, torch.full((10,), 30.0).double())


def test_with_the_exact_posterior_the_elbo_is_the_likelihood():
    # (4.6) with the KL in closed form has Monte-Carlo error; 20 z-values within 4.5 sd: false-alarm probability 1.4e-4
    ppca = random_ppca()
    x = ppca.draw(20)
    elbo = as_vae(ppca).elbo(x, draws=4000)
    assert ((elbo.value - ppca.log_prob(x)).abs() < 4.5 * elbo.standard_error).all()
    assert elbo.standard_error.max() < 0.05


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_gap_of_any_other_q_is_its_kl_to_the_posterior(orthogonal):
    # 20 z-values within 4.5 sd: false-alarm probability 1.4e-4
    ppca = random_ppca(orthogonal=orthogonal)
    x = ppca.draw(20)
    source = torch.Generator().manual_seed(2)
    q = Gaussian(
        torch.randn(20, 2, dtype=torch.float64, generator=source),
        torch.rand(20, 2, dtype=torch.float64, generator=source) + 0.1,
    )
    elbo = as_vae(ppca, exact_encoder=False).elbo_of(q, x, draws=4000)
    gap = ppca.kl_to_posterior(q, x)
    assert gap.min() > 0.05
    assert ((elbo.value - (ppca.log_prob(x) - gap)).abs() < 4.5 * elbo.standard_error).all()


# ---------------------------------------------------------------------------------------------- L_K


def test_the_importance_weighted_bound_rises_to_the_likelihood():
    # One x, 2000 independent estimates of L_K for each K, a q that is twice too wide and off by half a posterior sd.
    # Both ends and 5 rises, each within 4.5 sd: false-alarm probability 5e-5
    ppca = random_ppca()
    x = ppca.draw(1)
    exact = ppca.factorised_posterior(x)
    wrong = Gaussian((exact.mean + 0.5 * exact.scale).expand(2000, 2), (2 * exact.scale).expand(2000, 2))
    vae, count = as_vae(ppca), 2000
    values = [
        vae.importance_weighted_bound_of(wrong, x.expand(count, -1), samples=draws, seed=draws).value
        for draws in (1, 2, 5, 20, 100, 500)
    ]
    means = torch.stack([value.mean() for value in values])
    errors = torch.stack([value.std() / math.sqrt(count) for value in values])
    assert means[0].item() == pytest.approx(
        (ppca.log_prob(x) - ppca.kl_to_posterior(wrong, x.expand(count, -1))[0]).item(), abs=4.5 * errors[0].item()
    )  # L_1 is the ELBO
    rises, errors_of_rises = means.diff(), (errors[1:].square() + errors[:-1].square()).sqrt()
    assert (rises > -4.5 * errors_of_rises).all()
    assert rises[0] > 0.1  # and the first one is no accident
    bias = values[-1].var() / 2  # of a logarithm, to second order
    assert abs(means[-1] + bias - ppca.log_prob(x)) < 4.5 * errors[-1] + bias


# ---------------------------------------------------------------------------------------------- training

EIGENVALUES = torch.tensor([4.0, 1.0, 0.125, 0.1, 0.075], dtype=torch.float64)
DIMS, LATENT, EXAMPLES = 5, 2, 500


def data_with_known_spectrum():
    """Examples around 1 whose sample covariance has `EIGENVALUES` exactly, and their principal axes in columns."""
    source = torch.Generator().manual_seed(3)
    white = torch.randn(EXAMPLES, DIMS, dtype=torch.float64, generator=source)
    white = torch.linalg.qr(white - white.mean(0)).Q * math.sqrt(EXAMPLES)  # sample covariance I
    axes = torch.linalg.qr(torch.randn(DIMS, DIMS, dtype=torch.float64, generator=source)).Q
    return (white * EIGENVALUES.sqrt()) @ axes.mT + 1, axes


def train(vae, x, steps=1000, learning_rate=0.1):
    """Full batch, Adam (SparseAdam for a table), the learning rate falling to zero along a half cosine."""
    sparse = [p for name, p in vae.named_parameters() if "table" in name]
    dense = [p for name, p in vae.named_parameters() if "table" not in name]
    optimisers = [torch.optim.Adam(dense, lr=learning_rate)]
    if sparse:
        optimisers.append(torch.optim.SparseAdam(sparse, lr=learning_rate))
    for step in range(steps):
        loss = vae.loss(Batch(x, torch.arange(len(x))), step=step, noise=Noise(generator(0, Stream.TRAINING, step)))
        vae.zero_grad()
        loss.value.backward()
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimiser.step()


@pytest.fixture(scope="module", params=["amortised", "per-datapoint"])
def trained(request):
    """A linear VAE, trained by each family of q.

    Per-datapoint parameters see one draw a step, which no other example averages: there the gradient of the same bound
    is used whose noise vanishes at the posterior (K = 1 of the doubly reparameterised one).
    """
    torch.manual_seed(0)
    if request.param == "amortised":
        vae = linear_vae(DIMS, LATENT, objective=ElboObjective())
    else:
        vae = linear_vae(DIMS, LATENT, PerDatapointPosterior(EXAMPLES, LATENT), DoublyReparameterisedObjective(1))
    train(vae, data_with_known_spectrum()[0])
    return vae


def test_training_recovers_the_maximum_likelihood_solution(trained):
    x, axes = data_with_known_spectrum()
    learned, noise = learned_ppca(trained), EIGENVALUES[LATENT:].mean()
    # sigma² is the mean of the discarded eigenvalues, span(W) the leading principal subspace (Tipping & Bishop 1999)
    assert learned.sigma**2 == pytest.approx(noise.item(), rel=0.02)
    assert subspace_angles(learned.matrix.numpy(), axes[:, :LATENT].numpy()).max() < 0.01
    # Of all W R it has found the one with orthogonal columns, of squared lengths eigenvalue - sigma²
    gram = learned.matrix.mT @ learned.matrix
    lengths = gram.diagonal().sort(descending=True).values
    torch.testing.assert_close(lengths, EIGENVALUES[:LATENT] - noise, rtol=0.03, atol=0)
    assert abs(gram[0, 1]) < 0.03 * lengths.prod().sqrt()
    # At a maximum errors count by their squares: the likelihood is the best there is, to 1e-3 nats
    log_determinant = EIGENVALUES[:LATENT].log().sum() + (DIMS - LATENT) * noise.log()
    best = -0.5 * (DIMS * math.log(2 * math.pi) + log_determinant + DIMS).item()
    assert -1e-9 < best - learned.log_prob(x).mean().item() < 1e-3


def test_after_training_the_bound_on_unseen_data_meets_the_likelihood(trained):
    learned = learned_ppca(trained)
    unseen = learned.draw(400)
    elbo = trained.elbo(unseen, draws=200)
    gap = (learned.log_prob(unseen) - elbo.value).mean().item()
    expected = learned.kl_to_posterior(trained.infer(unseen), unseen).mean().item()
    # The sampling error of the mean difference comes from the draws alone; 4.5 sd: false-alarm probability 7e-6
    assert abs(gap - expected) < 4.5 * elbo.standard_error.square().sum().sqrt().item() / len(unseen)
    assert expected < 2e-3
