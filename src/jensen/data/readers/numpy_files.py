"""NumPy's .npy and .npz: lengths checked before anything is allocated, nothing ever unpickled."""

import math
import re
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.layout import Part, assemble
from jensen.data.readers.reading import SPLIT_NAMES, SPLITS, Reading, Refuse, refuse_bomb
from jensen.data.stored import FileRows, OpenFile, Values, readable_by_rows
from jensen.errors import InputError
from jensen.progress import track

DATA_NAMES = ("x", "data", "images", "image", "samples", "inputs")
LABEL_NAMES = ("y", "label", "labels", "target", "targets")
HIGHEST_RANK = 8
CHUNK = 1 << 24
LOCAL_HEADER = "<4s5H3I2H"  # of a zip's member, up to and with the lengths of name and extra field


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
    """The examples of a .npz file: the array that --array names, train and test pairs, or the one array of data."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename[:-4]: info for info in archive.infolist() if info.filename.endswith(".npy")}
            chosen = _choose(list(members), options, path)
            values = {name: _values(archive, members[name], path, options) for name, _ in chosen}
            labels = {name: _read_member(archive, members[name], path) for _, name in chosen if name}
    except InputError:
        raise
    except Exception as error:  # zipfile and its decompressors fail in many ways, all of them the file's
        raise InputError(f"{path}: is not a sound .npz file ({_one_line(error)}); write it with numpy.savez") from error
    parts = [
        Part(f"{path}: {name}", values[name], labels[beside] if beside else None, _split_of(name))
        for name, beside in chosen
    ]
    return assemble("array", parts, options, refuse)


def _values(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, options: ReadOptions) -> Values:
    """A member's array, or its rows where it is to stay on disk."""
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
    with path.open("rb") as file:  # the length of name and extra field is that of the local header
        file.seek(info.header_offset)
        *_, name_length, extra_length = struct.unpack(LOCAL_HEADER, file.read(struct.calcsize(LOCAL_HEADER)))
    before = info.header_offset + struct.calcsize(LOCAL_HEADER) + name_length + extra_length
    return FileRows(OpenFile(path), before + length, shape, dtype)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    name = f"{path}: {info.filename[:-4]}"
    with archive.open(info) as stream:
        shape, column_major, dtype = _header(stream, name, info.file_size)
        refuse_bomb(name, info.file_size)
        flat = np.frombuffer(stream.read(), dtype)
    return flat.reshape(shape, order="F" if column_major else "C")


def _header(stream: IO[bytes], name: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype; the stream then stands at the numbers, and `size` bytes hold exactly those."""
    try:
        version = np.lib.format.read_magic(stream)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, column_major, dtype = reader(stream)
    except Exception as error:  # NumPy's parser fails in many ways, all of them the file's
        raise InputError(
            f"{name}: its .npy header cannot be read ({_one_line(error)}); write it with numpy.save"
        ) from error
    if dtype.kind not in "biufcU" or dtype.itemsize == 0:
        what = "pickled Python objects, which are never loaded" if dtype.hasobject else f"{dtype}"
        raise InputError(f"{name}: holds {what}; expected plain numbers: convert it with astype and save it again")
    if len(shape) > HIGHEST_RANK or any(length < 1 for length in shape):
        raise InputError(f"{name}: has shape {shape}; expected (N, ...) with at most {HIGHEST_RANK} axes, none empty")
    expected, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if expected != held:
        raise InputError(
            f"{name}: its header declares {shape} of {dtype}, {expected} bytes, but it holds {held}; write it again"
        )
    return shape, column_major, dtype


def _choose(names: list[str], options: ReadOptions, path: Path) -> list[tuple[str, str | None]]:
    """The arrays of examples to read, each with the array of its labels."""
    for option, name in (("array", options.array), ("labels", options.labels)):
        if name is not None and name not in names:
            raise InputError(f"{path}: has no array {name!r}; --{option} may be {listed(names)}")
    roles = {name: _role(name) for name in names}
    splits = [name for name in names if roles[name][1] == "data" and roles[name][0] is not None]
    if options.array is not None:
        data = [options.array]
    elif options.labels is None and any(roles[name][0] == "train" for name in splits):
        data = sorted(splits, key=lambda name: SPLITS.index(roles[name][0] or "train"))
        if len({roles[name] for name in data}) < len(data):
            raise InputError(f"{path}: {listed(data)} hold one split twice; give --array")
    else:
        others = [name for name in names if roles[name][1] != "labels" and name != options.labels]
        data = others if len(others) == 1 else [name for name in names if roles[name] == (None, "data")]
        if len(data) != 1:
            raise InputError(f"{path}: which array holds the examples? give --array as one of {listed(names)}")
    return [(name, options.labels or _labels_of(name, roles, path)) for name in data]


def _labels_of(name: str, roles: dict[str, tuple[str | None, str]], path: Path) -> str | None:
    split, content = roles[name]
    found = [other for other, role in roles.items() if role == (split, "labels") and other != name]
    if len(found) > 1:
        raise InputError(
            f"{path}: which array labels {name!r}? give --array {name} and --labels as one of {listed(found)}"
        )
    return found[0] if found and content != "labels" else None


def _role(name: str) -> tuple[str | None, str]:
    """The split that a name such as x_train or test_labels states, and its content: data, labels or other."""
    words = re.split(r"[_.\- ]+", name.lower())
    splits = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    rest = [word for word in words if word not in SPLIT_NAMES]
    if len(splits) > 1 or len(rest) > 1:
        return None, "other"
    content = "labels" if rest and rest[0] in LABEL_NAMES else "data" if not rest or rest[0] in DATA_NAMES else "other"
    return (splits[0] if splits else None), content


def _split_of(name: str) -> str | None:
    split, content = _role(name)
    return split if content == "data" else None


def listed(names: Iterable[str]) -> str:
    """Some names for a reader, and how many more there are."""
    shown = [repr(name) for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "") if shown else "none"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__  # zipfile quotes names of any length
