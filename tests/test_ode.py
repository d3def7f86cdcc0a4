"""The probability-flow ODE: its integrator against scipy, its likelihood and codes against mixtures of Gaussians."""

import itertools
import math

import numpy as np
import pytest
import torch
from mixtures import ExactDenoiser, GaussianMixture, one_gaussian, three_clusters
from scipy.integrate import solve_ivp

from jensen.diffusion.bound import DiffusionBound
from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.ode import (
    ERROR,
    NODES,
    STAGES,
    ChainDequantisation,
    ExactTrace,
    Flow,
    Hutchinson,
    PlainDensity,
    Tolerance,
    UniformDequantisation,
    _attempt,
    flow_bound,
    integrate,
)
from jensen.diffusion.reverse import BetaVariance
from jensen.diffusion.schedule import LinearLogSnr, UniformLogSnr
from jensen.errors import InputError
from jensen.randomness import generator

MIXTURE = three_clusters()
DATA, NOISE = 20.0, -24.0
AT_DATA = torch.tensor(DATA, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------- the integrator


def pendulum(time, state, rows):
    """theta'' = -sin theta + 0.1 cos t."""
    return torch.stack([state[:, 1], 0.1 * torch.cos(time) - torch.sin(state[:, 0])], dim=1)


STARTS = torch.tensor([[0.1, 0.0], [2.5, 0.3], [-1.0, 1.9]], dtype=torch.float64)


def exact_pendulum(end: float) -> torch.Tensor:
    def derivative(t, y):
        return pendulum(torch.tensor([t]), torch.tensor(y).unsqueeze(0), None)[0].numpy()

    solved = [
        solve_ivp(derivative, (0, end), start.numpy(), "DOP853", rtol=1e-13, atol=1e-13).y[:, -1] for start in STARTS
    ]
    return torch.from_numpy(np.stack(solved))


def test_coefficients_satisfy_the_order_conditions():
    fifth = torch.tensor([*STAGES[-1], 0.0], dtype=torch.float64)
    fourth = fifth - torch.tensor(ERROR, dtype=torch.float64)
    nodes = torch.tensor(NODES, dtype=torch.float64)
    for row, node in zip(STAGES, NODES, strict=True):
        assert sum(row) == pytest.approx(node)
    for power in range(5):  # ∫ t^p: of both rules for p < 4, of the fifth-order one for p = 4 too
        assert float(fifth @ nodes**power) == pytest.approx(1 / (power + 1), abs=1e-14)
        if power < 4:
            assert float(fourth @ nodes**power) == pytest.approx(1 / (power + 1), abs=1e-14)


def test_one_step_has_local_order_six_at_least_and_its_error_estimate_five():
    errors, estimates = [], []
    for h in (0.6, 0.3):
        time, rows = torch.zeros(3).double(), torch.arange(3)
        step = torch.full((3,), h, dtype=torch.float64)
        new, _, estimate = _attempt(pendulum, time, STARTS, pendulum(time, STARTS, rows), step, rows)
        errors.append(float((new - exact_pendulum(h)).abs().max()))
        estimates.append(float(estimate.abs().max()))
    assert math.log2(errors[0] / errors[1]) > 5.7
    assert 4.7 < math.log2(estimates[0] / estimates[1]) < 6
    assert errors[0] < estimates[0]


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10])
def test_integrator_agrees_with_scipy_to_the_tolerance(tolerance):
    found = integrate(pendulum, STARTS, 0.0, 12.0, Tolerance(tolerance, tolerance), 2)
    assert float((found.state - exact_pendulum(12.0)).abs().max()) < 100 * tolerance
    backwards = integrate(pendulum, found.state, 12.0, 0.0, Tolerance(tolerance, tolerance), 2)
    assert float((backwards.state - STARTS).abs().max()) < 500 * tolerance


