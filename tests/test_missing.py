"""Missing values in training data: likelihoods, bounds and gradients of the observed ones, reading, what is refused."""

import math

import numpy as np
import pytest
import torch
from data_files import read_all, refused, saved
from linear_vae import as_vae, learned_ppca, linear_vae, random_ppca

from jensen.data.check import check
from jensen.data.choose import standardise
from jensen.data.load import load_data
from jensen.data.moments import columns
from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.gaussian import Gaussian, MultivariateGaussian
from jensen.likelihood import Bernoulli, Categorical, DiscretisedGaussian, DiscretisedLogistic
from jensen.model import Batch
from jensen.randomness import Noise, generator
from jensen.recipe.build import build_model
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.recipe.vae.settings import VAERecipe
from jensen.vae import PartlyObserved, PerDatapointPosterior
from jensen.vae.missing import PartialObservation

WIDE = torch.randn(7, 3, 4, generator=generator(1), dtype=torch.float64)
GRID = (torch.randint(4, (3, 4), generator=generator(2)) * 2 / 3 - 1).double()
DISTRIBUTIONS = {
    "gaussian": (Gaussian(WIDE, torch.full((1,), 0.3).double(), 2), GRID),
    "bernoulli": (Bernoulli(WIDE, 2), (GRID > 0).double()),
    "discretised gaussian": (DiscretisedGaussian(WIDE, torch.full((1,), 0.3).double(), 4, 2), GRID),
    "discretised logistic": (DiscretisedLogistic(WIDE, torch.full((1,), 0.3).double(), 4, 2), GRID),
    "categorical": (Categorical(torch.randn(7, 4, 3, 4, generator=generator(3)).double(), 2), GRID),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_dimensions_add_up_and_missing_ones_count_nothing(name):
    whole, x = DISTRIBUTIONS[name]
    terms = whole.log_prob_by_dimension(x)
    assert terms.shape == (7, 3, 4)
    torch.testing.assert_close(terms.sum((1, 2)), whole.log_prob(x))
    missing = torch.rand(3, 4, generator=generator(4)) < 0.5
    part = PartialObservation(whole, 2)
    torch.testing.assert_close(part.log_prob(x.masked_fill(missing, math.nan)), terms[:, ~missing].sum(1))
    torch.testing.assert_close(part.log_prob(x), whole.log_prob(x))


def test_gradients_come_from_the_observed_alone():
    vae = as_vae(random_ppca()).partly_observed()
    assert isinstance(vae.likelihood, PartlyObserved)
    assert vae.partly_observed() is vae
    x = random_ppca().draw(4)
    x[:, 1] = math.nan
    vae.loss(Batch(x, torch.arange(4)), step=0, noise=Noise(generator(0))).value.backward()
    rows = vae.decoder.layers[0].weight.grad
    assert (rows[1] == 0).all()
    assert (rows[[0, 2, 3, 4]] != 0).all()
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters() if parameter.grad is not None)


def test_the_bound_with_missing_values_is_below_their_marginal_and_tight_for_the_right_q():
    ppca = random_ppca()
    x, vae = ppca.draw(6), as_vae(ppca).partly_observed()
    marginal = ppca.joint.marginal().marginal([0, 2, 4]).log_prob(x[:, [0, 2, 4]])
    x[:, [1, 3]] = math.nan
    assert (vae.elbo(x, draws=2000).value < marginal + 0.1).all()
    bound = vae.importance_weighted_bound(x, samples=5000)
    assert ((bound.value - marginal).abs() < 5 * bound.standard_error + 1e-3).all()  # 6 examples, beyond 1e-5


def log_likelihood(x, matrix, offset, sigma):
    """The mean of log N(x_o | b_o, W_o W_o^T + sigma² I) over the examples, by their pattern of observed entries."""
    total = torch.zeros((), dtype=torch.float64)
    for pattern in x.isnan().unique(dim=0):
        rows, seen = (x.isnan() == pattern).all(1), ~pattern
        covariance = matrix[seen] @ matrix[seen].T + sigma**2 * torch.eye(int(seen.sum()), dtype=torch.float64)
        marginal = MultivariateGaussian(offset[seen], torch.linalg.cholesky(covariance))
        total = total + marginal.log_prob(x[rows][:, seen]).sum()
    return total / len(x)


def maximum_likelihood(x, latent):
    """Of PPCA with missing values, by L-BFGS on the exact likelihood."""
    matrix, offset = torch.randn(x.shape[1], latent, generator=generator(0)).double(), torch.zeros(x.shape[1]).double()
    parameters = [matrix.requires_grad_(), offset.requires_grad_(), torch.zeros(()).double().requires_grad_()]
    search = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        loss = -log_likelihood(x, matrix, offset, parameters[2].exp())
        loss.backward()
        return loss

    search.step(closure)
    return -closure().item()


