"""Several processes at one task: which one this is, what is its share, what all of them know afterwards.

torchrun and `accelerate launch` start them, PyTorch connects them. Where there is one process, nothing here waits,
copies or imports torch. What crosses the network are tensors, as safetensors: nothing is unpickled.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from jensen.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

Part = TypeVar("Part")
Value = TypeVar("Value")
Columns = Mapping[str, "Tensor"]

MAIN = 0
PATIENCE = timedelta(hours=2)  # for what the main process does alone, too; one that dies is noticed at once
_alone = ContextVar("alone", default=False)


class OtherProcessError(InputError):
    """What one process was refused, for all the others to stop as well; that one says so."""


# ---------------------------------------------------------------------------------------------- who this is


def join() -> None:
    """Connect with the processes that were started with this one; nothing where there are none, or where it is done."""
    if not _several():
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported: each process would warn
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # Accelerate would take all cores; recipes say how many threads
    backend = "gloo"
    if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE") or 1):  # one for each
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or 0))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=PATIENCE)


def leave(status: int) -> None:
    """End this program with `status`, at once, where there are several processes; alone, do nothing.

    PyTorch's threads that carry messages must not meet an interpreter that is being taken down: it ends a thread that
    asks for it, for which C++ aborts the process, now and then, after all went well (pytorch/pytorch#179291, #190489).
    """
    if count() == 1:
        return
    if status == 0:
        from torch import distributed

        distributed.destroy_process_group()
    with suppress(OSError):  # a reader that has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def count() -> int:
    """How many processes there are."""
    if not _several() or _alone.get():
        return 1
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    if count() == 1:
        return MAIN
    from torch import distributed

    return distributed.get_rank()


def on_this_machine() -> int:
    """How many of them share this one's machine."""
    return min(count(), int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def is_main() -> bool:
    """Whether this is the process that writes and speaks; also before it has joined the others."""
    return not _several() or int(os.environ["RANK"]) == MAIN


def _several() -> bool:
    """Whether torchrun or `accelerate launch` started more than one."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE") or 1) > 1


# ---------------------------------------------------------------------------------------------- shares


def own_rows(size: int) -> slice:
    """The rows of a batch of `size` that are this process's: the rank-th of equal parts."""
    part = size // count()
    return slice(rank() * part, (rank() + 1) * part)


def share(parts: Sequence[Part]) -> Sequence[Part]:
    """Every count-th of `parts`, from the rank-th on: what this process works on before `gathered`."""
    return parts[rank() :: count()]


def gathered(mine: Sequence[Columns]) -> list[Columns]:
    """What all processes made of their `share`, in the order of the parts; tensors of others come to the CPU."""
    if count() == 1:
        return list(mine)
    from safetensors.torch import load, save

    flat = {
        f"{place:09}/{column:04}/{name}": tensor.cpu().contiguous().clone()
        for place, part in enumerate(mine)
        for column, (name, tensor) in enumerate(part.items())
    }
    found: dict[int, dict[str, Tensor]] = {}
    for owner, content in enumerate(_exchanged(save(flat))):
        for key, tensor in sorted(load(content).items(), key=lambda item: item[0]):  # safetensors keeps no order
            place, _, name = key.split("/", 2)
            found.setdefault(int(place) * count() + owner, {})[name] = tensor
    return [found[place] for place in sorted(found)]


def _exchanged(content: bytes) -> list[bytes]:
    """What each process gives, by rank."""
    import torch
    from torch import distributed

    sizes = [torch.empty(1, dtype=torch.int64) for _ in range(count())]
    distributed.all_gather(sizes, torch.tensor([len(content)]))
    longest = max(int(size) for size in sizes)
    padded = torch.frombuffer(bytearray(content.ljust(longest + 1)), dtype=torch.uint8)  # never of no bytes at all
    found = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(found, padded)
    return [values.numpy().tobytes()[: int(size)] for values, size in zip(found, sizes, strict=True)]


# ---------------------------------------------------------------------------------------------- what they agree on


def anywhere(flag: bool) -> bool:
    """Whether it is true in any process."""
    if count() == 1:
        return flag
    import torch
    from torch import distributed

    found = torch.tensor(flag, dtype=torch.uint8)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return bool(found)


@contextmanager
def together() -> Iterator[None]:
    """Within, each process works by itself; what one of them refuses, or cannot write, ends all of them.

    They wait for each other at the end. The first that failed raises its own error, the others `OtherProcessError`.
    """
    if count() == 1:
        yield
        return
    error: Exception | None = None
    try:
        yield
    except (InputError, OSError) as found:
        error = found
    told = b"" if error is None or isinstance(error, OtherProcessError) else str(error).encode() or b"failed"
    complaints = _exchanged(told)
    first = next((number for number, text in enumerate(complaints) if text), None)
    if first is not None:
        if error is not None and first == rank():
            raise error
        raise OtherProcessError(complaints[first].decode()) from error
    if error is not None:
        raise error


def on_main(action: Callable[[], Value]) -> Value | None:
    """What `action` gives in the main process, where it has no company; the others wait and get None."""
    with together():
        if rank() != MAIN:
            return None
        token = _alone.set(True)
        try:
            return action()
        finally:
            _alone.reset(token)


def says_another_ended(error: BaseException) -> bool:
    """Whether it is what PyTorch raises where it waited for a process that is no more."""
    if count() == 1:
        return False
    from torch import distributed

    return isinstance(error, distributed.DistError) or "/gloo/" in str(error)


def agree(what: str, value: str) -> None:
    """Raises `InputError` unless all processes have the same value, as they have where they read the same files."""
    if count() == 1:
        return
    with together():
        found = [text.decode() for text in _exchanged(value.encode())]
        if len(set(found)) > 1:
            shown = ", ".join(dict.fromkeys(found))
            raise InputError(f"{what} differ between processes ({shown}); let all machines see the same files")


# ---------------------------------------------------------------------------------------------- sharded tensors


def shard(model: "nn.Module", device: str, within: int) -> None:
    """Spread the weights over each `within` processes, each block of the model by itself (FSDP2); alone, do nothing.

    The blocks are what is in a `ModuleList`. Raises `InputError` for a weight that is a single number, and where the
    processes are no multiple of `within`.
    """
    if count() == 1:
        return
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with together():
        for name, parameter in model.named_parameters():
            if not parameter.ndim:
                raise InputError(f"sharding: the weight {name} is a single number, which has no parts; choose none")
        if count() % within:
            raise InputError(f"sharding hybrid: {count()} processes, {within} here; start as many on every machine")
    if within == count():
        mesh = init_device_mesh(device, (within,))
    else:  # the same on every machine, spread over its processes
        mesh = init_device_mesh(device, (count() // within, within), mesh_dim_names=("machine", "process"))
    blocks = [child for module in model.modules() if isinstance(module, nn.ModuleList) for child in module]
    for block in reversed(blocks):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def unsharded(model: "nn.Module") -> Iterator[None]:
    """Within, every process holds all weights, so that each may compute what it likes; then only its own part again."""
    if count() == 1:
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(unit is not model, recurse=False)


def whole(tensor: "Tensor") -> "Tensor":
    """All of a tensor of which each process may hold a part; all processes ask for it together."""
    if count() == 1:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: "Tensor", like: "Tensor") -> "Tensor":
    """Of a tensor that every process holds the part that is this one's, if `like` is spread over them."""
    if count() == 1:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def stored(tensor: "Tensor") -> "Tensor":
    """What this process holds of a tensor, in place."""
    if count() == 1:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
