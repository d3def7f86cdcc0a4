"""Gaussian densities against torch.distributions and dense linear algebra, in float64; shapes, gradients, refusals."""

import math

import pytest
import torch
from torch import Tensor, distributions
from torch.autograd import gradcheck

from jensen.errors import InputError
from jensen.gaussian import (
    Gaussian,
    LinearGaussian,
    MultivariateGaussian,
    normal_kl,
    normal_log_density,
    standard_normal_kl,
)

SHAPES = [  # mean, scale, event_dims
    ((), (), 0),
    ((5,), (5,), 1),
    ((4, 3), (4, 3), 0),
    ((4, 5), (5,), 1),
    ((4, 5), (4, 1), 1),
    ((4, 5), (), 2),
    ((5,), (4, 1), 1),
    ((4, 1), (1, 5), 1),
    ((4, 3, 2, 2), (4, 1, 1, 1), 3),
    ((3, 2, 2), (4, 1, 1, 1), 3),
]
BATCHES = [((), ()), ((4,), ()), ((), (4,)), ((4,), (4,)), ((1,), (4,)), ((3, 4), (4,)), ((4,), (3, 1))]  # mean, factor


@pytest.fixture
def source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(source: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=source, dtype=torch.float64)


def diagonal(source, mean_shape, scale_shape, event_dims) -> tuple[Gaussian, distributions.Independent]:
    ours = Gaussian(normal(source, *mean_shape), normal(source, *scale_shape).exp(), event_dims)
    mean, scale = torch.broadcast_tensors(ours.mean, ours.scale)
    return ours, distributions.Independent(distributions.Normal(mean, scale), event_dims)


def factor(source: torch.Generator, *shape: int) -> Tensor:
    raw = normal(source, *shape, shape[-1])
    return raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())


def full(source, mean_batch, factor_batch, d=3) -> tuple[MultivariateGaussian, distributions.MultivariateNormal]:
    ours = MultivariateGaussian(normal(source, *mean_batch, d), factor(source, *factor_batch, d))
    return ours, distributions.MultivariateNormal(ours.mean, scale_tril=ours.cholesky)


# Diagonal


@pytest.mark.parametrize(("mean", "scale", "event_dims"), SHAPES)
def test_diagonal_agrees_with_torch_in_every_broadcast(source, mean, scale, event_dims):
    ours, theirs = diagonal(source, mean, scale, event_dims)
    other, their_other = diagonal(source, mean, scale, event_dims)
    x = normal(source, 7, *ours.shape)
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.log_prob(x[0]), theirs.log_prob(x[0]))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.kl(other), distributions.kl_divergence(theirs, their_other))
    standard = distributions.Normal(torch.zeros(ours.shape, dtype=torch.float64), 1.0)
    expected = distributions.kl_divergence(theirs, distributions.Independent(standard, event_dims))
    torch.testing.assert_close(ours.kl_to_standard(), expected)
    torch.testing.assert_close(
        ours.kl(Gaussian.standard(ours.shape, event_dims, dtype=torch.float64)), ours.kl_to_standard()
    )


def test_kl_counts_every_dimension_that_only_the_other_has(source):
    one_number = Gaussian(normal(source, 4, 1), normal(source, 1).exp())
    other, their_other = diagonal(source, (4, 5), (4, 1), 1)
    mean, scale = torch.broadcast_tensors(one_number.mean, one_number.scale)
    theirs = distributions.Independent(distributions.Normal(mean.expand(4, 5), scale.expand(4, 5)), 1)
    torch.testing.assert_close(one_number.kl(other), distributions.kl_divergence(theirs, their_other))


def test_log_prob_broadcasts_a_small_x_too(source):
    ours, theirs = diagonal(source, (4, 5), (5,), 1)
    torch.testing.assert_close(ours.log_prob(torch.zeros(1)), theirs.log_prob(torch.zeros(4, 5)))


