"""Parquet and Arrow by Hugging Face `datasets`: the shards of each split, and the columns of examples and of labels.

Nothing is downloaded, and no code from the data is run. If the examples stay on disk, Parquet is unpacked into Arrow
once, in the cache of `datasets` (`HF_DATASETS_CACHE`). Otherwise Parquet is read into memory, and nothing is written.
"""

import glob
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers import tables
from jensen.data.readers.array_names import DATA_NAMES, LABEL_NAMES, listed
from jensen.data.readers.columns import (
    FILE_MAGIC,
    PictureColumn,
    Shard,
    allow_open,
    damaged,
    encoded_bytes,
    is_parquet,
    number_values,
    numbers,
    parquet_batches,
)
from jensen.data.readers.encoded import gather
from jensen.data.readers.layout import CONTINUOUS, Part, assemble, labels_or_targets, supplied_splits
from jensen.data.readers.reading import SPLIT_NAMES, SPLITS, Reading, Refuse, numbered_rows, part_name
from jensen.data.table.on_disk import columns_on_disk
from jensen.errors import AbsentColumnError, InputError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

SUFFIXES = (".parquet", ".arrow")
PASSED_OVER = ("cache-", "tmp")  # files that `datasets` leaves beside its shards


def read_table(source: Path, paths: Sequence[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """The examples of Parquet or Arrow shards in the order of their names; `source` is the folder or the only shard."""
    shards = _shards(source, paths)
    schema = _schema(shards[0])
    if options.layout in ("auto", "table") and options.array is None and not _usable(schema):
        return tables.read_table(cells_of_shards(source, shards, options), options)
    features = _features(shards[0], schema)
    x = _column_of_examples(schema, options, source)
    y = _column_of_labels(schema, features, x, options, source)
    others = [name for name in schema.names if name not in (x, y)]
    wanted = [x, *([] if y is None else [y]), *(name for name in others if name == options.group)]
    splits = _splits(source, shards)
    streams = options.streams(sum(map(_bytes, shards)))
    allow_open(len(shards))
    opened = {split: _opened(files, wanted, streams) for split, files in splits.items()}
    for split, files in opened.items():
        if not any(map(len, files)):
            raise InputError(f"{source}: has no rows{f' of {split}' if split else ''}; leave such files out")
    kept = None  # all rows
    if _holds_images(schema.field(x).type):
        reading, kept = _pictures(source, opened, x, y, options, refuse)
    else:
        parts = [_numbers(source, split, files, x, y) for split, files in opened.items()]
        reading = assemble("list table", parts, options, refuse)
    left_out = [name for name in schema.names if name not in wanted]
    note = f"x is column {x!r}, y is {f'column {y!r}' if y else 'none'}; left out: {listed(left_out)}"
    unpacked = [str(files[0].path.parent) for files in opened.values() if files[0].path not in shards]
    where = [f"Parquet is unpacked in {', '.join(unpacked)}, which may be removed after use"] if unpacked else []
    counts = _rows_by_shard(source, splits, opened)
    rows, file = numbered_rows(counts), part_name(counts)
    opened_shards = [shard for files in opened.values() for shard in files]
    return replace(
        reading,
        notes=(note, *where, *reading.notes),
        label_names=_class_names(reading, features.get(y or "")),
        names=rows if kept is None else lambda row: rows(int(kept[row])),
        file=None if len(counts) == 1 else file if kept is None else lambda row: file(int(kept[row])),
        keys={name: partial(_key, opened_shards, name, kept) for name in others},
    )


# ---------------------------------------------------------------------------------------------- files


def _shards(source: Path, paths: Sequence[Path]) -> list[Path]:
    """The files of a source that hold its rows. Raises InputError if there are none, or files of both formats."""
    shards = [path for path in paths if path == source or not path.name.startswith(PASSED_OVER)]
    if not shards:
        raise InputError(f"{source}: holds only files that datasets leaves behind, {paths[0].name}; name its data")
    if len({is_parquet(path) for path in shards}) > 1:
        raise InputError(f"{source}: holds both Parquet and Arrow files; name a folder with one of them")
    return shards


def cells_of_shards(source: Path, paths: Sequence[Path], options: ReadOptions) -> tables.Cells:
    """The cells of all Parquet or Arrow files of a source, whose columns must agree."""
    tables.table_package(str(source))
    import pyarrow
    from pyarrow import ipc, parquet

    found: list[pyarrow.Table] = []
    splits = _splits(source, _shards(source, paths))
    for path in (path for files in splits.values() for path in files):
        try:
            if is_parquet(path):
                shard = parquet.ParquetFile(path, page_checksum_verification=True)
                on_disk = options.streams(encoded_bytes(shard.metadata))
                table = columns_on_disk(shard.iter_batches(), shard.schema_arrow) if on_disk else shard.read()
            else:
                with pyarrow.OSFile(str(path)) as file:
                    whole = file.read(6) == FILE_MAGIC
                    file.seek(0)
                    table = (ipc.open_file(file) if whole else ipc.open_stream(file)).read_all()
            table.validate(full=True)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise damaged(path, error) from error
        if found and table.schema.remove_metadata() != found[0].schema.remove_metadata():
            raise InputError(f"{path}: its columns differ from those of the first file; they must agree")
        found.append(table.replace_schema_metadata(None))
    lengths = iter(map(len, found))
    counts = [(split, sum(next(lengths) for _ in files)) for split, files in splits.items()]
    rows = [(str(path.relative_to(source)) if path != source else path.name, len(table)) for path, table in zip(
        (path for files in splits.values() for path in files), found, strict=True)]  # fmt: skip
    return tables.Cells(
        str(source), pyarrow.concat_tables(found), names=numbered_rows(rows), supplied=supplied_splits(counts)
    )


def _schema(path: Path) -> "pyarrow.Schema":
    """The Arrow types of the columns, whose names must differ."""
    tables.table_package(str(path))
    import pyarrow
    from pyarrow import ipc, parquet

    try:
        if is_parquet(path):
            schema = parquet.read_schema(path)
        else:
            with pyarrow.OSFile(str(path)) as file:
                whole = file.read(6) == b"ARROW1"
                file.seek(0)
                schema = (ipc.open_file(file) if whole else ipc.open_stream(file)).schema
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pyarrow.ArrowException) as error:
        raise damaged(path, error) from error
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise InputError(f"{path}: has columns of one name, {listed(twice)}; rename them")
    return schema


def _features(path: Path, schema: "pyarrow.Schema") -> dict[str, Any]:
    """The features in the description of the columns, if `datasets` wrote the file."""
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{path}: images and lists in Parquet and Arrow files are read by the package datasets, which is not "
            "installed; pip install 'jensen[datasets]'"
        ) from error
    try:
        return dict(datasets.Features.from_arrow_schema(schema))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(path, error) from error


