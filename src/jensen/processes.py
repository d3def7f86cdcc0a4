"""Several processes at work on one task: their ranks, their shares of the work, and the exchange of results.

torchrun or `accelerate launch` starts the processes, and PyTorch connects them. With a single process, nothing here
waits, copies or imports torch. Only tensors in the safetensors format cross the network: nothing is unpickled.
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
# Time limit of every wait. It must cover what the main process does alone; a process that dies is noticed at once
PATIENCE = timedelta(hours=2)
_alone = ContextVar("alone", default=False)


class OtherProcessError(InputError):
    """Another process failed, so this process stops as well; the failed process reports the error itself."""


# ---------------------------------------------------------------------------------------------- who this is


def join() -> None:
    """Connect with the other processes of this launch; do nothing if there are no others or they are connected."""
    if not _several():
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch reads it on import; without it each process warns
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # Accelerate would use all cores; the recipe sets the threads
    backend = "gloo"
    if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE") or 1):  # a GPU per process
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or 0))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=PATIENCE)


def leave(status: int) -> None:
    """Exit the program at once with `status` if there are several processes; do nothing for a single process.

    A normal exit is unsafe while PyTorch's communication threads run. At its end, the interpreter stops every thread
    that asks for the interpreter's lock. C++ then sometimes aborts the process, although all work succeeded
    (pytorch/pytorch#179291, #190489).
    """
    if count() == 1:
        return
    if status == 0:
        from torch import distributed

        distributed.destroy_process_group()
    with suppress(OSError):  # the reader of a pipe may have gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def count() -> int:
    """The number of processes; 1 inside `on_main`."""
    if not _several() or _alone.get():
        return 1
    from torch import distributed

    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The index of this process, counted from 0."""
    if count() == 1:
        return MAIN
    from torch import distributed

    return distributed.get_rank()


def on_this_machine() -> int:
    """The number of processes on this machine."""
    return min(count(), int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def is_main() -> bool:
    """Whether this process writes the files and prints the messages; valid before `join`, too."""
    return not _several() or int(os.environ["RANK"]) == MAIN


def _several() -> bool:
    """Whether torchrun or `accelerate launch` started more than one process."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE") or 1) > 1


# ---------------------------------------------------------------------------------------------- shares


def own_rows(size: int) -> slice:
    """This process's rows of a batch of `size` examples: the rank-th of `count()` equal parts."""
    part = size // count()
    return slice(rank() * part, (rank() + 1) * part)


def share(parts: Sequence[Part]) -> Sequence[Part]:
    """This process's share of `parts`: every `count()`-th part from index `rank()` on; `gathered` collects results."""
    return parts[rank() :: count()]


def gathered(mine: Sequence[Columns]) -> list[Columns]:
    """The results of all processes for `share`, in the order of the parts; from several processes on the CPU."""
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
        for key, tensor in sorted(load(content).items(), key=lambda item: item[0]):  # safetensors loses the order
            place, _, name = key.split("/", 2)
            found.setdefault(int(place) * count() + owner, {})[name] = tensor
    return [found[place] for place in sorted(found)]


def _exchanged(content: bytes) -> list[bytes]:
    """The `content` of every process, in the order of their ranks."""
    import torch
    from torch import distributed

    sizes = [torch.empty(1, dtype=torch.int64) for _ in range(count())]
    distributed.all_gather(sizes, torch.tensor([len(content)]))
    longest = max(int(size) for size in sizes)
    padded = torch.frombuffer(bytearray(content.ljust(longest + 1)), dtype=torch.uint8)  # frombuffer refuses 0 bytes
    found = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(found, padded)
    return [values.numpy().tobytes()[: int(size)] for values, size in zip(found, sizes, strict=True)]


# ---------------------------------------------------------------------------------------------- agreement


def anywhere(flag: bool) -> bool:
    """Whether `flag` is true in any process."""
    if count() == 1:
        return flag
    import torch
    from torch import distributed

    found = torch.tensor(flag, dtype=torch.uint8)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return bool(found)


@contextmanager
def together() -> Iterator[None]:
    """Run the block in each process independently; an `InputError` or `OSError` in one process stops all.

    The processes wait for each other at the end of the block. The failed process of lowest rank raises its own error;
    all other processes raise `OtherProcessError`.
    """
    if count() == 1:
        yield
        return
    error: Exception | None = None
    try:
        yield
    except (InputError, OSError) as found:
        error = found
    complaint = b"" if error is None or isinstance(error, OtherProcessError) else str(error).encode() or b"failed"
    complaints = _exchanged(complaint)
    first = next((number for number, text in enumerate(complaints) if text), None)
    if first is not None:
        if error is not None and first == rank():
            raise error
        raise OtherProcessError(complaints[first].decode()) from error
    if error is not None:
        raise error


def on_main(action: Callable[[], Value]) -> Value | None:
    """Run `action` in the main process, as if it were the only process, and return the result there; None elsewhere."""
    with together():
        if rank() != MAIN:
            return None
        token = _alone.set(True)
        try:
            return action()
        finally:
            _alone.reset(token)


def from_main(value: float) -> float:
    """The `value` of the main process, in all processes, so that decisions by a clock are the same."""
    return value if count() == 1 else float(_exchanged(repr(float(value)).encode())[MAIN].decode())


def says_another_ended(error: BaseException) -> bool:
    """Whether `error` is the error of PyTorch for waiting for a process that has ended."""
    if count() == 1:
        return False
    from torch import distributed

    return isinstance(error, distributed.DistError) or "/gloo/" in str(error)


def agree(what: str, value: str) -> None:
    """Raise `InputError` unless `value` is the same in all processes; processes may have read different files."""
    if count() == 1:
        return
    with together():
        found = [text.decode() for text in _exchanged(value.encode())]
        if len(set(found)) > 1:
            shown = ", ".join(dict.fromkeys(found))
            raise InputError(f"{what} differ between processes ({shown}); give all machines the same files")


# ---------------------------------------------------------------------------------------------- sharded tensors


def shard(model: "nn.Module", device: str, within: int) -> None:
    """Spread the weights over groups of `within` processes, block by block (FSDP2); do nothing for a single process.

    A block is an element of a `ModuleList`. Raises `InputError` for a weight that is a single number, and if the number
    of processes is not a multiple of `within`.
    """
    if count() == 1:
        return
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with together():
        for name, parameter in model.named_parameters():
            if not parameter.ndim:
                raise InputError(
                    f"sharding: the weight {name} is a single number, which cannot be split; choose sharding none"
                )
        if count() % within:
            raise InputError(f"sharding hybrid: {count()} processes, {within} here; start {within} on every machine")
    if within == count():
        mesh = init_device_mesh(device, (within,))
    else:  # hybrid: every machine holds all weights, spread over its processes
        mesh = init_device_mesh(device, (count() // within, within), mesh_dim_names=("machine", "process"))
    blocks = [child for module in model.modules() if isinstance(module, nn.ModuleList) for child in module]
    for block in reversed(blocks):  # FSDP2 wants inner modules before the modules that contain them
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def unsharded(model: "nn.Module") -> Iterator[None]:
    """Inside the block every process holds all weights and may compute alone; afterwards it holds only its own part."""
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
            unit.set_reshard_after_forward(unit is not model, recurse=False)  # FSDP2's default


def whole(tensor: "Tensor") -> "Tensor":
    """The full tensor, where each process may hold only a part; all processes must call this together."""
    if count() == 1:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: "Tensor", like: "Tensor") -> "Tensor":
    """This process's part of a full `tensor` if `like` is spread over the processes, else the tensor itself."""
    if count() == 1:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def stored(tensor: "Tensor") -> "Tensor":
    """The part of a tensor that this process holds, without a copy."""
    if count() == 1:
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
