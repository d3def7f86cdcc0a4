"""Sines and cosines of the data beside the data: what averaging over the noise leaves of them."""

import math

import numpy as np
import pytest
import torch

from jensen.nets import UNet
from jensen.nets.details import waves

OCTAVES = 6


@pytest.mark.parametrize("log_sigma", [-5.0, -2.0, 0.0, 1.0])
def test_each_wave_is_its_mean_over_the_noise(log_sigma: float) -> None:
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(1, 2, 3, 4)
    found = waves(x, torch.tensor([log_sigma / 4], dtype=torch.float64), OCTAVES)
    points = np.linspace(-9, 9, 4001)  # the rectangle rule, exact here to rounding
    weights = np.exp(-0.5 * points**2)
    spread = math.exp(log_sigma) / math.hypot(1, math.exp(log_sigma))
    noisy = x.numpy()[..., None] + spread * points
    weights = weights / weights.sum()
    means = [(wave(2.0**k * noisy) * weights).sum(-1) for wave in (np.sin, np.cos) for k in range(1, OCTAVES + 1)]
    torch.testing.assert_close(found, torch.from_numpy(np.concatenate(means, 1)), atol=1e-9, rtol=0)


def test_neighbouring_grey_levels_differ_at_little_noise_and_not_at_much() -> None:
    x = torch.tensor([-1.0, -1 + 2 / 255]).reshape(2, 1, 1, 1)
    for level, apart in ((-1.5, True), (1.0, False)):
        one, other = waves(x, torch.full((2,), level), 8)
        assert (float((one - other).abs().max()) > 0.5) == apart


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 9)])
def test_a_network_with_details_takes_what_one_without_takes(shape: tuple[int, ...]) -> None:
    network = UNet(shape, widths=(8, 16), blocks=1, patch=2, octaves=4)
    assert network.details.in_channels == 8 * network.patches.folded
    x = torch.randn(3, *shape)
    assert network(x, torch.tensor([-1.0, 0.0, 1.0])).shape == x.shape
