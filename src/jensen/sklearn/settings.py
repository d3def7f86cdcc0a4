"""The recipe of an estimator's training, from the estimator's parameters. Imports no torch."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from jensen.errors import InputError
from jensen.recipe.families import RECIPES, read_recipe
from jensen.recipe.settings import AbstractRecipe

TABLES = ("training", "model", "read")


def recipe_for(family: str, data: Any, seed: int, settings: Mapping[str, Any]) -> AbstractRecipe:
    """The recipe of `family` for data in memory, with its defaults except for `settings`.

    The names of `settings` are those of the options of `jensen train FAMILY`, with _ instead of -; the parts of a name
    such as `vae.latent_dims` are separated by a dot. Raises `InputError` for an unknown name and for a wrong value.
    """
    kind = RECIPES.get(family)
    if kind is None:
        raise InputError(f"family={family!r}: expected one of {', '.join(RECIPES)}")
    values: dict[str, Any] = {"family": family, "seed": seed, **({} if data is None else {"data": data})}
    for name, value in settings.items():
        *tables, field = _place(kind, name)
        table = values
        for part in tables:
            table = table.setdefault(part, {})
        table[field] = value
    return read_recipe(values, "settings")


def _place(kind: type[AbstractRecipe], name: str) -> tuple[str, ...]:
    """The place of a setting in a recipe, such as ("model", "vae", "latent_dims")."""
    places = {path[1:]: path for table in TABLES for path in _fields(type(kind.model_fields[table].default), (table,))}
    known = {".".join(path): place for path, place in places.items()}
    if name in known:
        return known[name]
    near = get_close_matches(str(name), known, 1)
    advice = f"do you mean {near[0]}?" if near else f"jensen train {kind.model_fields['family'].default} --help has all"
    raise InputError(f"settings: {name!r} is not the name of a setting; {advice}")


def _fields(table: type[BaseModel], above: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The paths of all settings below a table."""
    found = []
    for name, field in table.model_fields.items():
        path = (*above, name)
        inner = type(field.default)
        found += _fields(inner, path) if issubclass(inner, BaseModel) else [path]
    return found
