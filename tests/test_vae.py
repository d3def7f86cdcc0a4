"""The VAE: its objectives' gradients, its two families of q, its bounds and samples, and where its noise comes from."""

import math

import pytest
import torch
from linear_vae import as_vae, linear_vae, random_ppca
from torch.distributions import Independent, Normal, kl_divergence

import jensen.vae.model as chapter
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.likelihood import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLikelihood,
    DiscretisedLogistic,
    FreeScale,
    GaussianLikelihood,
    LearnedScale,
)
from jensen.model import Batch, Effort
from jensen.nets import MLP, ConvolutionalDecoder, ConvolutionalEncoder, Levels
from jensen.randomness import Noise, generator
from jensen.vae import (
    VAE,
    AmortisedPosterior,
    DoublyReparameterisedObjective,
    ElboObjective,
    ImportanceWeightedObjective,
    PerDatapointPosterior,
    optimise_posterior,
)

SHAPE, LATENT = (1, 4, 3), 2


def small_vae(objective=None, likelihood=None, posterior=None):
    """A tanh VAE on 12 pixels in float64."""
    likelihood = likelihood or GaussianLikelihood(SHAPE, LearnedScale(0.05))
    posterior = posterior or AmortisedPosterior(MLP(SHAPE, (7,), (2 * LATENT,)), LATENT)
    decoder = MLP((LATENT,), (7,), (likelihood.outputs, *SHAPE))
    return VAE(posterior, decoder, likelihood, objective).double()


def batch_of(count, seed=0):
    x = torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Batch(x, torch.arange(count))


def gradients(vae, loss):
    return torch.autograd.grad(loss, list(vae.parameters()))


def draws_of(vae, batch, seed, *sample_shape):
    """The z of a training step, and the q it is from, by torch.distributions and the step's own generator."""
    mean, log_scale = vae.posterior.encoder(batch.x).chunk(2, dim=-1)
    eps = torch.randn(*sample_shape, *mean.shape, dtype=mean.dtype, generator=generator(seed))
    return Independent(Normal(mean, log_scale.exp()), 1), mean + log_scale.exp() * eps


def log_likelihood(vae, x, z):
    output = vae.decoder(z.reshape(-1, LATENT)).reshape(*z.shape[:-1], 2, *SHAPE)
    mean, raw = output.unbind(-len(SHAPE) - 1)
    return Independent(Normal(mean, 0.05 + raw.exp()), len(SHAPE)).log_prob(x)


PRIOR = Independent(Normal(torch.zeros(LATENT).double(), torch.ones(LATENT).double()), 1)

# ---------------------------------------------------------------------------------------------- objectives


@pytest.mark.parametrize(
    ("objective", "step", "weight", "free_bits"),
    [
        (ElboObjective(), 0, 1.0, 0.0),
        (ElboObjective(warmup_steps=10), 0, 0.1, 0.0),
        (ElboObjective(warmup_steps=10), 4, 0.5, 0.0),
        (ElboObjective(warmup_steps=10), 25, 1.0, 0.0),
        (ElboObjective(free_bits=0.6), 0, 1.0, 0.6),
        (ElboObjective(warmup_steps=4, free_bits=0.6), 1, 0.5, 0.6),
    ],
)
def test_the_elbo_objectives_gradient_is_that_of_the_weighting_it_states(objective, step, weight, free_bits):
    vae, batch = small_vae(objective), batch_of(5)
    loss = vae.loss(batch, step=step, noise=Noise(generator(3)))
    q, z = draws_of(vae, batch, 3)
    kl = kl_divergence(q.base_dist, PRIOR.base_dist).mean(0)
    assert (kl < free_bits).tolist() == [False, free_bits > 0]  # with free bits, one dimension on either side of them
    expected = (
        weight * torch.maximum(kl, torch.tensor(free_bits).double()).sum() - log_likelihood(vae, batch.x, z).mean()
    )
    torch.testing.assert_close(loss.value, expected)
    torch.testing.assert_close(gradients(vae, loss.value), gradients(vae, expected))
    # what is logged is the honest bound's two terms, whatever the weighting
    torch.testing.assert_close(loss.terms["rate"], kl.sum().detach())
    assert not any(term.requires_grad for term in loss.terms.values())


