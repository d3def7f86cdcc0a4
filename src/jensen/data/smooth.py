"""Vectors whose neighbouring numbers are strongly correlated, as they are in signals and in flattened images."""

import math

import numpy as np
from jaxtyping import Bool, Float

from jensen.data.moments import sample_moments
from jensen.data.readers.reading import Reading
from jensen.data.stored import selected

SAMPLE, MOST_NUMBERS = 2000, 1 << 22
"""The maximum number of examples for the correlations, and the maximum count of numbers in these examples."""

SHORTEST = 32
"""Shorter vectors are not doubted."""

STRONG, MORE = 0.5, 0.3
"""The minimum mean correlation of neighbouring columns, and its minimum difference from that of other columns."""

CHANNELS = (1, 3, 4)


def smooth_vectors(reading: Reading, rows: np.ndarray) -> tuple[str, ...]:
    """Returns a tuple with one note if the vectors look like signals or flattened images, and () otherwise.

    `rows` are the rows of the training examples; column correlations are estimated from a sample of them.
    Vectors look like signals if the mean correlation of neighbouring columns is high, and higher than the mean absolute
    correlation of columns in random order. Vectors look like square images if pixels one image row apart are also
    correlated, and more than pixels half a row apart.
    """
    length = math.prod(reading.values.shape[1:])
    if reading.layout != "vector" or length < SHORTEST or len(rows) < SHORTEST:
        return ()
    count = min(len(rows), SAMPLE, max(SHORTEST, MOST_NUMBERS // length))
    x = np.asarray(selected(reading.values, rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)])[:], np.float64)
    mean, scale, varies = sample_moments(x)
    z = np.nan_to_num((x - mean) / scale)
    order = np.random.default_rng(0).permutation(length)
    near, usual = _correlation(z, varies, 1), abs(_correlations(z[:, order], varies[order], 1)).mean()
    shape = _shape_of_images(z, varies)
    if shape is None and near < max(STRONG, usual + MORE):
        return ()
    told = f"neighbouring numbers of the vectors are correlated ({near:.2f}; columns in random order {usual:.2f})"
    if shape is None:
        return (f"{told}: signals? Then give --layout signal, which networks of 1 dimension can learn",)
    return (f"{told}, and so are the rows of an image: flattened images? Then reshape them to (N, {shape})",)


def _shape_of_images(z: Float[np.ndarray, "count length"], varies: Bool[np.ndarray, " length"]) -> str | None:
    """The shape of square images of which `z` may be the flattened pixels, channels first or last; None if of none.

    Pixels one row apart must be strongly correlated, more than pixels half a row apart.
    """
    for channels in CHANNELS:
        side = math.isqrt(len(varies) // channels)
        if side * side * channels != len(varies) or side < 4:
            continue
        for step, shape in ((1, f"{channels}, {side}, {side}"), (channels, f"{side}, {side}, {channels}")):
            beside, below, between = (_correlation(z, varies, lag) for lag in (step, step * side, step * side // 2))
            if min(beside, below) >= STRONG and below >= between + MORE:
                return f"{side}, {side}" if channels == 1 else shape
    return None


def _correlation(z: Float[np.ndarray, "count length"], varies: Bool[np.ndarray, " length"], lag: int) -> float:
    return float(_correlations(z, varies, lag).mean())


def _correlations(
    z: Float[np.ndarray, "count length"], varies: Bool[np.ndarray, " length"], lag: int
) -> Float[np.ndarray, " pairs"]:
    """Correlations of the columns `lag` apart, without columns that never vary; a single 0 if there are no others."""
    both = varies[lag:] & varies[:-lag]
    found = (z[:, lag:] * z[:, :-lag]).mean(0)[both]
    return found if len(found) else np.zeros(1)
