"""The lecture's training loop (4.8), (5.18): a generator of step records.

What happens at step s is a pure function of (weights, seed, s): which examples, which noise, which learning rate. So a
run can stop after any step and go on bit for bit.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from jensen import processes
from jensen.data import Examples, Preparation
from jensen.data.stored import Ahead, Stored
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel, Batch, Loss
from jensen.randomness import Noise, Stream, generator
from jensen.training.ema import ExponentialMovingAverage
from jensen.training.memory import drop_gradients, in_fitting_parts, recompute_activations
from jensen.training.muon import Muon
from jensen.training.precision import SMALLEST_SCALE, Precision, dtype_of, halve
from jensen.training.settings import TrainingSettings


@dataclass(frozen=True)
class Step:
    """What one step did; tensors are detached and still on the device, so that reading them is the reader's choice."""

    number: int  # from 1
    loss: Tensor | None  # None: the step was left out
    terms: dict[str, Tensor]
    learning_rate: float
    gradient_norm: Tensor | None  # before clipping


class LeftOut(BaseModel):
    """Steps `first`..`last`, counted from 1, that are passed over without learning from their batches, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int
    last: int
    reason: str


@dataclass
class TrainingState:
    """All that changes while training, and all that a checkpoint holds."""

    model: AbstractLatentVariableModel
    optimisers: list[torch.optim.Optimizer]
    ema: ExponentialMovingAverage | None
    step: int = 0  # steps done
    best_step: int = 0
    best_bound: float = -math.inf
    stale_validations: int = 0
    converged: bool = False
    window: list[dict[str, float]] = field(default_factory=list)  # values since the last line of metrics
    losses: list[float] = field(default_factory=list)  # means of the windows before it, the last few
    left_out: list[LeftOut] = field(default_factory=list)  # by rollbacks, one each
    micro_batch_size: int | None = None  # examples that go through the network at once; None: the whole batch
    scaler: torch.amp.GradScaler | None = None  # of float16's gradients
    dense: list[nn.Parameter] = field(default_factory=list)
    tables: list[nn.Parameter] = field(default_factory=list)

    @classmethod
    def start(cls, model: AbstractLatentVariableModel, settings: TrainingSettings) -> "TrainingState":
        """A fresh state: fused AdamW, Muon for hidden matrices if asked, SparseAdam for tables with few new rows."""
        if settings.activation_checkpointing:
            recompute_activations(model)
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse}
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        dense = {name: p for name, p in named.items() if id(p) not in tables}
        sparse = [p for p in named.values() if id(p) in tables]
        edges = {
            id(parameter)
            for module in model.modules()
            if isinstance(module, nn.Embedding) or getattr(module, "edge", False)  # `jensen.nets.initial.at_the_edge`
            for parameter in module.parameters(recurse=False)
        }
        muon = settings.optimiser == "muon"
        matrices = [p for p in dense.values() if p.ndim > 1 and id(p) not in edges] if muon else []
        rest = [p for p in dense.values() if not any(p is matrix for matrix in matrices)]
        optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                rest,
                lr=settings.learning_rate,
                eps=settings.adam_epsilon,
                weight_decay=settings.weight_decay,
                fused=True,
            )
        ]
        if matrices:
            optimisers.append(Muon(matrices, settings.learning_rate))
        if sparse:
            optimisers.append(torch.optim.SparseAdam(sparse, lr=settings.learning_rate, eps=settings.adam_epsilon))
        ema = ExponentialMovingAverage(dense, settings.ema_decay) if settings.ema_decay else None
        return cls(
            model,
            optimisers,
            ema,
            micro_batch_size=settings.micro_batch_size,
            scaler=torch.amp.GradScaler(next(model.parameters()).device.type)
            if settings.precision == "float16"
            else None,
            dense=list(dense.values()),
            tables=sparse,
        )

    def leaves_out(self, number: int) -> bool:
        """Whether step `number`, counted from 1, is passed over."""
        return any(steps.first <= number <= steps.last for steps in self.left_out)


def steps(
    state: TrainingState, examples: Examples, preparation: Preparation, settings: TrainingSettings, seed: int
) -> Iterator[Step]:
    """Train from `state.step` to `settings.steps`, changing `state` in place and yielding a record after every step.

    Each of several processes computes its own rows of the batch; the gradient, the record and what the model observes
    are those of the whole.
    """
    accelerator = accelerator_for(settings)
    device = accelerator.device
    model = parallel(accelerator, state.model, settings)
    precision = Precision(dtype_of(settings, device.type), device.type, state.scaler)
    if state.ema:
        state.ema.to(device)
    data = examples.to(device)  # all of it, in its own dtype: a batch is one index, no worker processes
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


def attempt(
    accelerator: Accelerator,
    state: TrainingState,
    model: nn.Module,
    compute: Callable[[int | None], Loss],
    count: int,
    rehearsed: bool,
) -> Loss:
    """The loss and gradient of the batch, of which `count` rows are this process's, in parts that memory holds in all.

    Inside a step the others would wait for a process whose memory runs out. So several processes find the size in a
    rehearsal, each alone, and take half of it where memory was short; where it runs out later, that ends them.
    """
    trained, size = [*state.dense, *state.tables], state.micro_batch_size
    if processes.count() == 1:
        loss, state.micro_batch_size = in_fitting_parts(compute, trained, count, size)
        return loss
    if not rehearsed:
        with getattr(model, "no_sync", nullcontext)():
            _, found = in_fitting_parts(compute, trained, count, size)
        drop_gradients(trained)
        state.micro_batch_size = found if found == size or not found else (found + 1) // 2
    return of_all(accelerator, compute(state.micro_batch_size))


def parallel(accelerator: Accelerator, model: nn.Module, settings: TrainingSettings) -> nn.Module:
    """The model as the loop calls it: on several processes its gradient is that of the whole batch.

    DistributedDataParallel sees to that; where weights are sharded these do it themselves.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # what is to follow it does not exist
        return accelerator.prepare_model(model, evaluation_mode=settings.sharding != "none")