def _splits(source: Path, shards: Sequence[Path]) -> dict[str | None, list[Path]]:
    """The shards by split. A word in the name of the file or its folder gives the split; None if no name does."""
    found: dict[str | None, list[Path]] = {}
    for path in shards:
        relative = path.relative_to(source) if path != source else Path(path.name)
        words = [word for part in relative.parts for word in re.split(r"[^a-z0-9]+", part.lower())]
        splits = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
        found.setdefault(splits[0] if splits else None, []).append(path)
    if None in found and len(found) > 1:
        others = listed(split for split in SPLITS if split in found)
        raise InputError(
            f"{found[None][0]}: its name gives no split, and the names of other files give {others}; name it train-... "
            "too, or give a single file as DATA"
        )
    if len(found) == 1 or "train" not in found:
        return {None: list(shards)}
    return {split: found[split] for split in SPLITS if split in found}


def _opened(paths: Sequence[Path], columns: Sequence[str], streams: bool) -> list[Shard]:
    """The opened shards. If examples stay on disk, Parquet is unpacked, and the Arrow files are opened instead."""
    if streams and is_parquet(paths[0]):
        held = [path for path in paths if _metadata(path).num_rows]
        paths = _unpacked(held, columns) if held else paths
    return [Shard(path, columns, not streams) for path in paths]


