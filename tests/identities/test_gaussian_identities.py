"""The closed forms of lecture.md that the Gaussian chapter alone must reproduce, in float64."""

import math

import torch
from scipy import integrate, stats

from jensen.gaussian import Gaussian, LinearGaussian, MultivariateGaussian, normal_log_density


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def isotropic(mean: torch.Tensor, variance: float) -> MultivariateGaussian:
    return MultivariateGaussian(mean, variance**0.5 * torch.eye(mean.shape[-1], dtype=mean.dtype))


def model(seed: int) -> LinearGaussian:
    x, y = normal(seed, 2, 2), normal(seed + 1, 3, 3)
    prior = MultivariateGaussian.from_covariance(normal(seed + 2, 2), x @ x.T + torch.eye(2))
    noise = MultivariateGaussian.from_covariance(normal(seed + 3, 3), y @ y.T + torch.eye(3))
    return LinearGaussian(prior, normal(seed + 4, 3, 2), noise)


def test_the_density_has_mass_one_and_the_entropy_is_its_mean_surprise():
    density = stats.norm(loc=0.7, scale=1.9)
    ours = Gaussian(torch.tensor([0.7], dtype=torch.float64), torch.tensor([1.9], dtype=torch.float64))

    def log_prob(x: float) -> float:
        return float(ours.log_prob(torch.tensor([x], dtype=torch.float64)))

    assert abs(log_prob(2.2) - density.logpdf(2.2)) < 1e-14
    mass, _ = integrate.quad(lambda x: math.exp(log_prob(x)), -25, 25)
    surprise, _ = integrate.quad(lambda x: -density.pdf(x) * log_prob(x), -25, 25)
    assert abs(mass - 1) < 1e-9  # (1.1)
    assert abs(surprise - float(ours.entropy())) < 1e-9


def test_product_rule_two_ways():
    linear, x, y = model(0), normal(10, 50, 2), normal(11, 50, 3)
    given_x = MultivariateGaussian(x @ linear.matrix.T + linear.noise.mean, linear.noise.cholesky)
    joint = linear.joint().log_prob(torch.cat([x, y], dim=-1))
    torch.testing.assert_close(given_x.log_prob(y) + linear.prior.log_prob(x), joint)  # (1.2): p(y|x) p(x)
    torch.testing.assert_close(linear.posterior(y).log_prob(x) + linear.marginal().log_prob(y), joint)  # p(x|y) p(y)


def test_evidence_is_reconstruction_minus_kl_plus_gap():
    """(4.4) with every term closed: log p(y) = E_q log p(y|x) - KL(q || p(x)) + KL(q || p(x|y)) for any q."""
    linear, y = model(20), normal(30, 3)
    q = MultivariateGaussian.from_covariance(normal(31, 2), torch.tensor([[1.0, 0.3], [0.3, 0.5]]).double())
    at_mean = MultivariateGaussian(linear.matrix @ q.mean + linear.noise.mean, linear.noise.cholesky)
    spread = torch.linalg.solve_triangular(linear.noise.cholesky, linear.matrix @ q.cholesky, upper=False)
    reconstruction = at_mean.log_prob(y) - 0.5 * spread.square().sum()
    bound = reconstruction - q.kl(linear.prior)
    torch.testing.assert_close(bound + q.kl(linear.posterior(y)), linear.marginal().log_prob(y))
    assert bound < linear.marginal().log_prob(y)


def test_probabilistic_pca():
    """Section 4: marginal N(b, W W^T + s² I), posterior N(M^{-1} W^T (x - b), s² M^{-1}) with M = W^T W + s² I."""
    W, b, variance, x = normal(40, 6, 2), normal(41, 6), 0.3, normal(42, 9, 6)
    linear = LinearGaussian(isotropic(torch.zeros(2).double(), 1.0), W, isotropic(b, variance))
    M = W.T @ W + variance * torch.eye(2)
    torch.testing.assert_close(linear.marginal().mean, b)
    torch.testing.assert_close(linear.marginal().covariance, W @ W.T + variance * torch.eye(6))
    torch.testing.assert_close(linear.posterior(x).mean, torch.linalg.solve(M, W.T @ (x - b).T).T)
    torch.testing.assert_close(linear.posterior(x).covariance, variance * torch.linalg.inv(M))


def test_forward_chain_of_diffusion_is_the_linear_model_applied():
    """(5.1) composed is (5.6); the posterior of its last step is (5.8)."""
    x_0, beta = normal(50, 4, 2), torch.linspace(0.02, 0.3, 7, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)
    state = MultivariateGaussian(x_0, torch.zeros(2, 2, dtype=torch.float64))  # x_0 itself
    for t, beta_t in enumerate(beta):
        noise = isotropic(torch.zeros(2).double(), float(beta_t))
        step = LinearGaussian(state, (1 - beta_t).sqrt() * torch.eye(2).double(), noise)  # (5.1)
        if t == len(beta) - 1:
            break
        state = step.marginal()
    last = step.marginal()
    torch.testing.assert_close(last.mean, alpha_bar[-1].sqrt() * x_0)  # (5.6)
    torch.testing.assert_close(last.covariance, (1 - alpha_bar[-1]) * torch.eye(2).double())
    x_t, before = normal(51, 4, 2), alpha_bar[-2]
    mean = before.sqrt() * beta[-1] * x_0 + (1 - beta[-1]).sqrt() * (1 - before) * x_t
    torch.testing.assert_close(step.posterior(x_t).mean, mean / (1 - alpha_bar[-1]))  # (5.8)
    variance = beta[-1] * (1 - before) / (1 - alpha_bar[-1])
    torch.testing.assert_close(step.posterior(x_t).covariance, variance * torch.eye(2).double())


def test_elementwise_density_of_images_with_one_scale_each():
    """(1.7) with D = 3 * 4 * 4 dimensions, though the scale is one number per image."""
    mean, x, scale = normal(60, 5, 3, 4, 4), normal(61, 5, 3, 4, 4), normal(62, 5, 1, 1, 1).exp()
    images = Gaussian(mean, scale, event_dims=3)
    flat = MultivariateGaussian(mean.flatten(1), scale.reshape(5, 1, 1) * torch.eye(48).double())
    torch.testing.assert_close(images.log_prob(x), flat.log_prob(x.flatten(1)))
    torch.testing.assert_close(images.log_prob(x), normal_log_density(x, mean, scale).sum((1, 2, 3)))
    torch.testing.assert_close(images.entropy(), flat.entropy())
    torch.testing.assert_close(images.kl_to_standard(), flat.kl(isotropic(torch.zeros(48).double(), 1.0)))
