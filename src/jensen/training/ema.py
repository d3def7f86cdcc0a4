"""The exponential moving average of a model's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from jensen.processes import own_part, stored


class ExponentialMovingAverage:
    """The average of `parameters`: shadow <- decay shadow + (1 - decay) weight, after every step.

    The decay at update s is min(decay, (1 + s) / (10 + s)), so that the average soon forgets the initial weights.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self._names, self._parameters = list(parameters), list[Tensor](parameters.values())
        self.decay = decay
        self._shadow = [parameter.detach().clone() for parameter in self._parameters]

    def to(self, device: torch.device) -> None:
        """Move the averaged weights to `device`."""
        self._shadow = [shadow.to(device) for shadow in self._shadow]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step number `step` (counted from 0) to the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._shadow, self._parameters, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block, the model has the averaged weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def adopt(self) -> None:
        """Give the model the averaged weights for good."""
        for parameter, shadow in zip(self._parameters, self._shadow, strict=True):
            stored(parameter).copy_(stored(shadow))

    @torch.no_grad()
    def _exchange(self) -> None:
        for parameter, shadow in zip(self._parameters, self._shadow, strict=True):
            here, there = stored(parameter), stored(shadow)
            kept = here.clone()  # copied in place: optimisers and DistributedDataParallel hold these tensors
            here.copy_(there)
            there.copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name of the parameter."""
        return dict(zip(self._names, self._shadow, strict=True))

    def load(self, state: dict[str, Tensor]) -> None:
        """Load averaged weights saved by `state`."""
        for name, shadow in zip(self._names, self._shadow, strict=True):
            shadow.copy_(own_part(state[name], shadow))
