"""The Hugging Face Hub: models are downloaded and uploaded by its own client, huggingface_hub."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from jensen.errors import InputError

FILES = ["config.json", "model.safetensors", "README.md"]


def download(repository: str, revision: str | None = None) -> Path:
    """The folder with the files of a repository; without a network, that of an earlier download."""
    hub = _client()
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=FILES))
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        raise InputError(
            f"{repository}: it cannot be downloaded ({_reason(error)}); give a folder, or check name and network"
        ) from error


def upload(folder: str | Path, repository: str, message: str, *, private: bool, token: str | None) -> str:
    """Upload the files of `folder` to the repository `owner/name`, and return the address of the commit."""
    hub = _client()
    api = hub.HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).commit_url)
    except (hub.errors.HfHubHTTPError, *_unreachable(), OSError, ValueError) as error:
        raise InputError(
            f"{repository}: it cannot be uploaded ({_reason(error)}); check name, token and network"
        ) from error


def _client() -> Any:
    try:
        import_module("huggingface_hub.errors")
        return import_module("huggingface_hub")
    except ImportError as error:
        raise InputError("the Hub needs the package huggingface_hub; pip install 'jensen[hub]'") from error


def _unreachable() -> tuple[type[Exception], ...]:
    """The errors of the HTTP client under huggingface_hub, which depends on its version."""
    found = (sys.modules.get(name) for name in ("httpx", "httpx2", "requests"))
    kinds = (getattr(module, "HTTPError", getattr(module, "RequestException", None)) for module in found if module)
    return tuple(kind for kind in kinds if kind is not None)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
