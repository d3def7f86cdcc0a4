"""Tiles: large images, each cut into equal squares that become examples of their own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.reading import Reading, Refuse
from jensen.data.stored import AbstractRows, Values
from jensen.data.survey import survey


@dataclass(frozen=True)
class Grid:
    """rows x columns squares of `side` pixels that cover the middle of an image, from the pixel (top, left)."""

    side: int
    rows: int
    columns: int
    top: int
    left: int

    @classmethod
    def of(cls, side: int, height: int, width: int) -> "Grid":
        """The largest grid that an image of this size holds; uncovered pixels are divided evenly between the edges."""
        rows, columns = height // side, width // side
        return cls(side, rows, columns, (height - rows * side) // 2, (width - columns * side) // 2)

    @property
    def count(self) -> int:
        """The number of tiles of an image."""
        return self.rows * self.columns

    def cut(self, images: np.ndarray) -> np.ndarray:
        """The tiles of images (n, C, H, W) as (n count, C, side, side), image after image, row by row."""
        n, channels = images.shape[:2]
        height, width = self.rows * self.side, self.columns * self.side
        covered = images[:, :, self.top : self.top + height, self.left : self.left + width]
        cells = covered.reshape(n, channels, self.rows, self.side, self.columns, self.side)
        return np.ascontiguousarray(cells.transpose(0, 2, 4, 1, 3, 5)).reshape(-1, channels, self.side, self.side)

    def place(self, tile: int) -> str:
        """The NumPy index of the pixels of a tile in its image, as text, rows first.

        >>> Grid.of(64, 130, 200).place(4)
        '[65:129, 68:132]'
        """
        top, left = self.top + tile // self.columns * self.side, self.left + tile % self.columns * self.side
        return f"[{top}:{top + self.side}, {left}:{left + self.side}]"


class TileRows(AbstractRows):
    """The tiles of images on disk; all requested tiles of an image are cut from one reading of the image."""

    def __init__(self, images: AbstractRows, grid: Grid) -> None:
        self._images, self._grid = images, grid
        self.shape = (len(images) * grid.count, images.shape[1], grid.side, grid.side)
        self.dtype = images.dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        wanted, place = np.unique(rows // self._grid.count, return_inverse=True)
        tiles = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for number, image in enumerate(wanted):  # one image in memory at a time
            mine = place == number
            tiles[mine] = self._grid.cut(self._images.take(image[None]))[rows[mine] % self._grid.count]
        return tiles


def tiled(reading: Reading, options: ReadOptions, refuse: Refuse) -> Reading:
    """Cut every image into tiles of `options.tile` pixels a side; without this option the reading stays unchanged."""
    side = options.tile
    if side is None:
        return reading
    if reading.layout != "image":
        refuse(f"--tile {side}: is for images, but DATA is read as {reading.layout}; leave it out")
        return reading
    height, width = reading.values.shape[2:]
    if not 1 <= side <= min(height, width) or side == height == width:
        refuse(f"--tile {side}: the images are {height}x{width} (height x width); give a smaller side, from 1 up")
        return reading
    grid = Grid.of(side, height, width)
    values: Values = reading.values
    values = TileRows(values, grid) if isinstance(values, AbstractRows) else grid.cut(values)
    rest = f"{height - grid.rows * side} rows and {width - grid.columns * side} columns of pixels at the edges"

    file = reading.file

    def repeated(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else np.repeat(column, grid.count, axis=0)

    return replace(
        reading,
        values=values,
        survey=survey(values),
        labels=repeated(reading.labels),
        supplied=repeated(reading.supplied),
        targets=repeated(reading.targets),
        file=None if file is None else lambda row: file(row // grid.count),
        keys={name: partial(_repeated_key, read, grid.count) for name, read in reading.keys.items()},
        names=lambda row: f"{reading.names(row // grid.count)} {grid.place(row % grid.count)}",
        pieces=grid.count,
        notes=(
            *reading.notes,
            f"each image is cut into {grid.rows} x {grid.columns} tiles of {side} pixels, which stay in one split; "
            f"{rest} are left out",
        ),
    )


def _repeated_key(read: Callable[[], np.ndarray], count: int) -> np.ndarray:
    return np.repeat(read(), count, axis=0)
