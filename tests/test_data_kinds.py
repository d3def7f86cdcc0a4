"""Files of kinds that are not read, written by other programs: the refusal names the kind and says what to do."""

import bz2
import gzip
import io
import lzma
import pickle
import sqlite3
import zipfile
from pathlib import Path

import pytest
import scipy.io
import torch
from data_files import byte_images, refused
from PIL import Image


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def picture(kind: str) -> bytes:
    written = io.BytesIO()
    Image.fromarray(byte_images(1, shape=(5, 4, 3))[0]).save(written, kind)
    return written.getvalue()


def archive(name: str, content: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        file.writestr(name, content)
    return written.getvalue()


def torch_saved() -> bytes:
    written = io.BytesIO()
    torch.save({"x": torch.zeros(3)}, written)
    return written.getvalue()


def sqlite(path: Path) -> bytes:
    with sqlite3.connect(path) as database:
        database.execute("create table x (y)")
    database.close()
    return path.read_bytes()


def netcdf(path: Path) -> bytes:
    with scipy.io.netcdf_file(path, "w") as file:
        file.createDimension("n", 3)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        (lambda _: picture("TIFF"), "a single image", "name the folder"),
        (lambda _: picture("GIF"), "a GIF image", "name the folder"),
        (lambda _: picture("BMP"), "a BMP image", "name the folder"),
        (lambda _: picture("ICO"), "an icon .ICO.", "convert it to PNG"),
        (lambda _: picture("JPEG2000"), "a JPEG 2000 image", "convert it to PNG"),
        (lambda _: picture("PNG"), "a PNG image", "name the folder"),
        (lambda _: picture("JPEG"), "a JPEG image", "name the folder"),
        (lambda _: picture("WEBP"), "a WebP image", "name the folder"),
        (lambda _: picture("PDF"), "a PDF file", "name the data themselves"),
        (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(99), "not a sound HDF5 file", "write it again"),
        (lambda _: b"MATLAB 5.0" + bytes(99), "not a sound MATLAB file", "save it again"),
        (lambda _: b"NRRD0004\n" + bytes(99), "an NRRD file", "import nrrd, numpy; numpy.savez"),
        (lambda _: b"fLaC" + bytes(99), "a FLAC file", "import numpy, soundfile; numpy.savez"),
        (lambda _: b"RIFF\0\0\0\0AVI LIST" + bytes(99), "an AVI video", "import imageio.v3, numpy; numpy.savez"),
        (lambda _: b"\0\0\0\x18ftypmp42" + bytes(99), "an MP4 or QuickTime video", "numpy.savez"),
        (lambda _: b"ORC,a,b\nw,x,y\n", "no column can be modelled", "constant: every cell is 'w'"),
        (lambda folder: netcdf(folder / "a.nc"), "a NetCDF file", "numpy.savez"),
        (lambda folder: sqlite(folder / "a.db"), "an SQLite database", "numpy.savez"),
        (lambda _: pickle.dumps({"x": 1}), "a Python pickle, which is never loaded", "numpy.savez"),
        (lambda _: torch_saved(), "a zip archive .* torch.save, whose pickles are never loaded", "numpy.savez"),
        (lambda _: archive("word/document.xml", b"<a>"), "a zip archive .* only 'word/document.xml'", "numpy.savez"),
        (lambda _: gzip.compress(b"II*\0rest"), "a gzip archive of TIFF image", "unpack it"),
        (lambda _: bz2.compress(b"x"), "a bzip2 archive", "unpack it"),
        (lambda _: lzma.compress(b"x"), "an xz archive", "unpack it"),
        (lambda _: "é, ü; x\n".encode() * 200, "no column can be modelled", "constant: every cell is 'é, ü'"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, content, what, advice):
    line = refused(write(tmp_path / "data.bin", content(tmp_path)), f"data.bin: (is )?{what}")
    assert advice in line
    assert "none" not in line.replace("None", "")


def test_a_folder_of_other_images_is_refused_by_their_kind(tmp_path):
    write(tmp_path / "001.ico", picture("ICO"))
    refused(tmp_path, "only .ico; 001.ico is an icon .ICO.: convert it to PNG: from PIL import Image")
