"""From words to the options of a command: tyro makes the flags from the options' fields."""

import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import tyro
from pydantic import ValidationError
from tyro import _errors as tyro_errors  # its hook for mistakes, documented there, has no public name yet

from jensen.commands.common import Command, flags
from jensen.commands.train import Train
from jensen.errors import InputError
from jensen.recipe.settings import explain

ALIKE = 3  # maximum number of suggestions for an unknown flag


def find(words: Sequence[str], commands: dict[str, type[Command]]) -> tuple[str | None, list[str]]:
    """The command that the first words name, and the remaining words.

    The command is None if the words ask for the overview. Raises `InputError` for an unknown command.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        return None, []
    for length in (2, 1):
        if (name := " ".join(words[:length])) in commands:
            return name, list(words[length:])
    longer = [name for name in commands if name.startswith(f"{words[0]} ")]
    if longer and words[1:2] in ([], ["-h"], ["--help"]):
        return None, []
    given = " ".join(words[:2]) if longer else words[0]
    raise InputError(f"unknown command {given!r}; expected one of {', '.join(longer or commands)}; see jensen --help")


def parse(name: str, kind: type[Command], words: Sequence[str]) -> Command:
    """The options of the command `name` from its flags. A mistake raises `InputError` with one line."""

    def refuse(event: tyro_errors.ParseErrorEvent) -> NoReturn:
        raise InputError(f"{_sentence(event, kind)}; see jensen {name} --help")

    default = _defaults(kind, words) if issubclass(kind, Train) else tyro.MISSING
    # A recipe says itself which flags have a prefix, because two tables of a recipe may have fields of one name
    prefixes = () if issubclass(kind, Train) else (tyro.conf.OmitArgPrefixes,)
    with tyro_errors.on_parse_error(refuse):
        return tyro.cli(
            kind,
            prog=f"jensen {name}",
            args=words,
            default=default,
            config=(*prefixes, tyro.conf.FlagCreatePairsOff),
        )


def _defaults(kind: type[Train], words: Sequence[str]) -> Train:
    """The defaults of `train`, from the config file and from the run to start from; so flags override both."""
    default = recipe = kind.model_fields["recipe"].default
    config, start = _given("--config", words), _given("--from", words)
    if config is not None:
        recipe = recipe.from_file(Path(config))
        other: dict[str, Any] = {}
        if _given("--minutes", words):  # a flag for the length overrides the file's length in either unit
            other = {"steps": default.training.steps, "replans": ()}
        elif _given("--steps", words):
            other = {"minutes": None}
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=other)})
    if start is not None:
        from jensen.recipe.start import Origin, inherited
        from jensen.run.folder import read_spec, recipe_of

        if (data := _given("--data", words)) is not None:  # other data are not read by the options of the run
            recipe = recipe.model_copy(update={"data": data})
        recipe = inherited(recipe, Origin(Path(start), recipe_of(Path(start)), read_spec(Path(start))))
    return kind(recipe=recipe)


def _given(flag: str, words: Sequence[str]) -> str | None:
    """The value of a flag among the words; None if it is not there."""
    for position, word in enumerate(words):
        if word == flag and position + 1 < len(words):
            return words[position + 1]
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


# ---------------------------------------------------------------------------------------------- mistakes


def _sentence(event: tyro_errors.ParseErrorEvent, kind: type[Command]) -> str:
    """The mistake in the words, in one line."""
    if isinstance(event, tyro_errors.MissingArgs):
        arguments = [one.arg for one in event.missing_arguments]
        missing = ", ".join(str(a.lowered.metavar) if a.is_positional() else a.display_name() for a in arguments)
        return f"missing: {missing}"
    if isinstance(event, tyro_errors.UnrecognizedArgs):
        return _unknown(event.tokens, kind)
    if isinstance(event, tyro_errors.InvalidChoice):
        choices = sorted(set(event.choices) - {"None"})
        return f"{event.argument.display_name()} {event.value}: expected one of {', '.join(choices)}"
    if isinstance(event, tyro_errors.BadValue):
        return f"{event.argument.display_name()}: expected {event.argument.lowered.metavar}"
    if isinstance(event, tyro_errors.InstantiationFailure):
        return _failure(event)
    return f"the options of {event.prog} contradict each other"


def _unknown(tokens: Sequence[str], kind: type[Command]) -> str:
    alike: list[str] = []
    for token in tokens:
        if token.startswith("--"):
            alike += difflib.get_close_matches(token.partition("=")[0], [flag for flag, _ in flags(kind)], ALIKE)
    meant = f"; perhaps you meant {' or '.join(dict.fromkeys(alike))}" if alike else ""
    return f"unrecognized options: {' '.join(tokens)}{meant}"


def _failure(event: tyro_errors.InstantiationFailure) -> str:
    """The mistake of a value: of the wrong type, or refused by pydantic, whose error tyro is then handling."""
    error = sys.exc_info()[1]
    for cause in (error, error and error.__context__):
        if isinstance(cause, ValidationError):
            return explain(cause)
    first = event.message.partition("\n")[0].rstrip(".")
    if event.argument is None:
        return first
    given = re.findall(r"\[.*\]|'[^']*'", first)[-1:]
    expected = str(event.argument.lowered.metavar).replace("{None}|", "").strip("{}")
    return f"{event.argument.display_name()} {''.join(given) or first}: expected {expected}"
