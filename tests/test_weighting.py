"""Training losses: each is the weighting of the bound that its docstring states; times never bias them."""

import math

import pytest
import torch
from mixtures import three_clusters
from torch import nn

from jensen.diffusion.denoiser import AbstractDenoiser, Denoised, Denoiser, Velocity
from jensen.diffusion.model import DiffusionModel, Scoring
from jensen.diffusion.process import marginal
from jensen.diffusion.reverse import BetaVariance, LearnedVariance, PosteriorVariance
from jensen.diffusion.schedule import Cosine, LearnedSchedule, LinearBeta, LinearLogSnr, UniformTime
from jensen.diffusion.weighting import (
    P2,
    AbstractTimes,
    BoundObjective,
    ContinuousBound,
    EDMWeighting,
    HybridObjective,
    LogNormalNoise,
    LossAwareTimes,
    LowDiscrepancyTimes,
    MinSNR,
    Simple,
    Times,
    UniformTimes,
    WeightedObjective,
    log_snr_and_slope,
    step_of,
)
from jensen.errors import InputError
from jensen.model import Batch
from jensen.randomness import Noise, generator

MIXTURE = three_clusters()


class Network(nn.Module):
    """A small smooth network on the plane, float64; `outputs` = 4 gives a learned variance too."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        source = generator(0, outputs)
        self.first = nn.Parameter(torch.randn(3, 8, generator=source, dtype=torch.float64))
        self.last = nn.Parameter(torch.randn(8, outputs, generator=source, dtype=torch.float64) / 3)

    def forward(self, x, noise_level, labels):
        return torch.tanh(torch.cat([x, noise_level.unsqueeze(1)], dim=1) @ self.first) @ self.last


class GivenTimes(AbstractTimes):
    """The times one says."""

    def __init__(self, u):
        super().__init__()
        self.u = u

    def forward(self, count, noise):
        return Times(self.u, torch.ones_like(self.u))


def a_model(objective, schedule=None, variance=None, steps=50, outputs=2):
    denoiser = Denoiser(Network(outputs), Velocity())
    scoring = Scoring(steps=steps, variance=variance or PosteriorVariance())
    return DiffusionModel((2,), denoiser, schedule or LinearLogSnr(8.0, -8.0), objective, scoring)


def a_batch(n=40):
    return Batch(MIXTURE.sample(n, generator(1)), torch.arange(n))


def gradients(model, value):
    return torch.autograd.grad(value, list(model.denoiser.parameters()), allow_unused=True, materialize_grads=True)


# ---------------------------------------------------------------------------------------------- weightings


def edm_by_its_paper(x0, prediction, log_snr):
    """(sigma² + sigma_data²) / (sigma sigma_data)² ||D - x||² times the log-SNR's density (Karras et al. 2022)."""
    sigma = torch.exp(-0.5 * log_snr)
    density = torch.distributions.Normal(-1.2, 1.2).log_prob(sigma.log()).exp() / 2  # |d log sigma / d log snr| = ½
    weight = (sigma.square() + 0.25) / (sigma * 0.5).square()
    return density * weight * (x0 - prediction.x0).square().sum(1)


def edm_with_skip(x0, prediction, log_snr):
    """||D - x||² / c_out² with skip 0.1, times the log-SNR's density."""
    sigma = torch.exp(-0.5 * log_snr)
    density = torch.distributions.Normal(-1.2, 1.2).log_prob(sigma.log()).exp() / 2
    c_skip = 0.01 / (sigma.square() + 0.01)
    c_out_squared = ((1 - c_skip) * 0.5).square() + (c_skip * sigma).square()
    return density / c_out_squared * (x0 - prediction.x0).square().sum(1)


def noise_weighted(weight):
    """weight(snr) ||eps - epŝ||² per unit of uniform time; the slope turns it into a density over log-SNRs."""

    def integrand(x0, prediction, log_snr):
        a, s = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
        eps = (prediction.x_t - a.unsqueeze(1) * x0) / s.unsqueeze(1)
        return weight(log_snr.exp()) * (eps - prediction.eps).square().sum(1)

    return integrand


