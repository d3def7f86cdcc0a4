"""The mixture of discretised logistic laws: masses add up to one, channels depend, samples follow the masses."""

import itertools

import pytest
import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.likelihood import DiscretisedLogistic, LogisticMixture, LogisticMixtureLikelihood

LEVELS = 5


def mixture(
    shape: tuple[int, ...] = (3, 1, 1), components: int = 4, levels: int = LEVELS, batch: int = 2
) -> LogisticMixture:
    """A mixture with strong slopes and components of different widths, in float64."""
    likelihood = LogisticMixtureLikelihood(shape, 4, levels, floor=0.02)
    source = torch.Generator().manual_seed(1)
    output = torch.randn(2, likelihood.outputs, *shape, dtype=torch.float64, generator=source)
    return likelihood(1.5 * output)


def every_x(channels: int, levels: int = LEVELS) -> Tensor:
    """All x of one pixel, (levels^channels, 1, channels, 1, 1)."""
    axis = torch.linspace(-1, 1, levels, dtype=torch.float64)
    return torch.tensor(list(itertools.product(axis.tolist(), repeat=channels))).double().reshape(-1, 1, channels, 1, 1)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_masses_of_all_colours_add_up_to_one(channels: int) -> None:
    p, x = mixture((channels, 1, 1)), every_x(channels)
    torch.testing.assert_close(p.log_prob(x).exp().sum(0), torch.ones(2).double())
    torch.testing.assert_close(p.log_prob_by_dimension(x).sum((-3, -2, -1)), p.log_prob(x))


def test_the_masses_of_bytes_add_up_to_one_channel_by_channel() -> None:
    """256³ colours: each channel's 256 conditional masses, given random channels before it."""
    p = mixture(levels=256)
    axis = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for channel in range(3):
        x = torch.randint(256, (1, 2, 3, 1, 1), generator=torch.Generator().manual_seed(0)).double() * (2 / 255) - 1
        x = x.repeat(256, 1, 1, 1, 1)
        x[:, :, channel] = axis.reshape(-1, 1, 1, 1)
        masses = p.log_prob_by_dimension(x)[:, :, channel].exp()
        torch.testing.assert_close(masses.sum(0), torch.ones(2, 1, 1).double())


def test_it_is_the_sum_over_components_of_products_of_discretised_laws() -> None:
    p, x = mixture(), every_x(3)
    terms = []
    for k in range(4):
        log_p = p.log_weights[:, k, 0, 0]
        for c in range(3):
            location = p.locations[:, c, k, 0, 0]
            for j in range(c):
                location = location + p.slopes[:, c * (c - 1) // 2 + j, k, 0, 0] * x[..., j, 0, 0]
            law = DiscretisedLogistic(location, p.scales[:, c, k, 0, 0], LEVELS, 0)
            log_p = log_p + law.log_prob_by_dimension(x[..., c, 0, 0])
        terms.append(log_p)
    torch.testing.assert_close(p.log_prob(x), torch.stack(terms).logsumexp(0))
    independent = p.log_prob_by_dimension(x)[:, 0, 1, 0, 0].reshape(LEVELS, LEVELS, LEVELS)[:, :, 0]
    assert (independent[0] - independent[-1]).abs().max() > 0.1  # the second channel sees the first


def test_samples_follow_the_masses() -> None:
    p, x, count = mixture((2, 1, 1)), every_x(2), 40_000
    one = LogisticMixture(*(each[:1] for each in (p.log_weights, p.locations, p.scales, p.slopes)), LEVELS, 2)
    u = torch.rand(count, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    drawn = one.quantile(u)
    number = (((drawn + 1) * 2).round().long()[:, :, 0, 0] * torch.tensor([LEVELS, 1])).sum(1)
    found, masses = torch.bincount(number, minlength=LEVELS**2) / count, one.log_prob(x).exp()[:, 0]
    # 25 cells within 5 errors: false-alarm probability 2e-5
    assert ((found - masses).abs() < 5 * (masses * (1 - masses) / count).sqrt() + 1e-9).all()
    torch.testing.assert_close(one.quantile(u[:5]), drawn[:5])


def test_a_sample_is_the_lowest_level_that_reaches_its_noise() -> None:
    p = mixture((1, 1, 1), levels=256)
    masses = p.log_prob(torch.linspace(-1, 1, 256).double().reshape(-1, 1, 1, 1, 1)).exp()
    u = torch.tensor([1e-12, 0.2, 0.5, 0.9, 1 - 1e-12]).double()
    level = ((p.quantile(u.reshape(-1, 1, 1, 1, 1).expand(5, 2, 1, 1, 1))[:, :, 0, 0, 0] + 1) * 127.5).round().long()
    expected = (masses.cumsum(0).T.contiguous() < u[:, None, None]).sum(-1).clamp(max=255)
    assert torch.equal(level, expected.reshape(5, 2))


def test_the_mean_is_that_of_all_colours() -> None:
    p, x = mixture((3, 1, 1), levels=17), every_x(3, 17)
    exact = (p.log_prob(x).exp()[..., None, None, None] * x).sum(0)
    torch.testing.assert_close(p.mean, exact, rtol=0, atol=2 / 16)  # half a level, and the clamp of a linear location


def test_places_and_draws_are_apart() -> None:
    likelihood = LogisticMixtureLikelihood((3, 4, 5), 3, 256, 0.01)
    output = torch.randn(6, 2, likelihood.outputs, 3, 4, 5)
    x = torch.randint(256, (2, 3, 4, 5)) * (2 / 255) - 1
    p = likelihood(output)
    assert p.log_prob(x).shape == (6, 2)
    assert p.log_prob_by_dimension(x).shape == (6, 2, 3, 4, 5)
    torch.testing.assert_close(likelihood(output[3]).log_prob(x), p.log_prob(x)[3])
    other = x.clone()
    other[:, :, 0, 0] *= -1
    moved = (p.log_prob_by_dimension(other) != p.log_prob_by_dimension(x)).any(0).any(0).any(0)
    assert moved.sum() == 1  # only this place
    assert LogisticMixtureLikelihood((1, 7), 3, 256, 0.01).factorises
    assert not likelihood.factorises
    assert likelihood(0 * output).log_prob(x).mean() / 60 == pytest.approx(-5.5, abs=0.6)  # about uniform: -log 256


def test_values_and_gradients_are_finite_for_any_output() -> None:
    likelihood = LogisticMixtureLikelihood((3, 2, 2), 3, 256, 1 / 255 / 12**0.5)
    for size in (1e-3, 1.0, 30.0, 1e4):
        output = (size * torch.randn(4, likelihood.outputs, 3, 2, 2)).clamp(max=80).requires_grad_()
        x = torch.randint(256, (4, 3, 2, 2)) * (2 / 255) - 1
        value = likelihood(output).log_prob(x).sum()
        assert value.isfinite()
        assert torch.autograd.grad(value, output)[0].isfinite().all()


@pytest.mark.parametrize(("components", "levels"), [(0, 256), (3, 1), (3, 2**17)])
def test_impossible_mixtures_are_refused(components: int, levels: int) -> None:
    with pytest.raises(InputError, match="expected at least 1 component"):
        LogisticMixtureLikelihood((3, 2, 2), components, levels, 0.01)
    with pytest.raises(InputError, match="it is for images"):
        LogisticMixtureLikelihood((7,), 3, 256, 0.01)
