"""A folder of another program, recognised by its files."""

from pathlib import Path

from jensen.errors import InputError
from jensen.exchange import from_diffusers, from_openai
from jensen.exchange.arrival import Arrival


def read_model(folder: Path) -> Arrival:
    """The model in a folder of another program. Raises `InputError` for a folder that jensen cannot read."""
    if folder.suffix == ".pkl" or (folder.is_dir() and any(folder.glob("*.pkl"))):
        raise InputError(
            f"{folder}: a .pkl, as EDM writes it, holds code that opening it would execute, so it is not opened; EDM's "
            "networks have no counterpart in jensen either (docs/exchange.md)"
        )
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the folder with the files of the model")
    if (folder / from_diffusers.INDEX).is_file():
        return from_diffusers.read_diffusers(folder)
    if (folder / from_openai.FLAGS).is_file():
        return from_openai.read_openai(folder)
    raise InputError(
        f"{folder} holds neither {from_diffusers.INDEX}, of diffusers, nor {from_openai.FLAGS} beside the weights "
        "of improved-diffusion; docs/exchange.md says what is read"
    )
