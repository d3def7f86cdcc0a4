"""The diffusion model behind the contract: trained for real on mixture data; labels, seeds, exact resume, refusals."""

import math

import pytest
import torch
from mixtures import ExactDenoiser, three_clusters
from torch import nn

from jensen.bound import Estimate
from jensen.diffusion.analytic import AnalyticVariance, MeanSquaredErrors
from jensen.diffusion.denoiser import Denoiser, Preconditioned
from jensen.diffusion.model import DiffusionModel, Generation, Scoring
from jensen.diffusion.reverse import LearnedVariance
from jensen.diffusion.sampler import DDIM, Ancestral, LastStep
from jensen.diffusion.schedule import LearnedSchedule, LinearBeta, LinearLogSnr, UniformTime
from jensen.diffusion.weighting import (
    BoundObjective,
    EDMWeighting,
    HybridObjective,
    LogNormalNoise,
    Simple,
    WeightedObjective,
)
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.model import AbstractLatentVariableModel, Batch
from jensen.randomness import Noise, Stream, generator

MIXTURE = three_clusters()
LOG_P = float(MIXTURE.log_prob(MIXTURE.sample(200_000, generator(99))).mean())


class Network(nn.Module):
    """Two hidden layers on the plane; labels by an embedding."""

    def __init__(self, classes: int | None = None, outputs: int = 2, width: int = 64) -> None:
        super().__init__()
        self.first, self.middle = nn.Linear(2 + 9, width), nn.Linear(width, width)
        self.last = nn.Linear(width, outputs)
        self.label = None if classes is None else nn.Embedding(classes + 1, width)

    def forward(self, x, noise_level, labels):
        waves = torch.outer(noise_level, torch.tensor([1.0, 2.0, 4.0, 8.0]).to(x))
        features = torch.cat([x, noise_level.unsqueeze(1), waves.sin(), waves.cos()], dim=1)
        h = self.first(features)
        if self.label is not None:
            h = h + self.label(labels)
        h = torch.nn.functional.silu(h)
        return self.last(torch.nn.functional.silu(h + self.middle(h)))


def component(x: torch.Tensor) -> torch.Tensor:
    """The component of the mixture that x most probably comes from, (batch)."""
    joint = MIXTURE.weights.log() + Gaussian(MIXTURE.means, MIXTURE.scales).log_prob(x.unsqueeze(1))
    return joint.argmax(1)


def a_model(objective=None, schedule=None, scoring=None, generation=None, classes=None, outputs=2) -> DiffusionModel:
    torch.manual_seed(0)
    denoiser = Denoiser(Network(classes, outputs), Preconditioned(1.0), classes)
    return DiffusionModel(
        (2,),
        denoiser,
        schedule or LinearLogSnr(10.0, -8.0),
        objective or WeightedObjective(EDMWeighting(1.0, -1.0, 1.4), noise=LogNormalNoise(-1.0, 1.4)),
        scoring or Scoring(steps=50, terms=10),
        generation or Generation(steps=20),
    )


def exact_model(scoring=None, generation=None) -> DiffusionModel:
    scoring = scoring or Scoring(steps=50)
    schedule, objective = LinearLogSnr(12.0, -12.0), WeightedObjective(Simple())
    return DiffusionModel((2,), ExactDenoiser(MIXTURE), schedule, objective, scoring, generation)


def batch_at(step: int, labelled: bool = False, size: int = 256) -> Batch:
    x = MIXTURE.sample(size, generator(1, Stream.TRAINING, step))
    labels = component(x) if labelled else None
    return Batch(x.float(), torch.arange(size), labels)


def train(model: DiffusionModel, steps: range, optimiser=None, labelled: bool = False):
    optimiser = optimiser or torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in steps:
        loss = model(batch_at(step, labelled), step, Noise(generator(2, Stream.TRAINING, step)))
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()
        model.observe(loss.noted)
    return optimiser


OBJECTIVES = {
    "EDM": lambda: WeightedObjective(EDMWeighting(1.0, -1.0, 1.4), noise=LogNormalNoise(-1.0, 1.4)),
    "simple": lambda: WeightedObjective(Simple(), steps=50),
    "bound": BoundObjective,
    "hybrid": HybridObjective,
}


# ---------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_a_model_whose_bound_comes_close_to_log_p(objective):
    variance = LearnedVariance() if objective in ("bound", "hybrid") else AnalyticVariance(MeanSquaredErrors())
    scoring = Scoring(steps=50, variance=variance)
    model = a_model(OBJECTIVES[objective](), scoring=scoring, outputs=4 if objective in ("bound", "hybrid") else 2)
    x = MIXTURE.sample(500, generator(3)).float()
    before = Estimate.of(model.elbo(x).value)
    train(model, range(400))
    after = Estimate.of(model.elbo(x).value)
    assert after.mean > before.mean + 0.5
    # Never above the data's mean log p(x), beyond a false alarm of 1e-5; a few hundred steps get within 0.9 nats of it
    assert LOG_P - 0.9 < after.mean < LOG_P + 4.4 * after.standard_error


