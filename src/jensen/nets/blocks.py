"""Networks made of blocks whose activations can be recomputed for the gradient instead of stored."""

from abc import ABC
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class AbstractBlockNetwork(nn.Module, ABC):
    """A network that computes its blocks through the method `block`.

    With `recompute` the network stores only the inputs of each block and computes the block a second time in the
    backward pass (activation checkpointing, Chen et al. 2016). The results are the same. Blocks must not draw random
    numbers.
    """

    recompute = False  # set by `jensen.training.memory`

    def block(self, compute: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """compute(*inputs), with activation checkpointing if `recompute` is set."""
        if not (self.recompute and torch.is_grad_enabled()):
            return compute(*inputs)
        # Blocks draw no random numbers, so saving the generators' states would only cost time
        return checkpoint(compute, *inputs, use_reentrant=False, preserve_rng_state=False)
