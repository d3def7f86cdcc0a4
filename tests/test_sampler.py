"""Samplers with a mixture's exact denoiser: two-sample tests, exact recursions, measured orders, the papers' steps."""

import math
from dataclasses import replace

import pytest
import torch
from mixtures import ExactDenoiser, one_gaussian, three_clusters
from scipy.stats import kstest

from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.reverse import BetaVariance, LearnedVariance, PosteriorVariance
from jensen.diffusion.sampler import (
    DDIM,
    Ancestral,
    DDIMInversion,
    DPMSolver2M,
    Heun,
    LastStep,
    SeededNoise,
    UniPC,
    trajectory,
)
from jensen.diffusion.schedule import (
    Cosine,
    LinearBeta,
    LinearLogSnr,
    UniformLogSnr,
    UniformRoot,
    UniformTime,
    alpha_bar,
    noise_scale,
    one_minus_alpha_bar,
    signal_scale,
)
from jensen.errors import InputError
from jensen.randomness import generator

MIXTURE = three_clusters()


class MixedVariance(AbstractDenoiser):
    """The exact denoiser with a learned reverse variance: the v of (5.12) at which sigma_t² is the geometric mean."""

    def forward(self, x_t, log_snr, labels=None):
        prediction = ExactDenoiser(MIXTURE)(x_t, log_snr)
        return replace(prediction, variance_mix=torch.full_like(x_t, 0.5))


def no_noise(position):
    raise AssertionError("a deterministic sampler asked for noise")


def end(sampler, denoiser, grid, noise=no_noise, x=None):
    *_, last = trajectory(sampler, denoiser, grid, noise, x)
    return last.x


def doubles(seed, n):
    """Noise for n samples in two dimensions, float64, by one stream per position."""
    return lambda position: torch.randn(n, 2, dtype=torch.float64, generator=generator(seed, position))


# ---------------------------------------------------------------------------------------------- two samples


def energy_test(x, y, permutations=999):
    """The p-value of the energy distance (Szekely & Rizzo 2013) between two samples of one size, by permutation.

    With signs ±1 for the two samples the statistic is -signs' D signs / n², D all mutual distances.
    """
    pooled = torch.cat([x, y]).float()
    D = torch.cdist(pooled, pooled)
    signs = torch.ones(len(pooled), permutations + 1)
    signs[len(x) :, 0] = -1
    source = torch.Generator().manual_seed(3)
    for column in range(1, permutations + 1):
        signs[torch.randperm(len(pooled), generator=source)[: len(y)], column] = -1
    statistics = -(signs * (D @ signs)).sum(0)
    return int((statistics >= statistics[0]).sum()) / (permutations + 1)


LINEAR, COSINE, STRAIGHT = LinearBeta(), Cosine(), LinearLogSnr(9.0, -9.0)
CASES = {
    "ancestral, beta": (Ancestral(BetaVariance()), UniformTime()(LINEAR, 250)),
    "ancestral, beta~": (Ancestral(PosteriorVariance()), UniformTime()(LINEAR, 250)),
    "ancestral, learned": (Ancestral(LearnedVariance()), UniformTime()(COSINE, 250)),
    "DDIM": (DDIM(), UniformTime()(LINEAR, 100)),
    "DDIM, eta 0.5": (DDIM(0.5), UniformTime()(COSINE, 100)),
    "DDIM, eta 1": (DDIM(1.0), UniformTime()(COSINE, 150)),
    "Heun": (Heun(), UniformRoot()(STRAIGHT, 20)),
    "Heun with churn": (Heun(churn=30, churn_from=0.05, churn_to=50, inflation=1.0), UniformRoot()(STRAIGHT, 100)),
    "DPM-Solver++ 2M": (DPMSolver2M(), UniformLogSnr()(STRAIGHT, 25)),
    "DPM-Solver++ 2M, SDE": (DPMSolver2M(1.0), UniformLogSnr()(STRAIGHT, 80)),
    "UniPC": (UniPC(), UniformLogSnr()(LINEAR, 20)),
    "UniPC, order 3": (UniPC(3), UniformTime()(LINEAR, 50)),
}


