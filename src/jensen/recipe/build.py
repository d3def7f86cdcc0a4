"""From a recipe to data and model."""

import warnings
from collections.abc import Callable

import torch

from jensen.data.examples import Dataset
from jensen.data.load import load_data
from jensen.data.options import PreparationName
from jensen.data.spec import DataSpec
from jensen.errors import InputError, within_memory
from jensen.model import AbstractLatentVariableModel
from jensen.randomness import Stream, derived_seed
from jensen.recipe.diffusion import build_diffusion
from jensen.recipe.settings import DiffusionRecipe, Recipe, VAERecipe, VAESettings
from jensen.recipe.vae import build_vae

PREDICT_HIDDEN = VAESettings().predict_hidden


def load_dataset(recipe: Recipe) -> Dataset:
    """The recipe's data, prepared for its likelihood.

    Warns of what is doubtful in the data, and of targets that a diffusion model does not learn. Raises `InputError` for
    settings of a target that is not asked for.
    """
    model = recipe.model
    if isinstance(model, VAESettings) and model.predict == "none" and model.predict_hidden != PREDICT_HIDDEN:
        raise InputError(
            f"predict_hidden {' '.join(map(str, model.predict_hidden))} without predict: there is nothing to predict; "
            "give --predict label or target, or leave it out"
        )
    dataset = load_data(recipe.data, recipe.read, preparation_for(recipe))
    for doubt in dataset.spec.doubts:
        warnings.warn(f"{recipe.data}: {doubt}", stacklevel=2)
    if dataset.spec.targets and isinstance(recipe, DiffusionRecipe):
        warnings.warn(
            f"{recipe.data} has continuous targets, which a diffusion model does not learn: this is p(x) alone; "
            "to predict them: jensen train vae --predict target",
            stacklevel=2,
        )
    return dataset


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
    """The recipe's model for data like `spec`, on the CPU, initialised from the recipe's seed alone.

    Raises `InputError` where memory does not hold it.
    """
    sizes = f" for a {recipe.family} of the recipe's sizes and examples of shape {spec.shape}"
    with (
        within_memory("choose smaller sizes, or smaller examples", sizes),
        torch.random.fork_rng(devices=[]),  # layers initialise themselves from torch's global generator
    ):
        torch.manual_seed(derived_seed(recipe.seed, Stream.INITIALISATION))
        if isinstance(recipe, VAERecipe):
            return build_vae(recipe.model, spec)
        return build_diffusion(recipe.model, spec)