def test_free_functions_are_the_terms_of_the_sums(source):
    ours, other = diagonal(source, (4, 5), (4, 1), 1)[0], diagonal(source, (4, 5), (5,), 1)[0]
    x = normal(source, 4, 5)
    torch.testing.assert_close(normal_log_density(x, ours.mean, ours.scale).sum(-1), ours.log_prob(x))
    torch.testing.assert_close(normal_kl(ours.mean, ours.scale, other.mean, other.scale).sum(-1), ours.kl(other))
    torch.testing.assert_close(standard_normal_kl(ours.mean, ours.scale).sum(-1), ours.kl_to_standard())


@pytest.mark.parametrize("excess", [1e-3, -1e-3, 1e-4])
def test_kl_in_float32_keeps_its_digits_where_it_almost_vanishes(excess):
    scale = torch.tensor(1.0 + excess)
    d = float(scale) - 1
    series = d**2 - d**3 / 3 + d**4 / 4  # (4.6) at mean = 0, scale = 1 + d: ½ (2d + d²) - log(1 + d)
    for kl in (
        standard_normal_kl(torch.tensor(0.0), scale),
        normal_kl(torch.tensor(7.0), 16 * scale, torch.tensor(7.0), torch.tensor(16.0)),
    ):
        assert float(kl) == pytest.approx(series, rel=2 * torch.finfo(torch.float32).eps / abs(excess))


def test_kl_in_float32_survives_tiny_and_huge_scales():
    scale = torch.tensor([1e-30, 1e-12, 1e12], dtype=torch.float64)
    expected = 0.5 * (scale.square() - 1) - scale.log()
    torch.testing.assert_close(
        standard_normal_kl(torch.tensor(0.0), scale.float()).double(), expected, rtol=1e-6, atol=0
    )


def test_diagonal_draws_are_mean_plus_scale_times_noise(source):
    ours, _ = diagonal(source, (3, 2, 2), (4, 1, 1, 1), 3)
    noise = torch.randn(6, 4, 3, 2, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    draws = ours.rsample(torch.Generator().manual_seed(9), (6,))
    torch.testing.assert_close(draws, ours.mean + ours.scale * noise)  # (4.7)
    assert ours.rsample(source).shape == (4, 3, 2, 2)


def test_quantile_inverts_the_distribution_function(source):
    ours, theirs = diagonal(source, (4, 5), (5,), 1)
    u = torch.rand(4, 5, generator=source, dtype=torch.float64)
    torch.testing.assert_close(theirs.base_dist.cdf(ours.quantile(u)), u)


def test_diagonal_gradients(source):
    mean, scale, x = normal(source, 2, 3), normal(source, 2, 1).exp(), normal(source, 2, 3)
    other_mean, other_scale = normal(source, 3), normal(source, 3).exp()
    inputs = [tensor.requires_grad_() for tensor in (mean, scale, x, other_mean, other_scale)]

    def everything(mean, scale, x, other_mean, other_scale):
        ours, other = Gaussian(mean, scale), Gaussian(other_mean, other_scale)
        draws = ours.rsample(torch.Generator().manual_seed(0), (2,))
        return ours.log_prob(x), ours.entropy(), ours.kl(other), ours.kl_to_standard(), draws

    assert gradcheck(everything, inputs)


def test_detach_stops_gradients_and_nothing_else(source):
    ours, _ = diagonal(source, (4, 5), (5,), 1)
    live = Gaussian(ours.mean.requires_grad_(), ours.scale)
    x = normal(source, 4, 5)
    assert live.log_prob(x).requires_grad
    assert not live.detach().log_prob(x).requires_grad
    torch.testing.assert_close(live.detach().log_prob(x), live.log_prob(x))


def test_no_method_looks_at_values():
    """On the meta device there are none: a check of values, which would make a GPU wait, raises here."""
    ours = Gaussian(torch.zeros(4, 3, 2, 2, device="meta"), torch.ones(4, 1, 1, 1, device="meta"), 3)
    x = ours.rsample(None, (5,))
    assert [ours.log_prob(x).shape, ours.entropy().shape] == [(5, 4), (4,)]
    assert [ours.kl(ours).shape, ours.kl_to_standard().shape] == [(4,), (4,)]


@pytest.mark.parametrize(
    ("mean", "scale", "event_dims", "message"),
    [
        ((3,), (3,), 2, "event_dims = 2 for a mean of shape .3,."),
        ((3,), (3,), -1, "event_dims = -1"),
        ((3, 2), (3,), 1, "mean of shape .3, 2. and a scale of shape .3,."),
    ],
)
def test_diagonal_refuses_shapes_that_cannot_be(mean, scale, event_dims, message):
    with pytest.raises(InputError, match=message):
        Gaussian(torch.zeros(mean), torch.ones(scale), event_dims)


def test_kl_refuses_events_of_different_rank():
    with pytest.raises(InputError, match="event_dims 1 and 2"):
        Gaussian.standard((2, 2), 1).kl(Gaussian.standard((2, 2), 2))


# Full covariance


@pytest.mark.parametrize(("mean", "cholesky"), BATCHES)
def test_full_agrees_with_torch_in_every_broadcast(source, mean, cholesky):
    ours, theirs = full(source, mean, cholesky)
    other, their_other = full(source, (), ())
    x = normal(source, 5, *ours.shape)
    assert ours.shape == theirs.batch_shape + theirs.event_shape
    torch.testing.assert_close(ours.covariance.expand(theirs.covariance_matrix.shape), theirs.covariance_matrix)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.log_prob(x[0, ..., :1]), theirs.log_prob(x[0, ..., :1].expand(ours.shape)))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.kl(other), distributions.kl_divergence(theirs, their_other))
    torch.testing.assert_close(other.kl(ours), distributions.kl_divergence(their_other, theirs))


