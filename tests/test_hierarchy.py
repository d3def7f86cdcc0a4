"""Hierarchies: a linear Gaussian one recovers its likelihood, bounds stay below it, and every group has its rate."""

import itertools
import math

import pytest
import torch
from linear_hierarchy import as_vae, random_hierarchy
from torch import Tensor

from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.likelihood import BernoulliLikelihood
from jensen.model import Batch, Effort
from jensen.nets.convolution import Levels
from jensen.nets.convolutional_ladder import ConvolutionalBottomUp, ConvolutionalTopDown, MapGroups
from jensen.nets.ladder import AbstractTopDown, DenseBottomUp, DenseTopDown
from jensen.randomness import Noise, generator
from jensen.vae import (
    VAE,
    DoublyReparameterisedObjective,
    ElboObjective,
    GroupedPrior,
    HierarchicalPosterior,
    ImportanceWeightedObjective,
    MixturePrior,
    PerDatapointPosterior,
    StandardNormal,
)

LINEAR = random_hierarchy()
SHAPE, SIZES = (1, 4, 3), (2, 3, 4)


def small_vae(objective=None, sizes=SIZES, seed: int = 0) -> VAE:
    """A dense hierarchy of binary pixels in float64, with nothing at its initial zero."""
    torch.manual_seed(seed)
    likelihood = BernoulliLikelihood(SHAPE)
    decoder = DenseTopDown(sizes, 8, 1, (1, *SHAPE)).double()
    encoder = DenseBottomUp(SHAPE, sizes, 8, 1).double()
    with torch.no_grad():
        for parameter in itertools.chain(encoder.parameters(), decoder.parameters()):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return VAE(HierarchicalPosterior(encoder, decoder), decoder, likelihood, objective, prior=GroupedPrior(sizes))


def pixels(count: int) -> Tensor:
    return (torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)) < 0.4).double()


# ---------------------------------------------------------------------------------------------- closed forms


def test_with_the_exact_posterior_every_weight_is_the_likelihood() -> None:
    x, vae = LINEAR.draw(6), as_vae(LINEAR)
    bound = vae.importance_weighted_bound(x, samples=5)
    torch.testing.assert_close(bound.value, LINEAR.log_prob(x))
    torch.testing.assert_close(bound.elbo, LINEAR.log_prob(x))  # no spread at all
    # The ELBO draws: its mean over 6 examples within 4.5 errors, false-alarm probability 7e-6
    elbo = vae.elbo(x, draws=400)
    error = elbo.standard_error.square().sum().sqrt() / 6
    assert abs((elbo.value - LINEAR.log_prob(x)).mean()) < 4.5 * error
    assert elbo.terms.keys() == {"reconstruction", *(f"rate_{g}" for g in (1, 2, 3))}


def test_the_gap_is_the_divergence_from_the_posterior() -> None:
    """Two dimensions in a group have correlated posteriors: the mean gap is KL(q || p(z|x)), by draws of log q / p."""
    of = random_hierarchy((2, 1))
    x, vae = of.draw(8), as_vae(of, error=0.3)
    q, eps = vae.infer(x), torch.randn(4000, 8, 3, generator=torch.Generator().manual_seed(0)).double()
    draw, exact = q.draw(eps), of.posterior(x)
    z = z_of(vae.decoder, draw.z)
    log_volume = sum(scale.log().sum() for scale in of.scales)
    kl = (draw.law.log_prob(draw.z) - log_volume - exact.log_prob(z)).mean()
    elbo = vae.elbo(x, draws=4000, seed=1)
    gap = (of.log_prob(x) - elbo.value).mean()
    assert gap > 0.05
    assert gap == pytest.approx(kl.item(), abs=4.5 * 0.02)  # spread of log weights 1.5 over 2 x 32,000 draws, and more
    # L_K closes the gap; AIS in both coordinate systems, and q optimised for each example, too
    for value, error in estimates(vae, x):
        assert (value - of.log_prob(x)).mean().abs() < 4.5 * error.square().sum().sqrt() / 8 + 0.01


