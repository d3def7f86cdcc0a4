"""`jensen decompress`: restore the examples of a compressed file, bit for bit."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jensen.commands.common import Command

if TYPE_CHECKING:
    import numpy as np

    from jensen.run import Run


class Decompress(Command):
    """Restore the examples of a file written by `compress`, bit for bit."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file that `compress` wrote."""
    run: Path
    """The folder of the run that compressed the file."""
    out: Path
    """The file to write, .npz (array `x`) or .npy: the raw examples in their original dtype and shape."""

    def execute(self) -> None:
        """Restore the examples, check them and write them."""
        import io

        import numpy as np

        from jensen.compression.archive import read
        from jensen.data.examples import counted
        from jensen.records import refuse_existing_file, write_arrays, write_file
        from jensen.run import opened

        refuse_existing_file(self.out, ".npz", ".npy")
        read(self.file)  # before the run is opened, so that a missing file is reported at once
        raw = decompress(opened(self.run), self.file)
        if self.out.suffix == ".npz":
            write_arrays(self.out, {"x": raw})
        else:
            buffer = io.BytesIO()
            np.save(buffer, raw)
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_file(self.out, buffer.getvalue())
        print(f"{self.out}: {counted(len(raw))} of shape {raw.shape[1:]}, {raw.dtype}, equal to the originals")


def decompress(run: "Run", file: str | Path) -> "np.ndarray":
    """The raw examples (count, *shape) of a file written by `compress`, equal to the originals.

    Raises `InputError` for a damaged file, and for a file of another model. Also raises `InputError` if the arithmetic
    of this machine differs from that of the machine that made the file, so a wrong array is never returned.
    """
    from jensen.compression.archive import read

    return restored(run, read(Path(file)), str(file))


def restored(run: "Run", content: bytes, name: str) -> "np.ndarray":
    """The raw examples from the bytes of a file; messages call the file `name`."""
    import torch

    from jensen.compression.archive import Machine, data_digest, unpack
    from jensen.compression.codec import decode
    from jensen.data.readers.reading import refuse_bomb
    from jensen.errors import InputError

    header, words = unpack(content, name)
    if header.model != model_digest(run):
        raise InputError(f"{name} was made by another model than that of {run.folder}; give the file's own --run")
    refuse_bomb(name, header.count * math.prod(run.spec.shape) * torch.int64.itemsize)
    if header.machine.device != "cpu" and run.model.device.type != header.machine.device:
        raise InputError(f"{name} was made on {header.machine}; decompress it on such a machine")
    run.model.to(header.machine.device)
    codec = run.family.codec(run.model, header.steps)
    try:
        with exactly(header.machine.threads):
            here = Machine.here(run.model.device)
            symbols = decode(codec, words, header.sizes)
            raw: np.ndarray = run.spec.preparation.to_raw(codec.prepared(symbols))
        good = data_digest(raw) == header.data
    except (InputError, ValueError, KeyError):  # other arithmetic than the encoder's makes the decoder read noise
        good = False
    if not good:
        raise InputError(
            f"{name} cannot be restored here: the network computes other numbers on this machine ({here}) than on the "
            f"one that made the file ({header.machine}); decompress it there"
        )
    return raw


def model_digest(run: "Run") -> str:
    """Digest of the run's weights, its model settings and its preparation of the data."""
    from jensen.compression.archive import model_digest

    return model_digest(run.model, run.recipe.model.model_dump_json() + run.spec.preparation.model_dump_json())


@contextmanager
def exactly(threads: int) -> Iterator[None]:
    """In this context torch uses `threads` CPU threads and deterministic kernels, which are not chosen by timing."""
    import torch

    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:]
