"""The denoiser: conversions, preconditioning and guidance against formulas, quadrature and automatic derivatives."""

import math

import pytest
import torch
from mixtures import ExactDenoiser, GaussianMixture, one_gaussian, three_clusters
from torch import nn

from jensen.diffusion.denoiser import (
    AbstractDenoiser,
    AutoGuided,
    Clean,
    Clipped,
    Denoised,
    Denoiser,
    Epsilon,
    Guided,
    Preconditioned,
    Velocity,
)
from jensen.diffusion.process import beta, per_example, posterior, posterior_variance
from jensen.diffusion.reverse import BetaVariance, LearnedVariance, PosteriorVariance, reverse_step
from jensen.diffusion.schedule import alpha_bar, noise_scale, one_minus_alpha_bar, signal_scale
from jensen.errors import InputError

LEVELS = [-40.0, -20.0, -3.0, 0.0, 3.0, 20.0, 40.0]


class Answer(nn.Module):
    """A network that gives the same answer to everything, and remembers what it was asked."""

    def __init__(self, output):
        super().__init__()
        self.output, self.asked = output, []

    def forward(self, x, noise_level, labels):
        self.asked.append((x, noise_level, labels))
        return self.output.to(x) if isinstance(self.output, torch.Tensor) else self.output(x, noise_level, labels)


def pair(level, dtype=torch.float64, shape=(4, 3)):
    """x_0, eps, x_t and its level, consistent to rounding."""
    generator = torch.Generator().manual_seed(1)
    x0, eps = (torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for _ in range(2))
    log_snr = torch.tensor(level, dtype=torch.float64)
    return x0, eps, (signal_scale(log_snr) * x0 + noise_scale(log_snr) * eps), log_snr