def estimates(vae: VAE, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    effort = Effort(draws=50, samples=3000, temperatures=8, chains=8, temperatures_from_q=4)
    found = [one.estimate(x, 0, torch.arange(len(x))) for one in vae.estimators(effort) if one.name != "ELBO"][1:]
    assert len(found) == 3
    return [(each.value, each.standard_error) for each in found]


def z_of(decoder: AbstractTopDown, u: Tensor) -> Tensor:
    """z (*batch, latent_dims) of u, by the definition (4.16)."""
    state, groups = decoder.start(), []
    for group, part in enumerate(u.split(decoder.sizes, -1)):
        shift, factor = decoder.shift_and_factor(group, state)
        groups.append(shift + factor * part)
        state = decoder.enter(group, state, groups[-1])
    return torch.cat(groups, -1)


def test_optimising_q_within_the_hierarchy_removes_an_error_of_the_encoder() -> None:
    x, vae = LINEAR.draw(5), as_vae(LINEAR, error=0.7)
    start = vae.infer(x)
    found = vae.optimise(x, start, steps=80)
    before, after = (vae.importance_weighted_bound_of(q, x, samples=300).elbo for q in (start, found))
    gap = LINEAR.log_prob(x) - after
    assert (LINEAR.log_prob(x) - before).mean() > 0.5
    assert gap.abs().max() < 0.05  # a shift of the noise of each factor is all that is missing


def test_the_bracket_of_annealing_contains_the_likelihood() -> None:
    vae = as_vae(LINEAR)
    bracket, x = vae.bracket(6, Effort(temperatures=8, chains=8)), vae.sample(6)
    exact = LINEAR.log_prob(x)
    for side in (bracket.lower, bracket.upper):
        assert (side.value - exact).mean().abs() < 4.5 * side.standard_error.square().sum().sqrt() / 6 + 0.05


def test_training_recovers_the_posterior_of_a_hierarchy() -> None:
    """The gradient of every objective is zero at the exact posterior and leads there from another place."""
    x = LINEAR.draw(300)
    for objective in (ElboObjective(), ImportanceWeightedObjective(3), DoublyReparameterisedObjective(3)):
        vae = as_vae(LINEAR, 0.5, objective)
        optimiser = torch.optim.Adam([vae.posterior.encoder.error], 0.1)
        for step in range(60):
            optimiser.zero_grad()
            vae.loss(Batch(x, torch.arange(300)), step=step, noise=Noise(generator(step))).value.backward()
            optimiser.step()
        assert abs(vae.posterior.encoder.error) < 0.06, objective


# ---------------------------------------------------------------------------------------------- an enumerable model


def test_the_bound_is_below_the_exact_value_and_probabilities_of_all_x_add_up_to_one() -> None:
    """Four binary pixels: 16 x. log p(x) by a grid over u of two groups of one dimension each."""
    torch.manual_seed(5)
    sizes, shape = (1, 1), (4,)
    decoder, encoder = DenseTopDown(sizes, 6, 1, (1, *shape)).double(), DenseBottomUp(shape, sizes, 6, 1).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        for head in encoder.heads:  # a q near p, so that weights can be trusted
            head.weight.mul_(0.2)
            head.bias.fill_(0.1)
    posterior = HierarchicalPosterior(encoder, decoder)
    vae = VAE(posterior, decoder, BernoulliLikelihood(shape), prior=GroupedPrior(sizes))
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).double()
    axis = torch.linspace(-7, 7, 281, dtype=torch.float64)
    u = torch.cartesian_prod(axis, axis).unsqueeze(1)
    with torch.no_grad():
        exact = vae.log_joint(x, u).logsumexp(0) + 2 * math.log(axis[1] - axis[0])
    assert exact.exp().sum() == pytest.approx(1, abs=1e-9)
    elbo, bound = vae.elbo(x, draws=2000), vae.importance_weighted_bound(x, samples=3000)
    assert (elbo.value < exact + 3.5 * elbo.standard_error).all()  # 16 times 2e-4
    assert (elbo.value.mean() < exact.mean() - 0.01).all()
    assert ((bound.value - exact).abs() < 4.5 * bound.standard_error + 1e-3).all()


