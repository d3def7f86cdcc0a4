"""Networks: shapes in and out, of any size."""

import pytest
import torch

from jensen.errors import InputError
from jensen.nets import ACTIVATIONS, MLP, ConvolutionalDecoder, ConvolutionalEncoder

SIZES = [(1, 28, 28), (3, 17, 23), (1, 1, 9), (2, 7, 1), (3, 32, 32), (1, 1, 1)]


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


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8)])
def test_convolutional_networks_take_and_give_any_size(shape, widths):
    encoder, decoder = ConvolutionalEncoder(shape, widths, 5), ConvolutionalDecoder(5, shape, widths, 2)
    h = encoder(torch.randn(3, *shape))
    x = decoder(h)
    assert h.shape == (3, 5)
    assert x.shape == (3, 2, *shape)
    x.square().sum().backward()
    for network in (encoder, decoder):
        assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())  # nothing is cut off
    assert encoder(torch.randn(3, *shape).contiguous(memory_format=torch.channels_last)).shape == (3, 5)


def test_every_pixel_reaches_the_code_and_is_reached_by_it():
    shape = (2, 9, 13)
    encoder, decoder = ConvolutionalEncoder(shape, (4, 6), 5), ConvolutionalDecoder(5, shape, (4, 6), 1)
    x = torch.randn(1, *shape, requires_grad=True)
    assert (torch.autograd.grad(encoder(x).square().sum(), x)[0] != 0).all()
    z = torch.randn(1, 5)
    change = decoder(z) - decoder(z + 1)
    assert (change != 0).all()


@pytest.mark.parametrize("shape", [(28, 28), (784,), (1, 3, 28, 28)])
def test_shapes_that_are_no_images_are_refused(shape):
    with pytest.raises(InputError, match="give \\(channels, height, width\\)"):
        ConvolutionalEncoder(shape, (4,), 5)
    with pytest.raises(InputError, match="give \\(channels, height, width\\)"):
        ConvolutionalDecoder(5, shape, (4,), 1)