def descend(
    state: TrainingState, compute: Callable[[], Loss], rate: float, clip_norm: float | None
) -> tuple[Loss, Tensor]:
    """(theta, lambda) = opt_step(grad Loss); gives the loss and the gradient's norm before clipping.

    Where scaled gradients overflow they are computed again with half the scale, until they do not. After that the scale
    is half of what it was, as if the step had been left out: the next one may need it.
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
    """Move the parameters by their gradients, which are used up; gives the gradient's norm before clipping.

    Where only its square overflows, so may the norm. Scaled gradients that overflow move nothing, and halve the scale.
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
    """Add the gradient of the batch's loss to the parameters', and give the loss; through the network `at_once` rows.

    The loss is a mean over examples, so its gradient is the sum of its parts' gradients by their shares.
    """
    count = len(batch.x)
    parts: list[tuple[float, Loss]] = []
    for start in range(0, count, at_once or count):
        rows = slice(start, min(start + (at_once or count), count))
        share = (rows.stop - rows.start) / count
        # Gradients of several processes are averaged once, with the last part
        with nullcontext() if rows.stop == count else getattr(model, "no_sync", nullcontext)():
            with precision.networks():
                loss = model(batch[rows], step, noise.part(rows, count))  # draw z, bound (4.8)
            precision.backward(loss.value * share)
        parts.append((share, replace(loss, value=loss.value.detach())))
    return _whole(parts)


def _whole(parts: list[tuple[float, Loss]]) -> Loss:
    """The loss of a batch from those of its parts and their shares of it."""
    first = parts[0][1]
    if len(parts) == 1:
        return first
    value = torch.stack([share * loss.value for share, loss in parts]).sum()
    terms = {name: torch.stack([share * loss.terms[name] for share, loss in parts]).sum() for name in first.terms}
    return Loss(value, terms, {name: torch.cat([loss.noted[name] for _, loss in parts]) for name in first.noted})


def of_all(accelerator: Accelerator, loss: Loss) -> Loss:
    """The loss of the whole batch from those of the processes' rows, known to all."""
    if accelerator.num_processes == 1:
        return loss
    values = torch.stack([value.double() for value in (loss.value, *loss.terms.values())])
    value, *terms = accelerator.reduce(values, "mean")
    return Loss(value, dict(zip(loss.terms, terms, strict=True)), accelerator.gather(dict(loss.noted)))


def batch_at(
    step: int,
    examples: Examples,
    preparation: Preparation,
    batch_size: int,
    seed: int,
    rows: slice | None = None,
    device: torch.device | None = None,
) -> Batch:
    """The batch of step `step`: a pure function of (seed, step); every example comes once per pass over the data.

    Of the batch only `rows`, where they are named; on `device`, where x may be on disk and the rest is, by default
    where x is.
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
    """Rows step B .. (step + 1) B - 1 of an endless series of shuffled passes over 0..count-1."""
    position, end = step * batch_size, (step + 1) * batch_size
    parts: list[Tensor] = []
    while position < end:
        parts.append(_shuffled(count, seed, position // count)[position % count :][: end - position])
        position += len(parts[-1])
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, Stream.ORDER, epoch))


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """The learning rate of step `step` (from 0): linear warm-up, then the schedule."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "staircase":
        return settings.learning_rate * settings.decay ** sum(step >= milestone for milestone in settings.milestones)
    return settings.learning_rate


def accelerator_for(settings: TrainingSettings) -> Accelerator:
    """The device that `settings` ask for, by Accelerate; `InputError` where the machine lacks it, or its precision."""
    use_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    if settings.device == "cuda" and use_cpu:
        raise InputError("device cuda: this machine has no CUDA device that torch can use; choose cpu or auto")
    here = processes.on_this_machine()
    if not use_cpu and here > torch.cuda.device_count():
        raise InputError(
            f"{here} processes on a machine with {torch.cuda.device_count()} CUDA devices: expected one for each; "
            "start fewer, or choose device cpu"
        )
    dtype_of(settings, "cpu" if use_cpu else "cuda")
    # Accelerate's state is global and refuses a second run with other settings in the same process
    AcceleratorState._reset_state(reset_partial_state=True)
    # Every process observes the whole batch, so buffers stay equal by themselves. Where unused parameters are looked
    # for, gradients are always summed in one order; else in another after the first step: resumed runs would differ
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)]
    return Accelerator(cpu=use_cpu, mixed_precision="no", kwargs_handlers=handlers)
