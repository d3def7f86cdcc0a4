"""Networks: shapes in and out, of any size."""

import copy
import math

import pytest
import torch
from networks import awake
from torch import nn

from jensen.errors import InputError
from jensen.nets import ACTIVATIONS, MLP, ConvolutionalDecoder, ConvolutionalEncoder, Levels

SIZES = [
    (1, 28, 28),
    (3, 17, 23),
    (1, 1, 9),
    (2, 7, 1),
    (3, 32, 32),
    (1, 1, 1),
    (2, 19),
    (3, 1),
    (1, 5, 6, 7),
    (2, 1, 9, 3),
]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)])
def test_mlp_maps_any_shape_to_any_shape(activation, hidden):
    network = MLP((2, 3), hidden, (4, 1, 5), activation)
    assert network(torch.randn(6, 2, 3)).shape == (6, 4, 1, 5)
    assert network(torch.randn(0, 2, 3)).shape == (0, 4, 1, 5)


def test_mlp_is_the_composition_it_says():
    network = MLP((3,), (5,), (2,), "tanh")
    first, last = network.layers
    x = torch.randn(4, 3)
    expected = torch.tanh(x @ first.weight.mT + first.bias) @ last.weight.mT + last.bias
    torch.testing.assert_close(network(x), expected)
    linear = MLP((3,), (), (2,))
    torch.testing.assert_close(linear(2 * x) - linear(0 * x), 2 * (linear(x) - linear(0 * x)))


def test_mlp_starts_by_glorots_rule():
    # The variance of a uniform weight on ±sqrt(6 / (in + out)) is 2 / (in + out); the sample variance of 80 000 of them
    # has a relative error of sqrt(0.8 / 80 000) = 0.3 %: 2 % is over 6 sd
    layer = MLP((200,), (400,), (1,)).layers[0]
    assert layer.weight.var().item() == pytest.approx(2 / 600, rel=0.02)
    assert layer.weight.abs().max() <= (6 / 600) ** 0.5
    assert not layer.bias.any()


def test_an_unknown_activation_is_refused():
    with pytest.raises(InputError, match="activation 'sigmoid': expected one of tanh, relu, gelu, silu"):
        MLP((3,), (5,), (2,), "sigmoid")


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("shape", SIZES)
def test_encoder_and_decoder_take_and_give_any_size(shape, patch, spatial):
    levels = Levels(shape, (4, 6, 8), patch=patch)
    encoder, decoder = (
        awake(ConvolutionalEncoder(levels, 6, spatial)),
        awake(ConvolutionalDecoder(levels, 3, 2, spatial)),
    )
    coarse = tuple(-(-size // (4 * patch)) for size in shape[1:])
    assert decoder.latent_shape == ((3, *coarse) if spatial else (3,))
    h = encoder(torch.randn(2, *shape).double())
    assert h.shape == (2, 2 * math.prod(decoder.latent_shape))
    x = decoder(h.chunk(2, dim=1)[0])
    assert x.shape == (2, 2, *shape)
    x.square().sum().backward()
    for network in (encoder, decoder):
        assert all(parameter.grad.any() for parameter in network.parameters())  # nothing is cut off


@pytest.mark.parametrize("shape", [(2, 9, 13), (2, 21), (1, 5, 6, 7)])
def test_every_pixel_reaches_the_code_and_is_reached_by_it(shape):
    levels = Levels(shape, (4, 6), patch=2)
    encoder, decoder = awake(ConvolutionalEncoder(levels, 5)), awake(ConvolutionalDecoder(levels, 5, 1))
    x = torch.randn(1, *shape, requires_grad=True, dtype=torch.float64)
    assert (torch.autograd.grad(encoder(x).square().sum(), x)[0] != 0).all()
    z = torch.randn(1, 5, dtype=torch.float64)
    assert (decoder(z) - decoder(z + 1) != 0).all()


@pytest.mark.parametrize("shape", [(784,), (1, 3, 28, 28, 2)])
def test_shapes_of_no_grid_are_refused(shape):
    with pytest.raises(InputError, match=r"expected \(C, L\), \(C, H, W\) or \(C, D, H, W\); use an MLP"):
        Levels(shape, (4,))


def test_no_widths_are_refused():
    with pytest.raises(InputError, match="without widths: expected one for each level"):
        Levels((1, 8, 8), ())


def mirrored(network: nn.Module) -> nn.Module:
    """The network with all kernels flipped along the last axis."""
    other = copy.deepcopy(network)
    for layer in other.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            layer.weight.data = layer.weight.data.flip(-1)
    return other


@pytest.mark.parametrize("shape", [(2, 9, 17), (2, 17), (1, 5, 3, 9)])
def test_the_code_of_a_flipped_picture_is_the_flipped_code(shape):
    """Halving 2n + 1 positions keeps the even ones, whose mirror images are even again."""
    encoder = awake(ConvolutionalEncoder(Levels(shape, (4, 6)), 3, spatial=True))
    x, grid = torch.randn(2, *shape, dtype=torch.float64), (2, 3, *(-(-size // 2) for size in shape[1:]))
    code = encoder(x).view(grid)
    torch.testing.assert_close(mirrored(encoder)(x.flip(-1)).view(grid), code.flip(-1))
    assert not torch.allclose(encoder(x.flip(-1)).view(grid), code.flip(-1))


@pytest.mark.parametrize("shape", [(2, 8, 16), (2, 16), (1, 4, 2, 8)])
def test_a_flipped_code_is_decoded_to_the_flipped_picture(shape):
    decoder = awake(ConvolutionalDecoder(Levels(shape, (4, 6)), 3, 2, spatial=True))
    z = torch.randn(2, *decoder.latent_shape, dtype=torch.float64)
    torch.testing.assert_close(mirrored(decoder)(z.flip(-1).flatten(1)), decoder(z.flatten(1)).flip(-1))


def test_a_spatial_code_is_local():
    """Without norms, whose statistics are of the whole picture, a far pixel does not reach a place of the code."""
    encoder = awake(ConvolutionalEncoder(Levels((1, 64, 64), (4, 4), patch=2), 2, spatial=True))
    for layer in encoder.modules():
        for name, child in layer.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(layer, name, nn.Identity())
    x = torch.randn(1, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    encoder(x).view(2, 16, 16)[:, 3, 5].sum().backward()
    rows, columns = x.grad[0, 0].nonzero().T
    centre_row, centre_column = (rows.min() + rows.max()).item() / 2, (columns.min() + columns.max()).item() / 2
    assert rows.max() - rows.min() < 40
    assert abs(centre_row - 4 * 3) < 4
    assert abs(centre_column - 4 * 5) < 4


@pytest.mark.parametrize("shape", [(2, 19), (2, 1, 19)])
def test_a_signal_has_the_networks_of_an_image_of_height_one(shape):
    torch.manual_seed(0)
    levels = Levels(shape, (4, 6), patch=2)
    encoder, decoder = ConvolutionalEncoder(levels, 6), ConvolutionalDecoder(levels, 3, 1)
    torch.manual_seed(0)
    levels = Levels((2, 1, 19), (4, 6), patch=2)
    other, another = ConvolutionalEncoder(levels, 6), ConvolutionalDecoder(levels, 3, 1)
    x = torch.randn(2, *shape)
    code = encoder(x)
    torch.testing.assert_close(code, other(x.view(2, 2, 1, 19)))
    torch.testing.assert_close(decoder(code[:, :3]).view(2, 2, 19), another(code[:, :3]).view(2, 2, 19))
