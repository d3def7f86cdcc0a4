"""Paths of the machine, which must not leave it."""

import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any


def without_places(content: Any, places: Sequence[str]) -> Any:
    """JSON values in which an absolute path is only its last part, alone or within a sentence if it is in `places`."""
    if isinstance(content, dict):
        return {without_places(name, places): without_places(value, places) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_places(value, places) for value in content]
    if not isinstance(content, str):
        return content
    if PurePosixPath(content).is_absolute() or Path(content).is_absolute():
        return Path(content).name
    for place in places:
        if Path(place).is_absolute():
            content = content.replace(place, Path(place).name).replace(f"{Path(place).parent}/", "")
    return content


def command_without_places(command: str) -> str:
    """A command line in which absolute paths are only their last parts."""
    return shlex.join(str(without_places(word, ())) for word in shlex.split(command))
