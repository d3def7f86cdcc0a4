"""Encoded images in files or tables: decoded in order by a few threads, into memory or on demand."""

import os
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import IO

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.image import decode, widened
from jensen.data.readers.reading import Refuse
from jensen.data.stored import AbstractRows, Values
from jensen.data.survey import Survey, survey
from jensen.errors import InputError
from jensen.progress import track

AT_ONCE = 64
GREATEST_SIZE = 16384


class AbstractPictures(ABC):
    """A sequence of encoded images."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def name(self, number: int) -> str:
        """The name of image `number`, for messages."""

    @abstractmethod
    def open(self, number: int) -> IO[bytes]:
        """The file of the encoded image."""

    def page(self, number: int) -> int | None:
        """The page of the image in its file; None if the file must have one page."""
        return None


class PictureRows(AbstractRows):
    """Images of one size and kind, (N, C, H, W), decoded on demand."""

    def __init__(
        self,
        pictures: AbstractPictures,
        kept: np.ndarray,
        channels: np.ndarray,
        options: ReadOptions,
        shape: tuple[int, ...],
        dtype: np.dtype,
    ) -> None:
        self._pictures, self._kept, self._channels, self._options = pictures, kept, channels, options
        self.shape, self.dtype = (len(kept), *shape), dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, pixels in enumerate(self._threads.map(self._decoded, rows.tolist())):
            found[place] = pixels
        return found

    def _decoded(self, row: int) -> np.ndarray:
        number, channels = int(self._kept[row]), int(self._channels[row])
        pixels = _decoded(self._pictures, number, self._options)
        if isinstance(pixels, InputError):
            raise pixels
        if (pixels.shape, pixels.dtype) != ((channels, *self.shape[2:]), self.dtype):
            raise InputError(f"{self._pictures.name(number)}: has changed since it was first read; restore it")
        return widened(pixels, self.shape[1])

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return _decoders()


@dataclass(frozen=True)
class Gathered:
    """The usable images, all of one size and kind, and the problems of the other images."""

    values: Values
    survey: Survey
    kept: np.ndarray
    """The numbers of the images that are kept."""
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    levels: int | None
    """The number of levels of a pixel; None for floats."""


def gather(
    pictures: AbstractPictures, options: ReadOptions, refuse: Refuse, source: str, strangers: Sequence[str] = ()
) -> Gathered:
    """Decode every image once.

    An unusable image is refused or, with `skip_bad`, left out and counted. `strangers` are the problems of files of
    other kinds; such files are not opened. Raises InputError if no image is left.
    """
    _check_size(options)
    gathering = _Gathering(pictures, options, refuse)
    for problem in strangers:
        gathering.leave_out(problem)
    for number, decoded in track(_all_decoded(pictures, options), "reading images", len(pictures)):
        gathering.take(number, decoded)
    if not gathering.kept:
        first = gathering.left_out[0]
        raise InputError(f"{source}: none of its {len(pictures)} images can be used; the first: {first}")
    return gathering.gathered()


class _Gathering:
    """The images decoded so far; their pixels are kept only if examples are held in memory."""

    def __init__(self, pictures: AbstractPictures, options: ReadOptions, refuse: Refuse) -> None:
        self._pictures, self._options, self._refuse = pictures, options, refuse
        self.kept: list[int] = []
        self.left_out: list[str] = []
        self._channels: list[int] = []
        self._colours: Counter[str] = Counter()
        self._waiting: list[np.ndarray] = []

    def take(self, number: int, decoded: np.ndarray | InputError) -> None:
        """Adds the next image, or notes its problem."""
        if isinstance(decoded, InputError):
            self.leave_out(str(decoded))
            return
        if not self.kept:
            self._begin(decoded)
        channels, colours = len(decoded), _colours(decoded.shape, decoded.dtype)
        same_size = decoded.shape[1:] == self._shape[1:]
        if same_size and decoded.dtype == self._dtype == np.uint8 and self._options.colour == "as-is":
            decoded = self._agreed(decoded)
        if problem := self._difference(number, decoded):
            self._refuse(problem)
            return
        self.kept.append(number)
        self._channels.append(channels)
        self._colours[colours] += 1
        self._waiting.append(decoded)
        if len(self._waiting) == AT_ONCE:
            self._put_down()

    def leave_out(self, problem: str) -> None:
        """Refuses an image for its problem or, with `skip_bad`, counts it."""
        self.left_out.append(problem)
        if not self._options.skip_bad:
            self._refuse(f"{problem}; mend or remove it, or give --skip-bad")

    def gathered(self) -> Gathered:
        """The result, after the last image."""
        self._put_down()
        kept = np.array(self.kept)
        values: Values
        if self._values is None:
            channels = np.array(self._channels, np.uint8)
            values = PictureRows(self._pictures, kept, channels, self._options, self._shape, self._dtype)
        else:
            values = self._values[: len(kept)]
        found = self._survey if len(kept) == len(self._pictures) and len(self._colours) == 1 else survey(values)
        notes = [f"left out: {problem}" for problem in self.left_out if self._options.skip_bad]
        if len(self._colours) > 1:
            counted = ", ".join(f"{count} {colours}" for colours, count in self._colours.most_common())
            notes.append(f"all images are read as {_colours(self._shape, self._dtype)}, which loses nothing: {counted}")
        if bad := found.infinite + found.missing:
            first = min(filter(None, (found.first_infinite, found.first_missing)))
            name = self._pictures.name(self.kept[first[0]])
            self._refuse(f"{name}: is the first of the images with NaN or infinite values, {bad} in all; replace them")
        return Gathered(values, found, kept, tuple(self.left_out), tuple(notes), self._levels(found))

    def _levels(self, found: Survey) -> int | None:
        """The levels of the option, or else those of the dtype. Refuses pixels at or above the levels."""
        if self._dtype.kind == "f":
            return None
        levels = self._options.levels or 1 << (8 * self._dtype.itemsize)
        if found.maximum >= levels or not 2 <= levels <= 1 << (8 * self._dtype.itemsize):
            self._refuse(
                f"--levels {levels}: pixels of {8 * self._dtype.itemsize} bits go up to {found.maximum:.0f}; give a "
                f"number of levels from {found.maximum + 1:.0f} to {1 << (8 * self._dtype.itemsize)}"
            )
        return levels

    def _begin(self, first: np.ndarray) -> None:
        self._shape, self._dtype = first.shape, first.dtype
        shape = (len(self._pictures), *first.shape)
        streams = self._options.streams(len(self._pictures) * first.nbytes)
        self._values = None if streams else np.empty(shape, first.dtype)
        self._survey = Survey(shape, first.dtype)

    def _agreed(self, decoded: np.ndarray) -> np.ndarray:
        """An image of 8 bits with the channels of the earlier images; earlier images are widened if they have fewer."""
        given, channels = len(decoded), self._shape[0]
        if given <= channels:
            return widened(decoded, channels)
        self._put_down()
        self._shape = (given, *self._shape[1:])
        if self._values is not None:
            earlier, self._values = self._values, np.empty((len(self._values), *self._shape), self._dtype)
            self._values[: len(self.kept)] = widened(earlier[: len(self.kept)], given)
        self._survey = Survey((len(self._pictures), *self._shape), self._dtype)  # of no use any more
        return decoded

    def _difference(self, number: int, decoded: np.ndarray) -> str | None:
        """The difference between an image and the first image, with advice; None if they agree."""
        shape, dtype = self._shape, self._dtype
        if (decoded.shape, decoded.dtype) == (shape, dtype):
            return None
        name, first = self._pictures.name(number), self._pictures.name(self.kept[0])
        if decoded.shape[1:] != shape[1:]:
            return (
                f"{name}: is {_size(decoded.shape)} but {first} is {_size(shape)} (height x width); "
                f"give --size {shape[1]} {shape[2]}, or another size for all"
            )
        advice = "give --colour grey, rgb or rgba" if decoded.dtype == dtype else "convert it"
        return f"{name}: is {_colours(decoded.shape, decoded.dtype)} but {first} is {_colours(shape, dtype)}; {advice}"

    def _put_down(self) -> None:
        if not self._waiting:
            return
        block, end = np.stack(self._waiting), len(self.kept)
        if self._values is not None:
            self._values[end - len(block) : end] = block
        self._survey.add(block)
        self._waiting.clear()


def _all_decoded(pictures: AbstractPictures, options: ReadOptions) -> Iterator[tuple[int, np.ndarray | InputError]]:
    """The index of every image, and the pixels or the problem of the image, in order."""
    with _decoders() as threads:
        for start in range(0, len(pictures), AT_ONCE):
            block = range(start, min(start + AT_ONCE, len(pictures)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; large ones are refused
                decoded = list(threads.map(lambda number: _decoded(pictures, number, options), block))
            yield from zip(block, decoded, strict=True)


def _decoded(pictures: AbstractPictures, number: int, options: ReadOptions) -> np.ndarray | InputError:
    name = pictures.name(number)
    try:
        with pictures.open(number) as stream:
            return decode(stream, name, options, pictures.page(number))
    except InputError as error:
        return error
    except OSError as error:
        return InputError(f"{name}: cannot be read ({error.strerror or error})")


def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "jensen-decode")


def _check_size(options: ReadOptions) -> None:
    if options.size is not None and not all(1 <= length <= GREATEST_SIZE for length in options.size):
        height, width = options.size
        raise InputError(f"--size {height} {width}: height and width must be from 1 to {GREATEST_SIZE}")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[2]}"


def _colours(shape: tuple[int, ...], dtype: np.dtype) -> str:
    depth = "float" if dtype.kind == "f" else f"{8 * dtype.itemsize}-bit"
    return f"{depth} {({1: 'grey', 3: 'RGB', 4: 'RGBA'})[shape[0]]}"
