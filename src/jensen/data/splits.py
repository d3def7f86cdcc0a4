"""Training, validation and test examples: disjoint, complete, and a pure function of a seed and the row indices."""

from pathlib import PurePath

import numpy as np
import torch

from jensen.data.examples import counted
from jensen.data.options import ReadOptions
from jensen.data.readers.array_names import listed
from jensen.data.readers.reading import SPLITS, Reading
from jensen.errors import InputError
from jensen.randomness import Stream, generator

FILES = ("folder", "file")
"""The groups of examples that are in files of their own."""


def split_rows(reading: Reading, options: ReadOptions) -> dict[str, np.ndarray]:
    """The rows of each split, in ascending order.

    Splits that the source supplies are kept. The other splits are drawn from the training examples of the source.
    Raises InputError if a split with a fraction above 0 would be empty.
    """
    supplied = reading.supplied if reading.supplied is not None else np.zeros(len(reading.values), np.int8)
    rows = {name: np.flatnonzero(supplied == code) for code, name in enumerate(SPLITS)}
    pool = rows["train"]
    pieces = np.arange(reading.pieces)
    wholes = pool[:: reading.pieces]  # the first tile of each image; without tiles every example
    held_out = {name: 0 if len(rows[name]) else _held_out(name, len(wholes), options) for name in SPLITS[1:]}
    if len(wholes) - sum(held_out.values()) < 1 or len(reading.values) < 2:
        raise InputError(
            f"{counted(len(wholes))} cannot be split into training, validation and test examples; give more data, "
            "or change --validation-fraction and --test-fraction"
        )
    groups = groups_of(reading, options)
    source = generator(options.split_seed, Stream.SPLIT)
    if groups is None:
        shuffled = wholes[torch.randperm(len(wholes), generator=source).numpy()]
        drawn = {name: _with_pieces(found, pieces) for name, found in _drawn(shuffled, held_out).items()}
    else:
        members = _members(pool, groups)
        counts = {name: count * reading.pieces for name, count in held_out.items()}
        of_groups = [members[group] for group in torch.randperm(len(members), generator=source).tolist()]
        drawn = _drawn_groups(of_groups, counts, options)
    return rows | {name: np.sort(found) for name, found in drawn.items()}


def groups_of(reading: Reading, options: ReadOptions) -> np.ndarray | None:
    """The index of each example's group, (N,) int64; None without --group.

    Groups are in the order of their names. Raises InputError if the data have no such groups.
    """
    wish = options.group
    if wish is None:
        return None
    ways = [*reading.keys, *(() if reading.file is None else FILES)]
    if wish not in ways:
        advice = f"--group may be {listed(ways)}" if ways else "leave it out"
        raise InputError(f"--group {wish}: these data have no groups of this name; {advice}")
    if wish in reading.keys:
        keys = reading.keys[wish]()
        if keys.shape not in ((len(reading.values),), (len(reading.values), 1)):
            raise InputError(
                f"--group {wish}: has shape {keys.shape}; expected the group of each example, ({len(reading.values)},)"
            )
    else:
        assert reading.file is not None
        paths = [PurePath(reading.file(row)) for row in range(len(reading.values))]
        keys = np.array([path.parent.name if wish == "folder" else str(path) for path in paths])
    names, groups = np.unique(keys.reshape(-1), return_inverse=True)
    if len(names) < 2:
        raise InputError(f"--group {wish}: all examples are in one group, {(str(names[0]) or '.')!r}; leave it out")
    return groups.astype(np.int64)


def shared_groups(reading: Reading, options: ReadOptions, rows: dict[str, np.ndarray]) -> tuple[str, ...]:
    """A doubt about groups in more than one split, or none; only splits of the source can share a group.

    `rows` are the rows of each split.
    """
    groups = groups_of(reading, options)
    if groups is None or reading.supplied is None:
        return ()
    split = np.empty(len(groups), np.int8)
    for code, name in enumerate(SPLITS):
        split[rows[name]] = code
    ordered = np.lexsort((split, groups))
    edges = ordered[:-1][(np.diff(groups[ordered]) == 0) & (np.diff(split[ordered]) != 0)]
    shared = np.unique(groups[edges])
    if not len(shared):
        return ()
    members = np.flatnonzero(groups == shared[0])
    one, other = (members[split[members] == code][0] for code in np.unique(split[members])[:2])
    own = " and ".join(SPLITS[code] for code in np.unique(reading.supplied) if code)
    return (
        f"{len(shared)} groups by {options.group} are in more than one split, because DATA brings its own {own} "
        f"examples: such as {reading.names(int(one))} and {reading.names(int(other))}; leave these groups out of one "
        "of the splits, or the bound is too good",
    )


def _with_pieces(wholes: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """All pieces of the wholes, in ascending order."""
    return np.sort((wholes[:, None] + pieces).ravel())


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
    if options.group is not None:
        ways.append(f"groups by {options.group} are drawn whole")
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


def _drawn(rows: np.ndarray, held_out: dict[str, int]) -> dict[str, np.ndarray]:
    """The first of `rows` for each split with a count above 0, and the rest for training."""
    found, start = {}, 0
    for name, count in held_out.items():
        if count:
            found[name] = rows[start : start + count]
        start += count
    return found | {"train": rows[start:]}


def _members(pool: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """The rows of `pool` by group; groups in ascending order."""
    ordered = pool[np.argsort(groups[pool], kind="stable")]
    return np.split(ordered, np.flatnonzero(np.diff(groups[ordered])) + 1)


def _drawn_groups(groups: list[np.ndarray], held_out: dict[str, int], options: ReadOptions) -> dict[str, np.ndarray]:
    """Whole groups for each split with a count above 0, and the other groups for training; `groups` are their rows.

    In the given order, a group joins a split if the number of examples then comes nearer to the count. If every group
    is too large, the split gets the smallest group.
    """
    found: dict[str, list[np.ndarray]] = {}
    waiting = groups
    for name, count in held_out.items():
        if not count:
            continue
        taken: list[np.ndarray] = []
        left: list[np.ndarray] = []
        size = 0
        for group in waiting:
            joins = abs(size + len(group) - count) < abs(size - count)
            (taken if joins else left).append(group)
            size += len(group) * joins
        if not taken and left:
            taken = [left.pop(int(np.argmin([len(group) for group in left])))]
        found[name], waiting = taken, left
    found["train"] = waiting
    if not all(found.values()):
        many = f"{len(groups)} group{'s' if len(groups) > 1 else ''} of training examples"
        raise InputError(
            f"--group {options.group}: {many} cannot be split into {len(found)} parts; give smaller groups, or "
            "--validation-fraction 0 or --test-fraction 0"
        )
    return {name: np.concatenate(parts) for name, parts in found.items()}


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