def _bytes(path: Path) -> int:
    """The approximate size in memory of the columns of a shard, in bytes."""
    if not is_parquet(path):
        return path.stat().st_size
    return encoded_bytes(_metadata(path))


def _metadata(path: Path) -> "parquet.FileMetaData":
    from pyarrow import ArrowException, parquet

    try:
        return parquet.read_metadata(path)
    except (OSError, ArrowException) as error:
        raise damaged(path, error) from error


def _unpacked(paths: Sequence[Path], columns: Sequence[str]) -> list[Path]:
    """The unpacked Arrow files in the cache of `datasets`; a changed Parquet file is unpacked again."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors that it logs are also raised
    try:
        names = [glob.escape(str(path)) for path in paths]  # datasets reads names as patterns
        builder = _unpacker()(dataset_name="parquet", data_files=names, columns=list(columns))
        builder.download_and_prepare()
        unpacked = builder.as_dataset("train")
    except Exception as error:  # datasets wraps every error in one of its own
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        where = datasets.config.HF_DATASETS_CACHE
        raise InputError(
            f"{paths[0].parent}: cannot be unpacked into {where} ({reason}); mend the files, or set HF_DATASETS_CACHE "
            "to another place"
        ) from error
    return [Path(file["filename"]) for file in unpacked.cache_files]


def _unpacker() -> Any:
    """A Parquet builder for `datasets` that reads some MiB at a time; the original loads a whole row group."""
    import pyarrow
    from datasets.packaged_modules.parquet.parquet import Parquet

    class Unpacker(Parquet):  # type: ignore[misc]
        def _generate_tables(
            self, files: Iterable[str | Iterable[str]], **groups: object
        ) -> Iterator[tuple[tuple[int, int], "pyarrow.Table"]]:
            named = ([file] if isinstance(file, str) else file for file in files)  # datasets 4.0 gives lists of names
            for number, file in enumerate(chain.from_iterable(named)):
                for part, batch in enumerate(parquet_batches(Path(file), self.config.columns)):
                    yield (number, part), self._cast_table(pyarrow.Table.from_batches([batch]))

    return Unpacker


# ---------------------------------------------------------------------------------------------- columns


def _usable(schema: "pyarrow.Schema") -> list[str]:
    """The columns that may hold examples: images or lists of numbers."""
    return [field.name for field in schema if _holds_images(field.type) or _holds_lists(field.type)]


def _column_of_examples(schema: "pyarrow.Schema", options: ReadOptions, source: Path) -> str:
    """The column named by --array. Default: the only column of images or lists, or the one with a name for data."""
    usable = _usable(schema)
    if options.array is not None:
        if options.array not in usable:
            advice = f"--array may be {listed(usable)}" if usable else "put the numbers of an example into one list"
            raise InputError(f"{source}: has no column {options.array!r} of images or lists of numbers; {advice}")
        return options.array
    usable = [name for name in usable if name not in (options.labels, options.group)]
    if not usable:
        raise InputError(
            f"{source}: has no column of images or lists of numbers, only {listed(schema.names)}; "
            "put the numbers of an example into one list"
        )
    images = [name for name in usable if _holds_images(schema.field(name).type)]
    for choice in (usable, images, [name for name in usable if name.lower() in DATA_NAMES]):
        if len(choice) == 1:
            return choice[0]
    raise InputError(f"{source}: which column holds the examples? give --array as one of {listed(usable)}")


def _column_of_labels(
    schema: "pyarrow.Schema", features: dict[str, Any], x: str, options: ReadOptions, source: Path
) -> str | None:
    """The column named by --labels. Default: the only column of class labels, or the one with a name for labels."""
    others = [name for name in schema.names if name not in (x, options.group)]
    if options.labels is not None:
        if options.labels not in others:
            advice = f"--labels may be {listed(others)}" if others else "leave --labels out"
            raise AbsentColumnError(f"{source}: has no column {options.labels!r} beside {x!r}; {advice}", "labels")
        return options.labels
    classes = [name for name in others if type(features[name]).__name__ == "ClassLabel"]
    named = [name for name in others if name.lower() in LABEL_NAMES]
    for choice in ([name for name in classes if name in named], classes, named):
        if len(choice) == 1:
            return choice[0]
    if classes or named:
        raise InputError(f"{source}: which column holds the labels? give --labels as one of {listed(classes or named)}")
    return None


def _holds_images(kind: "pyarrow.DataType") -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_lists(kind: "pyarrow.DataType", deep: bool = False) -> bool:
    from pyarrow import types

    kind = getattr(kind, "storage_type", kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _holds_lists(kind.value_type, deep=True)
    return deep and (types.is_integer(kind) or types.is_floating(kind))


def _beside(shards: Sequence[Shard], name: str | None) -> np.ndarray | None:
    """A column of labels or targets in memory: integers, strings, floats or lists of floats."""
    if name is None:
        return None
    from pyarrow import types

    parts = []
    for shard in shards:
        for piece in shard.pieces(name):
            column = piece.dictionary_decode() if types.is_dictionary(piece.type) else piece
            if types.is_string(column.type) or types.is_large_string(column.type):
                parts.append(np.array(column.to_pylist()))
                continue
            whole = column.cast("int64") if types.is_boolean(column.type) else column
            try:
                parts.append(numbers(whole).copy())
            except ValueError as error:
                raise InputError(f"{shard.path}: column {name!r} {error}") from error
    return np.concatenate(parts)


def _key(shards: Sequence[Shard], name: str, kept: np.ndarray | None) -> np.ndarray:
    """The column of groups, for the rows that were kept."""
    column = _beside(shards, name)
    assert column is not None
    return column if kept is None else column[kept]


def _class_names(reading: Reading, feature: Any) -> tuple[str, ...] | None:
    """The names of class labels in the table, if there are any."""
    names = getattr(feature, "names", None)
    if names is None or reading.labels is None:
        return reading.label_names
    numbers_kept = reading.label_names or [str(number) for number in range(int(reading.labels.max()) + 1)]
    return tuple(str(names[int(number)]) if int(number) < len(names) else number for number in numbers_kept)


# ---------------------------------------------------------------------------------------------- readings


def _numbers(source: Path, split: str | None, shards: Sequence[Shard], x: str, y: str | None) -> Part:
    return Part(_named(source, split, x), number_values(shards, x), _beside(shards, y), split)


def _pictures(
    source: Path, opened: dict[str | None, list[Shard]], x: str, y: str | None, options: ReadOptions, refuse: Refuse
) -> tuple[Reading, np.ndarray]:
    """The reading of a column of images, and the indices of the rows that were kept."""
    shards = [shard for files in opened.values() for shard in files]
    found = gather(PictureColumn(shards, x), options, refuse, str(source))
    beside = _beside(shards, y)
    labels, names, targets = None, None, None
    try:
        whole = Part(_named(source, None, x), found.values, None if beside is None else beside[found.kept])
        labels, names, targets = labels_or_targets([whole])
    except InputError as error:
        refuse(str(error))
    supplied = supplied_splits([(split, sum(map(len, files))) for split, files in opened.items()])
    reading = Reading(
        "image table",
        "image",
        found.values,
        found.survey,
        found.levels,
        labels,
        names,
        None if supplied is None else supplied[found.kept],
        len(found.left_out),
        found.notes if targets is None else (CONTINUOUS, *found.notes),
        targets,
    )
    return reading, found.kept


def _rows_by_shard(
    source: Path, splits: dict[str | None, list[Path]], opened: dict[str | None, list[Shard]]
) -> list[tuple[str, int]]:
    """The name (relative to the source) and the number of rows of every shard, in the order of the reading."""
    counts = []
    for split, paths in splits.items():
        unpacked = is_parquet(paths[0])  # then the open files may be Arrow files in the cache of `datasets`
        rows = [_metadata(path).num_rows for path in paths] if unpacked else [len(shard) for shard in opened[split]]
        names = [str(path.relative_to(source)) if path != source else path.name for path in paths]
        counts += list(zip(names, rows, strict=True))
    return counts


def _named(source: Path, split: str | None, column: str) -> str:
    return f"{source}: {f'{split}, ' if split else ''}column {column!r}"
