"""Learned priors: each integrates to one, draws what it scores, and gives bounds below the exact log p(x)."""

import math

import pytest
import torch
from linear_vae import as_vae, random_ppca
from networks import awake
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.model import Batch, Effort
from jensen.nets import MLP
from jensen.randomness import Noise, generator
from jensen.vae import (
    AbstractPrior,
    AmortisedPosterior,
    CouplingPrior,
    DoublyReparameterisedObjective,
    ElboObjective,
    ImportanceWeightedObjective,
    MixturePrior,
    VampPrior,
)

NAMES = ["mixture", "vamp", "flow"]


def prior_of(name: str, dims: int) -> AbstractPrior:
    """A prior in float64 whose parameters are not those of the start."""
    torch.manual_seed(3)
    if name == "mixture":
        prior: AbstractPrior = MixturePrior(dims, 4)
    elif name == "vamp":
        prior = VampPrior(dims, _encoder(dims).whole, (5,), 6, (0.0, 1.0))
    else:
        prior = CouplingPrior(dims, [MLP((dims,), (8,), (2 * dims,)) for _ in range(3)])
    return awake(prior)


def _encoder(dims: int) -> AmortisedPosterior:
    encoder = MLP((5,), (7,), (2 * dims,)).double()
    with torch.no_grad():
        encoder.layers[-1].weight.mul_(2)
    return AmortisedPosterior(encoder, dims)


