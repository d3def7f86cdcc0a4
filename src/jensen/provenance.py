"""Provenance: the origin of a recorded result, so that the result can be traced, and refused when it is stale."""

import hashlib
import platform
import shlex
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from jensen import processes
from jensen.records import Value

if TYPE_CHECKING:
    from torch import nn


class Provenance(Value):
    """The weights, software, machine and command by which a record was made; JSON both ways."""

    step: int | None
    """The training step of the weights; None for a model that belongs to no run."""
    weights: str
    """SHA-256 of the weights in hexadecimal, see `weights_digest`."""
    jensen: str
    torch: str
    python: str
    device: str
    """cpu, or the kind of accelerator and its name."""
    threads: int
    """Of PyTorch on the CPU, in each process."""
    processes: int
    command: str
    """The command line of the program."""
    date: str
    """When the record was made: ISO 8601, UTC, to the second."""
    seconds: float
    """Wall time of the computation."""


def provenance(model: "nn.Module", step: int | None, began: float) -> Provenance:
    """The provenance of a result just computed by `model` with the weights of training step `step`.

    `began` is `time.perf_counter()` at the start of the computation.
    """
    import torch

    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    return Provenance(
        step=step,
        weights=weights_digest(model),
        jensen=jensen_version(),
        torch=torch.__version__,
        python=platform.python_version(),
        device=f"{device.type} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        processes=processes.count(),
        command=command_line(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.perf_counter() - began,
    )


def jensen_version() -> str:
    """The version of jensen."""
    return str(import_module("jensen").__version__)


def weights_digest(model: "nn.Module") -> str:
    """SHA-256, in hexadecimal, of the tensors of the model's state, in the order of their names.

    It covers name, dtype, shape and bytes of every tensor. The digest is the same on every device.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def command_line() -> str:
    """The command line in the syntax of a shell; `python -m jensen` and `jensen` both become "jensen ...".

    The program is named without its folder, since a path on one machine means nothing on another machine.
    """
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])