def test_every_row_takes_its_own_steps():
    together = integrate(pendulum, STARTS, 0.0, 5.0, Tolerance(), 2)
    for row in range(3):
        alone = integrate(pendulum, STARTS[row : row + 1], 0.0, 5.0, Tolerance(), 2)
        torch.testing.assert_close(alone.state[0], together.state[row], rtol=1e-13, atol=1e-13)
        assert alone.evaluations[0] == together.evaluations[row]
    assert len(set(together.evaluations.tolist())) > 1


def test_a_column_apart_is_not_averaged_away():
    """One fast column among 500 slow ones, held to the tolerance only as a group of its own."""

    def derivative(time, state, rows):
        return torch.cat([0 * state[:, :-1], torch.cos(20 * time).unsqueeze(1)], dim=1)

    def solved(columns, position):
        return integrate(derivative, torch.zeros(1, columns), 0.0, 3.0, Tolerance(0, 1e-5), position)

    apart, among, alone = solved(501, 500), solved(501, 501), solved(1, 1)
    assert apart.evaluations == alone.evaluations > among.evaluations
    assert abs(float(apart.state[0, -1]) - math.sin(60) / 20) < 1e-5


def test_unreachable_tolerance_says_so():
    def broken(time, state, rows):
        return torch.full_like(state, math.nan)

    with pytest.raises(InputError, match="check that the network's output is finite"):
        integrate(broken, STARTS, 0.0, 1.0, Tolerance(), 2)
    with pytest.raises(InputError, match="did not reach tolerance"):
        integrate(pendulum, STARTS, 0.0, 100.0, Tolerance(attempts=5), 2)
    with pytest.raises(InputError, match="expected relative >= 0"):
        Tolerance(1e-5, 0)


# ---------------------------------------------------------------------------------------------- the trace


class Curved(AbstractDenoiser):
    """A denoiser with a full, asymmetric Jacobian."""

    def forward(self, x_t, log_snr, labels=None):
        matrix = torch.tensor([[0.3, 1.0, -0.5], [0.2, -0.4, 0.8], [-0.7, 0.1, 0.6]], dtype=x_t.dtype)
        return Denoised.from_v(x_t, log_snr, torch.sin(x_t @ matrix) + 0.1 * x_t**2)


def test_exact_trace_is_the_trace_of_the_jacobian_and_hutchinsons_mean_too():
    flow, log_snr = Flow(Curved(), DATA, NOISE), torch.tensor([0.5, -1.0]).double()
    x = torch.randn(2, 3, generator=generator(0), dtype=torch.float64, requires_grad=True)
    velocity = flow.velocity(x, log_snr, torch.arange(2))
    jacobian = torch.autograd.functional.jacobian(lambda y: flow.velocity(y, log_snr, torch.arange(2)), x)
    expected = torch.stack([jacobian[row, :, row].trace() for row in range(2)])
    torch.testing.assert_close(ExactTrace()(velocity, x, x.new_empty(2, 0)).squeeze(1), expected)
    every_sign = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3))).double().expand(2, 8, 3)
    estimates = Hutchinson(8)(velocity, x, every_sign)
    torch.testing.assert_close(estimates.mean(1), expected)
    assert (estimates.std(1) > 0).all()


def test_probes_are_signs_that_belong_to_the_example():
    x, index = torch.zeros(4, 100), torch.tensor([7, 8, 9, 10])
    signs = Hutchinson(3).noise(x, 1, index)
    assert signs.shape == (4, 3, 100)
    assert (signs.abs() == 1).all()
    assert abs(float(signs.mean())) < 4.9 / math.sqrt(1200)  # false alarm 1e-6
    assert torch.equal(Hutchinson(3).noise(x[:2], 1, index[1:3]), signs[1:3])
    assert not torch.equal(Hutchinson(3, number=1).noise(x, 1, index), signs)
    assert not torch.equal(Hutchinson(3).noise(x, 2, index), signs)


# ---------------------------------------------------------------------------------------------- the flow


