"""A recipe: a typed, validated configuration that becomes (model, data, training).

The only chapter that knows networks and models both, and where strings become objects. Reading, checking and printing a
recipe imports no torch; building from one does.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from jensen.data.options import PreparationName, ReadOptions
from jensen.errors import InputError
from jensen.training.settings import TrainingSettings

if TYPE_CHECKING:
    from torch import nn

    from jensen.data import Dataset, DataSpec
    from jensen.likelihood import AbstractLikelihood, AbstractScale
    from jensen.model import AbstractLatentVariableModel
    from jensen.vae import AbstractObjective, AbstractPosterior

Likelihood = Literal["auto", "gaussian", "bernoulli", "discretised-gaussian", "discretised-logistic", "categorical"]


class VAESettings(BaseModel):
    """The variational autoencoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent_dims: PositiveInt = 16
    """Dimensions of z."""
    network: Literal["mlp", "convolutional"] = "mlp"
    """Encoder and decoder; convolutional is for images."""
    hidden: tuple[PositiveInt, ...] = (200, 200)
    """Widths of the MLP's hidden layers, data side first; the decoder mirrors them. Empty: linear."""
    activation: Literal["tanh", "relu", "gelu", "silu"] = "tanh"
    """The MLP's activation."""
    channels: tuple[PositiveInt, ...] = (32, 64)
    """Channels of the convolutional layers; each halves the image."""
    likelihood: Likelihood = "auto"
    """p(x|z). auto: discretised-logistic for integer data, gaussian for floats. bernoulli binarises the data."""
    binarisation: Literal["threshold", "static", "dynamic"] = "dynamic"
    """Which binary data set a bernoulli likelihood sees: three different ones."""
    variance: Literal["learned", "per-dimension", "shared", "fixed"] = "learned"
    """The scale of p(x|z): a function of z, free per dimension, one free number, or `fixed_scale`."""
    fixed_scale: float = Field(1.0, gt=0)
    """The standard deviation where variance is fixed."""
    posterior: Literal["amortised", "per-datapoint"] = "amortised"
    """q(z): an encoder, or free parameters for every training example."""
    objective: Literal["elbo", "importance-weighted", "doubly-reparameterised"] = "elbo"
    """What is trained on: the ELBO, or L_K with the plain or the doubly reparameterised gradient."""
    importance_samples: PositiveInt = 5
    """K of L_K in training."""
    kl_warmup_steps: NonNegativeInt = 0
    """Steps over which the KL's weight rises from 0 to 1 (elbo objective only)."""
    free_bits: float = Field(0.0, ge=0)
    """Nats per latent dimension below which the KL is not pushed (elbo objective only)."""
    fit_steps: PositiveInt = 300
    """Steps of optimising q for new data, theta fixed (per-datapoint posterior, amortisation gap)."""

    @model_validator(mode="after")
    def _consistent(self) -> "VAESettings":
        if self.objective != "elbo" and (self.kl_warmup_steps or self.free_bits):
            raise ValueError("kl_warmup_steps and free_bits belong to objective elbo; leave them at 0")
        return self


class Recipe(BaseModel):
    """What to read, what to build, how to train: everything a run depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Annotated[Literal["vae"], tyro.conf.Suppress] = "vae"
    """The family of models."""
    data: str = "digits"
    """`digits`, a folder of IDX files or of images, or an .npy / .npz file."""
    seed: NonNegativeInt = 0
    """The seed of everything random."""
    read: ReadOptions = ReadOptions()
    """How the data are read."""
    model: VAESettings = VAESettings()
    """The model."""
    training: TrainingSettings = TrainingSettings()
    """The training loop."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> "Recipe":
        """A recipe from plain values; `InputError` names the first field that is wrong, and `source`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{source}: {explain(error)}") from error

    @classmethod
    def from_toml(cls, path: Path) -> "Recipe":
        """A recipe from a TOML file: top-level fields, then tables [read], [model] and [training]."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"config {path} cannot be read ({error.strerror}); give a TOML file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"config {path} is not TOML ({error}); mend it there") from error
        return cls.from_dict(values, f"config {path}")


def explain(error: ValidationError) -> str:
    """The first thing a validation found, in one line: field, what was given, what was expected."""
    first, count = error.errors()[0], error.error_count()
    field = ".".join(str(part) for part in first["loc"]) or "recipe"
    more = f" (and {count - 1} more)" if count > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown field {field}; see `jensen train vae --help` for the fields there are{more}"
    given = "" if isinstance(first["input"], dict | BaseModel) else f" = {first['input']!r}"
    return f"{field}{given}: {first['msg'].removeprefix('Value error, ')}{more}"