# ---------------------------------------------------------------------------------------------- the parts


def test_the_output_on_the_way_is_that_of_the_decoder_and_log_q_that_of_the_draw() -> None:
    vae, x = small_vae(), pixels(5)
    q, eps = vae.infer(x), torch.randn(3, 5, sum(SIZES)).double()
    draw, law = vae.draw(q, eps)
    torch.testing.assert_close(law.logits, vae.decode(draw.z).logits)
    torch.testing.assert_close(draw.law.log_prob(draw.z), q.log_prob(draw.z))
    torch.testing.assert_close((draw.z - draw.law.mean) / draw.law.scale, eps)
    torch.testing.assert_close(q[1:3].moved(eps[:, 1:3]), draw.z[:, 1:3])
    jacobian = torch.autograd.functional.jacobian(lambda e: q[:1].moved(e[None])[0], eps[0, 0])
    expected = Gaussian.standard((9,), dtype=torch.float64).log_prob(eps[0, 0]) - torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(q.log_prob(draw.z)[0, 0], expected)
    torch.testing.assert_close(
        vae.log_joint_of_noise(q, x, eps),
        vae.log_joint(x, draw.z) - q.log_prob(draw.z) + Gaussian.standard((9,), dtype=torch.float64).log_prob(eps),
    )
    within = Gaussian(torch.randn(5, 9).double(), torch.rand(5, 9).double() + 0.1)
    refined = q.refined(within)
    torch.testing.assert_close(refined.moved(eps), q.moved(within.moved(eps)))
    moved = refined.draw(eps)
    torch.testing.assert_close(refined.log_prob(moved.z), moved.law.log_prob(moved.z))


def test_the_rates_add_up_and_belong_to_their_groups() -> None:
    vae, x = small_vae(), pixels(5)
    elbo = vae.elbo(x, draws=3000)
    bound = vae.importance_weighted_bound(x, samples=3000, seed=1)
    error = 1.5 * elbo.standard_error * math.sqrt(2)
    assert ((elbo.value - bound.elbo).abs() < 4.5 * error).all()  # 5 examples: false-alarm probability 3e-5
    assert list(elbo.rates) == ["rate_1", "rate_2", "rate_3"]
    assert all((rate > 0).all() for rate in elbo.rates.values())
    q = vae.posterior.top(x)
    torch.testing.assert_close(elbo.rates["rate_1"], q.kl_to_standard().detach())
    single = VAE(vae.posterior, vae.decoder, vae.likelihood, prior=StandardNormal(9)).elbo(x, draws=3000)
    torch.testing.assert_close(single.value, elbo.value)


@pytest.mark.parametrize("objective", [ImportanceWeightedObjective(4), DoublyReparameterisedObjective(4)])
def test_the_loss_is_the_bound_and_every_parameter_learns(objective) -> None:
    vae, x = small_vae(objective), pixels(5)
    loss = vae.loss(Batch(x, torch.arange(5)), step=0, noise=Noise(generator(3)))
    eps = torch.randn(4, 5, 9, generator=generator(3), dtype=torch.float64)
    q = vae.infer(x)
    z = q.moved(eps)
    log_weights = vae.log_joint(x, z) - q.log_prob(z)
    torch.testing.assert_close(loss.value, -(log_weights.logsumexp(0) - math.log(4)).mean())
    parameters = list(vae.parameters())
    found = torch.autograd.grad(loss.value, parameters)
    assert all((gradient != 0).any() for gradient in found)
    if isinstance(objective, ImportanceWeightedObjective):
        expected = torch.autograd.grad(-(log_weights.logsumexp(0) - math.log(4)).mean(), parameters)
        torch.testing.assert_close(found, expected)


