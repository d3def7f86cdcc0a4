"""NIfTI volumes by nibabel: one volume per file, or the volumes of a series (X, Y, Z, time)."""

from pathlib import Path
from typing import Any

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_files import Content, Form, measured, read_array_files
from jensen.data.readers.library import library
from jensen.data.readers.reading import Reading, Refuse, refuse_bomb
from jensen.data.stored import AbstractRows
from jensen.errors import InputError

SUFFIXES = (".nii", ".nii.gz")
PYTHON = "import nibabel, numpy; numpy.savez('data.npz', x=nibabel.load('FILE').get_fdata()[None])"


def read_nifti(source: Path, paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """Volumes (1, X, Y, Z) in the order of axes of the files, in the units of their scale factors."""
    return read_array_files(Form("nifti", _load, "volume"), source, paths, options, refuse)


def _load(path: Path) -> Content:
    nibabel = library("nibabel", path, "a NIfTI file", PYTHON)
    with nibabel.imageglobals.LoggingOutputSuppressor():  # it logs odd headers
        image = nibabel.load(path)
    shape = image.shape
    if not 3 <= len(shape) <= 4 or min(shape) < 1:
        raise InputError(f"{path}: has shape {shape}; expected a volume (X, Y, Z) or volumes (X, Y, Z, time)")
    dtype = np.dtype(image.get_data_dtype())
    if dtype.kind not in "biuf":
        raise InputError(f"{path}: holds {dtype}; expected numbers: convert it to floats")
    packed = path.suffix == ".gz"
    if packed:
        refuse_bomb(str(path), int(np.prod(shape, dtype=object)) * dtype.itemsize)
    if len(shape) == 4 and not packed:
        return Content(Volumes(path, image), _name)
    values = measured(np.asanyarray(image.dataobj))
    return Content(np.moveaxis(values, -1, 0), _name) if len(shape) == 4 else Content(values[None])


def _name(row: int) -> str:
    return f"volume {row}"


class Volumes(AbstractRows):
    """The volumes (time, X, Y, Z) of a series, read from the file one by one."""

    def __init__(self, path: Path, image: Any) -> None:
        self._data = image.dataobj
        *volume, time = image.shape
        self.shape = (time, *volume)
        self.dtype = measured(np.asanyarray(self._data[..., 0])).dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([measured(np.asanyarray(self._data[..., row])) for row in rows.tolist()])
