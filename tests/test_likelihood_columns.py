"""Laws of columns: sums and integrals, other implementations, quantiles, gradients, missing cells, and their order."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from jensen.errors import InputError
from jensen.likelihood import Codes, ColumnsLikelihood, Count, Observation, Real, Whole
from jensen.likelihood.count import CountCells
from jensen.monotone import Curves, fit_curve, fit_curve_to_levels

RANDOM = np.random.default_rng(0)
SKEWED = fit_curve_to_levels(RANDOM.negative_binomial(1, 0.01, 3000).clip(0, 499).astype(float))
SMALL = fit_curve_to_levels(RANDOM.binomial(6, 0.4, 1000).astype(float))
ATOMS = (-0.5, 0.25, 1.75)
LAWS = {
    "codes": Codes(7),
    "boolean": Codes(2),
    "one code": Codes(1),
    "whole": Whole(500, SKEWED),
    "few": Whole(7, SMALL, components=2),
    "one level": Whole(1, SMALL, components=1),
    "count": Count(20.0),
    "real": Real(),
    "atoms": Real(ATOMS, components=3),
}
MIXED = [
    Codes(3, missing=True),
    Real(ATOMS, components=3),
    Whole(500, SKEWED),
    Count(20.0, missing=True),
    Real((0.0,), missing=True),
    Codes(4),
    Real(components=3),
    Whole(7, SMALL, missing=True),
    Codes(2),
    Count(1.0),
]
EXTREMES = [0.0, 1.0, -30.0, 1e4, -1e4]


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]


def one(law, *batch, scale=2.0, dtype=torch.float64):
    """A distribution of one column, with random parameters."""
    likelihood = ColumnsLikelihood([law])
    return likelihood.to(dtype)(scale * torch.randn(*batch, likelihood.outputs, dtype=dtype))


def total(p, law, dtype=torch.float64):
    """The sum of the masses and the integral of the density of a column, (batch)."""
    if isinstance(law, Codes | Whole):
        return p.log_prob(torch.arange(law.levels, dtype=dtype)[:, None, None]).exp().sum(0)
    if isinstance(law, Count):
        # Up to a quantile so high that nothing is left, plus what is left of p by its own distribution function
        k = torch.arange(4096, dtype=dtype)[:, None, None]
        return p.log_prob(k).exp().double().sum(0) + 1 - p.cdf(k[-1])[:, 0]
    # Gauss-Legendre quadrature between points that lie densely around each component
    cells = p.parts[0].components
    t = torch.linspace(-10, 10, 41, dtype=torch.float64)
    edges = (cells.locations[:, 0, :, None] + cells.scales[:, 0, :, None] * t).flatten(1).sort(1).values.mT
    nodes, weights = (torch.from_numpy(each)[:, None, None] for each in np.polynomial.legendre.leggauss(20))
    half = edges.diff(dim=0) / 2
    density = p.log_prob((edges[:-1] + half + half * nodes).unsqueeze(-1)).exp()
    integral = (weights * half * density).sum((0, 1))
    atoms = sum(p.log_prob(torch.full((1, 1), atom, dtype=dtype)).exp() for atom in law.atoms)
    return integral + atoms


# ---------------------------------------------------------------------------------------------- sums and integrals


def test_each_law_sums_or_integrates_to_one(law):
    torch.testing.assert_close(total(one(law, 20), law), torch.ones(20, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["codes", "whole", "few", "count"])
def test_masses_sum_to_one_in_float32_at_extreme_parameters(name):
    law = LAWS[name]
    likelihood = ColumnsLikelihood([law])
    outputs = torch.tensor(EXTREMES)[torch.randint(len(EXTREMES), (100, likelihood.outputs))]
    if isinstance(law, Count):  # means of up to exp(15) times that of the data do not fit in a sum of 4,096 terms
        outputs = outputs.clamp(-5, 2)
    found = total(likelihood(outputs), law, torch.float32)
    torch.testing.assert_close(found.double(), torch.ones(100, dtype=torch.float64), rtol=2e-5, atol=2e-5)


def test_values_and_gradients_are_finite_at_extreme_parameters(law):
    likelihood = ColumnsLikelihood([law])
    values = torch.tensor(EXTREMES)
    outputs = values[torch.randint(len(values), (500, likelihood.outputs))].requires_grad_()
    x = {Codes: [0.0], Whole: [0.0, 1.0, 6.0], Count: [0.0, 3.0, 1e6], Real: [0.0, 0.25, -30.0, 1e4]}[type(law)]
    for value in x:
        value = min(value, law.levels - 1) if isinstance(law, Codes | Whole) else value
        log_prob = likelihood(outputs).log_prob(torch.full((1, 1), value))
        assert log_prob.isfinite().all()
        (gradient,) = torch.autograd.grad(log_prob.sum(), outputs)
        assert gradient.isfinite().all()


def test_gradients_are_those_of_differences(law):
    likelihood = ColumnsLikelihood([law]).double()
    outputs = torch.randn(5, likelihood.outputs, dtype=torch.float64, requires_grad=True)
    x = torch.zeros(1, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda output: likelihood(output).log_prob(x), outputs, atol=1e-6)


# ---------------------------------------------------------------------------------------------- against others


def test_counts_are_scipys_zero_inflated_negative_binomial():
    likelihood = ColumnsLikelihood([Count(20.0)])
    outputs = 2 * torch.randn(50, 3, dtype=torch.float64)
    p = likelihood(outputs)
    cells = p.parts[0]
    mean, r, zero = (each.numpy() for each in (cells.log_mean.exp(), cells.log_failures.exp(), cells.zero.sigmoid()))
    law = stats.nbinom(r, r / (r + mean))
    for k in (0, 1, 5, 100, 1_000_000):
        expected = np.where(k == 0, np.log(zero + (1 - zero) * law.pmf(0)), np.log1p(-zero) + law.logpmf(k))
        ours = p.log_prob(torch.full((1, 1), float(k)))
        # scipy loses digits in the difference of logarithms of factorials
        np.testing.assert_allclose(ours, expected[:, 0], rtol=1e-6, atol=1e-6)
        cdf = p.cdf(torch.full((50, 1), float(k)))
        np.testing.assert_allclose(cdf, zero + (1 - zero) * law.cdf(k), rtol=1e-9)
    np.testing.assert_allclose(p.mean, (1 - zero) * mean)


def test_codes_are_torchs_categorical():
    likelihood = ColumnsLikelihood([Codes(3), Codes(5), Codes(4)])  # 5 pads none, 3 and 4 go together
    outputs = torch.randn(2, 6, 12, dtype=torch.float64)
    x = torch.stack([torch.randint(levels, (6,)) for levels in (3, 5, 4)], 1).double()
    found = likelihood(outputs).log_prob_by_dimension(x)
    three, four, five = outputs.split((3, 4, 5), -1)
    for column, logits in enumerate((three, five, four)):
        expected = torch.distributions.Categorical(logits=logits).log_prob(x[:, column])
        torch.testing.assert_close(found[..., column], expected)


def test_real_numbers_are_torchs_mixture_beside_atoms():
    p = one(LAWS["atoms"], 30)
    cells = p.parts[0]
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=cells.components.log_weights[:, 0]),
        torch.distributions.Normal(cells.components.locations[:, 0], cells.components.scales[:, 0]),
    )
    x = torch.randn(30, 1, dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(x), cells.log_shares[:, 0, 0] + mixture.log_prob(x[:, 0]))
    at = torch.full((30, 1), ATOMS[1], dtype=torch.float64)
    torch.testing.assert_close(p.log_prob(at), cells.log_shares[:, 0, 2])


def test_whole_numbers_are_bins_of_logistic_laws_of_the_curve():
    p = one(LAWS["whole"], 30)
    cells, k = p.parts[0].components, torch.randint(1, 499, (30, 1)).double()
    lower, upper = (Curves([SKEWED])(k + side) for side in (-0.5, 0.5))
    laws = stats.logistic(cells.locations[:, 0].numpy(), cells.scales[:, 0].numpy())
    masses = laws.cdf(upper.numpy()) - laws.cdf(lower.numpy())
    expected = (cells.log_weights[:, 0].exp().numpy() * masses).sum(-1)
    np.testing.assert_allclose(p.log_prob(k).exp(), expected, rtol=1e-9, atol=1e-15)


# ---------------------------------------------------------------------------------------------- quantiles, means


def test_the_quantile_inverts_the_distribution_function(law):
    p = one(law, 400)
    u = torch.rand(400, 1, dtype=torch.float64)
    x = p.quantile(u)
    if isinstance(law, Real):
        atom = torch.isin(x, torch.tensor(law.atoms, dtype=torch.float64))
        torch.testing.assert_close(p.cdf(x)[~atom], u[~atom], rtol=1e-9, atol=1e-9)
        below = p.cdf(x) - torch.where(atom[:, 0], p.log_prob(x).exp(), 0)[:, None]
        assert atom.any() == bool(law.atoms)
    else:
        below = p.cdf(x - 1)
        assert (x == x.round()).all()
    assert (p.cdf(x) >= u - 1e-9).all()
    assert (below <= u + 1e-9).all()


def test_the_distribution_function_is_the_sum_of_the_masses():
    for law in (LAWS["codes"], LAWS["whole"], LAWS["few"], LAWS["count"]):
        p = one(law, 20)
        k = torch.arange(getattr(law, "levels", 300), dtype=torch.float64)[:, None, None]
        sums = p.log_prob(k).exp().cumsum(0)
        torch.testing.assert_close(p.cdf(k.expand(-1, 20, 1))[..., 0], sums, rtol=1e-8, atol=1e-8)


def test_the_quantile_of_float32_parameters_is_right_for_extreme_u(law):
    p = one(law, 100, dtype=torch.float32)
    for u in (1e-12, 1 - 1e-12):
        x = p.quantile(torch.full((100, 1), u, dtype=torch.float64))
        assert x.isfinite().all()
        assert p.log_prob(x).isfinite().all()


@pytest.mark.parametrize(("name", "tolerance"), [("whole", 0.01), ("few", 1e-9), ("real", 0.02), ("atoms", 0.02)])
def test_the_mean_is_that_of_the_distribution(name, tolerance):
    law = LAWS[name]
    p = one(law, 20, scale=1.0)
    if isinstance(law, Whole):
        k = torch.arange(law.levels, dtype=torch.float64)[:, None, None]
        expected = (p.log_prob(k).exp() * k[..., 0]).sum(0)
        torch.testing.assert_close(p.mean[:, 0], expected, rtol=tolerance, atol=tolerance)
    else:  # the mean of quantiles at midpoints
        u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        expected = p.quantile(u[:, None, None].expand(-1, 20, 1)).mean(0)
        torch.testing.assert_close(p.mean, expected, rtol=0, atol=tolerance)


def test_the_mean_of_codes_is_the_most_probable_code():
    p = one(LAWS["codes"], 20)
    assert (p.mean[:, 0] == p.log_probabilities(0).argmax(-1)).all()


# ---------------------------------------------------------------------------------------------- rows


@pytest.fixture
def mixed():
    """A likelihood of many columns in mixed order, float64 outputs (2, 6), and rows with missing cells."""
    likelihood = ColumnsLikelihood(MIXED).double()
    p = likelihood(torch.randn(2, 6, likelihood.outputs, dtype=torch.float64))
    x = p.quantile(torch.rand(2, 6, len(MIXED), dtype=torch.float64))[1].float().double()
    return likelihood, p, x


def test_columns_are_in_the_order_of_their_laws_and_each_is_as_alone(mixed):
    likelihood, p, x = mixed
    assert isinstance(p, Observation)
    assert likelihood.outputs == sum(law.outputs + law.missing for law in MIXED)
    by_dimension = p.log_prob_by_dimension(x)
    torch.testing.assert_close(by_dimension.sum(-1), p.log_prob(x))
    u = torch.rand(2, 6, len(MIXED), dtype=torch.float64)
    for column, law in enumerate(MIXED):
        alone, cells = p.field(column), x[:, column : column + 1]
        assert type(alone.parts[0]).__name__.startswith(type(law).__name__)
        torch.testing.assert_close(alone.log_prob(cells), by_dimension[..., column])
        torch.testing.assert_close(alone.mean[..., 0], p.mean[..., column])
        one_u = u[..., column : column + 1]
        torch.testing.assert_close(alone.quantile(one_u)[..., 0], p.quantile(u)[..., column], equal_nan=True)
        torch.testing.assert_close(alone.cdf(cells)[..., 0], p.cdf(x)[..., column])


def test_missing_is_a_value_with_its_own_probability(mixed):
    _, p, x = mixed
    nothing = torch.full_like(x, math.nan)
    absent, present = p.log_prob_by_dimension(nothing).exp(), p.present()
    for column, law in enumerate(MIXED):
        assert (absent[..., column] > 0).all() == law.missing
    filled = torch.where(x.isnan(), 0.0, x)
    # P(missing) and the masses or densities of present cells add up to those given that the cell is present
    expected = present.log_prob_by_dimension(filled) + torch.log1p(-absent)
    torch.testing.assert_close(p.log_prob_by_dimension(filled), expected)
    assert (present.log_prob_by_dimension(nothing) == -math.inf).all()
    assert not present.quantile(torch.rand(2, 6, len(MIXED), dtype=torch.float64)).isnan().any()
    u = torch.rand(2, 6, len(MIXED), dtype=torch.float64)
    assert (p.quantile(u).isnan() == (u < absent)).all()


def test_missing_cells_have_finite_gradients(mixed):
    likelihood, _, x = mixed
    x[:, [0, 3, 4, 7]] = math.nan
    outputs = torch.randn(6, likelihood.outputs, dtype=torch.float64, requires_grad=True)
    likelihood(outputs).log_prob(x).sum().backward()
    assert outputs.grad.isfinite().all()


def test_probabilities_of_a_column(mixed):
    _, p, _ = mixed
    for column, law in enumerate(MIXED):
        if isinstance(law, Codes | Whole):
            found = p.log_probabilities(column)
            assert found.shape == (2, 6, law.levels)
            torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 6, dtype=torch.float64))
        else:
            with pytest.raises(InputError, match="no list of probabilities"):
                p.log_probabilities(column)


def test_a_sample_has_the_frequencies_of_the_law():
    # 4,000 draws; each frequency within 4.5 standard errors: a false alarm has probability 1e-4 for the 14 numbers.
    likelihood = ColumnsLikelihood(MIXED).double()
    outputs = torch.randn(likelihood.outputs, dtype=torch.float64)
    p, n = likelihood(outputs), 4_000
    x = likelihood(outputs.expand(n, -1)).quantile(torch.rand(n, len(MIXED), dtype=torch.float64))
    for column, law in enumerate(MIXED):
        absent = p.log_prob_by_dimension(torch.full((len(MIXED),), math.nan, dtype=torch.float64))[column].exp()
        points = ATOMS if isinstance(law, Real) and len(law.atoms) == 3 else (0.0,)
        for point in points:
            if isinstance(law, Real) and not law.atoms:
                continue
            mass = p.log_prob_by_dimension(torch.full((len(MIXED),), point, dtype=torch.float64))[column].exp()
            found = (x[:, column] == point).double().mean()
            assert abs(found - mass) < 4.5 * math.sqrt(mass * (1 - mass) / n) + 1e-9
        assert abs(x[:, column].isnan().double().mean() - absent) < 4.5 * math.sqrt(absent * (1 - absent) / n) + 1e-9


def test_a_table_needs_columns():
    with pytest.raises(InputError, match="without columns"):
        ColumnsLikelihood([])


def test_curves_are_no_parameters_and_not_in_the_checkpoint():
    likelihood = ColumnsLikelihood(MIXED)
    assert not likelihood.state_dict()
    assert not list(likelihood.parameters())
    assert Real((0.0,), components=2) == Real((0.0,), components=2)
    assert Whole(7, fit_curve(np.arange(9.0))) != Whole(7, SMALL)


@pytest.mark.parametrize(("log_mean", "log_failures"), [(40.0, -10.0), (22.0, -1.0), (15.0, 15.0), (30.0, -14.0)])
def test_quantiles_of_extreme_counts_are_numbers_and_invert_the_distribution_function(
    log_mean: float, log_failures: float
) -> None:
    """In float32 the chance of a failure would be 0 there, and a quantile NaN, which means a missing cell."""
    cells = CountCells(torch.tensor([log_mean]), torch.tensor([log_failures]), torch.tensor([-3.0]))
    u = torch.tensor([[0.2], [0.5], [0.9], [0.999999]]).double()
    k = cells.quantile(u)
    assert (k >= 0).all()
    assert k.isfinite().all()
    reached, before = cells.cdf(k), torch.where(k > 0, cells.cdf(k - k.clamp(max=1)), 0)
    rounded = 1e-6 * (1 + k) * cells.log_prob(k).exp()  # large counts are quantiles of a gamma law, which is continuous
    assert (reached >= u - 1e-3 * (1 - u) - rounded).all()
    assert (before <= u + 1e-3 * (1 - u) + rounded).all()
