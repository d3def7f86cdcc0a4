"""p(x|z): densities and masses against other implementations, sums over all levels, gradients, samples, floors."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal

from jensen.errors import InputError
from jensen.likelihood import (
    Bernoulli,
    BernoulliLikelihood,
    Categorical,
    CategoricalLikelihood,
    DiscretisedGaussian,
    DiscretisedLikelihood,
    DiscretisedLogistic,
    FixedScale,
    FreeScale,
    GaussianLikelihood,
    LearnedScale,
    Observation,
    floored_scale,
    log_normal_interval,
)

LAWS = [DiscretisedGaussian, DiscretisedLogistic]
LEVELS = [2, 17, 256, 65536]
LOCATIONS = [0.0, 0.3, -0.999, 1.0, 1.5, -3.0, 40.0]
SCALES = [1e-4, 2.3e-3, 0.02, 0.08, 0.5, 3.0, 100.0, 1e4]


def grid(levels, dtype=torch.float64):
    """Every level as a batch of one-dimensional x."""
    return torch.linspace(-1, 1, levels, dtype=dtype).unsqueeze(-1)


def exact(law, location, scale, levels):
    """A one-dimensional law with parameters in float64."""
    return law(*(torch.tensor([value], dtype=torch.float64) for value in (location, scale)), levels, 1)


def reference_log_mass(law, location, scale, levels):
    """The log-mass of every level by scipy in float64, subtracted in the tail where it is accurate."""
    edges = ((2 * np.arange(levels + 1) - 1) / (levels - 1) - 1 - location) / scale
    edges[0], edges[-1] = -np.inf, np.inf
    lower, upper = edges[:-1], edges[1:]
    reflected = lower + upper > 0
    near, far = np.where(reflected, -lower, upper), np.where(reflected, -upper, lower)
    log_cdf = (stats.norm if law is DiscretisedGaussian else stats.logistic).logcdf
    return torch.from_numpy(log_cdf(near) + np.log(-np.expm1(log_cdf(far) - log_cdf(near))))


# ---------------------------------------------------------------------------------------------- against others


def test_bernoulli_is_torch_bernoulli():
    logits = 10 * torch.randn(3, 5, 2, 4, dtype=torch.float64)
    x = (torch.rand(5, 2, 4) < 0.5).double()
    expected = Independent(TorchBernoulli(logits=logits), 2)
    ours = Bernoulli(logits, event_dims=2)
    torch.testing.assert_close(ours.log_prob(x), expected.log_prob(x.expand(3, 5, 2, 4)))
    torch.testing.assert_close(ours.mean, expected.mean)


def test_categorical_is_torch_categorical():
    logits = 3 * torch.randn(3, 5, 7, 2, 4, dtype=torch.float64)  # (draws, batch, levels, *shape)
    level = torch.randint(7, (5, 2, 4))
    expected = Independent(TorchCategorical(logits=logits.movedim(2, -1)), 2)
    ours = Categorical(logits, event_dims=2)
    torch.testing.assert_close(ours.log_prob(level / 3 - 1.0), expected.log_prob(level.expand(3, 5, 2, 4)))
    mean = (expected.base_dist.probs * torch.linspace(-1, 1, 7, dtype=torch.float64)).sum(-1)
    torch.testing.assert_close(ours.mean, mean)


def test_gaussian_is_torch_normal():
    likelihood = GaussianLikelihood((2, 4), LearnedScale(0.01))
    output = torch.randn(3, 5, 2, 2, 4)  # (draws, batch, mean and raw scale, *shape)
    x = torch.randn(5, 2, 4)
    expected = Independent(Normal(output[:, :, 0], 0.01 + output[:, :, 1].exp()), 2)
    torch.testing.assert_close(likelihood(output).log_prob(x), expected.log_prob(x))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("levels", [17, 256])
def test_discretised_mass_of_every_level_is_scipys(law, levels):
    # Tails included, down to log-masses of -1e8; the tolerance is the reference's own cancellation
    for location in LOCATIONS:
        for scale in SCALES[:-2]:
            ours = exact(law, location, scale, levels)
            expected = reference_log_mass(law, location, scale, levels)
            torch.testing.assert_close(ours.log_prob(grid(levels)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("law", LAWS)
def test_float32_agrees_with_float64(law):
    # A location of size 1 is known to 6e-8, so a mass at distance m of a scale s to about m * 6e-8 / s
    for scale in (2.3e-3, 0.02, 0.5, 10.0):
        wide = exact(law, 0.25, scale, 256).log_prob(grid(256))
        narrow = law(torch.tensor([0.25]), torch.tensor([scale]), 256, 1).log_prob(grid(256, torch.float32))
        torch.testing.assert_close(narrow.double(), wide, rtol=2e-6, atol=2e-6 / scale)


@pytest.mark.parametrize("middle", [0.0, 0.3, 2.0, 30.0, 1000.0])
@pytest.mark.parametrize("width", [1e-7, 1e-3, 0.05, 0.2, 3.0, 50.0])
def test_the_gradient_of_a_normal_interval_is_exact_even_in_float32(middle, width):
    # d/dm log ∫ phi over m ± w/2 = (phi(upper) - phi(lower)) / mass = -E[t | t in the interval]
    def gradient(dtype):
        m = torch.tensor(middle, dtype=dtype, requires_grad=True)
        return torch.autograd.grad(
            log_normal_interval(m - width / 2, m + width / 2, torch.tensor(width, dtype=dtype)), m
        )[0]

    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(400))
    t = nodes * width / 2
    log_density = weights.log() - middle * t - t.square() / 2  # up to a constant
    expected = -(log_density.softmax(0) * (middle + t)).sum()
    torch.testing.assert_close(gradient(torch.float64), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient(torch.float32).double(), expected, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------------------------------- masses sum to one


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-13)])
def test_discretised_masses_sum_to_one(law, levels, dtype, tolerance):
    # 2e-5 is 65536 roundings of 6e-8 that do not all cancel; 256 levels are within 3e-7
    tolerance = min(tolerance, 3e-7) if levels <= 256 else tolerance
    for location in LOCATIONS:
        for scale in SCALES:
            ours = law(torch.tensor([location], dtype=dtype), torch.tensor([scale], dtype=dtype), levels, 1)
            total = ours.log_prob(grid(levels, dtype)).double().exp().sum().item()
            assert abs(total - 1) < tolerance, (location, scale)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_categorical_and_bernoulli_masses_sum_to_one(levels):
    categorical = Categorical((20 * torch.randn(levels, 1)).expand(levels, levels, 1), event_dims=1)
    assert abs(categorical.log_prob(grid(levels, torch.float32)).double().exp().sum() - 1) < 1e-6
    for logit in (-100.0, -3.0, 0.0, 1.0, 100.0):
        bernoulli = Bernoulli(torch.tensor([logit]), event_dims=1)
        assert abs(bernoulli.log_prob(torch.tensor([[0.0], [1.0]])).double().exp().sum() - 1) < 1e-6


# ---------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discretised_gradients_are_finite_everywhere(law, levels, dtype):
    x = grid(levels, dtype)
    x = torch.cat([x[:: max(1, levels // 256)], x[-1:]])
    for location in [*LOCATIONS, -1000.0]:
        for scale in [1e-5, *SCALES]:
            parameters = [torch.full_like(x, value).requires_grad_() for value in (location, scale)]
            log_prob = law(*parameters, levels, 1).log_prob(x)
            gradients = torch.autograd.grad(log_prob.sum(), parameters)
            assert all(values.isfinite().all() for values in (log_prob, *gradients)), (location, scale)


@pytest.mark.parametrize("law", LAWS)
def test_discretised_gradients_are_right(law):
    x = grid(17)
    location = torch.full_like(x, 0.3).requires_grad_()
    for scale in (0.01, 0.1, 1.0, 30.0):  # every branch of `log_normal_interval`
        log_scale = torch.full_like(x, math.log(scale)).requires_grad_()
        assert torch.autograd.gradcheck(
            lambda a, b: law(a, b.exp(), 17, 1).log_prob(x), (location, log_scale), rtol=1e-4
        )


def test_bernoulli_and_categorical_gradients_are_finite_and_right():
    logits = torch.tensor([-1e4, -50.0, 0.0, 2.0, 50.0, 1e4], requires_grad=True)
    x = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    gradient = torch.autograd.grad(Bernoulli(logits, 1).log_prob(x), logits)[0]
    torch.testing.assert_close(gradient, x - torch.sigmoid(logits))
    table = (1e4 * torch.randn(6, 5)).requires_grad_()
    assert torch.autograd.grad(Categorical(table, 1).log_prob(torch.ones(5)), table)[0].isfinite().all()


# ---------------------------------------------------------------------------------------------- means and samples


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("levels", [17, 256])
def test_discretised_mean_is_the_expectation_within_what_it_promises(law, levels):
    for location in LOCATIONS:
        for scale in SCALES:
            ours = exact(law, location, scale, levels)
            x = grid(levels)
            expectation = (x.squeeze(-1) * ours.log_prob(x).exp()).sum()
            level = 2 / (levels - 1)
            assert abs(ours.mean.item() - expectation) <= 0.5 * level + 1e-9
            if scale > level:  # the midpoint rule's error, level² / 24 times a difference of densities (< 0.4 / scale)
                assert abs(ours.mean.item() - expectation) <= level**2 / 24 * 0.4 / scale * 1.1 + 1e-9


def chi_square_p_value(drawn, probabilities):
    """Of counts of levels; the rare ones, of an expected count below 5 each, count as one."""
    counts = np.bincount(drawn.flatten().numpy(), minlength=len(probabilities)).astype(float)
    expected = probabilities.numpy() * drawn.numel()
    common = expected >= 5
    if not common.all():
        counts = np.append(counts[common], counts[~common].sum())
        expected = np.append(expected[common], expected[~common].sum())
    return stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("location", "scale"), [(0.0, 0.3), (0.9, 0.2), (-1.2, 0.5), (0.2, 0.01)])
def test_discretised_samples_have_the_masses(law, location, scale):
    # chi-square over 17 levels, false-alarm probability 1e-4 each
    ours = exact(law, location, scale, 17)
    u = torch.rand(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = ours.quantile(u)
    level = ((x + 1) * 8).round().long()
    torch.testing.assert_close(x, level / 8 - 1.0, check_dtype=False)  # on the grid
    assert chi_square_p_value(level, ours.log_prob(grid(17)).exp()) > 1e-4


def test_categorical_samples_have_the_masses():
    # chi-square, false-alarm probability 1e-4
    logits = 2 * torch.randn(17, 1, dtype=torch.float64)
    u = torch.rand(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = Categorical(logits.expand(20_000, 17, 1), event_dims=1).quantile(u)
    level = ((x + 1) * 8).round().long()
    assert chi_square_p_value(level, logits.squeeze(-1).softmax(0)) > 1e-4


@pytest.mark.parametrize("distribution", ["discretised gaussian", "discretised logistic", "categorical", "bernoulli"])
def test_quantile_is_the_inverse_distribution_function(distribution):
    # exact: the level at u is k where F(k - 1) < u < F(k), tried just inside either end of every step
    levels = 2 if distribution == "bernoulli" else 17
    ours: Observation = {
        "discretised gaussian": exact(DiscretisedGaussian, 0.2, 0.3, 17),
        "discretised logistic": exact(DiscretisedLogistic, 0.2, 0.3, 17),
        "categorical": Categorical(torch.randn(17, 1, dtype=torch.float64), 1),  # (levels, *shape)
        "bernoulli": Bernoulli(torch.tensor([0.4]).double(), 1),
    }[distribution]
    x = torch.tensor([[0.0], [1.0]]).double() if levels == 2 else grid(levels)
    mass = torch.stack([ours.log_prob(row) for row in x]).exp()
    above = mass.cumsum(0)
    for k in range(levels):
        for u in (above[k] - mass[k] + 1e-6 * mass[k], above[k] - 1e-6 * mass[k]):
            torch.testing.assert_close(ours.quantile(u.reshape(1)), x[k])


def test_gaussian_quantile_is_scipys():
    output = torch.tensor([[0.3], [-1.0]], dtype=torch.float64)
    u = torch.tensor([[1e-12], [0.2], [0.5], [0.999999]], dtype=torch.float64)
    ours = GaussianLikelihood((1,), LearnedScale(0.1))(output).quantile(u)
    expected = stats.norm(0.3, 0.1 + math.exp(-1)).ppf(u.numpy())
    torch.testing.assert_close(ours, torch.from_numpy(expected))


# ---------------------------------------------------------------------------------------------- scales


def test_floored_scale():
    raw = torch.tensor([-math.inf, -1e4, -100.0, -5.0, 0.0, 5.0, 80.0], requires_grad=True)
    scale = floored_scale(raw, 0.01)
    assert (scale >= 0.01).all()  # never below, in float32 too
    torch.testing.assert_close(scale[-2:], raw[-2:].exp(), rtol=1e-4, atol=0)  # far above it is exp
    slope = torch.autograd.grad(scale.log().sum(), raw)[0]
    assert ((slope >= 0) & (slope <= 1)).all()


@pytest.mark.parametrize(
    ("scale", "shape", "outputs"),
    [
        (LearnedScale(0.01), (5, 2, 3), 2),
        (FreeScale((2, 3), 0.01), (2, 3), 1),
        (FreeScale((), 0.01), (), 1),
        (FixedScale(0.3), (), 1),
    ],
    ids=["learned", "per dimension", "shared", "fixed"],
)
def test_where_the_scale_comes_from(scale, shape, outputs):
    likelihood = GaussianLikelihood((2, 3), scale)
    assert likelihood.outputs == outputs
    distribution = likelihood(torch.zeros(5, outputs, 2, 3))
    assert distribution.scale.shape == shape
    assert distribution.log_prob(torch.zeros(5, 2, 3)).shape == (5,)
    expected = {LearnedScale: 1.01, FreeScale: 0.51, FixedScale: 0.3}[type(scale)]
    torch.testing.assert_close(distribution.scale, torch.full(shape, expected))


@pytest.mark.parametrize("variance", ["learned", "per dimension"])
def test_a_constant_pixel_drives_its_scale_to_the_floor_and_no_further(variance):
    data = torch.randn(200, 3)
    data[:, 1] = 0.25  # constant: without a floor its density has no bound
    likelihood = GaussianLikelihood((3,), LearnedScale(0.01) if variance == "learned" else FreeScale((3,), 0.01))
    output = torch.nn.Parameter(torch.zeros(likelihood.outputs, 3))
    optimiser = torch.optim.Adam([output, *likelihood.parameters()], lr=0.1)
    for _ in range(600):
        loss = -likelihood(output).log_prob(data).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.isfinite()
    scale = likelihood(output).scale
    torch.testing.assert_close(scale[1].item(), 0.01, rtol=0.01, atol=0)
    torch.testing.assert_close(scale[[0, 2]].detach(), data[:, [0, 2]].std(0), rtol=0.05, atol=0)
    report = likelihood.diagnostics(output.detach())
    assert report["share of scales at the floor"] == pytest.approx(1 / 3)
    assert report["decoder scale, floor"] == 0.01
    assert report["decoder scale, mean"] == pytest.approx(scale.mean().item())


def test_a_fixed_scale_and_no_scale_have_nothing_to_report():
    assert GaussianLikelihood((3,), FixedScale(1.0)).diagnostics(torch.zeros(5, 1, 3)) == {}
    assert BernoulliLikelihood((3,)).diagnostics(torch.zeros(5, 1, 3)) == {}


# ---------------------------------------------------------------------------------------------- shapes and refusals


@pytest.mark.parametrize(
    "likelihood",
    [
        GaussianLikelihood((2, 3), LearnedScale(0.01)),
        BernoulliLikelihood((2, 3)),
        DiscretisedLikelihood((2, 3), FreeScale((2, 3), 0.01), 17, DiscretisedLogistic),
        DiscretisedLikelihood((2, 3), LearnedScale(0.01), 17, DiscretisedGaussian),
        CategoricalLikelihood((2, 3), 17),
    ],
    ids=lambda likelihood: type(likelihood).__name__,
)
def test_draws_and_examples_keep_their_places(likelihood):
    """What (draws, batch) scores at once is what each (draw, example) scores alone."""
    output = torch.randn(4, 5, likelihood.outputs, 2, 3)
    x = torch.randint(17, (5, 2, 3)) / 8 - 1.0
    distribution = likelihood(output)
    assert isinstance(distribution, Observation)
    together = distribution.log_prob(x)
    alone = torch.stack([likelihood(one).log_prob(y) for row in output for one, y in zip(row, x, strict=True)])
    torch.testing.assert_close(together, alone.reshape(4, 5))
    u = torch.rand(5, 2, 3, dtype=torch.float64)
    assert distribution.mean.shape == distribution.quantile(u).shape == (4, 5, 2, 3)
    assert distribution.quantile(u).dtype == distribution.mean.dtype == torch.float32


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_unusable_scales_are_refused(value):
    for make in (
        LearnedScale,
        FixedScale,
        lambda floor: FreeScale((), floor),
        lambda initial: FreeScale((), 0.1, initial),
    ):
        with pytest.raises(InputError, match="expected a standard deviation > 0"):
            make(value)


def test_unusable_levels_are_refused():
    with pytest.raises(InputError, match="categorical likelihood over 257 levels"):
        CategoricalLikelihood((3,), 257)
    with pytest.raises(InputError, match="discretised likelihood over 1 levels"):
        DiscretisedLikelihood((3,), FixedScale(0.1), 1, DiscretisedGaussian)
