"""`jensen compress`: write examples into a file without loss, coded by a run's model."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from jensen.commands.common import OfExamples, RunFolder
from jensen.data.options import Split

if TYPE_CHECKING:
    from torch import Tensor

    from jensen.compression.codec import AbstractCodec, Encoded
    from jensen.compression.codelength import Codelength
    from jensen.run import Run


class Compress(OfExamples):
    """Compress examples without loss, by a trained model."""

    run: RunFolder
    """The folder of the run: a VAE of levels or binary data, or a diffusion model of levels."""
    out: Path
    """The file to write. Its sizes are written beside it, into FILE.json."""
    examples: PositiveInt | None = None
    """Number of examples, counted from the first. Default: all."""
    steps: PositiveInt | None = None
    """Diffusion: number of steps of the chain; each costs one network call per example. Default: 100."""
    batch_size: PositiveInt = 64
    """Maximum number of examples that go through the network together."""
    unchecked: bool = False
    """Skip the check that the file decompresses to the data. Halves the time."""

    def execute(self) -> None:
        """Compress, check that the file decompresses to the data, write it and its sizes, print the table."""
        from rich.console import Console

        from jensen.records import refuse_existing_file, write_record
        from jensen.report.compression import RECORD, codelength_table
        from jensen.run import opened

        record = self.out.with_name(f"{self.out.name}.json")
        for path in (self.out, record):
            refuse_existing_file(path)
        run = opened(self.run)
        found = compress(
            run,
            self.data,
            split=self.part,
            examples=self.examples,
            steps=self.steps,
            batch_size=self.batch_size,
            checked=not self.unchecked,
        )
        found.save(self.out)
        sizes = found.codelength
        for path in (record, *([run.folder / RECORD] if self.of_test else [])):
            write_record(path, sizes)
        Console().print(codelength_table(sizes))
        back = sizes.seconds_back and f", {_rounded(sizes.examples / sizes.seconds_back)} a second back again"
        print(f"{_rounded(sizes.examples / sizes.seconds)} examples a second{back or ''}")
        print(f"{self.out} and {record} written; the file holds no labels")


def _rounded(number: float) -> str:
    """The number with at least three digits and without a power of ten.

    >>> _rounded(2534.7), _rounded(3.5678)
    ('2,535', '3.57')
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


@dataclass(frozen=True)
class Compressed:
    """The bytes of a compressed file, and its sizes."""

    content: bytes
    codelength: "Codelength"

    def save(self, out: str | Path) -> None:
        """Write the file."""
        from jensen.records import write_file

        out = Path(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, self.content)


def compress(
    run: "Run",
    data: Any = None,
    *,
    split: Split = "test",
    examples: int | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    checked: bool = True,
) -> Compressed:
    """Compress the examples of `data` by the run's model; labels are not stored.

    If `data` is None, the examples are the split `split` of the run's own data. With `checked` the file is decompressed
    and compared with the data. Raises `InputError` for a model without a mass over levels, for data that the model sees
    binarised, and if the decompressed data differ from the given data.
    """
    import torch

    from jensen.commands.decompress import exactly, model_digest, restored
    from jensen.commands.files import refuse_table
    from jensen.compression.archive import Header, Machine, data_digest, pack, runs
    from jensen.compression.codec import encode
    from jensen.evaluation.scores import note_shortage

    refuse_table(run.spec, "compress", "write it as Parquet, which compresses columns")
    codec: AbstractCodec = run.family.codec(run.model, steps)
    found = run.examples(data, split)
    note_shortage(len(found), examples)
    raw = found[:examples].x[:]
    symbols = _symbols(run, codec, raw)
    start = began = time.perf_counter()
    with exactly(torch.get_num_threads()):
        encoded = encode(codec, symbols, batch_size)
    seconds, seconds_back = time.perf_counter() - began, None
    header = Header(
        shape=run.spec.shape,
        dtype=run.spec.dtype,
        count=len(raw),
        batches=runs(encoded.batches),
        steps=codec.steps,
        model=model_digest(run),
        data=data_digest(raw.numpy()),
        machine=Machine.here(run.model.device),
    )
    content = pack(header, encoded.words)
    if checked:
        began = time.perf_counter()
        restored(run, content, "the file")
        seconds_back = time.perf_counter() - began
    about = {"source": run.source(data, split), "provenance": run.provenance(start)}
    times = {"seconds": seconds, "seconds_back": seconds_back}
    return Compressed(content, _codelength(run, codec, raw, encoded, len(content), **about, **times))


def _codelength(
    run: "Run", codec: "AbstractCodec", raw: "Tensor", encoded: "Encoded", size: int, **about: Any
) -> "Codelength":
    """The record of the sizes; `about` holds the fields for the source, the times and the provenance."""
    from jensen.compression.codelength import Codelength
    from jensen.compression.others import sizes_of_others

    bound_bits = -float(encoded.bound.sum()) / math.log(2)
    return Codelength(
        examples=len(raw),
        dimensions=math.prod(run.spec.shape),
        steps=codec.steps,
        file_bytes=size,
        stack_bits=32 * len(encoded.words),
        initial_bits=encoded.initial_bits,
        bound_bits=bound_bits,
        overhead_error=encoded.excess_error / bound_bits,
        batches=len(encoded.batches),
        others=sizes_of_others(raw.numpy(), run.spec.levels),
        **about,
    )


def _symbols(run: "Run", codec: "AbstractCodec", raw: "Tensor") -> "Tensor":
    """The model's levels of raw examples, in the raw dtype.

    Raises `InputError` unless the levels give the raw examples back bit for bit, because coding would otherwise lose
    data.
    """
    import numpy as np
    import torch

    from jensen.errors import InputError
    from jensen.randomness import Noise, Stream, generator

    preparation, noise = run.spec.preparation, Noise(generator(0, Stream.EVALUATION))
    parts = []
    for chunk in raw.split(1000):
        symbols = codec.symbols(preparation(chunk, noise))
        if not np.array_equal(preparation.to_raw(codec.prepared(symbols)), chunk.numpy()):
            how = "" if preparation.deterministic else ", anew at every visit"
            raise InputError(
                f"{run.folder} binarises its data ({preparation.kind}){how}, so the data could not be restored; "
                "compress binary data, or use a run with --likelihood discretised-logistic"
            )
        parts.append(symbols.to(raw.dtype))
    return torch.cat(parts)
