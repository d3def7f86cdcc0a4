"""The multilayer perceptron, for inputs and outputs of any shape."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.blocks import AbstractBlockNetwork

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": F.tanh, "relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class MLP(AbstractBlockNetwork):
    """Maps (batch, *inputs) to (batch, *outputs) by linear layers of widths `hidden`, with `activation` between.

    Without hidden layers the network is a linear map. Initial weights follow Glorot's uniform rule (Glorot & Bengio
    2010); initial biases are zero. Raises `InputError` for an activation outside `ACTIVATIONS`.
    """

    def __init__(
        self, inputs: Sequence[int], hidden: Sequence[int], outputs: Sequence[int], activation: str = "tanh"
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InputError(f"activation {activation!r}: expected one of {', '.join(ACTIVATIONS)}; choose one of them")
        self.outputs, self.activation = tuple(outputs), ACTIVATIONS[activation]
        widths = [math.prod(inputs), *hidden, math.prod(outputs)]
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for layer in self.layers[:-1]:
            h = self.block(self._activated, layer, h)
        return self.layers[-1](h).reshape(x.shape[0], *self.outputs)

    def _activated(self, layer: nn.Module, h: Tensor) -> Tensor:
        return self.activation(layer(h))
