"""Folders of PNG, JPEG and WebP images: class folders become labels, and the order is that of the names."""

import mimetypes
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jensen.data.decode import decode_image
from jensen.data.options import ReadOptions
from jensen.data.reading import SPLIT_NAMES, SPLITS, Reading, Refuse
from jensen.errors import InputError
from jensen.progress import track

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
AT_ONCE = 64
GREATEST_SIZE = 16384


def read_images(folder: Path, paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """The images among `paths`, all below `folder`, in the order of their names relative to it.

    An image that cannot be used is refused, or left out and counted under `skip_bad`. Files that are no images (notes,
    tables) are passed over and named in a note.
    """
    images = [path for path in paths if path.suffix.lower() in SUFFIXES]
    if not images:
        kinds = ", ".join(sorted({path.suffix or path.name for path in paths})[:5])
        raise InputError(f"{folder}: holds no PNG, JPEG, WebP or IDX files, only {kinds}; name a folder that does")
    _check_size(options)
    gathered = _Gathered(options, refuse)
    others = [path for path in paths if path.suffix.lower() not in SUFFIXES]
    strangers = [path for path in others if (mimetypes.guess_type(path.name)[0] or "").startswith("image/")]
    for path in strangers:
        gathered.leave_out(f"{path}: is not a PNG, JPEG or WebP image")
    for path, decoded in track(_decoded(images, options), "reading images", len(images)):
        gathered.take(path, decoded, len(images))
    if not gathered.kept:
        raise InputError(f"{folder}: none of its {len(images)} images can be used; the first: {gathered.left_out[0]}")
    labels, names, supplied, note = labels_from_folders([path.relative_to(folder).parts for path in gathered.kept])
    values = gathered.values[: len(gathered.kept)]
    levels = 256 if values.dtype == np.uint8 else 65536
    notes = (
        note,
        *_passed_over(sorted(set(others) - set(strangers))),
        *(f"left out: {problem}" for problem in gathered.left_out if options.skip_bad),
    )
    return Reading("images", "image", values, levels, labels, names, supplied, len(gathered.left_out), notes)


@dataclass
class _Gathered:
    """The images so far, all of the first one's shape and dtype, and what could not be used."""

    options: ReadOptions
    refuse: Refuse
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    kept: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, problem: str) -> None:
        self.left_out.append(problem)
        if not self.options.skip_bad:
            self.refuse(f"{problem}; mend or remove it, or give --skip-bad")

    def take(self, path: Path, decoded: np.ndarray | InputError, total: int) -> None:
        if isinstance(decoded, InputError):
            self.leave_out(str(decoded))
            return
        if not self.kept:
            self.values = np.empty((total, *decoded.shape), decoded.dtype)
        first = self.values[0]
        if decoded.shape[1:] != first.shape[1:]:
            self.refuse(
                f"{path}: is {_size(decoded)} but {self.kept[0]} is {_size(first)} (height x width); "
                f"give --size {first.shape[1]} {first.shape[2]}, or another size for all"
            )
        elif (decoded.shape, decoded.dtype) != (first.shape, first.dtype):
            self.refuse(
                f"{path}: is {_colours(decoded)} but {self.kept[0]} is {_colours(first)}; "
                + ("convert it" if np.uint16 in (decoded.dtype, first.dtype) else "give --colour grey, rgb or rgba")
            )
        else:
            self.values[len(self.kept)] = decoded
            self.kept.append(path)


def labels_from_folders(
    parts: list[tuple[str, ...]],
) -> tuple[np.ndarray | None, tuple[str, ...] | None, np.ndarray | None, str]:
    """Labels, their names and supplied splits from the relative paths of images; and the rule that decided, in words.

    Folders train and test (or validation) at the top are splits. Then the first folder is the class, where every
    image lies in one.
    """
    tops = {path[0].lower() for path in parts if len(path) > 1}
    supplied, note = None, "no supplied splits"
    if all(len(path) > 1 for path in parts) and "train" in tops and len(tops) > 1 and tops <= set(SPLIT_NAMES):
        codes = [SPLITS.index(SPLIT_NAMES[path[0].lower()]) for path in parts]
        supplied, note = np.array(codes, np.int8), f"splits are the folders {', '.join(sorted(tops))}"
        parts = [path[1:] for path in parts]
    nested = sum(len(path) > 1 for path in parts)
    if nested < len(parts):
        reason = f"{len(parts) - nested} images lie in no class folder" if nested else "there are no class folders"
        return None, None, supplied, f"{note}; no labels: {reason}"
    names, ranks = np.unique([path[0] for path in parts], return_inverse=True)
    return ranks.astype(np.int64), tuple(str(name) for name in names), supplied, f"{note}; labels are the class folders"


def _passed_over(paths: list[Path]) -> tuple[str, ...]:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (f"passed over, being no images: {paths[0].name}{more}",) if paths else ()


def _decoded(paths: list[Path], options: ReadOptions) -> Iterator[tuple[Path, np.ndarray | InputError]]:
    """Every path with its pixels or with what is wrong with it, in order, decoded by a few threads."""

    def decode(path: Path) -> np.ndarray | InputError:
        try:
            return decode_image(path, options)
        except InputError as error:
            return error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), AT_ONCE):
            block = paths[start : start + AT_ONCE]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; large ones are refused
                decoded = list(pool.map(decode, block))
            yield from zip(block, decoded, strict=True)


def _check_size(options: ReadOptions) -> None:
    if options.size is not None and not all(1 <= length <= GREATEST_SIZE for length in options.size):
        height, width = options.size
        raise InputError(f"--size {height} {width}: height and width must be from 1 to {GREATEST_SIZE}")


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[2]}"


def _colours(pixels: np.ndarray) -> str:
    return f"{8 * pixels.itemsize}-bit {({1: 'grey', 3: 'RGB', 4: 'RGBA'})[len(pixels)]}"
