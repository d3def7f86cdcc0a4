"""The fields of a diffusion model's recipe. Imports no torch."""

from typing import Annotated, Literal, Self

import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from jensen.recipe.diffusion.imported import Imported
from jensen.recipe.diffusion.samplers import Sampler
from jensen.recipe.settings import MOST, AbstractRecipe, Size
from jensen.training.settings import TrainingSettings


class DiffusionSettings(BaseModel):
    """The diffusion model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: Literal["auto", "unet", "transformer", "mlp"] = "auto"
    """Denoising network. unet, transformer: images and signals; mlp: vectors. auto: mlp for vectors, else unet."""
    widths: tuple[Size, ...] | None = Field(default=None, min_length=1)
    """Channels of the U-Net's levels, finest level first; each level halves the resolution. None: by the data."""
    blocks: int = Field(default=1, ge=1, le=1000)
    """Number of residual blocks per level of the U-Net."""
    attention: tuple[NonNegativeInt, ...] = ()
    """Levels of the U-Net with attention; level 0 is the finest."""
    octaves: int | None = Field(default=None, ge=0, le=16)
    """Octaves of Fourier features of x as extra input of the U-Net. None: by the number of levels, 8 for 8-bit data;
    0 for patches of more than 16 values, and for examples of more than 3 x 64 x 64 values."""
    patch: Size | None = None
    """Patch side in pixels (U-Net: folded into channels; transformer: one token). None: by the data's size."""
    width: Size = 128
    """Width of the transformer or MLP."""
    depth: int = Field(default=4, ge=1, le=1000)
    """Number of blocks of the transformer or MLP."""
    noise_schedule: Literal["linear-beta", "cosine", "sigmoid", "linear-log-snr", "learned"] = "linear-log-snr"
    """Noise level as a function of time. linear-beta is DDPM's schedule; learned needs objective bound."""
    log_snr_range: tuple[float, float] | None = None
    """log-SNR at the lowest and highest noise (linear-log-snr, learned). None: by the number of levels, and -10."""
    chain_steps: int = Field(default=1000, ge=2, le=MOST)
    """T, the number of steps of the chain whose ELBO is the bound."""
    parameterisation: Literal["epsilon", "clean", "velocity", "edm"] = "edm"
    """Output of the network: the noise, the data, their mixture v, or EDM's preconditioned output."""
    sigma_data: float | None = Field(default=None, gt=0)
    """Standard deviation of the prepared data (edm only). None: 1 for standardised data, else 0.5."""
    skip: float | None = Field(default=None, gt=0)
    """Noise level sigma above which the network predicts the data, and below which the noise (edm only). None:
    sigma_data, which is EDM, or a fifth of it for patches of more than 16 values."""
    objective: Literal["simple", "bound", "hybrid", "min-snr", "p2", "edm"] = "edm"
    """Training objective: L_simple (5.17), the bound (5.11), both, or another weighting of the bound's terms."""
    noise_mean: float | None = Field(default=None, ge=-10, le=10)
    """Mean of the logarithm of the noise's standard deviation in training (edm objective only). None: by the data's
    size, -1.2 up to 32 x 32 pixels."""
    noise_deviation: float = Field(default=1.2, gt=0, le=10)
    """Standard deviation of the logarithm of the noise's standard deviation (edm objective only)."""
    times: Literal["uniform", "low-discrepancy", "loss-aware"] = "low-discrepancy"
    """Times of a batch: independent, evenly spread (low-discrepancy), or denser at large losses (loss-aware)."""
    variance: Literal["beta", "posterior", "analytic", "learned"] = "analytic"
    """Variance of the reverse step (5.12). learned needs objective hybrid or bound."""
    conditional: bool = True
    """Learn p(x|label) in addition to p(x), if the data have labels. --no-conditional: learn only p(x)."""
    label_dropout: float = Field(default=0.1, gt=0, lt=1)
    """Share of labels hidden in training, so that p(x) is learned too; evaluation and guidance need p(x)."""
    bound_terms: Size | None = 32
    """Number of terms of the sum over the chain that an estimate of the bound draws. None: all terms."""
    sampler: Sampler = "dpm-solver++-sde"
    """Sampler by which samples are drawn."""
    sampling_steps: Size = 50
    """Number of steps of the sampler."""
    last_step: Literal["mean", "draw"] = "mean"
    """Last step of the ancestral sampler: the mean of p(x_0|x_1), as in DDPM, or a draw from p(x_0|x_1)."""
    guidance: float = 0.0
    """Scale of classifier-free guidance. 0: no guidance."""
    imported: Annotated[Imported | None, tyro.conf.Suppress, tyro.conf.Fixed] = Field(
        default=None, exclude_if=lambda value: value is None, repr=False
    )
    """The network and chain of another program, by `jensen import`; None: those of the fields above."""

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
    """Maximum number of optimisation steps; early stopping may end training sooner."""
    batch_size: int = Field(default=32, ge=1, le=1 << 24)
    """Examples per step."""
    optimiser: Literal["adamw", "muon"] = "muon"
    """adamw for all weights, or muon: orthogonalised steps for the matrices of hidden layers, AdamW for the rest."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak learning rate."""
    warmup_steps: int = Field(default=100, ge=0)
    """Number of initial steps in which the learning rate rises linearly to its peak."""
    ema_decay: float | None = Field(default=0.999, gt=0, lt=1)
    """Decay of the moving average of the weights, which validation, sampling and evaluation use. None: no average."""
    validate_every: PositiveInt = 2000
    """Steps between two validation bounds."""
    validation_examples: PositiveInt = 300
    """Maximum number of validation examples for the bound."""


class DiffusionRecipe(AbstractRecipe):
    """A diffusion model, its data and its training."""

    family: Annotated[Literal["diffusion"], tyro.conf.Suppress] = "diffusion"
    model: tyro.conf.OmitArgPrefixes[DiffusionSettings] = DiffusionSettings()
    """The model."""
    training: tyro.conf.OmitArgPrefixes[DiffusionTraining] = DiffusionTraining()
    """The training loop."""

    @property
    def beginning(self) -> str | None:
        return super().beginning or (self.model.imported.sentence if self.model.imported else None)
