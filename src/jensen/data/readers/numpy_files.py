"""NumPy's .npy and .npz files: lengths are checked before memory is allocated, and nothing is ever unpickled."""

import math
import struct
import zipfile
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from jensen.data.options import DEFAULTS, ReadOptions
from jensen.data.readers.array_names import choose_arrays, listed, split_of
from jensen.data.readers.layout import Part, assemble, cells_of_parts
from jensen.data.readers.reading import Reading, Refuse, numbered_rows, refuse_bomb
from jensen.data.readers.tables import Cells, array_cells, read_table
from jensen.data.stored import FileRows, OpenFile, Values, readable_by_rows
from jensen.errors import InputError
from jensen.progress import track

HIGHEST_RANK = 8
CHUNK = 1 << 24
LOCAL_HEADER = "<4s5H3I2H"  # header of a zip's member, up to the lengths of its name and extra field


def read_npy_file(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """The examples of a .npy file."""
    with path.open("rb") as stream:
        shape, column_major, dtype = _header(stream, str(path), path.stat().st_size)
        offset = stream.tell()
    values: Values = read_npy(path)
    if options.streams(math.prod(shape) * dtype.itemsize) and readable_by_rows(
        str(path), options, "is in Fortran order: write it with numpy.ascontiguousarray" if column_major else None
    ):
        values = FileRows(OpenFile(path), offset, shape, dtype)
    return assemble("array", [Part(str(path), values)], options, refuse)


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped into memory. Raises InputError for pickled objects and for a wrong length."""
    with path.open("rb") as stream:
        shape, column_major, dtype = _header(stream, str(path), path.stat().st_size)
        offset = stream.tell()
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order="F" if column_major else "C")


def read_npz_file(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """The examples of a .npz file: the array named by --array, arrays of several splits, or the only array of data."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename[:-4]: info for info in archive.infolist() if info.filename.endswith(".npy")}
            if not members:
                raise InputError(
                    f"{path}: is a zip archive that holds no NumPy arrays, {_members(archive)}; unpack it and give the "
                    "unpacked data, or write an .npz with numpy.savez"
                )
            if options.layout == "table" or (options.layout == "auto" and options.array is None):
                arrays = _columns(archive, members, path)
                if arrays:
                    return read_table(array_cells(str(path), arrays), options)
            chosen = choose_arrays(list(members), options, str(path))
            values = {name: _values(archive, members[name], path, options) for name, _ in chosen}
            labels = {name: _read_member(archive, members[name], path) for _, name in chosen if name}
    except InputError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many kinds of error, all caused by the file
        raise InputError(f"{path}: is not a sound .npz file ({_one_line(error)}); write it with numpy.savez") from error
    parts = [
        Part(f"{path}: {name}", values[name], labels[beside] if beside else None, split_of(name))
        for name, beside in chosen
    ]
    reading = assemble("arrays", parts, options, refuse)
    used = {name for pair in chosen for name in pair} if len(chosen) == 1 else members
    keys = {name: partial(_read_named, path, info) for name, info in members.items() if name not in used}
    return replace(reading, names=numbered_rows([(name, len(values[name])) for name, _ in chosen]), keys=keys)


def named_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz file. Raises InputError for a damaged file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {info.filename[:-4]: _read_member(archive, info, path) for info in members}
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path}: is not a sound .npz file ({_one_line(error)}); write it with numpy.savez") from error


def npz_cells(path: Path) -> Cells:
    """The cells of an .npz file of named columns, or of an array of examples (N, D) with its labels."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename[:-4]: info for info in archive.infolist() if info.filename.endswith(".npy")}
        if columns := _columns(archive, members, path):
            return array_cells(str(path), columns)
        (x, y), *_ = choose_arrays(list(members), DEFAULTS, str(path))
        labels = _read_member(archive, members[y], path) if y else None
        return cells_of_parts([Part(str(path), _read_member(archive, members[x], path), labels)])


def _columns(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], path: Path) -> dict[str, np.ndarray]:
    if len(members) < 2:
        return {}
    for name, info in members.items():
        with archive.open(info) as stream:
            if len(_header(stream, f"{path}: {name}", info.file_size)[0]) != 1:
                return {}
    return {name: _read_member(archive, info, path) for name, info in members.items()}


def _values(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, options: ReadOptions) -> Values:
    """A member's array, or its rows if the examples stay on disk."""
    name = f"{path}: {info.filename[:-4]}"
    if not options.streams(info.file_size):
        return _read_member(archive, info, path)
    with archive.open(info) as stream:
        shape, column_major, dtype = _header(stream, name, info.file_size)
        length = stream.tell()
        plain = info.compress_type == zipfile.ZIP_STORED
        hindrance = "is compressed: write it with numpy.savez" if not plain else None
        hindrance = "is in Fortran order: write it with numpy.ascontiguousarray" if column_major else hindrance
        if not readable_by_rows(name, options, hindrance):
            return _read_member(archive, info, path)
        for _ in track(range(-(-info.file_size // CHUNK)), "checking the checksum"):
            stream.read(CHUNK)
    with path.open("rb") as file:  # read the member's own header; the central directory may hold other lengths
        file.seek(info.header_offset)
        *_, name_length, extra_length = struct.unpack(LOCAL_HEADER, file.read(struct.calcsize(LOCAL_HEADER)))
    before = info.header_offset + struct.calcsize(LOCAL_HEADER) + name_length + extra_length
    return FileRows(OpenFile(path), before + length, shape, dtype)


def _read_named(path: Path, info: zipfile.ZipInfo) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_member(archive, info, path)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path}: is not a sound .npz file ({_one_line(error)}); write it with numpy.savez") from error


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    name = f"{path}: {info.filename[:-4]}"
    with archive.open(info) as stream:
        shape, column_major, dtype = _header(stream, name, info.file_size)
        refuse_bomb(name, info.file_size)
        flat = np.frombuffer(stream.read(), dtype)
    return flat.reshape(shape, order="F" if column_major else "C")


def _header(stream: IO[bytes], name: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of an array whose file has `size` bytes; leaves the stream at the first value."""
    try:
        version = np.lib.format.read_magic(stream)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, column_major, dtype = reader(stream)
    except Exception as error:  # NumPy's parser raises many kinds of error, all caused by the file
        raise InputError(
            f"{name}: its .npy header cannot be read ({_one_line(error)}); write it with numpy.save"
        ) from error
    refuse_unusable_array(name, shape, dtype, "pickled Python objects, which are never loaded")
    expected, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if expected != held:
        raise InputError(
            f"{name}: its header declares {shape} of {dtype}, {expected} bytes, but it holds {held}; write it again"
        )
    return shape, column_major, dtype


def refuse_unusable_array(name: str, shape: tuple[int, ...], dtype: np.dtype, objects: str) -> None:
    """Raises InputError for an array of objects (called `objects`) or records, of many axes, or without a number."""
    if dtype.kind not in "biufcU" or dtype.itemsize == 0:
        what = objects if dtype.hasobject else f"{dtype}"
        raise InputError(f"{name}: holds {what}; expected plain numbers: convert it with astype and save it again")
    if len(shape) > HIGHEST_RANK or any(length < 1 for length in shape):
        raise InputError(f"{name}: has shape {shape}; expected (N, ...) with at most {HIGHEST_RANK} axes, none empty")


def _members(archive: zipfile.ZipFile) -> str:
    names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return "but a file of torch.save, whose pickles are never loaded"
    return f"only {listed(names)}" if names else "and nothing else"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__  # zipfile quotes names of any length
