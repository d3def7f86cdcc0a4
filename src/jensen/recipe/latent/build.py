"""A VAE with a diffusion prior from its settings."""

from jensen.data.preparation import Standardise
from jensen.data.spec import DataSpec
from jensen.latent import DiffusionPrior, StagedObjective
from jensen.recipe.diffusion.build import build_diffusion
from jensen.recipe.latent.settings import LatentRecipe
from jensen.recipe.vae.build import build_vae, vae_objective
from jensen.vae import VAE


def build_latent(recipe: LatentRecipe, spec: DataSpec) -> VAE:
    """The model for data like `spec`; layers draw initial weights from torch's global generator."""
    settings = recipe.model
    vae = build_vae(settings.vae, spec)
    prior = DiffusionPrior(build_diffusion(settings.prior, latent_spec(spec, (vae.latent_dims,))))
    first = vae_objective(settings.vae, settings.kl_weight)
    return vae.with_prior(prior, StagedObjective(recipe.vae_steps, settings.prior_steps, first))


def latent_spec(spec: DataSpec, shape: tuple[int, ...]) -> DataSpec:
    """The specification of the standardised z of the examples: complete floats of the given shape, same labels."""
    ranges = {"minimum": -1.0, "maximum": 1.0}
    channels = shape[0]
    numbers = 1
    for size in shape:
        numbers *= size
    preparation = Standardise(
        dtype="float32",
        dimensions=numbers,
        resolution=1e-6,
        shift=(0.0,) * channels,
        scale=(1.0,) * channels,
        **ranges,
    )
    z = {"shape": shape, "dtype": "float32", "levels": None, "missing": 0, "targets": None, "preparation": preparation}
    return spec.model_copy(update=z | ranges)
