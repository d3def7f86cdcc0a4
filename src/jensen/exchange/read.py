"""A folder of another program, recognised by its files."""

from pathlib import Path

from jensen.errors import InputError
from jensen.exchange import from_diffusers
from jensen.exchange.arrival import Arrival


def read_model(folder: Path) -> Arrival:
    """The model in a folder of another program. Raises `InputError` for a folder that jensen cannot read."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the folder with the files of the model")
    if (folder / from_diffusers.INDEX).is_file():
        return from_diffusers.read_diffusers(folder)
    raise InputError(
        f"{folder} holds no {from_diffusers.INDEX}, as diffusers' save_pretrained writes it; give its folder"
    )
