"""Increasing curves: slopes and inverses against autograd, units, tails, and numbers of every size."""

import math

import numpy as np
import pytest
import torch

from jensen.monotone import Curve, Curves, fit_curve, fit_curve_to_levels

RANDOM = np.random.default_rng(0)
SAMPLES = {
    "normal": RANDOM.normal(size=1000),
    "far": 1e9 + RANDOM.normal(size=1000),
    "Cauchy": RANDOM.standard_cauchy(1000),
    "ten decades": 10 ** RANDOM.uniform(-5, 5, 1000),
    "two far clusters": np.concatenate([RANDOM.normal(size=500), 1e9 + RANDOM.normal(size=500)]),
    "two scales": RANDOM.normal(size=1000) * RANDOM.choice([1e-6, 1.0], 1000),
    "uniform": RANDOM.uniform(size=1000),
    "an outlier": np.concatenate([RANDOM.normal(size=999), [1e12]]),
    "five": RANDOM.normal(size=5),
    "three": np.array([1.0, 2.0, 4.0]),
    "constant but one": np.concatenate([np.full(99, 3.0), [7.0]]),
    "constant": np.full(4, 3.0),
    "one": np.array([-2.0]),
    "none": np.zeros(0),
    "neighbouring floats": 1e12 + RANDOM.normal(size=1000) * 1e-3,
    "two floats": 1e12 + 2.0**-13 * RANDOM.integers(0, 2, 1000),
    "tiny": 1e-200 * RANDOM.normal(size=100),
    "huge": 1e200 * RANDOM.normal(size=100),
    "levels": RANDOM.integers(0, 20, 1000).astype(float),
}


@pytest.fixture(params=SAMPLES)
def values(request):
    return SAMPLES[request.param]


def around(values):
    """A column of numbers within, at and far beyond the values, in ascending order."""
    low, high = (values.min(), values.max()) if len(values) else (-1.0, 1.0)
    spread = max(high - low, 1.0 if len(np.unique(values)) < 2 else 0.0)
    grid = np.concatenate(
        [np.linspace(low - 2 * spread, high + 2 * spread, 999), values, [-1e5 * spread, 1e5 * spread]]
    )
    return torch.from_numpy(np.unique(grid))[:, None]


def test_a_curve_increases_strictly_and_its_log_slope_is_that_of_autograd(values):
    curves, v = Curves([fit_curve(values)]), around(values).requires_grad_()
    y = curves(v)
    (slope,) = torch.autograd.grad(y.sum(), v)
    assert y.isfinite().all()
    assert (slope > 0).all()
    assert (y.diff(dim=0) >= 0).all()
    torch.testing.assert_close(curves.log_slope(v).detach(), slope.log(), rtol=1e-7, atol=1e-7)


def test_the_inverse_gives_the_number_back_and_every_y_has_one(values):
    curves, v = Curves([fit_curve(values)]), around(values)
    spread = v.max() - v.min()
    assert ((curves.inverse(curves(v)) - v).abs() <= 1e-12 * spread).all()
    y = torch.linspace(-1e4, 1e4, 2001, dtype=torch.float64)[:, None]
    assert curves.inverse(y).isfinite().all()
    inner = y[y.abs() < 9][:, None]
    # An inner number is known to a rounding of its own size, which its slope turns into an error of y.
    back = curves.inverse(inner)
    tolerance = 1e-10 + 4e-16 * (curves.log_slope(back).exp() * back.abs())
    assert ((curves(back) - inner).abs() <= tolerance).all()


@pytest.mark.parametrize(
    "name", ["normal", "far", "Cauchy", "ten decades", "two far clusters", "uniform", "two scales"]
)
def test_y_is_about_standard_normal(name):
    values = SAMPLES[name]
    y = Curves([fit_curve(values)])(torch.from_numpy(values)[:, None])
    assert abs(y.mean()) < 0.05
    assert abs(y.std() - 1) < 0.05
    assert y.abs().max() < 5


@pytest.mark.parametrize("name", ["normal", "Cauchy", "ten decades", "two scales", "three", "five", "constant but one"])
@pytest.mark.parametrize(("a", "b"), [(1000.0, 0.0), (1 / 3, 0.0), (-1.8, 32.0), (0.01, -5.0)])
def test_a_change_of_unit_moves_the_log_slope_by_its_logarithm_and_nothing_else(name, a, b):
    values = SAMPLES[name]
    if b and name in ("ten decades", "two scales"):
        return  # 1e-5 + 32 has lost most of its digits: this is not a change of unit any more
    one, other = Curves([fit_curve(values)]), Curves([fit_curve(a * values + b)])
    v = torch.from_numpy(values)[:, None]
    torch.testing.assert_close(other(a * v + b), math.copysign(1, a) * one(v), rtol=1e-9, atol=1e-9)
    expected = one.log_slope(v) - math.log(abs(a))
    torch.testing.assert_close(other.log_slope(a * v + b), expected, rtol=1e-9, atol=1e-9)


