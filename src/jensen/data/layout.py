"""Numbers of any dtype and rank become examples: which dtypes are kept, and which arrays are images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.reading import SPLITS, Kind, Layout, Reading, Refuse
from jensen.data.targets import standard_targets
from jensen.errors import InputError

CHANNELS = (1, 3, 4)
CHUNK = 1 << 24
CONTINUOUS = "y are floats, read as continuous targets; labels would be integers or strings"
_KINDS = {"U": "text", "f": "floats"}


@dataclass(frozen=True)
class Part:
    """One array of a source and the labels or targets beside it; `split` is the one that the source puts it in."""

    name: str
    values: np.ndarray
    labels: np.ndarray | None = None
    split: str | None = None


def assemble(kind: Kind, parts: Sequence[Part], options: ReadOptions, refuse: Refuse) -> Reading:
    """The reading of arrays that belong together: joined, arranged and given a dtype and levels by the stated rules."""
    first = parts[0]
    for part in parts:
        if part.values.ndim == 0 or part.values.size == 0:
            raise InputError(f"{part.name} has shape {part.values.shape}, so no examples; expected (N, ...)")
        if part.values.shape[1:] != first.values.shape[1:] or part.values.dtype != first.values.dtype:
            raise InputError(
                f"{part.name} holds examples {_described(part.values)} but {first.name} {_described(first.values)}; "
                "they must agree"
            )
    values = first.values if len(parts) == 1 else np.concatenate([part.values for part in parts])
    values, levels = standard_dtype(values, first.name, options, refuse)
    labels, label_names, targets = None, None, None
    try:
        labels, label_names, targets = _labels_or_targets(parts)
    except InputError as error:
        refuse(str(error))
    arranged, layout, note = arrange(values, first.name, options)
    supplied = None
    if len(parts) > 1:
        codes = [SPLITS.index(part.split or "train") for part in parts]
        supplied = np.repeat(np.array(codes, np.int8), [len(part.values) for part in parts])
    notes = (note,) if targets is None else (note, CONTINUOUS)
    return Reading(kind, layout, arranged, levels, labels, label_names, supplied, notes=notes, targets=targets)


def arrange(values: np.ndarray, name: str, options: ReadOptions) -> tuple[np.ndarray, Layout, str]:
    """Images as (N, C, H, W), vectors as (N, D), anything else as it is; and the rule that decided, in words."""
    shape = values.shape[1:]
    rank = {"vector": (1, None), "array": (1, None), "hw": (2, 2), "hwc": (3, 3), "chw": (3, 3), "auto": (1, None)}
    lowest, highest = rank[options.layout]
    if len(shape) < lowest or (highest is not None and len(shape) > highest):
        wanted = "(N, ...), examples first" if lowest == 1 else f"(N, {', '.join(options.layout.upper())})"
        advice = "reshape it to (N, 1) if each number is an example" if not shape else "give another --layout"
        raise InputError(f"{name} has shape {values.shape}; expected {wanted}: {advice}")
    choice = _automatic(shape, name) if options.layout == "auto" else options.layout
    if choice == "vector":
        return values.reshape(len(values), -1), "vector", f"examples of shape {shape} are read as vectors"
    if choice == "array":
        return values, "array", f"examples of shape {shape} are neither vectors nor images"
    arranged = {"hw": lambda: values[:, None], "hwc": lambda: np.moveaxis(values, -1, 1), "chw": lambda: values}[
        choice
    ]()
    if arranged.shape[1] not in CHANNELS:
        raise InputError(
            f"{name} read as --layout {choice} has {arranged.shape[1]} channels; an image has 1, 3 or 4: "
            "give another --layout"
        )
    meaning = {"hw": "height, width", "hwc": "height, width, channels", "chw": "channels, height, width"}[choice]
    return arranged, "image", f"examples of shape {shape} are read as images: {meaning}"


def _automatic(shape: tuple[int, ...], name: str) -> str:
    if len(shape) == 1:
        return "vector"
    if len(shape) == 2:
        return "hw"
    if len(shape) != 3:
        return "array"
    first, last = shape[0] in CHANNELS, shape[-1] in CHANNELS
    if first and last:
        raise InputError(
            f"{name} holds examples of shape {shape}, where the first or the last axis may be channels; "
            "give --layout chw or --layout hwc"
        )
    return "chw" if first else "hwc" if last else "array"


def standard_dtype(
    values: np.ndarray, name: str, options: ReadOptions, refuse: Refuse
) -> tuple[np.ndarray, int | None]:
    """The values as uint8, uint16 or float32, and their levels (None for floats).

    Booleans become 2 levels; other integers become the smaller of uint8 and uint16 that holds them all.
    """
    if values.dtype.kind == "f":
        return _floats(values, name, options.missing, refuse), None
    if values.dtype.kind == "b":
        if options.levels not in (None, 2):
            refuse(f"{name} holds booleans, which have 2 levels, not {options.levels}; convert it to uint8")
        return values.astype(np.uint8), 2
    if values.dtype.kind not in "iu":
        raise InputError(
            f"{name} holds {values.dtype}; expected integers or real floats: convert it to uint8, uint16 or float32"
        )
    if values.dtype.itemsize <= 2 and values.dtype.kind == "u":
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return _integers(native, name, options.levels or 256**native.itemsize, refuse)
    return _fitted(values, name, options.levels, refuse)


def _fitted(values: np.ndarray, name: str, levels: int | None, refuse: Refuse) -> tuple[np.ndarray, int]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"{name} holds {values.dtype} from {low} to {high}; integers must lie in 0..65535: "
            "shift them, or convert to float32 for data without levels"
        )
    levels = levels or (256 if high < 256 else 65536)
    return _integers(values.astype(np.uint8 if max(levels - 1, high) < 256 else np.uint16), name, levels, refuse)


def _integers(values: np.ndarray, name: str, levels: int, refuse: Refuse) -> tuple[np.ndarray, int]:
    if not 2 <= levels <= 65536:
        raise InputError(f"--levels {levels}: must be from 2 to 65536")
    highest = int(values.max())
    if highest >= levels:
        refuse(
            f"{name} holds {highest}, but with {levels} levels the highest is {levels - 1}; "
            f"rescale it or give --levels {highest + 1}"
        )
    return values, levels


def _floats(values: np.ndarray, name: str, missing: bool, refuse: Refuse) -> np.ndarray:
    """As float32; refuses infinite values, and NaN unless they stand for missing ones, and examples of NaN alone."""
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32, copy=False)
    flat_rows = max(1, CHUNK // max(1, values[0].size))
    bad, first = 0, None
    for start in range(0, len(values), flat_rows):
        block = converted[start : start + flat_rows]
        unusable = np.isinf(block) if missing else ~np.isfinite(block)
        empty = np.isnan(block).reshape(len(block), -1).all(1) if missing else np.zeros(1, bool)
        if empty.any():
            refuse(f"{name}: example {start + int(empty.argmax())} has no value at all, only NaN; leave it out")
        if count := int(unusable.sum()):
            if first is None:
                row, *rest = (int(axis[0]) for axis in np.nonzero(unusable))
                first = (start + row, *rest)
            bad += count
    if first is not None:
        refuse(
            f"{name}: {bad} of its {values.size} values are {'' if missing else 'NaN, '}infinite or beyond float32, "
            f"the first in example {first[0]} at {first[1:]}; remove or replace them"
        )
    return converted


def standard_labels(labels: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as (N,) int64 >= 0; strings become the ranks of their sorted distinct values, which are the names.

    So do integers that leave out any number from 0 to the largest: nobody is asked for a class without examples.
    """
    if labels.ndim != 1:
        raise InputError(f"{name} have shape {labels.shape}; expected one label per example, shape (N,)")
    if labels.dtype.kind == "U":
        words, ranks = np.unique(labels, return_inverse=True)
        return ranks.astype(np.int64), tuple(str(word) for word in words)
    if labels.dtype.kind not in "biu":
        raise InputError(f"{name} are {labels.dtype}; expected integers or strings: convert them with astype")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= 2**31:
        raise InputError(f"{name} go from {low} to {high}; expected 0 or more, below 2^31: number them anew")
    numbers, ranks = np.unique(labels, return_inverse=True)
    names = None if len(numbers) == high + 1 else tuple(str(int(number)) for number in numbers)
    return ranks.astype(np.int64), names


