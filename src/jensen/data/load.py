"""DATA in, tensors and a specification out."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from jensen.data.choose import choose_preparation, refuse_outside_unit
from jensen.data.examples import Dataset, Examples
from jensen.data.options import DEFAULTS, PreparationWish, ReadOptions, Streaming
from jensen.data.readers.read import DIGITS, check_options, read
from jensen.data.readers.reading import SPLITS, Reading, refuse_at_once
from jensen.data.spec import DataSpec
from jensen.data.splits import check_fractions, describe_split, split_rows
from jensen.data.stored import in_memory_or_stored, selected
from jensen.data.target_scaling import TargetScaling
from jensen.errors import InputError


def load_data(source: str | Path, options: ReadOptions = DEFAULTS, preparation: PreparationWish = None) -> Dataset:
    """The training, validation and test examples of `source` and the specification that a run records.

    `preparation` None: dequantise integers, standardise floats. Raises InputError for whatever cannot be used.
    """
    check_fractions(options)
    reading = read(source, options, refuse_at_once)
    check_options(reading, options, refuse_at_once)
    rows = split_rows(reading, options)
    return _dataset(specify(source, options, reading, rows, preparation), reading, rows)


def load_again(spec: DataSpec, stream: Streaming | None = None) -> Dataset:
    """The very data that a run saw, in memory or on disk as then, or as `stream` says.

    Raises InputError if the source no longer holds them, or for `stream` where they cannot be on disk.
    """
    options = spec.options if stream is None else spec.options.model_copy(update={"stream": stream})
    reading = read(spec.source, options, refuse_at_once)
    if stream is not None:
        check_options(reading, options, refuse_at_once)
    found = fingerprint(reading)
    if found != spec.fingerprint:
        raise InputError(
            f"{spec.source}: the data have changed since the run (fingerprint {found}, then {spec.fingerprint}); "
            "restore them, or name the data to use"
        )
    return _dataset(spec, reading, split_rows(reading, spec.options))


def load_split(spec: DataSpec, split: Literal["train", "validation", "test"]) -> Examples:
    """One split of the very data that a run saw. Raises InputError if they have changed or the split is empty."""
    examples = getattr(load_again(spec), split)
    if not len(examples):
        raise InputError(f"{spec.source}: the run's {split} split is empty; name the data to use")
    return examples


def read_examples(source: str | Path, spec: DataSpec, *, only_known_y: bool = False, missing: bool = False) -> Examples:
    """All examples of `source`, read under the rules of a run: its size, colours, layout, levels and preparation.

    Labels are numbered as in the run, and None where they are not all its classes; targets are in its units, and None
    where they are not as many numbers. Raises InputError where shape, dtype or levels differ from the run's, and, if
    asked for `only_known_y`, for a label that is no class of the run and for other targets. NaN in x are refused unless
    the run was trained with some, or `missing` is asked for.
    """
    missing = missing or spec.options.missing
    stream: Streaming = "auto" if spec.options.stream == "always" else spec.options.stream  # other files than the run's
    options = spec.options.model_copy(update={"levels": spec.levels, "missing": missing, "stream": stream})
    try:
        reading = read(source, options, refuse_at_once)
    except InputError as error:
        raise InputError(_advice_of_run(str(error))) from None
    for what, given, expected in (
        ("shape", reading.values.shape[1:], spec.shape),
        ("dtype", reading.values.dtype.name, spec.dtype),
        ("levels", reading.levels, spec.levels),
    ):
        both_floats = what == "dtype" and reading.levels is None and spec.levels is None  # any precision will do
        if given != expected and not both_floats:
            raise InputError(
                f"{source}: has {what} {given} but the run was trained on {what} {expected}; convert the data"
            )
    if spec.levels is None and spec.preparation.kind in ("threshold", "static", "dynamic"):
        refuse_outside_unit(reading.survey, f"{source}: the run's preparation {spec.preparation.kind}")
    labels = _labels_of_run(reading, spec)
    targets = reading.targets if _dimensions(reading) == (spec.targets and spec.targets.dimensions) else None
    if only_known_y:
        _refuse_other_y(source, reading, spec, labels)
    return _examples(replace(reading, labels=labels, targets=targets), np.arange(len(reading.values)), spec)


def _advice_of_run(problem: str) -> str:
    """How data are read is said when a run is trained: what reads them under its rules has no such flags.

    >>> _advice_of_run("a.png: is grey; give --colour rgb")
    'a.png: is grey; convert it, or train with --colour rgb'
    """
    return problem.replace("; give --", "; convert it, or train with --").replace(" give --", " train with --")


def specify(
    source: str | Path,
    options: ReadOptions,
    reading: Reading,
    rows: dict[str, np.ndarray],
    preparation: PreparationWish,
) -> DataSpec:
    """The specification of a reading and its splits."""
    chosen, doubts = choose_preparation(preparation, reading, rows["train"])
    return DataSpec(
        source=DIGITS if source == DIGITS else str(Path(source).resolve()),
        kind=reading.kind,
        options=options,
        layout=reading.layout,
        shape=reading.values.shape[1:],
        dtype=reading.values.dtype.name,
        levels=reading.levels,
        minimum=reading.survey.minimum,
        maximum=reading.survey.maximum,
        missing=reading.survey.missing,
        counts={name: len(rows[name]) for name in SPLITS},
        classes=None if reading.labels is None else int(reading.labels.max()) + 1,
        label_names=reading.label_names,
        label_counts=_label_counts(reading.labels, rows["train"]),
        targets=None if reading.targets is None else TargetScaling.of(reading.targets[rows["train"]]),
        splits=describe_split(reading, options),
        skipped=reading.skipped,
        fingerprint=fingerprint(reading),
        preparation=chosen,
        doubts=doubts,
    )


def fingerprint(reading: Reading) -> str:
    """BLAKE2b, 16 bytes in hexadecimal, of dtype, shape, values, labels, supplied splits and, if any, targets."""
    beside = [b"none" if values is None else values.tobytes() for values in (reading.labels, reading.supplied)]
    if reading.targets is not None:
        beside.append(f"{reading.targets.shape}".encode() + reading.targets.tobytes())
    return reading.survey.fingerprint(*beside)


def _label_counts(labels: np.ndarray | None, rows: np.ndarray) -> tuple[int, ...] | None:
    return None if labels is None else tuple(np.bincount(labels[rows], minlength=int(labels.max()) + 1).tolist())


def _labels_of_run(reading: Reading, spec: DataSpec) -> np.ndarray | None:
    """The labels numbered as the run numbers its classes; None unless every one of them is a class of the run."""
    if reading.labels is None or spec.classes is None:
        return None
    named = any(not name.isdecimal() for name in spec.label_names or ())
    if named and not reading.label_names:  # a number says which of the names
        return reading.labels if reading.labels.max() < spec.classes else None
    known = spec.label_names or _numbers(spec.classes)
    found = reading.label_names or _numbers(int(reading.labels.max()) + 1)
    if not set(found) <= set(known):
        return None
    return np.array([known.index(name) for name in found])[reading.labels]


def _dimensions(reading: Reading) -> int | None:
    return None if reading.targets is None else reading.targets.shape[1]


def _refuse_other_y(source: str | Path, reading: Reading, spec: DataSpec, labels: np.ndarray | None) -> None:
    """Raises InputError for labels or targets, `labels` being those that the run knows, unlike the run's."""
    given, expected = _dimensions(reading), spec.targets and spec.targets.dimensions
    if expected and reading.labels is not None:
        raise InputError(
            f"{source}: has labels but the run was trained on continuous targets; convert them to floats, or leave "
            "them out"
        )
    if given and spec.classes is not None:
        raise InputError(
            f"{source}: has targets, which are floats, but the run was trained on labels; convert them to integers, or "
            "leave them out"
        )
    if given and expected and given != expected:
        raise InputError(
            f"{source}: has targets of {given} numbers but the run was trained on targets of {expected}; give as many, "
            "or leave them out"
        )
    if labels is None and reading.labels is not None:
        raise InputError(f"{source}: {_unknown_label(reading, spec)}; leave such examples, or all labels, out")


def _unknown_label(reading: Reading, spec: DataSpec) -> str:
    """The first label that is no class of the run, and which are."""
    if spec.classes is None:
        return "has labels, but the run was trained on data without any"
    known = spec.label_names or _numbers(spec.classes)
    assert reading.labels is not None
    found = reading.label_names or _numbers(int(reading.labels.max()) + 1)
    unknown = [name for name in found if name not in known]
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"label {unknown[0]} ({len(unknown)} such) was never seen in training, which knew {shown}"


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


def _dataset(spec: DataSpec, reading: Reading, rows: dict[str, np.ndarray]) -> Dataset:
    return Dataset(spec, *(_examples(reading, rows[name], spec) for name in SPLITS))


def _examples(reading: Reading, rows: np.ndarray, spec: DataSpec) -> Examples:
    labels = None if reading.labels is None else torch.from_numpy(reading.labels[rows])
    targets = None
    if reading.targets is not None and spec.targets is not None:
        targets = torch.from_numpy(spec.targets(reading.targets[rows]))
    return Examples(in_memory_or_stored(selected(reading.values, rows)), labels, targets)
