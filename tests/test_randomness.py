"""Seeds and streams: pure functions of what they are for, and unrelated to their neighbours."""

import itertools

import pytest
import torch
from scipy import stats

from jensen.errors import InputError
from jensen.randomness import Noise, Stream, derived_seed, generator, normal_per_example, uniform_per_example


def test_a_seed_depends_on_every_element_of_its_path():
    paths = [path for length in range(4) for path in itertools.product((0, 1, 2, 2**32, 2**40 + 1), repeat=length)]
    seeds = {derived_seed(seed, *path) for seed in (0, 1, 2**32) for path in paths}
    assert len(seeds) == 3 * len(paths)  # zeros, the length and the high bits count: none of these is another's alias
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_everywhere():
    # BLAKE2b of three little-endian 64-bit words, without its lowest bit: the definition, not this machine
    import hashlib

    words = b"".join(number.to_bytes(8, "little") for number in (7, Stream.SAMPLE, 3))
    expected = int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") // 2
    assert derived_seed(7, Stream.SAMPLE, 3) == expected


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(InputError, match=r"expected integers from 0 to 2\*\*64 - 1"):
        derived_seed(seed)


def test_generators_repeat_and_differ_between_paths():
    first, again, other = (torch.randn(8, generator=generator(3, *path)) for path in [(1, 2), (1, 2), (2, 1)])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("draw", [normal_per_example, uniform_per_example])
@pytest.mark.parametrize("shape", [(3,), (5, 7), (2, 3, 4)])  # below and above 16 numbers torch draws differently
def test_noise_of_an_example_is_its_own(draw, shape):
    together = draw(5, [4, 9, 2, 9], shape, 1)
    assert together.shape == (4, *shape)
    for row, index in zip(together, [4, 9, 2, 9], strict=True):
        assert torch.equal(row, draw(5, [index], shape, 1)[0])
    assert not torch.equal(together, draw(6, [4, 9, 2, 9], shape, 1))
    assert not torch.equal(together, draw(5, [4, 9, 2, 9], shape, 0))
    assert not torch.equal(together, draw(5, [4, 9, 2, 9], shape))


def test_no_two_examples_share_noise():
    # With hashed 32-bit seeds about 4.7 pairs of 200 000 would; a single 64-bit number each is enough to see it.
    noise = uniform_per_example(0, range(200_000), (1,))
    assert noise.unique().numel() == 200_000


def test_noise_has_its_distribution():
    # Kolmogorov-Smirnov, false-alarm probability 1e-4 each
    normal = normal_per_example(11, range(2000), (50,))
    uniform = uniform_per_example(11, range(2000), (50,))
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 1e-4
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-4
    assert uniform.min() > 0
    assert uniform.max() < 1


def test_neighbouring_examples_are_independent():
    # n = 50 000 products per lag: the correlation is N(0, 1/n); five lags, false-alarm probability 3e-6 in all (5 sd)
    noise = normal_per_example(0, range(1001), (50,)).double()
    for lag in (1, 2, 3, 16, 100):
        products = noise[lag:] * noise[:-lag]
        assert abs(products.mean()) < 5 * products.numel() ** -0.5


def test_noise_of_a_batch_is_the_same_in_parts():
    whole = Noise(generator(5))
    parts = [whole.part(slice(start, start + 3), 12) for start in range(0, 12, 3)]
    draws = [
        lambda noise, n: noise.normal((n, 2), torch.float64),
        lambda noise, n: noise.normal((4, n, 2), dim=1),
        lambda noise, n: noise.uniform((n,)),
        lambda noise, n: noise.below(7, (n, 3)),
        lambda noise, n: noise.evenly_spaced(n),
    ]
    for draw, dim in zip(draws, [0, 1, 0, 0, 0], strict=True):
        expected = draw(whole, 12)
        assert torch.equal(torch.cat([draw(part, 3) for part in parts], dim), expected)
        assert len(expected.unique()) > 3
