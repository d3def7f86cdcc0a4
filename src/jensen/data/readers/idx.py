"""IDX, the format of MNIST: two zero bytes, a type, a rank, big-endian lengths, then the values; gzipped or not."""

import gzip
import math
import re
import struct
import zlib
from dataclasses import replace
from io import BufferedReader
from pathlib import Path

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.kinds import ENOUGH, described
from jensen.data.readers.layout import Part, assemble
from jensen.data.readers.reading import Reading, Refuse, numbered_rows, refuse_bomb
from jensen.data.stored import FileRows, OpenFile, Values, readable_by_rows
from jensen.errors import InputError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAME = re.compile(r"(idx\d+-[a-z]+|\.idx)(\.gz)?$", re.IGNORECASE)
HIGHEST_RANK = 8
CHUNK = 1 << 24


def is_idx_name(path: Path) -> bool:
    """Whether a file has the name of an IDX file, such as `train-images-idx3-ubyte.gz` or `images.idx`."""
    return NAME.search(path.name) is not None


def is_idx_start(start: bytes) -> bool:
    """Whether a file begins like IDX, or is gzipped and must be opened to decide."""
    return start[:2] == b"\x1f\x8b" or (start[:2] == b"\0\0" and start[2:3] in map(bytes, ([code] for code in TYPES)))


def read_idx(path: Path) -> np.ndarray:
    """The array of one IDX file in the dtype of its header.

    Raises InputError for an unknown type, a rank of 0 or above 8, a length that differs from the header's, and a
    damaged gzip. Source: http://yann.lecun.com/exdb/mnist/.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as stream:
            dtype, shape = _header(stream, path)
            expected = math.prod(shape) * dtype.itemsize
            refuse_bomb(str(path), expected if zipped else 0)
            body = _read_at_most(stream, expected + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is truncated or damaged ({error}); fetch it again") from error
    _refuse_length(path, shape, expected, len(body))
    return np.frombuffer(body, dtype).reshape(shape)


def _header(stream: gzip.GzipFile | BufferedReader, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES:
        what = described(magic + stream.read(ENOUGH))
        raise InputError(
            f"{path}: {f'unpacked, it {what}' if isinstance(stream, gzip.GzipFile) else what}, which is not IDX; "
            f"expected bytes 00 00, a type ({', '.join(f'{code:02x}' for code in TYPES)}) and a rank"
        )
    rank = magic[3]
    if not 1 <= rank <= HIGHEST_RANK:
        raise InputError(f"{path}: the IDX header declares rank {rank}; expected 1 to {HIGHEST_RANK}")
    lengths = stream.read(4 * rank)
    if len(lengths) < 4 * rank:
        raise InputError(f"{path}: ends inside its IDX header; fetch it again")
    shape = struct.unpack(f">{rank}I", lengths)
    if math.prod(shape) == 0:
        raise InputError(f"{path}: the IDX header declares shape {shape}, so no examples; expected at least 2")
    return np.dtype(TYPES[magic[2]]), shape


def _read_at_most(stream: gzip.GzipFile | BufferedReader, limit: int) -> bytes:
    chunks: list[bytes] = []
    left = limit
    while left > 0 and (chunk := stream.read(min(left, CHUNK))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def read_idx_file(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """The examples of a single IDX file, without labels."""
    return assemble("idx", [Part(str(path), _values(path, options))], options, refuse)


def _values(path: Path, options: ReadOptions) -> Values:
    """The array of an IDX file, or its rows if the examples stay on disk."""
    with path.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
        if options.streams(path.stat().st_size) and readable_by_rows(
            str(path), options, "is gzipped: unpack it with gunzip" if zipped else None
        ):
            stream.seek(0)
            dtype, shape = _header(stream, path)
            expected, held = math.prod(shape) * dtype.itemsize, path.stat().st_size - stream.tell()
            _refuse_length(path, shape, expected, held)
            return FileRows(OpenFile(path), stream.tell(), shape, dtype)
    return read_idx(path)


def _refuse_length(path: Path, shape: tuple[int, ...], expected: int, held: int) -> None:
    """Raises InputError unless the size of a file agrees with its header."""
    if held != expected:
        found = "more" if held > expected else f"only {held}"
        raise InputError(
            f"{path}: the IDX header declares {shape}, {expected} bytes, but the file holds {found}; fetch it again"
        )


def read_idx_folder(paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """The examples of the IDX files in a folder; file names separate images from labels, and training from test."""
    chosen: dict[tuple[str, str], Path] = {}
    for path in _without_twins(paths):
        key = (_split_of(path), "labels" if {"label", "labels"} & _words(path) else "images")
        if key in chosen:
            raise InputError(
                f"{path.parent}: {chosen[key].name} and {path.name} both hold {' '.join(filter(None, key))}; "
                "give one file, or a folder with one set"
            )
        chosen[key] = path
    splits = [split for split in ("train", "test", "") if (split, "images") in chosen]
    if not splits:
        raise InputError(f"{paths[0].parent}: holds IDX files of labels but none of images; add the images")
    if "" in splits and len(splits) > 1:
        raise InputError(
            f"{chosen['', 'images']}: has neither train nor test in its name, and other files have; rename it, or give "
            "a single file"
        )
    found = {split: part for split in splits if (part := _part(split, chosen, options, refuse)) is not None}
    if not found:
        raise InputError(f"{paths[0].parent}: none of its IDX files of images can be read; mend them")
    reading = assemble("idx", list(found.values()), options, refuse)
    counts = [(chosen[split, "images"].name, len(part.values)) for split, part in found.items()]
    return replace(reading, names=numbered_rows(counts))


def _part(split: str, chosen: dict[tuple[str, str], Path], options: ReadOptions, refuse: Refuse) -> Part | None:
    images, labels = chosen[split, "images"], chosen.get((split, "labels"))
    try:
        values = _values(images, options)
    except InputError as error:
        refuse(str(error))
        return None
    beside = None
    try:
        beside = read_idx(labels) if labels else None
    except InputError as error:
        refuse(str(error))
    return Part(str(images), values, beside, split or None)


def _without_twins(paths: list[Path]) -> list[Path]:
    """The paths in order, without gzipped files that are beside their unpacked form."""
    names = {path.name for path in paths}
    return [path for path in sorted(paths) if not (path.suffix == ".gz" and path.stem in names)]


def _split_of(path: Path) -> str:
    words = _words(path)
    return "train" if "train" in words else "test" if words & {"t10k", "test"} else ""


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", path.name.lower()))
