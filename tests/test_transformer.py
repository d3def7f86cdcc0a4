"""The transformer on patches, its attention and positions; the residual MLP."""

import math

import pytest
import torch
from networks import awake, check_examples_do_not_meet, check_gradients_reach_everything, check_learns, example
from networks import check_zero_at_the_start as check_zero

from jensen.errors import InputError
from jensen.nets import PatchTransformer, ResidualMLP
from jensen.nets.attention import SelfAttention
from jensen.nets.transformer import grid_positions


@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 17, 23), (1, 8, 8), (2, 1, 13), (2, 13, 1), (1, 1, 1), (2, 19), (1, 3, 5, 6)]
)
@pytest.mark.parametrize("patch", [2, 4])
def test_any_size_comes_out_as_it_went_in(shape, patch):
    x, level = example(shape)
    network = PatchTransformer(shape, width=16, depth=2, patch=patch, outputs=2)
    assert network.double()(x, level).shape == (3, 2 * shape[0], *shape[1:])


def test_a_network_takes_other_sizes_than_its_own():
    network = awake(PatchTransformer((1, 28, 28), width=16, depth=1))
    x, level = example((1, 17, 23))
    assert network(x, level).shape == x.shape


@pytest.mark.parametrize("shape", [(2, 9, 7), (2, 11)])
def test_what_holds_of_every_network(shape):
    settings = {"width": 16, "depth": 2, "patch": 3, "classes": 3}
    check_zero(PatchTransformer(shape, **settings), shape)
    check_gradients_reach_everything(PatchTransformer(shape, **settings), shape, classes=3)
    check_examples_do_not_meet(PatchTransformer(shape, **settings), shape)
    check_learns(PatchTransformer(shape, **settings), shape)


@pytest.mark.parametrize("shape", [(5,), (1,), (2, 3, 4)])
def test_what_holds_of_every_network_holds_of_the_mlp(shape):
    settings = {"width": 16, "depth": 2, "classes": 3}
    check_zero(ResidualMLP(shape, **settings), shape)
    check_gradients_reach_everything(ResidualMLP(shape, **settings), shape, classes=3)
    check_examples_do_not_meet(ResidualMLP(shape, **settings), shape)
    check_learns(ResidualMLP(shape, **settings), shape)
    x, level = (value.float() for value in example(shape))
    assert ResidualMLP(shape, outputs=2)(x, level).shape == (3, 2 * shape[0], *shape[1:])


def naive_attention(attention: SelfAttention, tokens: torch.Tensor) -> torch.Tensor:
    """softmax(q k' / sqrt(head width)) v, head by head and example by example, as the formula reads."""
    batch, _, width = tokens.shape
    head_width = width // attention.heads
    mixed = torch.empty_like(tokens)
    for b in range(batch):
        q, k, v = (tokens[b] @ attention.qkv.weight.T).split(width, dim=1)
        for head in range(attention.heads):
            own = slice(head * head_width, (head + 1) * head_width)
            weights = torch.softmax(q[:, own] @ k[:, own].T / math.sqrt(head_width), dim=1)
            mixed[b, :, own] = weights @ v[:, own]
    return mixed @ attention.out.weight.T + attention.out.bias


@pytest.mark.parametrize(("width", "heads"), [(32, 1), (64, 2), (48, 3), (20, 5)])
def test_attention_is_the_formula_of_vaswani(width, heads):
    attention = awake(SelfAttention(width, head_width=32))
    tokens = torch.randn(2, 7, width, dtype=torch.float64)
    assert attention.heads == heads
    torch.testing.assert_close(attention(tokens), naive_attention(attention, tokens))


def test_attention_does_not_know_the_order_of_tokens():
    attention, order = awake(SelfAttention(32, head_width=16)), torch.randperm(9)
    tokens = torch.randn(2, 9, 32, dtype=torch.float64)
    torch.testing.assert_close(attention(tokens[:, order]), attention(tokens)[:, order])


def test_positions_know_offsets_and_tell_all_places_apart():
    positions = grid_positions((5, 7), 32).double()
    assert grid_positions((2, 3, 4), 32).shape == (24, 32)
    assert torch.pdist(grid_positions((2, 3, 4), 32)).min() > 0.5
    products = (positions @ positions.T).view(5, 7, 5, 7)
    torch.testing.assert_close(products[1:, 2:, 1:, 2:], products[:-1, :-2, :-1, :-2])
    distances = torch.cdist(positions, positions) + 10 * torch.eye(35)
    assert distances.min() > 0.5


def test_a_width_that_has_no_room_for_two_axes_is_refused():
    with pytest.raises(InputError, match="multiple of 4"):
        PatchTransformer((1, 8, 8), width=18)


def test_other_channels_are_refused():
    with pytest.raises(InputError, match="got 3 channels, expected 1"):
        PatchTransformer((1, 8, 8), width=16, depth=1)(torch.zeros(2, 3, 8, 8), torch.zeros(2))
