"""Examples as pictures: images as they are, the middle slice of volumes, and the curves of signals."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer

from jensen.data.readers.reading import Layout

if TYPE_CHECKING:
    from torch import Tensor

    from jensen.data.spec import DataSpec

NARROW, WIDE = 64, 256  # least and greatest width of the picture of a signal, in pixels
HEIGHT, LEAST_HEIGHT = 64, 16  # height of all curves of a signal, and least height of one curve, in pixels
CURVES = 12  # channels of a signal that are shown


def pictures_of(x: "Tensor", spec: "DataSpec") -> Integer[np.ndarray, "count channels height width"]:
    """Pictures of examples x (count, *shape), which are in the form of the preparation; see `as_pictures`."""
    return as_pictures(spec.preparation.to_picture(x), spec.layout)


def as_pictures(
    brightness: Integer[np.ndarray, "count channels *sides"], layout: Layout
) -> Integer[np.ndarray, "count channels height width"]:
    """One picture per example, of the dtype of `brightness`.

    An image stays unchanged. The picture of a volume is its middle slice. The picture of a signal has one curve for
    each of the first channels, black on white, with the highest number at the top. `brightness` is a result of
    `Preparation.to_picture`.
    """
    if layout == "volume":
        return brightness[:, :, brightness.shape[2] // 2]
    return _curves(brightness) if layout == "signal" else brightness


def _curves(brightness: np.ndarray) -> np.ndarray:
    """(count, C, L) as pictures (count, 1, H, W), the curves of the first channels above each other."""
    shown = brightness[:, :CURVES].astype(np.float64) / np.iinfo(brightness.dtype).max
    count, channels, length = shown.shape
    height, width = max(LEAST_HEIGHT, HEIGHT // channels), min(max(length, NARROW), WIDE)
    low, high = _ranges(shown, width)
    rows = np.arange(height)[:, None]
    top, bottom = (np.round((1 - edge) * (height - 1))[:, :, None] for edge in (high, low))
    inked = (rows >= top) & (rows <= bottom)  # (count, C, height, width)
    pixels = np.where(inked, 0, np.iinfo(brightness.dtype).max).astype(brightness.dtype)
    return pixels.reshape(count, 1, channels * height, width)


def _ranges(signals: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest number of signals (..., L) within each of `width` columns, (..., width).

    Neighbouring columns share a number, so that the curve has no gaps.
    """
    length = signals.shape[-1]
    if length <= width:
        place = np.linspace(0, length - 1, width + 1)
        left = np.minimum(place.astype(np.int64), max(length - 2, 0))
        right = np.minimum(left + 1, length - 1)
        share = place - left
        points = signals[..., left] * (1 - share) + signals[..., right] * share
        return np.minimum(points[..., :-1], points[..., 1:]), np.maximum(points[..., :-1], points[..., 1:])
    starts = np.linspace(0, length, width, endpoint=False).astype(np.int64)
    following = signals[..., np.append(starts[1:], length - 1)]
    low, high = (extreme.reduceat(signals, starts, axis=-1) for extreme in (np.minimum, np.maximum))
    return np.minimum(low, following), np.maximum(high, following)
