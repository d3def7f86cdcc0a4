"""Images as PNG files of 8 or 16 bits: one image per file, or many in a grid."""

from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SMALLEST = 40  # pixels; smaller images are enlarged by a whole factor, to be visible
BETWEEN_GRIDS = 16  # pixels
WORDS_TO_BYTES = 257  # 65535 / 255


def save_grid(pictures: np.ndarray, path: Path, columns: int | None = None) -> None:
    """Write pictures (N, C, H, W), uint8 or uint16, as a grid of about square shape; see `save_image`."""
    save_grids([pictures], path, columns)


def save_grids(sets: Sequence[np.ndarray], path: Path, columns: int | None = None) -> None:
    """Write sets of pictures (N, C, H, W), all of one N, as grids side by side in one PNG; see `save_grid`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(_grids(sets, columns), path)


def grid_bytes(pictures: np.ndarray, columns: int | None = None) -> bytes:
    """The PNG that `save_grid` writes."""
    return _bytes(_grids([pictures], columns))


def _grids(sets: Sequence[np.ndarray], columns: int | None) -> "Image.Image":
    from PIL import Image

    sheets = [_sheet(_visible(pictures), columns) for pictures in sets]
    margin = np.full_like(sheets[0][:, :BETWEEN_GRIDS], np.iinfo(sheets[0].dtype).max)
    parts = [part for sheet in sheets for part in (margin, sheet)][1:]
    joined = np.concatenate(parts, axis=1)
    return Image.fromarray(joined if joined.shape[-1] > 1 else joined[..., 0])


def _sheet(tiles: np.ndarray, columns: int | None) -> np.ndarray:
    """Tiles (N, H, W, C) as one image (height, width, C)."""
    count, height, width, channels = tiles.shape
    columns = columns or int(np.ceil(np.sqrt(count * height / width)))
    rows = -(-count // columns)
    gap = 2
    highest = np.iinfo(tiles.dtype).max
    size = (rows * (height + gap) + gap, columns * (width + gap) + gap, channels)
    sheet = np.full(size, highest // 2 + 1, tiles.dtype)
    if channels == 4:
        sheet[..., 3] = highest
    for number, tile in enumerate(tiles):
        top, left = (gap + (number // columns) * (height + gap), gap + (number % columns) * (width + gap))
        sheet[top : top + height, left : left + width] = tile
    return sheet


def save_image(picture: np.ndarray, path: Path) -> None:
    """Write one picture (C, H, W), uint8 or uint16, as a PNG of H x W pixels.

    If C is not 1, 3 or 4, only the first channel is shown. Grey uint16 becomes a 16-bit PNG; colour uint16 becomes 8
    bits, because Pillow cannot write 16-bit colour.
    """
    _save(_image(picture), path)


def image_bytes(picture: np.ndarray) -> bytes:
    """The PNG that `save_image` writes."""
    return _bytes(_image(picture))


def _image(picture: np.ndarray) -> "Image.Image":
    from PIL import Image

    pixels = np.moveaxis(_channels(picture[None])[0], 0, -1)
    return Image.fromarray(pixels if pixels.shape[-1] > 1 else pixels[..., 0])


def _bytes(image: "Image.Image") -> bytes:
    content = BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def _save(image: "Image.Image", path: Path) -> None:
    """Write the PNG completely, or leave no file."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        image.save(temporary, format="PNG")
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _channels(pictures: np.ndarray) -> np.ndarray:
    shown = pictures if pictures.shape[1] in (1, 3, 4) else pictures[:, :1]
    if shown.dtype == np.uint16 and shown.shape[1] > 1:
        return np.round(shown / WORDS_TO_BYTES).astype(np.uint8)
    return shown


def _visible(pictures: np.ndarray) -> np.ndarray:
    tiles = np.moveaxis(_channels(pictures), 1, -1)
    factor = max(1, -(-SMALLEST // max(tiles.shape[1:3])))
    return tiles.repeat(factor, axis=1).repeat(factor, axis=2)
