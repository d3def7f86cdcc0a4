"""A VAE with a diffusion prior from its settings."""

import math

import torch

from jensen.data.preparation import Standardise
from jensen.data.spec import DataSpec
from jensen.latent import DiffusionPrior, StagedObjective
from jensen.nets.convolution import Levels
from jensen.recipe.diffusion.build import build_diffusion
from jensen.recipe.latent.settings import LatentRecipe
from jensen.recipe.vae.build import build_vae, completed, vae_objective
from jensen.recipe.vae.idle import network_by_data
from jensen.recipe.vae.settings import VAESettings
from jensen.vae import VAE

CHANNELS = 4  # default number of channels of a spatial z


def build_latent(recipe: LatentRecipe, spec: DataSpec, augmentations: int = 0) -> VAE:
    """The model for data like `spec`; layers draw initial weights from torch's global generator.

    The network of the prior gets the augmentation of x, a vector of `augmentations` numbers.
    """
    settings = recipe.model
    of_vae = completed_vae(settings.vae, spec)
    vae = build_vae(of_vae, spec)
    prior = DiffusionPrior(build_diffusion(settings.prior, latent_spec(of_vae, spec), augmentations))
    first = vae_objective(of_vae, settings.kl_weight, of_parts=spec.table is not None)
    return vae.with_prior(prior, StagedObjective(recipe.vae_steps, settings.prior_steps, first))


def completed_vae(settings: VAESettings, spec: DataSpec) -> VAESettings:
    """The settings with every None replaced by a value that suits the data."""
    return completed(with_spatial_z(settings, spec), spec)


def with_spatial_z(settings: VAESettings, spec: DataSpec) -> VAESettings:
    """The settings, with a spatial z for a convolutional VAE whose size of z is not given."""
    unsaid = settings.latent_dims is None and settings.latent_channels is None
    if unsaid and network_by_data(settings, spec) == "convolutional":
        return settings.model_copy(update={"latent_channels": CHANNELS})
    return settings


def latent_spec(settings: VAESettings, spec: DataSpec) -> DataSpec:
    """The specification of the standardised z of the examples, which are floats with the examples' labels."""
    shape = _latent_shape(settings, spec)
    ends = {"minimum": -1.0, "maximum": 1.0}
    moments = {"shift": (0.0,) * shape[0], "scale": (1.0,) * shape[0]}
    resolution = float(torch.finfo(torch.float32).eps)
    preparation = Standardise(dtype="float32", dimensions=math.prod(shape), resolution=resolution, **moments, **ends)
    z = {
        "shape": shape,
        "dtype": "float32",
        "levels": None,
        "missing": 0,
        "targets": None,
        "table": None,
        "preparation": preparation,
    }
    return spec.model_copy(update=z | ends)


def _latent_shape(settings: VAESettings, spec: DataSpec) -> tuple[int, ...]:
    """(latent_dims) of a flat z, (channels, *positions) of a spatial z."""
    if settings.latent_channels is None:
        assert settings.latent_dims is not None
        return (settings.latent_dims,)
    assert settings.channels is not None
    assert settings.patch is not None
    levels = Levels(spec.shape, settings.channels, settings.blocks, settings.patch)
    return settings.latent_channels, *levels.coarsest