# ---------------------------------------------------------------------------------------------- conversions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("start", ["eps", "x0", "v"])
def test_conversions_are_exact_to_the_rounding_of_x_t(level, dtype, start):
    x0, eps, x_t, log_snr = pair(level, dtype)
    a, s = float(signal_scale(log_snr)), float(noise_scale(log_snr))
    given = {"eps": eps, "x0": x0, "v": a * eps - s * x0}[start]
    found = getattr(Denoised, f"from_{start}")(x_t, log_snr, given)
    rounding = 16 * torch.finfo(dtype).eps
    # x_0 from eps divides the rounding of x_t by a, eps from x_0 by s; a rotation divides by nothing
    error = {"eps": (rounding / a, 0), "x0": (0, rounding / s), "v": (rounding, rounding)}[start]
    assert found.x0.dtype == found.eps.dtype == found.v.dtype == found.score.dtype == dtype
    torch.testing.assert_close(found.x0, x0, rtol=0, atol=error[0])
    torch.testing.assert_close(found.eps, eps, rtol=0, atol=error[1])
    torch.testing.assert_close(found.v, a * eps - s * x0, rtol=0, atol=s * error[0] + a * error[1] + rounding)
    torch.testing.assert_close(found.score, -found.eps / s, rtol=rounding, atol=0)
    # x_t is kept whatever the predicted value was
    wrong = getattr(Denoised, f"from_{start}")(x_t, log_snr, given + 1)
    torch.testing.assert_close(a * wrong.x0 + s * wrong.eps, x_t, rtol=0, atol=2 * rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", LEVELS)
def test_there_and_back_again(level, dtype):
    x0, eps, x_t, log_snr = pair(level, dtype)
    a, s = float(signal_scale(log_snr)), float(noise_scale(log_snr))
    rounding = 16 * torch.finfo(dtype).eps
    by_eps, by_x0 = Denoised.from_eps(x_t, log_snr, eps), Denoised.from_x0(x_t, log_snr, x0)
    back = Denoised.from_x0(x_t, log_snr, by_eps.x0).eps
    torch.testing.assert_close(back, eps, rtol=0, atol=rounding * (1 + 1 / s))
    back = Denoised.from_eps(x_t, log_snr, by_x0.eps).x0
    torch.testing.assert_close(back, x0, rtol=0, atol=rounding * (1 + 1 / a))
    # through v both come back without any division
    by_v = Denoised.from_v(x_t, log_snr, a * eps - s * x0)
    back = Denoised.from_v(x_t, log_snr, by_v.v)
    torch.testing.assert_close(back.x0, x0, rtol=0, atol=2 * rounding)
    torch.testing.assert_close(back.eps, eps, rtol=0, atol=2 * rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "parameterisation", [Epsilon(), Clean(), Velocity(), Preconditioned(), Preconditioned(0.5, 0.1)]
)
@pytest.mark.parametrize("level", [-math.inf, -1000.0, 1000.0, math.inf])
def test_the_very_ends_give_numbers(level, parameterisation, dtype):
    x_t = torch.randn(4, 3, dtype=dtype)
    log_snr = torch.tensor(level, dtype=torch.float64)
    consistent = x_t if (level > 0) == isinstance(parameterisation, Clean) else torch.zeros_like(x_t)
    if isinstance(parameterisation, Epsilon):
        consistent = torch.zeros_like(x_t) if level > 0 else x_t
    found = parameterisation.predict(x_t, log_snr, consistent)
    for value in (found.x0, found.eps, found.v, parameterisation.network_input(x_t, log_snr)):
        assert value.isfinite().all()
        assert value.abs().max() < 10


@pytest.mark.parametrize("level", [-60.0, 0.0, 60.0])
@pytest.mark.parametrize("parameterisation", [Velocity(), Preconditioned(), Preconditioned(0.5, 0.1)])
def test_rotations_have_gradients_of_order_one_at_both_ends(level, parameterisation):
    x_t, output = torch.randn(4, 3), torch.randn(4, 3, requires_grad=True)
    log_snr = torch.full((4,), level, requires_grad=True)
    found = parameterisation.predict(x_t, log_snr, output)
    (found.x0.sum() + found.eps.sum()).backward()
    assert output.grad.abs().max() < 3
    assert log_snr.grad.isfinite().all()


# ---------------------------------------------------------------------------------------------- parameterisations


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
def test_edm_is_its_table(sigma_data):
    sigma = torch.tensor([0.002, 0.3, 1.0, 5.0, 80.0], dtype=torch.float64)
    log_snr = -2 * sigma.log()
    x_t, output = torch.randn(2, 5, 3, dtype=torch.float64)
    sum_of_squares = sigma**2 + sigma_data**2
    c_skip, c_out = sigma_data**2 / sum_of_squares, sigma * sigma_data / sum_of_squares.sqrt()
    c_in, c_noise = 1 / sum_of_squares.sqrt(), sigma.log() / 4
    network = Answer(output)
    found = Denoiser(network, Preconditioned(sigma_data))(x_t, log_snr)
    x = x_t / signal_scale(log_snr)[:, None]  # the x of Karras et al.
    asked, noise_level, labels = network.asked[0]
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(asked, c_in[:, None] * x, **close)
    torch.testing.assert_close(noise_level, c_noise, **close)
    assert labels is None
    torch.testing.assert_close(found.x0, c_skip[:, None] * x + c_out[:, None] * output, **close)
    torch.testing.assert_close(found.eps, (x - found.x0) / sigma[:, None], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("skip", [0.5, 0.1, 0.01])
def test_skip_moves_the_change_from_data_to_noise_and_keeps_unit_variance(skip):
    """c_skip = skip² / (sigma² + skip²), c_out² = (1 - c_skip)² sigma_data² + c_skip² sigma²."""
    sigma_data, sigma = 0.5, torch.tensor([0.002, 0.03, 0.3, 5.0, 80.0], dtype=torch.float64)
    log_snr = -2 * sigma.log()
    x_t, output = torch.randn(2, 5, 3, dtype=torch.float64)
    c_skip = skip**2 / (sigma**2 + skip**2)
    c_out = ((1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * sigma**2).sqrt()
    found = Denoiser(Answer(output), Preconditioned(sigma_data, skip))(x_t, log_snr)
    x = x_t / signal_scale(log_snr)[:, None]
    torch.testing.assert_close(found.x0, c_skip[:, None] * x + c_out[:, None] * output, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.eps, (x - found.x0) / sigma[:, None], rtol=1e-8, atol=1e-8)


def test_edm_at_unit_variance_is_velocity():
    _, _, x_t, log_snr = pair(1.3)
    edm, v = Preconditioned(1.0).predict(x_t, log_snr, x_t / 3), Velocity().predict(x_t, log_snr, -x_t / 3)
    torch.testing.assert_close(edm.x0, v.x0)
    torch.testing.assert_close(edm.eps, v.eps)


@pytest.mark.parametrize("per_example_level", [False, True])
def test_whatever_the_network_predicts_the_prediction_is_the_same(per_example_level):
    x0, eps, x_t, log_snr = pair(-0.7, shape=(4, 2, 3, 3))
    if per_example_level:
        log_snr = log_snr.expand(4)
    a, s = (per_example(scale(log_snr), x_t) for scale in (signal_scale, noise_scale))
    w = (one_minus_alpha_bar(log_snr) + 0.25 * alpha_bar(log_snr)).sqrt()
    F = per_example(1 / (0.5 * w), x_t) * (s * x0 - 0.25 * a * eps)
    outputs = {Epsilon(): eps, Clean(): x0, Velocity(): a * eps - s * x0, Preconditioned(0.5): F}
    for parameterisation, output in outputs.items():
        found = Denoiser(Answer(output), parameterisation)(x_t, log_snr)
        torch.testing.assert_close(found.x0, x0)
        torch.testing.assert_close(found.eps, eps)
        assert found.variance_mix is None


def test_a_network_in_lower_precision_answers_in_that_of_x():
    found = Denoiser(Answer(lambda x, *_: x.bfloat16()), Velocity())(torch.randn(2, 3), torch.tensor(0.0))
    assert found.x0.dtype == torch.float32


def test_an_answer_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"answered the shape \(2, 5\) to \(2, 3\)"):
        Denoiser(Answer(torch.zeros(2, 5)), Epsilon())(torch.zeros(2, 3), torch.tensor(0.0))


# ---------------------------------------------------------------------------------------------- exact denoisers


@pytest.mark.parametrize("level", [-12.0, -1.0, 2.0, 8.0])
def test_the_exact_score_is_the_gradient_of_the_log_density(level):
    mixture, log_snr = three_clusters(), torch.tensor(level, dtype=torch.float64)
    x = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(mixture.log_prob(x, log_snr).sum(), x)
    torch.testing.assert_close(mixture.score(x, log_snr), expected)
    torch.testing.assert_close(ExactDenoiser(mixture)(x, log_snr).score, expected)


@pytest.mark.parametrize("level", [-6.0, 0.0, 4.0])
def test_the_exact_denoiser_is_the_posterior_mean_by_quadrature(level):
    mixture = GaussianMixture(*(value.double() for value in (torch.tensor([0.6, 0.4]),
                                                             torch.tensor([[-1.0], [0.7]]),
                                                             torch.tensor([[0.3], [0.5]]))))  # fmt: skip
    log_snr, x_t = torch.tensor(level, dtype=torch.float64), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    x0 = torch.linspace(-6, 6, 20_001, dtype=torch.float64)[:, None]
    log_prior = mixture.log_prob(x0)
    log_likelihood = -0.5 * (x_t - signal_scale(log_snr) * x0.T).square() / one_minus_alpha_bar(log_snr)
    log_normaliser = -0.5 * torch.log(2 * math.pi * one_minus_alpha_bar(log_snr)) + math.log(12 / 20_000)
    log_joint = log_prior + log_likelihood + log_normaliser
    torch.testing.assert_close(mixture.log_prob(x_t, log_snr), log_joint.logsumexp(1))
    weights = log_joint.softmax(1)
    found = ExactDenoiser(mixture)(x_t, log_snr)
    torch.testing.assert_close(found.x0, weights @ x0)
    variance = weights @ x0.square() - (weights @ x0).square()
    torch.testing.assert_close(mixture.posterior_variance(x_t, log_snr), variance)
    recovered = signal_scale(log_snr) * found.x0 + noise_scale(log_snr) * found.eps
    torch.testing.assert_close(recovered, x_t)


# ---------------------------------------------------------------------------------------------- labels and guidance


class TwoClasses(AbstractDenoiser):
    """The exact denoiser of two labelled Gaussians, label 2 being the mixture of both; counts its calls."""

    classes = 2

    def __init__(self):
        super().__init__()
        both = GaussianMixture(
            torch.tensor([0.5, 0.5], dtype=torch.float64),
            torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64),
            torch.tensor([[0.5, 0.5], [0.5, 0.7]], dtype=torch.float64),
        )
        ones = (GaussianMixture(both.weights[:1] * 2, both.means[k : k + 1], both.scales[k : k + 1]) for k in (0, 1))
        self.mixtures, self.calls = [*ones, both], 0

    def forward(self, x_t, log_snr, labels=None):
        self.calls += 1
        levels = log_snr.expand(len(x_t))
        rows = [ExactDenoiser(self.mixtures[int(k)])(x_t[i : i + 1], levels[i : i + 1]) for i, k in enumerate(labels)]
        return Denoised(x_t, log_snr, torch.cat([row.x0 for row in rows]), torch.cat([row.eps for row in rows]))


@pytest.mark.parametrize("log_snr", [torch.tensor(0.5), torch.linspace(-2, 2, 6)])
def test_guidance_follows_the_gradient_of_the_sharpened_density(log_snr):
    model, scale, labels = TwoClasses(), 2.5, torch.tensor([0, 1, 1, 0, 0, 1])
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    log_snr = log_snr.double()
    one, other, both = (mixture.log_prob(x, log_snr) for mixture in model.mixtures)
    labelled = torch.where(labels == 0, one, other)
    # log p(x|y) + scale log p(y|x), up to a constant
    (expected,) = torch.autograd.grad((labelled + scale * (labelled - both)).sum(), x)
    found = Guided(model, scale)(x, log_snr, labels)
    torch.testing.assert_close(found.score, expected)
    a, s = (per_example(f(log_snr), x) for f in (signal_scale, noise_scale))
    torch.testing.assert_close(a * found.x0 + s * found.eps, x)


@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_autoguidance_follows_the_gradient_away_from_the_worse_density(scale):
    model, weak, labels = TwoClasses(), ExactDenoiser(TwoClasses().mixtures[2]), torch.tensor([0, 1, 1, 0])
    weak.classes = model.classes
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    log_snr = torch.linspace(-2, 2, 4).double()
    one, other, worse = (mixture.log_prob(x, log_snr) for mixture in model.mixtures)
    labelled = torch.where(labels == 0, one, other)
    (expected,) = torch.autograd.grad((labelled + scale * (labelled - worse)).sum(), x)
    found = AutoGuided(model, weak, scale)(x, log_snr, labels)
    torch.testing.assert_close(found.score, expected)
    a, s = (per_example(f(log_snr), x) for f in (signal_scale, noise_scale))
    torch.testing.assert_close(a * found.x0 + s * found.eps, x)


def test_a_guide_of_other_data_is_refused():
    x = torch.zeros(2, 3)
    plain, labelled = Denoiser(Answer(x), Epsilon()), Denoiser(Answer(x), Epsilon(), classes=3)
    with pytest.raises(InputError, match="a guide with no labels for a model with 3"):
        AutoGuided(labelled, plain, 1.0)
    with pytest.raises(InputError, match="guidance scale inf"):
        AutoGuided(plain, plain, math.inf)


def test_guidance_of_scale_zero_is_the_conditional_model_in_one_call():
    model, labels = TwoClasses(), torch.tensor([0, 1, 1])
    x, log_snr = torch.randn(3, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    found, expected = Guided(model, 0.0)(x, log_snr, labels), model(x, log_snr, labels)
    assert torch.equal(found.x0, expected.x0)
    assert torch.equal(found.eps, expected.eps)
    assert model.calls == 2


def test_guidance_keeps_the_variance_of_the_labelled_half():
    network = Answer(lambda x, _, labels: torch.cat([x, labels[:, None].expand_as(x).to(x)], 1))
    found = Guided(Denoiser(network, Epsilon(), classes=5), 1.0)(
        torch.randn(2, 3), torch.tensor(0.0), torch.tensor([1, 3])
    )
    torch.testing.assert_close(found.variance_mix, torch.tensor([[1.0] * 3, [2.0] * 3]))


def test_without_a_label_the_network_is_told_the_number_of_classes():
    network = Answer(torch.zeros(2, 3))
    Denoiser(network, Epsilon(), classes=10)(torch.zeros(2, 3), torch.tensor(0.0))
    assert network.asked[0][2].tolist() == [10, 10]


def test_labels_that_nobody_can_use_are_refused():
    x, level, labels = torch.zeros(2, 3), torch.tensor(0.0), torch.zeros(2, dtype=torch.long)
    plain, labelled = Denoiser(Answer(x), Epsilon()), Denoiser(Answer(x), Epsilon(), classes=3)
    with pytest.raises(InputError, match="made without classes; leave the labels out"):
        plain(x, level, labels)
    with pytest.raises(InputError, match=r"guidance scale 2\.0: the model has no labels"):
        Guided(plain, 2.0)
    with pytest.raises(InputError, match=r"guidance scale 2\.0 without labels"):
        Guided(labelled, 2.0)(x, level)
    with pytest.raises(InputError, match="guidance scale nan"):
        Guided(labelled, math.nan)


# ---------------------------------------------------------------------------------------------- the reverse step


@pytest.mark.parametrize("level", [-5.0, 0.5, 6.0])
def test_the_reverse_mean_is_the_lectures(level):
    _, eps, x_t, t = pair(level)
    s = t + 0.3
    kernel = reverse_step(Denoised.from_eps(x_t, t, eps), s, BetaVariance())
    b = beta(s, t)
    torch.testing.assert_close(kernel.mean, (x_t - b / noise_scale(t) * eps) / (1 - b).sqrt())  # (5.15)
    torch.testing.assert_close(kernel.variance, b)


def test_the_choices_of_the_reverse_variance():
    _, eps, x_t, t = pair(0.5)
    s, data = t + 0.3, torch.tensor(math.inf, dtype=torch.float64)
    prediction = Denoised.from_eps(x_t, t, eps)
    b, b_tilde = beta(s, t), posterior_variance(s, t)
    torch.testing.assert_close(PosteriorVariance().scale(prediction, s).square(), b_tilde)
    for mix, expected in [(0.0, b_tilde), (0.5, (b * b_tilde).sqrt()), (1.0, b)]:
        learned = Denoised(x_t, t, prediction.x0, eps, torch.full_like(x_t, mix))
        torch.testing.assert_close(LearnedVariance().scale(learned, s).square(), expected.expand_as(x_t))
        torch.testing.assert_close(LearnedVariance().scale(learned, data).square(), beta(data, t).expand_as(x_t))
    torch.testing.assert_close(PosteriorVariance().scale(prediction, data).square(), beta(data, t))
    with pytest.raises(InputError, match="the network has no output for it"):
        LearnedVariance().scale(prediction, s)


@pytest.mark.parametrize(("data_scale", "variance"), [(1.0, BetaVariance()), (1e-9, PosteriorVariance())])
def test_the_two_fixed_variances_are_exact_for_the_data_they_suit(data_scale, variance):
    # p(x_s | x_t) of Gaussian data is Gaussian, by (5.5), and E[x_0|x_t] gives its mean
    data = one_gaussian(0.0, data_scale)
    t = torch.tensor(-0.4, dtype=torch.float64)
    s, x_t = t + 0.5, torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    found = reverse_step(ExactDenoiser(data)(x_t, t), s, variance)
    var_s, var_t = (alpha_bar(level) * data_scale**2 + one_minus_alpha_bar(level) for level in (s, t))
    covariance = (1 - beta(s, t)).sqrt() * var_s
    torch.testing.assert_close(found.mean, covariance / var_t * x_t)
    torch.testing.assert_close(found.variance, var_s - covariance**2 / var_t)


def test_the_posterior_of_the_prediction_is_the_reverse_step():
    _, eps, x_t, t = pair(2.0)
    prediction = Denoised.from_eps(x_t, t, eps)
    kernel = reverse_step(prediction, t + 1, PosteriorVariance())
    expected = posterior(x_t, prediction.x0, t + 1, t)
    torch.testing.assert_close(kernel.mean, expected.mean)
    torch.testing.assert_close(kernel.variance, expected.variance)


def test_a_clipped_prediction_stays_in_range_and_keeps_its_equation():
    x_t, log_snr = 2 * torch.randn(50, 3, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
    output = torch.randn(50, 3, dtype=torch.float64)
    free, clipped = Epsilon().predict(x_t, log_snr, output), Clipped(Epsilon(), 0.7).predict(x_t, log_snr, output)
    torch.testing.assert_close(clipped.x0, free.x0.clamp(-0.7, 0.7))
    a, s = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    torch.testing.assert_close(a * clipped.x0 + s * clipped.eps, x_t)
    inside = free.x0.abs() <= 0.7
    assert 0 < inside.sum() < inside.numel()
    torch.testing.assert_close(clipped.eps[inside], output[inside], rtol=0, atol=0)