@pytest.mark.parametrize(("mean", "cholesky"), BATCHES)
def test_full_draws_are_mean_plus_factor_times_noise(source, mean, cholesky):
    ours, _ = full(source, mean, cholesky)
    noise = torch.randn(6, 2, *ours.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    draws = ours.rsample(torch.Generator().manual_seed(9), (6, 2))
    torch.testing.assert_close(draws, ours.mean + torch.einsum("...ij,...j->...i", ours.cholesky, noise))  # (1.8)


def test_full_without_correlation_is_diagonal(source):
    ours, _ = diagonal(source, (4, 3), (4, 3), 1)
    other, _ = diagonal(source, (4, 3), (4, 3), 1)
    as_full, other_as_full = (MultivariateGaussian(q.mean, torch.diag_embed(q.scale)) for q in (ours, other))
    x = normal(source, 4, 3)
    torch.testing.assert_close(as_full.log_prob(x), ours.log_prob(x))  # (1.7)
    torch.testing.assert_close(as_full.kl(other_as_full), ours.kl(other))
    torch.testing.assert_close(as_full.entropy(), ours.entropy())


def test_log_density_agrees_with_the_formula_by_inverse_and_determinant(source):
    ours, _ = full(source, (), (), d=4)
    x, covariance = normal(source, 4), ours.covariance
    difference = x - ours.mean
    expected = -0.5 * difference @ torch.linalg.inv(covariance) @ difference - 0.5 * torch.logdet(
        2 * math.pi * covariance
    )
    torch.testing.assert_close(ours.log_prob(x), expected)  # (1.6)


def test_full_kl_keeps_its_digits_between_near_neighbours(source):
    ours, _ = full(source, (), (), d=4)
    direction = normal(source, 4, 4).tril()
    nearby = [MultivariateGaussian(ours.mean, ours.cholesky + step * direction) for step in (1e-4, 1e-6)]
    kl = [float(ours.kl(other)) for other in nearby]
    assert kl[0] / kl[1] == pytest.approx(1e4, rel=1e-2)  # quadratic in the step, down to 1e-12


def test_full_gradients(source):
    raw, mean = factor(source, 3).requires_grad_(), normal(source, 2, 3).requires_grad_()
    x, other = normal(source, 2, 3).requires_grad_(), full(source, (), ())[0]

    def everything(raw, mean, x):
        ours = MultivariateGaussian(mean, raw.tril())
        draws = ours.rsample(torch.Generator().manual_seed(0), (2,))
        marginal = ours.marginal([2, 0]).log_prob(x[..., :2])
        conditional = ours.condition([1], x[..., :1]).log_prob(x[..., 1:])
        return ours.log_prob(x), ours.entropy(), ours.kl(other), other.kl(ours), draws, marginal, conditional

    assert gradcheck(everything, [raw, mean, x])


def test_from_covariance_keeps_the_covariance_and_its_gradient(source):
    covariance = full(source, (2,), (2,))[0].covariance
    ours = MultivariateGaussian.from_covariance(normal(source, 3), covariance.requires_grad_())
    torch.testing.assert_close(ours.covariance, covariance)
    (gradient,) = torch.autograd.grad(ours.entropy().sum(), covariance)
    torch.testing.assert_close(gradient, 0.5 * torch.linalg.inv(covariance))  # d/dSigma ½ log det Sigma


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (torch.ones(2, 3), "mean of shape .2,. and a matrix of shape .2, 3."),
        (torch.eye(3), "matrix of shape .3, 3."),
        (torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), "not finite"),
        (torch.tensor([[1.0, 0.5], [0.4, 1.0]]), "not symmetric, mirrored entries differ by up to 0.1"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
        (torch.stack([torch.eye(2), torch.ones(2, 2)]), "not positive definite"),
        (-torch.eye(2), "not positive definite"),
    ],
)
def test_from_covariance_says_what_is_wrong(covariance, message):
    with pytest.raises(InputError, match=message):
        MultivariateGaussian.from_covariance(torch.zeros(2), covariance)


