"""scikit-learn's 1,797 handwritten digits: 8x8, values 0 to 16, nothing to download."""

import numpy as np

from jensen.data.reading import Reading


def read_digits() -> Reading:
    """(1797, 1, 8, 8) uint8 with 17 levels and the ten labels (UCI, Alpaydin and Kaynak 1998)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Reading(
        kind="digits",
        layout="image",
        values=digits.images.astype(np.uint8)[:, None],
        levels=17,
        labels=digits.target.astype(np.int64),
        label_names=tuple(str(name) for name in digits.target_names),
    )
