"""Grids of images as one PNG."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SMALLEST = 40  # pixels: smaller images are enlarged by whole factors, so that one can see them


def save_grid(pictures: np.ndarray, path: Path, columns: int | None = None) -> None:
    """Write uint8 pictures (N, C, H, W), C = 1, 3 or 4 (else the first channel), as a grid of about square shape."""
    from PIL import Image

    tiles = _visible(pictures)
    count, height, width, channels = tiles.shape
    columns = columns or int(np.ceil(np.sqrt(count * height / width)))
    rows = -(-count // columns)
    gap = 2
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 128, np.uint8)
    if channels == 4:
        sheet[..., 3] = 255
    for number, tile in enumerate(tiles):
        top, left = (gap + (number // columns) * (height + gap), gap + (number % columns) * (width + gap))
        sheet[top : top + height, left : left + width] = tile
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(Image.fromarray(sheet if channels > 1 else sheet[..., 0]), path)


def save_image(picture: np.ndarray, path: Path) -> None:
    """Write one uint8 picture (C, H, W) as a PNG of its own size."""
    from PIL import Image

    pixels = np.moveaxis(_channels(picture[None])[0], 0, -1)
    _save(Image.fromarray(pixels if pixels.shape[-1] > 1 else pixels[..., 0]), path)


def _save(image: "Image.Image", path: Path) -> None:
    """Write a PNG whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        image.save(temporary, format="PNG")
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _channels(pictures: np.ndarray) -> np.ndarray:
    return pictures if pictures.shape[1] in (1, 3, 4) else pictures[:, :1]


def _visible(pictures: np.ndarray) -> np.ndarray:
    tiles = np.moveaxis(_channels(pictures), 1, -1)
    factor = max(1, -(-SMALLEST // max(tiles.shape[1:3])))
    return tiles.repeat(factor, axis=1).repeat(factor, axis=2)
