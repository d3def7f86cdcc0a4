"""Files of which each holds one or more examples: signals, volumes, scans. Class folders become labels."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jensen.data.options import LayoutWish, ReadOptions
from jensen.data.readers.image_folder import labels_from_folders
from jensen.data.readers.layout import Part, assemble
from jensen.data.readers.reading import Kind, Reading, Refuse, RowName
from jensen.data.stored import AbstractRows, Values
from jensen.errors import InputError
from jensen.progress import track


@dataclass(frozen=True)
class Content:
    """The examples of one file (n, *shape), the name of each example within the file, and notes."""

    values: Values
    name: RowName = lambda row: ""
    notes: tuple[str, ...] = ()


Load = Callable[[Path], Content]
"""A function from a file to its examples. Raises InputError for an unusable file."""


@dataclass(frozen=True)
class Form:
    """A kind of file: the function that reads a file, the default layout of the examples, and advice."""

    kind: Kind
    load: Load
    layout: LayoutWish = "auto"
    if_shapes_differ: str = "name a folder for each"


def measured(values: np.ndarray) -> np.ndarray:
    """Convert signed integers to floats that hold them exactly, because measured values have no levels.

    Other arrays stay unchanged.

    >>> measured(np.array([-1, 2], np.int16)).dtype
    dtype('float32')
    """
    if values.dtype.kind != "i":
        return values
    return values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)


def read_array_files(form: Form, source: Path, paths: Sequence[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """The examples of all files, in the order of the files.

    An unusable file is refused or, with `skip_bad`, left out. All examples must have one shape. Files of several dtypes
    become the smallest dtype that holds all values exactly.
    """
    gathering = _Gathering(form, options, refuse)
    for path in track(paths, "reading files", len(paths)):
        gathering.take(path)
    if not gathering.paths:
        first = gathering.left_out[0]
        raise InputError(f"{source}: none of its {len(paths)} files can be used; the first: {first}")
    owners = np.repeat(np.arange(len(gathering.paths)), gathering.counts)
    relative = [path.relative_to(source) if path != source else Path(path.name) for path in gathering.paths]
    labels, names, supplied, note = labels_from_folders([path.parts for path in relative])
    if options.layout == "auto":
        options = options.model_copy(update={"layout": form.layout})
    reading = assemble(form.kind, [Part(str(source), gathering.values())], options, refuse)
    starts = np.cumsum([0, *gathering.counts])

    def name(row: int) -> str:
        within = gathering.names[owners[row]](row - int(starts[owners[row]]))
        return f"{relative[owners[row]]} {within}".strip()

    left_out = tuple(f"left out: {problem}" for problem in gathering.left_out)
    return replace(
        reading,
        labels=None if labels is None else labels[owners],
        label_names=names,
        supplied=None if supplied is None else supplied[owners],
        skipped=len(left_out),
        notes=(*reading.notes, *([note] if len(paths) > 1 else []), *gathering.notes, *left_out),
        names=name,
        file=(lambda row: str(relative[owners[row]])) if len(relative) > 1 else None,
    )


class _Gathering:
    """The files read so far; their examples are dropped when together they are too large for memory."""

    def __init__(self, form: Form, options: ReadOptions, refuse: Refuse) -> None:
        self._form, self._options, self._refuse = form, options, refuse
        self.paths: list[Path] = []
        self.counts: list[int] = []
        self.names: list[RowName] = []
        self.notes: dict[str, None] = {}
        self.left_out: list[str] = []
        self._parts: list[np.ndarray] | None = []
        self._bytes = 0

    def take(self, path: Path) -> None:
        """Adds the examples of the next file."""
        array = None
        try:
            with in_one_line(path):
                content = self._form.load(path)
                size = content.values.size * content.values.dtype.itemsize
                if self._parts is not None and not self._options.streams(self._bytes + size):
                    array = content.values[:]
        except InputError as error:
            self.left_out.append(str(error))
            if not self._options.skip_bad:
                self._refuse(f"{error}; mend or remove it, or give --skip-bad")
            return
        values = content.values
        if not self.paths:
            self._shape, self._dtype = values.shape[1:], values.dtype
        if values.shape[1:] != self._shape:
            self._refuse(
                f"{path}: has examples of shape {values.shape[1:]} but {self.paths[0]} of {self._shape}; "
                f"all must have one shape: {self._form.if_shapes_differ}"
            )
            return
        self._dtype = np.result_type(self._dtype, values.dtype)
        self.paths.append(path)
        self.counts.append(len(values))
        self.names.append(content.name)
        self.notes |= dict.fromkeys(content.notes)
        self._bytes += size
        if array is None:
            self._parts = None
        elif self._parts is not None:
            self._parts.append(array)

    def values(self) -> Values:
        """All examples: an array, or rows of the files."""
        if self._parts is not None:
            return np.concatenate(self._parts, dtype=self._dtype)
        return FilesRows(self.paths, self.counts, self._shape, self._dtype, self._form.load)


@contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """A context in which every error of the library that reads `path` becomes an InputError of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory, or is damaged") from error
    except Exception as error:  # the libraries raise many kinds of error, all caused by the file
        reason = " ".join(str(error).replace(str(path), "it").split())[:200] or type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason})") from error


class FilesRows(AbstractRows):
    """Examples that are read from their files on demand."""

    def __init__(
        self, paths: Sequence[Path], counts: Sequence[int], shape: tuple[int, ...], dtype: np.dtype, load: Load
    ) -> None:
        self._paths, self._load = paths, load
        self._counts, self._starts = counts, np.cumsum([0, *counts])
        self.shape, self.dtype = (int(self._starts[-1]), *shape), dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for owner in np.unique(owners).tolist():
            mine = owners == owner
            with in_one_line(self._paths[owner]):
                values = self._load(self._paths[owner]).values
                if values.shape != (self._counts[owner], *self.shape[1:]):
                    raise InputError(f"{self._paths[owner]}: has changed since it was first read; restore it")
                found[mine] = values[rows[mine] - self._starts[owner]]
        return found
