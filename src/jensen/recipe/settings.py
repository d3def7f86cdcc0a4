"""The fields of a recipe: typed, validated, explained in one line when wrong. Imports no torch."""

import json
import tomllib
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import tyro
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    NonNegativeInt,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.training.settings import TrainingSettings

if TYPE_CHECKING:
    from jensen.data.readers.memory import Source
else:
    Source = str  # the type of the flag, and of the field once `AbstractRecipe._with_arrays` has taken arrays out

LONGEST = 300  # characters of a user's input that a message repeats
MOST = 1 << 24
Size = Annotated[int, Field(gt=0, le=MOST)]
"""A count in a model, such as a width. The limit keeps the product of two counts from overflowing."""


@dataclass(frozen=True, eq=False)
class _Held:
    """Arrays in memory, equal only to the same object, because == of arrays gives an array."""

    source: "Source"


class StartFrom(BaseModel):
    """The run whose weights a training starts from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """The folder of the run."""
    weights: str | None = None
    """SHA-256 of the run's best weights; None: any weights."""

    @property
    def sentence(self) -> str:
        """The start in words."""
        return f"from {self.path}, weights with SHA-256 {self.weights}"


class AbstractRecipe(BaseModel, ABC):
    """Everything a run depends on: the data, the model and its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: tyro.conf.OmitArgPrefixes[Source] = "digits"
    """`digits`, a folder of images, or IDX, NumPy (.npy, .npz), Parquet or Arrow files."""
    seed: tyro.conf.OmitArgPrefixes[NonNegativeInt] = 0
    """Seed of all random draws in training."""
    read: tyro.conf.OmitArgPrefixes[ReadOptions] = ReadOptions()
    """How to read and split the data."""
    training: tyro.conf.OmitArgPrefixes[TrainingSettings] = TrainingSettings()
    """The training loop."""
    family: str
    """The family of models."""
    model: BaseModel
    """The model."""
    start_from: Annotated[StartFrom | None, tyro.conf.Suppress, tyro.conf.Fixed] = None
    """The run whose weights training starts from; None: random weights."""
    _arrays: "_Held | None" = PrivateAttr(None)

    @model_validator(mode="wrap")
    @classmethod
    def _with_arrays(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep given arrays in a private attribute and set `data` to "memory", because JSON cannot hold arrays."""
        given = values.get("data", "") if isinstance(values, Mapping) else ""
        if isinstance(given, str):
            return validate(values)
        if isinstance(given, Path):
            return validate({**values, "data": str(given)})
        recipe = validate({**values, "data": "memory"})
        recipe._arrays = _Held(given)
        return recipe

    @property
    def beginning(self) -> str | None:
        """Where the weights come from that training starts from, in words; None: random weights."""
        return self.start_from.sentence if self.start_from else None

    def settled(self) -> Self:
        """The recipe as a run records it, with every choice that depends on the number of steps made."""
        return self

    @property
    def source(self) -> "Source":
        """The data: the arrays, if the recipe was made with arrays, else the path in `data`."""
        return self.data if self._arrays is None else self._arrays.source

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """A recipe of this family from a TOML file, or from the recipe.json of a run.

        A TOML file has the fields of the recipe at the top, then the tables [read], [model] and [training].
        """
        family = cls.model_fields["family"].default
        values = _read_config(path)
        if (other := values.get("family", family)) != family and isinstance(other, str):
            raise InputError(f"config {path} is a recipe of family {other}; use it by: jensen train {other}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            said = _place(error, cls) or explain(error)
            raise InputError(f"config {path}: {said}; see jensen train {family} --help") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if not text.lstrip().startswith("{"):
            return tomllib.loads(text)
        values: dict[str, Any] = json.loads(text)
        values.pop("format", None)  # recipe.json has this field, a recipe has not
        return values
    except OSError as error:
        raise InputError(f"config {path} cannot be read ({error.strerror}); give a TOML file") from error
    except (ValueError, RecursionError) as error:  # bad TOML, bad JSON, text that is not UTF-8
        raise InputError(f"config {path} is neither TOML nor JSON ({error}); mend it there") from error


def _place(error: ValidationError, recipe: type[AbstractRecipe]) -> str | None:
    """One line that names the table to which an unknown field belongs; None if the first error is of another kind."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return None
    *table, field = map(str, first["loc"])
    tables = {name: type(recipe.model_fields[name].default) for name in ("read", "model", "training")}
    tables["training.augment"] = type(recipe.model_fields["training"].default.augment)
    homes = [name for name, settings in tables.items() if field in settings.model_fields and name != ".".join(table)]
    if not homes:
        return None
    where = f"in the table [{'.'.join(table)}]" if table else "at the top"
    return f"field {_short(field)} {where} belongs to the table [{homes[0]}]; write it below a line [{homes[0]}]"


def explain(error: ValidationError) -> str:
    """The first error of a validation in one line: the field, the given value, the expected value."""
    first, count = error.errors()[0], error.error_count()
    field = ".".join(str(part) for part in first["loc"])
    more = f" (and {count - 1} more)" if count > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown field {_short(field)}; mend its name or leave it out{more}"
    said = _short(first["msg"].removeprefix("Value error, "))
    if not field:  # two fields contradict each other; the message names both
        return f"{said}{more}"
    given = "" if isinstance(first["input"], dict | BaseModel) else f" = {_short(repr(first['input']))}"
    return f"{_short(field)}{given}: {said}{more}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
