"""Columns of Arrow tables: lists of numbers and encoded images, and the position of single rows in their files."""

import errno
import io
import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from jensen.data.readers.encoded import AbstractPictures
from jensen.data.readers.kinds import ENOUGH, described
from jensen.data.stored import FileRows, OpenFile, Values, joined
from jensen.errors import InputError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

FILES_BESIDE = 256  # allowance for files that are open for other reasons
BYTES_AT_ONCE = 1 << 22  # bytes of unpacked Parquet in memory; unpacking takes about ten times this memory
READ_AT_ONCE = 1 << 20  # bytes read from a Parquet file at a time
FIRST_ROWS = 8  # number of rows from which the size of all rows is estimated
PARQUET_MAGIC, FILE_MAGIC, STREAM_MAGIC = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"  # the last two are Arrow


class Shard:
    """The batches of some columns of one Parquet or Arrow file, and for Arrow the place of the batches in the file."""

    def __init__(self, path: Path, columns: Sequence[str], in_memory: bool) -> None:
        import pyarrow

        self.path = path
        self.file: OpenFile | None = None
        """The open file if examples stay on disk, which only Arrow allows."""
        try:
            if is_parquet(path):
                self.batches = list(parquet_batches(path, columns))
            else:
                with path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._mapped = pyarrow.py_buffer(mapped)
                self.batches = [batch.select(columns) for batch in _batches(self._mapped)]
                self.file = None if in_memory else OpenFile(path)
            for batch in self.batches:
                for column in batch.columns:
                    column.validate(full=True)
        except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
            if getattr(error, "errno", None) == errno.EMFILE:
                raise InputError(
                    f"{path}: too many open files (each shard needs two); raise ulimit -Hn, or write fewer shards"
                ) from error
            raise damaged(path, error) from error

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self.batches)

    def pieces(self, name: str) -> "Iterator[pyarrow.Array]":
        """A column, batch by batch, without empty batches. Raises InputError if a row has no value."""
        for batch in self.batches:
            if not batch.num_rows:
                continue
            column = batch.column(name)
            if column.null_count:
                many = f"{column.null_count} rows"
                raise InputError(f"{self.path}: column {name!r} is empty in {many}; leave such rows out")
            yield column

    def place(self, address: int) -> int:
        """The position in the file of an address in memory. Raises InputError if the file is compressed."""
        place = address - self._mapped.address
        if not 0 <= place < self._mapped.size:
            raise InputError(f"{self.path}: is compressed, so single rows cannot be read; write it uncompressed")
        return place


def allow_open(shards: int) -> None:
    """Raise this process's limit of open files to the need of `shards` shards, but not above the hard limit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_BESIDE + 2 * shards
    if resource.RLIM_INFINITY != soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):  # the system has a lower limit; opening a file then fails with its reason
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its first bytes; False for Arrow. Raises InputError for any other kind."""
    with path.open("rb") as file:
        start = file.read(ENOUGH)
    if not start.startswith((PARQUET_MAGIC, FILE_MAGIC, STREAM_MAGIC)):
        raise damaged(path, ValueError(f"it {described(start)}"))
    return start.startswith(PARQUET_MAGIC)


def damaged(path: Path, error: Exception) -> InputError:
    """The error of a shard that cannot be read, in one line."""
    return InputError(f"{path}: is damaged, or neither Parquet nor Arrow ({_one_line(error)}); fetch or write it again")


