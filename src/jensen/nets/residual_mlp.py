"""The multilayer perceptron with residual blocks, conditioned on the noise level, for vectors."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.nets.blocks import AbstractBlockNetwork
from jensen.nets.embedding import ConditionEmbedding
from jensen.nets.initial import at_the_edge, zeroed


class ResidualMLP(AbstractBlockNetwork):
    """x (batch, *shape), noise levels (batch), labels (batch) or None -> (batch, outputs * shape[0], *shape[1:]).

    x is flattened, then passes through `depth` residual blocks of `width` channels. The initial output of the network
    and of every residual branch is zero. For labels and augmentations see `ConditionEmbedding`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 3,
        classes: int | None = None,
        outputs: int = 1,
        augmentations: int = 0,
    ) -> None:
        super().__init__()
        self.outputs = (outputs * shape[0], *shape[1:])
        self.condition = ConditionEmbedding(width, width, classes, augmentations)
        self.first = at_the_edge(nn.Linear(math.prod(shape), width))
        self.last = at_the_edge(zeroed(nn.Linear(width, math.prod(self.outputs))))
        self.blocks = nn.ModuleList(MLPBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.modulation = at_the_edge(nn.Linear(width, 2 * depth * width))  # one matrix product for all blocks

    def forward(
        self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Tensor:
        h = self.first(x.flatten(1))
        condition = self.condition(noise_level, labels, augmentation)
        modulations = self.modulation(F.silu(condition)).chunk(len(self.blocks), dim=1)
        for block, modulation in zip(self.blocks, modulations, strict=True):
            h = self.block(block, h, modulation)
        return self.last(self.norm(h)).unflatten(1, self.outputs)


class MLPBlock(nn.Module):
    """h + linear(silu(linear((1 + scale) norm(h) + shift))); `modulation` (batch, 2 width) holds scale and shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.first, self.second = nn.Linear(width, 2 * width), zeroed(nn.Linear(2 * width, width))

    def forward(self, h: Tensor, modulation: Tensor) -> Tensor:
        scale, shift = modulation.chunk(2, dim=1)
        return h + self.second(F.silu(self.first(torch.addcmul(shift, self.norm(h), 1 + scale))))
