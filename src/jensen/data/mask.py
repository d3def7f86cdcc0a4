"""Masks of the observed entries of examples, from a file or by the name of a pattern.

A mask may hide a whole example; the imputation is then a draw from p(x).

| MASK         | observed                                                                                         |
|--------------|--------------------------------------------------------------------------------------------------|
| `half:left`  | all but the left half; also right, of images and volumes top and bottom, of volumes front, back  |
| `centre`     | images, signals, volumes: all but a part in the middle, half as long as each side                |
| `random:0.5` | each pixel (all its channels), number or cell with probability 0.5, independently for each example |
| a PNG        | images: the black pixels; white ones are missing, as in programs for inpainting                  |
| .npy, .npz   | entries that are True or 1; of the shape of one example, or of all; channels may be left out     |
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jensen.data.options import ReadOptions
from jensen.data.readers.image import decode_image
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.randomness import Stream, derived_seed, uniform_per_example

SIDES = {
    "left": (-1, False),
    "right": (-1, True),
    "top": (-2, False),
    "bottom": (-2, True),
    "front": (-3, False),
    "back": (-3, True),
}
"""Axis of a half, and whether it is the second half."""
OPAQUE = 255  # highest 8-bit value: opaque as transparency, white as a colour
HIDING = 0  # purpose of the random numbers of masks, which are independent of the imputations' random numbers


def masked(
    raw: Tensor, mask: str | np.ndarray | Tensor | None, spec: DataSpec, total: int, rows: Sequence[int], seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Two bool arrays of the shape of the raw examples: whether each entry is observed, and whether it is known.

    An entry is known if it is not NaN. A known entry is observed if `mask` does not hide it; for `mask` see
    `read_mask`. Raises `InputError` if all entries are observed.
    """
    known = ~raw.isnan() if raw.is_floating_point() else torch.ones(raw.shape, dtype=torch.bool)
    observed = known
    if mask is not None:
        observed = known & torch.from_numpy(read_mask(mask, spec, total, rows, seed))
    if bool(observed.all()):
        nothing = f"--mask {mask if isinstance(mask, str) else 'array'} hides nothing"
        source = "no value is missing and no --mask hides any" if mask is None else nothing
        raise InputError(f"{source}; there is nothing to impute: give a --mask, say half:right or random:0.5")
    return observed, known


def read_mask(
    mask: str | np.ndarray | Tensor, spec: DataSpec, total: int, rows: Sequence[int], seed: int = 0
) -> np.ndarray:
    """The mask of observed entries, bool (len(rows), *shape), for the examples whose indices are in `rows`.

    `mask` is a pattern, a file, or an array in memory. A file or an array holds one mask for all examples, or one mask
    for each of the `total` examples. Raises `InputError` for an unknown pattern, and for a file or array that does not
    fit the shape of the examples.
    """
    if not isinstance(mask, str):
        return _of_rows(_fitted("mask", np.asarray(mask), spec, total), rows, total)
    if Path(mask).suffix.lower() in (".png", ".npy", ".npz"):
        return _of_rows(_from_file(Path(mask), spec, total), rows, total)
    name, _, detail = mask.partition(":")
    if name != "random":
        return np.broadcast_to(_pattern(mask, name, detail, spec), (len(rows), *spec.shape)).copy()
    return _random(mask, detail, spec, rows, seed)


