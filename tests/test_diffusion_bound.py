"""The bound (5.11) term by term, against `Gaussian.kl`, (5.16), (5.20); estimates of it against exact mode."""

import math
from dataclasses import replace

import pytest
import torch
from mixtures import ExactDenoiser, three_clusters
from six_levels import SixLevels

from jensen.diffusion.analytic import AnalyticVariance, MeanSquaredErrors
from jensen.diffusion.bound import DiffusionBound, Strata, estimate_bound, reconstruction_law, reverse_kl
from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.process import beta, marginal, posterior
from jensen.diffusion.reverse import BetaVariance, LearnedVariance, PosteriorVariance, reverse_step
from jensen.diffusion.schedule import LinearLogSnr, UniformLogSnr, alpha_bar, one_minus_alpha_bar
from jensen.errors import InputError
from jensen.likelihood import DiscretisedGaussian
from jensen.randomness import generator

MIXTURE = three_clusters()
TABLE = MeanSquaredErrors().double()
VARIANCES = {
    "beta": BetaVariance(),
    "posterior": PosteriorVariance(),
    "learned": LearnedVariance(),
    "analytic": AnalyticVariance(TABLE),
}


class Offset(AbstractDenoiser):
    """x̂ = x_0 + error for the x_0 that it is told: a constant error."""

    def __init__(self, x0: torch.Tensor, error: torch.Tensor) -> None:
        super().__init__()
        self.x0, self.error = x0, error

    def forward(self, x_t, log_snr, labels=None):
        x0 = (self.x0 + self.error).expand(len(x_t), -1)
        return Denoised.from_x0(x_t, log_snr, x0)


def predictions(dtype=torch.float64):
    """Some x_0, log-SNRs s and t and wrong predictions at t, with a variance mix."""
    source = generator(1)
    x0, wrong, eps = (torch.randn(6, 3, 4, generator=source, dtype=torch.float64) for _ in range(3))
    log_snr_t = torch.tensor([-9.0, -3.0, 0.0, 1.0, 5.0, 9.0], dtype=torch.float64)
    log_snr_s = log_snr_t + torch.tensor([3.0, 0.1, 1e-3, 1.0, 0.5, 4.0], dtype=torch.float64)
    kernel = marginal(x0, log_snr_t)
    x_t = kernel.mean + kernel.scale * eps
    prediction = Denoised.from_x0(x_t.to(dtype), log_snr_t, (x0 + 0.3 * wrong).to(dtype))
    mix = torch.rand(x0.shape, generator=source, dtype=torch.float64).to(dtype)
    return x0.to(dtype), log_snr_s, replace(prediction, variance_mix=mix)


# ---------------------------------------------------------------------------------------------- one term


@pytest.mark.parametrize("variance", VARIANCES)
def test_denoising_term_is_the_kl_of_the_two_kernels(variance):
    x0, log_snr_s, prediction = predictions()
    q = posterior(prediction.x_t, x0, log_snr_s, prediction.log_snr)  # (5.8)
    p = reverse_step(prediction, log_snr_s, VARIANCES[variance])  # (5.12)
    found = reverse_kl(prediction, x0, log_snr_s, VARIANCES[variance])
    torch.testing.assert_close(found, q.kl(p), rtol=1e-9, atol=1e-12)


