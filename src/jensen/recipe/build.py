"""From a recipe to data and model."""

from collections.abc import Callable

import torch

from jensen.data import Dataset, DataSpec, PreparationName, load_data
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel
from jensen.randomness import Stream, derived_seed
from jensen.recipe.diffusion import build_diffusion
from jensen.recipe.settings import Recipe, VAERecipe
from jensen.recipe.vae import build_vae


def load_dataset(recipe: Recipe) -> Dataset:
    """The recipe's data, prepared for its likelihood."""
    return load_data(recipe.data, recipe.read, preparation_for(recipe))


def preparation_for(recipe: Recipe) -> Callable[[int | None], PreparationName]:
    """How the model wants its x, given the data's number of levels (None: floats); see `jensen.data.preparation`."""
    likelihood = recipe.model.likelihood if isinstance(recipe, VAERecipe) else "auto"

    def choose(levels: int | None) -> PreparationName:
        if isinstance(recipe, VAERecipe) and likelihood == "bernoulli":
            return recipe.model.binarisation
        if likelihood == "gaussian":
            return "standardise" if levels is None else "dequantise"
        if levels is not None:
            return "levels"
        if likelihood != "auto":
            raise InputError(
                f"likelihood {likelihood} is for integers and the data are floats; choose likelihood gaussian"
            )
        return "standardise"

    return choose


def build_model(recipe: Recipe, spec: DataSpec) -> AbstractLatentVariableModel:
    """The recipe's model for data like `spec`, on the CPU, initialised from the recipe's seed alone."""
    with torch.random.fork_rng(devices=[]):  # layers initialise themselves from torch's global generator
        torch.manual_seed(derived_seed(recipe.seed, Stream.INITIALISATION))
        if isinstance(recipe, VAERecipe):
            return build_vae(recipe.model, spec)
        return build_diffusion(recipe.model, spec)