# ---------------------------------------------------------------------------------------------- build


def load_dataset(recipe: Recipe) -> "Dataset":
    """The recipe's data, prepared for its likelihood."""
    from jensen.data import load_data

    return load_data(recipe.data, recipe.read, _preparation(recipe.model))


def _preparation(settings: VAESettings) -> Callable[[int | None], PreparationName]:
    """How a likelihood wants its x, given the data's number of levels (None: floats); see `jensen.data.preparation`."""

    def choose(levels: int | None) -> PreparationName:
        if settings.likelihood == "bernoulli":
            return settings.binarisation
        if settings.likelihood == "gaussian":
            return "standardise" if levels is None else "dequantise"
        if settings.likelihood == "auto" and levels is None:
            return "standardise"
        return "levels"

    return choose


def build_model(recipe: Recipe, spec: "DataSpec") -> "AbstractLatentVariableModel":
    """The recipe's model for data like `spec`, initialised from the recipe's seed alone."""
    import torch

    from jensen.randomness import Stream, derived_seed
    from jensen.vae import VAE

    settings = recipe.model
    with torch.random.fork_rng(devices=[]):  # layers initialise themselves from torch's global generator
        torch.manual_seed(derived_seed(recipe.seed, Stream.INITIALISATION))
        likelihood = _likelihood(settings, spec)
        encoder, decoder = _networks(settings, spec.shape, likelihood.outputs)
        posterior = _posterior(settings, encoder, spec.counts["train"])
        return VAE(posterior, decoder, likelihood, _objective(settings), settings.fit_steps)


def _networks(settings: VAESettings, shape: tuple[int, ...], outputs: int) -> "tuple[nn.Module, nn.Module]":
    from jensen.nets import MLP, ConvolutionalDecoder, ConvolutionalEncoder

    latent = settings.latent_dims
    if settings.network == "mlp":
        return (
            MLP(shape, settings.hidden, (2 * latent,), settings.activation),
            MLP((latent,), settings.hidden[::-1], (outputs, *shape), settings.activation),
        )
    if len(shape) != 3:
        raise InputError(f"network convolutional for examples of shape {shape}: expected images (C, H, W); choose mlp")
    return (
        ConvolutionalEncoder(shape, settings.channels, 2 * latent),
        ConvolutionalDecoder(latent, shape, settings.channels, outputs),
    )


def _posterior(settings: VAESettings, encoder: "nn.Module", examples: int) -> "AbstractPosterior":
    from jensen.vae import AmortisedPosterior, PerDatapointPosterior

    if settings.posterior == "per-datapoint":
        return PerDatapointPosterior(examples, settings.latent_dims)
    return AmortisedPosterior(encoder, settings.latent_dims)


def _objective(settings: VAESettings) -> "AbstractObjective":
    from jensen.vae import DoublyReparameterisedObjective, ElboObjective, ImportanceWeightedObjective

    if settings.objective == "elbo":
        return ElboObjective(settings.kl_warmup_steps, settings.free_bits)
    if settings.objective == "importance-weighted":
        return ImportanceWeightedObjective(settings.importance_samples)
    return DoublyReparameterisedObjective(settings.importance_samples)


def _likelihood(settings: VAESettings, spec: "DataSpec") -> "AbstractLikelihood":
    from jensen import likelihood as chapter

    name = settings.likelihood
    if name == "auto":
        name = "gaussian" if spec.levels is None else "discretised-logistic"
    if name == "bernoulli":
        return chapter.BernoulliLikelihood(spec.shape)
    if name == "gaussian":
        return chapter.GaussianLikelihood(spec.shape, _scale(settings, spec))
    assert spec.levels is not None  # the "levels" preparation has refused anything else
    if name == "categorical":
        return chapter.CategoricalLikelihood(spec.shape, spec.levels)
    law = chapter.DiscretisedGaussian if name == "discretised-gaussian" else chapter.DiscretisedLogistic
    return chapter.DiscretisedLikelihood(spec.shape, _scale(settings, spec), spec.levels, law)


def _scale(settings: VAESettings, spec: "DataSpec") -> "AbstractScale":
    from jensen.likelihood import FixedScale, FreeScale, LearnedScale

    if settings.variance == "fixed":
        return FixedScale(settings.fixed_scale)
    floor = spec.preparation.resolution / 12**0.5  # the standard deviation of uniform noise in one bin
    if settings.variance == "learned":
        return LearnedScale(floor)
    return FreeScale(spec.shape if settings.variance == "per-dimension" else (), floor)
