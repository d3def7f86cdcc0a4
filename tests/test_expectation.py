"""Section 2 of the lecture: the closed forms, quadrature where there are none, and what `converged` is worth."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from jensen.errors import InputError
from jensen.expectation import History, Search, Window, minimise_expectation
from jensen.gaussian import Gaussian, MultivariateGaussian

A = torch.tensor([[2.0, 0.8, 0.0], [0.8, 1.0, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64)
TARGET = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
ADAM, SGD = torch.optim.Adam, torch.optim.SGD


def quadratic(x: Tensor) -> Tensor:
    return 0.5 * ((x - TARGET) @ A * (x - TARGET)).sum(-1)


def diagonal_start(d: int = 3) -> Gaussian:
    return Gaussian.standard((d,), dtype=torch.float64)


def full_start(d: int = 3) -> MultivariateGaussian:
    return MultivariateGaussian(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance(found: Gaussian | MultivariateGaussian) -> Tensor:
    return found.variance.diag() if isinstance(found, Gaussian) else found.covariance


def expected_quadratic(found: Gaussian | MultivariateGaussian) -> float:
    difference = found.mean - TARGET
    return float(0.5 * difference @ A @ difference + 0.5 * torch.trace(A @ covariance(found)))


# Closed forms


@pytest.mark.parametrize("start", [diagonal_start(), full_start()], ids=["diagonal", "full"])
def test_without_entropy_a_quadratic_shrinks_to_its_minimum(start):
    search = Search(tolerance=5e-3)
    found = minimise_expectation(quadratic, start, source(), search=search)
    assert found.converged
    assert type(found.distribution) is type(start)
    assert 0 < expected_quadratic(found.distribution) < search.tolerance  # mu -> a and Sigma -> 0, weighted by A
    # E f >= ½ lambda |mu - a|² + ½ lambda tr Sigma, lambda the smallest eigenvalue of A: both are bounded by E f.
    bound = 2 * search.tolerance / float(torch.linalg.eigvalsh(A)[0])
    assert float((found.distribution.mean - TARGET).square().sum()) < bound
    assert float(torch.trace(covariance(found.distribution))) < bound


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("optimiser", [partial(ADAM, lr=0.05), partial(SGD, lr=0.1)], ids=["adam", "sgd"])
@pytest.mark.parametrize("start", [diagonal_start(), full_start()], ids=["diagonal", "full"])
def test_with_entropy_a_quadratic_gives_its_gibbs_distribution(start, optimiser, seed):
    """E f - tau H exceeds its minimum by tau KL(q || N(a, tau A^{-1})); the diagonal optimum is tau / diag(A)."""
    temperature, search = 0.5, Search(optimiser, tolerance=5e-3)
    best = MultivariateGaussian.from_covariance(TARGET, temperature * torch.linalg.inv(A))
    if isinstance(start, Gaussian):
        best = Gaussian(TARGET, (temperature / A.diag()).sqrt())
    found = minimise_expectation(quadratic, start, source(seed), temperature, search)
    assert found.converged
    assert temperature * float(found.distribution.kl(best)) < search.tolerance
    torch.testing.assert_close(found.distribution.mean, best.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(covariance(found.distribution), covariance(best), atol=0.1, rtol=0.1)


# Quadrature


def hermite(dimensions: int, points: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of E under N(0, I): a product of Gauss-Hermite rules."""
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(points))
    grid = torch.cartesian_prod(*[nodes] * dimensions).reshape(-1, dimensions)
    products = torch.cartesian_prod(*[weights] * dimensions).reshape(-1, dimensions).prod(-1)
    return grid, products / products.sum()


def loss_by_quadrature(f, distribution: MultivariateGaussian, temperature: float, points: int = 40) -> float:
    z, weights = hermite(distribution.shape[-1], points)
    x = distribution.mean + z @ distribution.cholesky.T
    return float(weights @ f(x) - temperature * distribution.entropy())


def best_by_quadrature(f, d: int, temperature: float) -> float:
    def loss(numbers: np.ndarray) -> float:
        mean, raw = torch.from_numpy(numbers[:d]), torch.from_numpy(numbers[d:].reshape(d, d))
        factor = raw.tril(-1) + raw.diag().exp().diag()
        return loss_by_quadrature(f, MultivariateGaussian(mean, factor), temperature)

    return optimize.minimize(loss, np.zeros(d + d * d), method="BFGS").fun


def quartic(x: Tensor) -> Tensor:
    return (0.25 * x**4 - x).sum(-1)


def logistic_regression(x: Tensor) -> Tensor:
    """-log p(labels, weights x) of four points under a normal prior: what variational inference minimises."""
    signed = torch.tensor([[1.0, 2.0], [0.5, -1.0], [-1.0, 1.5], [2.0, 0.3]], dtype=x.dtype)
    return torch.nn.functional.softplus(-x @ signed.T).sum(-1) + 0.5 * x.square().sum(-1)


