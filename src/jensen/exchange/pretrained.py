"""Models in the layout of the Hugging Face Hub: config.json, model.safetensors, and a model card, README.md."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from jensen.data.load import load_again
from jensen.data.readers.memory import Source
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.exchange.card import model_card
from jensen.exchange.hub import download, upload
from jensen.exchange.places import without_places
from jensen.provenance import jensen_version
from jensen.recipe.build import build_model
from jensen.recipe.families import read_recipe
from jensen.recipe.settings import explain
from jensen.records import Value, refuse_filled_folder, write_file
from jensen.run import Run, establish_untrained

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = 1
VALUES = ("table", "label_names")
"""Fields of the data that hold values of the data; a value that looks like a path is no path of a machine."""
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


class Config(Value):
    """config.json: the recipe, the description of the data, and the weights it belongs to."""

    model_config = ConfigDict(**{**Value.model_config, "extra": "ignore"})  # the hub's tools add fields

    format: int
    library_name: str
    jensen: str
    """The version that wrote the folder."""
    step: int
    """The training step of the weights."""
    weights: str
    """SHA-256 of the weights, see `jensen.provenance.weights_digest`."""
    recipe: dict[str, Any]
    data: dict[str, Any]


def save_pretrained(run: Run, folder: str | Path, *, license: str | None = None) -> None:
    """Write the best weights of a run, its recipe and a model card into a new or empty folder.

    `license` is an identifier of the Hub, such as apache-2.0. No path of this machine is written; the names of columns
    and labels are. Raises `InputError` for a folder with files and for a license that is no identifier.
    """
    folder = Path(folder)
    refuse_filled_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    export_pretrained(run, folder, license)


def export_pretrained(run: Run, folder: Path, license: str | None = None) -> list[str]:
    """Fill an empty folder as `save_pretrained` does, and return notes."""
    if license is not None and not LICENSE.fullmatch(license):
        raise InputError(f"license {license!r}: expected an identifier of the Hub, such as apache-2.0 or cc-by-4.0")
    places = run.spec.source, str(run.recipe.data), str(run.folder)
    config = Config(
        format=FORMAT,
        library_name="jensen",
        jensen=jensen_version(),
        step=run.step,
        weights=run.weights,
        recipe=run.recipe.model_dump(mode="json"),
        data=run.spec.model_dump(mode="json"),
    )
    told = config.model_dump(mode="json")
    content = without_places(told, places)
    content["data"] |= {name: told["data"][name] for name in VALUES}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in run.model.state_dict().items()}
    write_file(folder / WEIGHTS, save_tensors(tensors, {"format": "pt"}))
    write_file(folder / CONFIG, json.dumps(content, indent=1).encode())
    write_file(folder / CARD, model_card(run, license, places).encode())
    return [] if license else ["the model card states no licence; give one by --license, such as apache-2.0"]


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    data: Source | None = None,
    out: str | Path | None = None,
) -> Run:
    """The run in a folder that `save_pretrained` wrote, or in the repository `owner/name` of the Hugging Face Hub.

    `name` may also be a file:// address. `data` is the place of the run's own data; without it, verbs need `data`. With
    `out` the run is written into a new run folder, which every command accepts, as if after step 0. Nothing is executed
    or unpickled. Raises `InputError` for a repository that cannot be had and for a damaged folder.
    """
    folder = _folder_of(name, revision)
    config = _config(folder)
    recipe = read_recipe(config.recipe, str(folder / CONFIG))
    try:
        spec = DataSpec.model_validate(config.data)
    except ValidationError as error:
        raise InputError(f"{folder / CONFIG}: {explain(error)}") from error
    model = build_model(recipe, spec)
    try:
        model.load_state_dict(load_tensors((folder / WEIGHTS).read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder / WEIGHTS} does not fit config.json ({reason}); restore both from a copy") from error
    if data is not None:
        spec = load_again(spec, source=data).spec
    held = None if data is None or isinstance(data, str | Path) else data
    run = Run(folder, recipe, spec, model.eval(), folder / f"step-{config.step}", held)
    if run.weights != config.weights:
        raise InputError(f"{folder / WEIGHTS} holds other weights than those that {CONFIG} names; restore both")
    if out is None:
        return run
    return replace(establish_untrained(Path(out), recipe, spec, model), data=held)


def _config(folder: Path) -> Config:
    again = "give a folder of jensen.save_pretrained"
    try:
        values = json.loads((folder / CONFIG).read_bytes())
    except OSError as error:
        raise InputError(f"{folder} has no {CONFIG}; {again}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{folder / CONFIG} is no JSON; {again}") from error
    if not isinstance(values, Mapping) or values.get("library_name") != "jensen":
        raise InputError(f"{folder / CONFIG} is not of a model of jensen; {again}")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{folder / CONFIG}: {explain(error)}") from error
    if config.format > FORMAT:
        raise InputError(f"{folder} has format {config.format}, this jensen reads up to {FORMAT}; install a newer one")
    return config


def push_to_hub(
    run: Run, repository: str, *, license: str | None = None, private: bool = False, token: str | None = None
) -> str:
    """Upload the folder of `save_pretrained` to the repository `owner/name`, and return the address of the commit.

    The repository is created if it does not exist. `token` is an access token; by default it is that of `hf auth
    login`. Raises `InputError` if the Hub refuses.
    """
    with TemporaryDirectory() as folder:
        save_pretrained(run, folder, license=license)
        message = f"Add step {run.step} of a {run.recipe.family}"
        return upload(folder, repository, message, private=private, token=token)


def _folder_of(name: str | Path, revision: str | None) -> Path:
    """The folder of a path or file:// address, or the copy of a repository."""
    text = str(name)
    if text.startswith("file://"):
        from urllib.parse import unquote, urlparse

        return Path(unquote(urlparse(text).path))
    if isinstance(name, Path) or Path(name).is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        if not Path(name).is_dir():
            raise InputError(f"{name}: there is no such folder; give a folder, or a repository as owner/name")
        return Path(name)
    return download(text, revision)