@pytest.mark.parametrize("case", CASES)
def test_samples_cannot_be_told_from_data(case):
    # A correct sampler fails with probability 1/1000, over the seed; twelve cases: 1.2 %. The seed is fixed.
    sampler, grid = CASES[case]
    denoiser = MixedVariance() if "learned" in case else ExactDenoiser(MIXTURE)
    samples = end(sampler, denoiser, grid, doubles(11, 1000))
    assert energy_test(samples, MIXTURE.sample(1000, generator(12))) > 0.001


class PerExample(AbstractDenoiser):
    """A denoiser whose predictions repeat the log-SNR for each example, which the contract allows."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x_t, log_snr, labels=None):
        return self.denoiser(x_t, log_snr.expand(len(x_t)), labels)


@pytest.mark.parametrize("case", [*CASES, "inversion"])
def test_a_log_snr_for_each_example_is_the_same_as_one_for_all(case):
    sampler, grid = CASES.get(case, (DDIMInversion(), UniformTime()(LINEAR, 20).flip(0)))
    grid = torch.cat([grid[:12], grid[-1:]]) if case != "inversion" else grid
    denoiser, noise = MixedVariance() if "learned" in case else ExactDenoiser(MIXTURE), doubles(4, 7)
    x = MIXTURE.sample(7, generator(2)) if case == "inversion" else None
    found = end(sampler, PerExample(denoiser), grid, noise, x)
    torch.testing.assert_close(found, end(sampler, denoiser, grid, noise, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [Ancestral(), DDIM(), DPMSolver2M(), DPMSolver2M(1.0), UniPC(), Heun()])
def test_the_two_sample_test_sees_too_few_steps(sampler):
    samples = end(sampler, ExactDenoiser(MIXTURE), UniformTime()(LINEAR, 4), doubles(11, 1000))
    assert energy_test(samples, MIXTURE.sample(1000, generator(12))) <= 0.001


# ---------------------------------------------------------------------------------------------- Gaussian data


def affine(sampler, denoiser, grid):
    """(gain, shift, noise) of each step of a sampler that is linear, from the noise to the data."""
    for position in range(len(grid) - 1, 0, -1):
        part, x = grid[position - 1 : position + 1], torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        still = end(sampler, denoiser, part, torch.zeros_like(x).new_zeros, x)
        moved = end(sampler, denoiser, part, lambda _: torch.ones(2, 1, dtype=torch.float64), x)
        yield still[1, 0] - still[0, 0], still[0, 0], moved[0, 0] - still[0, 0]


@pytest.mark.parametrize(
    ("variance", "mean", "scale"),
    [(BetaVariance(), 0.7, 1.0), (PosteriorVariance(), 0.7, 0.0), (BetaVariance(), -1, 0.4)],
)
def test_mean_and_variance_of_ancestral_sampling_follow_their_recursion(variance, mean, scale):
    # sigma_t² = beta_t is exact for unit variance, beta~_t for a point (5.12); between them beta_t gives too much
    grid = UniformTime()(LinearBeta(), 40)
    level = alpha_bar(grid) * scale**2 + one_minus_alpha_bar(grid)  # Var x_t
    centre, spread = mean * signal_scale(grid[-1]), level[-1]
    steps = affine(Ancestral(variance), ExactDenoiser(one_gaussian(mean, scale)), grid)
    for position, (gain, shift, noise) in zip(range(40, 0, -1), steps, strict=True):
        s, t = position - 1, position
        # E[x_s | x_t] by (5.5): covariance over variance
        torch.testing.assert_close(gain, signal_scale(grid[t]) / signal_scale(grid[s]) * level[s] / level[t])
        centre, spread = gain * centre + shift, gain**2 * spread + noise**2
        torch.testing.assert_close(centre, mean * signal_scale(grid[s]))
        if position == 1:
            assert noise == 0  # zeta = 0 at t = 1 (5.19)
        elif scale == 0.4:
            assert spread > level[s]
        else:
            torch.testing.assert_close(spread, level[s])


def test_deterministic_samplers_move_gaussian_data_along_the_exact_flow():
    # The probability-flow ODE of N(m, c²) keeps (x_t - a m) / sqrt(Var x_t) constant
    mean, scale = 0.5, 0.3
    grid = torch.linspace(9, -9, 81, dtype=torch.float64)
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    spread = (alpha_bar(grid) * scale**2 + one_minus_alpha_bar(grid)).sqrt()
    expected = signal_scale(grid[0]) * mean + spread[0] / spread[-1] * (x - signal_scale(grid[-1]) * mean)
    denoiser = ExactDenoiser(one_gaussian(mean, scale))
    for sampler, tolerance in [
        (DDIM(), 2e-2),
        (Heun(), 1e-3),
        (DPMSolver2M(), 1e-3),
        (UniPC(), 1e-4),
        (UniPC(3), 1e-4),
    ]:
        error = (end(sampler, denoiser, grid, x=x) - expected).abs().max()
        assert error < tolerance, sampler


# ---------------------------------------------------------------------------------------------- orders


@pytest.fixture(scope="module")
def flow():
    """Noised data at log-SNR -9 and where the mixture's own ODE takes them at log-SNR 9, by 500 steps of UniPC(3)."""
    low = torch.tensor(-9.0, dtype=torch.float64)
    eps = torch.randn(64, 2, generator=generator(1)).double()
    start = signal_scale(low) * MIXTURE.sample(64, generator(2)) + noise_scale(low) * eps
    return start, solve(UniPC(3), start, 500)


