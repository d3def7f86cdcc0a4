"""Examples of different splits that are almost equal: near copies, neighbours in the source, overlapping windows."""

import math
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from jensen.data.moments import sample_moments
from jensen.data.options import ReadOptions
from jensen.data.readers.array_names import listed
from jensen.data.readers.reading import PICTURED, Reading
from jensen.data.splits import groups_of
from jensen.data.stored import Values, blocks, selected
from jensen.errors import InputError

MOST_TRAINING, LEAST_TRAINING, MOST_HELD_OUT = 20_000, 1_000, 2_000
"""The maximum and minimum number of compared training examples, and the maximum number of held-out examples."""

MOST_NUMBERS = 1 << 26
"""The maximum count of numbers in all compared training examples; `LEAST_TRAINING` examples are always compared."""

NUMBERS = 64
"""The count of numbers to which each channel of an example is reduced."""

MOST_CHANNELS = 8

AT_ONCE = 250
"""Held-out examples whose distances are in memory at a time."""

RANKS = (3, 10)
"""The ranks of the neighbours that give the local dimension; the last rank also gives the usual distance."""

FAR_CLOSER = 0.2
"""A near copy is closer than this share of the distance to the 10th nearest training example."""

UNLIKELY = 1e-4
"""The probability that independent data show a near copy, for each example; see `_near_copies`."""

BESIDE, APART = 2, (11, 30)
"""The largest distance of neighbouring rows in the source, and the range of distances that they are compared with."""

MANY = 0.1
"""From this share of held-out examples on, the order of the source is doubted."""

SURPRISE = 1e-6
"""The probability that the order is doubted although the data are in random order, or sorted by label."""

SHARED = 16
"""Windows overlap if they share this many consecutive numbers, of which at least half are different."""

FEW = 0.01
"""From this share of held-out examples on, overlaps are doubted."""

MOST_WINDOWS, LEAST_VALUES = 1 << 22, 4096
"""The number of windows that are compared, and the least number of different values in signals that are compared."""

MULTIPLIER = 0x9E3779B97F4A7C15

FILES = ("file", "folder")

BY_NUMBER = "; number the recordings in another array or column, and name it by --group, to keep each in one split"

MOST = 0.5
"""From this share of pairs with a common file or folder on, the advice is to keep the file or folder in one split."""


@dataclass(frozen=True)
class _Compared:
    """The rows of the compared examples, and the distances to the nearest training examples by rank."""

    held_out: Int[np.ndarray, " count"]
    nearest: Int[np.ndarray, " count"]
    distances: Float[np.ndarray, "count ranks"]