def _labels_or_targets(
    parts: Sequence[Part],
) -> tuple[np.ndarray | None, tuple[str, ...] | None, np.ndarray | None]:
    """Labels and their names, or targets: integers and strings are labels, floats targets."""
    columns = [None if part.labels is None else _column(part.labels) for part in parts]
    present = [column for column in columns if column is not None]
    if not present:
        return None, None, None
    for part, column in zip(parts, columns, strict=True):
        what = "targets" if present[0].dtype.kind == "f" else "labels"
        if column is None:
            raise InputError(f"{part.name} has no {what} but others beside it have; give {what} for all or none")
        if len(column) != len(part.values):
            raise InputError(
                f"{part.name} holds {len(part.values)} examples but {len(column)} {what}; there must be one for each"
            )
    if len({(column.shape[1:], _KINDS.get(column.dtype.kind)) for column in present}) > 1:
        raise InputError(f"the labels of {parts[0].name} and {parts[1].name} are of different kinds; they must agree")
    joined = np.concatenate(present)
    if joined.dtype.kind == "f":
        return None, None, standard_targets(joined, f"the targets of {parts[0].name}")
    return *standard_labels(joined, f"the labels of {parts[0].name}"), None


def _column(labels: np.ndarray) -> np.ndarray:
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else np.atleast_1d(labels)


def _described(values: np.ndarray) -> str:
    return f"of shape {values.shape[1:]} and dtype {values.dtype}"