def solve(sampler, start, steps):
    grid = torch.linspace(9, -9, steps + 1, dtype=torch.float64)
    return end(sampler, ExactDenoiser(MIXTURE), grid, x=start)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(DDIM(), 1), (Heun(), 2), (DPMSolver2M(), 2), (UniPC(1), 2), (UniPC(2), 3)],
)
def test_error_falls_with_the_stated_order(sampler, order, flow):
    start, reference = flow
    errors = [(solve(sampler, start, steps) - reference).square().mean().sqrt() for steps in (80, 160)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_inversion_and_back_returns_x_to_first_order():
    x, denoiser = MIXTURE.sample(50, generator(2)), ExactDenoiser(MIXTURE)
    errors = []
    for steps in (50, 100, 200):
        grid = UniformLogSnr()(LinearLogSnr(14.0, -8.0), steps)
        code = end(DDIMInversion(), denoiser, grid.flip(0), x=x)
        errors.append((end(DDIM(), denoiser, grid, x=code) - x).square().mean().sqrt())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.2)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(1, abs=0.2)
    assert errors[2] < 0.03


def test_inversion_asks_nothing_at_the_data_themselves():
    class Recording(ExactDenoiser):
        asked = ()

        def forward(self, x_t, log_snr, labels=None):
            self.asked = (*self.asked, (x_t, float(log_snr)))
            return super().forward(x_t, log_snr)

    x, grid, denoiser = MIXTURE.sample(5, generator(2)), UniformTime()(LINEAR, 4), Recording(MIXTURE)
    end(DDIMInversion(), denoiser, grid.flip(0), x=x)
    assert [level for _, level in denoiser.asked] == [float(level) for level in grid[[1, 1, 2, 3]]]
    torch.testing.assert_close(denoiser.asked[0][0], signal_scale(grid[1]) * x)


def test_inversion_encodes_data_as_standard_normal_noise():
    # The code of 1,000 data points against 1,000 normal ones; false alarm 1/1000, the seed is fixed.
    grid = UniformLogSnr()(LinearLogSnr(14.0, -8.0), 200)
    code = end(DDIMInversion(), ExactDenoiser(MIXTURE), grid.flip(0), x=MIXTURE.sample(1000, generator(2)))
    assert energy_test(code, torch.randn(1000, 2, generator=generator(3))) > 0.001


# ---------------------------------------------------------------------------------------------- the papers' steps


def test_ancestral_sampling_is_the_lectures_loop():
    betas = torch.linspace(1e-4, 0.02, 100, dtype=torch.float64) * 10
    bars, noise, denoiser = torch.cumprod(1 - betas, 0), doubles(5, 7), ExactDenoiser(MIXTURE)
    states = trajectory(Ancestral(), denoiser, UniformTime()(LinearBeta(100), 100), noise)
    x = next(states).x
    torch.testing.assert_close(x, noise(0))
    for t, state in zip(range(100, 0, -1), states, strict=True):  # (5.19)
        beta_t, bar_t = betas[t - 1], bars[t - 1]
        eps = denoiser(x, torch.log(bar_t / (1 - bar_t))).eps
        zeta = noise(t) if t > 1 else 0
        x = (x - beta_t / (1 - bar_t).sqrt() * eps) / (1 - beta_t).sqrt() + beta_t.sqrt() * zeta
        torch.testing.assert_close(state.x, x, rtol=1e-9, atol=1e-9)
        assert state.position == t - 1


