"""Saving memory: smaller parts of the same batch, and activations recomputed instead of stored."""

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
    """Compute the gradient of `count` rows by `compute`, with `at_once` rows (None: all) in the network at a time.

    Returns the result of compute(at_once) and the final `at_once`. If memory runs out in any process, `forget` drops
    the partial gradients, `at_once` is halved, and `compute` is called again. The gradient is the same up to rounding.
    Processes must not wait for each other inside `compute`. Raises `InputError` if a single example is too large.
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
    """The result of `compute`, or None if memory ran out; the memory of the failed attempt is free again."""
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # Outside the except clause: inside it, the error still holds the frames of the failed attempt and their tensors
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def piecewise(compute: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """compute(rows), in pieces if memory is too small for all rows; `InputError` if memory is too small for one row."""
    value = unless_short(partial(compute, rows))
    if value is None:
        if len(rows) == 1:
            raise InputError("not enough memory for a single example; make the model or the examples smaller")
        return torch.cat([piecewise(compute, half) for half in rows.tensor_split(2)])
    return value


def recompute_activations(model: nn.Module) -> None:
    """Turn on activation checkpointing in all networks that support it (`jensen.nets.blocks`)."""
    for module in model.modules():
        if hasattr(module, "recompute"):
            module.recompute = True  # type: ignore[assignment]  # read by `jensen.nets.blocks`
