"""The fields of a recipe: typed, validated, explained in one line when wrong. Imports no torch."""

import tomllib
from abc import ABC
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tyro
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.training.settings import TrainingSettings

Likelihood = Literal["auto", "gaussian", "bernoulli", "discretised-gaussian", "discretised-logistic", "categorical"]
Sampler = Literal["ancestral", "ddim", "heun", "dpm-solver++", "dpm-solver++-sde", "unipc"]


LONGEST = 300  # letters of what was given that are repeated
MOST = 1 << 24
Size = Annotated[int, Field(gt=0, le=MOST)]
"""What is counted in a model: no product of two overflows."""


class VAESettings(BaseModel):
    """The variational autoencoder."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    latent_dims: Size = 16
    """Dimensions of z."""
    network: Literal["mlp", "convolutional"] = "mlp"
    """Encoder and decoder; convolutional is for images."""
    hidden: tuple[Size, ...] = (200, 200)
    """Widths of the MLP's hidden layers, data side first; the decoder mirrors them. Empty: linear."""
    activation: Literal["tanh", "relu", "gelu", "silu"] = "tanh"
    """The MLP's activation."""
    channels: tuple[Size, ...] = (32, 64)
    """Channels of the convolutional layers; each halves the image."""
    likelihood: Likelihood = "auto"
    """p(x|z). auto: discretised-logistic for integer data, gaussian for floats. bernoulli binarises the data."""
    binarisation: Literal["threshold", "static", "dynamic"] = "dynamic"
    """Which binary data set a bernoulli likelihood sees: three different ones."""
    variance: Literal["learned", "per-dimension", "shared", "fixed"] = "learned"
    """The scale of p(x|z): a function of z, free per dimension, one free number, or `fixed_scale`. Of targets: a
    function of z where it is learned, else free per dimension."""
    fixed_scale: float = Field(1.0, gt=0)
    """The standard deviation where variance is fixed."""
    posterior: Literal["amortised", "per-datapoint"] = "amortised"
    """q(z): an encoder, or free parameters for every training example."""
    objective: Literal["elbo", "importance-weighted", "doubly-reparameterised"] = "elbo"
    """What is trained on: the ELBO, or L_K with the plain or the doubly reparameterised gradient."""
    importance_samples: Size = 5
    """K of L_K in training."""
    kl_warmup_steps: NonNegativeInt = 0
    """Steps over which the KL's weight rises from 0 to 1 (elbo objective only)."""
    free_bits: float = Field(0.0, ge=0)
    """Nats per latent dimension below which the KL is not pushed (elbo objective only)."""
    fit_steps: Size = 300
    """Steps of optimising q for new data, theta fixed (per-datapoint posterior, amortisation gap)."""
    predict: Literal["none", "label", "target"] = "none"
    """What else z explains: labels, or targets (a y of floats). It is then a joint model p(x, y), which gives
    p(y|x)."""
    predict_hidden: tuple[Size, ...] = (64,)
    """Widths of the hidden layers from z to the labels or targets. Empty: linear."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.objective != "elbo" and (self.kl_warmup_steps or self.free_bits):
            raise ValueError("kl_warmup_steps and free_bits belong to objective elbo; leave them at 0")
        return self


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


class AbstractRecipe(BaseModel, ABC):
    """What to read, what to build, how to train: everything a run depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "digits"
    """`digits`, a folder of IDX files or of images, or an .npy / .npz file."""
    seed: NonNegativeInt = 0
    """The seed of everything random."""
    read: ReadOptions = ReadOptions()
    """How the data are read."""
    training: TrainingSettings = TrainingSettings()
    """The training loop."""

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """A recipe of this family from a TOML file: top-level fields, then tables [read], [model] and [training]."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"config {path} cannot be read ({error.strerror}); give a TOML file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"config {path} is not TOML ({error}); mend it there") from error
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            family = cls.model_fields["family"].default
            raise InputError(f"config {path}: {explain(error)}; see jensen train {family} --help") from error


class VAERecipe(AbstractRecipe):
    """A variational autoencoder, its data and its training."""

    family: Annotated[Literal["vae"], tyro.conf.Suppress] = "vae"
    model: VAESettings = VAESettings()
    """The model."""

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.model.free_bits and self.training.micro_batch_size:
            raise ValueError("free_bits is about the mean of a whole batch; leave training.micro_batch_size out")
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


Recipe = VAERecipe | DiffusionRecipe
_RECIPES: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="family")])


def read_recipe(values: Mapping[str, Any], source: str) -> Recipe:
    """The recipe of whichever family `values` name; `InputError` names the first field that is wrong, and `source`."""
    try:
        return _RECIPES.validate_python(values)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """The first thing a validation found, in one line: field, what was given, what was expected."""
    first, count = error.errors()[0], error.error_count()
    field = ".".join(str(part) for part in first["loc"]) or "recipe"
    more = f" (and {count - 1} more)" if count > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown field {_short(field)}; mend its name or leave it out{more}"
    given = "" if isinstance(first["input"], dict | BaseModel) else f" = {_short(repr(first['input']))}"
    return f"{_short(field)}{given}: {_short(first['msg'].removeprefix('Value error, '))}{more}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