@pytest.mark.parametrize("samples", [1, 4])
def test_the_importance_weighted_gradient_is_autograds(samples):
    vae, batch = small_vae(ImportanceWeightedObjective(samples)), batch_of(5)
    loss = vae.loss(batch, step=0, noise=Noise(generator(3)))
    q, z = draws_of(vae, batch, 3, samples)
    log_weights = log_likelihood(vae, batch.x, z) + PRIOR.log_prob(z) - q.log_prob(z)
    expected = -(log_weights.exp().mean(0).log()).mean()
    torch.testing.assert_close(loss.value, expected)
    torch.testing.assert_close(gradients(vae, loss.value), gradients(vae, expected))
    torch.testing.assert_close(loss.terms["elbo"], log_weights.mean().detach())


@pytest.mark.parametrize("samples", [1, 5])
def test_doubly_reparameterised_has_the_same_value_and_decoder_gradient(samples):
    """For the same noise, theta's gradient is the plain one exactly; only q's is another estimate."""
    vae, batch = small_vae(), batch_of(5)
    losses = [
        objective(vae, batch, 0, Noise(generator(3)))
        for objective in (ImportanceWeightedObjective(samples), DoublyReparameterisedObjective(samples))
    ]
    torch.testing.assert_close(losses[0].value, losses[1].value)
    theta = list(vae.decoder.parameters())
    torch.testing.assert_close(*(torch.autograd.grad(loss.value, theta, retain_graph=True) for loss in losses))
    phi = list(vae.posterior.parameters())
    plain, doubly = (torch.autograd.grad(loss.value, phi) for loss in losses)
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(plain, doubly, strict=True))


def encoder_gradients(vae, objective, x, repeats):
    """`repeats` independent estimates of the encoder's gradient, (repeats, parameters)."""
    phi = list(vae.posterior.parameters())
    rows = []
    for seed in range(repeats):
        loss = objective(vae, Batch(x, torch.arange(len(x))), 0, Noise(generator(seed))).value
        rows.append(torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, phi)]))
    return torch.stack(rows)


def test_doubly_reparameterised_is_unbiased_and_less_noisy():
    # 24 parameters, 300 gradients each way, each a mean over 50 draws for the same x: every difference of means within
    # 5 sd, false-alarm probability 2e-5. K = 3, and a q that is off by about a tenth of a posterior sd.
    ppca = random_ppca()
    vae, x = as_vae(ppca), ppca.draw(1).expand(50, -1)
    with torch.no_grad():
        vae.posterior.encoder.layers[0].weight.add_(0.02 * torch.randn(4, 5))
    plain, doubly = (
        encoder_gradients(vae, objective, x, repeats=300)
        for objective in (ImportanceWeightedObjective(3), DoublyReparameterisedObjective(3))
    )
    error = ((plain.var(0) + doubly.var(0)) / 300).sqrt()
    assert ((plain.mean(0) - doubly.mean(0)).abs() < 5 * error).all()
    assert (doubly.mean(0).abs() > 20 * error).any()  # there is a gradient to agree on
    assert doubly.var(0).sum() < 0.5 * plain.var(0).sum()


def test_at_the_exact_posterior_the_doubly_reparameterised_gradient_of_q_is_zero():
    """log w is then log p(x) for every z: sticking the landing for K = 1, and the same for any K."""
    ppca = random_ppca()
    vae, x = as_vae(ppca), ppca.draw(4)
    for samples in (1, 5):
        assert encoder_gradients(vae, DoublyReparameterisedObjective(samples), x, repeats=3).abs().max() < 1e-11
    noise = encoder_gradients(vae, ImportanceWeightedObjective(1), x, repeats=3).std(0)
    assert noise.max() > 0.1  # the plain gradient is only zero on average


def test_unusable_objectives_are_refused():
    for make in (ImportanceWeightedObjective, DoublyReparameterisedObjective):
        with pytest.raises(InputError, match="expected K >= 1"):
            make(0)
    for options in ({"warmup_steps": -1}, {"free_bits": -0.1}, {"free_bits": math.nan}, {"kl_weight": -1.0}):
        with pytest.raises(InputError, match="expected all >= 0"):
            ElboObjective(**options)


# ---------------------------------------------------------------------------------------------- per-datapoint