def trained(x, *, partly):
    """A linear VAE with one latent dimension, whose free q can be the posterior for any pattern, trained on x."""
    vae = linear_vae(x.shape[1], 1, PerDatapointPosterior(len(x), 1).double())
    vae = vae.partly_observed() if partly else vae
    steps, noise, batch = 1500, generator(1), Batch(x, torch.arange(len(x)))
    dense = [p for name, p in vae.named_parameters() if "table" not in name]
    optimisers = [torch.optim.Adam(dense, 0.02), torch.optim.SparseAdam([vae.posterior.table.weight], 0.02)]
    for step in range(steps):
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / steps))
            optimiser.zero_grad()
        vae.loss(batch, step=step, noise=Noise(noise)).value.backward()
        for optimiser in optimisers:
            optimiser.step()
    return vae


def test_the_bound_over_observed_entries_recovers_maximum_likelihood():
    ppca = random_ppca(dims=4, latent=1, sigma=0.5)
    x = ppca.draw(400)
    missing = torch.rand(x.shape, generator=generator(3)) < 0.3
    missing[:, 0] &= ~missing.all(1)
    x[missing] = math.nan
    best = maximum_likelihood(x, 1)
    vae = trained(x, partly=True)
    vae.likelihood = vae.likelihood.likelihood
    found = learned_ppca(vae)
    reached = log_likelihood(x, found.matrix, found.offset, found.sigma).item()
    assert best - 0.01 < reached < best + 1e-6  # nats per example
    naive = learned_ppca(trained(x.nan_to_num(), partly=False))
    assert log_likelihood(x, naive.matrix, naive.offset, naive.sigma).item() < best - 0.2


# ---------------------------------------------------------------------------------------------- reading


def with_holes(tmp_path, count=200):
    """A file of floats (count, 3), a fifth of them NaN, none in the last column."""
    source = np.random.default_rng(0)
    x = source.normal([3, 0, -5], [2, 1, 0.5], (count, 3)).astype(np.float32)
    x[:, :2][source.random((count, 2)) < 0.3] = np.nan
    return saved(tmp_path / "holes.npy", x=x), x


def test_nan_are_refused_unless_they_are_said_to_be_missing(tmp_path):
    path, x = with_holes(tmp_path)
    refused(path, "values are NaN, infinite or beyond float32")
    data = load_data(str(path), ReadOptions(missing=True))
    assert data.spec.missing == np.isnan(x).sum()
    assert (data.spec.minimum, data.spec.maximum) == (np.nanmin(x), np.nanmax(x))
    prepared = data.spec.preparation(data.train.x)
    assert torch.equal(prepared.isnan(), data.train.x.isnan())
    torch.testing.assert_close(prepared.nanmean(0), torch.zeros(3), atol=1e-5, rtol=0)
    report = check(str(path), ReadOptions(missing=True))
    assert report.good
    assert "of all values" in report.facts["missing"]


def test_moments_and_resolution_are_those_of_the_values_there_are():
    x = np.array([[1.0, 5.0], [np.nan, 5.0], [2.0, np.nan], [4.0, 5.0]], np.float32)
    made = standardise(columns(x), "float32", 2, float(np.finfo(np.float32).eps))
    assert made.shift == pytest.approx((7 / 3, 5.0))
    assert made.scale == pytest.approx((np.std([1, 2, 4]), 1.0))
    assert made.constant == (1,)
    assert made.resolution == pytest.approx(1 / np.std([1, 2, 4]))


def test_what_nobody_can_learn_from_is_refused(tmp_path):
    x = with_holes(tmp_path)[1]
    empty = x.copy()
    empty[17] = np.nan
    refused(saved(tmp_path / "row.npy", x=empty), "row 17 has only missing values", missing=True)
    infinite = x.copy()
    infinite[4, 2] = np.inf
    refused(saved(tmp_path / "infinite.npy", x=infinite), "1 of its 600 values are infinite", missing=True)
    column = x.copy()
    column[:, 0] = np.nan
    refused(saved(tmp_path / "column.npy", x=column), "feature 0: missing in all training examples", missing=True)
    refused(saved(tmp_path / "bytes.npy", x=np.ones((20, 3), np.uint8)), "--missing is for floats", missing=True)
    refused("digits", "--missing is for a single array", missing=True)
    with pytest.raises(InputError, match="does not accept missing values"):
        load_data(str(tmp_path / "holes.npy"), ReadOptions(missing=True), "threshold")
    assert read_all(tmp_path / "holes.npy", missing=True).values.shape == (200, 3)


def test_vaes_are_built_for_missing_values_and_diffusion_refuses_them(tmp_path):
    spec = load_data(str(with_holes(tmp_path)[0]), ReadOptions(missing=True)).spec
    assert isinstance(build_model(VAERecipe(), spec).likelihood, PartlyObserved)
    assert not isinstance(build_model(VAERecipe(), spec.model_copy(update={"missing": 0})).likelihood, PartlyObserved)
    with pytest.raises(InputError, match="values are missing, but a diffusion model needs complete data"):
        build_model(DiffusionRecipe(), spec)
