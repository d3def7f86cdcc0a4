"""The gradient of a batch, computed in parts that fit into memory, and the optimisers' step."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from jensen import processes
from jensen.model import Batch, Loss
from jensen.randomness import Noise
from jensen.training.memory import in_fitting_parts
from jensen.training.precision import SMALLEST_SCALE, Precision, halve
from jensen.training.state import TrainingState


def attempt(
    accelerator: Accelerator,
    state: TrainingState,
    model: nn.Module,
    compute: Callable[[int | None], Loss],
    count: int,
    rehearsed: bool,
) -> Loss:
    """The loss and gradient of the batch, computed in parts that fit into the memory of every process.

    `count` is the number of this process's rows. Processes that exchange gradients would wait forever for a process
    whose memory ran out. So several processes first find the size of the parts in a rehearsal without exchange.
    `rehearsed` says that the rehearsal took place. If memory ran out in the rehearsal, the size is halved once more,
    because running out of memory later would end the training.
    """
    forget, size = partial(drop_gradients, [*state.dense, *state.tables]), state.micro_batch_size
    if processes.count() == 1:
        loss, state.micro_batch_size = in_fitting_parts(compute, forget, count, size)
        return loss
    if not rehearsed:
        with getattr(model, "no_sync", nullcontext)():
            _, found = in_fitting_parts(compute, forget, count, size)
        forget()
        state.micro_batch_size = found if found == size or not found else (found + 1) // 2
    return of_all(accelerator, compute(state.micro_batch_size))


def descend(
    state: TrainingState, compute: Callable[[], Loss], rate: float, clip_norm: float | None
) -> tuple[Loss, Tensor]:
    """(theta, lambda) = opt_step(grad Loss) (4.8); returns the loss and the gradient's norm before clipping.

    If the loss is finite but the scaled gradients overflow, the scale is halved and the gradients are computed again.
    This ends when the gradients are finite or the scale is `SMALLEST_SCALE`. The next batch starts with half the scale
    of this batch's first attempt, however often the scale was halved.
    """
    before = scale = state.scaler.get_scale() if state.scaler else 1.0
    while True:
        loss = compute()
        norm = optimise(state, rate, clip_norm)
        if not state.scaler or norm.isfinite() or not loss.value.isfinite() or scale <= SMALLEST_SCALE:
            break
        scale = state.scaler.get_scale()
    if state.scaler and scale < before / 2:
        halve(state.scaler, before)
    return loss, norm


def optimise(state: TrainingState, rate: float, clip_norm: float | None) -> Tensor:
    """Move the parameters along their gradients and drop the gradients; returns the norm before clipping.

    If the gradients are finite but the sum of their squares overflows, the norm is infinite. If gradients are scaled
    and the norm is not finite, no parameter moves, and the scale is halved.
    """
    if state.scaler:
        for optimiser in state.optimisers:
            state.scaler.unscale_(optimiser)
    dense = processes.whole(get_total_norm([p.grad for p in state.dense if p.grad is not None]))
    rows = [p.grad._values() for p in state.tables if p.grad is not None]
    norm = torch.hypot(dense, get_total_norm(rows)) if rows else dense
    if state.scaler and not norm.isfinite():
        drop_gradients([*state.dense, *state.tables])
        halve(state.scaler, state.scaler.get_scale())
        return norm
    if clip_norm:
        clip_grads_with_norm_(state.dense, clip_norm, dense)
    for optimiser in state.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        optimiser.zero_grad()
    if state.scaler:
        state.scaler.update()
    return norm


def gradient(
    model: nn.Module, batch: Batch, step: int, noise: Noise, precision: Precision, at_once: int | None
) -> Loss:
    """Add the gradient of the batch's loss to the parameters' gradients and return the loss.

    `at_once` rows go through the network together (None: all). The loss is a mean over examples, so the gradient is the
    sum of the gradients of the parts, weighted by the share of each part in the batch.
    """
    count = len(batch.x)
    parts: list[tuple[float, Loss]] = []
    for start in range(0, count, at_once or count):
        rows = slice(start, min(start + (at_once or count), count))
        share = (rows.stop - rows.start) / count
        # Several processes average their gradients once, with the last part
        exchange = nullcontext() if rows.stop == count else getattr(model, "no_sync", nullcontext)()
        with exchange, precision.compilation.networks(in_parts=share < 1), precision.products():
            with precision.networks():
                loss = model(batch[rows], step, noise.part(rows, count))  # draw z, bound (4.8)
            precision.backward(loss.value * share)
        parts.append((share, replace(loss, value=loss.value.detach())))
    return _whole(parts)


def _whole(parts: list[tuple[float, Loss]]) -> Loss:
    """The loss of a batch, from (share of the batch, loss) of each part."""
    first = parts[0][1]
    if len(parts) == 1:
        return first
    value = torch.stack([share * loss.value for share, loss in parts]).sum()
    terms = {name: torch.stack([share * loss.terms[name] for share, loss in parts]).sum() for name in first.terms}
    return Loss(value, terms, {name: torch.cat([loss.noted[name] for _, loss in parts]) for name in first.noted})


def of_all(accelerator: Accelerator, loss: Loss) -> Loss:
    """The loss of the whole batch in every process, from the loss of each process's rows."""
    if accelerator.num_processes == 1:
        return loss
    values = torch.stack([value.double() for value in (loss.value, *loss.terms.values())])
    value, *terms = accelerator.reduce(values, "mean")
    return Loss(value, dict(zip(loss.terms, terms, strict=True)), accelerator.gather(dict(loss.noted)))


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Delete the gradients of `parameters`."""
    for parameter in parameters:
        parameter.grad = None
