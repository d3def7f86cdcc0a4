"""MATLAB files: version 4 to 7 by scipy, version 7.3 (HDF5) by h5py; arrays are chosen as those of an .npz."""

from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_names import choose_arrays, split_of
from jensen.data.readers.hdf5 import MAGIC
from jensen.data.readers.layout import Part, assemble
from jensen.data.readers.library import library
from jensen.data.readers.numpy_files import refuse_unusable_array
from jensen.data.readers.reading import Reading, Refuse, numbered_rows, refuse_bomb
from jensen.errors import InputError

PYTHON = "import h5py, numpy; numpy.savez('data.npz', x=h5py.File('FILE')['NAME'][:].T)"
BYTES = {"double": 8, "int64": 8, "uint64": 8, "single": 4, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2}
NUMBERS = (*BYTES, "int8", "uint8", "logical")


def read_matlab(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """Arrays (N, ...), or (..., N) if the labels show that the last axis is that of the examples."""
    try:
        arrays = _Old(path) if not _is_hdf5(path) else _New(path)
        chosen = choose_arrays(arrays.names(), options, str(path))
        parts, notes = [], []
        for name, beside in chosen:
            labels = arrays.read(beside) if beside else None
            values = arrays.read(name)
            if labels is not None:
                labels = labels.ravel() if labels.ndim == 2 and 1 in labels.shape else labels
                values, note = _examples_first(values, len(labels), name)
                notes += note
                if labels.dtype.kind == "f" and (labels >= 0).all() and (labels % 1 == 0).all():
                    labels = labels.astype(np.int64)
                    notes.append(f"{beside!r} are whole numbers, which MATLAB holds as floats: they are labels")
            parts.append(Part(f"{path}: {name}", values, labels, split_of(name)))
    except InputError:
        raise
    except Exception as error:  # scipy and h5py raise many kinds of error, all caused by the file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: is not a sound MATLAB file ({reason}); save it again") from error
    reading = assemble("matlab", parts, options, refuse)
    counts = [(name, len(part.values)) for (name, _), part in zip(chosen, parts, strict=True)]
    used = {name for pair in chosen for name in pair} if len(chosen) == 1 else set(arrays.names())
    keys = {name: partial(arrays.read, name) for name in arrays.names() if name not in used}
    return replace(reading, names=numbered_rows(counts), notes=(*notes, *reading.notes), keys=keys)


def _examples_first(values: np.ndarray, count: int, name: str) -> tuple[np.ndarray, list[str]]:
    """The values with the axis of `count` examples first: MATLAB's images are often (H, W, C, N)."""
    if len(values) == count or values.shape[-1] != count:
        return values, []
    return np.ascontiguousarray(np.moveaxis(values, -1, 0)), [f"{name!r}: the last axis is that of the examples"]


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(520)
    return MAGIC in (start[:8], start[512:])


class _Old:
    """The arrays of a file of version 4 to 7."""

    def __init__(self, path: Path) -> None:
        from scipy.io import whosmat

        self._path = path
        self._found = {name: (shape, kind) for name, shape, kind in whosmat(path)}

    def names(self) -> list[str]:
        """The names of the arrays of numbers."""
        return [name for name, (_, kind) in self._found.items() if kind in NUMBERS]

    def read(self, name: str) -> np.ndarray:
        """One array. Raises InputError if memory cannot hold it."""
        from scipy.io import loadmat

        shape, kind = self._found[name]
        refuse_bomb(f"{self._path}: {name}", prod(map(int, shape)) * BYTES.get(kind, 1))
        values = loadmat(self._path, variable_names=[name])[name]
        if not isinstance(values, np.ndarray):
            raise InputError(f"{self._path}: {name}: is sparse; save it with full({name})")
        return _checked(values.astype(bool) if kind == "logical" else values, f"{self._path}: {name}")


class _New:
    """The arrays of a file of version 7.3, whose axes HDF5 holds in reverse order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._h5py: Any = library("h5py", path, "a MATLAB 7.3 file", PYTHON)
        with self._h5py.File(path, "r") as file:
            self._names = [name for name in file if _class(file, name, self._h5py) in NUMBERS]

    def names(self) -> list[str]:
        """The names of the arrays of numbers."""
        return self._names

    def read(self, name: str) -> np.ndarray:
        """One array. Raises InputError if memory cannot hold it."""
        with self._h5py.File(self._path, "r") as file:
            dataset = file[name]
            if dataset.external or dataset.is_virtual:
                raise InputError(f"{self._path}: {name}: has its values in other files; save it into one file")
            refuse_bomb(f"{self._path}: {name}", dataset.nbytes)
            values = dataset[()].T
            logical = _class(file, name, self._h5py) == "logical"
        return _checked(values.astype(bool) if logical else values, f"{self._path}: {name}")


def _class(file: Any, name: str, h5py: Any) -> str:
    """MATLAB's class of a variable; "" for links to other files, and for groups."""
    if file.get(name, getclass=True, getlink=True) is not h5py.HardLink or not isinstance(file[name], h5py.Dataset):
        return ""
    given = file[name].attrs.get("MATLAB_class", b"double")
    return "" if file[name].attrs.get("MATLAB_empty") else given.decode() if isinstance(given, bytes) else str(given)


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    refuse_unusable_array(name, values.shape, values.dtype, "objects")
    return values
