"""Doubts about accepted data, one line each: notes of `jensen data check`, and warnings in training."""

from collections.abc import Iterable, Iterator

import numpy as np

from jensen.data.moments import Columns, distinct, quantile
from jensen.data.readers.reading import Reading
from jensen.errors import InputError

COARSE = 64
"""Numbers are too coarse if their standard deviation is less than this many roundings."""

FAR = 50
"""The lowest or highest value may be a fill value if it is more than this many standard deviations from the others."""

RUINED = 1000
"""A fill value is refused if it makes the standard deviation this many times larger: all other x would then lie within
a few thousandths."""

FEW = 10
"""A column of floats with at most this many different values counts as a category."""

REPEATED = 10
"""A category has at least this many rows per value."""

APART = 64
"""Columns of integers are doubtful if the highest number of another column is this many times larger."""

TABLE = 32
"""Vectors of 8-bit integers with more columns than this count as pixels, not as a table."""

SHOWN = 8


def named(features: Iterable[int]) -> str:
    """A text such as `feature 3` or `features 0, 2, 5`; it names only the first 8 features.

    >>> named([3]), named([0, 2])
    ('feature 3', 'features 0, 2')
    """
    numbers = [str(number) for number in features]
    shown = ", ".join(numbers[:SHOWN]) + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")
    return f"feature{'s' if len(numbers) > 1 else ''} {shown}"


# ---------------------------------------------------------------------------------------------- floats


def doubts_of_floats(reading: Reading, found: Columns) -> tuple[str, ...]:
    """Doubts about floats; `found` are the columns of the training examples.

    Raises InputError for a fill value so large that all other values become almost equal after scaling.
    """
    return (*_too_coarse(reading, found), *_fill_values(reading, found), *_few_valued(reading, found))


def _too_coarse(reading: Reading, found: Columns) -> Iterator[str]:
    """A doubt about columns whose standard deviation is near the spacing of floats of that size in the source."""
    spacing = reading.epsilon * np.maximum(np.abs(found.low), np.abs(found.high))
    coarse = (found.low < found.high) & (found.deviation < COARSE * spacing)
    if coarse.any():
        wider = "" if reading.precision == "float64" else "as float64, or "
        yield (
            f"{_of(found, np.flatnonzero(coarse))}a standard deviation of less than {COARSE} times the spacing of "
            f"{reading.precision} numbers of this size, so values are coarsely rounded: save them {wider}"
            "after subtracting a constant"
        )


def _fill_values(reading: Reading, found: Columns) -> Iterator[str]:
    """A doubt about the lowest or highest value of all examples if it is far from most training values."""
    survey = reading.survey
    sample = found.sample.astype(np.float64)
    extremes = (found.low, found.high, survey.low, survey.high)
    extreme = np.logical_or.reduce([sample == value for value in extremes])
    others = np.sort(np.where(extreme, np.nan, sample), axis=0)
    bottom, middle, top = (quantile(others, share) for share in (0.01, 0.5, 0.99))
    spread = np.maximum(top - middle, middle - bottom) / 2.33  # the 99 % quantile of a normal law, in deviations
    lines: list[tuple[float, str]] = []
    for name, value, place in (("highest", survey.high, survey.high_at), ("lowest", survey.low, survey.low_at)):
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            distance = np.abs(value - middle) / spread
        for column in np.flatnonzero((distance > FAR) & (spread > 0)).tolist():
            what = f"{'' if len(found.count) == 1 else f'feature {column}: '}the {name} value, {value[column]:g}"
            at = _position(reading, int(place[column]))
            line = (
                f"{what} ({at}), lies {distance[column]:,.0f} standard deviations away from the other values: "
                "a fill value? Replace it by NaN and give --missing, or leave out such examples; for a long tail, take "
                "logarithms"
            )
            if float(np.nanstd(others[:, column])) * RUINED < found.deviation[column]:
                raise InputError(f"{line}. The other values would all be equal to a model")
            lines.append((-distance[column], line))
    yield from (line for _, line in sorted(lines)[:SHOWN])


def _position(reading: Reading, number: int) -> str:
    """The example with the value at index `number`; for images and arrays also the position (grey: row, column)."""
    row, *rest = reading.survey.position(number)
    if reading.layout == "vector":
        return f"example {row}"
    grey = reading.layout == "image" and reading.values.shape[1] == 1
    return f"example {row}, position {tuple(rest[1:] if grey else rest)}"


def _few_valued(reading: Reading, found: Columns) -> Iterator[str]:
    """A doubt about columns of vectors that have few different values, for which a density is unsuitable."""
    if reading.layout != "vector" or len(found.count) < 2:
        return
    _, _, apart = distinct(found, reading.epsilon)
    values = apart.sum(axis=0) + 1
    rows = np.minimum(found.count, len(found.sample))
    few = ~found.constant & (values > 1) & (values <= FEW) & (rows >= REPEATED * values)
    if few.any():
        least, most = int(values[few].min()), int(values[few].max())
        many = f"{least}" if least == most else f"{least} to {most}"
        yield (
            f"{_of(found, np.flatnonzero(few))}only {many} different values: a density can grow without bound at them, "
            "so bits mean little, and samples fall between them; leave such columns out, or give them as labels"
        )


def _of(found: Columns, which: np.ndarray) -> str:
    """The beginning of a sentence about some columns."""
    if len(found.count) == 1:
        return "the numbers have "
    return f"{named(which.tolist())} {'has' if len(which) == 1 else 'have'} "


# ---------------------------------------------------------------------------------------------- integers


def doubts_of_integers(reading: Reading) -> tuple[str, ...]:
    """Doubts about integers: no variation, or columns of a table with very different ranges."""
    survey, levels = reading.survey, reading.levels or 2
    if survey.minimum == survey.maximum:
        return (f"every number is {survey.maximum:g}: there is nothing to learn from them",)
    if reading.layout != "vector" or len(survey.high) < 2 or (levels <= 256 and len(survey.high) > TABLE):
        return ()
    narrow = (APART * (survey.high + 1) <= survey.maximum + 1) & (survey.low < survey.high)
    if not narrow.any():
        return ()
    which, widest = np.flatnonzero(narrow), int(survey.high.argmax())
    return (
        f"{named(which.tolist())} {'goes' if len(which) == 1 else 'go'} only up to {survey.high[narrow].max():g}, but "
        f"feature {widest} up to {survey.maximum:g}, and all columns have the same {levels} levels: narrow columns "
        "look almost constant to the model; convert the table to floats, or leave such columns out",
    )
