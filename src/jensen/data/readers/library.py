"""The libraries that read scientific formats: each is optional, and the line for a missing one says what to do."""

from importlib import import_module
from pathlib import Path
from typing import Any

from jensen.errors import InputError


def library(name: str, path: Path, what: str, python: str) -> Any:
    """Import the module `name`, which reads files of the kind `what`.

    Raises InputError if the module is not installed. The message contains `python`, which is code that turns the file
    into an .npz.
    """
    python = python.replace("'FILE'", repr(str(path)))
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise InputError(
            f"{path}: is {what}, which the package {package} reads, and it is not installed; pip install "
            f"'jensen[formats]', or where {package} is installed: {python}"
        ) from error
