"""The fields of a diffusion model's recipe. Imports no torch."""

from typing import Annotated, Literal, Self

import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from jensen.recipe.diffusion.samplers import Sampler
from jensen.recipe.settings import MOST, AbstractRecipe, Size
from jensen.training.settings import TrainingSettings


class DiffusionSettings(BaseModel):
    """The diffusion model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: Literal["auto", "unet", "transformer", "mlp"] = "auto"
    """What removes the noise: unet and transformer are for images and signals, mlp for vectors. auto: unet or mlp."""
    widths: tuple[Size, ...] = Field((64, 64), min_length=1)
    """Channels of the U-Net's levels, the finest first; each level halves the resolution."""
    blocks: int = Field(1, ge=1, le=1000)
    """Residual blocks per level of the U-Net."""
    attention: tuple[NonNegativeInt, ...] = ()
    """The U-Net's levels with attention, 0 being the finest."""
    octaves: int | None = Field(None, ge=0, le=16)
    """Sines and cosines of x that show the U-Net neighbouring grey levels. None: by the levels, 8 of bytes."""
    patch: Size | None = None
    """Pixels a side that are folded into channels first (U-Net), or that make a token (transformer). None: by size."""
    width: Size = 128
    """Width of the transformer or MLP."""
    depth: int = Field(4, ge=1, le=1000)
    """Blocks of the transformer or MLP."""
    noise_schedule: Literal["linear-beta", "cosine", "sigmoid", "linear-log-snr", "learned"] = "linear-log-snr"
    """How the noise grows with time. linear-beta is DDPM's; learned needs objective bound."""
    log_snr_range: tuple[float, float] | None = None
    """log-SNR at the least and the most noise (linear-log-snr, learned). None: by the levels of the data, and -10."""
    chain_steps: int = Field(1000, ge=2, le=MOST)
    """T, the steps of the chain that the bound is about."""
    parameterisation: Literal["epsilon", "clean", "velocity", "edm"] = "edm"
    """What the network gives: the noise, the data, their mixture v, or EDM's preconditioned output."""
    sigma_data: float | None = Field(None, gt=0)
    """Standard deviation of the prepared data, for edm. None: 1 of standardised data, else 0.5."""
    objective: Literal["simple", "bound", "hybrid", "min-snr", "p2", "edm"] = "edm"
    """What is trained on: L_simple (5.17), the bound (5.11), both, or another weighting of its terms."""
    noise_mean: float = Field(-1.2, ge=-10, le=10)
    """Mean of the log of the noise's standard deviation (edm objective only)."""
    noise_deviation: float = Field(1.2, gt=0, le=10)
    """Standard deviation of the same."""
    times: Literal["uniform", "low-discrepancy", "loss-aware"] = "low-discrepancy"
    """How the noise levels of a training batch are drawn."""
    variance: Literal["beta", "posterior", "analytic", "learned"] = "analytic"
    """The variance of the reverse step (5.12). learned needs objective hybrid or bound."""
    conditional: bool = True
    """Learn p(x|label) beside p(x), where the data have labels."""
    label_dropout: float = Field(0.1, gt=0, lt=1)
    """How often training hides the label, so that p(x) is learned too, which evaluation and guidance need."""
    bound_terms: Size | None = 32
    """Terms that stand for the sum over the chain when the bound is estimated; None: all of them."""
    sampler: Sampler = "dpm-solver++"
    """How samples are made."""
    sampling_steps: Size = 50
    """Steps of the sampler."""
    last_step: Literal["mean", "draw"] = "mean"
    """The last step of the ancestral sampler: the mean of p(x_0|x_1), as in DDPM, or a draw from it."""
    guidance: float = 0.0
    """Scale of classifier-free guidance; 0: none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.noise_schedule == "learned" and self.objective != "bound":
            raise ValueError(f"noise_schedule learned with objective {self.objective}: only objective bound trains it")
        if self.variance == "learned" and self.objective not in ("bound", "hybrid"):
            raise ValueError(f"variance learned with objective {self.objective}: choose objective hybrid or bound")
        if self.objective == "hybrid" and self.variance != "learned":
            raise ValueError(f"objective hybrid with variance {self.variance}: choose variance learned")
        if self.last_step == "draw" and self.sampler != "ancestral":
            raise ValueError(f"last_step draw with sampler {self.sampler}: choose sampler ancestral, or last_step mean")
        return self


class DiffusionTraining(TrainingSettings):
    """The training loop, with the defaults that suit a diffusion model (docs/nets.md says why)."""

    steps: PositiveInt = 10_000
    """Optimisation steps, at most; early stopping may end sooner."""
    batch_size: int = Field(32, ge=1, le=1 << 24)
    """Examples per step."""
    optimiser: Literal["adamw", "muon"] = "muon"
    """muon: orthogonalised steps for the weights of hidden layers, AdamW for the rest."""
    learning_rate: float = Field(4e-3, gt=0)
    """Peak learning rate."""
    warmup_steps: int = Field(100, ge=0)
    """Steps over which the learning rate rises linearly from zero."""
    ema_decay: float | None = Field(0.999, gt=0, lt=1)
    """Decay of the moving average of the weights, which is then what validation, sampling and evaluation use."""
    validate_every: PositiveInt = 2000
    """Steps between two validation bounds."""
    validation_examples: PositiveInt = 300
    """Validation examples that the bound is averaged over, at most."""


class DiffusionRecipe(AbstractRecipe):
    """A diffusion model, its data and its training."""

    family: Annotated[Literal["diffusion"], tyro.conf.Suppress] = "diffusion"
    model: DiffusionSettings = DiffusionSettings()
    """The model."""
    training: DiffusionTraining = DiffusionTraining()
    """The training loop."""