def test_velocity_is_half_the_distance_to_the_prediction():
    x, log_snr = MIXTURE.sample(5, generator(1)), torch.linspace(-4, 4, 5).double()
    a = torch.sigmoid(log_snr).sqrt().unsqueeze(1)
    x0 = MIXTURE.posterior_mean(x, log_snr)
    found = Flow(ExactDenoiser(MIXTURE), DATA, NOISE).velocity(x, log_snr, torch.arange(5))
    torch.testing.assert_close(found, 0.5 * a * (x0 - a * x))


def test_log_density_of_a_mixture_is_exact_and_its_error_falls_with_the_tolerance():
    x = MIXTURE.sample(60, generator(2))
    expected, errors = MIXTURE.log_prob(x, AT_DATA), []
    for tolerance in (1e-4, 1e-6, 1e-8):
        flow = Flow(ExactDenoiser(MIXTURE), DATA, NOISE, Tolerance(tolerance, tolerance))
        found = flow.log_density(x, ExactTrace())
        assert found.standard_error is None
        errors.append(float((found.value - expected).abs().max()))
    assert errors[2] < 1e-5  # what is left is the prior's: sqrt(alpha_bar) = 6e-6 at the noise's end
    assert errors[1] < 1e-3
    assert errors[2] < errors[1] / 5 < errors[0] / 25


def test_flow_of_one_gaussian_is_a_linear_map():
    """N(m, s²) at every noise level: standardised coordinates are kept."""
    m, s = 0.7, 0.4
    gaussian = one_gaussian(m, s, 3)
    flow = Flow(ExactDenoiser(gaussian), 3.0, -5.0, Tolerance(1e-9, 1e-9))
    x = torch.randn(4, 3, generator=generator(3), dtype=torch.float64)

    def moments(log_snr):
        a2 = 1 / (1 + math.exp(-log_snr))
        return math.sqrt(a2) * m, math.sqrt(a2 * s * s + 1 - a2)

    (mean, scale), (end_mean, end_scale) = moments(3.0), moments(-5.0)
    torch.testing.assert_close(flow.encode(x), end_mean + end_scale * (x - mean) / scale, rtol=1e-7, atol=1e-7)


def test_decoding_undoes_encoding():
    x = MIXTURE.sample(40, generator(4)).unflatten(1, (2, 1))

    class Shaped(AbstractDenoiser):
        def forward(self, x_t, log_snr, labels=None):
            flat = ExactDenoiser(MIXTURE)(x_t.flatten(1), log_snr)
            return Denoised(x_t, log_snr, flat.x0.view_as(x_t), flat.eps.view_as(x_t))

    flow = Flow(Shaped(), 12.0, NOISE, Tolerance(1e-8, 1e-8))
    code = flow.encode(x)
    assert code.shape == x.shape
    torch.testing.assert_close(flow.decode(code), x, rtol=0, atol=1e-5)


