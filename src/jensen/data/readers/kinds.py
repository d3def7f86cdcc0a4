"""Unsupported formats: recognised by a file's first bytes, with advice on converting the file."""

from pathlib import Path

ENOUGH = 512
"""Number of first bytes by which a format is recognised."""

_TO_PNG = "convert it to PNG"
_TO_NUMPY = "load it and write its arrays with numpy.savez"
_UNPACK = "unpack it"

_FORMATS: tuple[tuple[int, bytes, str, str], ...] = (  # where, bytes, what, advice
    (0, b"II*\0", "a TIFF image", _TO_PNG),
    (0, b"MM\0*", "a TIFF image", _TO_PNG),
    (0, b"II+\0", "a BigTIFF image", _TO_PNG),
    (0, b"MM\0+", "a BigTIFF image", _TO_PNG),
    (0, b"GIF8", "a GIF image", _TO_PNG),
    (0, b"BM", "a BMP image", _TO_PNG),
    (0, b"\0\0\1\0", "an icon (ICO)", _TO_PNG),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image", _TO_PNG),
    (4, b"ftypheic", "a HEIC image", _TO_PNG),
    (4, b"ftypavif", "an AVIF image", _TO_PNG),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", _TO_NUMPY),
    (0, b"8BPS", "a Photoshop file", _TO_PNG),
    (0, b"\x89PNG\r\n", "a PNG image", "name the folder that holds the images"),
    (0, b"\xff\xd8\xff", "a JPEG image", "name the folder that holds the images"),
    (8, b"WEBP", "a WebP image", "name the folder that holds the images"),
    (0, b"%PDF", "a PDF file", "name the data themselves"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _TO_NUMPY),
    (0, b"CDF\1", "a NetCDF file", _TO_NUMPY),
    (0, b"CDF\2", "a NetCDF file", _TO_NUMPY),
    (0, b"SIMPLE  =", "a FITS file", _TO_NUMPY),
    (0, b"MATLAB", "a MATLAB file", _TO_NUMPY),
    (128, b"DICM", "a DICOM file", _TO_NUMPY),
    (344, b"n+1\0", "a NIfTI file", _TO_NUMPY),
    (0, b"NRRD", "an NRRD file", _TO_NUMPY),
    (0, b"RIFF", "a RIFF file (WAV or AVI)", _TO_NUMPY),
    (0, b"SQLite format 3", "an SQLite database", _TO_NUMPY),
    (0, b"FEA1", "a Feather V1 file", "write it as Parquet"),
    (0, b"ORC", "an ORC file", "write it as Parquet"),
    (0, b"Obj\1", "an Avro file", "write it as Parquet"),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"PK", "a zip archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    *((0, bytes([0x80, protocol]), "a Python pickle, which is never loaded", _TO_NUMPY) for protocol in range(2, 6)),
)


def identify(start: bytes) -> tuple[str, str] | None:
    """The format of a file with the first bytes `start`, and advice; None for an unknown format.

    >>> identify(b"GIF89a")
    ('a GIF image', 'convert it to PNG')
    """
    for position, magic, what, advice in _FORMATS:
        if start[position : position + len(magic)] == magic:
            return what, advice
    if not start:
        return "an empty file", "write it again"
    if _is_text(start):
        return "text (CSV, JSON or the like)", "load it and write its numbers with numpy.save"
    return None


def identify_file(path: Path) -> tuple[str, str] | None:
    """`identify` for a file."""
    with path.open("rb") as stream:
        return identify(stream.read(ENOUGH))


def described(start: bytes) -> str:
    """The format of a file with the first bytes `start`, in words; the first bytes if the format is unknown."""
    found = identify(start)
    return f"is {found[0]}" if found else f"begins with bytes {start[:4].hex(' ')}"


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:  # `start` may end in the middle of a character
        if error.start < len(start) - 3:
            return False
        text = start[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\f\ufeff" for character in text)