def test_the_doubly_reparameterised_gradient_is_unbiased_on_a_hierarchy() -> None:
    """All parameters, with those that q and p share: 80 gradients each way, every mean within 5 errors: 1e-3."""
    vae, x = small_vae(sizes=(1, 2)), pixels(1).expand(60, *SHAPE)
    parameters, rows = list(vae.parameters()), []
    for objective in (ImportanceWeightedObjective(2), DoublyReparameterisedObjective(2)):
        found = []
        for seed in range(80):
            loss = objective(vae, Batch(x, torch.arange(60)), 0, Noise(generator(seed)))
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss.value, parameters)]))
        rows.append(torch.stack(found))
    plain, doubly = rows
    error = ((plain.var(0) + doubly.var(0)) / 80).sqrt()
    off = (plain.mean(0) - doubly.mean(0)).abs()
    assert (off < 5 * error + 1e-12).all()
    assert (plain.mean(0).abs() > 15 * error).any()


def test_free_bits_and_balance_act_on_groups() -> None:
    x = pixels(6)
    vae = small_vae()
    draw, law = vae.draw(vae.infer(x), torch.randn(6, 9, generator=generator(3), dtype=torch.float64))
    kl = vae.prior.kl_by_part(draw.law, draw.z).mean(0)
    assert kl.shape == (3,)
    limit = kl.sort().values[:2].mean().item()
    share = kl / torch.tensor(SIZES) + 1e-3
    share = share / share.mean()
    for objective, step, expected in (
        (ElboObjective(free_bits=limit), 0, kl.clamp(min=limit).sum()),
        (ElboObjective(10, balance=True), 4, 0.5 * (kl * share).sum()),
        (ElboObjective(10, balance=True), 10, kl.sum()),
    ):
        loss = objective(vae, Batch(x, torch.arange(6)), step, Noise(generator(3)))
        torch.testing.assert_close(loss.value, (expected - law.log_prob(x).mean()))
        torch.testing.assert_close(loss.terms["rate"], kl.sum().detach())
    with pytest.raises(InputError, match="warm-up, which has 0 steps"):
        ElboObjective(balance=True)
    with pytest.raises(InputError, match=r"whole batch, here 12 examples"):
        ElboObjective(10, balance=True)(vae, Batch(x, torch.arange(6)), 0, Noise(generator(3), slice(0, 6), 12))


def test_a_mixture_can_be_the_prior_of_the_top_group() -> None:
    vae, x = small_vae(), pixels(4)
    top = MixturePrior(SIZES[0], 3).double()
    mixed = vae.with_prior(GroupedPrior(SIZES, top))
    z = torch.randn(5, 4, 9).double()
    expected = top.log_prob(z[..., :2]) + Gaussian.standard((7,), dtype=torch.float64).log_prob(z[..., 2:])
    torch.testing.assert_close(mixed.prior.log_prob(z), expected)
    elbo, bound = mixed.elbo(x, draws=2000), mixed.importance_weighted_bound(x, samples=2000, seed=2)
    assert ((elbo.value - bound.elbo).abs() < 6 * elbo.standard_error * 1.5).all()
    draws = mixed.prior.sample(5000, seed=1)
    assert (
        abs(top.log_prob(draws[:, :2].double()).mean() - top.log_prob(top.sample(5000, seed=2).double()).mean()) < 0.1
    )
    assert mixed.prior.diagnostics(z[0]).keys() >= {"active units of group 3", "components of the prior in use"}
    with pytest.raises(InputError, match="of 3 dimensions for a top group of 2"):
        GroupedPrior(SIZES, MixturePrior(3, 3))