def test_learned_schedule_is_trained_by_the_bound():
    model = a_model(
        BoundObjective(), LearnedSchedule(2.0, -8.0, width=8), Scoring(steps=20, variance=LearnedVariance()), outputs=4
    )
    before = [float(end.detach()) for end in model.schedule.ends()]
    optimiser = torch.optim.Adam(
        [{"params": model.denoiser.parameters(), "lr": 3e-3}, {"params": model.schedule.parameters(), "lr": 2e-2}]
    )
    train(model, range(150), optimiser)
    after = [float(end.detach()) for end in model.schedule.ends()]
    assert after[0] > before[0] + 0.5


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_resumes_exactly(objective):
    """All that a loss remembers is in the model's state: 6 steps are 3 steps, saved and loaded, and 3 more."""
    through, before, after = (
        a_model(OBJECTIVES[objective](), scoring=Scoring(steps=50, variance=LearnedVariance()), outputs=4)
        for _ in range(3)
    )
    train(through, range(6), torch.optim.SGD(through.parameters(), lr=1e-4))
    train(before, range(3), torch.optim.SGD(before.parameters(), lr=1e-4))
    after.load_state_dict(before.state_dict())
    train(after, range(3, 6), torch.optim.SGD(after.parameters(), lr=1e-4))
    for name, value in through.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name


def test_dropped_labels_become_the_label_for_none():
    model, seen = a_model(classes=3), []
    model.label_dropout = 0.3
    model.denoiser.network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[2]))
    batch = batch_at(0, labelled=True, size=4000)
    model.loss(batch, step=0, noise=Noise(generator(4)))
    dropped = seen[0] == 3
    assert torch.equal(seen[0][~dropped], batch.labels[~dropped])
    share = float(dropped.double().mean())
    assert abs(share - 0.3) < 4.4 * math.sqrt(0.21 / 4000)  # false alarm 1e-5
    plain = a_model()
    plain.loss(batch, step=0, noise=Noise(generator(4)))  # a model without classes takes no notice


# ---------------------------------------------------------------------------------------------- scores


def test_bound_is_below_the_ode_is_log_p():
    model = exact_model(Scoring(steps=12))
    x = MIXTURE.sample(300, generator(5))
    log_p = MIXTURE.log_prob(x)
    gap = log_p - model.elbo(x, draws=8).value
    error = float(gap.std()) / math.sqrt(300)
    assert 4.4 * error < float(gap.mean()) < 2  # below log p(x) beyond a false alarm of 1e-5
    ode = model.ode_bound(x, samples=100)
    torch.testing.assert_close(ode.value, log_p, rtol=0, atol=0.05)


def test_number_of_terms_changes_the_noise_of_the_bound_and_not_its_mean():
    x = MIXTURE.sample(1000, generator(6))
    every = exact_model(Scoring(steps=50)).elbo(x, draws=2, seed=1).value
    some = exact_model(Scoring(steps=50, terms=5)).elbo(x, draws=2, seed=2).value
    difference = some - every
    assert abs(float(difference.mean())) < 4.4 * float(difference.std()) / math.sqrt(1000)  # false alarm 1e-5


@pytest.mark.parametrize("levels", [None, 256])
def test_scores_do_not_depend_on_the_batch(levels):
    model = a_model(scoring=Scoring(steps=30, terms=6, levels=levels))
    x = (MIXTURE.sample(60, generator(7)).float() * 80).round().clamp(-127, 127) / 127.5 - 1 / 255
    index, rows = torch.arange(60) + 1000, torch.tensor([40, 2])
    whole, part = (model.elbo(x[r], draws=2, seed=3, index=index[r]) for r in (slice(None), rows))
    torch.testing.assert_close(part.value, whole.value[rows], rtol=1e-5, atol=1e-4)
    whole, part = (model.ode_bound(x[r], samples=2, seed=3, index=index[r]) for r in (slice(None), rows))
    torch.testing.assert_close(part.value, whole.value[rows], rtol=1e-3, atol=1e-3)


def test_bound_of_levels_is_a_log_mass():
    """On a coarse grid of levels no mass exceeds one, while a density does: the same model, the same x."""
    x = (MIXTURE.sample(50, generator(8)).clamp(-1, 1) * 7.5 + 7.5).round() / 7.5 - 1
    mass = exact_model(Scoring(steps=50, levels=16)).elbo(x)
    assert (mass.reconstruction <= 0).all()
    assert (exact_model(Scoring(steps=50)).elbo(x).reconstruction > 0).any()