def _pattern(mask: str, name: str, detail: str, spec: DataSpec) -> np.ndarray:
    observed = np.ones(spec.shape, bool)
    if f"half:{detail}" == mask and mask in _patterns(spec):
        axis, second = SIDES[detail]
        across = np.moveaxis(observed, axis, 0)  # a view
        middle = len(across) // 2
        across[slice(middle, None) if second else slice(middle)] = False
    elif name == "centre" and not detail and spec.pictured:
        box = tuple(slice(side // 4, side // 4 + side // 2) for side in _places(spec))
        observed[(slice(None), *box)] = False
    elif name in ("half", "centre"):
        raise InputError(
            f"--mask {mask}: not a pattern for examples of shape {spec.shape} read as {spec.layout}; {_expected(spec)}"
        )
    else:
        raise InputError(f"--mask {mask}: neither a pattern nor a file of a known kind; {_expected(spec)}")
    return observed


def _patterns(spec: DataSpec) -> list[str]:
    """The patterns that suit the examples."""
    axes = max(1, len(_places(spec)))
    halves = [f"half:{side}" for side, (axis, _) in SIDES.items() if -axis <= axes]
    return [*halves, *["centre"] * spec.pictured, "random:0.5"]


def _expected(spec: DataSpec) -> str:
    image = "a PNG of the size of the images, " if spec.layout == "image" else ""
    return f"MASK is {', '.join(_patterns(spec))}, {image}or an .npy or .npz of booleans"


def _places(spec: DataSpec) -> tuple[int, ...]:
    """The lengths of the axes after the channels; none if an example has no axis of channels."""
    return spec.shape[1:] if spec.pictured else ()


def _random(mask: str, detail: str, spec: DataSpec, rows: Sequence[int], seed: int) -> np.ndarray:
    try:
        missing = float(detail)
    except ValueError:
        missing = float("nan")
    if not 0 < missing < 1:
        raise InputError(
            f"--mask {mask}: expected the probability of a missing value between 0 and 1, as in random:0.5"
        )
    shape = (1, *_places(spec)) if spec.pictured else spec.shape
    if spec.table is not None:  # the fields of a column are missing together
        u = uniform_per_example(derived_seed(seed, Stream.IMPUTATION, HIDING), rows, (len(spec.table.columns),)).numpy()
        return (u >= missing)[:, [field.column for field in spec.table.fields]]
    u = uniform_per_example(derived_seed(seed, Stream.IMPUTATION, HIDING), rows, shape).numpy()
    return np.broadcast_to(u >= missing, (len(rows), *spec.shape)).copy()


def _from_file(path: Path, spec: DataSpec, total: int) -> np.ndarray:
    """The mask in a file, of shape (1, *shape) or (total, *shape)."""
    if not path.is_file():
        raise InputError(f"--mask {path}: no such file; {_expected(spec)}")
    values = _picture(path, spec) if path.suffix.lower() == ".png" else _array(path)
    return _fitted(f"--mask {path}", values, spec, total)


def _of_rows(found: np.ndarray, rows: Sequence[int], total: int) -> np.ndarray:
    """The masks of the examples `rows`, from masks of shape (1, *shape) or (total, *shape)."""
    return found[list(rows)] if len(found) > 1 or total == 1 else found.repeat(len(rows), 0)


def _fitted(name: str, values: np.ndarray, spec: DataSpec, total: int) -> np.ndarray:
    """The mask in the shape (1, *shape) or (total, *shape)."""
    if values.dtype.kind not in "biu" or values.size == 0 or not ((values == 0) | (values == 1)).all():
        raise InputError(f"{name}: holds {values.dtype}; expected booleans, True where observed: convert it")
    values = values.astype(bool)
    plain = {spec.shape, _places(spec)} if spec.pictured else {spec.shape}
    if values.shape in plain:
        return np.broadcast_to(values, (1, *spec.shape))
    if values.shape[1:] in plain and len(values) == total:
        lead = values.reshape(total, *[1] * (len(spec.shape) - values.ndim + 1), *values.shape[1:])
        return np.broadcast_to(lead, (total, *spec.shape))
    raise InputError(
        f"{name}: has shape {values.shape}; expected that of an example, {spec.shape}, or of all {total}, "
        f"{(total, *spec.shape)}; give it the shape of the data"
    )


def _picture(path: Path, spec: DataSpec) -> np.ndarray:
    if spec.layout != "image":
        raise InputError(f"--mask {path}: examples of shape {spec.shape} are not images; give an .npy of booleans")
    picture = decode_image(path, ReadOptions(colour="rgba"))
    if picture.shape[1:] != spec.shape[-2:]:
        raise InputError(
            f"--mask {path}: is {picture.shape[1]} high and {picture.shape[2]} wide, the images are "
            f"{spec.shape[-2]} high and {spec.shape[-1]} wide; give it their size"
        )
    *colours, opacity = picture
    if (opacity < OPAQUE).any() or any((colour != colours[0]).any() for colour in colours):
        raise InputError(f"--mask {path}: is coloured or transparent in places; expected black and white: convert it")
    return colours[0] <= OPAQUE // 2


def _array(path: Path) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            names = ["mask"] if "mask" in found.files else found.files
            arrays = [found[name] for name in names[:2]]
    except Exception as error:  # NumPy and zipfile raise many kinds of error, all caused by the file
        raise InputError(
            f"--mask {path}: cannot be read ({' '.join(str(error).split())}); write it with numpy"
        ) from error
    if len(arrays) != 1:
        raise InputError(f"--mask {path}: holds several arrays or none; name the array of the mask mask")
    return np.asarray(arrays[0])
