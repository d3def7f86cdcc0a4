"""Build the data and the model of a recipe."""

import warnings

import torch

from jensen.data.examples import Dataset
from jensen.data.load import load_data
from jensen.data.spec import DataSpec
from jensen.errors import within_memory
from jensen.model import AbstractLatentVariableModel
from jensen.randomness import Stream, derived_seed
from jensen.recipe.families import family_of
from jensen.recipe.idle import refuse_idle_settings
from jensen.recipe.settings import AbstractRecipe


def load_dataset(recipe: AbstractRecipe) -> Dataset:
    """The recipe's data, with the preparation that the recipe's likelihood needs.

    Warns of doubtful data, and of parts of the data that the model ignores. Raises `InputError` for settings that have
    no effect.
    """
    family = family_of(recipe)
    dataset = load_data(recipe.source, recipe.read, lambda levels: family.preparation(recipe, levels))
    refuse_idle_settings(recipe, family.tables(recipe, dataset.spec), dataset.spec)
    for doubt in dataset.spec.doubts:
        warnings.warn(f"{recipe.data}: {doubt}", stacklevel=2)
    family.check_data(recipe, dataset.spec)
    return dataset


def build_model(recipe: AbstractRecipe, spec: DataSpec) -> AbstractLatentVariableModel:
    """The recipe's model for data like `spec`, on the CPU.

    The initial weights depend only on the recipe's seed. Raises `InputError` if the model does not fit into memory.
    """
    sizes = f" for a {recipe.family} of the recipe's sizes and examples of shape {spec.shape}"
    with (
        within_memory("choose smaller sizes, or smaller examples", sizes),
        torch.random.fork_rng(devices=[]),  # layers draw their initial weights from torch's global generator
    ):
        torch.manual_seed(derived_seed(recipe.seed, Stream.INITIALISATION))
        model: AbstractLatentVariableModel = family_of(recipe).build(recipe, spec)
        return model
