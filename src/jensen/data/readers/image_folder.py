"""Images in a folder, a zip or tar archives: class folders or metadata give labels; the order is that of the names."""

import mimetypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.encoded import AbstractPictures, gather
from jensen.data.readers.entries import AT_ONCE, Entry
from jensen.data.readers.image import IN_WORDS, SUFFIXES, frames
from jensen.data.readers.kinds import ENOUGH, identify
from jensen.data.readers.layout import Part, labels_or_targets
from jensen.data.readers.metadata import read_metadata
from jensen.data.readers.reading import SPLIT_NAMES, SPLITS, Reading, Refuse
from jensen.errors import AbsentColumnError, InputError

MANY_PAGED = (".tif", ".tiff", ".gif")


def read_images(source: str, entries: Sequence[Entry], options: ReadOptions, refuse: Refuse) -> Reading:
    """Read the images among `entries`, in the order of `entries`.

    Every page of a TIFF file is an example. An unusable image is refused or, with `skip_bad`, left out and counted.
    Files of other kinds (notes, tables) are ignored, and a note names them.
    """
    images = [entry for entry in entries if entry.suffix in SUFFIXES]
    if not images:
        raise no_images(source, entries, f"expected {IN_WORDS}")
    others = [entry for entry in entries if entry.suffix not in SUFFIXES]
    strange = [entry for entry in others if (mimetypes.guess_type(entry.name)[0] or "").startswith("image/")]
    strangers = [f"{entry.shown}: is {_format(entry)}, not {IN_WORDS}" for entry in strange]
    pages = Pages(images)
    found = gather(pages, options, refuse, source, strangers)
    kept = [pages.entry(number) for number in found.kept]
    labels, names, supplied, note = labels_from_folders([entry.parts for entry in kept])
    targets = None
    metadata = read_metadata(entries, images, refuse)
    if metadata is None and options.labels is not None:
        none = f"--labels is for images with a metadata.csv or .jsonl, and {source} has none; leave it out"
        raise AbsentColumnError(none, "labels")
    notes: tuple[str, ...] = ()
    if metadata is not None:
        column = metadata.column(kept, options, refuse)
        if column is None:
            notes = (metadata.no_column(),)
        else:
            note, notes = note.split("; ")[0], (column[1],)
            try:
                labels, names, targets = labels_or_targets([Part(source, found.values, column[0])])
            except InputError as error:
                refuse(str(error))
    described = metadata.names if metadata else set()
    passed_over = _passed_over([entry for entry in others if entry not in strange and entry.name not in described])
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
        (note, *notes, *pages.notes(), *passed_over, *found.notes),
        targets,
        names=lambda row: pages.row(int(found.kept[row])),
        file=lambda row: kept[row].name,
    )


class Pages(AbstractPictures):
    """The images in files: the pages of TIFF files, and one image of every other file."""

    def __init__(self, files: Sequence[Entry]) -> None:
        self._files = files
        counts = np.ones(len(files), np.int64)
        paged = [number for number, entry in enumerate(files) if entry.suffix in MANY_PAGED]
        self._moving: list[Entry] = []
        with ThreadPoolExecutor(AT_ONCE, "jensen-pages") as threads:
            for number, (count, moves) in zip(paged, threads.map(self._frames, paged), strict=True):
                counts[number] = count
                if moves:
                    self._moving.append(files[number])
        self._counts, self._starts = counts, np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def entry(self, number: int) -> Entry:
        """The file of image `number`."""
        return self._files[self._place(number)[0]]

    def row(self, number: int) -> str:
        """The name of image `number` relative to the folder or archive."""
        return self._named(number, self.entry(number).name)

    def name(self, number: int) -> str:
        return self._named(number, self.entry(number).shown)

    def open(self, number: int) -> IO[bytes]:
        return self.entry(number).open()

    def page(self, number: int) -> int | None:
        file, page = self._place(number)
        return page if self._counts[file] > 1 else None

    def notes(self) -> tuple[str, ...]:
        """One line about files of several pages, and one about animated files."""
        several = np.flatnonzero(self._counts > 1)
        found = []
        if len(several):
            found.append(
                f"every page is an example; files with several pages: {len(several)}, such as "
                f"{self._files[several[0]].name} with {self._counts[several[0]]}"
            )
        if self._moving:
            found.append(
                f"the first frame of an animation is the example; animated GIF files: {len(self._moving)}, such as "
                f"{self._moving[0].name}"
            )
        return tuple(found)

    def _frames(self, number: int) -> tuple[int, bool]:
        with suppress(InputError, OSError), self._files[number].open() as stream:
            return frames(stream)
        return 1, False  # decoding reports the problem

    def _place(self, number: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._starts, number, side="right")) - 1
        return file, number - int(self._starts[file])

    def _named(self, number: int, name: str) -> str:
        page = self.page(number)
        return name if page is None else f"{name} page {page}"


def labels_from_folders(
    parts: list[tuple[str, ...]],
) -> tuple[np.ndarray | None, tuple[str, ...] | None, np.ndarray | None, str]:
    """Derive labels, their names and the supplied splits from the relative paths of images.

    A top folder train, validation or test gives the split. The next folder gives the label, provided that every image
    has such a next folder. The last value of the result is a note on the applied rule.
    """
    tops = {path[0].lower() for path in parts if len(path) > 1}
    supplied, note = None, "no supplied splits"
    if all(len(path) > 1 for path in parts) and tops <= set(SPLIT_NAMES):
        codes = [SPLITS.index(SPLIT_NAMES[path[0].lower()]) for path in parts]
        if "train" in tops and len(tops) > 1:
            supplied, note = np.array(codes, np.int8), f"splits are the folders {', '.join(sorted(tops))}"
        else:
            note = f"splits are drawn from the folder {' and '.join(sorted(tops))}, which is no class"
        parts = [path[1:] for path in parts]
    nested = sum(len(path) > 1 for path in parts)
    if nested < len(parts):
        reason = f"{len(parts) - nested} images lie in no class folder" if nested else "there are no class folders"
        return None, None, supplied, f"{note}; no labels: {reason}"
    names, ranks = np.unique([path[0] for path in parts], return_inverse=True)
    return ranks.astype(np.int64), tuple(str(name) for name in names), supplied, f"{note}; labels are the class folders"


def _format(entry: Entry) -> str:
    kind = _identified(entry)
    return kind[0] if kind else "an image in another format"


def _identified(entry: Entry) -> tuple[str, str] | None:
    with entry.open() as stream:
        return identify(stream.read(ENOUGH))


def no_images(source: str, entries: Sequence[Entry], expected: str) -> InputError:
    """The error for a folder or archive without any supported file; it names the kind of the first file."""
    endings = ", ".join(sorted({entry.suffix or entry.parts[-1] for entry in entries})[:5])
    if not entries:
        return InputError(f"{source}: holds no files; {expected}")
    kind = _identified(entries[0])
    advice = f"{entries[0].name} is {kind[0]}: {kind[1]}" if kind else "name other data"
    return InputError(f"{source}: holds no images or other files that are read, only {endings}; {advice} ({expected})")


def _passed_over(entries: Sequence[Entry]) -> tuple[str, ...]:
    more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
    return (f"ignored, not images: {entries[0].parts[-1]}{more}",) if entries else ()