@pytest.mark.parametrize("variance", [BetaVariance(), PosteriorVariance()])  # beta~_1 = 0: sigma_1² is beta_1 in both
def test_the_last_step_is_its_mean_or_a_draw_around_it(variance):
    grid, denoiser = UniformTime()(LinearBeta(40), 40)[:2], ExactDenoiser(MIXTURE)
    x_1, beta_1 = MIXTURE.sample(1, generator(3)).expand(40_000, 2), 1e-4 * 1000 / 40
    mean = denoiser(x_1, grid[1]).x0
    point = end(Ancestral(variance), denoiser, grid, no_noise, x_1)  # asks for no noise at all
    torch.testing.assert_close(point, mean, rtol=0, atol=0)
    drawn = end(Ancestral(variance, LastStep.DRAW), denoiser, grid, doubles(4, len(x_1)), x_1)
    zeta = (drawn - mean) / math.sqrt(beta_1)
    # N(0, I) by Kolmogorov and Smirnov; false alarm 1/1000, the seed is fixed
    assert kstest(zeta.flatten().numpy(), "norm").pvalue > 0.001
    assert torch.corrcoef(zeta.T)[0, 1].abs() < 3.3 / math.sqrt(len(zeta))  # false alarm 1/1000


def test_only_the_last_step_depends_on_what_is_made_of_it():
    grid, noise, denoiser = UniformTime()(LINEAR, 9), doubles(5, 7), ExactDenoiser(MIXTURE)
    mean, drawn = (list(trajectory(Ancestral(last=last), denoiser, grid, noise)) for last in LastStep)
    assert all(torch.equal(a.x, b.x) for a, b in zip(mean[:-1], drawn[:-1], strict=True))
    sigma = one_minus_alpha_bar(grid[1]).sqrt()  # beta of the step to the data (5.1)
    torch.testing.assert_close(drawn[-1].x, mean[-1].x + sigma * noise(1))
    assert torch.equal(drawn[-1].history[0].x0, mean[-1].x)


def test_with_a_drawn_last_step_samples_have_the_models_own_variance():
    # x_0 of (5.9) for the exact denoiser of N(m, c²), by its recursion: the mean alone has sigma_1² less
    grid, denoiser = UniformTime()(LinearBeta(), 40), ExactDenoiser(one_gaussian(0.7, 0.4))
    spread = {}
    for last in LastStep:
        total = torch.ones((), dtype=torch.float64)  # Var x_T of p(x_T)
        for gain, _, noise in affine(Ancestral(last=last), denoiser, grid):
            total = gain**2 * total + noise**2
        spread[last] = total
    torch.testing.assert_close(spread[LastStep.DRAW] - spread[LastStep.MEAN], one_minus_alpha_bar(grid[1]))


