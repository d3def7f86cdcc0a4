"""From DATA to tensors and their specification."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from jensen.data.choose import choose_preparation, refuse_outside_unit
from jensen.data.examples import Dataset, Examples, Names
from jensen.data.options import DEFAULTS, PreparationWish, ReadOptions, Streaming
from jensen.data.readers.image import widened
from jensen.data.readers.memory import MEMORY, Source, source_name
from jensen.data.readers.read import DIGITS, IMAGE_KINDS, check_options, read, read_cells
from jensen.data.readers.reading import SPLITS, Reading, Refuse, refuse_at_once
from jensen.data.readers.tables import read_by_table
from jensen.data.smooth import smooth_vectors
from jensen.data.spec import DataSpec
from jensen.data.splits import check_fractions, describe_split, groups_of, shared_groups, split_rows
from jensen.data.stored import converted, in_memory_or_stored, selected
from jensen.data.table.column import Column, Table
from jensen.data.target_scaling import TargetScaling
from jensen.errors import AbsentColumnError, InputError


def load_data(source: Source, options: ReadOptions = DEFAULTS, preparation: PreparationWish = None) -> Dataset:
    """The training, validation and test examples of `source`, and the `DataSpec` that a run records.

    `source` is a path, `digits`, an array or tensor, or a dict of arrays or tensors with the keys of an .npz. The
    default preparation dequantises integers and standardises floats. Raises InputError for unusable data.
    """
    check_fractions(options)
    reading = read(source, options, refuse_at_once)
    check_options(reading, options, refuse_at_once)
    refuse_empty_examples(source, reading, options, refuse_at_once)
    rows = split_rows(reading, options)
    return _dataset(specify(source, options, reading, rows, preparation), reading, rows)


def load_again(spec: DataSpec, stream: Streaming | None = None, source: Source | None = None) -> Dataset:
    """Read the data of a run again, and check that their fingerprint is the recorded one.

    `source` is the new place of the data if they have moved or were in memory; the returned specification names it.
    `stream` replaces the run's choice of leaving examples on disk. Raises InputError if the source holds other data, or
    if `stream` is "always" and the data cannot stay on disk.
    """
    options = spec.options if stream is None else spec.options.model_copy(update={"stream": stream})
    with _explained_if_moved(spec, source):
        reading = _read_by(spec, spec.source if source is None else source, options)
    if stream is not None:
        check_options(reading, options, refuse_at_once)
    found = fingerprint(reading, spec.options)
    if found != spec.fingerprint:
        given = spec.source if source is None else source_name(source)
        what = "the data have changed since the run" if source is None else "the data differ from those of the run"
        raise InputError(
            f"{given}: {what} (fingerprint {found}, that of the run is {spec.fingerprint}); restore them, or name the "
            "data to use"
        )
    if source is not None:
        spec = spec.model_copy(update={"source": recorded_source(source), "kind": reading.kind})
    return _dataset(spec, reading, split_rows(reading, spec.options))


def _read_by(spec: DataSpec, source: Source, options: ReadOptions, absent: bool = False) -> Reading:
    """The reading of `source` by the columns of a run, if its data are a table; for `absent` see `read_by_table`."""
    if spec.table is not None:
        return read_by_table(read_cells(source, spec.table.header, options), spec.table, options, absent)
    return read(source, options, refuse_at_once)


@contextmanager
def _explained_if_moved(spec: DataSpec, source: Source | None) -> Iterator[None]:
    """A context in which an InputError about missing data of a run explains how to give the new place of the data."""
    try:
        yield
    except InputError as error:
        if source is not None or spec.source == DIGITS or (spec.source != MEMORY and Path(spec.source).exists()):
            raise
        if spec.source == MEMORY:
            raise InputError(
                "the run's own data were arrays in memory; give them again, as in jensen.load(RUN, data=...), or write "
                "them with numpy.savez and name the file: jensen info RUN --data FILE"
            ) from error
        raise InputError(
            f"{spec.source}: the run's own data are no longer there; restore them, or give their new path: "
            "jensen info RUN --data PATH"
        ) from error


def load_split(spec: DataSpec, split: Literal["train", "validation", "test"], source: Source | None = None) -> Examples:
    """One split of the data that a run was trained on; for `source` see `load_again`.

    Raises InputError if the data have changed or the split is empty.
    """
    examples = getattr(load_again(spec, source=source), split)
    if not len(examples):
        raise InputError(f"{spec.source}: the run's {split} split is empty; name the data to use")
    return examples


def read_examples(
    source: Source, spec: DataSpec, *, only_known_y: bool = False, missing: bool = False, gaps: bool = False
) -> Examples:
    """All examples of `source`, read with the size, colours, layout, levels and preparation of the run's own data.

    Labels are numbered as in the run; they are None if any label is not a class of the run. Targets are scaled as in
    the run; they are None if the run's targets have another number of dimensions. NaN in x is refused unless the run
    was trained with missing values or `missing` is True; `missing` also allows examples that are entirely missing.
    `gaps` allows empty cells in the columns of a table that had none in training, but no column that is absent.
    Raises InputError if shape, dtype or levels differ from the run's. With `only_known_y`, labels and targets that the
    run does not know also raise InputError.
    """
    stream: Streaming = "auto" if spec.options.stream == "always" else spec.options.stream  # the run's own files only
    changes = {"levels": spec.levels, "missing": missing or spec.options.missing, "stream": stream}
    options = spec.options.model_copy(update=changes)
    name = source_name(source)
    try:
        reading = _read_other(spec, source, options, missing)
    except InputError as error:
        raise InputError(_advice_of_run(str(error))) from None
    reading = _with_channels(reading, spec)
    if spec.table is not None:
        _refuse_new_gaps(reading, spec.table, name, missing or gaps)
        for note in reading.notes:
            warnings.warn(f"{name}: {note}", stacklevel=2)
    if not missing:
        refuse_empty_examples(source, reading, options, refuse_at_once)
    for what, given, expected in (
        ("shape", reading.values.shape[1:], spec.shape),
        ("dtype", reading.values.dtype.name, spec.dtype),
        ("levels", reading.levels, spec.levels),
    ):
        both_floats = what == "dtype" and reading.levels is None and spec.levels is None  # any precision is accepted
        if given != expected and not both_floats:
            raise InputError(
                f"{name}: has {what} {given} but the run was trained on {what} {expected}; convert the data"
            )
    if spec.levels is None and spec.preparation.kind in ("threshold", "static", "dynamic"):
        refuse_outside_unit(reading.survey, f"{name}: the run's preparation {spec.preparation.kind}")
    labels = _labels_of_run(reading, spec)
    targets = reading.targets if _dimensions(reading) == (spec.targets and spec.targets.dimensions) else None
    if only_known_y:
        _refuse_other_y(name, reading, spec, labels)
    return _examples(replace(reading, labels=labels, targets=targets), np.arange(len(reading.values)), spec)


def _read_other(spec: DataSpec, source: Source, options: ReadOptions, missing: bool) -> Reading:
    """The reading of other data than the run's own, which need neither the labels nor the groups of the run's."""
    try:
        return _read_by(spec, source, options, missing)
    except AbsentColumnError as absent:
        if absent.option not in ("labels", "group"):
            raise
        return _read_other(spec, source, options.model_copy(update={absent.option: None}), missing)


def _advice_of_run(problem: str) -> str:
    """Replaces advice to give a flag, because a run fixes the options of reading when it is trained.

    >>> _advice_of_run("a.png: is grey; give --colour rgb")
    'a.png: is grey; convert it, or train with --colour rgb'
    """
    return problem.replace("; give --", "; convert it, or train with --").replace(" give --", " train with --")


def _refuse_new_gaps(reading: Reading, table: Table, name: str, missing: bool) -> None:
    """Refuses a missing cell in a column without missing cells in training, unless `missing` allows them."""
    values = reading.values[:]
    for place, field in enumerate(table.fields):
        empty = np.isnan(values[:, place])
        if not missing and not field.missing and empty.any():
            raise InputError(
                f"{name}: {reading.names(int(empty.argmax()))}, column {table.columns[field.column].name!r}: is "
                "missing, but no training row has a missing cell there; jensen impute fills it"
            )


def _with_channels(reading: Reading, spec: DataSpec) -> Reading:
    """Images with the channels of the run's images, to which they can be widened without loss.

    Images of several modes are read with the channels of all of them, so that other images may have fewer.
    """
    both_images = reading.kind in IMAGE_KINDS and spec.kind in IMAGE_KINDS and reading.values.dtype == np.uint8
    channels = spec.shape[0]
    if not both_images or reading.values.shape[1] >= channels:
        return reading
    return replace(reading, values=converted(reading.values, partial(widened, channels=channels)))


def refuse_empty_examples(source: Source, reading: Reading, options: ReadOptions, refuse: Refuse) -> None:
    """Refuses an example whose values are all missing, as a model can learn nothing from it."""
    empty = reading.survey.first_empty
    if options.missing and empty is not None:
        name = f"{source_name(source)}: {reading.names(empty)}"
        refuse(f"{name} has only missing values (NaN); remove it from the data")


def recorded_source(source: Source) -> str:
    """The name of a source in a `DataSpec`: the absolute path, `digits`, or `memory`."""
    in_words = not isinstance(source, str | Path) or source == DIGITS
    return source_name(source) if in_words else str(Path(source_name(source)).resolve())


def specify(
    source: Source,
    options: ReadOptions,
    reading: Reading,
    rows: dict[str, np.ndarray],
    preparation: PreparationWish,
) -> DataSpec:
    """The specification of a reading and its splits."""
    chosen, doubts = choose_preparation(preparation, reading, rows["train"])
    smooth = smooth_vectors(reading, rows["train"]) if options.layout == "auto" else ()
    return DataSpec(
        source=recorded_source(source),
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
        fingerprint=fingerprint(reading, options),
        preparation=chosen,
        table=reading.table,
        doubts=(*reading.doubts, *smooth, *doubts, *shared_groups(reading, options, rows)),
    )


def fingerprint(reading: Reading, options: ReadOptions) -> str:
    """BLAKE2b digest (16 bytes, hexadecimal) of dtype, shape, values, labels, supplied splits, targets and groups."""
    beside = [b"none" if values is None else values.tobytes() for values in (reading.labels, reading.supplied)]
    if reading.targets is not None:
        beside.append(f"{reading.targets.shape}".encode() + reading.targets.tobytes())
    if reading.table is not None:
        beside += [column.name.encode() + repr(_identity(column)).encode() for column in reading.table.columns]
    if (groups := groups_of(reading, options)) is not None:
        beside.append(b"groups" + groups.tobytes())
    return reading.survey.fingerprint(*beside)


def _identity(column: Column) -> tuple[object, ...]:
    """What the numbers of the matrix mean, beside the name of the column."""
    return column.values, column.low, column.step


def _label_counts(labels: np.ndarray | None, rows: np.ndarray) -> tuple[int, ...] | None:
    return None if labels is None else tuple(np.bincount(labels[rows], minlength=int(labels.max()) + 1).tolist())


def _labels_of_run(reading: Reading, spec: DataSpec) -> np.ndarray | None:
    """The labels, numbered as the run numbers its classes; None if any label is not a class of the run."""
    if reading.labels is None or spec.classes is None:
        return None
    named = any(not name.isdecimal() for name in spec.label_names or ())
    if named and not reading.label_names:  # then the labels are positions in the names
        return reading.labels if reading.labels.max() < spec.classes else None
    known = spec.label_names or _numbers(spec.classes)
    found = reading.label_names or _numbers(int(reading.labels.max()) + 1)
    if not set(found) <= set(known):
        return None
    return np.array([known.index(name) for name in found])[reading.labels]


def _dimensions(reading: Reading) -> int | None:
    return None if reading.targets is None else reading.targets.shape[1]


def _refuse_other_y(name: str, reading: Reading, spec: DataSpec, labels: np.ndarray | None) -> None:
    """Raises InputError for labels or targets that the run does not know; `labels` are numbered as in the run."""
    given, expected = _dimensions(reading), spec.targets and spec.targets.dimensions
    if expected and reading.labels is not None:
        raise InputError(
            f"{name}: has labels but the run was trained on continuous targets; convert them to floats, or leave "
            "them out"
        )
    if given and spec.classes is not None:
        raise InputError(
            f"{name}: has targets, which are floats, but the run was trained on labels; convert them to integers, or "
            "leave them out"
        )
    if given and expected and given != expected:
        raise InputError(
            f"{name}: has targets of {given} dimensions but the run was trained on targets of {expected}; give as "
            "many, or leave them out"
        )
    if labels is None and reading.labels is not None:
        raise InputError(f"{name}: {_unknown_label(reading, spec)}; leave such examples, or all labels, out")


def _unknown_label(reading: Reading, spec: DataSpec) -> str:
    """A sentence with the first label that is not a class of the run, and the run's classes."""
    if spec.classes is None:
        return "has labels, but the run was trained on data without any"
    known = spec.label_names or _numbers(spec.classes)
    assert reading.labels is not None
    found = reading.label_names or _numbers(int(reading.labels.max()) + 1)
    unknown = [name for name in found if name not in known]
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"label {unknown[0]} ({len(unknown)} such) is not a class of the run; its classes are {shown}"


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


def _dataset(spec: DataSpec, reading: Reading, rows: dict[str, np.ndarray]) -> Dataset:
    return Dataset(spec, *(_examples(reading, rows[name], spec) for name in SPLITS))


def _examples(reading: Reading, rows: np.ndarray, spec: DataSpec) -> Examples:
    labels = None if reading.labels is None else torch.from_numpy(reading.labels[rows])
    targets = None
    if reading.targets is not None and spec.targets is not None:
        targets = torch.from_numpy(spec.targets(reading.targets[rows]))
    names = Names(reading.names, torch.from_numpy(rows))
    return Examples(in_memory_or_stored(selected(reading.values, rows)), labels, targets, names)
