"""The fields of a recipe: typed, validated, explained in one line when wrong. Imports no torch."""

import tomllib
from abc import ABC
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
)

from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.training.settings import TrainingSettings

LONGEST = 300  # letters of what was given that are repeated
MOST = 1 << 24
Size = Annotated[int, Field(gt=0, le=MOST)]
"""What is counted in a model: no product of two overflows."""


class AbstractRecipe(BaseModel, ABC):
    """What to read, what to build, how to train: everything a run depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "digits"
    """`digits`, a folder of IDX files or of images, or an .npy / .npz file."""
    seed: NonNegativeInt = 0
    """The seed of everything random."""
    read: ReadOptions = ReadOptions()
    """How the data are read."""
    training: TrainingSettings = TrainingSettings()
    """The training loop."""
    family: str
    """Which family of models it is for."""
    model: BaseModel
    """The model."""

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """A recipe of this family from a TOML file: top-level fields, then tables [read], [model] and [training]."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"config {path} cannot be read ({error.strerror}); give a TOML file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"config {path} is not TOML ({error}); mend it there") from error
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            family = cls.model_fields["family"].default
            raise InputError(f"config {path}: {explain(error)}; see jensen train {family} --help") from error


def explain(error: ValidationError) -> str:
    """The first thing a validation found, in one line: field, what was given, what was expected."""
    first, count = error.errors()[0], error.error_count()
    field = ".".join(str(part) for part in first["loc"])
    more = f" (and {count - 1} more)" if count > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown field {_short(field)}; mend its name or leave it out{more}"
    said = _short(first["msg"].removeprefix("Value error, "))
    if not field:  # two fields that contradict each other: the sentence names them
        return f"{said}{more}"
    given = "" if isinstance(first["input"], dict | BaseModel) else f" = {_short(repr(first['input']))}"
    return f"{_short(field)}{given}: {said}{more}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
