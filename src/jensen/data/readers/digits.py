"""scikit-learn's 1,797 handwritten digits: 8x8 pixels, values 0 to 16, part of the package."""

import numpy as np

from jensen.data.readers.reading import Reading
from jensen.data.survey import survey


def read_digits() -> Reading:
    """(1797, 1, 8, 8) uint8 with 17 levels and the ten labels (UCI, Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    values = digits.images.astype(np.uint8)[:, None]
    return Reading(
        kind="digits",
        layout="image",
        values=values,
        survey=survey(values),
        levels=17,
        labels=digits.target.astype(np.int64),
        label_names=tuple(str(name) for name in digits.target_names),
    )
