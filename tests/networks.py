"""What is true of every network that sees a noise level and a label; the test files say of which."""

import torch
from torch import Tensor, nn


def awake(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in float64 with every parameter moved, so that nothing which starts at zero stays there."""
    generator = torch.Generator().manual_seed(seed)
    network = network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


def example(shape: tuple[int, ...], batch: int = 3) -> tuple[Tensor, Tensor]:
    """x (batch, *shape) and noise levels (batch), in float64."""
    return torch.randn(batch, *shape, dtype=torch.float64), torch.linspace(-2, 2, batch, dtype=torch.float64)


def check_zero_at_the_start(network: nn.Module, shape: tuple[int, ...]) -> None:
    x, level = (value.float() for value in example(shape))
    assert (network(x, level) == 0).all()


def check_gradients_reach_everything(network: nn.Module, shape: tuple[int, ...], classes: int) -> None:
    """Of every parameter, every element: nothing is dead weight."""
    x, level = example(shape, classes + 1)
    awake(network)(x, level, torch.arange(classes + 1)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).all(), name


def check_examples_do_not_meet(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Each example's output is its own, whatever else is in the batch; level and label change it, None is the last."""
    network, (x, level) = awake(network), example(shape)
    labels = torch.tensor([0, 2, 1])
    together = network(x, level, labels)
    alone = torch.cat([network(x[i : i + 1], level[i : i + 1], labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    for other in (network(x, level + 0.1, labels), network(x, level, (labels + 1) % 3), network(x, level)):
        assert ((other - together).flatten(1).abs().amax(1) > 1e-6).all()
    nothing = torch.full((3,), network.condition.classes)
    torch.testing.assert_close(network(x, level), network(x, level, nothing), rtol=0, atol=0)


def check_learns(network: nn.Module, shape: tuple[int, ...]) -> None:
    """A few steps of AdamW fit two labels' constants, in float32 as in training."""
    x, level = (value.float() for value in example(shape, 4))
    labels = torch.arange(4) % 2
    target = (2.0 * labels - 1).view(-1, *(1 for _ in shape)).expand_as(x)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(30):
        loss = (network(x, level, labels) - target).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss < 0.1  # from 1
