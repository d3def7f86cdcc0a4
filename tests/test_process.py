"""The forward process against the linear Gaussian model (5.5), the lecture's formulas and 60-digit arithmetic."""

import math

import mpmath
import pytest
import torch
from jaxtyping import TypeCheckError

from jensen.diffusion.process import beta, marginal, per_example, posterior, posterior_variance, step_kernel
from jensen.diffusion.schedule import LinearBeta, UniformTime, alpha_bar, noise_scale, signal_scale
from jensen.gaussian import LinearGaussian, MultivariateGaussian

CHAIN = UniformTime()(LinearBeta(), 1000)


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def close(a, b, relative=1e-12):
    torch.testing.assert_close(a, b, rtol=relative, atol=relative)


def kernel_matrices(log_snr_s, log_snr_t, dimensions):
    """A and N(0, Gamma) of x_t = A x_s + e (5.3), read off the kernel."""
    kernel = step_kernel(torch.eye(dimensions, dtype=torch.float64), log_snr_s, log_snr_t)
    zero = torch.zeros(dimensions, dtype=torch.float64)
    return kernel.mean, MultivariateGaussian(zero, kernel.scale * torch.eye(dimensions, dtype=torch.float64))


def test_the_chain_composed_a_thousand_times_is_the_marginal():
    x0 = random(1, 3)
    first = step_kernel(x0, CHAIN[0], CHAIN[1])
    state = MultivariateGaussian(first.mean[0], first.scale * torch.eye(3, dtype=torch.float64))
    for i in range(2, 1001):
        A, noise = kernel_matrices(CHAIN[i - 1], CHAIN[i], 3)
        state = LinearGaussian(state, A, noise).marginal()  # (5.5)
        if i in (2, 10, 500, 1000):
            expected = marginal(x0, CHAIN[i])  # (5.6)
            close(state.mean, expected.mean[0])
            close(state.covariance, expected.variance * torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(("s", "t"), [(1, 2), (499, 500), (999, 1000), (1, 1000), (200, 700)])
def test_the_posterior_is_bayes_rule(s, t):
    x0, x_t = random(1, 3), random(3).unsqueeze(0)
    q = marginal(x0, CHAIN[s])
    A, noise = kernel_matrices(CHAIN[s], CHAIN[t], 3)
    prior = MultivariateGaussian(q.mean[0], q.scale * torch.eye(3, dtype=torch.float64))
    expected = LinearGaussian(prior, A, noise).posterior(x_t)  # (5.5)
    found = posterior(x_t, x0, CHAIN[s], CHAIN[t])  # (5.8)
    close(found.mean, expected.mean, 1e-11)
    close(found.variance * torch.eye(3, dtype=torch.float64), expected.covariance, 1e-11)


@pytest.mark.parametrize("t", [2, 500, 1000])
def test_the_posterior_is_the_lectures_formula_and_its_mean_the_one_by_eps(t):
    x0, eps = random(4, 3), random(3, 4).T
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    beta_t, bar_t, bar_s = betas[t - 1], bars[t - 1], bars[t - 2]
    x_t = bar_t.sqrt() * x0 + (1 - bar_t).sqrt() * eps
    kernel = posterior(x_t, x0, CHAIN[t - 1], CHAIN[t])
    by_x0 = (bar_s.sqrt() * beta_t * x0 + (1 - beta_t).sqrt() * (1 - bar_s) * x_t) / (1 - bar_t)
    close(kernel.mean, by_x0, 1e-11)
    close(kernel.variance, beta_t * (1 - bar_s) / (1 - bar_t), 1e-11)
    by_eps = (x_t - beta_t / (1 - bar_t).sqrt() * eps) / (1 - beta_t).sqrt()  # (5.14)
    close(kernel.mean, by_eps, 1e-11)
    # and back: the eps that the mean implies is the one that made x_t
    close((x_t - (1 - beta_t).sqrt() * kernel.mean) * (1 - bar_t).sqrt() / beta_t, eps, 1e-10)


def test_unit_variance_stays_unit_variance():
    one = torch.ones(1, 1, dtype=torch.float64)
    for s, t in [(CHAIN[3], CHAIN[4]), (CHAIN[0], CHAIN[1000]), (CHAIN[10], CHAIN[900])]:
        kernel = step_kernel(one, s, t)
        close(kernel.mean.square() + kernel.variance, one)  # (5.4)


def test_two_steps_are_one_and_the_posterior_undoes_a_step():
    s, u, t = (torch.tensor(value, dtype=torch.float64) for value in (4.0, 0.5, -3.0))
    x = random(5, 2)
    first, second = step_kernel(x, s, u), step_kernel(x, u, t)
    keep = second.mean / x
    close(keep * first.mean, step_kernel(x, s, t).mean)
    close(keep.square() * first.variance + second.variance, (keep * 0 + 1) * step_kernel(x, s, t).variance)
    # E over x_t of q(x_s | x_t, x_0) is q(x_s | x_0): (5.7), one step of it
    q_t, q_s = marginal(x, t), marginal(x, s)
    back = posterior(q_t.mean, x, s, t)
    gain = posterior(torch.ones_like(x), torch.zeros_like(x), s, t).mean
    close(back.mean, q_s.mean)
    close(gain.square() * q_t.variance + back.variance, q_s.variance.expand(5, 2))


PAIRS = [
    (math.inf, 9.0),
    (math.inf, -20.0),
    (30.0, 30 - 1e-6),
    (30.0, 29.0),
    (0.0, -1e-7),
    (-25.0, -25.0001),
    (20.0, -20.0),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("high", "low"), PAIRS)
def test_coefficients_keep_their_relative_precision_at_both_ends(high, low, dtype):
    s, t = torch.tensor([high], dtype=dtype), torch.tensor([low], dtype=dtype)
    one, zero = torch.ones(1, 1, dtype=dtype), torch.zeros(1, 1, dtype=dtype)
    found = [beta(s, t), posterior_variance(s, t), posterior(zero, one, s, t).mean, posterior(one, zero, s, t).mean]
    with mpmath.workdps(60):
        bar_s = mpmath.mpf(1) if high == math.inf else 1 / (1 + mpmath.exp(-mpmath.mpf(s.item())))
        bar_t = 1 / (1 + mpmath.exp(-mpmath.mpf(t.item())))
        b = 1 - bar_t / bar_s
        exact = [
            b,
            b * (1 - bar_s) / (1 - bar_t),
            mpmath.sqrt(bar_s) * b / (1 - bar_t),
            mpmath.sqrt(1 - b) * (1 - bar_s) / (1 - bar_t),
        ]
    # in the exponent, |log snr| epsilons of absolute error are as many of relative error in the result
    tolerance = 100 * torch.finfo(dtype).eps
    for value, number in zip(found, exact, strict=True):
        assert value.item() == pytest.approx(float(number), rel=tolerance, abs=0)


def test_at_the_data_the_posterior_is_a_point():
    x0 = random(4, 3)
    kernel = posterior(random(3, 4).T, x0, CHAIN[0], CHAIN[1])
    assert torch.equal(kernel.mean, x0)
    assert kernel.scale == 0
    assert torch.equal(marginal(x0, CHAIN[0]).mean, x0)


def test_levels_per_example_give_what_each_gives_alone():
    x, x0 = random(3, 2, 4, 4), random(3, 2, 4, 4).flip(0)
    s, t = torch.tensor([[9.0, 2.0, -3.0], [8.0, -4.0, -9.0]], dtype=torch.float64)
    together = [marginal(x0, t), step_kernel(x, s, t), posterior(x, x0, s, t)]
    for i in range(3):
        alone = [
            marginal(x0[i : i + 1], t[i]),
            step_kernel(x[i : i + 1], s[i], t[i]),
            posterior(x[i : i + 1], x0[i : i + 1], s[i], t[i]),
        ]
        for one, many in zip(alone, together, strict=True):
            close(many.mean[i : i + 1], one.mean)
            close(many.scale[i].squeeze(), one.scale)
            assert one.event_shape == many.event_shape == (2, 4, 4)


def test_float64_levels_do_not_change_the_precision_of_float32_data():
    x = torch.zeros(3, 2)
    for levels in (CHAIN[5], CHAIN[5:8]):
        assert marginal(x, levels).mean.dtype == torch.float32
        assert posterior(x, x, levels + 1, levels).mean.dtype == torch.float32
    assert per_example(CHAIN[5:8], x).dtype == torch.float32


def test_gradients_are_finite_where_s_is_the_data():
    log_snr_t = torch.tensor([9.0, -9.0], dtype=torch.float64, requires_grad=True)
    s = torch.full((2,), math.inf, dtype=torch.float64)
    kernel = posterior(random(2, 3), random(3, 2).T, s, log_snr_t)
    (kernel.mean.sum() + step_kernel(random(2, 3), s, log_snr_t).scale.sum()).backward()
    assert log_snr_t.grad.isfinite().all()


def test_levels_for_another_batch_are_caught():
    with pytest.raises((TypeCheckError, RuntimeError)):
        marginal(torch.zeros(3, 2), torch.zeros(4))


def test_scales_are_the_roots_of_the_variances():
    level = torch.linspace(-30, 30, 13, dtype=torch.float64)
    close(signal_scale(level).square(), alpha_bar(level), 1e-14)
    close(noise_scale(level).square() + signal_scale(level).square(), torch.ones_like(level), 1e-14)
