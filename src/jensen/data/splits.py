"""Training, validation and test examples: disjoint, complete, and a pure function of a seed and the row indices."""

import numpy as np
import torch

from jensen.data.examples import counted
from jensen.data.options import ReadOptions
from jensen.data.readers.reading import SPLITS, Reading
from jensen.errors import InputError
from jensen.randomness import Stream, generator


def split_rows(reading: Reading, options: ReadOptions) -> dict[str, np.ndarray]:
    """The rows of each split, in ascending order.

    Splits in the source are kept; the other splits are drawn from the training examples of the source. Raises
    InputError if a split with a fraction above 0 would be empty.
    """
    supplied = reading.supplied if reading.supplied is not None else np.zeros(len(reading.values), np.int8)
    rows = {name: np.flatnonzero(supplied == code) for code, name in enumerate(SPLITS)}
    pool = rows["train"]
    held_out = {name: 0 if len(rows[name]) else _held_out(name, len(pool), options) for name in SPLITS[1:]}
    if len(pool) - sum(held_out.values()) < 1 or len(reading.values) < 2:
        raise InputError(
            f"{counted(len(pool))} cannot be split into training, validation and test examples; give more data, "
            "or change --validation-fraction and --test-fraction"
        )
    order = torch.randperm(len(pool), generator=generator(options.split_seed, Stream.SPLIT)).numpy()
    start = 0
    for name, count in held_out.items():
        if count:
            rows[name] = np.sort(pool[order[start : start + count]])
        start += count
    rows["train"] = np.sort(pool[order[start:]])
    return rows


def describe_split(reading: Reading, options: ReadOptions) -> str:
    """The origin of the splits of `split_rows`, in one line."""
    supplied = set() if reading.supplied is None else {SPLITS[code] for code in np.unique(reading.supplied)}
    ways = []
    for name in ("test", "validation"):
        fraction = _fraction(name, options)
        drawn = (
            f"{fraction:g} of the {'training ' if supplied else ''}examples, drawn with split seed {options.split_seed}"
        )
        ways.append(f"{name}: {'as supplied' if name in supplied else drawn}")
    return "; ".join(ways)


def check_fractions(options: ReadOptions) -> None:
    """Raises InputError unless both fractions are in [0, 1), their sum is below 1 and the seed is at least 0."""
    validation, test = options.validation_fraction, options.test_fraction
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise InputError(
            f"--validation-fraction {validation:g} and --test-fraction {test:g}: each must be at least 0 "
            "and their sum below 1"
        )
    if options.split_seed < 0:
        raise InputError(f"--split-seed {options.split_seed}: must be 0 or more")


def _fraction(name: str, options: ReadOptions) -> float:
    return options.validation_fraction if name == "validation" else options.test_fraction


def _held_out(name: str, pool: int, options: ReadOptions) -> int:
    fraction = _fraction(name, options)
    count = round(pool * fraction)
    if fraction > 0 and count == 0:
        raise InputError(
            f"{counted(pool)}, too few for --{name}-fraction {fraction:g}, which leaves none; give more data, "
            f"a larger fraction, or --{name}-fraction 0"
        )
    return count