def test_full_refuses_batches_that_do_not_broadcast():
    with pytest.raises(InputError, match=r"mean batch of shape .3,. and a matrix batch of shape .4,."):
        MultivariateGaussian(torch.zeros(3, 2), torch.eye(2).expand(4, 2, 2))


# Marginals, conditionals, the linear model


@pytest.mark.parametrize("batch", [(), (3,)])
def test_marginal_and_conditional_agree_with_dense_algebra(source, batch):
    ours, _ = full(source, batch, batch, d=5)
    known, rest, values = [4, 1], [0, 2, 3], normal(source, *batch, 2)
    covariance = ours.covariance
    across = covariance[..., rest, :][..., known]
    gain = across @ torch.linalg.inv(covariance[..., known, :][..., known])
    mean = ours.mean[..., rest] + (gain @ (values - ours.mean[..., known]).unsqueeze(-1)).squeeze(-1)
    marginal, conditional = ours.marginal(known), ours.condition(known, values)
    torch.testing.assert_close(marginal.mean, ours.mean[..., known])
    torch.testing.assert_close(marginal.covariance, covariance[..., known, :][..., known])
    torch.testing.assert_close(conditional.mean, mean)
    torch.testing.assert_close(conditional.covariance, covariance[..., rest, :][..., rest] - gain @ across.mT)
    for matrix in (marginal.cholesky, conditional.cholesky):
        assert bool((matrix.diagonal(dim1=-2, dim2=-1) > 0).all())
        assert bool((matrix.triu(1) == 0).all())


def test_conditioning_on_nothing_or_everything(source):
    ours, _ = full(source, (), ())
    torch.testing.assert_close(ours.condition([], torch.zeros(0)).covariance, ours.covariance)
    assert ours.condition([2, 0, 1], normal(source, 7, 3)).log_prob(torch.zeros(7, 0)).tolist() == [0.0] * 7