def test_denoising_term_in_single_precision_is_accurate_to_five_digits():
    x0, log_snr_s, prediction = predictions()
    exact = reverse_kl(prediction, x0, log_snr_s, PosteriorVariance())
    x0, log_snr_s, prediction = predictions(torch.float32)
    torch.testing.assert_close(
        reverse_kl(prediction, x0, log_snr_s, PosteriorVariance()).double(), exact, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("variance", ["beta", "posterior", "analytic"])
def test_denoising_term_is_a_weighted_square_of_the_noise_error(variance):
    x0, s, prediction = predictions()
    t = prediction.log_snr
    eps = (prediction.x_t - alpha_bar(t).sqrt()[:, None, None] * x0) / one_minus_alpha_bar(t).sqrt()[:, None, None]
    squares = (eps - prediction.eps).square().flatten(1).sum(1)
    sigma_squared = VARIANCES[variance].scale(prediction, s).square().flatten()
    b = beta(s, t)
    weight = b.square() / (2 * sigma_squared * (1 - b) * one_minus_alpha_bar(t))  # (5.16)
    perfect = replace(prediction, x0=x0)
    constant = reverse_kl(perfect, x0, s, VARIANCES[variance])
    torch.testing.assert_close(reverse_kl(prediction, x0, s, VARIANCES[variance]) - constant, weight * squares)


def test_with_the_posterior_variance_a_term_is_the_loss_of_snr_times_the_squared_error():
    x0, s, prediction = predictions()
    lost = torch.exp(prediction.log_snr) * torch.expm1(s - prediction.log_snr)  # snr_s - snr_t
    expected = 0.5 * lost * (x0 - prediction.x0).square().flatten(1).sum(1)  # (5.20)
    torch.testing.assert_close(reverse_kl(prediction, x0, s, PosteriorVariance()), expected, rtol=1e-12, atol=0)


def test_terms_of_a_constant_error_telescope():
    x0, error = torch.tensor([[0.4, -0.7, 0.1]]).double(), torch.tensor([0.3, 0.1, -0.2]).double()
    grid = UniformLogSnr()(LinearLogSnr(7, -9), 40)
    found = estimate_bound(
        DiffusionBound(Offset(x0, error), grid, PosteriorVariance()), x0, Strata.every_step(40)
    ).elbo()
    expected = 0.5 * (grid[1].exp() - grid[-1].exp()) * error.square().sum()  # Σ (5.20)
    torch.testing.assert_close(found.rates["denoising"], expected.reshape(1), rtol=1e-10, atol=0)
    density = torch.distributions.Normal(error, one_minus_alpha_bar(grid[1]).sqrt()).log_prob(torch.zeros(3)).sum()
    torch.testing.assert_close(found.reconstruction, density.reshape(1))  # L_0 and
    torch.testing.assert_close(found.value, (density - expected).reshape(1) - found.rates["prior"])  # (5.11)


def test_prior_term_is_the_kl_to_the_standard_normal():
    x0 = torch.randn(5, 3, 4, generator=generator(2), dtype=torch.float64)
    grid = UniformLogSnr()(LinearLogSnr(6, -3), 10)
    scale = one_minus_alpha_bar(grid[-1]).sqrt()
    q = torch.distributions.Normal(alpha_bar(grid[-1]).sqrt() * x0, scale)
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(DiffusionBound(ExactDenoiser(MIXTURE), grid, BetaVariance()).prior(x0), expected)


@pytest.mark.parametrize("levels", [2, 256])
def test_first_term_is_a_mass_that_adds_up_to_one_over_the_levels(levels):
    grid = UniformLogSnr()(LinearLogSnr(8, -8), 10)
    every_level = torch.linspace(-1, 1, levels, dtype=torch.float64).unsqueeze(1)
    for place in (-1.3, 0.02, 0.999):
        bound = DiffusionBound(Offset(torch.zeros(1).double(), torch.tensor([place])), grid, BetaVariance(), levels)
        first = torch.ones(levels, dtype=torch.long)
        x_1 = torch.zeros(levels, 1, dtype=torch.float64)
        term = bound.term(bound.denoiser(x_1, grid[first]), every_level, first)
        assert float((-term).exp().sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("variance", VARIANCES)
def test_first_term_is_the_density_or_the_mass_around_the_prediction(variance):
    x0, _, prediction = predictions()
    x0 = (x0 * 20).round().clamp(-127, 128) / 127.5 - 1 / 255  # on the grid of 256 levels
    grid = torch.cat([torch.tensor([math.inf, 9.0, 5.0]).double(), prediction.log_snr.flip(0)])
    scale = VARIANCES[variance].scale(prediction, torch.full((6,), math.inf).double()).expand_as(x0)
    first = torch.ones(6, dtype=torch.long)
    density = torch.distributions.Normal(prediction.x0, scale).log_prob(x0).flatten(1).sum(1)
    mass = DiscretisedGaussian(prediction.x0, scale, 256, 2).log_prob(x0)
    for levels, expected in ((None, density), (256, mass)):
        bound = DiffusionBound(ExactDenoiser(MIXTURE), grid, VARIANCES[variance], levels)
        torch.testing.assert_close(-bound.term(prediction, x0, first), expected)


def test_the_first_term_over_levels_has_no_scale_below_a_tenth_of_their_spacing():
    """The mean of L_0 is then not carried by a few examples, and nothing is lost where x̂ is right."""
    case = SixLevels()
    assert case.mean() < 0.01  # 1.05 without the floor
    assert case.terms(0, 2000).max() < 50  # hundreds without
    right = Denoised.from_x0(torch.zeros(5, 16).double(), torch.full((5,), 30.0).double(), torch.full((5, 16), 0.2))
    bound = DiffusionBound(ExactDenoiser(MIXTURE), chain().log_snr, BetaVariance(), levels=6)
    cost = bound.reconstruction_term(right, right.x0.double(), torch.ones(5, dtype=torch.long))
    assert (cost <= 16 * 5.8e-7).all()  # 2 Phi(-5) a dimension
    density = reconstruction_law(right, BetaVariance(), None)
    assert (density.scale < 1e-6).all()  # a density has no floor: it has no levels


def test_learned_variance_lies_between_the_two_others():
    x0, s, prediction = predictions()
    for mix, other in ((1.0, BetaVariance()), (0.0, PosteriorVariance())):
        at_end = replace(prediction, variance_mix=torch.full_like(x0, mix))
        torch.testing.assert_close(
            reverse_kl(at_end, x0, s, LearnedVariance()), reverse_kl(prediction, x0, s, other), rtol=1e-9, atol=1e-12
        )


# ---------------------------------------------------------------------------------------------- strata


def test_every_step_is_exact():
    strata = Strata.every_step(9)
    step, weight = strata.draw(torch.rand(4, 3, 8, dtype=torch.float64, generator=generator(0)))
    assert (step == torch.arange(2, 10)).all()
    assert (weight == 1).all()


@pytest.mark.parametrize("count", [1, 7, 40])
def test_estimate_over_strata_is_unbiased_for_any_importance(count):
    """The average over u, here over an even grid of u, is the sum over the steps of each stratum."""
    terms = torch.randn(99, dtype=torch.float64, generator=generator(3)).exp()
    importance = torch.randn(99, dtype=torch.float64, generator=generator(4)).mul(3).exp()
    strata = Strata.weighted(importance, count)
    u = ((torch.arange(200_000) + 0.5) / 200_000).double()
    step, weight = strata.draw(u.unsqueeze(1).expand(-1, strata.count))
    estimate = (terms[step - 2] * weight).mean(0)
    expected = torch.zeros(strata.count, dtype=torch.float64).index_add_(0, strata.stratum, terms)
    torch.testing.assert_close(estimate, expected, rtol=3e-3, atol=0)
    assert strata.count <= count
    assert int(strata.sizes().sum()) == 99


def test_importance_close_to_the_terms_reduces_the_error():
    terms = torch.linspace(-6, 4, 199, dtype=torch.float64).exp()
    u = torch.rand(4000, 10, dtype=torch.float64, generator=generator(5))
    spread = {}
    for name, importance in (("even", torch.ones(199)), ("matched", terms)):
        strata = Strata.weighted(importance, 10)
        step, weight = strata.draw(u[:, : strata.count])
        spread[name] = float((terms[step - 2] * weight).sum(1).std())
    assert spread["matched"] < 0.2 * spread["even"]


# ---------------------------------------------------------------------------------------------- estimates


def chain(steps: int = 24) -> DiffusionBound:
    return DiffusionBound(ExactDenoiser(MIXTURE), UniformLogSnr()(LinearLogSnr(8, -10), steps), BetaVariance())


def importance(steps: int = 24) -> torch.Tensor:
    return torch.linspace(1, 3, steps - 1)


def test_exact_mode_adds_up_every_term():
    bound, x = chain(12), MIXTURE.sample(5, generator(6))
    found = estimate_bound(bound, x, Strata.every_step(12), draws=2, seed=3)
    assert found.nats.shape == (2, 11, 5)
    elbo = found.elbo()
    torch.testing.assert_close(elbo.rates["denoising"], found.nats.sum(1).mean(0))
    torch.testing.assert_close(elbo.value, (found.reconstruction - found.nats.sum(1)).mean(0) - bound.prior(x))
    assert (found.nats >= 0).all()


def test_estimate_from_few_terms_agrees_with_exact_mode():
    x = MIXTURE.sample(1000, generator(7))
    exact = estimate_bound(chain(), x, Strata.every_step(24), draws=4, seed=1).elbo()
    for count in (1, 6):
        few = estimate_bound(chain(), x, Strata.weighted(importance(), count), draws=4, seed=2).elbo()
        difference = few.value - exact.value
        z = difference.mean() / (difference.std() / math.sqrt(len(x)))
        assert abs(float(z)) < 4.4  # two-sided normal: false alarm 1e-5


def test_standard_error_is_that_of_the_value():
    """Copies of one example with noise of their own: the spread of their values is what the errors say."""
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64).expand(1500, 2)
    for strata in (Strata.every_step(24), Strata.weighted(importance(), 4)):
        elbo = estimate_bound(chain(), x, strata, draws=6, seed=5).elbo()
        # The ratio of the two variances has a relative deviation of about sqrt((2 + k / 6) / 1500), 7 % for an excess
        # kurtosis k of one draw as high as 30: false alarm below 1e-5
        assert float(elbo.value.var() / elbo.standard_error.square().mean()) == pytest.approx(1, abs=0.3)


def test_an_example_has_its_own_randomness_whatever_its_batch():
    x, index = MIXTURE.sample(700, generator(8)), torch.arange(700) + 10  # more rows than one call of the network
    strata = Strata.weighted(importance(), 3)
    whole = estimate_bound(chain(), x, strata, draws=2, seed=4, index=index)
    rows = torch.tensor([650, 3, 77])
    part = estimate_bound(chain(), x[rows], strata, draws=2, seed=4, index=index[rows])
    torch.testing.assert_close(part.nats, whole.nats[:, :, rows], rtol=1e-12, atol=0)
    torch.testing.assert_close(part.reconstruction, whole.reconstruction[:, rows], rtol=1e-12, atol=0)
    other = estimate_bound(chain(), x[rows], strata, draws=2, seed=5, index=index[rows])
    assert (other.reconstruction != part.reconstruction).all()
    one = estimate_bound(chain(), x[rows], strata, draws=1, seed=4, index=index[rows])
    torch.testing.assert_close(one.reconstruction[0], part.reconstruction[0])
    assert one.elbo().standard_error is None


def test_profile_adds_up_to_the_bound_and_tells_rate_and_distortion():
    x = MIXTURE.sample(200, generator(9))
    found = estimate_bound(chain(), x, Strata.every_step(24), draws=2)
    profile, elbo = found.profile(), found.elbo()
    torch.testing.assert_close(profile.nats.sum(0), -elbo.value)  # for every example
    torch.testing.assert_close(elbo.profile.nats, profile.nats)
    assert profile.last_step.tolist() == list(range(1, 25))
    assert (profile.steps == 1).all()
    torch.testing.assert_close(profile.log_snr, chain().log_snr)
    rate, distortion = profile.rate_distortion()
    nats = profile.nats.mean(1)
    torch.testing.assert_close(rate[0], nats[-1])  # x_T known: L_T spent
    torch.testing.assert_close(rate[-2], nats[1:].sum())  # x_1 known: all but L_0 spent
    torch.testing.assert_close(rate[-1], nats.sum())
    assert distortion[-1] == 0
    assert distortion[0] == pytest.approx(
        float(x.sub(MIXTURE.weights @ MIXTURE.means).square().mean().sqrt()), rel=0.01
    )
    few = estimate_bound(chain(), x, Strata.weighted(importance(), 6), draws=2).profile()
    assert few.steps[0] == few.last_step[0] == 1
    assert few.last_step[-1] == few.steps.sum() == 24


def test_refusals_say_what_to_do():
    x = MIXTURE.sample(2, generator(0))
    with pytest.raises(InputError, match="at least 2"):
        chain(1)
    with pytest.raises(InputError, match="0 draws"):
        estimate_bound(chain(), x, Strata.every_step(24), draws=0)
    with pytest.raises(InputError, match="make them equal"):
        estimate_bound(chain(), x, Strata.every_step(50))
    with pytest.raises(InputError, match="at least 1"):
        Strata.weighted(torch.ones(5), 0)
    with pytest.raises(InputError, match="minimum < maximum"):
        MeanSquaredErrors(3, -3)


# ---------------------------------------------------------------------------------------------- the table of errors


def test_table_of_errors_averages_what_it_is_shown():
    table = MeanSquaredErrors(-10, 10, bins=40, memory=10**9).double()
    log_snr = torch.linspace(-9.9, 9.9, 40_000, dtype=torch.float64)
    truth = 1 / (1 + log_snr.exp()) * (0.5 + 0.02 * log_snr)
    for part in torch.randperm(40_000, generator=generator(0)).split(1000):
        noise = torch.rand(1000, dtype=torch.float64, generator=generator(1, int(part[0]))) * 2  # of mean one
        table.observe(log_snr[part], truth[part] * noise)
    # 1000 values in a bin, of relative deviation 0.58: 4.4 deviations of their mean, and the table's own coarseness
    torch.testing.assert_close(table(log_snr[1000:-1000]), truth[1000:-1000], rtol=0.09, atol=0)


def test_table_of_errors_forgets_and_ignores_what_is_not_finite():
    table = MeanSquaredErrors(bins=20, memory=50)
    here = torch.full((500,), 1.0)
    table.observe(here, torch.full((500,), 3.0))
    for _ in range(4):
        table.observe(here, torch.full((500,), 0.1))
    assert float(table(torch.tensor(1.0))) == pytest.approx(0.1, rel=0.02)
    table.observe(here, torch.full((500,), math.nan))
    assert float(table(torch.tensor(1.0))) == pytest.approx(0.1, rel=0.02)


def test_empty_table_of_errors_speaks_of_standard_normal_data():
    log_snr = torch.tensor([-30.0, -1.0, 0.0, 4.0, 30.0])
    torch.testing.assert_close(MeanSquaredErrors()(log_snr), torch.sigmoid(-log_snr))
