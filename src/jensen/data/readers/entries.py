"""Named files in a folder, a zip archive or tar archives. Archives are read in place: nothing is written to disk."""

import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from jensen.data.options import ReadOptions
from jensen.data.readers.reading import SPLIT_NAMES, refuse_bomb
from jensen.data.stored import OpenFile, readable_by_rows
from jensen.errors import InputError

AT_ONCE = 8
"""The number of images that are decoded at once, and whose files are in memory."""
CHUNK = 1 << 24
PACKED: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
"""The ways to unpack a compressed tar archive, by its first bytes."""
_FAULTS = (
    zipfile.BadZipFile,
    RuntimeError,
    NotImplementedError,
    ValueError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
"""The errors of zipfile and its decompressors for a damaged or encrypted file."""


@dataclass(frozen=True)
class Entry:
    """A named file in a folder or an archive."""

    name: str
    """The name relative to the folder, or with the name of the archive in front if DATA are several archives."""
    parts: tuple[str, ...]
    """The parts of the path that give the split and the class, and the name of the file."""
    shown: str
    """The name in messages."""
    open: Callable[[], IO[bytes]]

    @property
    def suffix(self) -> str:
        """The ending of the name in lower case, such as `.png`."""
        return PurePosixPath(self.parts[-1]).suffix.lower()


def entries_of_folder(folder: Path, paths: Sequence[Path]) -> list[Entry]:
    """The files `paths`, which lie below `folder`, in their order."""
    relative = [path.relative_to(folder) for path in paths]
    return [
        Entry(str(name), name.parts, str(path), partial(_opened, path))
        for path, name in zip(paths, relative, strict=True)
    ]


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def entries_of_zip(path: Path) -> list[Entry]:
    """The files of a zip archive by their names. Raises InputError for a damaged archive."""
    try:
        archive = zipfile.ZipFile(path)
    except _FAULTS as error:
        raise InputError(f"{path}: is not a sound zip archive ({_one_line(error)}); write it again") from error
    found = [
        Entry(
            info.filename,
            PurePosixPath(info.filename).parts,
            f"{path}: {info.filename}",
            partial(_member, archive, info),
        )
        for info in archive.infolist()
        if not info.is_dir()
    ]
    return _visible(found)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    name = f"{archive.filename}: {info.filename}"
    refuse_bomb(name, AT_ONCE * info.file_size)
    try:
        return io.BytesIO(archive.read(info))
    except _FAULTS as error:
        raise InputError(f"{name}: cannot be unpacked ({_one_line(error)})") from error


def entries_of_tars(source: Path, paths: Sequence[Path], options: ReadOptions) -> list[Entry]:
    """The regular files of tar archives, such as the shards of a WebDataset; links and special files are passed over.

    The files are not unpacked to disk; a compressed archive is unpacked into memory. If there are several archives,
    their names may give the splits. Raises InputError for a damaged archive.
    """
    found: list[Entry] = []
    splits = [_split_of(path) for path in paths]
    if None in splits and any(splits):
        raise InputError(
            f"{paths[splits.index(None)]}: its name gives no split, and the names of other archives do; name it "
            "train-... too, or give a single archive"
        )
    for path, split in zip(paths, splits, strict=True):
        try:
            entries = _visible(list(_members_of_tar(path, options)))
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OSError) as error:
            raise InputError(f"{path}: is not a sound tar archive ({_one_line(error)}); fetch it again") from error
        if path != source:
            name = path.relative_to(source)
            above = (split,) if split and len(paths) > 1 else ()
            entries = [replace(entry, name=f"{name}/{entry.name}", parts=(*above, *entry.parts)) for entry in entries]
        found += entries
    return found


def _split_of(path: Path) -> str | None:
    words = re.split(r"[^a-z0-9]+", path.name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def _members_of_tar(path: Path, options: ReadOptions) -> Iterator[Entry]:
    with path.open("rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in PACKED.items() if start.startswith(magic)), None)
    if opener is None:
        opened = OpenFile(path)
        with tarfile.open(path, "r:") as archive:
            yield from _regular(archive, path, lambda place, size: _part(opened, place, size))
        return
    readable_by_rows(str(path), options, "is compressed: unpack it to a .tar")
    content = bytearray()
    with opener(path) as stream:
        while chunk := stream.read(CHUNK):
            content += chunk
            refuse_bomb(str(path), len(content))
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        yield from _regular(archive, path, lambda place, size: bytes(content[place : place + size]))


def _regular(archive: tarfile.TarFile, path: Path, part: Callable[[int, int], bytes]) -> Iterator[Entry]:
    for info in archive:
        if info.isreg() and not info.issparse():
            opened = partial(_in_memory, part, info.offset_data, info.size)
            yield Entry(info.name, PurePosixPath(info.name).parts, f"{path}: {info.name}", opened)


def _in_memory(part: Callable[[int, int], bytes], place: int, size: int) -> IO[bytes]:
    return io.BytesIO(part(place, size))


def _part(file: OpenFile, place: int, size: int) -> bytes:
    if place + size > file.path.stat().st_size:
        raise InputError(f"{file.path}: ends before its last file does; fetch it again")
    content = bytearray(size)
    file.fill(memoryview(content), place)
    return bytes(content)


def _visible(entries: list[Entry]) -> list[Entry]:
    """The entries in the order of their names, without hidden files, and without a folder that holds all of them."""
    named = [
        replace(entry, parts=tuple(part for part in entry.parts if part not in (".", "..", "/"))) for entry in entries
    ]
    shown = [entry for entry in named if entry.parts and not any(map(_hidden, entry.parts))]
    shown.sort(key=lambda entry: entry.parts)
    while shown and all(len(entry.parts) > 1 and entry.parts[0] == shown[0].parts[0] for entry in shown):
        if shown[0].parts[0].lower() in SPLIT_NAMES:
            break
        shown = [replace(entry, parts=entry.parts[1:]) for entry in shown]
    return shown


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