def near_duplicates(reading: Reading, rows: dict[str, np.ndarray], options: ReadOptions) -> tuple[str, ...]:
    """Returns doubts about validation and test examples that are almost equal to training examples.

    Each doubt is one line. Up to 2,000 held-out examples are compared with up to 20,000 consecutive training examples.
    For the comparison, each channel of an example is reduced to 64 means over parts of the channel.
    `check.repeated_examples` reports exact copies.
    """
    size = math.prod(reading.values.shape[1:])
    train = rows["train"][: min(MOST_TRAINING, max(LEAST_TRAINING, MOST_NUMBERS // size))]
    held_out = _held_out(rows, train)
    if len(train) <= 2 * RANKS[-1] or not len(held_out):
        return ()
    found = _compared(reading, train, held_out)
    doubts = [_beside_in_source(found, reading, options)]
    if reading.layout in PICTURED:
        doubts.append(_near_copies(found, reading, options))
    if reading.layout == "signal":
        doubts.append(_overlaps(reading, train, held_out, options))
    return tuple(doubt for doubt in doubts if doubt)


def _held_out(rows: dict[str, np.ndarray], train: np.ndarray) -> np.ndarray:
    """Evenly spread validation and test examples; among the training examples in the source, if there are any."""
    parts = []
    for split in ("validation", "test"):
        among = rows[split][rows[split] < train[-1]] if len(train) else rows[split]
        part = among if len(among) else rows[split]
        parts.append(part[np.linspace(0, len(part) - 1, min(len(part), MOST_HELD_OUT // 2)).astype(np.int64)])
    return np.concatenate(parts)


def _compared(reading: Reading, train: np.ndarray, held_out: np.ndarray) -> _Compared:
    a, b = (_reduced(selected(reading.values, which), reading.layout) for which in (held_out, train))
    mean, scale, _ = sample_moments(b)
    if reading.layout in PICTURED:  # all numbers have one unit
        scale = np.ones(1)
    a, b = ((part - mean) / scale for part in (a, b))
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    size = (b**2).sum(1)
    nearest, distances = [], []
    for part in np.array_split(a, -(-len(a) // AT_ONCE)):
        squares = (part**2).sum(1)[:, None] + size - 2 * part @ b.T
        ranked = np.sort(np.partition(squares, RANKS[-1], axis=1)[:, : RANKS[-1]], axis=1)
        nearest.append(squares.argmin(1))
        distances.append(np.sqrt(ranked.clip(0)))
    return _Compared(held_out, train[np.concatenate(nearest)], np.concatenate(distances))


def _reduced(values: Values, layout: str) -> Float[np.ndarray, "count numbers"]:
    """Examples with fewer numbers: means over parts of every axis; vectors and other arrays as they are."""
    side = round(NUMBERS ** (1 / max(values.ndim - 2, 1)))
    found = []
    for block in blocks(values, "looking for near duplicates"):
        wide = block.astype(np.float64)
        if layout in PICTURED:
            for axis in range(1, wide.ndim):
                wide = _means(wide, axis, MOST_CHANNELS if axis == 1 else side)
        found.append(wide.reshape(len(wide), -1))
    return np.concatenate(found)


def _means(block: np.ndarray, axis: int, parts: int) -> np.ndarray:
    """Means over `parts` consecutive parts of an axis, or the block itself if the axis is not longer."""
    length = block.shape[axis]
    if length <= parts:
        return block
    starts = np.linspace(0, length, parts, endpoint=False).astype(np.int64)
    sizes = np.diff(np.append(starts, length))
    return np.add.reduceat(block, starts, axis=axis) / sizes.reshape(-1, *[1] * (block.ndim - axis - 1))


# ---------------------------------------------------------------------------------------------- three rules


def _near_copies(found: _Compared, reading: Reading, options: ReadOptions) -> str | None:
    """A doubt about examples with a training example far closer than their 10th nearest.

    If the density is uniform around an example, in m dimensions, the distances d1 and d10 to its nearest and 10th
    nearest neighbours have P(d1 / d10 < r) = 1 - (1 - r^m)^9 <= 9 r^m. m is the median over the examples of
    log(10 / 3) / log(d10 / d3), which a single copy leaves alone (Levina and Bickel, 2004).
    """
    low, high = (found.distances[:, rank - 1] for rank in RANKS)
    if not (high > 0).any():
        return None  # all examples are equal
    usual = np.median(high)
    with np.errstate(divide="ignore", invalid="ignore"):
        dimension = math.log(RANKS[1] / RANKS[0]) / np.log(np.median(high[high > 0] / low[high > 0].clip(1e-300)))
        ratio = found.distances[:, 0] / high
        copies = (ratio < FAR_CLOSER) & ((RANKS[1] - 1) * ratio**dimension < UNLIKELY)
    which = np.flatnonzero(copies & (found.distances[:, 0] > 1e-6 * usual))
    if not len(which):
        return None
    closest = which[ratio[which].argmin()]
    advice = _advice(reading, (found.held_out[which], found.nearest[which]), options, "")
    return (
        f"{_share(len(which), found)} almost equal a training example, such as "
        f"{_pair(reading, found.held_out[closest], found.nearest[closest])}, {100 * ratio[closest]:.2g} % as far as "
        f"the 10th nearest: leave out such copies; with them the bound is too good{advice}"
    )


def _beside_in_source(found: _Compared, reading: Reading, options: ReadOptions) -> str | None:
    """A doubt about a source whose neighbouring rows are alike.

    In random order, and in the order of labels, the nearest training example of a held-out example is as often 1 or 2
    rows away as any 2 of the rows from 11 to 30 away: a binomial test.
    """
    from scipy.stats import binom

    gap = np.abs(found.held_out - found.nearest)
    beside = gap <= BESIDE
    apart = int(((gap >= APART[0]) & (gap <= APART[1])).sum())
    many = int(beside.sum())
    chance = BESIDE / (BESIDE + APART[1] - APART[0] + 1)
    if many < MANY * len(gap) or binom.sf(many - 1, many + apart, chance) > SURPRISE:
        return None
    first = int(beside.argmax())
    pairs = found.held_out[beside], found.nearest[beside]
    return (
        f"{_share(many, found)} have their nearest training example at most {BESIDE} rows away in the source, such as "
        f"{_pair(reading, found.held_out[first], found.nearest[first])}: neighbouring frames, or parts of one "
        f"recording? Then the bound is too good{_advice(reading, pairs, options)}"
    )


def _overlaps(reading: Reading, train: np.ndarray, held_out: np.ndarray, options: ReadOptions) -> str | None:
    """A doubt about signals that share consecutive numbers with training signals, bit for bit.

    Signals of few different numbers are passed over: their windows are equal by chance.
    """
    length = reading.values.shape[-1]
    train = train[: max(1, MOST_WINDOWS // length)]
    held_out = held_out[held_out < train[-1]]
    if length < SHARED or not len(held_out):
        return None
    known, unknown = (selected(reading.values, which)[:][:, 0] for which in (train, held_out))
    if len(np.unique(known)) < LEAST_VALUES:
        return None
    codes = _codes(known)
    order = np.argsort(codes, axis=None)
    ordered = codes.reshape(-1)[order]
    wanted = _codes(unknown)
    place = np.searchsorted(ordered, wanted).clip(max=len(ordered) - 1)
    rows, starts = np.nonzero(ordered[place] == wanted)
    windows = unknown[rows[:, None], starts[:, None] + np.arange(SHARED)]
    varied = (np.diff(np.sort(windows, axis=1), axis=1) > 0).sum(1) + 1 >= SHARED // 2
    shared, first = np.unique(rows[varied], return_index=True)
    if len(shared) < max(1, FEW * len(held_out)):
        return None
    others = train[order[place[rows, starts][varied][first]] // codes.shape[1]]
    return (
        f"{len(shared)} of {len(held_out)} validation and test examples share {SHARED} consecutive numbers with a "
        f"training example, such as {_pair(reading, held_out[shared[0]], others[0])}: overlapping windows? Then the "
        f"bound is too good{_advice(reading, (held_out[shared], others), options)}"
    )


def _codes(signals: Shaped[np.ndarray, "count length"]) -> Shaped[np.ndarray, "count windows"]:
    """uint64 codes of all windows of SHARED numbers; equal windows have equal codes.

    Two different windows have the same code with a probability near 2^-64.
    """
    bits = signals.astype(np.float64).view(np.uint64) * np.uint64(MULTIPLIER)
    bits ^= bits >> np.uint64(29)  # a linear code of unmixed bits would be the same for many smooth windows
    factors = np.random.default_rng(0).integers(0, 1 << 63, SHARED, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    count = signals.shape[1] - SHARED + 1
    codes = np.zeros((len(signals), count), np.uint64)
    for place, factor in enumerate(factors):
        codes += bits[:, place : place + count] * factor
    return codes


# ---------------------------------------------------------------------------------------------- words


def _share(count: int, found: _Compared) -> str:
    return f"{count} of {len(found.held_out)} validation and test examples"


def _pair(reading: Reading, row: int, other: int) -> str:
    return f"{reading.names(int(row))} and {reading.names(int(other))}"


def _advice(
    reading: Reading, pairs: tuple[np.ndarray, np.ndarray], options: ReadOptions, otherwise: str = BY_NUMBER
) -> str:
    """The advice to keep groups in one split: by file or folder if most pairs share it, else by an array or column."""
    rows, others = pairs
    if options.group is not None:
        return f", although groups by {options.group} are drawn whole"
    if reading.supplied is not None and set(reading.supplied[np.append(rows, others)].tolist()) != {0}:
        return ""  # the splits of the source
    for way in FILES if reading.file else ():
        with suppress(InputError):
            groups = groups_of(reading, options.model_copy(update={"group": way}))
            assert groups is not None
            classes = reading.labels is not None and len(np.unique(groups)) == len(np.unique(reading.labels))
            if (groups[rows] == groups[others]).mean() >= MOST and not classes:
                return f"; give --group {way} to keep each {way} in one split"
    if reading.keys:
        return f"; give --group to keep groups in one split, by one of {listed(reading.keys)}"
    return otherwise