def test_hutchinsons_standard_error_is_that_of_the_log_density():
    x = MIXTURE.sample(300, generator(5))
    flow = Flow(ExactDenoiser(MIXTURE), 12.0, -16.0, Tolerance(1e-5, 1e-5))
    exact = flow.log_density(x, ExactTrace()).value
    found = flow.log_density(x, Hutchinson(12), seed=1, index=torch.arange(300) + 5)
    assert found.standard_error is not None
    error = found.value - exact
    # Of the mean error over 300 examples: false alarm 1e-5
    assert abs(float(error.mean())) < 4.4 * float(error.std()) / math.sqrt(300)
    # The ratio of the variances has a relative deviation of about sqrt(2 (1 + kurtosis) / 300) < 0.2
    assert float(error.square().mean() / found.standard_error.square().mean()) == pytest.approx(1, abs=0.8)
    again = flow.log_density(x[9:11], Hutchinson(12), seed=1, index=torch.arange(14, 16))
    torch.testing.assert_close(again.value, found.value[9:11], rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------- from the flow to x


def chain(mixture: GaussianMixture, levels: int | None, first: float = 12.0, last: float = -14.0) -> DiffusionBound:
    return DiffusionBound(
        ExactDenoiser(mixture), UniformLogSnr()(LinearLogSnr(first, last), 10), BetaVariance(), levels
    )


def test_plain_density_is_log_p_of_the_data():
    x = MIXTURE.sample(50, generator(6))
    found = flow_bound(chain(MIXTURE, None, 18.0, -24.0), x, PlainDensity(), Tolerance(1e-8, 1e-8), 3)
    torch.testing.assert_close(found.value, MIXTURE.log_prob(x), rtol=0, atol=1e-4)
    assert found.standard_error is not None
    assert (found.standard_error == 0).all()
    noisy = torch.tensor(1.0, dtype=torch.float64)  # then it is the density of x_1 / sqrt(alpha_bar_1)
    found = flow_bound(chain(MIXTURE, None, 1.0, -24.0), x, PlainDensity(), Tolerance(1e-8, 1e-8), 1)
    scale = torch.sigmoid(noisy).sqrt()
    expected = MIXTURE.log_prob(scale * x, noisy) + 2 * scale.log()
    torch.testing.assert_close(found.value, expected, rtol=0, atol=1e-4)


def test_chain_dequantisation_bounds_a_density():
    x = MIXTURE.sample(800, generator(7))
    for first, most in ((0.0, 1.2), (1.0, 0.9)):
        found = flow_bound(chain(MIXTURE, None, first), x, ChainDequantisation(), Tolerance(), 1, seed=2)
        gap = MIXTURE.log_prob(x) - found.value
        error = float(gap.std()) / math.sqrt(800)
        assert 4.4 * error < float(gap.mean()) < most  # below log p(x) beyond a false alarm of 1e-5


def test_standard_error_over_draws_is_that_of_the_value():
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64).expand(400, 2)
    found = flow_bound(chain(MIXTURE, None, 3.0), x, ChainDequantisation(), Tolerance(), 4, seed=3)
    assert found.standard_error is not None
    # The ratio of the variances has a relative deviation of about sqrt((2 + kurtosis / 4) / 400), below 0.1
    assert float(found.value.var() / found.standard_error.square().mean()) == pytest.approx(1, abs=0.44)


def four_levels() -> tuple[GaussianMixture, torch.Tensor, torch.Tensor]:
    """Data on four levels in one dimension, as a mixture of very narrow normals: the levels and their log-masses."""
    masses = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    levels = torch.linspace(-1, 1, 4, dtype=torch.float64).unsqueeze(1)
    return GaussianMixture(masses, levels, torch.full_like(levels, 1e-3)), levels, masses.log()


def test_chain_dequantisation_of_levels_is_their_mass():
    mixture, levels, log_mass = four_levels()
    found = flow_bound(chain(mixture, 4, 6.0), levels.repeat(200, 1), ChainDequantisation(), Tolerance(), 1)
    mean = found.value.unflatten(0, (200, 4)).mean(0)
    # Up to the prior's 1e-6 it is exact: between levels there is nothing to confuse, and no noise is left in the value
    torch.testing.assert_close(mean, log_mass, rtol=0, atol=1e-3)


def test_uniform_dequantisation_bounds_the_mass_of_each_level():
    """For data that are uniform in their bins, as a model trained on x + u sees them, it is near the mass."""
    mixture, levels, log_mass = four_levels()
    wide = GaussianMixture(mixture.weights, mixture.means, torch.full_like(levels, 2 / 3 / math.sqrt(12)))
    x, draws = levels.repeat(300, 1), 2
    found = flow_bound(chain(wide, 4), x, UniformDequantisation(), Tolerance(), draws)
    bound = found.value.unflatten(0, (300, 4)).mean(0)
    assert float(bound.exp().sum()) < 1
    assert ((bound - log_mass).abs() < 0.35).all()
    assert found.standard_error is not None
    with pytest.raises(InputError, match="without levels"):
        flow_bound(chain(wide, None), x, UniformDequantisation(), Tolerance(), draws)
