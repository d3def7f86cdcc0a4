"""The size of the same examples in general formats: PNG, lossless WebP, gzip and xz."""

import gzip
import io
import lzma
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from jensen.progress import track

WEBP_LARGEST = 16383  # pixels a side


def sizes_of_others(raw: npt.NDArray[np.generic], levels: int | None) -> dict[str, int]:
    """The number of bytes of the examples in other formats, by the name of the format.

    The formats are gzip and xz of all raw numbers. For 8-bit images, PNG and lossless WebP are added. The format "a
    file each" is the sum over one file per image. The format "in one picture" is one file with all images side by side.
    `levels` is the number of levels in the data's description; images of two levels become PNG files of 1 bit per
    pixel. Every format is used with the strongest settings: optimised PNG, gzip 9, xz 9 extreme, WebP quality 100 and
    method 6.
    """
    content = np.ascontiguousarray(raw).tobytes()
    found = {}
    if raw.dtype == np.uint8 and raw.ndim == 4 and raw.shape[1] in (1, 3):
        found = _picture_sizes(np.moveaxis(raw, 1, -1), levels)
    found["gzip"] = len(gzip.compress(content, 9))
    found["xz"] = len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    return found


def _picture_sizes(images: npt.NDArray[np.generic], levels: int | None) -> dict[str, int]:
    found = {"PNG, a file each": 0, "WebP, a file each": 0}
    for image in track(images, "PNG and WebP"):
        found["PNG, a file each"] += png_bytes(image, levels)
        found["WebP, a file each"] += _webp(image)
    picture = sheet(images)
    found["PNG, in one picture"] = png_bytes(picture, levels)
    if max(picture.shape) <= WEBP_LARGEST:
        found["WebP, in one picture"] = _webp(picture)
    return found


def sheet(images: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """All images in one nearly square grid; unused cells are 0."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:count] = images
    grid = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)


def png_bytes(image: npt.NDArray[np.generic], levels: int | None) -> int:
    """The size of one optimised PNG of uint8 pixels (H, W, 1 or 3); pixels of two levels take one bit."""
    if levels == 2:
        return _size(_picture(image.astype(np.uint8) * 255).convert("1"), format="PNG", optimize=True)
    return _size(_picture(image), format="PNG", optimize=True)


def _webp(image: npt.NDArray[np.generic]) -> int:
    # WebP has no greyscale mode
    return _size(_picture(image).convert("RGB"), format="WEBP", lossless=True, quality=100, method=6)


def _picture(image: npt.NDArray[np.generic]) -> Any:
    from PIL import Image

    return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def _size(picture: Any, **options: Any) -> int:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    return buffer.tell()