def grid(prior: AbstractPrior, half: float = 24.0, points: int = 481) -> tuple[Tensor, Tensor]:
    """Points of the plane and their masses p(z) dz, by the midpoint rule."""
    axis = torch.linspace(-half, half, points, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    return z, prior.log_prob(z).exp() * (axis[1] - axis[0]) ** 2


@pytest.mark.parametrize("name", NAMES)
def test_a_prior_integrates_to_one(name: str) -> None:
    with torch.no_grad():
        _, masses = grid(prior_of(name, 2))
        assert masses.sum() == pytest.approx(1, abs=1e-6)
        # In six dimensions by importance sampling from N(0, 2²), within 4.5 errors: false-alarm probability 7e-6
        prior, wide = prior_of(name, 6), Gaussian(torch.zeros(6).double(), torch.full((6,), 2.0).double())
        z = wide.rsample(torch.Generator().manual_seed(0), (100_000,))
        w = (prior.log_prob(z) - wide.log_prob(z)).exp()
        error = w.std() / math.sqrt(len(w))
        assert error < 0.05
        assert abs(w.mean() - 1) < 4.5 * error


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_density(name: str) -> None:
    prior, count = prior_of(name, 2), 20_000
    with torch.no_grad():
        z, masses = grid(prior)
        draws = prior.sample(count, seed=1).double()
    cells = torch.tensor([-1.05, -0.35, 0.35, 1.05]).double()  # between the points of the grid

    def cell(points: Tensor) -> Tensor:
        return (torch.bucketize(points.contiguous(), cells) * torch.tensor([5, 1])).sum(-1)

    expected = torch.zeros(25).double().index_add_(0, cell(z), masses)
    found = torch.bincount(cell(draws), minlength=25) / count
    error = (expected * (1 - expected) / count).sqrt()
    # 25 cells within 5 errors, and the grid's own error: false-alarm probability 2e-5
    assert ((found - expected).abs() < 5 * error + 1e-3).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_depends_on_seed_and_number_only(name: str) -> None:
    prior = prior_of(name, 3)
    whole = prior.sample(9, seed=1)
    torch.testing.assert_close(prior.sample(4, seed=1, first=3), whole[3:7])
    assert (prior.sample(9, seed=2) != whole).all()
    with pytest.raises(InputError, match="without labels"):
        prior.sample(2, labels=torch.zeros(2).long())


def test_a_mixture_is_that_of_torch_distributions() -> None:
    prior, z = prior_of("mixture", 3), torch.randn(2, 7, 3, dtype=torch.float64)
    components = Independent(Normal(prior.mean, prior.log_scale.exp()), 1)
    expected = MixtureSameFamily(Categorical(logits=prior.logits), components).log_prob(z)
    torch.testing.assert_close(prior.log_prob(z), expected)
    parameters = list(prior.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(prior.log_prob(z).sum(), parameters), torch.autograd.grad(expected.sum(), parameters)
    )


def test_components_far_away_and_narrow_keep_their_digits_in_float32() -> None:
    prior = MixturePrior(40, 10)
    with torch.no_grad():
        prior.mean.mul_(5)
        prior.log_scale.fill_(math.log(0.01))
        z = prior.sample(50, seed=1)
        expected = prior.double().log_prob(z.double())
    torch.testing.assert_close(prior.float().log_prob(z).double(), expected, rtol=0, atol=1e-2)


def test_the_vamp_prior_is_the_mean_of_the_posteriors_of_its_pseudo_inputs() -> None:
    posterior = _encoder(2)
    prior = VampPrior(2, posterior.whole, (5,), 6, (-1.0, 1.0)).double()
    assert dict(prior.named_parameters()).keys() == {"raw"}  # the encoder belongs to the posterior
    assert (prior.pseudo_inputs.abs() < 1).all()
    z, q = torch.randn(4, 2).double(), posterior.whole(prior.pseudo_inputs)
    expected = torch.stack([Gaussian(q.mean[k], q.scale[k]).log_prob(z) for k in range(6)]).logsumexp(0) - math.log(6)
    torch.testing.assert_close(prior.log_prob(z), expected)
    gradients = torch.autograd.grad(prior.log_prob(z).sum(), [prior.raw, *posterior.parameters()])
    assert all((gradient != 0).any() for gradient in gradients)


def test_a_flow_is_its_change_of_variables() -> None:
    prior = prior_of("flow", 3)
    u = torch.randn(3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: prior.transformed(v[None])[0], u)
    z = prior.transformed(u[None])[0]
    expected = Gaussian.standard((3,), dtype=torch.float64).log_prob(u) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(prior.log_prob(z[None])[0], expected)
    assert (jacobian != 0).all()  # every dimension is reached
    start = CouplingPrior(3, [MLP((3,), (), (6,)).double() for _ in range(2)])
    for network in start.conditioners:
        torch.nn.init.zeros_(network.layers[0].weight)
    standard = Gaussian.standard((3,), dtype=torch.float64)
    torch.testing.assert_close(start.log_prob(u[None]), standard.log_prob(u[None]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MixturePrior(2, 0),
        lambda: VampPrior(2, _encoder(2).whole, (5,), 0),
        lambda: CouplingPrior(1, [MLP((1,), (), (2,))]),
        lambda: CouplingPrior(2, []),
    ],
)
def test_impossible_priors_are_refused(make) -> None:
    with pytest.raises(InputError, match="expected at least 1"):
        make()


# ---------------------------------------------------------------------------------------------- in a linear VAE

PPCA = random_ppca()


def exact_log_prob(prior: MixturePrior, x: Tensor) -> Tensor:
    """log Σ_k w_k N(x | W m_k + b, W S_k W' + sigma² I)."""
    terms = []
    for weight, mean, log_scale in zip(prior.logits.log_softmax(0), prior.mean, prior.log_scale, strict=True):
        factor = PPCA.matrix * log_scale.exp()
        covariance = factor @ factor.mT + PPCA.sigma**2 * torch.eye(len(PPCA.offset)).double()
        terms.append(weight + MultivariateNormal(PPCA.matrix @ mean + PPCA.offset, covariance).log_prob(x))
    return torch.stack(terms).logsumexp(0)


def test_bounds_with_a_mixture_prior_meet_the_exact_log_prob() -> None:
    prior = prior_of("mixture", 2)
    with torch.no_grad():
        prior.mean.add_(1.5)  # far from N(0, I), whose posterior is the encoder's
    vae, count = as_vae(PPCA).with_prior(prior), 20
    x = vae.sample(count, seed=2)
    with torch.no_grad():
        exact = exact_log_prob(prior, x)
    vae.fit_steps = 30
    effort = Effort(draws=100, samples=2000, temperatures=8, chains=8, temperatures_from_q=5)
    found = {one.name: one.estimate(x, 0, torch.arange(count)) for one in vae.estimators(effort)}
    gap = exact - found["ELBO"].value
    # The encoder is the posterior of another prior, so the gap is positive; 3 errors: false-alarm probability 1e-3
    error = found["ELBO"].standard_error.square().sum().sqrt() / count
    assert gap.mean() > 3 * error > 0  # with N(0, I) the error would be 0: the rate has a Monte-Carlo error
    for name in ("L_2000", "AIS", "AIS from q"):
        value, error = found[name].value, found[name].standard_error
        assert (value - exact).mean().abs() < 4.5 * error.square().sum().sqrt() / count + 0.01, name


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_trains_the_prior(name: str) -> None:
    prior = VampPrior(2, lambda x: vae.posterior.whole(x), (5,), 3) if name == "vamp" else prior_of(name, 2)
    vae = as_vae(PPCA).with_prior(prior.double())
    batch = Batch(PPCA.draw(8), torch.arange(8))
    for objective in (ElboObjective(), ImportanceWeightedObjective(3), DoublyReparameterisedObjective(3)):
        loss = vae.with_prior(prior, objective).loss(batch, step=0, noise=Noise(generator(0)))
        gradients = torch.autograd.grad(loss.value, list(prior.parameters()))
        assert all((gradient != 0).any() for gradient in gradients)
        assert loss.value.isfinite()
    q, z = vae.infer(batch.x), vae.infer(batch.x).rsample(None, (3,))
    torch.testing.assert_close(prior.rates(q, z)["rate"], q.log_prob(z) - prior.log_prob(z))
