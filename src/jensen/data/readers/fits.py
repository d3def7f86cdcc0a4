"""FITS images by astropy: the first image of each file, or the extension named by --array."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_files import Content, Form, measured, read_array_files
from jensen.data.readers.array_names import listed
from jensen.data.readers.library import library
from jensen.data.readers.reading import Reading, Refuse, refuse_bomb
from jensen.data.stored import FileRows, OpenFile
from jensen.errors import InputError

SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fits.fz")
PYTHON = "import astropy.io.fits, numpy; numpy.savez('data.npz', x=astropy.io.fits.getdata('FILE')[None])"
PLAIN = {8: ">u1", -32: ">f4", -64: ">f8"}
"""Values of BITPIX whose numbers are read as they are stored."""


def read_fits(source: Path, paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """Images (H, W) of several files, one per file; a single file may also hold an array (N, ...)."""
    several = len(paths) > 1
    return read_array_files(Form("fits", lambda path: _load(path, options, several)), source, paths, options, refuse)


def _load(path: Path, options: ReadOptions, several: bool) -> Content:
    fits = library("astropy.io.fits", path, "a FITS file", PYTHON)
    with fits.open(path, memmap=False, lazy_load_hdus=False) as file:
        names = {hdu.name or f"HDU{number}": hdu for number, hdu in enumerate(file) if _has_image(hdu)}
        if options.array is not None and options.array not in names:
            raise InputError(f"{path}: has no image {options.array!r}; --array may be {listed(names)}")
        if not names:
            raise InputError(f"{path}: holds no image, only {listed(hdu.name or 'PRIMARY' for hdu in file)}")
        name = options.array or next(iter(names))
        hdu = names[name]
        shape = tuple(reversed([int(hdu.header[f"NAXIS{axis}"]) for axis in range(1, 1 + int(hdu.header["NAXIS"]))]))
        size = math.prod(shape) * abs(int(hdu.header["BITPIX"])) // 8
        notes = (f"x is the image {name!r}; others: {listed(other for other in names if other != name)}",)
        place = _place(path, hdu)
        if place is None:
            refuse_bomb(str(path), size)
        elif place + size > path.stat().st_size:
            raise InputError(f"{path}: ends before its last value; fetch it again")
        elif not several and len(shape) > 2 and hdu.header["BITPIX"] in PLAIN and not _scaled(hdu):
            return Content(FileRows(OpenFile(path), place, shape, np.dtype(PLAIN[hdu.header["BITPIX"]])), _name, notes)
        values = measured(np.array(hdu.data))
    if several or values.ndim < 3:
        return Content(values[None], notes=notes)
    return Content(values, _name, notes)


def _has_image(hdu: Any) -> bool:
    return bool(hdu.is_image) and int(hdu.header.get("NAXIS", 0)) >= 1


def _place(path: Path, hdu: Any) -> int | None:
    """The position of the values in the file; None if they are compressed."""
    with path.open("rb") as file:
        plain = file.read(6) == b"SIMPLE"
    info = hdu.fileinfo()
    return int(info["datLoc"]) if plain and info and type(hdu).__name__ in ("PrimaryHDU", "ImageHDU") else None


def _scaled(hdu: Any) -> bool:
    header = hdu.header
    return header.get("BSCALE", 1) != 1 or header.get("BZERO", 0) != 0 or "BLANK" in header


def _name(row: int) -> str:
    return f"plane {row}"