@pytest.mark.parametrize("indices", [[0, 0], [3], [-1]])
def test_indices_must_be_coordinates(source, indices):
    ours, _ = full(source, (), ())
    with pytest.raises(InputError, match="give different integers from 0 to 2"):
        ours.marginal(indices)


def test_values_must_fit_their_indices(source):
    with pytest.raises(InputError, match=r"2 indices and values of shape .7, 3."):
        full(source, (), ())[0].condition([0, 1], torch.zeros(7, 3))


@pytest.fixture
def linear(source) -> LinearGaussian:
    return LinearGaussian(full(source, (), (), d=2)[0], normal(source, 4, 2), full(source, (), (), d=4)[0])


def test_linear_model_agrees_with_dense_algebra(source, linear):
    prior, A, noise = linear.prior, linear.matrix, linear.noise
    y = normal(source, 6, 4)
    mean_y, covariance_y = A @ prior.mean + noise.mean, A @ prior.covariance @ A.T + noise.covariance
    gain = prior.covariance @ A.T @ torch.linalg.inv(covariance_y)
    torch.testing.assert_close(linear.marginal().mean, mean_y)
    torch.testing.assert_close(linear.marginal().covariance, covariance_y)  # (5.5)
    torch.testing.assert_close(linear.posterior(y).mean, prior.mean + (y - mean_y) @ gain.T)
    torch.testing.assert_close(linear.posterior(y).covariance, prior.covariance - gain @ A @ prior.covariance)
    torch.testing.assert_close(linear.joint().covariance[2:, :2], A @ prior.covariance)


def test_linear_model_agrees_with_its_own_simulation(source, linear):
    draws = 200_000
    x = linear.prior.rsample(source, (draws,))
    joint = torch.cat([x, x @ linear.matrix.T + linear.noise.rsample(source, (draws,))], dim=-1)
    expected = linear.joint()
    standardised = torch.linalg.solve_triangular(expected.cholesky, (joint - expected.mean).T, upper=False)
    # Six means N(0, 1/n) and 36 second moments, of standard deviation at most sqrt(2/n): 4.5 of them are exceeded by
    # one of 42 with a probability below 42 * 6.8e-6 = 3e-4.
    assert float(standardised.mean(1).abs().max()) < 4.5 / math.sqrt(draws)
    second = standardised @ standardised.T / draws - torch.eye(6)
    assert float(second.abs().max()) < 4.5 * math.sqrt(2 / draws)


def test_posterior_stays_exact_where_covariances_cancel():
    noise = 1e-9  # Sigma - Sigma A^T (...)^{-1} A Sigma would be a difference of ones that leaves 1e-18
    one = MultivariateGaussian(torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    small = MultivariateGaussian(one.mean, noise * one.cholesky)
    posterior = LinearGaussian(one, one.cholesky, small).posterior(torch.ones(1, dtype=torch.float64))
    assert float(posterior.cholesky) == pytest.approx(noise / math.sqrt(1 + noise**2), rel=1e-12)


def test_posterior_is_a_prior_for_the_next_observation(source, linear):
    first, second = normal(source, 6, 4), normal(source, 6, 4)
    in_turn = LinearGaussian(linear.posterior(first), linear.matrix, linear.noise).posterior(second)
    noise = MultivariateGaussian(linear.noise.mean.repeat(2), torch.block_diag(*[linear.noise.cholesky] * 2))
    at_once = LinearGaussian(linear.prior, linear.matrix.repeat(2, 1), noise).posterior(torch.cat([first, second], -1))
    torch.testing.assert_close(in_turn.mean, at_once.mean)
    torch.testing.assert_close(in_turn.covariance, at_once.covariance)


@pytest.mark.parametrize("matrix", [(2, 4), (4,), (1, 4, 2)])
def test_linear_model_refuses_a_matrix_that_does_not_fit(linear, matrix):
    with pytest.raises(InputError, match=r"give a matrix \(4, 2\)"):
        LinearGaussian(linear.prior, torch.zeros(matrix), linear.noise)
