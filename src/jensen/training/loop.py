"""The lecture's training loop (4.8), (5.18): a generator of step records.

The examples, the noise and the learning rate of step s are pure functions of (seed, s). So a run can stop after any
step, resume, and give bit for bit the same result.
"""

import math
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from jensen import processes
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.data.stored import Ahead, Stored
from jensen.errors import InputError
from jensen.model import Batch
from jensen.randomness import Noise, Stream, generator
from jensen.training.gradient import attempt, descend, gradient
from jensen.training.precision import Precision, dtype_of
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState


@dataclass(frozen=True)
class Step:
    """The record of one step. Tensors are detached and stay on the device; reading a tensor waits for the device."""

    number: int  # from 1
    loss: Tensor | None  # None: the step was left out
    terms: dict[str, Tensor]
    learning_rate: float
    gradient_norm: Tensor | None  # before clipping


def steps(
    state: TrainingState, examples: Examples, preparation: Preparation, settings: TrainingSettings, seed: int
) -> Generator[Step, None, None]:
    """Train from `state.step` to `settings.steps`: change `state` in place and yield a record after every step.

    If there are several processes, each computes its own rows of the batch. The gradient, the record and the values
    that the model observes are always about the whole batch.
    """
    accelerator = accelerator_for(settings)
    device = accelerator.device
    model = parallel(accelerator, state.model, settings)
    precision = Precision(dtype_of(settings, device.type), device.type, state.scaler)
    if state.ema:
        state.ema.to(device)
    data = examples.to(device)  # all in its own dtype: a batch is one index, without workers
    rows = processes.own_rows(settings.batch_size)
    size = settings.batch_size

    def read(step: int) -> Batch:
        return batch_at(step, data, preparation, size, seed, rows, device)

    rehearsed = processes.count() == 1 or settings.sharding != "none"
    batch_of = Ahead(read, settings.steps) if isinstance(data.x, Stored) else read
    while state.step < settings.steps:
        step = state.step
        rate = learning_rate(step, settings)
        if state.leaves_out(step + 1):
            state.step = step + 1
            yield Step(state.step, None, {}, rate, None)
            continue
        batch = batch_of(step)
        noise = Noise(generator(seed, Stream.TRAINING, step, device=device), rows, size)
        compute = partial(gradient, model, batch, step, noise, precision)  # grad Loss
        tried = partial(attempt, accelerator, state, model, compute, len(batch.x), rehearsed)
        loss, norm = descend(state, tried, rate, settings.clip_norm)
        rehearsed = True
        state.model.observe(loss.noted)
        if state.ema:
            state.ema.update(step)
        state.step = step + 1
        yield Step(state.step, loss.value, dict(loss.terms), rate, norm)


def parallel(accelerator: Accelerator, model: nn.Module, settings: TrainingSettings) -> nn.Module:
    """The model as the loop calls it; with several processes, the gradient is of the whole batch.

    DistributedDataParallel averages the gradients; sharded weights (FSDP2) average them by themselves.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its replacement does not exist yet
        return accelerator.prepare_model(model, evaluation_mode=settings.sharding != "none")


def batch_at(
    step: int,
    examples: Examples,
    preparation: Preparation,
    batch_size: int,
    seed: int,
    rows: slice | None = None,
    device: torch.device | None = None,
) -> Batch:
    """The batch of step `step`, a pure function of (seed, step); a pass over the data has every example once.

    `rows` selects rows of the batch (default: all). `device` is the device of the labels, the targets and the result
    (default: the device of x); x itself may be on disk.
    """
    device = device or examples.x.device
    rows = rows or slice(0, batch_size)
    index = batch_index(len(examples), batch_size, seed, step)[rows].to(device)
    x = examples.x.index_select(0, index)
    labels = None if examples.labels is None else examples.labels.index_select(0, index)
    targets = None if examples.targets is None else examples.targets.index_select(0, index)
    noise = Noise(generator(seed, Stream.TRAINING, step, 1, device=device), rows, batch_size)
    return Batch(preparation(x.to(device), noise), index, labels, targets)


def batch_index(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Elements step B .. (step + 1) B - 1 of an endless sequence of shuffled passes over 0..count-1, B = batch_size."""
    position, end = step * batch_size, (step + 1) * batch_size
    parts: list[Tensor] = []
    while position < end:
        parts.append(_shuffled(count, seed, position // count)[position % count :][: end - position])
        position += len(parts[-1])
    return torch.cat(parts)


@lru_cache(maxsize=2)  # a batch may span two passes
def _shuffled(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, Stream.ORDER, epoch))


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """The learning rate of step `step` (counted from 0): linear warm-up, then the schedule."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress(step, settings)))
    if settings.schedule == "staircase":
        return settings.learning_rate * settings.decay ** sum(step >= milestone for milestone in settings.milestones)
    return settings.learning_rate


def progress(step: int, settings: TrainingSettings) -> float:
    """The share of the schedule after warm-up that is over at step `step`, from 0 to 1.

    The share grows linearly with the step. Where `settings.replans` changed the number of steps, the share goes on from
    its value, so that the learning rate does not jump.
    """
    since, over = settings.warmup_steps, 0.0
    for until, steps in settings.replans:
        if until > settings.steps:  # of a longer training than this one
            break
        if step <= until:
            return over + (1 - over) * (step - since) / max(1, steps - since)
        if until > since:
            over += (1 - over) * (until - since) / max(1, steps - since)
            since = until
    return over + (1 - over) * (step - since) / max(1, settings.steps - since)


def accelerator_for(settings: TrainingSettings) -> Accelerator:
    """Accelerate on the device of `settings`; `InputError` if the machine lacks the device or the precision."""
    use_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    if settings.device == "cuda" and use_cpu:
        raise InputError("device cuda: this machine has no CUDA device that torch can use; choose cpu or auto")
    here = processes.on_this_machine()
    if not use_cpu and here > torch.cuda.device_count():
        raise InputError(
            f"{here} processes on a machine with {torch.cuda.device_count()} CUDA devices: expected a device for each "
            "process; start fewer processes, or choose device cpu"
        )
    dtype_of(settings, "cpu" if use_cpu else "cuda")
    # Accelerate's state is global and refuses a second run with other settings in the same process
    AcceleratorState._reset_state(reset_partial_state=True)
    # broadcast_buffers: every process observes the whole batch, so the buffers stay equal without a broadcast.
    # find_unused_parameters: without it, DistributedDataParallel changes the order of its sums after the first step,
    # and a resumed run would differ from an uninterrupted one
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)]
    return Accelerator(cpu=use_cpu, mixed_precision="no", kwargs_handlers=handlers)
