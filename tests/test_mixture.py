"""Mixtures against scipy, scikit-learn and brute force: integrals over grids, joint densities divided by marginals."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.gaussian import LinearGaussian, MultivariateGaussian
from jensen.mixture import GaussianMixture, Mixture, mixture
from jensen.model import Batch
from jensen.randomness import Noise

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def three_components(dimensions: int = 3) -> Mixture:
    source = torch.Generator().manual_seed(7)
    factors = torch.randn(3, dimensions, dimensions, dtype=torch.float64, generator=source)
    means = 2 * torch.randn(3, dimensions, dtype=torch.float64, generator=source)
    covariances = factors @ factors.mT + 0.3 * torch.eye(dimensions).double()
    return mixture(torch.tensor([0.5, 0.3, 0.2]), means, covariances)


def points(count: int, dimensions: int = 3) -> Tensor:
    return 2 * torch.randn(count, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------------------------- the distribution


def test_log_prob_is_scipys() -> None:
    q, x = three_components(), points(20)
    densities = [
        float(q.weights[k])
        * scipy.stats.multivariate_normal(q.components.mean[k].numpy(), q.components.covariance[k].numpy()).pdf(
            x.numpy()
        )
        for k in range(3)
    ]
    torch.testing.assert_close(q.log_prob(x), torch.from_numpy(np.log(sum(densities))), **EXACT)


@pytest.mark.parametrize("known", [[0], [2], [1, 2], [2, 0]])
def test_conditional_times_marginal_is_the_joint(known: list[int]) -> None:
    q, x = three_components(), points(20)
    rest = [i for i in range(3) if i not in known]
    product = q.condition(known, x[:, known]).log_prob(x[:, rest]) + q.marginal(known).log_prob(x[:, known])
    torch.testing.assert_close(product, q.log_prob(x), **EXACT)


def test_moments_and_cdf_are_those_of_the_density_on_a_grid() -> None:
    q = three_components().condition([0, 2], points(4)[:, [0, 2]])
    grid = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    density = q.log_prob(grid[:, None, None]).exp()  # (grid, batch)
    step = grid[1] - grid[0]
    mean = (density * grid[:, None]).sum(0) * step
    torch.testing.assert_close(q.mean[:, 0], mean, rtol=1e-8, atol=1e-8)
    variance = (density * (grid[:, None] - mean).square()).sum(0) * step
    torch.testing.assert_close(q.variance[:, 0], variance, rtol=1e-8, atol=1e-8)
    below = (density * (grid[:, None] < 0.5)).sum(0) * step
    torch.testing.assert_close(q.cdf(torch.full((4, 1), 0.5).double())[:, 0], below, rtol=0, atol=1e-3)


def test_quantile_inverts_cdf() -> None:
    q = three_components().condition([1], points(5)[:, [1]])
    u = torch.tensor([1e-6, 0.025, 0.5, 0.9, 1 - 1e-6], dtype=torch.float64)[:, None, None].expand(5, 5, 2)
    torch.testing.assert_close(q.cdf(q.quantile(u)), u, rtol=1e-9, atol=1e-12)


def test_draws_are_of_the_distribution_and_do_not_depend_on_the_batch() -> None:
    q = three_components().condition([1], points(3)[:, [1]])
    drawn = q.sample(20_000, seed=0, index=[5, 6, 7])
    # Each dimension's cdf at its draws is uniform, 6 Kolmogorov-Smirnov tests at 1e-4: false alarm below 6e-4
    for values in q.cdf(drawn).flatten(1).T:
        assert scipy.stats.kstest(values.numpy(), "uniform").pvalue > 1e-4
    # Covariance across dimensions too: 20,000 draws, 3 examples, six standard errors: false alarm below 1e-8
    products = (drawn - q.mean).prod(-1)
    within = (q.components.covariance[..., 0, 1] + (q.components.mean - q.mean.unsqueeze(1)).prod(-1)) * q.weights
    assert ((products.mean(0) - within.sum(-1)).abs() < 6 * products.std(0) / math.sqrt(20_000)).all()
    alone = Mixture(q.log_weights[1:2], MultivariateGaussian(q.components.mean[1:2], q.components.cholesky))
    torch.testing.assert_close(alone.sample(20_000, seed=0, index=[6])[:, 0], drawn[:, 1], rtol=0, atol=1e-12)


def test_one_component_is_the_gaussian_chapters_posterior() -> None:
    prior = MultivariateGaussian(torch.zeros(2).double(), torch.eye(2).double())
    noise = MultivariateGaussian(torch.zeros(1).double(), 0.5 * torch.eye(1).double())
    linear = LinearGaussian(prior, torch.tensor([[1.0, -2.0]]).double(), noise)
    joint = linear.joint()
    model = GaussianMixture(
        Mixture(torch.zeros(1).double(), MultivariateGaussian(joint.mean.unsqueeze(0), joint.cholesky.unsqueeze(0))),
        (3,),
    )
    x = torch.tensor([[math.nan, math.nan, 1.3]], dtype=torch.float64)
    found = model.condition(x, torch.tensor([False, False, True]))
    exact = linear.posterior(torch.tensor([[1.3]], dtype=torch.float64))
    torch.testing.assert_close(found.mean, exact.mean, **EXACT)
    torch.testing.assert_close(found.components.covariance[0], exact.covariance, **EXACT)


# ---------------------------------------------------------------------------------------------- the model


def with_labels() -> GaussianMixture:
    table = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]])
    return GaussianMixture(three_components(), label_probabilities=table)


def test_labels_are_predicted_by_bayes_rule() -> None:
    model, x = with_labels(), points(10)
    joint = torch.stack([model.log_prob(x, labels=torch.full((10,), label)) for label in range(3)], 1)
    prediction = model.predict(x)
    torch.testing.assert_close(prediction.log_probabilities, joint.log_softmax(1), **EXACT)
    torch.testing.assert_close(joint.logsumexp(1), model.log_prob(x), **EXACT)
    assert (prediction.standard_error == 0).all()
    assert prediction.effective_sample_size.isinf().all()


def test_targets_are_predicted_by_the_joint_over_the_marginal() -> None:
    model, both = GaussianMixture(three_components(), target_dims=1), points(10)
    x, y = both[:, :2], both[:, 2:]
    difference = model.log_prob(x, targets=y) - model.log_prob(x)
    torch.testing.assert_close(model.target_distribution(x).log_prob(y), difference, **EXACT)


def test_the_bound_is_log_p_and_has_no_error() -> None:
    model, x = with_labels(), points(4)
    bound = model.elbo(x)
    torch.testing.assert_close(bound.value, three_components().log_prob(x), **EXACT)
    assert (bound.standard_error == 0).all()
    loss = model.loss(Batch(x, torch.arange(4)), step=0, noise=Noise(torch.Generator()))
    torch.testing.assert_close(loss.value, -bound.value.mean(), **EXACT)


def test_samples_are_numbered_and_have_their_labels() -> None:
    model = with_labels()
    whole = model.sample(9, seed=3)
    torch.testing.assert_close(whole[4:], model.sample(5, seed=3, first=4), rtol=0, atol=1e-12)
    # Label 2 is of component 1 alone: its mean over 4,000 samples within six standard errors, false alarm below 1e-8
    samples = model.sample(4000, labels=torch.full((4000,), 2))
    error = samples.std(0) / math.sqrt(4000)
    assert ((samples.mean(0) - three_components().components.mean[1]).abs() < 6 * error).all()
    only = model.sample_mean(3, labels=torch.full((3,), 2))
    torch.testing.assert_close(only, three_components().components.mean[1].expand(3, 3), **EXACT)


def test_images_keep_their_shape() -> None:
    model = GaussianMixture(three_components(4), (1, 2, 2))
    x = model.sample(5)
    assert x.shape == (5, 1, 2, 2)
    assert model.reconstruct(x).shape == x.shape
    torch.testing.assert_close(model.encode(x).sum(1), torch.ones(5).double())
    observed = torch.tensor([[[True, False], [False, True]]])
    found = model.condition(x, observed)
    assert found.sample(7, seed=0, index=range(5)).shape == (7, 5, 2)
    nothing = model.condition(x, torch.zeros(1, 2, 2, dtype=torch.bool))
    torch.testing.assert_close(nothing.log_prob(x.flatten(1)), model.log_prob(x), **EXACT)


def test_fit_is_scikit_learns_for_every_class() -> None:
    from sklearn.datasets import load_iris
    from sklearn.mixture import GaussianMixture as ScikitMixture

    data, labels = load_iris(return_X_y=True)
    x = torch.from_numpy(data)
    fitted = GaussianMixture.fit(x, 3, seed=1)
    peer = ScikitMixture(3, random_state=1, max_iter=1000).fit(data)
    torch.testing.assert_close(fitted.log_prob(x), torch.from_numpy(peer.score_samples(data)), rtol=1e-6, atol=1e-6)
    by_class = GaussianMixture.fit(x, labels=torch.from_numpy(labels)).predict(x).probabilities
    # One Gaussian of maximum likelihood per class, plus EM's ridge; the classes are equally large
    classes = [data[labels == label] for label in range(3)]
    scaled = [
        scipy.stats.multivariate_normal(rows.mean(0), np.cov(rows.T, bias=True) + 1e-6 * np.eye(4)).pdf(data)
        for rows in classes
    ]
    exact = torch.from_numpy(np.array(scaled).T / np.sum(scaled, 0)[:, None])
    torch.testing.assert_close(by_class, exact, rtol=1e-5, atol=1e-6)


def test_a_fit_with_targets_of_linear_data_is_least_squares() -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, dtype=torch.float64, generator=source)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]).double() + 0.1 * torch.randn(200, 1, generator=source).double()
    model = GaussianMixture.fit(x, targets=y)
    design = torch.cat([torch.ones(200, 1).double(), x], 1)
    least_squares = design @ torch.linalg.lstsq(design, y).solution
    torch.testing.assert_close(model.target_distribution(x).mean, least_squares, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------------- mistakes


def test_mistakes_are_named() -> None:
    model = with_labels()
    with pytest.raises(InputError, match="add up to 1"):
        mixture(torch.tensor([0.5, 0.6]), torch.zeros(2, 1), torch.ones(2, 1, 1))
    with pytest.raises(InputError, match="rows of numbers"):
        GaussianMixture(three_components(), label_probabilities=torch.ones(3, 2))
    with pytest.raises(InputError, match="at least one False"):
        model.condition(points(2), torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match="at least one False"):
        model.condition(points(2), torch.tensor([True, False]))
    with pytest.raises(InputError, match="make it with label_probabilities"):
        GaussianMixture(three_components()).predict(points(2))
    with pytest.raises(InputError, match="expected \\(batch, 3\\)"):
        model.elbo(torch.zeros(2, 4))
    with pytest.raises(InputError, match="of class 1"):
        GaussianMixture.fit(points(5), labels=torch.tensor([0, 0, 0, 0, 1]))
