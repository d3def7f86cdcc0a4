"""Folders of PNG, JPEG and WebP images: class folders become labels, and examples are in the order of file names."""

import mimetypes
from pathlib import Path

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.encoded import PictureFiles, gather
from jensen.data.readers.kinds import identify_file
from jensen.data.readers.reading import SPLIT_NAMES, SPLITS, Reading, Refuse
from jensen.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_images(folder: Path, paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """The images among `paths`, which all lie below `folder`, in the order of their paths relative to it.

    An unusable image is refused or, with `skip_bad`, left out and counted. Files of other kinds (notes, tables) are
    ignored, and a note names them.
    """
    images = [path for path in paths if path.suffix.lower() in SUFFIXES]
    if not images:
        raise _no_images(folder, paths)
    others = [path for path in paths if path.suffix.lower() not in SUFFIXES]
    strange = [path for path in others if (mimetypes.guess_type(path.name)[0] or "").startswith("image/")]
    strangers = [f"{path}: is {_format(path)}, not PNG, JPEG or WebP" for path in strange]
    found = gather(PictureFiles(images), options, refuse, str(folder), strangers)
    kept = [images[number] for number in found.kept]
    labels, names, supplied, note = labels_from_folders([path.relative_to(folder).parts for path in kept])
    return Reading(
        "images",
        "image",
        found.values,
        found.survey,
        found.levels,
        labels,
        names,
        supplied,
        len(found.left_out),
        (note, *_passed_over(sorted(set(others) - set(strange))), *found.notes),
        names=lambda row: str(kept[row].relative_to(folder)),
        file=lambda row: str(kept[row].relative_to(folder)),
    )


def labels_from_folders(
    parts: list[tuple[str, ...]],
) -> tuple[np.ndarray | None, tuple[str, ...] | None, np.ndarray | None, str]:
    """Labels, names of labels and supplied splits from the relative paths of images, and a note on the applied rule.

    Folders train and test (or validation) at the top are splits. The next folder is the class if every image lies in
    such a folder.
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


def _format(path: Path) -> str:
    kind = identify_file(path)
    return kind[0] if kind else "an image in another format"


def _no_images(folder: Path, paths: list[Path]) -> InputError:
    """The error for a folder without any supported file; it names the kind of the first file."""
    kind = identify_file(paths[0])
    endings = ", ".join(sorted({path.suffix or path.name for path in paths})[:5])
    advice = f"{paths[0].relative_to(folder)} is {kind[0]}: {kind[1]}" if kind else "name another folder"
    return InputError(f"{folder}: holds no PNG, JPEG, WebP, IDX, Parquet or Arrow files, only {endings}; {advice}")


def _passed_over(paths: list[Path]) -> tuple[str, ...]:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (f"ignored, not images: {paths[0].name}{more}",) if paths else ()
