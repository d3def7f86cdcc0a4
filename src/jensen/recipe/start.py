"""Fine-tuning: a new training that starts from the weights of another run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel
from jensen.recipe.families import family_of
from jensen.recipe.settings import AbstractRecipe, StartFrom, explain


@dataclass(frozen=True)
class Origin:
    """The run whose weights a training starts from."""

    path: Path
    recipe: AbstractRecipe
    spec: DataSpec


def inherited(recipe: AbstractRecipe, origin: Origin) -> AbstractRecipe:
    """Return the recipe with `start_from` set and with the origin's value for every setting that it does not give.

    A setting of the model that the recipe does not give has the origin's value, even if the origin chose that value by
    its data (such as `patch`). If the recipe gives no data, it gets the origin's data and reading options. Raises
    `InputError` if the model cannot start from the origin's family, and for settings that contradict each other.
    """
    there = _settings(recipe, origin)
    if there is None:
        raise InputError(
            f"--from {origin.path} is a run of family {origin.recipe.family}, not {recipe.family}; use it by: "
            f"jensen train {origin.recipe.family} --from {origin.path}"
        )
    model = _merged(there, recipe.model.model_dump(exclude_unset=True))
    path = str(origin.path.resolve())
    known = recipe.start_from if recipe.start_from and recipe.start_from.path == path else StartFrom(path=path)
    values = recipe.model_dump() | {"data": recipe.source, "model": model, "start_from": known.model_dump()}
    if "data" not in recipe.model_fields_set:
        values |= {"data": origin.spec.source, "read": origin.spec.options.model_dump()}
    try:
        return type(recipe).model_validate(values)
    except ValidationError as error:
        raise InputError(f"--from {origin.path}: {explain(error)}") from error


def _settings(recipe: AbstractRecipe, origin: Origin) -> dict[str, Any] | None:
    """The model's settings that the recipe inherits from the origin; None if it cannot start from that family."""
    family = family_of(recipe)
    if recipe.family == origin.recipe.family:
        return family.explicit(origin.recipe, origin.spec).model_dump()
    return family.from_other(origin.recipe, origin.spec)


def _merged(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, replaced by those given; tables within tables are merged field by field."""
    merged = dict(settings)
    for name, value in given.items():
        table = merged.get(name)
        merged[name] = _merged(table, value) if isinstance(table, dict) and isinstance(value, dict) else value
    return merged


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings of all tables by their full names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def start_weights(
    model: AbstractLatentVariableModel,
    recipe: AbstractRecipe,
    spec: DataSpec,
    origin: Origin,
    weights: Mapping[str, Tensor],
) -> None:
    """Load the `weights` of the origin into the model of `recipe` for data like `spec`.

    Weights about classes are matched by the names of the classes. Raises `InputError` for a weight of another shape;
    the message names the weight and the settings that differ.
    """
    family, own = family_of(recipe), model.state_dict()
    found = family.adapted(dict(weights), own, (origin.recipe, recipe), same_classes(origin.spec, spec))
    found |= {name: own[name] for name in own if any(fnmatch(name, pattern) for pattern in family.of_examples)}
    for name in sorted(own.keys() | found.keys()):
        new, old = (f"shape {tuple(of[name].shape)}" if name in of else "no place" for of in (own, found))
        if new != old:
            raise InputError(
                f"--from {origin.path}: the weight {name} has {old} there and {new} here; "
                f"{_difference(recipe, spec, origin)}; make them equal, or train without --from"
            )
    model.load_state_dict({name: found[name] for name in own})


def same_classes(origin: DataSpec, spec: DataSpec) -> tuple[int | None, ...]:
    """For each class of `spec`, the index of the class of `origin` with the same name, or None; () without labels."""
    known = {origin.label_name(label): label for label in range(origin.classes or 0)}
    return tuple(known.get(spec.label_name(label)) for label in range(spec.classes or 0))


def _difference(recipe: AbstractRecipe, spec: DataSpec, origin: Origin) -> str:
    """The settings and facts of the data that differ from those of the origin, in words."""
    here, there = _flat(family_of(recipe).explicit(recipe, spec).model_dump()), _flat(_settings(recipe, origin) or {})
    here["examples of shape"], there["examples of shape"] = spec.shape, origin.spec.shape
    here["levels"], there["levels"] = spec.levels, origin.spec.levels
    differing = [f"{name} is {there[name]} there and {here[name]} here" for name in there if here[name] != there[name]]
    return "; ".join(differing) or "the data differ"


def matched_rows(old: Tensor, classes: Sequence[int | None], fresh: Tensor) -> Tensor:
    """One row per class: a class that is class k of the origin gets row k of `old`, else its row of `fresh`."""
    rows = fresh.clone()
    for place, label in enumerate(classes):
        if label is not None:
            rows[place] = old[label]
    return rows