def test_profile_and_diagnostics_describe_the_chain():
    model, x = exact_model(Scoring(steps=50, terms=10)), MIXTURE.sample(100, generator(9))
    elbo = model.elbo(x, draws=2)
    assert len(elbo.profile.nats) == len(elbo.profile.last_step) + 1
    torch.testing.assert_close(-elbo.profile.nats.sum(0), elbo.value)
    found = model.diagnostics(x)
    assert found["chain, steps"] == 50
    assert found["chain, log-SNR of x_T"] == -12
    assert 0 < found["prior term L_T, largest, nats"] < 1e-3


def test_codes_are_standard_normal_and_decode_to_the_data():
    model, x = exact_model(), MIXTURE.sample(500, generator(10))
    code = model.encode(x)
    assert code.shape == (500, 2)
    # Mean and variance of 500 standard normal codes: false alarm 1e-5 each
    assert float(code.mean(0).abs().max()) < 4.5 / math.sqrt(500)
    assert float((code.var(0) - 1).abs().max()) < 4.5 * math.sqrt(2 / 500)
    torch.testing.assert_close(model.reconstruct(x[:50]), x[:50], rtol=0, atol=0.02)


# ---------------------------------------------------------------------------------------------- samples and labels


@pytest.mark.parametrize("sampler", [Ancestral(), DDIM()], ids=["ancestral", "ddim"])
def test_sample_is_a_function_of_its_seed_and_number(sampler):
    model = a_model(generation=Generation(sampler, steps=10), classes=3)
    whole = model.sample(6, seed=5)
    torch.testing.assert_close(model.sample(2, seed=5, first=3), whole[3:5], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model.sample(6, seed=6), whole)
    assert torch.equal(model.sample_mean(6, seed=5), whole)
    assert model.sample(0).shape == (0, 2)
    states = list(model.trajectory(6, seed=5))
    assert len(states) == 11
    assert torch.equal(states[-1].x, whole)


def test_the_mean_of_a_sample_is_without_the_noise_of_its_last_step():
    drawn = a_model(generation=Generation(Ancestral(last=LastStep.DRAW), 10, UniformTime()))
    plain = a_model(generation=Generation(Ancestral(), 10, UniformTime()))
    assert torch.equal(drawn.sample_mean(6, seed=5), plain.sample(6, seed=5))
    assert not torch.allclose(drawn.sample(6, seed=5), plain.sample(6, seed=5))


def test_samples_of_the_exact_denoiser_are_the_data():
    samples = exact_model(generation=Generation(steps=40)).sample(2000, seed=3).double()
    log_p, expected = MIXTURE.log_prob(samples), MIXTURE.log_prob(MIXTURE.sample(2000, generator(11)))
    difference = float(log_p.mean() - expected.mean())
    # Two means of 2000 each: false alarm 1e-5; 0.03 for the error of 40 steps
    assert abs(difference) < 0.03 + 4.4 * math.sqrt(float(log_p.var() + expected.var()) / 2000)


def test_samples_take_their_labels_in_turn():
    model = a_model(classes=3, generation=Generation(steps=5, guidance=1.0))
    given = model.sample(4, seed=1, first=2, labels=torch.tensor([2, 0, 1, 2]))
    torch.testing.assert_close(model.sample(4, seed=1, first=2), given)
    assert not torch.allclose(model.sample(4, seed=1, first=2, labels=torch.tensor([0, 0, 0, 0])), given)


def test_a_label_that_no_training_example_has_is_not_sampled_by_default():
    model = a_model(classes=3, scoring=Scoring(steps=50, label_counts=(4, 0, 2)), generation=Generation(steps=5))
    assert model.known_labels == (0, 2)
    asked = torch.tensor([2, 0, 2, 0])
    assert torch.equal(model.sample(4, seed=1, first=1), model.sample(4, seed=1, first=1, labels=asked))
    assert a_model(classes=3).known_labels == (0, 1, 2)
    assert a_model().known_labels == ()


def test_class_conditional_model_learns_each_class_and_their_mixture():
    model = a_model(classes=3, scoring=Scoring(steps=50, variance=AnalyticVariance(MeanSquaredErrors())))
    train(model, range(400), labelled=True)
    batch = batch_at(10_000, labelled=True, size=1000)
    conditional = model.elbo(batch.x, labels=batch.labels).value
    unconditional = model.elbo(batch.x).value
    assert torch.equal(unconditional, model.elbo(batch.x, labels=torch.full((1000,), 3)).value)
    wrong = model.elbo(batch.x, labels=(batch.labels + 1) % 3).value
    assert float(conditional.mean()) > float(unconditional.mean()) + 0.4  # the label is worth 1.03 nats
    assert float(wrong.mean()) < float(unconditional.mean()) - 2
    samples = model.sample(300, seed=1).double()
    asked = torch.arange(300) % 3
    got = component(samples)
    assert float((got == asked).double().mean()) > 0.9


