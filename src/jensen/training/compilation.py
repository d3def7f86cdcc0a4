"""Compiled networks in training: torch.compile fuses operations, and CUDA graphs launch all of them at once.

On a GPU, small networks wait for the CPU, which launches a thousand operations a step. A CUDA graph launches the whole
forward or backward pass of a network as one operation.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from jensen import processes
from jensen.errors import InputError, out_of_memory
from jensen.training.settings import TrainingSettings

Function = TypeVar("Function", bound=Callable[..., Any])

BACKEND = "inductor"
FIRST_STEPS = {"none": 1, "kernels": 1, "graphs": 3}  # first steps that take longer: compile, warm up, record a graph
LIMIT = 64  # versions of a function, one for each kind of call and shape; beyond, torch would silently not compile


class Compilation:
    """Compiles the networks of a model for the blocks of `with networks(...)` only.

    Validation and sampling have batches of other sizes, so they use the networks without compilation. The names of the
    weights do not change. `how` is `TrainingSettings.compile`.
    """

    def __init__(self, model: nn.Module | None = None, how: str = "none") -> None:
        self.how = how
        found = [] if model is None or how == "none" else networks_of(model)
        self._networks = [(each, compiled(each.forward, "kernels"), compiled(each.forward, how)) for each in found]

    @contextmanager
    def networks(self, in_parts: bool) -> Iterator[None]:
        """A context in which all networks are compiled.

        The block must contain both the forward and the backward pass. A batch in parts (`in_parts`) uses no CUDA
        graphs, because the gradients of a part are in memory that the graph of the next part overwrites
        (pytorch/pytorch#169545). Raises `InputError` if the machine cannot compile.
        """
        if not self._networks:
            yield
            return
        if self.how == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        for network, kernels, graphs in self._networks:
            network.forward = kernels if in_parts else graphs
        try:
            yield
        except torch._dynamo.exc.TorchDynamoException as error:
            if out_of_memory(error):
                raise
            cause = str(error).strip().splitlines()[0]
            raise InputError(f"compile {self.how}: torch.compile failed ({cause}); choose compile none") from error
        finally:
            for network, *_ in self._networks:
                del network.forward  # the method of the class is called again


def networks_of(model: nn.Module) -> list[nn.Module]:
    """The networks made of blocks (`jensen.nets.blocks`) in the model, without networks inside networks."""
    found: list[nn.Module] = []
    for module in model.modules():  # outer modules come first
        if hasattr(module, "recompute") and not any(module is part for outer in found for part in outer.modules()):
            found.append(module)
    return found


def compiled(function: Function, how: str) -> Function:
    """The function, compiled anew for every shape of its inputs; for `none`, the function itself."""
    if how == "none":
        return function
    warnings.filterwarnings("ignore", module=r"torch\._inductor")  # about its own code, and advice to allow TF32
    torch._dynamo.config.optimize_ddp = False  # it cuts graphs into buckets, and cannot cut recomputed activations
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, LIMIT)
    if how == "graphs":
        return torch.compile(function, dynamic=False, mode="reduce-overhead")  # type: ignore[return-value]
    return torch.compile(function, dynamic=False, backend=BACKEND)  # type: ignore[return-value]


def check_compilation(settings: TrainingSettings, device: str) -> None:
    """Raises `InputError` for settings with which `settings.compile` does not work."""
    how = settings.compile
    if how == "none":
        return
    if settings.sharding != "none":
        raise InputError(f"compile {how} with sharding {settings.sharding}: expected one of both; leave one out")
    if settings.precision == "float16":
        # Some versions of torch take a graph for bfloat16 from their cache on disk instead (pytorch/pytorch#181564)
        raise InputError(f"compile {how} with precision float16: choose bfloat16 or float32, or compile none")
    if how == "graphs" and device != "cuda":
        raise InputError(f"compile graphs: CUDA graphs need a CUDA device, not {device}; choose kernels or none")
    if how == "graphs" and processes.count() > 1:
        raise InputError("compile graphs: CUDA graphs work in a single process only; choose kernels")
    if how == "graphs" and settings.micro_batch_size is not None:
        raise InputError(
            f"compile graphs with micro_batch_size {settings.micro_batch_size}: batches in parts have no CUDA graphs; "
            "choose kernels, or leave micro_batch_size out"
        )
