"""The lecture's training loop (4.8), (5.18): a generator of step records.

The examples, the noise and the learning rate of step s are pure functions of (seed, s). So a run can stop after any
step, resume, and give bit for bit the same result.
"""

import math
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from jensen import processes
from jensen.data.augment import Augmentation
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.data.stored import Ahead, Stored
from jensen.errors import InputError
from jensen.model import Batch
from jensen.randomness import Noise, Stream, generator
from jensen.training.compilation import Compilation, check_compilation
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
    """Train from `state.step` to `settings.steps`, and yield a record after every step.

    `state` changes in place. If there are several processes, each process computes its own rows of the batch. The
    gradient, the record and the values that the model observes are always about the whole batch.
    """
    accelerator = accelerator_for(settings)
    device = accelerator.device
    model = parallel(accelerator, state.model, settings)
    compilation = Compilation(state.model, settings.compile)
    precision = Precision.of(settings, device.type, state.scaler, compilation)
    if state.ema:
        state.ema.to(device)
    data = examples.to(device)  # all in its own dtype: a batch is one index, without workers
    rows = processes.own_rows(settings.batch_size)
    size = settings.batch_size

    augmentation = Augmentation.of(settings.augment, data.x.shape[1:], preparation)
    read = Batches(data, preparation, size, seed, augmentation if augmentation.numbers else None, rows, device)
    stages = state.model.stages
    rehearsed = processes.count() == 1 or settings.sharding != "none"
    batch_of = Ahead(read, settings.steps) if isinstance(data.x, Stored) else read
    while state.step < settings.steps:
        step = state.step
        begin, _ = stage_of(step, stages, settings.steps)
        if step == begin > 0:
            state.start_stage()
        rate = learning_rate(step, settings, stages)
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
            state.ema.update(step - begin)
        state.step = step + 1
        yield Step(state.step, loss.value, dict(loss.terms), rate, norm)


def parallel(accelerator: Accelerator, model: nn.Module, settings: TrainingSettings) -> nn.Module:
    """The model as the loop calls it, so that with several processes the gradient is that of the whole batch.

    DistributedDataParallel averages the gradients. Sharded weights (FSDP2) average their gradients themselves.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its replacement does not exist yet
        return accelerator.prepare_model(model, evaluation_mode=settings.sharding != "none")


@dataclass(frozen=True)
class Batches:
    """The batch of every step, which is a pure function of (seed, step).

    A pass over the data has every example once. `augmentation` changes the raw examples of a batch at random. `rows`
    selects rows of the batch (default: all). `device` is the device of the labels, the targets and the batches
    (default: the device of x). x itself may be on disk.
    """

    examples: Examples
    preparation: Preparation
    size: int
    seed: int
    augmentation: Augmentation | None = None
    rows: slice | None = None
    device: torch.device | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of step `step`, counted from 0."""
        examples, device = self.examples, self.device or self.examples.x.device
        index = batch_index(len(examples), self.size, self.seed, step)[self._rows]
        if device.type == "cuda":  # a copy from pageable memory would wait for all work of the GPU
            index = index.pin_memory().to(device, non_blocking=True)
        x, augmentation = examples.x.index_select(0, index).to(device), None
        labels = None if examples.labels is None else examples.labels.index_select(0, index)
        targets = None if examples.targets is None else examples.targets.index_select(0, index)
        if self.augmentation:
            x, augmentation = self.augmentation(x, self._noise(step, 2, device))
        return Batch(self.preparation(x, self._noise(step, 1, device)), index, labels, targets, augmentation)

    def _noise(self, step: int, purpose: int, device: torch.device) -> Noise:
        return Noise(generator(self.seed, Stream.TRAINING, step, purpose, device=device), self._rows, self.size)

    @property
    def _rows(self) -> slice:
        return self.rows or slice(0, self.size)


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


def stage_of(step: int, stages: Sequence[int], steps: int) -> tuple[int, int]:
    """The first step of the stage that contains `step`, and the first step after the stage.

    >>> stage_of(7, (5, 9), 20)
    (5, 9)
    """
    return max((s for s in stages if s <= step), default=0), min((s for s in stages if s > step), default=steps)


def learning_rate(step: int, settings: TrainingSettings, stages: Sequence[int] = ()) -> float:
    """The learning rate of step `step`, counted from 0: in every stage a linear warm-up, then the schedule.

    The milestones of a staircase are steps of the whole training.
    """
    begin, end = stage_of(step, stages, settings.steps)
    if step - begin < settings.warmup_steps:
        return settings.learning_rate * (step - begin + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress(step, settings, begin, end)))
    if settings.schedule == "staircase":
        return settings.learning_rate * settings.decay ** sum(step >= milestone for milestone in settings.milestones)
    return settings.learning_rate


def progress(step: int, settings: TrainingSettings, begin: int = 0, end: int | None = None) -> float:
    """The progress of the schedule after warm-up at step `step`, from 0 to 1.

    The stage has the steps begin..end - 1; by default it is the whole training. The progress grows linearly with the
    step. If `settings.replans` changed the last step of the stage, the progress continues from its value at the change,
    so that the learning rate does not jump.
    """
    end = settings.steps if end is None else end
    since, over = begin + settings.warmup_steps, 0.0
    for until, planned in settings.replans if end == settings.steps else ():
        if until > settings.steps:  # of a longer training than this one
            break
        if step <= until:
            return over + (1 - over) * (step - since) / max(1, planned - since)
        if until > since:
            over += (1 - over) * (until - since) / max(1, planned - since)
            since = until
    return over + (1 - over) * (step - since) / max(1, end - since)


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
    check_compilation(settings, "cpu" if use_cpu else "cuda")
    # Accelerate's state is global and refuses a second run with other settings in the same process
    AcceleratorState._reset_state(reset_partial_state=True)
    # broadcast_buffers: every process observes the whole batch, so the buffers stay equal without a broadcast.
    # find_unused_parameters: without it, DistributedDataParallel changes the order of its sums after the first step,
    # and a resumed run would differ from an uninterrupted one
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)]
    return Accelerator(cpu=use_cpu, mixed_precision="no", kwargs_handlers=handlers)
