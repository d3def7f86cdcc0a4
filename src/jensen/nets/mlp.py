"""The multilayer perceptron, from and to tensors of any shape."""

import math
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": F.tanh, "relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class MLP(nn.Module):
    """(batch, *inputs) -> (batch, *outputs): flatten, linear layers of widths `hidden` with `activation` between, reshape.

    Weights start by Glorot's uniform rule (Glorot & Bengio 2010), biases at zero.
    """

    def __init__(
        self, inputs: Sequence[int], hidden: Sequence[int], outputs: Sequence[int], activation: str = "tanh"
    ) -> None:
        super().__init__()
        self.outputs, self.activation = tuple(outputs), ACTIVATIONS[activation]
        widths = [math.prod(inputs), *hidden, math.prod(outputs)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for layer in self.layers[:-1]:
            h = self.activation(layer(h))
        return self.layers[-1](h).unflatten(1, self.outputs)