def test_a_value_far_beyond_a_heavy_tail_costs_what_the_tail_says():
    # log density of a Cauchy variable at 1e9: -log(pi 1e18) = -42.6. A straight line would cost about 1e11 nats.
    curves = Curves([fit_curve(np.random.default_rng(1).standard_cauchy(100_000))])
    v = torch.tensor([[1e9]], dtype=torch.float64)
    log_density = -0.5 * curves(v) ** 2 - 0.5 * math.log(2 * math.pi) + curves.log_slope(v)
    assert abs(log_density + 42.6) < 4


def test_many_columns_at_once_are_each_column_alone():
    names = ["normal", "two far clusters", "five", "one"]
    together = Curves([fit_curve(SAMPLES[name]) for name in names])
    v = torch.randn(3, 7, 4, dtype=torch.float64)
    for column, name in enumerate(names):
        for alone in (Curves([fit_curve(SAMPLES[name])]), together.at(column)):
            one = slice(column, column + 1)
            torch.testing.assert_close(together(v)[..., one], alone(v[..., one]), rtol=0, atol=0)
            torch.testing.assert_close(together.inverse(v)[..., one], alone.inverse(v[..., one]), rtol=0, atol=0)
            torch.testing.assert_close(together.log_slope(v)[..., one], alone.log_slope(v[..., one]), rtol=0, atol=0)


def test_a_cast_keeps_the_digits_of_a_curve():
    curves, v = Curves([fit_curve(SAMPLES["far"])]), torch.from_numpy(SAMPLES["far"])[:, None]
    expected = curves(v)
    torch.testing.assert_close(curves.float()(v), expected, rtol=0, atol=0)
    assert torch.nn.Sequential(curves).bfloat16()[0].knots.dtype == torch.float64


def test_missing_numbers_stay_missing():
    curves = Curves([fit_curve(SAMPLES["normal"])])
    nan = torch.full((1, 1), math.nan)
    assert curves(nan).isnan().all()
    assert curves.inverse(nan).isnan().all()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_largest_numbers_keep_a_finite_y_and_slope():
    largest = np.finfo(np.float64).max
    normal = 0.1 * SAMPLES["normal"]
    marked = np.concatenate([normal, [-largest] * 3, [largest]])
    curves = Curves([fit_curve(column) for column in (normal, marked, SAMPLES["Cauchy"] / 1000)])
    v = torch.tensor([[-largest], [-1e306], [-1.0], [1.0], [1e306], [largest]], dtype=torch.float64).expand(6, 3)
    y = curves(v)
    assert y.isfinite().all()
    assert curves.log_slope(v).isfinite().all()
    assert (y.diff(dim=0) >= 0).all()
    assert curves.inverse(y).isfinite().all()


def test_edges_of_levels_are_quantiles_of_the_levels():
    # Levels of very different frequency: each edge is a knot, so N(0, 1) over y gives every level its frequency.
    levels = np.repeat(np.arange(6.0), [500, 5, 300, 100, 900, 195])
    curves = Curves([fit_curve_to_levels(levels)])
    edges = curves(torch.arange(0.5, 5, dtype=torch.float64)[:, None])[:, 0]
    expected = np.array([500, 505, 805, 905, 1805]) / 2000
    np.testing.assert_allclose(torch.special.ndtr(edges).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize(
    "levels",
    [
        np.repeat([0.0, 1000, 5000, 20_000], [5000, 2000, 900, 30]),
        np.concatenate([RANDOM.geometric(1e-4, 3000), 5000 * RANDOM.integers(0, 9, 20_000)]).astype(float),
        np.array([3.0]),
        np.repeat([0.0, 1_000_000], [50_000, 50_000]),
        np.arange(2000.0) ** 2,
        np.zeros(0),
    ],
    ids=["heaps", "heaps and others", "one", "two far levels", "all different", "none"],
)
def test_a_curve_of_levels_increases_strictly_also_where_there_are_none(levels):
    curve = fit_curve_to_levels(levels)
    v = torch.arange(-100, 30_000, dtype=torch.float64)[:, None] - 0.5
    y = Curves([curve])(v)
    assert y.isfinite().all()
    assert (y.diff(dim=0) > 0).all()


def test_a_curve_is_json_of_a_sensible_size():
    curve = fit_curve(np.random.default_rng(0).standard_t(2, 50_000))
    assert Curve.model_validate_json(curve.model_dump_json()) == curve
    assert len(curve.model_dump_json()) < 1500
