"""scikit-learn's 1,797 handwritten digits: 8x8 pixels, values 0 to 16, part of that package."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from jensen.data.readers.reading import Reading
from jensen.data.survey import survey

CLASSES = 10


def read_digits() -> Reading:
    """Read 1,797 images of digits, (1797, 1, 8, 8) uint8 with 17 levels, and their ten labels.

    The file is read without scikit-learn, because importing scikit-learn takes longer than a short training. Source:
    UCI, Alpaydin and Kaynak 1998.
    """
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    rows = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", np.int64, delimiter=",")
    values = rows[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8)
    return Reading(
        kind="digits",
        layout="image",
        values=values,
        survey=survey(values),
        levels=17,
        labels=rows[:, -1].copy(),
        label_names=tuple(str(label) for label in range(CLASSES)),
    )
