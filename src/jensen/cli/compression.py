"""`jensen compress` and `jensen decompress`: examples into a file by a run's model, and back, bit for bit."""

import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jensen.cli import options
from jensen.cli.actions import open_run
from jensen.compression import (
    AbstractCodec,
    Codelength,
    Encoded,
    Header,
    Machine,
    codec_for,
    data_digest,
    decode,
    encode,
    model_digest,
    pack,
    read,
    runs,
    sizes_of_others,
    unpack,
)
from jensen.data.readers.reading import refuse_bomb
from jensen.errors import InputError
from jensen.randomness import Noise, Stream, generator
from jensen.records import refuse_existing_file, write_file
from jensen.report.compression import RECORD, codelength_table
from jensen.run import Run

AT_ONCE = 1000  # examples prepared together


def compress(command: options.Compress) -> None:
    """Compress, see that it decompresses, write the file and its sizes beside it, print the table."""
    from rich.console import Console

    record = command.out.with_name(f"{command.out.name}.json")
    for path in (command.out, record):
        refuse_existing_file(path)
    run = open_run(command.run)
    codec = codec_for(run.model, command.steps)
    raw = run.examples(command.data, command.part)[: command.examples].x[:]
    symbols = _symbols(run, codec, raw)
    began = time.perf_counter()
    with _exactly(torch.get_num_threads()):
        encoded = encode(codec, symbols, command.batch_size)
    seconds, seconds_back = time.perf_counter() - began, None
    content = pack(_header(run, codec, raw, encoded), encoded.words)
    if not command.unchecked:
        began = time.perf_counter()
        _restored(run, content, str(command.out))
        seconds_back = time.perf_counter() - began
    bound_bits = -float(encoded.bound.sum()) / math.log(2)
    found = Codelength(
        source=command.data or f"{run.spec.source}, {command.part} split",
        weights=run.step,
        examples=len(raw),
        dimensions=math.prod(run.spec.shape),
        steps=codec.steps,
        file_bytes=len(content),
        stack_bits=32 * len(encoded.words),
        initial_bits=encoded.initial_bits,
        bound_bits=bound_bits,
        overhead_error=encoded.excess_error / bound_bits,
        batches=len(encoded.batches),
        seconds=seconds,
        seconds_back=seconds_back,
        others=sizes_of_others(raw.numpy(), run.spec.levels),
    )
    command.out.parent.mkdir(parents=True, exist_ok=True)
    write_file(command.out, content)
    for path in (record, *([run.folder / RECORD] if command.of_test else [])):
        write_file(path, found.model_dump_json(indent=1).encode())
    Console().print(codelength_table(found))
    back = "" if seconds_back is None else f", {_rounded(len(raw) / seconds_back)} a second back again"
    print(f"{_rounded(len(raw) / seconds)} examples a second{back}")
    print(f"{command.out} and {record} written; the file holds no labels")


def _rounded(number: float) -> str:
    """Three digits or more, never as a power of ten.

    >>> _rounded(2534.7), _rounded(3.5678)
    ('2,535', '3.57')
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def decompress(command: options.Decompress) -> None:
    """Restore the examples of a file, check them, write them."""
    refuse_existing_file(command.out, ".npz", ".npy")
    content = read(command.file)
    run = open_run(command.run)
    raw = _restored(run, content, str(command.file))
    buffer = io.BytesIO()
    if command.out.suffix == ".npz":
        np.savez(buffer, x=raw)
    else:
        np.save(buffer, raw)
    command.out.parent.mkdir(parents=True, exist_ok=True)
    write_file(command.out, buffer.getvalue())
    print(f"{command.out}: {len(raw)} examples of shape {raw.shape[1:]}, {raw.dtype}, equal to the originals")


# ---------------------------------------------------------------------------------------------- raw data and symbols


def _symbols(run: Run, codec: AbstractCodec, raw: Tensor) -> Tensor:
    """The model's levels of raw examples, in the raw dtype; `InputError` where the model does not see all of the data.

    Nothing is lost where raw examples come back from the levels bit for bit.
    """
    preparation, noise = run.spec.preparation, Noise(generator(0, Stream.EVALUATION))
    parts = []
    for chunk in raw.split(AT_ONCE):
        symbols = codec.symbols(preparation(chunk, noise))
        if not np.array_equal(_to_raw(run, codec, symbols), chunk.numpy()):
            how = "" if preparation.deterministic else ", anew at every visit"
            raise InputError(
                f"{run.folder} sees its data binarised ({preparation.kind}){how}, so they could not be restored; "
                "compress data that are binary, or by a run with --likelihood discretised-logistic"
            )
        parts.append(symbols.to(raw.dtype))
    return torch.cat(parts)


def _to_raw(run: Run, codec: AbstractCodec, symbols: Tensor) -> npt.NDArray[np.generic]:
    return run.spec.preparation.to_raw(codec.prepared(symbols))


# ---------------------------------------------------------------------------------------------- the file


def _header(run: Run, codec: AbstractCodec, raw: Tensor, encoded: Encoded) -> Header:
    return Header(
        shape=run.spec.shape,
        dtype=run.spec.dtype,
        count=len(raw),
        batches=runs(encoded.batches),
        steps=codec.steps,
        model=_model_digest(run),
        data=data_digest(raw.numpy()),
        machine=Machine.here(run.model.device),
    )


def _model_digest(run: Run) -> str:
    """Of the weights that the run is opened with, and of what else makes a model and its view of the data."""
    return model_digest(run.model, run.recipe.model.model_dump_json() + run.spec.preparation.model_dump_json())


def _restored(run: Run, content: bytes, name: str) -> npt.NDArray[np.generic]:
    """The raw examples of a file's bytes, as they were; `InputError` where they cannot be had, never another array."""
    header, words = unpack(content, name)
    if header.model != _model_digest(run):
        raise InputError(f"{name} was made by another model than that of {run.folder}; name its own by --run")
    refuse_bomb(name, header.count * math.prod(run.spec.shape) * torch.int64.itemsize)
    if header.machine.device != "cpu" and run.model.device.type != header.machine.device:
        raise InputError(f"{name} was made on {header.machine}; decompress it on such a machine")
    run.model.to(header.machine.device)
    codec = codec_for(run.model, header.steps)
    try:
        with _exactly(header.machine.threads):
            here = Machine.here(run.model.device)
            raw = _to_raw(run, codec, decode(codec, words, header.sizes))
        good = data_digest(raw) == header.data
    except (InputError, ValueError, KeyError):  # where the networks disagree, what is popped is noise
        good = False
    if not good:
        raise InputError(
            f"{name} does not give its data back: the network computes other numbers here ({here}) than where the file "
            f"was made ({header.machine}); decompress it there"
        )
    return raw


@contextmanager
def _exactly(threads: int) -> Iterator[None]:
    """Within, torch uses so many CPU threads, and no kernels that are chosen by the clock."""
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:]