@pytest.mark.parametrize(("f", "d"), [(quartic, 1), (logistic_regression, 2)])
def test_a_function_that_is_not_quadratic_reaches_the_minimum_by_quadrature(f, d):
    search = Search(tolerance=2e-3)
    found = minimise_expectation(f, full_start(d), source(), 1.0, search)
    excess = loss_by_quadrature(f, found.distribution, 1.0) - best_by_quadrature(f, d, 1.0)
    assert found.converged
    assert -1e-9 < excess < search.tolerance


# What `converged` means


def window(steps: int, gain: float, error: float = 1e-5) -> Window:
    return Window(steps, 0.1, loss=0.0, standard_error=0.0, gain=gain, gain_standard_error=error)


@pytest.mark.parametrize(
    ("windows", "settled"),
    [
        ([window(200, 0.0)], False),  # one window says nothing
        ([window(100, 9e-4), window(200, 4e-4)], True),
        ([window(100, 9e-4), window(200, 6e-4)], False),  # 6e-4 and its geometric series: twice as much is to come
        ([window(100, 1e-4), window(200, 2e-4)], False),  # not fading at all
        ([window(100, 4e-4), window(200, 2e-4)], True),  # a loss that falls like one over the number of steps
        ([window(100, 9e-4), window(200, 6e-4, error=4e-4)], False),  # within two standard errors, beyond the tolerance
        ([window(100, 1e-4), window(200, 1e-4, error=1e-4)], True),  # a gain that noise explains
        ([window(100, 2e-3), window(200, 1e-4)], False),
        ([window(100, 1e-4), window(200, -2e-3)], False),  # worse is not settled either
        ([window(100, 9e-4), window(100, 4e-4)], False),  # the second one was cut short
    ],
)
def test_settled_means_twice_within_the_tolerance_and_fading(windows, settled):
    assert History([], windows).settled(1e-3) is settled


def test_small_steps_are_not_taken_for_convergence():
    """In windows of 10 steps the gains are small because the steps are; they do not fade until the windows are long."""
    search = Search(partial(SGD, lr=0.005), window=10, tolerance=0.02)
    best = Gaussian(TARGET, (0.5 / A.diag()).sqrt())
    found = minimise_expectation(quadratic, diagonal_start(), source(), 0.5, search)
    assert found.converged
    assert 0.5 * float(found.distribution.kl(best)) < search.tolerance


def test_a_window_reports_the_loss_at_its_average_and_the_gain_over_the_start():
    start = full_start()
    found = minimise_expectation(quadratic, start, source(), 0.5, Search(max_steps=100))
    before, after = (expected_quadratic(q) - 0.5 * float(q.entropy()) for q in (start, found.distribution))
    (window,) = found.history.windows
    # Five standard errors each: a false alarm once in 1.7 million.
    assert abs(window.loss - after) < 5 * window.standard_error < 0.5
    assert abs(window.gain - (before - after)) < 5 * window.gain_standard_error < 0.5


def test_running_out_of_steps_is_said_and_leaves_the_average_of_what_was_done():
    found = minimise_expectation(quadratic, diagonal_start(), source(), 1.0, Search(max_steps=150))
    assert (found.converged, found.steps) == (False, 150)
    assert [window.steps for window in found.history.windows] == [100, 50]
    assert expected_quadratic(found.distribution) < expected_quadratic(diagonal_start())


def test_the_learning_rate_falls_only_where_noise_hides_the_gain():
    found = minimise_expectation(quadratic, full_start(), source(), 0.5, Search(tolerance=5e-3))
    for before, after in zip(found.history.windows, found.history.windows[1:], strict=False):
        assert after.learning_rate == before.learning_rate * (1.0 if before.gains_more_than(0.0) else 0.5)
        assert after.steps == before.steps * (1 if before.gains_more_than(5e-3) else 2)


class Fixed(torch.optim.Optimizer):
    """Moves every parameter by the same amount in each step, whatever the gradient."""

    def __init__(self, parameters: list[Tensor], amount: float) -> None:
        super().__init__(parameters, {"lr": 1.0})
        self.amount = amount

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter += self.amount


