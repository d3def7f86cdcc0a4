"""Muon: orthogonal steps, equal to torch's where torch has them."""

import pytest
import torch
from torch import nn

from jensen.training.muon import Muon, orthogonal_factor


@pytest.mark.parametrize("shape", [(5, 5), (8, 20), (20, 8), (16, 144)])
def test_the_factor_has_the_matrix_s_singular_vectors_and_singular_values_near_one(shape):
    matrices = torch.randn(3, *shape, dtype=torch.float64)
    factor = orthogonal_factor(matrices)
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ factor @ vt.mT  # diagonal, if the singular vectors are the same
    values = inner.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inner, torch.diag_embed(values))
    assert values.min() > 0.1  # a square Gaussian matrix may have a singular value that five iterations do not lift
    assert values.max() < 1.3
    if shape[0] != shape[1]:
        assert values.min() > 0.6


def test_the_iteration_on_the_gram_matrix_is_the_plain_one():
    """X <- a X + b (X X') X + c (X X')^2 X, in float64 and, as it is used, in float32."""
    x = torch.randn(1, 24, 96, dtype=torch.float64)
    plain = x / x.norm()
    for _ in range(5):
        gram = plain @ plain.mT
        plain = 3.4445 * plain - 4.7750 * gram @ plain + 2.0315 * gram @ gram @ plain
    torch.testing.assert_close(orthogonal_factor(x), plain)
    torch.testing.assert_close(orthogonal_factor(x.float()), plain.float(), rtol=1e-4, atol=1e-4)


def test_a_matrix_of_zeros_takes_no_step():
    assert (orthogonal_factor(torch.zeros(2, 4, 6)) == 0).all()


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_on_matrices_it_is_torch_s_muon(shape):
    """Up to the latter's bfloat16, whose rounding is 2^-8: so steps are compared in their direction and length."""
    ours, theirs = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
    optimisers = [
        Muon([ours], lr=0.1),
        torch.optim.Muon([theirs], lr=0.1, momentum=0.95, weight_decay=0, adjust_lr_fn="match_rms_adamw"),
    ]
    for seed in range(4):
        before = ours.detach().clone(), theirs.detach().clone()
        for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
            parameter.grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            optimiser.step()
        our_step, their_step = ours.detach() - before[0], theirs.detach() - before[1]
        assert torch.cosine_similarity(our_step.flatten(), their_step.flatten(), dim=0) > 0.999
        torch.testing.assert_close(our_step.norm(), their_step.norm(), rtol=0.02, atol=0)


def test_a_convolution_is_the_matrix_of_its_flattened_taps():
    gradient = torch.randn(6, 4, 3, 3)
    convolution, matrix = nn.Parameter(torch.zeros(6, 4, 3, 3)), nn.Parameter(torch.zeros(6, 36))
    convolution.grad, matrix.grad = gradient, gradient.flatten(1)
    for parameter in (convolution, matrix):
        Muon([parameter], lr=0.1).step()
    torch.testing.assert_close(convolution.detach().flatten(1), matrix.detach())


def test_parameters_of_one_shape_do_not_meet():
    together = [nn.Parameter(torch.zeros(4, 6)) for _ in range(3)]
    alone = [nn.Parameter(torch.zeros(4, 6)) for _ in range(3)]
    for parameters in (together, alone):
        for i, parameter in enumerate(parameters):
            parameter.grad = None if i == 1 else (i + 1) * torch.randn(4, 6, generator=torch.Generator().manual_seed(i))
    Muon(together, lr=0.1).step()
    for parameter in alone:
        Muon([parameter], lr=0.1).step()
    torch.testing.assert_close(together, alone)
    assert (together[1] == 0).all()


def test_it_takes_a_linear_least_squares_problem_to_its_solution():
    inputs, weight = torch.randn(64, 10), torch.randn(5, 10)
    layer = nn.Linear(10, 5, bias=False)
    optimiser = Muon(layer.parameters(), lr=0.2)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        (layer(inputs) - inputs @ weight.T).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=0, atol=0.01)
