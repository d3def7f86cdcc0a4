"""The options that many commands share. Imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import tyro
from pydantic import BaseModel, ConfigDict, model_validator

from jensen.data.options import Split

RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


class Command(BaseModel, ABC):
    """The options of a command; `execute` runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    several_processes: ClassVar[bool] = False
    """Whether several processes may run the command together."""

    @abstractmethod
    def execute(self) -> None:
        """Do the work, then write and print the results."""


class OfExamples(Command):
    """A command on the examples of DATA or of a split of the run's own data."""

    data: str | None = None
    """DATA to use instead of the run's own, read as the run read its data. Default: the run's own test examples."""
    split: Split | None = None
    """Split of the run's own data to use. Default: test."""

    @property
    def part(self) -> Split:
        """The split of the run's own data to use if `data` is None."""
        return self.split or "test"

    @property
    def of_test(self) -> bool:
        """Whether the examples are the run's own test examples, to which the records in the run's folder refer."""
        return self.data is None and self.part == "test"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.data is not None and self.split is not None:
            raise ValueError(f"--split {self.split} selects from the run's own data; leave it out, or leave out --data")
        return self


def flags(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The flags of a command with the types of their values, as tyro makes them from the fields of the options.

    A field of settings gives the flags of its own fields. A field without a flag is positional, or it is suppressed.
    """
    for name, field in kind.model_fields.items():
        if any(marker in field.metadata for marker in (tyro.conf.Positional, tyro.conf.Suppress, tyro.conf.Fixed)):
            continue
        inner = field.default if isinstance(field.default, BaseModel) else None
        if inner is None:
            told = [each.name for each in field.metadata if getattr(each, "metavar", "") != "" and each.name]
            word = told[0] if told else name.replace("_", "-")
            yield f"--{prefix}{'no-' if field.default is True else ''}{word}", field.annotation
        else:
            own = any(getattr(each, "prefix_name", None) is False for each in field.metadata)
            yield from flags(type(inner), f"{name}." if own else prefix)
