"""How to train: plain values, checked when read; imports no torch, so that the command line's help is instant."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class TrainingSettings(BaseModel):
    """The training loop's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: PositiveInt = 5000
    """Optimisation steps, at most; early stopping may end sooner."""
    batch_size: int = Field(128, ge=1, le=1 << 24)
    """Examples per step, of all processes together."""
    micro_batch_size: PositiveInt | None = None
    """Examples that go through a process's network at once, for less memory: the same gradient in parts. None: all of
    them. Halved where memory runs out."""
    activation_checkpointing: bool = False
    """Compute what is inside the networks' blocks again when the gradient needs it: less memory, more time."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """muon: orthogonalised steps for the weights of hidden layers, AdamW for the rest."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "staircase"] = "cosine"
    """Constant, half cosine to zero, or multiplied by `decay` at each of `milestones`."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from zero."""
    milestones: tuple[PositiveInt, ...] = ()
    """Steps at which a staircase schedule decays."""
    decay: float = Field(0.1, gt=0, le=1)
    """Factor of a staircase schedule."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay (AdamW)."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """Adam's epsilon."""
    clip_norm: float | None = Field(None, gt=0)
    """Scale the gradient down to this norm where it is larger."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay of the moving average of the weights, which is then what validation, sampling and evaluation use."""
    validate_every: PositiveInt = 500
    """Steps between two validation bounds."""
    validation_examples: PositiveInt = 2000
    """Validation examples that the bound is averaged over, at most."""
    patience: PositiveInt | None = None
    """Stop when the validation bound has not improved for this many validations; None: never."""
    checkpoint_every: PositiveInt = 1000
    """Steps between two checkpoints."""
    keep_last: PositiveInt = 2
    """Checkpoints kept, beside the best one."""
    sample_every: PositiveInt = 1000
    """Steps between two grids of samples."""
    log_every: PositiveInt = 50
    """Steps between two lines of metrics.jsonl; also how often losses are checked to be finite."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """What to do where a loss, gradient or weight is not finite, or the loss explodes: stop, or go back to the last
    good checkpoint and leave out the batches that did it."""
    rollbacks: PositiveInt = 3
    """How often to go back, at most; then it stops."""
    explosion: float | None = Field(100.0, gt=0)
    """The loss has exploded where the mean of `log_every` steps is above the median of the ten such means before it by
    more than this many times their range. None: never."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the networks, where the device has it."""
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads. One suits MLPs, and a busy machine; convolutions gain from more. Part of what makes a run exact."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: CUDA if there is one, else the CPU."""
    sharding: Literal["none", "full", "hybrid"] = "none"
    """Each of several processes keeps all weights, gradients, moments and averages; its share of them (FSDP2); or its
    share among those of its machine."""
