"""HDF5 by h5py: named datasets, chosen as the arrays of an .npz; rows are read from the file on demand."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_names import choose_arrays, split_of
from jensen.data.readers.layout import Part, assemble
from jensen.data.readers.library import library
from jensen.data.readers.numpy_files import refuse_unusable_array
from jensen.data.readers.reading import Reading, Refuse, numbered_rows, refuse_bomb
from jensen.data.stored import AbstractRows, Values
from jensen.errors import InputError

MAGIC = b"\x89HDF\r\n\x1a\n"
PYTHON = "import h5py, numpy; numpy.savez('data.npz', x=h5py.File('FILE')['NAME'][:])"
PACKED_AT_MOST = 2000  # times that a dataset is larger than its bytes in the file; deflate reaches about 1000


def read_hdf5(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """The datasets (N, ...) of examples and of labels; links to other files are not followed."""
    h5py = library("h5py", path, "an HDF5 file", PYTHON)
    try:
        with h5py.File(path, "r") as file:
            found = _datasets(h5py, file)
            chosen = choose_arrays(list(found), options, str(path))
            parts = []
            for name, beside in chosen:
                values = _values(path, found[name], name, options)
                labels = _labels(path, found[beside], beside) if beside else None
                parts.append(Part(f"{path}: {name}", values, labels, split_of(name)))
    except InputError:
        raise
    except Exception as error:  # h5py raises many kinds of error, all caused by the file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: is not a sound HDF5 file ({reason}); write it again") from error
    reading = assemble("hdf5", parts, options, refuse)
    used = {name for pair in chosen for name in pair} if len(chosen) == 1 else found
    keys = {name: partial(_read_named, path, name) for name in found if name not in used}
    counts = [(name, len(part.values)) for (name, _), part in zip(chosen, parts, strict=True)]
    return replace(reading, names=numbered_rows(counts), keys=keys)


def _read_named(path: Path, name: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return _labels(path, file[name], name)


def _datasets(h5py: Any, file: Any) -> dict[str, Any]:
    """The arrays of the file by their names; `visititems` passes over links, so that no other file is opened."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim and item.dtype.kind in "biufcOSU":
            found[name] = item

    file.visititems(visit)
    return found


def _check(path: Path, dataset: Any, name: str) -> None:
    shown = f"{path}: {name}"
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{shown}: has its values in other files; write it into one file")
    refuse_unusable_array(shown, dataset.shape, dataset.dtype, "objects")
    if dataset.nbytes > max(1 << 20, PACKED_AT_MOST * dataset.id.get_storage_size()):
        refuse_bomb(shown, dataset.nbytes)


def _values(path: Path, dataset: Any, name: str, options: ReadOptions) -> Values:
    _check(path, dataset, name)
    if options.streams(dataset.nbytes):
        return DatasetRows(path, name, dataset.shape, dataset.dtype)
    refuse_bomb(f"{path}: {name}", dataset.nbytes if dataset.chunks else 0)
    return dataset[:]


def _labels(path: Path, dataset: Any, name: str) -> np.ndarray:
    refuse_bomb(f"{path}: {name}", dataset.nbytes)
    if dataset.dtype.kind in "OS" and not dataset.external and not dataset.is_virtual:
        words = dataset.asstr()[:]
        if not all(isinstance(word, str) for word in words.ravel()):
            raise InputError(f"{path}: {name}: holds objects; expected integers, floats or text")
        return words.astype(str)
    _check(path, dataset, name)
    return dataset[:]


class DatasetRows(AbstractRows):
    """Rows of a dataset (N, ...) that stay in their file."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._path, self._name, self.shape, self.dtype = path, name, shape, dtype
        self._opened: tuple[int, Any] | None = None

    def take(self, rows: np.ndarray) -> np.ndarray:
        numbers, inverse = np.unique(rows, return_inverse=True)  # h5py takes increasing numbers only
        try:
            contiguous = int(numbers[-1] - numbers[0]) + 1 == len(numbers)
            wanted = slice(int(numbers[0]), int(numbers[-1]) + 1) if contiguous else numbers
            found = self._dataset()[wanted]
        except Exception as error:  # h5py raises many kinds of error, all caused by the file
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"{self._path}: cannot be read any more ({reason}); restore it") from error
        if found.shape != (len(numbers), *self.shape[1:]):
            raise InputError(f"{self._path}: has changed since it was first read; restore it")
        return found[inverse]

    def _dataset(self) -> Any:
        """The dataset, opened once in each process."""
        if self._opened is None or self._opened[0] != os.getpid():
            import h5py

            self._opened = (os.getpid(), h5py.File(self._path, "r")[self._name])
        return self._opened[1]
