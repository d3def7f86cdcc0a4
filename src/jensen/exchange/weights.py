"""Files of weights of other programs: tensors by name. No code in a file is ever executed."""

import hashlib
from pathlib import Path

from torch import Tensor

from jensen.errors import InputError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pt, .pth or .bin file that holds tensors only.

    Raises `InputError` for any other content; what the file would have to execute is not executed.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); give a file of weights") from error
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file ({error}); restore it from a copy") from error
    except Exception as error:  # torch raises pickle's, zip's and its own errors for what it refuses
        raise InputError(
            f"{path} holds more than tensors, or is damaged, and is not opened, because that could execute code in it; "
            "where the file is trusted, turn it into safetensors (docs/exchange.md says how)"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"{path}: expected tensors by name (a state_dict), got {type(found).__name__}; save that")
    return {str(name): value for name, value in found.items()}


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