def test_a_factorised_q_serves_the_same_decoder() -> None:
    """Per-datapoint posteriors: the decoder of a hierarchy is a decoder of u like any other."""
    vae, x = small_vae(), pixels(3)
    free = VAE(PerDatapointPosterior(3, 9).double(), vae.decoder, vae.likelihood, fit_steps=20)
    loss = free.loss(Batch(x, torch.arange(3)), step=0, noise=Noise(generator(0)))
    loss.value.backward()
    assert free.elbo(x).value.isfinite().all()


@pytest.mark.parametrize("depth", [1, 4])
def test_a_deep_stack_starts_calm(depth: int) -> None:
    """Thirty groups: at the start the output and every factor are of order one, in float32, and so are gradients."""
    sizes = (4,) * 30
    decoder, encoder = DenseTopDown(sizes, 64, depth, (1, *SHAPE)), DenseBottomUp(SHAPE, sizes, 64, depth)
    prior = GroupedPrior(sizes)
    vae = VAE(HierarchicalPosterior(encoder, decoder), decoder, BernoulliLikelihood(SHAPE), prior=prior)
    x = pixels(16).float()
    draw, law = vae.draw(vae.infer(x), torch.randn(16, 120))
    assert law.logits.abs().max() < 10
    assert draw.law.scale.max() < 3
    loss = vae.loss(Batch(x, torch.arange(16)), step=0, noise=Noise(generator(0)))
    norms = [g.norm() for g in torch.autograd.grad(loss.value, list(vae.parameters()))]
    assert max(norms) < 100


def test_samples_codes_and_counted_networks_are_those_of_a_vae() -> None:
    vae = small_vae()
    assert vae.decoder.last_layer in vae._networks
    samples = vae.sample(3, seed=4)
    torch.testing.assert_close(vae.sample(2, seed=4, first=1), samples[1:])
    assert vae.encode(pixels(3)).shape == (3, 9)
    assert vae.reconstruct(pixels(3)).shape == (3, *SHAPE)


# ---------------------------------------------------------------------------------------------- maps

MAPS = {"image": (3, 9, 7), "signal": (2, 21), "volume": (1, 5, 6, 4)}


def maps_vae(shape: tuple[int, ...], counts: tuple[int, ...] = (1, 2), seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    groups = MapGroups(Levels(shape, (4, 8), 1, 1), counts, 2)
    decoder, encoder = ConvolutionalTopDown(groups, 1).double(), ConvolutionalBottomUp(groups).double()
    with torch.no_grad():
        for parameter in itertools.chain(encoder.parameters(), decoder.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    prior = GroupedPrior(decoder.sizes)
    return VAE(HierarchicalPosterior(encoder, decoder), decoder, BernoulliLikelihood(shape), prior=prior)


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("counts", [(1, 2), (2, 1)])
def test_maps_of_any_kind_of_data_are_a_hierarchy(kind: str, counts: tuple[int, ...]) -> None:
    shape = MAPS[kind]
    vae = maps_vae(shape, counts)
    x = (torch.rand(3, *shape).double() < 0.4).double()
    q, eps = vae.infer(x), torch.randn(2, 3, vae.latent_dims).double()
    draw, law = vae.draw(q, eps)
    torch.testing.assert_close(law.logits, vae.decode(draw.z).logits)
    torch.testing.assert_close(q.log_prob(draw.z), draw.law.log_prob(draw.z))
    torch.testing.assert_close(q[1:2].moved(eps[:, 1:2]), draw.z[:, 1:2])  # examples are apart
    assert vae.sample(2).shape == (2, *shape)
    vae.loss(Batch(x, torch.arange(3)), step=0, noise=Noise(generator(0))).value.backward()
    dead = [name for name, p in vae.named_parameters() if p.grad is None or not (p.grad != 0).any()]
    assert not dead


def test_the_number_of_groups_must_fit_the_levels() -> None:
    for counts, said in (((1, 1, 1), "1 1 1"), ((0, 1), "0 1")):
        with pytest.raises(InputError, match=f"numbers of groups {said} for 2 levels"):
            MapGroups(Levels((1, 8, 8), (4, 8), 1, 1), counts, 2)