STATED = {
    "simple": (Simple(), noise_weighted(torch.ones_like), False),
    "bound": (ContinuousBound(), noise_weighted(lambda snr: 0.5 + 0 * snr), True),
    "min-SNR": (MinSNR(5.0), noise_weighted(lambda snr: snr.clamp(max=5) / snr), False),
    "P2": (P2(0.5, 2.0), noise_weighted(lambda snr: 1 / (2 + snr).sqrt()), False),
    "EDM": (EDMWeighting(0.5, -1.2, 1.2), edm_by_its_paper, True),
    "EDM, skip": (EDMWeighting(0.5, -1.2, 1.2, 0.1), edm_with_skip, True),
}


@pytest.mark.parametrize(
    "schedule", [LinearLogSnr(8.0, -8.0), Cosine(), LinearBeta(100)], ids=["linear", "cosine", "beta"]
)
@pytest.mark.parametrize("name", STATED)
def test_gradient_of_a_weighted_loss_is_that_of_its_stated_weighting(name, schedule):
    """Same t, same noise: the mean of the stated integrand, per unit of time or, times the slope, of log-SNR."""
    weighting, integrand, over_log_snr = STATED[name]
    u = (torch.arange(40, dtype=torch.float64) + 0.5) / 40
    model, batch = a_model(WeightedObjective(weighting, GivenTimes(u)), schedule), a_batch()
    loss = model.loss(batch, step=0, noise=Noise(generator(2)))

    eps = torch.randn(batch.x.shape, generator=generator(2), dtype=torch.float64)
    first = schedule.first_time
    t = first + (1 - first) * u
    log_snr = schedule.log_snr(t)
    prediction = model.denoiser(
        marginal(batch.x, log_snr).mean + torch.sigmoid(-log_snr).sqrt()[:, None] * eps, log_snr
    )
    h = 1e-6
    slope = (schedule.log_snr(t - h) - schedule.log_snr(t + h)) / (2 * h) * (1 - first)
    expected = (integrand(batch.x, prediction, log_snr) * (slope if over_log_snr else 1)).mean()
    torch.testing.assert_close(loss.value, expected, rtol=1e-5, atol=0)
    for found, wanted in zip(gradients(model, loss.value), gradients(model, expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", STATED)
def test_a_weighted_loss_is_the_continuous_bound_with_each_level_counted_weight_over_half_slope(name):
    """The terms of a very long chain, each times weight / (½ slope), add up to the loss: same noise, every t."""
    weighting, steps, picked = STATED[name][0], 200_000, 60
    schedule = LinearLogSnr(8.0, -8.0)
    u = (torch.arange(picked, dtype=torch.float64) + 0.5) / picked
    model, batch = a_model(WeightedObjective(weighting, GivenTimes(u)), schedule, steps=steps), a_batch(picked)
    loss = model.loss(batch, step=0, noise=Noise(generator(2))).value
    bound, step = model.bound(), (u * steps).round().long()
    eps = torch.randn(batch.x.shape, generator=generator(2), dtype=torch.float64)
    terms = steps * bound.term(bound.predict(batch.x, step, eps), batch.x, step)
    log_snr, slope = log_snr_and_slope(schedule, u)
    expected = (weighting(log_snr, slope) / (0.5 * slope) * terms).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=0)
    for found, wanted in zip(gradients(model, loss), gradients(model, expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def in_the_papers_form(name, snr):
    """What each paper multiplies E ||x_0 - x̂||² by, at one noise level."""
    return {
        "simple": snr,  # Ho et al. 2020: ||eps - epŝ||² = snr ||x_0 - x̂||²
        "min-SNR": snr.clamp(max=5),  # Hang et al. 2023, section 3.4: w_t = min(SNR(t), gamma) for x_0
        "P2": snr / (2 + snr).sqrt(),  # Choi et al. 2022, equation 8: lambda'_t = lambda_t / (k + SNR)^gamma
    }[name]


class GaussianDenoiser(AbstractDenoiser):
    """The best denoiser of N(0, scale²)."""

    def __init__(self, scale):
        super().__init__()
        self.variance, self.nothing = scale**2, nn.Parameter(torch.zeros(()))

    def forward(self, x_t, log_snr, labels=None):
        a2, s2 = torch.sigmoid(log_snr).unsqueeze(1), torch.sigmoid(-log_snr).unsqueeze(1)
        gain = a2.sqrt() * self.variance / (a2 * self.variance + s2)
        return Denoised.from_x0(x_t, log_snr, gain * x_t + self.nothing)


def expected_loss(name, schedule, variance):
    """∫ dt weight E ||x_0 - x̂||² for N(0, variance) in two dimensions, by the midpoint rule."""
    first = schedule.first_time
    t = first + (1 - first) * (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    snr = schedule.log_snr(t).exp()
    return (in_the_papers_form(name, snr) * 2 * variance / (1 + variance * snr)).mean()


@pytest.mark.parametrize("schedule", [LinearLogSnr(8.0, -8.0), Cosine()], ids=["linear", "cosine"])
@pytest.mark.parametrize("name", ["simple", "min-SNR", "P2"])
def test_the_loss_of_gaussian_data_is_the_papers_integral(name, schedule):
    """E ||x_0 - x̂||² = variance / (1 + variance snr) for each dimension: the whole loss is an integral over time."""
    variance, count = 0.6**2, 200_000
    model = DiffusionModel((2,), GaussianDenoiser(0.6), schedule, WeightedObjective(STATED[name][0]))
    x = 0.6 * torch.randn(count, 2, generator=generator(3), dtype=torch.float64)
    loss = model.loss(Batch(x, torch.arange(count)), step=0, noise=Noise(generator(4))).value.detach()
    # Of each example the loss varies by about its mean: 1 / sqrt(200,000) = 0.22 %; 1 % is over 4 sd
    torch.testing.assert_close(loss, expected_loss(name, schedule, variance), rtol=0.01, atol=0)


def test_the_continuous_bound_of_gaussian_data_is_their_mutual_information():
    """½ ∫ E ||x_0 - x̂||² dsnr = ½ log (1 + variance snr) between the ends (Guo, Shamai and Verdu 2005)."""
    variance, count, schedule = 0.6**2, 200_000, LinearLogSnr(8.0, -8.0)
    model = DiffusionModel((2,), GaussianDenoiser(0.6), schedule, WeightedObjective(ContinuousBound()))
    x = 0.6 * torch.randn(count, 2, generator=generator(3), dtype=torch.float64)
    loss = model.loss(Batch(x, torch.arange(count)), step=0, noise=Noise(generator(4))).value.detach()
    high, low = (math.log1p(variance * math.exp(end)) for end in (8.0, -8.0))
    assert float(loss) == pytest.approx(high - low, rel=0.01)  # two dimensions, as above


def test_simple_loss_over_steps_is_the_lectures():
    """(5.18): t uniform on 1..T."""
    objective = WeightedObjective(Simple(), UniformTimes(), steps=50)
    model, batch, seen = a_model(objective, LinearBeta(50)), a_batch(5000), []
    model.denoiser.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
    model.loss(batch, step=0, noise=Noise(generator(3)))
    table = UniformTime()(model.schedule, 50)[1:]
    count = (seen[0].unsqueeze(1) - table).abs().lt(1e-9).sum(0)
    assert int(count.sum()) == 5000
    chi_squared = float((count - 100).square().sum() / 100)
    assert chi_squared < 110  # 49 degrees of freedom: false alarm 1.4e-6


def test_log_normal_noise_makes_the_edm_weight_a_function_without_slope():
    schedule, u = LogNormalNoise(-1.2, 1.2), torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    log_snr, slope = log_snr_and_slope(schedule, u)
    torch.testing.assert_close(EDMWeighting()(log_snr, slope), 1 + 4 * torch.exp(-log_snr), rtol=1e-4, atol=0)
    sigma = torch.exp(-0.5 * log_snr)
    torch.testing.assert_close(torch.special.ndtr((sigma.log() + 1.2) / 1.2), u, rtol=1e-5, atol=1e-6)
    assert schedule.log_snr(torch.tensor([0.0, 1.0])).isfinite().all()


# ---------------------------------------------------------------------------------------------- objectives


@pytest.mark.parametrize(
    "variance", [BetaVariance(), PosteriorVariance(), LearnedVariance()], ids=["beta", "tilde", "learned"]
)
def test_bound_objective_over_every_step_is_the_bound(variance):
    """One example, its T copies at the steps 1..T: the loss is L_T + Σ of all terms, the gradient too."""
    T = 50
    x = torch.tensor([[0.3, -0.8]], dtype=torch.float64).expand(T, 2)
    u = (torch.arange(T, dtype=torch.float64) + 0.5) / T
    model = a_model(BoundObjective(GivenTimes(u)), None, variance, T, outputs=4)
    loss = model.loss(Batch(x, torch.arange(T)), step=0, noise=Noise(generator(4)))
    bound, step = model.bound(), torch.arange(1, T + 1)
    eps = torch.randn(x.shape, generator=generator(4), dtype=torch.float64)
    expected = bound.prior(x)[0] + bound.term(bound.predict(x, step, eps), x, step).sum()
    torch.testing.assert_close(loss.value, expected)
    for found, wanted in zip(gradients(model, loss.value), gradients(model, expected), strict=True):
        torch.testing.assert_close(found, wanted)
    assert float(loss.terms["prior"] + loss.terms["other_terms"]) == pytest.approx(float(expected.detach()))


def test_hybrid_objective_trains_the_mean_by_simple_and_the_variance_by_the_bound():
    u = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
    batch = a_batch(50)
    model = a_model(HybridObjective(0.01, GivenTimes(u)), None, LearnedVariance(), outputs=4)
    last = model.denoiser.network.last

    def gradient(objective):
        model.objective = objective
        return torch.autograd.grad(model.loss(batch, step=0, noise=Noise(generator(5))).value, last)[0]

    found = gradient(model.objective)
    simple = gradient(WeightedObjective(Simple(), GivenTimes(u), steps=50))
    bound = gradient(BoundObjective(GivenTimes(u)))
    torch.testing.assert_close(found[:, :2], simple[:, :2])  # the first half of the outputs is the mean's
    torch.testing.assert_close(found[:, 2:], 0.01 * bound[:, 2:])
    assert (found[:, 2:] != 0).any()


def test_only_the_bound_trains_a_schedule():
    batch = a_batch()
    for objective, trained in (
        (BoundObjective(), True),
        (HybridObjective(), False),
        (WeightedObjective(ContinuousBound()), False),
    ):
        model = a_model(objective, LearnedSchedule(8.0, -8.0), LearnedVariance(), outputs=4)
        model.loss(batch, step=0, noise=Noise(generator(6))).value.backward()
        for parameter in model.schedule.parameters():
            assert (
                parameter.grad is not None and parameter.grad.isfinite().all() and (parameter.grad != 0).any()
            ) == trained


@pytest.mark.parametrize(
    "objective",
    [WeightedObjective(EDMWeighting(), noise=LogNormalNoise()), BoundObjective(), HybridObjective()],
    ids=["edm", "bound", "hybrid"],
)
def test_losses_tell_the_model_its_errors(objective):
    model = a_model(objective, None, LearnedVariance(), outputs=4)
    before = model.errors.weight.sum().clone()
    model.observe(model.loss(a_batch(), step=0, noise=Noise(generator(7))).noted)
    assert model.errors.weight.sum() > before


# ---------------------------------------------------------------------------------------------- times


def learned_times() -> LossAwareTimes:
    """Loss-aware times that have seen a loss which is large near 0.3."""
    times = LossAwareTimes(bins=20, memory=1000)
    u = torch.rand(40_000, generator=generator(8), dtype=torch.float64)
    times.observe(u, loss_at(u))
    return times


def loss_at(u: torch.Tensor) -> torch.Tensor:
    return torch.exp(-((u - 0.3) ** 2) / 0.002) + 0.05


@pytest.mark.parametrize("name", ["uniform", "low-discrepancy", "loss-aware"])
def test_weighted_mean_over_times_is_unbiased(name):
    times = {"uniform": UniformTimes(), "low-discrepancy": LowDiscrepancyTimes(), "loss-aware": learned_times()}[name]
    source, means = Noise(generator(9)), []
    for _ in range(2000):
        drawn = times(16, source)
        assert bool(((drawn.u >= 0) & (drawn.u < 1)).all())
        means.append((drawn.weight * loss_at(drawn.u)).mean())
    found = torch.stack(means)
    expected = 0.05 + math.sqrt(math.pi * 0.002)  # ∫ over the line: the ends of [0, 1] lie 6.7 deviations off
    z = (found.mean() - expected) / (found.std() / math.sqrt(2000))
    assert abs(float(z)) < 4.4  # two-sided normal: false alarm 1e-5


def test_loss_aware_times_reduce_the_variance_and_follow_the_root_of_the_second_moment():
    times, source = learned_times(), Noise(generator(10))
    spread = {}
    for name, sampler in (("aware", times), ("uniform", UniformTimes())):
        drawn = [sampler(1, source) for _ in range(4000)]
        spread[name] = torch.stack([one.weight * loss_at(one.u) for one in drawn]).std()
    assert float(spread["aware"]) < 0.5 * float(spread["uniform"])
    middle = (torch.arange(20, dtype=torch.float64).unsqueeze(1) + torch.linspace(0, 1, 200, dtype=torch.float64)) / 20
    root = loss_at(middle).square().mean(1).sqrt()
    expected = 0.99 * root / root.sum() + 0.01 / 20
    # About 2000 losses in a bin: where they vary most, in the flanks, the mean square's relative deviation is 2.5 %
    torch.testing.assert_close(times.probabilities(), expected, rtol=0.07, atol=0)
    assert float(times.probabilities().sum()) == pytest.approx(1)


def test_loss_aware_times_are_uniform_until_every_bin_was_seen_often_enough():
    times = LossAwareTimes(bins=4, memory=3)
    u = torch.tensor([0.1, 0.1, 0.3, 0.6, 0.9]).double()
    for _ in range(2):
        times.observe(u, torch.tensor([9.0, 9.0, 1.0, 1.0, 1.0]))
        assert (times.probabilities() == 0.25).all()
    times.observe(u, torch.tensor([9.0, 9.0, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(times.probabilities(), 0.99 * torch.tensor([9.0, 1, 1, 1]).double() / 12 + 0.0025)
    again = LossAwareTimes(bins=4, memory=3)
    again.load_state_dict(times.state_dict())
    assert torch.equal(again(8, Noise(generator(0))).u, times(8, Noise(generator(0))).u)


def test_low_discrepancy_times_cover_evenly():
    u = LowDiscrepancyTimes()(64, Noise(generator(11))).u
    assert (u.mul(64).floor() == torch.arange(64)).all()
    assert (step_of(u, 64) == torch.arange(1, 65)).all()


def test_refusals_say_what_to_do():
    for make in (
        lambda: MinSNR(0),
        lambda: P2(1, -1),
        lambda: EDMWeighting(0),
        lambda: EDMWeighting(skip=0.0),
        lambda: HybridObjective(-1),
        lambda: LogNormalNoise(0, 0),
    ):
        with pytest.raises(InputError, match="expected a positive number"):
            make()
    with pytest.raises(InputError, match="uniform share"):
        LossAwareTimes(uniform_share=0)