# ---------------------------------------------------------------------------------------------- films


def test_noising_is_the_marginal_at_every_frame_and_ends_in_noise():
    model, x = exact_model(), MIXTURE.sample(4000, generator(12)).float()
    film = model.noising(x, frames=6, seed=3)
    assert torch.equal(film.x[0], x)
    assert film.log_snr[0] == math.inf
    assert (film.log_snr.diff() < 0).all()
    assert film.log_snr[-1] == -12
    assert film.estimate is None
    for log_snr, x_t in zip(film.log_snr[1:], film.x[1:], strict=True):
        noise = (x_t - log_snr.sigmoid().sqrt() * x) / (-log_snr).sigmoid().sqrt()  # eps of (5.6)
        # 8000 standard normals five times, the same ones: mean and variance each 4.4 deviations, false alarm 2e-5
        assert float(noise.mean().abs()) < 4.4 / math.sqrt(8000)
        assert abs(float(noise.var()) - 1) < 4.4 * math.sqrt(2 / 8000)
    rows = torch.tensor([70, 5])
    part = model.noising(x[rows], frames=6, seed=3, index=rows)
    assert torch.equal(part.x, film.x[:, rows])
    assert model.noising(x, frames=2).log_snr.tolist() == [math.inf, -12]
    assert len(model.noising(x, frames=1000).x) <= model.generation.steps + 1


def test_denoising_is_the_way_to_the_samples_with_the_estimates_on_it():
    model = a_model(classes=3, generation=Generation(steps=20, guidance=0.5))
    labels = torch.tensor([2, 2, 0, 1])
    film = model.denoising(4, frames=7, seed=5, labels=labels)
    torch.testing.assert_close(film.x[-1], model.sample(4, seed=5, labels=labels))
    assert torch.equal(film.estimate[-1], film.x[-1])
    assert torch.equal(film.log_snr, model.noising(film.x[-1], frames=7).log_snr.flip(0))
    guided = model._sampling_denoiser()
    for level, x_t, estimate in zip(film.log_snr[:-1], film.x[:-1], film.estimate[:-1], strict=True):
        torch.testing.assert_close(estimate, guided(x_t, level, labels).x0)
    torch.testing.assert_close(
        model.denoising(3, frames=7, seed=5, first=1).x[-1], model.sample(3, seed=5, first=1)
    )  # labels in turn


# ---------------------------------------------------------------------------------------------- refusals


def test_refusals_say_what_to_do():
    plain, conditional, x = a_model(), a_model(classes=3), batch_at(0, size=2).x
    cases = [
        (lambda: a_model(generation=Generation(guidance=2.0)), "no labels to guide by"),
        (lambda: a_model(schedule=LinearBeta(100), scoring=Scoring(steps=200)), "at most 100"),
        (
            lambda: a_model(schedule=LinearBeta(100), scoring=Scoring(steps=100), generation=Generation(steps=101)),
            "at most 100",
        ),
        (lambda: a_model(scoring=Scoring(steps=1)), "at least 2"),
        (lambda: Scoring(terms=0), "terms 0"),
        (lambda: plain.sample(2, labels=torch.tensor([0, 1])), "trained without"),
        (lambda: conditional.sample(2, labels=torch.tensor([0, 4])), "label 4: expected 0 to 2, or 3 for no label"),
        (lambda: conditional.elbo(x, labels=torch.tensor([-1, 1])), "label -1"),
        (lambda: conditional.elbo(x, labels=torch.tensor([1])), "for 2 examples"),
        (lambda: conditional.elbo(x, labels=torch.tensor([1.0, 2.0])), "torch.float32"),
        (lambda: conditional.loss(batch_at(0), step=0, noise=Noise(generator(0))), "data without labels"),
        (lambda: plain.elbo(x, draws=0), "0 draws"),
        (lambda: plain.ode_bound(x, samples=0), "at least 1"),
    ]
    for attempt, message in cases:
        with pytest.raises(InputError, match=message):
            attempt()


def test_it_is_a_latent_variable_model():
    model = a_model()
    assert isinstance(model, AbstractLatentVariableModel)
    assert model.shape == (2,)
    value = model(batch_at(0), 0, Noise(generator(0))).value
    assert value.ndim == 0
    assert value.requires_grad
    elbo = model.elbo(batch_at(0).x)
    assert set(elbo.terms) == {"reconstruction", "prior", "denoising"}
    assert all((rate >= 0).all() for rate in elbo.rates.values())
