"""Networks made of blocks, what is inside which can be computed again for the gradient in place of being kept."""

from abc import ABC
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class AbstractBlockNetwork(nn.Module, ABC):
    """A network that computes its blocks by `block`. With `recompute` only what goes into a block is kept for the
    gradient, and the block is computed a second time when its turn comes (activation checkpointing, Chen et al. 2016):
    the same numbers. No block draws random numbers.
    """

    recompute = False  # set by `jensen.training.memory`

    def block(self, compute: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """compute(*inputs)."""
        if not (self.recompute and torch.is_grad_enabled()):
            return compute(*inputs)
        return checkpoint(compute, *inputs, use_reentrant=False, preserve_rng_state=False)
