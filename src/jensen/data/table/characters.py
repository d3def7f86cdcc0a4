"""The bytes of a text file in UTF-8, and its lines, without a copy of the file in memory where it need not be."""

import codecs
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from jensen.errors import InputError

Raw = bytes | mmap.mmap
BLOCK = 1 << 24
"""The bytes that are looked at, and parsed, at a time; more than a row has."""
MARK = codecs.BOM_UTF8
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")
_ALONE = re.compile(r"(?<=\r)(?!\n)")


def utf8_bytes(path: Path, notes: list[str], mapped: bool) -> Raw:
    """The bytes of a file in UTF-8; a file in UTF-16 or, with a note, in Windows-1252 is converted.

    With `mapped`, a file in UTF-8 is mapped and not read. Raises InputError, with the row, for bytes that are no text.
    """
    raw = _read(path, mapped)
    if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        try:
            raw = bytes(raw).decode("utf-16").encode()
        except UnicodeError as error:
            raise InputError(f"{path}: is not sound UTF-16 ({error}); write it again in UTF-8") from error
        notes.append("the file is in UTF-16")
    fault = _first_fault(raw)
    if fault is not None:
        raw = _from_windows(path, bytes(raw), fault, notes)
    place = raw.find(b"\0")
    if place >= 0:
        row = count(raw, b"\n", 0, place) + 1
        raise InputError(f"{path}: row {row} holds a zero byte, so it is damaged or no text; write it again in UTF-8")
    return raw


def _read(path: Path, mapped: bool) -> Raw:
    with path.open("rb") as file:
        if not mapped or not path.stat().st_size:
            return file.read()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _first_fault(raw: Raw) -> int | None:
    """The place of the first byte that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(raw), BLOCK):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(raw[start : start + BLOCK], final=start + BLOCK >= len(raw))
        except UnicodeDecodeError as error:
            return start - pending + error.start
    return None


def _from_windows(path: Path, raw: bytes, fault: int, notes: list[str]) -> bytes:
    row = raw.count(b"\n", 0, fault) + 1
    byte = f"byte {raw[fault]:#x} in row {row}"
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    if not text or _CONTROL.search(raw):
        raise InputError(f"{path}: is not text in UTF-8 ({byte}); write it again in UTF-8")
    notes.append(
        f"the file is not in UTF-8 ({byte}), so it is read as Windows-1252; if letters are wrong, write it in UTF-8"
    )
    return text.encode()


def count(raw: Raw, what: bytes, start: int, end: int) -> int:
    """How often a byte occurs between two places."""
    return sum(raw[place : min(end, place + BLOCK)].count(what) for place in range(start, end, BLOCK))


def lines(raw: Raw, start: int) -> Iterator[str]:
    """The lines from the place `start`, with their ends, which may be those of Windows, Unix and the old Mac."""
    while start < len(raw):
        end = raw.find(b"\n", start) + 1 or len(raw)
        line = raw[start:end].decode()
        yield from (piece for piece in _ALONE.split(line) if piece) if "\r" in line else (line,)
        start = end