def test_the_result_is_an_average_and_the_next_window_starts_from_it():
    """f = 0 gains nothing: iterates 1, 2, 3 average 2; from there a window twice as long, 3, 4, ... 8, averages 5.5."""
    search = Search(partial(Fixed, amount=1.0), window=3)
    found = minimise_expectation(lambda x: 0.0 * x.sum(-1), diagonal_start(2), source(), search=search)
    assert (found.converged, found.steps) == (True, 9)
    torch.testing.assert_close(found.distribution.mean, torch.full((2,), 5.5).double())
    torch.testing.assert_close(found.distribution.scale.log(), torch.full((2,), 5.5).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_factor_stays_valid_wherever_the_parameters_go(dtype):
    """A scale of e^-1000 would be zero; with a lower bound for it no step fails and the factor keeps its diagonal."""
    start = MultivariateGaussian(torch.zeros(2, dtype=dtype), 1e-3 * torch.eye(2, dtype=dtype))
    search = Search(partial(Fixed, amount=-1000.0), max_steps=3)
    found = minimise_expectation(lambda x: x.square().sum(-1), start, source(), search=search)
    assert bool((found.distribution.cholesky.diag() > 0).all())
    assert found.distribution.entropy().isfinite()


# The loop


def test_first_step_reports_the_moments_of_a_quadratic_under_the_start():
    """f = ½ |x - c|² under N(0, I): mean ½ (d + |c|²), variance d/2 + |c|², gradient mean -c with variance 1 each."""
    c, draws = torch.tensor([3.0, 4.0], dtype=torch.float64), 100_000
    search = Search(batch_size=draws, max_steps=1)
    history = minimise_expectation(lambda x: 0.5 * (x - c).square().sum(-1), diagonal_start(2), source(), search=search)
    step = history.history.steps[0]
    error = math.sqrt((1 + 25) / draws)
    # Five standard deviations each: a false alarm once in 1.7 million.
    assert step.loss == pytest.approx(13.5, abs=5 * error)
    assert step.gradient_norm == pytest.approx(5.0, abs=5 / math.sqrt(draws))
    # Standard deviations of the two estimates below, relative: 0.3 % and 0.2 % (fourth moments).
    assert step.standard_error == pytest.approx(error, rel=0.015)
    assert step.gradient_noise == pytest.approx(math.sqrt(2 / draws), rel=0.015)


SHIFT = torch.tensor([1e4, -7.0], dtype=torch.float64)
STRETCH = torch.tensor([[1e3, 0.0], [5e2, 2e-3]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("start", "moved_start", "stretch"),
    [
        (full_start(2), MultivariateGaussian(SHIFT, STRETCH), STRETCH),
        (diagonal_start(2), Gaussian(SHIFT, STRETCH.diag()), STRETCH.diag().diag()),
    ],
    ids=["full", "diagonal"],
)
def test_an_affine_change_of_variables_changes_nothing(start, moved_start, stretch):
    """The search runs where the start is N(0, I): moving f and the start moves every iterate along."""

    def there(x: Tensor) -> Tensor:
        return logistic_regression(torch.linalg.solve_triangular(stretch, (x - SHIFT).T, upper=False).T)

    search = Search(max_steps=50)
    here = minimise_expectation(logistic_regression, start, source(), search=search).distribution
    moved = minimise_expectation(there, moved_start, source(), search=search).distribution
    torch.testing.assert_close(moved.mean, SHIFT + stretch @ here.mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(covariance(moved), stretch @ covariance(here) @ stretch.T, rtol=1e-6, atol=1e-12)


def test_the_result_depends_on_the_generator_alone():
    search = Search(max_steps=40)
    first = minimise_expectation(quadratic, full_start(), source(1), search=search)
    torch.randn(10)
    state = torch.get_rng_state()
    second = minimise_expectation(quadratic, full_start(), source(1), search=search)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.distribution.cholesky, second.distribution.cholesky)
    assert first.history == second.history


def test_events_may_have_any_shape_and_networks_inside_f_stay_untouched():
    network = torch.nn.Linear(6, 1)
    start = Gaussian(torch.zeros(2, 3), torch.ones(1, 1), event_dims=2)
    found = minimise_expectation(
        lambda x: network(x.flatten(1)).square().squeeze(-1) + x.square().sum((1, 2)),
        start,
        source(),
        1.0,
        Search(max_steps=30),
    )
    assert found.distribution.shape == (2, 3)
    assert network.weight.grad is None


# Refusals


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x.sum(-1) / 0.0, "f is not finite at step 1:"),
        (lambda x: x.sum(-1) + math.inf, "f is not finite at step 1:"),
        (lambda x: (0.0 * x).sqrt().sum(-1), "f is finite but its gradient is not at step 1:"),
        (lambda x: x.sum(), r"f returned a tensor of shape \(\), differentiable, for x of shape \(64, 3\)"),
        (lambda x: x.sum(-1, keepdim=True), r"shape \(64, 1\)"),
        (lambda x: x.detach().sum(-1), "not differentiable"),
    ],
)
def test_unusable_functions_are_refused(f, message):
    with pytest.raises(InputError, match=message):
        minimise_expectation(f, diagonal_start(), source())


def test_an_f_that_has_no_minimum_stops_with_the_step_at_which_it_overflows():
    steep = partial(SGD, lr=1.0)
    with pytest.raises(InputError, match=r"f is not finite at step \d+: .* lower the learning rate"):
        minimise_expectation(lambda x: -x.square().sum(-1).square(), diagonal_start(), source(), search=Search(steep))


@pytest.mark.parametrize(
    ("start", "temperature"), [(Gaussian.standard((4, 3)), 0.0), (full_start(), -1.0), (full_start(), math.nan)]
)
def test_unusable_starts_and_temperatures_are_refused(start, temperature):
    with pytest.raises(InputError, match="without batch dimensions and a temperature of at least 0"):
        minimise_expectation(quadratic, start, source(), temperature)


@pytest.mark.parametrize("setting", [{"batch_size": 1}, {"window": 0}, {"max_steps": 0}, {"tolerance": 0.0}])
def test_a_search_needs_steps_draws_and_a_tolerance(setting):
    with pytest.raises(InputError, match="at least 2, 1 and 1, and a tolerance above 0"):
        Search(**setting)