def parquet_batches(path: Path, columns: Sequence[str]) -> "Iterator[pyarrow.RecordBatch]":
    """The rows of a Parquet file in batches of some MiB, whatever the size of its row groups.

    A batch has at least two rows; the number of rows per batch follows from the size of the first rows. Checksums of
    pages are verified.
    """
    from pyarrow import parquet

    file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=READ_AT_ONCE, page_checksum_verification=True)
    if missing := set(columns) - set(file.schema_arrow.names):
        raise KeyError(f"it has no column {min(missing)!r}")

    def batches(rows: int) -> "Iterator[pyarrow.RecordBatch]":
        return file.iter_batches(rows, columns=list(columns), use_threads=False)

    sizes = [first.nbytes // len(first) for first in islice(batches(FIRST_ROWS), 1)]
    sizes.append(encoded_bytes(file.metadata) // max(1, file.metadata.num_rows))  # dictionaries make first rows small
    yield from batches(max(2, BYTES_AT_ONCE // max(1, *sizes)))


def encoded_bytes(metadata: "parquet.FileMetaData") -> int:
    """The bytes of all columns of a Parquet file, by its metadata."""
    return sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))


def _batches(content: "pyarrow.Buffer") -> "list[pyarrow.RecordBatch]":
    import pyarrow

    source = pyarrow.BufferReader(content)
    if content[: len(FILE_MAGIC)].to_pybytes() == FILE_MAGIC:
        reader = pyarrow.ipc.open_file(source)
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]
    return list(pyarrow.ipc.open_stream(source))


def number_values(shards: Sequence[Shard], name: str) -> Values:
    """A column of numbers, or of lists of numbers of one length; it is on disk for Arrow, in memory for Parquet."""
    parts: list[Values] = []
    for shard in shards:
        for piece in shard.pieces(name):
            try:
                array = numbers(piece)
            except ValueError as error:
                raise InputError(f"{shard.path}: column {name!r} {error}") from error
            if parts and (array.shape[1:] != parts[0].shape[1:] or array.dtype != parts[0].dtype):
                raise InputError(
                    f"{shard.path}: column {name!r} has rows of shape {array.shape[1:]} and dtype {array.dtype}, but "
                    f"earlier rows have {parts[0].shape[1:]} and {parts[0].dtype}; they must agree"
                )
            place = shard.place(array.ctypes.data) if shard.file else 0
            parts.append(FileRows(shard.file, place, array.shape, array.dtype) if shard.file else array)
    return joined(parts)


class PictureColumn(AbstractPictures):
    """A column of encoded images: bytes, or a struct with a field of that name."""

    def __init__(self, shards: Sequence[Shard], name: str) -> None:
        self._name = name
        self._pieces: list[_Encoded] = []
        for shard in shards:
            row = 0
            for piece in shard.pieces(name):
                self._pieces.append(_Encoded(shard, row, piece))
                row += len(piece)
        self._starts = np.cumsum([0, *(len(piece) for piece in self._pieces)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, number: int) -> str:
        piece, place = self._place(number)
        return f"{piece.path}: {self._name!r} of row {piece.first + place}"

    def open(self, number: int) -> IO[bytes]:
        piece, place = self._place(number)
        content = piece.read(place)
        if content is None:
            raise InputError(f"{self.name(number)}: names a file and holds no image; embed the images in the table")
        return io.BytesIO(content)

    def _place(self, number: int) -> tuple["_Encoded", int]:
        piece = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._pieces[piece], number - int(self._starts[piece])


class _Encoded:
    """A batch of encoded images: the start and the end of each, in a file or in memory."""

    def __init__(self, shard: Shard, first: int, column: "pyarrow.Array") -> None:
        from pyarrow import compute, large_binary, types

        self.path, self.first = shard.path, first
        content = compute.struct_field(column, "bytes") if types.is_struct(column.type) else column
        self._missing = content.is_null().to_numpy(zero_copy_only=False)
        wide = np.int64 if content.type == large_binary() else np.int32
        _, places, body = content.buffers()
        self._places = np.frombuffer(places, wide)[content.offset : content.offset + len(content) + 1].copy()
        self._file = shard.file
        self._body = None if shard.file else body
        self._start = shard.place(body.address) if shard.file and body else 0

    def __len__(self) -> int:
        return len(self._missing)

    def read(self, place: int) -> bytes | None:
        """The bytes of an image; None if the row has none."""
        if self._missing[place]:
            return None
        start, end = int(self._places[place]), int(self._places[place + 1])
        if self._file is None:
            return self._body.slice(start, end - start).to_pybytes() if self._body else b""
        content = bytearray(end - start)
        self._file.fill(memoryview(content), self._start + start)
        return bytes(content)


def numbers(column: "pyarrow.Array") -> np.ndarray:
    """A column of numbers, or of lists of numbers of one length, as an array (n, ...) without a copy.

    Raises ValueError for lists of several lengths and for other values. The text of the error is made to follow the
    column's name.
    """
    from pyarrow import compute, types

    kind = column.type
    if column.null_count:
        raise ValueError("has empty entries; leave such rows out")
    if hasattr(column, "storage"):  # an extension type, such as the arrays of Hugging Face datasets
        return numbers(column.storage)
    if types.is_fixed_size_list(kind):
        inner = numbers(column.flatten())
        return inner.reshape(len(column), kind.list_size, *inner.shape[1:])
    if types.is_list(kind) or types.is_large_list(kind):
        lengths = compute.min_max(compute.list_value_length(column)).as_py() if len(column) else {"min": 0, "max": 0}
        if lengths["min"] != lengths["max"]:
            raise ValueError(
                f"holds lists of {lengths['min']} to {lengths['max']} numbers; expected one length: cut or pad them"
            )
        inner = numbers(column.flatten())
        return inner.reshape(len(column), lengths["min"], *inner.shape[1:])
    if types.is_integer(kind) or types.is_floating(kind):
        return column.to_numpy(zero_copy_only=True)
    raise ValueError(f"holds {kind}; expected numbers or lists of numbers: convert it")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
