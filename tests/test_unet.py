"""The U-Net: any size, zero at the start, doubling by one transposed convolution, axes alike."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import awake, check_examples_do_not_meet, check_gradients_reach_everything, check_learns, example
from networks import check_zero_at_the_start as check_zero
from torch import nn

from jensen.errors import InputError
from jensen.nets import UNet
from jensen.nets.layers import Doubling, ResidualBlock

SHAPES = [(1, 28, 28), (3, 17, 23), (1, 8, 8), (2, 1, 13), (2, 13, 1), (1, 1, 1), (1, 5, 2), (2, 19), (1, 1)]
SHAPES += [(1, 5, 6, 7), (2, 1, 9, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_any_size_comes_out_as_it_went_in(shape, patch):
    x, level = example(shape)
    network = UNet(shape, (8, 8, 16), blocks=1, attention=(2,), patch=patch)
    assert network.double()(x, level).shape == x.shape
    two = UNet(shape, (8,), blocks=1, patch=patch, outputs=2)
    assert two.double()(x, level).shape == (3, 2 * shape[0], *shape[1:])


def test_a_network_takes_other_sizes_than_its_own():
    network = awake(UNet((1, 28, 28), (8, 16), blocks=1, attention=(1,), patch=2))
    x, level = example((1, 17, 23))
    assert network(x, level).shape == x.shape


@pytest.mark.parametrize("shape", [(2, 9, 7), (2, 11), (2, 3, 5, 4)])
def test_what_holds_of_every_network(shape):
    settings = {"widths": (16, 24), "blocks": 1, "attention": (0, 1), "classes": 3}
    check_zero(UNet(shape, **settings), shape)
    check_gradients_reach_everything(UNet(shape, **settings), shape, classes=3)
    check_examples_do_not_meet(UNet(shape, **settings), shape)
    check_learns(UNet(shape, **settings), shape)


@pytest.mark.parametrize("taps", [(3, 3), (1, 3), (3, 1), (1, 1), (3, 3, 3), (3, 1, 3)])
def test_doubling_is_nearest_neighbour_and_a_convolution(taps):
    doubling = awake(Doubling(4, 4, taps))
    h = torch.randn(2, 4, *(5, 7, 3)[: len(taps)], dtype=torch.float64)
    full = tuple(n * (2 if t == 3 else 1) for n, t in zip(h.shape[2:], taps, strict=True))
    naive = doubling.convolution(F.interpolate(h, size=full))
    torch.testing.assert_close(doubling(h, full), naive)
    torch.testing.assert_close(doubling(h, (4, 6)[: len(taps)] + full[2:]), naive[:, :, :4, :6])


def test_a_signal_is_an_image_of_height_one():
    signals, images = (UNet(shape, (8, 16), blocks=1, attention=(1,), patch=2) for shape in ((2, 19), (2, 1, 19)))
    images.load_state_dict(awake(signals).state_dict())
    x, level = example((2, 19))
    torch.testing.assert_close(images.double()(x[:, :, None], level)[:, :, 0], signals(x, level))


def test_a_volume_of_depth_one_is_an_image():
    volumes, images = (UNet(shape, (8, 16), blocks=1, attention=(1,), patch=2) for shape in ((2, 1, 9, 7), (2, 9, 7)))
    images = awake(images)
    volumes.double().load_state_dict(
        {name: value.view_as(volumes.state_dict()[name]) for name, value in images.state_dict().items()}
    )
    x, level = example((2, 9, 7))
    torch.testing.assert_close(volumes(x[:, :, None], level)[:, :, 0], images(x, level))


def test_both_axes_are_treated_alike():
    """With every kernel transposed, the transposed image gives the transposed output."""
    network = awake(UNet((2, 17, 10), (8, 16), blocks=1, attention=(1,)))
    other = copy.deepcopy(network)
    for layer in other.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight = nn.Parameter(layer.weight.transpose(2, 3))
    x, level = example((2, 17, 10))
    torch.testing.assert_close(other(x.transpose(2, 3), level), network(x, level).transpose(2, 3))


@pytest.mark.parametrize("patch", [1, 2])
def test_what_moves_by_a_coarse_pixel_comes_out_moved(patch):
    """Without norms, whose statistics are of the whole image, and away from the border: shifts of 2 patches."""
    size = (88 * patch, 80 * patch)
    network = awake(UNet((1, *size), (4, 4), blocks=1, patch=patch))
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            block.norm1 = block.norm2 = nn.Identity()
    network.norm = nn.Identity()
    x, shift, middle = torch.zeros(1, 1, *size, dtype=torch.float64), 2 * patch, [n // 2 for n in size]
    inner = (..., slice(middle[0], middle[0] + 8), slice(middle[1], middle[1] + 8))  # too far from the border to see it
    x[inner] = torch.randn(8, 8, dtype=torch.float64)
    level, move = torch.zeros(1, dtype=torch.float64), {"shifts": (shift, -shift), "dims": (2, 3)}
    still = network(x, level)
    assert still[inner].std() > 1e-3
    torch.testing.assert_close(network(x.roll(**move), level)[inner], still.roll(**move)[inner])


def test_weights_go_into_a_fresh_network():
    network = awake(UNet((1, 8, 8), (8, 16), blocks=1, classes=2))
    fresh = UNet((1, 8, 8), (8, 16), blocks=1, classes=2).double()
    fresh.load_state_dict(network.state_dict())
    x, level = example((1, 8, 8))
    torch.testing.assert_close(fresh(x, level), network(x, level), rtol=0, atol=0)


def test_parameters_are_those_of_the_layers_named():
    """Counted by hand for one level of width 8, one block, one channel."""

    def residual(inputs: int, outputs: int) -> int:
        norm, modulation = 2 * inputs, (4 * 8 + 1) * 2 * outputs
        skip = 0 if inputs == outputs else (inputs + 1) * outputs
        return norm + (9 * inputs + 1) * outputs + (9 * outputs + 1) * outputs + skip + modulation

    embedding = (8 + 1) * 32 + (32 + 1) * 32
    ends = (9 + 1) * 8 + 2 * 8 + (9 * 8 + 1)  # the first convolution; the last norm and convolution
    expected = embedding + ends + 3 * residual(8, 8) + 2 * residual(16, 8)  # down, two in the middle, two up
    assert sum(p.numel() for p in UNet((1, 8, 8), (8,), blocks=1).parameters()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (5,)}, "MLP"),
        ({"shape": (1, 8, 8), "attention": (2,)}, "attention at levels"),
        ({"shape": (1, 8, 8), "widths": ()}, "at least one width"),
        ({"shape": (1, 8, 8), "patch": 0}, "patches of 0 pixels"),
    ],
)
def test_what_cannot_be_built_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        UNet(**settings)


def test_other_channels_are_refused():
    with pytest.raises(InputError, match="got 3 channels, expected 1"):
        UNet((1, 8, 8), (8,), blocks=1)(torch.zeros(2, 3, 8, 8), torch.zeros(2))


COMPILED = """
import torch
from networks import awake, example
from jensen.nets import UNet

network = awake(UNet((1, 9, 7), (8, 16), blocks=1, attention=(1,), patch=2, classes=3))
inputs = (*example((1, 9, 7)), torch.tensor([0, 3, 1]))
torch.testing.assert_close(torch.compile(network, fullgraph=True)(*inputs), network(*inputs))
"""


@pytest.mark.slow  # half a minute of a C++ compiler; in a process whose shapes nobody checks, which does not compile
def test_compiled_it_is_the_same_function():
    subprocess.run([sys.executable, "-c", COMPILED], cwd=Path(__file__).parent, check=True)
