"""Training settings: plain, validated values. Imports no torch, so that the command line's help appears at once."""

from typing import Annotated, Literal, Self

import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from jensen.data.augment_options import AugmentOptions


class TrainingSettings(BaseModel):
    """The training loop's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: PositiveInt = 5000
    """Maximum number of optimisation steps; early stopping may end training sooner."""
    minutes: float | None = Field(default=None, gt=0, le=1e6)
    """Time for the whole training, instead of steps. The steps that fit are measured, and recorded in recipe.json."""
    batch_size: int = Field(default=128, ge=1, le=1 << 24)
    """Examples per step, over all processes together."""
    micro_batch_size: PositiveInt | None = None
    """Maximum number of examples in a process's network at a time. None: all. Smaller values save memory.
    The gradient is the same, computed in parts. The value is halved automatically when memory runs out."""
    activation_checkpointing: bool = False
    """Recompute the activations inside the networks' blocks in the backward pass: less memory, more time."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """adamw for all weights, or muon: orthogonalised steps for the matrices of hidden layers, AdamW for the rest."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "staircase"] = "cosine"
    """Learning rate after warm-up: constant; half a cosine to zero; multiplied by `decay` at each of `milestones`."""
    warmup_steps: int = Field(default=0, ge=0)
    """Number of initial steps in which the learning rate rises linearly to its peak."""
    milestones: tuple[PositiveInt, ...] = ()
    """Steps at which the staircase schedule lowers the learning rate."""
    decay: float = Field(default=0.1, gt=0, le=1)
    """Factor by which the staircase schedule multiplies the learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay (AdamW)."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """Adam's epsilon."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Maximum norm of the gradient; a larger gradient is scaled down to it. None: no limit."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the moving average of the weights, which validation, sampling and evaluation use. None: no average."""
    validate_every: PositiveInt = 500
    """Steps between two validation bounds."""
    validation_examples: PositiveInt = 2000
    """Maximum number of validation examples for the bound."""
    patience: NonNegativeInt | None = None
    """Stop when the validation bound has not improved in this many validations in a row. 0: never.
    None: by data. Training of the default length stops early if it is many passes over few examples."""
    checkpoint_every: PositiveInt = 1000
    """Steps between two checkpoints."""
    keep_last: PositiveInt = 2
    """Number of last checkpoints to keep, besides the best one."""
    sample_every: PositiveInt = 1000
    """Steps between two grids of samples."""
    grid_samples: PositiveInt = 64
    """Number of samples in a grid."""
    first_look: NonNegativeInt | None = None
    """Step of a first validation and a first grid. Others follow at twice the step, four times, and so on,
    until `validate_every` and `sample_every`. 0: none. None: after half a minute, if they would come much later."""
    log_every: PositiveInt = 50
    """Steps between two lines of metrics.jsonl, and between two checks that losses are finite."""
    on_divergence: Literal["stop", "rollback"] = "stop"
    """Action when a loss, gradient or weight is not finite, or when the loss explodes. stop: end with an error.
    rollback: go back to the last good checkpoint and leave out the batches in question."""
    rollbacks: PositiveInt = 3
    """Maximum number of rollbacks; then training stops."""
    explosion: float | None = Field(default=100.0, gt=0)
    """The loss has exploded if its mean over `log_every` steps exceeds the median of the ten previous means
    by more than this many times their range. None: no such check."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the networks; the device must support it. tf32: float32 whose products have 10 bits (CUDA)."""
    compile: Literal["none", "kernels", "graphs"] = "none"
    """Compile the networks for training, which takes a minute or so and makes steps on a GPU faster. kernels: by
    torch.compile. graphs: also launch them as CUDA graphs, which is fastest and needs a GPU and a single process."""
    deterministic: bool = True
    """On CUDA devices, use only algorithms that give the same digits every time. Exact resume on CUDA needs them."""
    threads: int = Field(default=1, ge=1, le=1024)
    """CPU threads. 1 suits MLPs and busy machines; convolutions gain from more. The last digits depend on it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device for training. auto: a CUDA device if there is one, else the CPU."""
    sharding: Literal["none", "full", "hybrid"] = "none"
    """Distribution of weights, gradients, moments and averages over processes. none: each process holds everything.
    full: each process holds its share (FSDP2). hybrid: each process holds its share of one full copy per machine."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ("tensorboard",)
    """Programs that get losses, bounds and grids of samples. Nothing leaves the run's folder without their own
    environment variables, such as WANDB_MODE=online or MLFLOW_TRACKING_URI. A tracker that fails stops no training."""
    augment: AugmentOptions = AugmentOptions()
    """Random changes of the training examples."""
    replans: Annotated[tuple[tuple[NonNegativeInt, PositiveInt], ...], tyro.conf.Suppress] = ()
    """Changes of `steps` that kept the training within `minutes`: (step, steps planned until that step)."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.minutes is not None:
            if self.steps != type(self).model_fields["steps"].default:
                raise ValueError(f"minutes {self.minutes:g} and steps {self.steps}: each sets the length; give one")
            if self.schedule == "staircase":
                raise ValueError("minutes with schedule staircase: its milestones are steps; give steps, or cosine")
        return self