def test_a_step_touches_only_the_rows_of_its_batch():
    posterior = PerDatapointPosterior(100, LATENT)
    vae = small_vae(posterior=posterior)
    before = posterior.table.weight.detach().clone()
    batch = batch_of(3)
    loss = vae.loss(Batch(batch.x, torch.tensor([7, 90, 7])), step=0, noise=Noise(generator(0)))
    loss.value.backward()
    gradient = posterior.table.weight.grad
    assert gradient.is_sparse
    assert gradient.coalesce().indices().tolist() == [[7, 90]]
    torch.optim.SparseAdam([posterior.table.weight], lr=0.1).step()
    moved = (posterior.table.weight != before).any(1).nonzero().flatten()
    assert moved.tolist() == [7, 90]


def test_per_datapoint_posteriors_start_where_they_say():
    posterior = PerDatapointPosterior(50, 3, initial_scale=0.3)
    q = posterior(torch.zeros(2, *SHAPE), torch.tensor([4, 9]))
    torch.testing.assert_close(q.scale, torch.full((2, 3), 0.3))
    assert 0 < q.mean.abs().max() < 0.06  # not equal: symmetry is broken
    new = posterior.initial(torch.zeros(2, *SHAPE))
    assert new.mean.tolist() == [[0.0] * 3] * 2
    torch.testing.assert_close(new.scale, q.scale)
    with pytest.raises(InputError, match="expected a standard deviation > 0"):
        PerDatapointPosterior(50, 3, initial_scale=0.0)


