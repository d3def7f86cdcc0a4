"""Memory that runs out: smaller parts of the same batch, and activations computed again in place of kept."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from jensen import processes
from jensen.errors import InputError, out_of_memory

Value = TypeVar("Value")


def in_fitting_parts(
    compute: Callable[[int | None], Value], forget: Callable[[], None], count: int, at_once: int | None
) -> tuple[Value, int | None]:
    """compute(at_once), the gradient of a batch of `count` that goes through the network `at_once` rows; and at_once.

    Where memory runs out, in any process, `forget` drops what was added to the gradients, `at_once` (None: all) is
    halved, and the step begun again: the same gradient, but for rounding. Several processes must not wait for each
    other inside `compute`. Raises `InputError` where a single example is too large.
    """
    while True:
        value = unless_short(partial(compute, at_once))
        if not processes.anywhere(value is None):
            return cast("Value", value), at_once
        forget()
        size = min(at_once or count, count)
        with processes.together():
            if size == 1:
                raise InputError(
                    "not enough memory for a single example; set training.activation_checkpointing, make the model or "
                    "the examples smaller, or use a larger machine"
                )
        at_once = (size + 1) // 2


def unless_short(compute: Callable[[], Value]) -> Value | None:
    """What `compute` gives, or None where memory runs out; then what it left behind is free again."""
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # Only here have the frames of the failed attempt gone, and its tensors with them.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def piecewise(compute: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """compute(rows), row by row in the result, in as few pieces as memory holds; `InputError` if it holds no row."""
    value = unless_short(partial(compute, rows))
    if value is None:
        if len(rows) == 1:
            raise InputError("not enough memory for a single example; make it or the model smaller")
        return torch.cat([piecewise(compute, half) for half in rows.tensor_split(2)])
    return value


def recompute_activations(model: nn.Module) -> None:
    """Make every network that can (`jensen.nets.blocks`) compute its blocks' activations again for the gradient."""
    for module in model.modules():
        if hasattr(module, "recompute"):
            module.recompute = True  # type: ignore[assignment]  # read by `jensen.nets.blocks`
