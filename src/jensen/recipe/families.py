"""The families of models: one table. Importing this module imports no torch.

A family is a folder `jensen.recipe.<name>`. In the folder, `settings` holds the recipe, and `family` holds an
`AbstractFamily` called `FAMILY`, which builds the model and answers the commands' questions about the family.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from jensen.errors import InputError
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.recipe.latent.settings import LatentRecipe
from jensen.recipe.settings import AbstractRecipe, explain
from jensen.recipe.vae.settings import VAERecipe

if TYPE_CHECKING:
    from jensen.recipe.family import AbstractFamily

Recipe = VAERecipe | DiffusionRecipe | LatentRecipe

RECIPES: dict[str, type[AbstractRecipe]] = {kind.model_fields["family"].default: kind for kind in get_args(Recipe)}
"""The recipe of each family, by the family's name."""

_ANY: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="family")])


def family_of(recipe: AbstractRecipe) -> "AbstractFamily[Any, Any]":
    """The family that a recipe belongs to."""
    family: AbstractFamily[Any, Any] = import_module(f"jensen.recipe.{recipe.family}.family").FAMILY
    return family


def read_recipe(values: Mapping[str, Any], source: str) -> Recipe:
    """The recipe of the family that `values` name. `InputError` names `source` and the first wrong field."""
    try:
        return _ANY.validate_python(values)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error)}") from error
