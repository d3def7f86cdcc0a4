"""A diffusion model as the prior of a VAE: one bound, whose gap and terms are known where everything is a formula."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from linear_vae import as_vae, random_ppca
from mixtures import ExactDenoiser, GaussianMixture, one_gaussian, three_clusters
from torch import Tensor

from jensen.bound import Elbo
from jensen.diffusion import BetaVariance, LinearLogSnr
from jensen.diffusion.bayes import Race
from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.model import DiffusionModel, Generation, Scoring
from jensen.diffusion.ode import Tolerance
from jensen.diffusion.weighting import Simple, UniformTimes, WeightedObjective
from jensen.errors import InputError
from jensen.gaussian import Gaussian, LinearGaussian, MultivariateGaussian
from jensen.latent import DiffusionPrior, FlowPrior, Moments, StagedObjective
from jensen.latent.objective import MEASURED
from jensen.model import Batch, Effort
from jensen.randomness import Noise, generator
from jensen.vae import VAE, AbstractPrior, ElboObjective, StandardNormal

PPCA = random_ppca()
DIMS = PPCA.matrix.shape[1]
EXAMPLES = 150


def prior_of(
    mixture: GaussianMixture,
    steps: int = 1000,
    terms: int | None = 24,
    denoiser: AbstractDenoiser | None = None,
    **more: object,
) -> DiffusionPrior:
    """The diffusion prior whose denoiser is exact for u ~ mixture."""
    scoring = Scoring(steps, variance=BetaVariance(), terms=terms, tolerance=Tolerance(1e-6, 1e-6), **more)
    objective = WeightedObjective(Simple(), UniformTimes())
    shape = (mixture.means.shape[1],)
    denoiser = denoiser or ExactDenoiser(mixture)
    return DiffusionPrior(DiffusionModel(shape, denoiser, LinearLogSnr(13, -10), objective, scoring, Generation()))


def measured(prior: DiffusionPrior, shift: Tensor, scale: Tensor) -> DiffusionPrior:
    """The prior with these moments of z."""
    ends = torch.stack([shift - scale, shift + scale])
    prior.moments.observe(ends, ends.square())
    return prior


def within(values: Tensor, expected: Tensor | float, sigmas: float = 4.0) -> None:
    """The mean of one value per example agrees with the expected mean; false alarm below 1e-4 per call."""
    difference = values - expected
    error = difference.std() / math.sqrt(len(difference))
    assert difference.mean().abs() < sigmas * error, (difference.mean(), error)


# ---------------------------------------------------------------------------------------------- an exact prior


def test_with_the_exact_denoiser_of_a_normal_the_bound_is_the_vae_s_own() -> None:
    """N(0, I) stays N(0, I) under the noise, so the reverse steps with variance beta are exact: no gap at all."""
    x, vae = PPCA.draw(EXAMPLES), as_vae(PPCA)
    latent = vae.with_prior(prior_of(one_gaussian(0.0, 1.0, DIMS)))
    closed = PPCA.log_prob(x)  # the encoder is the posterior: the ELBO with N(0, I) is log p(x)
    within(vae.elbo(x, draws=4).value, closed)
    found = latent.elbo(x, draws=4)
    within(found.value, closed)
    # Of one draw of z and of the noise: an error of a wrong scale would show here
    spread = found.standard_error.square().mean() / (found.value - closed).square().mean()
    assert 0.8 < spread < 1.25


def test_moments_of_z_enter_by_their_exact_log_volume() -> None:
    """u ~ N(0, I) and z = shift + scale u: p(z) is a normal, so E_q log p(z) is a formula."""
    shift, scale = torch.tensor([0.7, -2.0]).double(), torch.tensor([3.0, 0.2]).double()
    prior = measured(prior_of(one_gaussian(0.0, 1.0, DIMS)), shift, scale)
    torch.testing.assert_close(prior.moments.shift, shift)
    torch.testing.assert_close(prior.moments.scale, scale)
    q = Gaussian(torch.randn(EXAMPLES, DIMS).double(), torch.rand(EXAMPLES, DIMS).double() + 0.1)
    z = q.rsample(torch.Generator().manual_seed(1), (4,))
    found = Elbo.from_draws(torch.zeros(4, EXAMPLES).double(), prior.rates(q, z))
    within(found.value, -q.kl(Gaussian(shift.expand_as(q.mean), scale.expand_as(q.mean))))


# ---------------------------------------------------------------------------------------------- mixture data


class MixturePrior(AbstractPrior):
    """An exact prior that is not N(0, I): all that it gives are `log_prob` and `sample`."""

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__(mixture.means.shape[1])
        self.mixture = mixture

    def log_prob(self, z: Tensor) -> Tensor:
        return self.mixture.log_prob(z.flatten(0, -2)).reshape(z.shape[:-1])

    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        return self.mixture.sample(n, torch.Generator().manual_seed(seed))


CLUSTERS = three_clusters()
SHARP = random_ppca(sigma=0.2)  # x says nearly all about z, so that q(z|x) is near the posterior


@cache
def mixture_data() -> tuple[Tensor, Tensor]:
    """x of the linear decoder with z from the clusters, and log p(x), which is a mixture's."""
    log_p = []
    z = CLUSTERS.sample(EXAMPLES, torch.Generator().manual_seed(2))
    noise = torch.randn(EXAMPLES, len(SHARP.offset), generator=torch.Generator().manual_seed(3)).double()
    x = z @ SHARP.matrix.mT + SHARP.offset + SHARP.sigma * noise
    eye = torch.eye(len(SHARP.offset)).double()
    for weight, mean, scale in zip(CLUSTERS.weights, CLUSTERS.means, CLUSTERS.scales, strict=True):
        component = MultivariateGaussian(mean, scale.diag())
        joint = LinearGaussian(component, SHARP.matrix, MultivariateGaussian(SHARP.offset, SHARP.sigma * eye))
        log_p.append(weight.log() + joint.marginal().log_prob(x))
    return x, torch.stack(log_p).logsumexp(0)


