"""Labels and targets of images from the files beside them: metadata.csv, metadata.jsonl, and a WebDataset's .cls and
.json."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_names import LABEL_NAMES, listed
from jensen.data.readers.entries import Entry
from jensen.data.readers.reading import Refuse
from jensen.errors import AbsentColumnError, InputError

NAMES = ("metadata.csv", "metadata.jsonl")
BESIDE = (".cls", ".json")
"""The endings of files that describe the image of the same name in a WebDataset."""
FILE_NAME = "file_name"
LONGEST = 1 << 24  # bytes of a description of one image, or of a label

Row = dict[str, Any]
Key = tuple[str, ...]


class Metadata:
    """The metadata of each image, by the image's path."""

    def __init__(self, source: str, files: Sequence[Entry], rows: dict[Key, Row], key: Callable[[Entry], Key]) -> None:
        self._source, self._rows, self._key = source, rows, key
        self.names = {file.name for file in files}
        """The names of the files that hold the metadata."""
        self.columns = tuple(dict.fromkeys(name for row in rows.values() for name in row))

    def column(self, images: Sequence[Entry], options: ReadOptions, refuse: Refuse) -> tuple[np.ndarray, str] | None:
        """The labels or targets of `images`, and a note on their column; None if there is no such column.

        --labels names the column; by default it is the only column with a usual name for labels. `refuse` is called if
        an image has no value in the column; the result is then None.
        """
        name = self._chosen(options)
        if name is None:
            return None
        given = [self._rows.get(self._key(image), {}).get(name) for image in images]
        lacking = [image for image, value in zip(images, given, strict=True) if value is None or value == ""]
        if lacking:
            refuse(
                f"{lacking[0].shown}: has no {name!r} in {self._source}, as {len(lacking)} of {len(images)} images; "
                "add it, or remove such images"
            )
            return None
        others = [other for other in self.columns if other != name]
        beside = f"; left out: {listed(others)}" if others else ""
        return standard_column(given), f"labels are {name!r} of {self._source}{beside}"

    def no_column(self) -> str:
        """A note that no column holds labels."""
        return f"{self._source} has no column named label; --labels may be {listed(self.columns)}"

    def _chosen(self, options: ReadOptions) -> str | None:
        if options.labels is not None:
            if options.labels not in self.columns:
                known = listed(self.columns)
                raise AbsentColumnError(
                    f"{self._source}: has no column {options.labels!r}; --labels may be {known}", "labels"
                )
            return options.labels
        found = [name for name in self.columns if name.lower() in (*LABEL_NAMES, "cls")]
        if len(found) > 1:
            raise InputError(f"{self._source}: which column holds the labels? give --labels as one of {listed(found)}")
        return found[0] if found else None


def read_metadata(entries: Sequence[Entry], images: Sequence[Entry], refuse: Refuse) -> Metadata | None:
    """The metadata of `images` among `entries`, or None. Refuses rows that name no image."""
    tables = [entry for entry in entries if entry.parts[-1].lower() in NAMES]
    if tables:
        return _of_tables(tables, images, refuse)
    keys = {_key(image) for image in images}
    beside = [entry for entry in entries if entry.suffix in BESIDE and _key(entry) in keys]
    rows: dict[Key, Row] = {}
    for entry in beside:
        rows.setdefault(_key(entry), {}).update(_description(entry))
    return Metadata("the .cls and .json files", beside, rows, _key) if any(rows.values()) else None


def _of_tables(tables: Sequence[Entry], images: Sequence[Entry], refuse: Refuse) -> Metadata:
    rows: dict[Key, Row] = {}
    known = {image.parts for image in images}
    for table in tables:
        read = _csv_rows if table.suffix == ".csv" else _json_rows
        missing = []
        for row in read(table):
            name = row.pop(FILE_NAME, None)
            if not isinstance(name, str):
                raise InputError(f"{table.shown}: has a row without {FILE_NAME}, which names the image; add it")
            path = (*table.parts[:-1], *PurePosixPath(name).parts)
            if path not in known:
                missing.append(name)
            rows[path] = row
        if missing:
            refuse(
                f"{table.shown}: names {missing[0]}, which is not among the images, as {len(missing)} of its rows; "
                "restore such images, or remove the rows"
            )
    return Metadata(tables[0].parts[-1], tables, rows, lambda image: image.parts)


def _csv_rows(table: Entry) -> Iterator[Row]:
    try:
        with table.open() as stream:
            for number, row in enumerate(csv.DictReader(io.TextIOWrapper(stream, "utf-8-sig", newline="")), 2):
                if None in row or None in row.values():
                    raise InputError(f"{table.shown}: row {number} has more or fewer cells than the header; mend it")
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{table.shown}: is not a sound CSV file ({error}); write it again") from error


def _json_rows(table: Entry) -> Iterator[Row]:
    with table.open() as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _object(line, f"{table.shown}: line {number}")


def _description(entry: Entry) -> Row:
    with entry.open() as stream:
        content = stream.read(LONGEST)
    if entry.suffix == ".cls":
        return {"cls": content.decode(errors="replace").strip()}
    try:
        return _object(content, entry.shown)
    except InputError:  # a file of other content; if it should hold a label, the label is found to be missing
        return {}


def _object(content: bytes, name: str) -> Row:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: is not sound JSON ({str(error)[:200]}); write it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{name}: is not a JSON object; expected one with a value for each name")
    return found


def _key(entry: Entry) -> Key:
    """The path without the ending of the file's name, which begins at the first dot of the name, as in a WebDataset."""
    return (*entry.parts[:-1], entry.parts[-1].split(".")[0])


def standard_column(given: Sequence[Any]) -> np.ndarray:
    """Integers if all values are integers, floats if all are numbers, else text."""
    words = [value if isinstance(value, str) else json.dumps(value) for value in given]
    for kind in (int, float):
        with suppress(ValueError, OverflowError):
            return np.array(
                [kind(word) for word in words], np.dtype(kind)
            )  # of 64 bits, so that large integers overflow
    return np.array(words)