@pytest.mark.parametrize("start", ["prior", "an encoder blind to x", "too wide and far away"])
def test_optimising_q_reaches_the_exact_posterior(start):
    ppca = random_ppca()
    x = ppca.draw(20)
    exact = ppca.factorised_posterior(x)
    vae = as_vae(ppca, exact_encoder=False)
    q = {
        "prior": Gaussian.standard((20, 2), dtype=torch.float64),
        "an encoder blind to x": Gaussian(exact.mean.mean(0).expand(20, 2).contiguous(), exact.scale),
        "too wide and far away": Gaussian(exact.mean + 3, 5 * exact.scale),
    }[start]
    found = vae.optimise(x, q)
    torch.testing.assert_close(found.mean, exact.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(found.scale, exact.scale, rtol=0.05, atol=0)
    assert ppca.kl_to_posterior(found, x).mean() < 2e-3 < ppca.kl_to_posterior(q, x).mean()


def test_optimising_q_leaves_theta_alone_and_examples_apart():
    vae, x = small_vae(), batch_of(6).x
    before = {name: values.clone() for name, values in vae.state_dict().items()}
    state = torch.get_rng_state()
    together = vae.optimise(x, vae.infer(x), steps=30)
    assert all(torch.equal(values, before[name]) for name, values in vae.state_dict().items())  # bit for bit
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not together.mean.requires_grad
    alone = vae.optimise(x[2:3], vae.infer(x[2:3]), steps=30)
    torch.testing.assert_close(together.mean[2:3], alone.mean)
    torch.testing.assert_close(together.scale[2:3], alone.scale)
    with pytest.raises(InputError, match="for 0 steps"):
        vae.optimise(x, vae.infer(x), steps=0)


def test_optimise_posterior_minimises_whatever_it_is_given():
    # -ELBO of the posterior N(1, 0.5²) under a flat prior: E (z - 1)² / (2 * 0.25) - log s
    def negative_elbo(q, eps):
        z = q.mean + q.scale * eps
        return ((z - 1).square() / 0.5 - q.scale.log()).sum(-1).mean(0)

    found = optimise_posterior(negative_elbo, Gaussian(torch.zeros(2, 3), torch.ones(())), steps=1000)
    torch.testing.assert_close(found.mean, torch.ones(2, 3), rtol=0, atol=0.05)
    torch.testing.assert_close(found.scale, torch.full((2, 3), 0.5), rtol=0.05, atol=0)


def test_the_amortisation_gap_is_that_of_the_encoder():
    """Optimised minus encoder bound: KL(q || posterior) for a crippled encoder, zero for an exact one."""
    ppca = random_ppca()
    x = ppca.draw(50)
    for exact_encoder in (True, False):
        vae = as_vae(ppca, exact_encoder=exact_encoder)
        encoder, optimised = (one.estimate(x, 0, torch.arange(50)) for one in vae.estimators(Effort(draws=200))[:2])
        gap = (optimised.value - encoder.value).mean().item()
        # the draws' errors add up over 50 examples; 4.5 sd: false-alarm probability 7e-6
        error = (optimised.standard_error.square() + encoder.standard_error.square()).sum().sqrt().item() / 50
        expected = ppca.kl_to_posterior(vae.infer(x), x).mean().item()
        assert gap == pytest.approx(expected, abs=4.5 * error + 1e-3)
        assert (expected < 1e-12) == exact_encoder


def test_new_data_are_scored_with_q_optimised_for_them():
    ppca = random_ppca()
    vae, x = linear_vae(5, 2, PerDatapointPosterior(3, 2)), ppca.draw(10)
    trained = as_vae(ppca)
    vae.decoder, vae.likelihood = trained.decoder, trained.likelihood
    torch.testing.assert_close(vae.encode(x), ppca.posterior(x).mean, rtol=0, atol=0.02)
    bound = vae.importance_weighted_bound(x, samples=50)
    torch.testing.assert_close(bound.value, ppca.log_prob(x), rtol=0, atol=0.02)


# ---------------------------------------------------------------------------------------------- bounds


def test_the_bounds_agree_with_each_other_and_with_torch_distributions():
    vae, x = small_vae(), batch_of(4).x
    elbo, bound = vae.elbo(x, draws=2000), vae.importance_weighted_bound(x, samples=2000, seed=1)
    # two independent estimates of the ELBO, 4 examples within 4.5 sd: 3e-5
    error = (elbo.standard_error.square() * 2).sqrt() * 1.5  # the one with log q in it is a little noisier
    assert ((elbo.value - bound.elbo).abs() < 4.5 * error).all()
    q, _ = draws_of(vae, Batch(x, torch.arange(4)), 0)
    torch.testing.assert_close(elbo.rates["rate"], kl_divergence(q, PRIOR).detach())
    assert (bound.value > bound.elbo).all()


def test_an_examples_bound_depends_on_neither_batch_nor_chunks(monkeypatch):
    vae, x = small_vae(), batch_of(7).x
    numbers = torch.tensor([3, 11, 5, 0, 8, 2, 9])
    for samples in (1, 70, 330):  # within one block of draws, and over several, the last one short
        whole = vae.importance_weighted_bound(x, samples=samples, seed=4, index=numbers)
        part = vae.importance_weighted_bound(x[[5, 1]], samples=samples, seed=4, index=numbers[[5, 1]])
        torch.testing.assert_close(part.value, whole.value[[5, 1]])
        with monkeypatch.context() as patch:
            patch.setitem(chapter.ELEMENTS, "cpu", 12)  # one example at a time
            torch.testing.assert_close(
                vae.importance_weighted_bound(x, samples=samples, seed=4, index=numbers).value, whole.value
            )
        assert (vae.importance_weighted_bound(x, samples=samples, seed=5, index=numbers).value != whole.value).all()
    whole, part = (vae.elbo(x[rows], draws=3, seed=4, index=numbers[rows]) for rows in (slice(None), slice(5, 6)))
    torch.testing.assert_close(part.value, whole.value[5:6])
    default, explicit = vae.elbo(x, draws=3), vae.elbo(x, draws=3, index=torch.arange(7))
    assert torch.equal(default.value, explicit.value)


def test_scoring_leaves_no_gradient_and_draws_nothing_global():
    vae, x = small_vae(), batch_of(3).x
    state = torch.get_rng_state()
    scores = [vae.elbo(x).value, vae.importance_weighted_bound(x, samples=3).value, vae.sample(2), vae.reconstruct(x)]
    assert not any(score.requires_grad for score in scores)
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------------------------------------- samples


def likelihoods(shape):
    return [
        GaussianLikelihood(shape, LearnedScale(0.05)),
        GaussianLikelihood(shape, FreeScale(shape, 0.05)),
        BernoulliLikelihood(shape),
        DiscretisedLikelihood(shape, LearnedScale(0.05), 17, DiscretisedLogistic),
        CategoricalLikelihood(shape, 17),
    ]


@pytest.mark.parametrize("likelihood", likelihoods(SHAPE), ids=lambda likelihood: type(likelihood).__name__)
def test_sample_i_is_the_same_alone_in_a_batch_and_from_any_start(likelihood):
    vae = small_vae(likelihood=likelihood)
    samples, means = vae.sample(6, seed=3), vae.sample_mean(6, seed=3)
    assert samples.shape == means.shape == (6, *SHAPE)
    torch.testing.assert_close(vae.sample(2, seed=3, first=4), samples[4:])
    torch.testing.assert_close(vae.sample(1, seed=3), samples[:1])
    torch.testing.assert_close(vae.sample_mean(2, seed=3, first=4), means[4:])
    assert (vae.sample(6, seed=4) != samples).any()


def test_samples_and_their_means_share_latents():
    # residuals of 4000 x 5 samples against sigma: mean 0 and variance sigma², both within 4.5 sd (1.4e-5)
    ppca = random_ppca()
    vae = as_vae(ppca)
    residual = (vae.sample(4000) - vae.sample_mean(4000)) / ppca.sigma
    assert abs(residual.mean()) < 4.5 / math.sqrt(residual.numel())
    assert abs(residual.var() - 1) < 4.5 * math.sqrt(2 / residual.numel())


def test_second_moments_of_samples_are_those_of_the_model():
    # 15 entries of a covariance and 5 means of 10 000 samples, each within 5 sd: false-alarm probability 1.2e-5
    ppca, count = random_ppca(orthogonal=False), 10_000
    x = as_vae(ppca, exact_encoder=False).sample(count)
    covariance = ppca.joint.marginal().covariance
    variance = covariance.diagonal()
    error = ((variance.outer(variance) + covariance.square()) / count).sqrt()
    assert ((x.mT.cov() - covariance).abs() < 5 * error).all()
    assert ((x.mean(0) - ppca.offset).abs() < 5 * (variance / count).sqrt()).all()


# ---------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 23), (1, 1, 9)])
@pytest.mark.parametrize("kind", range(5))
def test_convolutional_vaes_of_every_likelihood_keep_the_contract(shape, kind):
    likelihood = likelihoods(shape)[kind]
    levels = Levels(shape, (4, 6))
    encoder = ConvolutionalEncoder(levels, 2 * LATENT)
    decoder = ConvolutionalDecoder(levels, LATENT, likelihood.outputs)
    vae = VAE(AmortisedPosterior(encoder, LATENT), decoder, likelihood)
    x = vae.sample(3)
    assert x.shape == (3, *shape)
    loss = vae(Batch(x, torch.arange(3)), 0, Noise(generator(0)))  # forward is the training step
    loss.value.backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())
    elbo = vae.elbo(x, draws=2)
    assert elbo.value.shape == elbo.standard_error.shape == (3,)
    assert vae.encode(x).shape == (3, LATENT)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.importance_weighted_bound(x, samples=3).value.shape == (3,)
    assert vae.diagnostics(x)["latent dimensions"] == LATENT


