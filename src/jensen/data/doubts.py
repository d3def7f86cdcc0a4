"""What is accepted but doubtful in data: one line each, which `jensen data check` notes and training warns of."""

from collections.abc import Iterable, Iterator

import numpy as np

from jensen.data.moments import Columns, distinct, quantile
from jensen.data.readers.reading import Reading
from jensen.errors import InputError

COARSE = 64
"""Roundings in a standard deviation, below which the numbers are said to be too coarse."""

FAR = 50
"""Standard deviations from which a lowest or highest value is taken for a possible fill value."""

RUINED = 1000
"""A fill value that makes the standard deviation so many times larger is refused: all other x are within 1/1000."""

FEW = 10
"""Different values in a column of floats, up to which it is taken for a category."""

REPEATED = 10
"""How often each of a few values occurs on average, before a column is taken for a category."""

APART = 64
"""How many times larger the highest number of one column of integers is than another's, before both are named."""

TABLE = 32
"""Columns up to which integers of at most 8 bits may be a table; beyond they are more likely pixels."""

SHOWN = 8


def named(features: Iterable[int]) -> str:
    """`feature 3`, or `features 0, 2, 5`, of a long list the first 8.

    >>> named([3]), named([0, 2])
    ('feature 3', 'features 0, 2')
    """
    numbers = [str(number) for number in features]
    shown = ", ".join(numbers[:SHOWN]) + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")
    return f"feature{'s' if len(numbers) > 1 else ''} {shown}"


# ---------------------------------------------------------------------------------------------- floats


def doubts_of_floats(reading: Reading, found: Columns) -> tuple[str, ...]:
    """What is doubtful in floats whose training examples have the columns `found`.

    Raises InputError for a fill value that leaves nothing of the differences between all other values.
    """
    return (*_too_coarse(reading, found), *_fill_values(reading, found), *_few_valued(reading, found))


def _too_coarse(reading: Reading, found: Columns) -> Iterator[str]:
    """Columns whose deviation is near the spacing of floats of their size, in the precision as given."""
    spacing = reading.epsilon * np.maximum(np.abs(found.low), np.abs(found.high))
    coarse = (found.low < found.high) & (found.deviation < COARSE * spacing)
    if coarse.any():
        bits = {np.float16: 16, np.float32: 32}
        given = next((size for kind, size in bits.items() if reading.epsilon == float(np.finfo(kind).eps)), 64)
        wider = "" if given == 64 else "as float64, or "
        yield (
            f"{_of(found, np.flatnonzero(coarse))}a standard deviation of less than {COARSE} times the spacing of "
            f"float{given} at numbers of this size, so that values are rounded to few steps: save them {wider}after "
            "subtracting a constant"
        )


def _fill_values(reading: Reading, found: Columns) -> Iterator[str]:
    """The lowest and highest values of all examples that lie far from the bulk of the training examples' values."""
    survey = reading.survey
    sample = found.sample.astype(np.float64)
    extremes = (found.low, found.high, survey.low, survey.high)
    extreme = np.logical_or.reduce([sample == value for value in extremes])
    others = np.sort(np.where(extreme, np.nan, sample), axis=0)
    low, middle, high = (quantile(others, share) for share in (0.01, 0.5, 0.99))
    spread = np.maximum(high - middle, middle - low) / 2.33  # the 99 % quantile of a normal law in deviations
    found_far = []
    for name, value, place in (("highest", survey.high, survey.high_at), ("lowest", survey.low, survey.low_at)):
        with np.errstate(invalid="ignore", divide="ignore"):
            distance = np.abs(value - middle) / spread
        far = np.flatnonzero((distance > FAR) & (spread > 0))
        found_far += [(float(distance[column]), int(column), name, float(value[column]), place) for column in far]
    for distance, column, name, value, place in sorted(found_far, key=lambda each: -each[0])[:SHOWN]:
        where = survey.position(place[column])
        at = f"example {where[0]}" + ("" if len(reading.values.shape) == 2 else f", position {where[1:]}")
        line = (
            f"{'' if len(found.count) == 1 else f'feature {column}: '}the {name} value, {value:g} ({at}), lies "
            f"{distance:,.0f} standard deviations of the other values away from them: a fill value? Replace it by NaN "
            "and give --missing, or leave such examples out; of a long tail, take logarithms"
        )
        _refuse_ruined(line, others[:, column], float(found.deviation[column]))
        yield line


def _refuse_ruined(line: str, others: np.ndarray, deviation: float) -> None:
    """Raises InputError where a column's deviation is `RUINED` times that of its values other than the extremes."""
    if float(np.nanstd(others)) * RUINED < deviation:
        raise InputError(f"{line}: it makes the standard deviation {deviation:.3g}, beside which the others are equal")


def _few_valued(reading: Reading, found: Columns) -> Iterator[str]:
    """Columns of vectors with few different values, which no density describes."""
    if reading.layout != "vector" or len(found.count) < 2:
        return
    _, _, apart = distinct(found, reading.epsilon)
    values = apart.sum(axis=0) + 1
    rows = np.minimum(found.count, len(found.sample))
    few = ~found.constant & (values <= FEW) & (rows >= REPEATED * values)
    if few.any():
        least, most = int(values[few].min()), int(values[few].max())
        many = f"{least}" if least == most else f"{least} to {most}"
        yield (
            f"{_of(found, np.flatnonzero(few))}only {many} different values: a density at such values can grow without "
            "bound, so that the bits say little and samples fall between them; leave them out, or give them as labels"
        )


def _of(found: Columns, which: np.ndarray) -> str:
    """The beginning of a sentence about some columns."""
    if len(found.count) == 1:
        return "the numbers have "
    return f"{named(which.tolist())} {'has' if len(which) == 1 else 'have'} "


# ---------------------------------------------------------------------------------------------- integers


def doubts_of_integers(reading: Reading) -> tuple[str, ...]:
    """What is doubtful in integers: no variation, and columns of a table in very different ranges."""
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
        f"feature {widest} up to {survey.maximum:g}, and all have the same {levels} levels: to the model, values of "
        "the former are all but equal; convert the table to floats, or leave such columns out",
    )
