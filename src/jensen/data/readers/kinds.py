"""Formats by a file's first bytes: their names, and how to convert the formats that are not read."""

from pathlib import Path

TEXT = "text (CSV or the like)"
ENOUGH = 520
"""Number of first bytes by which a format is recognised."""

_TO_PNG = "convert it to PNG: from PIL import Image; Image.open('FILE').save('FILE.png')"
_SOUND = "import numpy, soundfile; numpy.savez('data.npz', x=soundfile.read('FILE')[0].T[None])"
_VIDEO = "import imageio.v3, numpy; numpy.savez('data.npz', x=imageio.v3.imread('FILE'))"
_PICTURE = "import imageio.v3, numpy; numpy.savez('data.npz', x=imageio.v3.imread('FILE')[None])"
_NETCDF = "import numpy, scipy.io; numpy.savez('data.npz', x=scipy.io.netcdf_file('FILE').variables['NAME'][:])"
_NRRD = "import nrrd, numpy; numpy.savez('data.npz', x=nrrd.read('FILE')[0][None])"
_SQL = (
    "import numpy, pandas, sqlite3; numpy.savez('data.npz', x=pandas.read_sql('select * from NAME', "
    "sqlite3.connect('FILE')).to_numpy())"
)
_PICKLE = (
    "if you trust it: import numpy, pickle; numpy.savez('data.npz', x=numpy.asarray(pickle.load(open('FILE', 'rb'))))"
)
_NAME_THE_FOLDER = "name the folder that holds the images"
_WRITE_AGAIN = "it is damaged or of another kind: write it again"
_UNPACK = "unpack it"

_FORMATS: tuple[tuple[int, bytes, str, str], ...] = (  # where, bytes, what, advice
    (0, b"II*\0", "a TIFF image", _NAME_THE_FOLDER),
    (0, b"MM\0*", "a TIFF image", _NAME_THE_FOLDER),
    (0, b"II+\0", "a BigTIFF image", _NAME_THE_FOLDER),
    (0, b"MM\0+", "a BigTIFF image", _NAME_THE_FOLDER),
    (0, b"GIF8", "a GIF image", _NAME_THE_FOLDER),
    (0, b"BM", "a BMP image", _NAME_THE_FOLDER),
    (0, b"\x89PNG\r\n", "a PNG image", _NAME_THE_FOLDER),
    (0, b"\xff\xd8\xff", "a JPEG image", _NAME_THE_FOLDER),
    (8, b"WEBP", "a WebP image", _NAME_THE_FOLDER),
    (0, b"\0\0\1\0", "an icon (ICO)", _TO_PNG),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image", _TO_PNG),
    (4, b"ftypheic", "a HEIC image", _TO_PNG),
    (4, b"ftypavif", "an AVIF image", _TO_PNG),
    (0, b"8BPS", "a Photoshop file", _TO_PNG),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", _PICTURE),
    (0, b"%PDF", "a PDF file", "name the data themselves"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _WRITE_AGAIN),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", "name the file itself"),
    (0, b"PAR1", "a Parquet file", _WRITE_AGAIN),
    (0, b"CDF\1", "a NetCDF file", _NETCDF),
    (0, b"CDF\2", "a NetCDF file", _NETCDF),
    (0, b"SIMPLE  =", "a FITS file", _WRITE_AGAIN),
    (0, b"MATLAB", "a MATLAB file", _WRITE_AGAIN),
    (128, b"DICM", "a DICOM file", _WRITE_AGAIN),
    (344, b"n+1\0", "a NIfTI file", _WRITE_AGAIN),
    (4, b"n+2\0", "a NIfTI file", _WRITE_AGAIN),
    (0, b"NRRD", "an NRRD file", _NRRD),
    (8, b"WAVE", "a WAV file", _WRITE_AGAIN),
    (8, b"AVI ", "an AVI video", _VIDEO),
    (4, b"ftyp", "an MP4 or QuickTime video", _VIDEO),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM video", _VIDEO),
    (0, b"fLaC", "a FLAC file", _SOUND),
    (0, b"OggS", "an Ogg file", _SOUND),
    (0, b"ID3", "an MP3 file", _SOUND),
    (0, b"\xff\xfb", "an MP3 file", _SOUND),
    (0, b"RIFF", "a RIFF file", _WRITE_AGAIN),
    (0, b"SQLite format 3", "an SQLite database", _SQL),
    (0, b"FEA1", "a Feather V1 file", "import pandas; pandas.read_feather('FILE').to_parquet('data.parquet')"),
    (0, b"ORC", "an ORC file", "import pandas; pandas.read_orc('FILE').to_parquet('data.parquet')"),
    (0, b"Obj\1", "an Avro file", "write it as Parquet"),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _WRITE_AGAIN),
    (0, b"PK", "a zip archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    *((0, bytes([0x80, protocol]), "a Python pickle, which is never loaded", _PICKLE) for protocol in range(2, 6)),
)


def identify(start: bytes) -> tuple[str, str] | None:
    """The format of a file with the first bytes `start`, and advice; None for an unknown format.

    >>> identify(b"Rar!")
    ('a RAR archive', 'unpack it')
    """
    for position, magic, what, advice in _FORMATS:
        if start[position : position + len(magic)] == magic and not (len(magic) < 4 and _is_text(start)):
            return what, advice
    if not start:
        return "an empty file", "write it again"
    if _is_text(start):
        json = start.lstrip().startswith((b"{", b"["))
        return ("text (JSON)" if json else TEXT), "load it and write its numbers with numpy.save"
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
