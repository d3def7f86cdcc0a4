"""The fields of a VAE's recipe. Imports no torch."""

from typing import Annotated, Literal, Self

import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from jensen.recipe.settings import AbstractRecipe, Size

Likelihood = Literal["auto", "gaussian", "bernoulli", "discretised-gaussian", "discretised-logistic", "categorical"]


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
