"""The roles of named arrays, found by their names: examples or labels, and their split."""

import re
from collections.abc import Iterable

from jensen.data.options import ReadOptions
from jensen.data.readers.reading import SPLIT_NAMES, SPLITS
from jensen.errors import AbsentColumnError, InputError

DATA_NAMES = ("x", "data", "images", "image", "samples", "inputs")
LABEL_NAMES = ("y", "label", "labels", "target", "targets")


def choose_arrays(names: list[str], options: ReadOptions, source: str) -> list[tuple[str, str | None]]:
    """The names of the arrays of examples to read, each with the name of its array of labels, or None.

    Raises InputError, which begins with `source`, if the names and the options leave a choice open.
    """
    if not names:
        raise InputError(f"{source}: holds no array; give one named x")
    for option, name in (("array", options.array), ("labels", options.labels)):
        if name is not None and name not in names:
            raise AbsentColumnError(f"{source}: has no array {name!r}; --{option} may be {listed(names)}", option)
    data = [options.array] if options.array is not None else _arrays_of_examples(names, options, source)
    unlabelled = [name for name in names if name != options.group]
    return [(name, options.labels or _labels_of(name, unlabelled, source)) for name in data]


def split_of(name: str) -> str | None:
    """The split in the name of an array of examples, such as test in x_test; None if the name has none."""
    split, content = _role(name)
    return split if content == "data" else None


def listed(names: Iterable[str]) -> str:
    """The first 8 names and the number of further names, for a message."""
    shown = [repr(name) for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "") if shown else "none"


def _arrays_of_examples(names: list[str], options: ReadOptions, source: str) -> list[str]:
    """The arrays of training, validation and test examples if there are any, else the only array of examples."""
    names = [name for name in names if name != options.group]
    roles = {name: _role(name) for name in names}
    splits = [name for name in names if roles[name][1] == "data" and roles[name][0] is not None]
    if options.labels is None and any(roles[name][0] == "train" for name in splits):
        data = sorted(splits, key=lambda name: SPLITS.index(roles[name][0] or "train"))
        if len({roles[name] for name in data}) < len(data):
            raise InputError(f"{source}: {listed(data)} hold one split twice; give --array")
        return data
    others = [name for name in names if roles[name][1] != "labels" and name != options.labels]
    if not others:
        raise InputError(f"{source}: holds only labels, {listed(names)}; add the examples, named x")
    data = others if len(others) == 1 else [name for name in names if roles[name] == (None, "data")]
    if len(data) != 1:
        raise InputError(f"{source}: which array holds the examples? give --array as one of {listed(names)}")
    return data


def _labels_of(name: str, names: list[str], source: str) -> str | None:
    split, content = _role(name)
    found = [other for other in names if other != name and _role(other) == (split, "labels")]
    if len(found) > 1:
        raise InputError(
            f"{source}: which array labels {name!r}? give --array {name} and --labels as one of {listed(found)}"
        )
    return found[0] if found and content != "labels" else None


def _role(name: str) -> tuple[str | None, str]:
    """The split in a name such as x_train or test_labels, and the content of the array: data, labels or other."""
    words = re.split(r"[_.\- ]+", name.lower())
    splits = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    rest = [word for word in words if word not in SPLIT_NAMES]
    if len(splits) > 1 or len(rest) > 1:
        return None, "other"
    content = "labels" if rest and rest[0] in LABEL_NAMES else "data" if not rest or rest[0] in DATA_NAMES else "other"
    return (splits[0] if splits else None), content