def vae_gap(vae: VAE, x: Tensor, log_p: Tensor) -> Tensor:
    """KL(q(z|x) || p(z|x)) = log p(x) - E_q [log p(x, z) - log q(z)], by a product rule for the two dimensions of z."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    eps = torch.cartesian_prod(*[torch.from_numpy(nodes)] * 2).unsqueeze(1)
    weight = torch.cartesian_prod(*[torch.from_numpy(weights / math.sqrt(2 * math.pi))] * 2).prod(1)
    q = vae.infer(x).detach()
    z = q.mean + q.scale * eps
    exact = vae.with_prior(MixturePrior(CLUSTERS))
    with torch.no_grad():
        return log_p - weight @ (exact.log_joint(x, z) - q.log_prob(z))


def test_the_bound_is_below_log_p_of_mixture_data_and_both_parts_of_its_gap_are_known() -> None:
    """log p(x) - bound = KL(q || p(z|x)), by quadrature, + the prior's gap E_q [log p(z) - bound of log p(z)].

    False alarm below 1e-4 per comparison.
    """
    x, log_p = mixture_data()
    vae = as_vae(SHARP)  # its encoder is the posterior under N(0, I), not under the clusters
    gap = vae_gap(vae, x, log_p)
    assert gap.min() > 0
    exact = vae.with_prior(MixturePrior(CLUSTERS)).elbo(x, draws=8).value
    within(log_p - exact, gap)
    gaps_of_prior = []
    for steps, terms in ((5, None), (20, None), (1000, 24)):
        bound = vae.with_prior(prior_of(CLUSTERS, steps, terms)).elbo(x, draws=8).value
        assert (log_p - bound).mean() > -4 * (log_p - bound).std() / math.sqrt(EXAMPLES)
        of_prior = exact - bound  # with the same draws of z
        gaps_of_prior.append(of_prior.mean().item())
    assert gaps_of_prior[0] > gaps_of_prior[1] > 0.1
    assert abs(gaps_of_prior[2]) < 4 * of_prior.std() / math.sqrt(EXAMPLES) + 0.02


def test_every_estimator_takes_an_exact_prior_that_is_no_normal() -> None:
    x, log_p = mixture_data()
    vae = as_vae(SHARP).with_prior(MixturePrior(CLUSTERS))
    elbo = vae.elbo(x, draws=64)
    within(log_p - elbo.value, vae_gap(as_vae(SHARP), x, log_p))
    weighted = vae.importance_weighted_bound(x[:50], samples=2000)
    assert weighted.trusted.all()
    assert ((weighted.value - log_p[:50]).abs() < 4 * weighted.standard_error + 1e-3).all()
    names = [one.name for one in vae.estimators(Effort(temperatures=5))]
    assert names == ["ELBO", "optimised ELBO", "L_1000", "AIS"]
    assert (
        vae.elbo_of(vae.optimise(x[:50], vae.infer(x[:50]).detach()), x[:50], draws=64).value.mean()
        > elbo.value[:50].mean()
    )


def test_the_flow_of_the_exact_denoiser_is_the_prior_itself() -> None:
    x, vae = mixture_data()[0][:60], as_vae(SHARP)
    found = vae.with_prior(FlowPrior(prior_of(CLUSTERS))).elbo(x)
    assert found.rates.keys() == {"entropy", "flow"}
    exact = vae.with_prior(MixturePrior(CLUSTERS)).elbo(x)  # with the same draws of z
    torch.testing.assert_close(found.value, exact.value, atol=5e-3, rtol=0)


# ---------------------------------------------------------------------------------------------- the contract


def test_terms_add_up_and_no_estimator_needs_log_p_of_z() -> None:
    x, vae = PPCA.draw(20), as_vae(PPCA)
    latent = vae.with_prior(prior_of(CLUSTERS, terms=4))
    found = latent.elbo(x, draws=3)
    assert list(found.terms) == ["reconstruction", "entropy", "latent reconstruction", "prior", "denoising"]
    torch.testing.assert_close(sum(found.terms.values()), found.value)
    assert [one.name for one in latent.estimators(Effort(draws=1, samples=1))] == [
        "ELBO",
        "ELBO, flow prior",
        "ELBO, N(0, I) prior",
    ]
    assert latent.bracket(3, Effort(temperatures=5)) is None
    for needs_it in (
        lambda: latent.importance_weighted_bound(x, samples=2),
        lambda: latent.annealed_bound(x),
        lambda: latent.optimise(x, latent.infer(x)),
    ):
        with pytest.raises(InputError, match="lower bound on log p"):
            needs_it()


def test_scores_and_samples_of_an_example_do_not_depend_on_its_batch() -> None:
    x, latent = PPCA.draw(7), as_vae(PPCA).with_prior(prior_of(CLUSTERS, terms=4))
    whole = latent.elbo(x, draws=2, seed=3)
    part = latent.elbo(x[4:6], draws=2, seed=3, index=torch.tensor([4, 5]))
    for name, term in whole.terms.items():
        torch.testing.assert_close(part.terms[name], term[4:6])
    torch.testing.assert_close(latent.sample(2, seed=1, first=4), latent.sample(7, seed=1)[4:6])


def test_samples_have_the_moments_of_the_model() -> None:
    """x = W z + b + noise with z from the clusters; false alarm below 1e-4 per moment."""
    shift, scale = torch.tensor([5.0, -1.0]).double(), torch.tensor([2.0, 0.5]).double()
    latent = as_vae(PPCA).with_prior(measured(prior_of(CLUSTERS), shift, scale))
    z = latent.prior_draws(3000, seed=5)
    mean = CLUSTERS.weights @ CLUSTERS.means
    for d in range(DIMS):
        within(z[:, d], shift[d] + scale[d] * mean[d])
    torch.testing.assert_close(latent.sample_mean(5, seed=5), z[:5] @ PPCA.matrix.mT + PPCA.offset)


class OneClusterALabel(AbstractDenoiser):
    """The exact denoiser of p(z|y), the cluster y, and of p(z) without a label."""

    classes = 3

    def forward(self, x_t: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Denoised:
        labels = torch.full((len(x_t),), 3) if labels is None else labels
        found = ExactDenoiser(CLUSTERS)(x_t, log_snr)
        for y in range(3):
            one = GaussianMixture(torch.ones(1).double(), CLUSTERS.means[y : y + 1], CLUSTERS.scales[y : y + 1])
            of_label, rows = ExactDenoiser(one)(x_t, log_snr), (labels == y).unsqueeze(1)
            found = replace(
                found, x0=torch.where(rows, of_label.x0, found.x0), eps=torch.where(rows, of_label.eps, found.eps)
            )
        return found


def test_labels_are_predicted_by_the_bounds_of_p_of_z_given_y() -> None:
    """p(y|x) ∝ p(y) exp E_q log p(z|y), where E_q log p(z|y) is a formula."""
    x, vae = mixture_data()[0][:20], as_vae(SHARP)
    counts = (50, 30, 20)
    race = Race(draws=24, terms=8, error=0)
    prior = prior_of(CLUSTERS, denoiser=OneClusterALabel(), label_counts=counts, race=race)
    latent = vae.with_prior(prior)
    found = latent.predict(x)
    q = latent.infer(x)
    expected = torch.tensor(counts).double().log() + torch.stack(
        [
            -q.kl(Gaussian(m.expand_as(q.mean), s.expand_as(q.mean)))
            for m, s in zip(CLUSTERS.means, CLUSTERS.scales, strict=True)
        ],
        1,
    )
    difference = (found.probabilities - expected.softmax(1)).abs()
    assert (difference < 4.5 * found.standard_error + 1e-3).float().mean() > 0.97
    assert difference.mean() < 0.05
    assert (found.evaluations == 24 * 9 * 3).all()
    torch.testing.assert_close(
        latent.predict(x[3:5], index=torch.tensor([3, 4])).probabilities, found.probabilities[3:5]
    )
    assert latent.predicted_classes == latent.classes == 3
    assert latent.known_labels == (0, 1, 2)
    drawn = latent.prior_draws(300, labels=torch.full((300,), 1))
    for d in range(DIMS):
        within(drawn[:, d], CLUSTERS.means[1, d])


# ---------------------------------------------------------------------------------------------- training


def staged(vae_steps: int = 3, prior_steps: int | None = 4) -> VAE:
    """A linear VAE with a small trained network as denoiser."""
    from jensen.diffusion import Denoiser, Preconditioned
    from jensen.nets import ResidualMLP

    denoiser = Denoiser(ResidualMLP((DIMS,), 8, 1), Preconditioned(1.0))
    objective = WeightedObjective(Simple(), UniformTimes())
    scoring = Scoring(8, variance=BetaVariance())
    model = DiffusionModel((DIMS,), denoiser, LinearLogSnr(13, -10), objective, scoring)
    vae = as_vae(PPCA, exact_encoder=False)
    return vae.with_prior(DiffusionPrior(model), StagedObjective(vae_steps, prior_steps)).double()


def batch(count: int = 16) -> Batch:
    return Batch(PPCA.draw(count), torch.arange(count))


def test_an_untrained_prior_is_the_standard_normal() -> None:
    x, vae = PPCA.draw(EXAMPLES), staged()
    within(vae.elbo(x, draws=4).value, vae.with_prior(StandardNormal(DIMS)).elbo(x, draws=4).value)


@pytest.mark.parametrize(("step", "trained"), [(0, "vae"), (2, "vae"), (3, "prior"), (6, "prior"), (7, "both")])
def test_each_stage_trains_its_own_weights(step: int, trained: str) -> None:
    vae = staged()
    assert vae.stages == (3, 7)
    vae.loss(batch(), step=step, noise=Noise(generator(0))).value.backward()
    for name, parameter in vae.named_parameters():
        reached = parameter.grad is not None
        assert reached == (trained == "both" or name.startswith("prior.") == (trained == "prior")), name


def test_the_first_stage_is_the_vae_s_and_the_last_is_the_negative_bound() -> None:
    vae, some = staged(), batch(64)
    first = vae.loss(some, step=0, noise=Noise(generator(0))).value
    assert first == ElboObjective()(vae.with_prior(StandardNormal(DIMS)), some, 0, Noise(generator(0))).value
    with torch.no_grad():
        for parameter in vae.prior.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype)
    measured(vae.prior, torch.tensor([0.3, 0.1]).double(), torch.tensor([1.5, 0.7]).double())
    losses = [vae.loss(some, step=7, noise=Noise(generator(s))).value.item() for s in range(60)]
    bounds = [vae.elbo(some.x, seed=s).value.mean().item() for s in range(60)]
    error = math.hypot(np.std(losses), np.std(bounds)) / math.sqrt(60)
    assert abs(np.mean(losses) + np.mean(bounds)) < 4 * error  # false alarm below 1e-4


def test_the_moments_are_those_of_z_in_the_first_steps_of_the_second_stage() -> None:
    vae = staged()
    q, noise = vae.infer(batch().x), Noise(generator(4))
    z = q.moved(noise.normal(q.shape, q.mean.dtype)).detach()
    for step in (0, 3, 3 + MEASURED):
        vae.observe(vae.loss(batch(), step=step, noise=Noise(generator(4))).noted)
    torch.testing.assert_close(vae.prior.moments.shift, z.mean(0))
    torch.testing.assert_close(vae.prior.moments.scale, z.std(0, correction=0))
    assert vae.prior.moments.count == len(z)


def test_a_spatial_z_has_moments_by_channel() -> None:
    moments, z = Moments((3, 2, 5)), torch.randn(40, 30).double() * 2 + 1
    moments.observe(*moments.noted(z).values())
    u = moments(z)
    assert u.shape == (40, 3, 2, 5)
    torch.testing.assert_close(u.mean((0, 2, 3)), torch.zeros(3).double())
    torch.testing.assert_close(u.std((0, 2, 3), correction=0), torch.ones(3).double())
    torch.testing.assert_close(moments.back(u), z)
    jacobian = torch.autograd.functional.jacobian(lambda one: moments(one).flatten(), z[0])
    torch.testing.assert_close(moments.log_volume, torch.linalg.slogdet(jacobian).logabsdet)


def test_stages_without_sense_are_refused() -> None:
    with pytest.raises(InputError, match="no negative number"):
        StagedObjective(-1)