def test_active_units_are_counted():
    ppca = random_ppca(latent=3)
    vae, x = as_vae(ppca), ppca.draw(200)
    assert vae.diagnostics(x) == {"active units": 3.0, "latent dimensions": 3.0}
    with torch.no_grad():
        vae.posterior.encoder.layers[0].weight[1] *= 1e-3  # the mean of q hardly moves along z_1 now
    assert vae.diagnostics(x)["active units"] == 2.0


def test_a_learned_scale_at_its_floor_is_reported():
    vae = small_vae()
    with torch.no_grad():
        vae.decoder.layers[-1].weight.zero_()
        vae.decoder.layers[-1].bias.view(2, *SHAPE)[1] = -20.0
        vae.decoder.layers[-1].bias.view(2, *SHAPE)[1, 0, 0] = 0.0  # 3 of 12 pixels are not at the floor
    report = vae.diagnostics(batch_of(5).x)
    assert report["share of scales at the floor"] == pytest.approx(0.75)
    assert report["decoder scale, floor"] == 0.05


def test_autocast_runs_the_networks_only():
    """Under bfloat16 autocast densities are still float32: only the networks' outputs lose digits."""
    vae, x = small_vae().float(), batch_of(4).x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = vae.posterior(x, torch.arange(4))
        loss = vae.loss(Batch(x, torch.arange(4)), step=0, noise=Noise(generator(0)))
        assert vae.decoder(q.mean).dtype == torch.bfloat16
        assert vae.decode(q.mean).mean.dtype == q.mean.dtype == q.scale.dtype == torch.float32
    expected = vae.loss(Batch(x, torch.arange(4)), step=0, noise=Noise(generator(0)))
    assert loss.value.dtype == torch.float32
    torch.testing.assert_close(loss.value, expected.value, rtol=0.02, atol=0)
