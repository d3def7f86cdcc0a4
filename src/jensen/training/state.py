"""The state of a training: the model, its optimisers, the moving average, the counters."""

import math
from dataclasses import dataclass, field

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from jensen.model import AbstractLatentVariableModel
from jensen.training.ema import ExponentialMovingAverage
from jensen.training.memory import recompute_activations
from jensen.training.muon import Muon
from jensen.training.settings import TrainingSettings


class LeftOut(BaseModel):
    """Steps `first`..`last`, counted from 1, which training skips together with their batches, and the reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int
    last: int
    reason: str


@dataclass
class TrainingState:
    """Everything that changes during training and that a checkpoint stores."""

    model: AbstractLatentVariableModel
    optimisers: list[torch.optim.Optimizer]
    ema: ExponentialMovingAverage | None
    step: int = 0  # number of steps done
    best_step: int = 0
    best_bound: float = -math.inf
    stale_validations: int = 0
    converged: bool = False
    window: list[dict[str, float]] = field(default_factory=list)  # values of the steps since the last line of metrics
    losses: list[float] = field(default_factory=list)  # mean losses of the last few windows before this one
    left_out: list[LeftOut] = field(default_factory=list)  # one element for every rollback
    micro_batch_size: int | None = None  # examples that go through the network at once; None: the whole batch
    scaler: torch.amp.GradScaler | None = None  # scales gradients in float16
    dense: list[nn.Parameter] = field(default_factory=list)
    tables: list[nn.Parameter] = field(default_factory=list)
    recipe: str = ""  # the digest of the recipe that is trained by; empty outside of a run
    earlier_recipes: tuple[str, ...] = ()  # those of the recipes that the run was trained by before

    @classmethod
    def start(cls, model: AbstractLatentVariableModel, settings: TrainingSettings) -> "TrainingState":
        """A new state: AdamW; Muon for hidden matrices if the settings ask for it; SparseAdam for sparse embeddings."""
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
            optimisers.append(Muon(matrices, settings.learning_rate, compile=settings.compile))
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

    def start_stage(self) -> None:
        """Begin a stage of training: take the averaged weights, and forget the losses and the best bound before it."""
        if self.ema:
            self.ema.adopt()
        self.losses, self.best_bound, self.stale_validations = [], -math.inf, 0

    def leaves_out(self, number: int) -> bool:
        """Whether training skips step `number`, counted from 1."""
        return any(steps.first <= number <= steps.last for steps in self.left_out)
