"""The lecture's training loop (4.8), (5.18): a generator of step records.

What happens at step s is a pure function of (weights, seed, s): which examples, which noise, which learning rate. So a
run can stop after any step and go on bit for bit.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from jensen.data import Examples, Preparation
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel, Batch, Loss
from jensen.randomness import Noise, Stream, generator
from jensen.training.ema import ExponentialMovingAverage
from jensen.training.muon import Muon
from jensen.training.settings import TrainingSettings


@dataclass(frozen=True)
class Step:
    """What one step did; tensors are detached and still on the device, so that reading them is the reader's choice."""

    number: int  # from 1
    loss: Tensor
    terms: dict[str, Tensor]
    learning_rate: float
    gradient_norm: Tensor | None


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
    dense: list[nn.Parameter] = field(default_factory=list)

    @classmethod
    def start(cls, model: AbstractLatentVariableModel, settings: TrainingSettings) -> "TrainingState":
        """A fresh state: fused AdamW, Muon for hidden matrices if asked, SparseAdam for tables with few new rows."""
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
        return cls(model, optimisers, ema, dense=list(dense.values()))


def steps(
    state: TrainingState, examples: Examples, preparation: Preparation, settings: TrainingSettings, seed: int
) -> Iterator[Step]:
    """Train from `state.step` to `settings.steps`, changing `state` in place and yielding a record after every step."""
    accelerator = accelerator_for(settings)
    device = accelerator.device
    model = accelerator.prepare(state.model)
    # Accelerate's optimiser serves the loss scaling of float16; for nothing, it looks for packages at every step
    scaled = accelerator.scaler is not None
    optimisers = [accelerator.prepare_optimizer(o) if scaled else o for o in state.optimisers]
    if state.ema:
        state.ema.to(device)
    data = examples.to(device)  # all of it, in its own dtype: a batch is one index, no worker processes
    while state.step < settings.steps:
        step = state.step
        rate = learning_rate(step, settings)
        batch = batch_at(step, data, preparation, settings.batch_size, seed)
        noise = Noise(generator(seed, Stream.TRAINING, step, device=device))
        loss = gradient(model, batch, step, noise, settings.micro_batch_size, accelerator.backward)  # grad Loss
        state.model.observe(loss.noted)
        norm = accelerator.clip_grad_norm_(state.dense, settings.clip_norm) if settings.clip_norm else None
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()  # (theta, lambda) = opt_step(grad Loss)
            optimiser.zero_grad()
        if state.ema:
            state.ema.update(step)
        state.step = step + 1
        yield Step(state.step, loss.value, dict(loss.terms), rate, norm)


def gradient(
    model: nn.Module, batch: Batch, step: int, noise: Noise, at_once: int | None, backward: Callable[[Tensor], None]
) -> Loss:
    """Add the gradient of the batch's loss to the parameters', and give the loss; through the network `at_once` rows.

    The loss is a mean over examples, so its gradient is the sum of its parts' gradients by their shares.
    """
    count = len(batch.x)
    parts: list[tuple[float, Loss]] = []
    for start in range(0, count, at_once or count):
        rows = slice(start, min(start + (at_once or count), count))
        share = (rows.stop - rows.start) / count
        loss = model(batch[rows], step, noise.part(rows, count))  # draw z, bound (4.8)
        backward(loss.value * share)
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


def batch_at(step: int, examples: Examples, preparation: Preparation, batch_size: int, seed: int) -> Batch:
    """The batch of step `step`: a pure function of (seed, step); every example comes once per pass over the data."""
    device = examples.x.device
    index = batch_index(len(examples), batch_size, seed, step).to(device)
    labels = None if examples.labels is None else examples.labels.index_select(0, index)
    targets = None if examples.targets is None else examples.targets.index_select(0, index)
    noise = Noise(generator(seed, Stream.TRAINING, step, 1, device=device))
    return Batch(preparation(examples.x.index_select(0, index), noise), index, labels, targets)


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
    """The device and precision that `settings` ask for, by Accelerate; `InputError` where the machine lacks them."""
    use_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    if settings.device == "cuda" and use_cpu:
        raise InputError("device cuda: this machine has no CUDA device that torch can use; choose cpu or auto")
    if use_cpu and settings.precision == "float16":
        raise InputError("precision float16 on a CPU: expected float32 or bfloat16 there; choose one of them")
    if use_cpu and settings.precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise InputError("precision bfloat16: this CPU emulates it, hundreds of times slower; choose float32")
    # Accelerate's state is global and refuses a second run with other settings in the same process
    AcceleratorState._reset_state(reset_partial_state=True)
    names = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
    return Accelerator(cpu=use_cpu, mixed_precision=names[settings.precision])