def test_heun_is_algorithm_2_of_karras_et_al():
    churn, low, high, inflation, steps = 20.0, 0.05, 10.0, 1.003, 12
    grid, noise, denoiser = UniformRoot()(STRAIGHT, steps), doubles(6, 9), ExactDenoiser(MIXTURE)
    sigma = torch.exp(-0.5 * grid)

    def denoised(x, sigma):
        log_snr = -2 * sigma.log()
        return denoiser(signal_scale(log_snr) * x, log_snr).x0

    x = noise(0) / signal_scale(grid[-1])
    for i in range(steps, 0, -1):
        gamma = min(churn / steps, math.sqrt(2) - 1) if low <= sigma[i] <= high else 0
        sigma_hat = sigma[i] * (1 + gamma)
        x_hat = x + (sigma_hat**2 - sigma[i] ** 2).sqrt() * inflation * noise(i)
        d = (x_hat - denoised(x_hat, sigma_hat)) / sigma_hat
        x = x_hat + (sigma[i - 1] - sigma_hat) * d
        if i > 1:
            d_next = (x - denoised(x, sigma[i - 1])) / sigma[i - 1]
            x = x_hat + (sigma[i - 1] - sigma_hat) * 0.5 * (d + d_next)
    found = end(Heun(churn, low, high, inflation), denoiser, grid, noise)
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_dpm_solver_is_the_papers_update(eta):
    grid, noise, denoiser = UniformTime()(COSINE, 11), doubles(7, 9), ExactDenoiser(MIXTURE)
    a, s, half = signal_scale(grid), noise_scale(grid), grid / 2
    x, past = noise(0), None
    for i in range(11, 0, -1):
        now = denoiser(x, grid[i]).x0
        h = half[i - 1] - half[i]
        D = now if past is None or i == 1 else now + 0.5 * h / (half[i] - half[i + 1]) * (now - past)
        if eta == 0:  # Lu et al. 2022, algorithm 2
            x = s[i - 1] / s[i] * x - a[i - 1] * torch.expm1(-h) * D
        else:  # its SDE form, of the same paper
            kick = s[i - 1] * torch.sqrt(-torch.expm1(-2 * h)) * noise(i) if i > 1 else 0
            x = s[i - 1] / s[i] * torch.exp(-h) * x - a[i - 1] * torch.expm1(-2 * h) * D + kick
        past = now
    torch.testing.assert_close(end(DPMSolver2M(eta), denoiser, grid, noise), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_is_equation_12_of_song_et_al(eta):
    grid, noise, denoiser = UniformTime()(LINEAR, 9), doubles(8, 9), ExactDenoiser(MIXTURE)
    bar, x = alpha_bar(grid), noise(0)
    for i in range(9, 0, -1):
        eps = denoiser(x, grid[i]).eps
        x0 = (x - (1 - bar[i]).sqrt() * eps) / bar[i].sqrt()
        sigma = eta * ((1 - bar[i - 1]) / (1 - bar[i])).sqrt() * (1 - bar[i] / bar[i - 1]).sqrt()
        x = bar[i - 1].sqrt() * x0 + (1 - bar[i - 1] - sigma**2).clamp(min=0).sqrt() * eps + sigma * noise(i)
    found = end(DDIM(eta), denoiser, grid, noise)
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_at_eta_1_ddim_is_ancestral_sampling_with_the_posterior_variance():
    grid, noise, denoiser = UniformTime()(LINEAR, 30), doubles(9, 9), ExactDenoiser(MIXTURE)
    found, expected = (end(sampler, denoiser, grid, noise) for sampler in (DDIM(1.0), Ancestral(PosteriorVariance())))
    torch.testing.assert_close(found, expected)


class PolynomialDenoiser(AbstractDenoiser):
    """x̂ = a polynomial in the log-SNR, whatever x_t: the flow is then an integral, which a quadrature knows."""

    def __init__(self, degree):
        super().__init__()
        self.degree = degree

    def forward(self, x_t, log_snr, labels=None):
        return Denoised.from_x0(x_t, log_snr, torch.full_like(x_t, 0.3 * (log_snr / 4) ** self.degree))


@pytest.mark.parametrize(("sampler", "degree"), [(DPMSolver2M(), 0), (UniPC(1), 0), (UniPC(2), 0), (DDIM(), 0)])
def test_exponential_solvers_integrate_a_constant_exactly(sampler, degree):
    grid = torch.tensor([6.0, 5.0, -1.0, -3.0], dtype=torch.float64)
    x = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    expected = noise_scale(grid[0]) / noise_scale(grid[-1]) * (x - signal_scale(grid[-1]) * 0.3)
    found = end(sampler, PolynomialDenoiser(degree), grid, x=x)
    torch.testing.assert_close(found, expected + signal_scale(grid[0]) * 0.3)


@pytest.mark.parametrize("order", [2, 3])
def test_unipc_corrects_to_what_its_polynomial_can_follow(order):
    # With p points behind it and the new one, the corrector of order p integrates x̂ of degree p exactly
    grid = torch.tensor([5.0, 4.0, 2.5, 1.0, -0.7, -2.0], dtype=torch.float64)[: order + 3]
    denoiser, x = PolynomialDenoiser(order), torch.zeros(1, 1, dtype=torch.float64)
    states = list(trajectory(UniPC(order), denoiser, grid, no_noise, x))
    before, after = states[-2].history[0], states[-1].history[0]
    level = torch.linspace(float(before.log_snr), float(after.log_snr), 20_001, dtype=torch.float64)
    # x / s as a function of the log-SNR has the slope ½ exp(level / 2) x̂
    slope = 0.5 * torch.exp(0.5 * level) * 0.3 * (level / 4) ** order
    integral = torch.trapezoid(slope, level)
    expected = noise_scale(after.log_snr) * (before.x_t / noise_scale(before.log_snr) + integral)
    torch.testing.assert_close(after.x_t, expected, rtol=1e-7, atol=1e-7)


def test_unipc_predicts_as_dpm_solver_2m_does():
    grid, denoiser = UniformTime()(COSINE, 3), ExactDenoiser(MIXTURE)
    first, second, *_ = trajectory(UniPC(), denoiser, grid, doubles(3, 5))
    other = list(trajectory(DPMSolver2M(), denoiser, grid, doubles(3, 5)))
    torch.testing.assert_close(second.x, other[1].x)
    assert first.position == 3


# ---------------------------------------------------------------------------------------------- the contract


SAMPLERS = [Ancestral(), DDIM(), DDIM(0.7), Heun(), Heun(churn=5), DPMSolver2M(), DPMSolver2M(1.0), UniPC(), UniPC(3)]


@pytest.mark.parametrize("sampler", [*SAMPLERS, Ancestral(last=LastStep.DRAW)])
def test_a_sample_does_not_depend_on_its_batch(sampler):
    grid, denoiser = UniformTime()(LINEAR, 12), ExactDenoiser(MIXTURE)

    def samples(seed, indices):
        noise = SeededNoise(seed, indices, (2,))
        return end(sampler, denoiser, grid, lambda position: noise(position).double())

    together = samples(4, range(8))
    torch.testing.assert_close(samples(4, [6, 2]), together[[6, 2]], rtol=1e-9, atol=1e-9)
    assert (samples(5, range(8)) - together).abs().max() > 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_state_is_yielded_and_one_step_is_the_denoiser(sampler):
    denoiser, noise = ExactDenoiser(MIXTURE), doubles(4, 3)
    states = list(trajectory(sampler, denoiser, UniformTime()(LINEAR, 5), noise))
    assert [state.position for state in states] == [5, 4, 3, 2, 1, 0]
    assert torch.equal(states[0].x, noise(0))
    grid = UniformTime()(LINEAR, 1)
    *_, last = trajectory(replace(sampler, churn=0.0) if isinstance(sampler, Heun) else sampler, denoiser, grid, noise)
    torch.testing.assert_close(last.x, denoiser(noise(0), grid[-1]).x0)
    assert last.history[0].log_snr == grid[-1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_float32_follows_float64(sampler):
    grid, denoiser = UniformLogSnr()(LinearLogSnr(12.0, -14.0), 30), ExactDenoiser(MIXTURE)
    noise = SeededNoise(4, range(20), (2,))
    narrow = end(sampler, Narrow(), grid, noise)
    assert narrow.dtype == torch.float32
    wide = end(sampler, denoiser, grid, lambda position: noise(position).double())
    torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=2e-3)


class Narrow(AbstractDenoiser):
    """The exact denoiser, asked and answering in float32."""

    def forward(self, x_t, log_snr, labels=None):
        assert x_t.dtype == torch.float32
        exact = ExactDenoiser(MIXTURE)(x_t.double(), log_snr)
        return Denoised.from_v(x_t, log_snr, exact.v.float())


def test_labels_reach_the_denoiser_and_a_starting_point_may_be_given():
    class Shifted(AbstractDenoiser):
        classes = 3

        def forward(self, x_t, log_snr, labels=None):
            return Denoised.from_x0(x_t, log_snr, labels[:, None].to(x_t).expand_as(x_t))

    labels, x = torch.tensor([2, 0, 1]), torch.zeros(3, 2)
    *_, last = trajectory(DDIM(), Shifted(), UniformTime()(COSINE, 3), no_noise, x, labels)
    torch.testing.assert_close(last.x, labels[:, None].float().expand(3, 2))


@pytest.mark.parametrize(
    "grid", [torch.zeros(3), torch.tensor([1.0]), torch.tensor([1.0, 2.0, 0.0]), torch.zeros(2, 2)]
)
def test_grids_that_lead_nowhere_are_refused(grid):
    with pytest.raises(InputError, match="neither fall nor rise"):
        next(trajectory(DDIM(), ExactDenoiser(MIXTURE), grid, doubles(0, 2)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DDIM(1.5), r"eta 1\.5"),
        (lambda: DPMSolver2M(-0.1), "eta"),
        (lambda: Heun(churn=-1), "churn -1"),
        (lambda: UniPC(0), "order 0"),
    ],
)
def test_impossible_samplers_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
