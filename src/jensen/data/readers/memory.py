"""Arrays in memory: read by the same rules as .npy and .npz files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jensen.data.options import DEFAULTS, ReadOptions
from jensen.data.readers.array_names import choose_arrays, split_of
from jensen.data.readers.layout import Part, assemble, cells_of_parts
from jensen.data.readers.numpy_files import refuse_unusable_array
from jensen.data.readers.reading import Reading, Refuse, numbered_rows
from jensen.data.readers.tables import Cells, are_columns, array_cells, matrix_cells, read_table, table_package
from jensen.data.table.frames import Frame, is_frame, to_arrow
from jensen.errors import InputError

Array = np.ndarray | Tensor
Source = str | Path | Array | Mapping[str, Array] | Frame
"""DATA: a path or `digits`, or in memory one array, a dict of arrays with the keys of an .npz, or a DataFrame."""

MEMORY = "memory"
"""The name of arrays in memory, which stands in a recipe and a `DataSpec` in place of a path."""


def source_name(source: Source) -> str:
    """The name of DATA in messages and records: the path as given, `digits`, or `memory`."""
    return str(source) if isinstance(source, str | Path) else MEMORY


def read_arrays(source: Any, options: ReadOptions, refuse: Refuse) -> Reading:
    """The examples of one array or tensor, or of a dict of arrays or tensors with the keys of an .npz.

    Raises InputError for anything else. Arrays are not copied, so they must not change while a run uses them.
    """
    if is_frame(source) or (isinstance(source, Mapping) and are_columns(source)):
        return read_table(cells_in_memory(source), options)
    if not isinstance(source, Mapping):
        return assemble("array in memory", [Part(MEMORY, _array(MEMORY, source))], options, refuse)
    if strange := [name for name in source if not isinstance(name, str)]:
        raise InputError(f"{MEMORY}: has the key {strange[0]!r}; expected strings such as x and y")
    chosen = choose_arrays(list(source), options, MEMORY)
    parts = [
        Part(
            f"{MEMORY}: {name}",
            _array(f"{MEMORY}: {name}", source[name]),
            _array(f"{MEMORY}: {beside}", source[beside]) if beside else None,
            split_of(name),
        )
        for name, beside in chosen
    ]
    reading = assemble("arrays in memory", parts, options, refuse)
    counts = [(name, len(part.values)) for (name, _), part in zip(chosen, parts, strict=True)]
    used = {name for pair in chosen for name in pair} if len(chosen) == 1 else source.keys()
    keys = {name: partial(_array, f"{MEMORY}: {name}", source[name]) for name in source if name not in used}
    return replace(reading, names=numbered_rows(counts), keys=keys)


def cells_in_memory(source: Any) -> Cells:
    """The cells of a DataFrame, of a dict of columns, or of an array (N, D). Raises InputError for anything else."""
    if is_frame(source):
        table_package(MEMORY)
        return Cells(MEMORY, to_arrow(source))
    if isinstance(source, Mapping):
        arrays = {name: _array(f"{MEMORY}: {name}", array) for name, array in source.items()}
        if are_columns(arrays):
            return array_cells(MEMORY, arrays)
        (x, y), *_ = choose_arrays(list(arrays), DEFAULTS, MEMORY)
        return cells_of_parts([Part(MEMORY, arrays[x], arrays[y] if y else None)])
    return matrix_cells(MEMORY, _array(MEMORY, source))


def _array(name: str, given: Any) -> np.ndarray:
    """The given array as a NumPy array, without a copy if possible."""
    if isinstance(given, Tensor):
        array = _from_tensor(name, given)
    elif isinstance(given, np.ma.MaskedArray):
        raise InputError(f"{name}: is a masked array; fill it, with NaN where values are missing (missing=True)")
    elif isinstance(given, np.ndarray):
        array = np.asarray(given)
    elif isinstance(given, list | tuple) and given and all(isinstance(one, np.ndarray | Tensor) for one in given):
        raise InputError(f"{name}: is a {type(given).__name__} of {_described(given)}")
    else:
        raise InputError(
            f"{name}: is of type {type(given).__name__}; expected a path, a NumPy array, a tensor, a dict of arrays or "
            "a DataFrame: convert it with numpy.asarray"
        )
    refuse_unusable_array(name, array.shape, array.dtype, "Python objects")
    return array


def _described(given: Sequence[Array]) -> str:
    """The arrays of a list, in words, and what to do with them."""
    shapes = list(dict.fromkeys(tuple(one.shape) for one in given))
    if len(shapes) == 1:
        return f"{len(given)} arrays of shape {shapes[0]}; expected one array: join them with numpy.stack"
    return (
        f"{len(given)} arrays of {len(shapes)} shapes, such as {shapes[0]} and {shapes[1]}; expected one array: cut or "
        "pad them to one shape, then join them with numpy.stack"
    )


def _from_tensor(name: str, tensor: Tensor) -> np.ndarray:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise InputError(f"{name}: is a sparse, quantised or meta tensor; convert it to a dense one of plain numbers")
    known_to_numpy = tensor.dtype in (torch.float16, torch.float32, torch.float64)
    if tensor.is_floating_point() and not known_to_numpy:  # bfloat16 and shorter: float32 holds them exactly
        tensor = tensor.float()
    return tensor.numpy(force=True)
