"""Memory that runs out: smaller parts of the same batch, and activations computed again in place of kept."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from jensen.errors import InputError, out_of_memory

Value = TypeVar("Value")


def within_memory(
    compute: Callable[[int | None], Value], parameters: Iterable[nn.Parameter], count: int, at_once: int | None
) -> tuple[Value, int | None]:
    """compute(at_once), the gradient of a batch of `count` that goes through the network `at_once` rows; and at_once.

    Where memory runs out what was added to the gradients of `parameters` is dropped, `at_once` (None: all) halved, and
    the step begun again: the same gradient, but for rounding. With several processes it is not, since the others would
    wait for this one. Raises `InputError` where a single example is too large.
    """
    parameters = list(parameters)
    while True:
        try:
            return compute(at_once), at_once
        except (RuntimeError, MemoryError) as error:
            alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
            if not (out_of_memory(error) and alone):
                raise
        # Only here have the frames of the failed attempt gone, and its tensors with them.
        for parameter in parameters:
            parameter.grad = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = min(at_once or count, count)
        if size == 1:
            raise InputError(
                "not enough memory for a single example; set training.activation_checkpointing, make the model or the "
                "examples smaller, or use a larger machine"
            )
        at_once = (size + 1) // 2


def recompute_activations(model: nn.Module) -> None:
    """Make every network that can (`jensen.nets.blocks`) compute its blocks' activations again for the gradient."""
    for module in model.modules():
        if hasattr(module, "recompute"):
            module.recompute = True  # type: ignore[assignment]  # read by `jensen.nets.blocks`
