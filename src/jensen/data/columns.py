"""Columns of Arrow tables: files mapped into memory, lists of numbers as arrays without a copy, rows by number."""

import io
import mmap
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from jensen.data.pictures import AbstractPictures
from jensen.data.stored import AbstractRows
from jensen.errors import InputError

if TYPE_CHECKING:
    import pyarrow

PARQUET_MAGIC, FILE_MAGIC, STREAM_MAGIC = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"  # the latter two: Arrow
RESIDENT = 1 << 26  # bytes of a mapped file that may stay resident
TOUCHED = 1 << 16  # bytes that become resident, at most, with each row that is touched


class Shard:
    """The batches of one Arrow or Parquet file, the columns that are wanted; Arrow files are mapped."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import pyarrow

        self.path = path
        self._map: mmap.mmap | None = None
        try:
            if is_parquet(path):
                self.batches = _parquet(path, columns)
            else:
                with path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self.batches = [batch.select(columns) for batch in _batches(self._map)]
            for batch in self.batches:
                for column in batch.columns:
                    column.validate(full=True)
        except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
            raise damaged(path, error) from error
        self.forget()

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self.batches)

    @property
    def compressed(self) -> bool:
        """Whether a mapped file holds compressed batches, which were unpacked into memory."""
        import pyarrow

        if self._map is None:
            return False
        mapped = pyarrow.py_buffer(self._map)
        return any(
            not mapped.address <= buffer.address < mapped.address + mapped.size
            for batch in self.batches
            for column in batch.columns
            for buffer in column.buffers()
            if buffer is not None and buffer.size
        )

    def forget(self) -> None:
        """What has been read of a mapped file is resident no more; it stays in the system's cache."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does, or as Arrow. Raises InputError where it does as neither."""
    with path.open("rb") as file:
        start = file.read(len(FILE_MAGIC))
    if not start.startswith((PARQUET_MAGIC, FILE_MAGIC, STREAM_MAGIC)):
        raise damaged(path, ValueError(f"it begins with bytes {start.hex(' ') or 'none'}"))
    return start.startswith(PARQUET_MAGIC)


def damaged(path: Path, error: Exception) -> InputError:
    """That a shard cannot be read, in one line."""
    return InputError(f"{path}: is damaged, or neither Parquet nor Arrow ({_one_line(error)}); fetch or write it again")


def _parquet(path: Path, columns: Sequence[str]) -> "list[pyarrow.RecordBatch]":
    from pyarrow import parquet

    return parquet.read_table(path, columns=list(columns), page_checksum_verification=True).to_batches()


def _batches(mapped: mmap.mmap) -> "list[pyarrow.RecordBatch]":
    import pyarrow

    source = pyarrow.BufferReader(pyarrow.py_buffer(mapped))
    if mapped[: len(FILE_MAGIC)] == FILE_MAGIC:
        reader = pyarrow.ipc.open_file(source)
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]
    return list(pyarrow.ipc.open_stream(source))


class _Column:
    """One column of shards, a row after the other."""

    def __init__(self, shards: Sequence[Shard], name: str) -> None:
        self._shards = shards
        self._pieces = [batch.column(name) for shard in shards for batch in shard.batches]
        self._owners = [shard for shard in shards for _ in shard.batches]
        self._starts = np.cumsum([0, *map(len, self._pieces)])
        self._touched = 0
        for piece, owner in zip(self._pieces, self._owners, strict=True):
            if piece.null_count:
                raise InputError(
                    f"{owner.path}: column {name!r} is empty in {piece.null_count} rows; leave such rows out"
                )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def where(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The piece that each row is in, and its place there."""
        piece = np.searchsorted(self._starts, rows, side="right") - 1
        return piece, rows - self._starts[piece]

    def touch(self, rows: int, row_bytes: int) -> None:
        """Takes note that rows were read, and now and then gives back the memory."""
        self._touched += rows * (row_bytes + TOUCHED)
        if self._touched > RESIDENT:
            self._touched = 0
            for shard in self._shards:
                shard.forget()


class NumberRows(AbstractRows):
    """A column of numbers or of equally long lists of them, nested or not."""

    def __init__(self, shards: Sequence[Shard], name: str) -> None:
        self._column = column = _Column(shards, name)
        self._pieces = []
        for piece, owner in zip(column._pieces, column._owners, strict=True):
            try:
                self._pieces.append(numbers(piece))
            except ValueError as error:
                raise InputError(f"{owner.path}: column {name!r} {error}") from error
        first = self._pieces[0]
        for array, owner in zip(self._pieces, column._owners, strict=True):
            if array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
                raise InputError(
                    f"{owner.path}: column {name!r} holds {array.shape[1:]} numbers of {array.dtype} in a row, but "
                    f"before {first.shape[1:]} of {first.dtype}; they must agree"
                )
        self.shape, self.dtype = (len(column), *first.shape[1:]), first.dtype
        column.touch(len(column), 0)

    def take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        pieces, places = self._column.where(rows)
        for piece in np.unique(pieces).tolist():
            mine = pieces == piece
            found[mine] = self._pieces[piece][places[mine]]
        self._column.touch(len(rows), found[:1].nbytes)
        return found


class PictureColumn(AbstractPictures):
    """A column of encoded images: bytes, or a struct with a field of that name."""

    def __init__(self, shards: Sequence[Shard], name: str) -> None:
        self._name = name
        self._column = _Column(shards, name)

    def __len__(self) -> int:
        return len(self._column)

    def name(self, number: int) -> str:
        piece, _ = self._place(number)
        owner = self._column._owners[piece]
        before = sum(len(shard) for shard in self._column._shards[: self._column._shards.index(owner)])
        return f"{owner.path}: {self._name!r} of row {number - before}"

    def open(self, number: int) -> IO[bytes]:
        piece, place = self._place(number)
        content = self._contents[piece][place].as_py()
        if content is None:
            raise InputError(f"{self.name(number)}: names a file and holds no image; embed the images in the table")
        self._column.touch(1, len(content))
        return io.BytesIO(content)

    def _place(self, number: int) -> tuple[int, int]:
        pieces, places = self._column.where(np.array([number]))
        return int(pieces[0]), int(places[0])

    @cached_property
    def _contents(self) -> "list[pyarrow.Array]":
        import pyarrow

        pieces = self._column._pieces
        return [piece.field("bytes") if pyarrow.types.is_struct(piece.type) else piece for piece in pieces]


def numbers(column: "pyarrow.Array") -> np.ndarray:
    """A column of numbers, or of equally long lists of them, as an array (n, ...), without a copy.

    Raises ValueError, which goes on after the column's name, for lists of several lengths and what holds no numbers.
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
                f"holds lists of {lengths['min']} to {lengths['max']} numbers; all must be as long: cut or pad them"
            )
        inner = numbers(column.flatten())
        return inner.reshape(len(column), lengths["min"], *inner.shape[1:])
    if types.is_integer(kind) or types.is_floating(kind):
        return column.to_numpy(zero_copy_only=True)
    raise ValueError(f"holds {kind}; expected numbers or lists of numbers: convert it")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
