"""From the bytes of a request to examples: JSON, .npy, PNG and CSV, each checked before it is decoded.

Nothing is unpickled, and nothing is written. Lengths are checked before memory is allocated: the pixels of a PNG by its
header, the numbers of a .npy file by its header, JSON by counting commas and brackets, and CSV line by line.
"""

import base64
import binascii
import csv
import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jensen.data.readers.image import decode, widened
from jensen.data.table.cells import TEXT
from jensen.data.table.column import Table
from jensen.data.table.matrix import encode_with_notes
from jensen.errors import InputError
from jensen.serve.limits import Limits
from jensen.serve.problems import Problem
from jensen.serve.served import Served

MAGIC = b"\x89PNG\r\n\x1a\n"
DEPTH = 16  # the most levels of nested JSON
HEADER = 1 << 16  # the most bytes of the header of a .npy file
KINDS = "biuf"  # of dtypes: booleans, integers, floats
WORD = "application/x-npy"


def parsed_json(body: bytes, limits: Limits) -> Any:
    """The value of a JSON body. Raises `Problem` 400 for what is no JSON, and 413 for too many values."""
    groups = body.count(b"[") + body.count(b"{")
    values = body.count(b",") + groups
    if values > 2 * limits.max_numbers:
        raise Problem(413, f"JSON of about {values:,} values", f"at most {2 * limits.max_numbers:,}", "ask for less")
    if groups > limits.max_numbers // 4:  # a list takes ten times the memory of a number
        raise Problem(
            413, f"JSON of about {groups:,} lists and objects", f"at most {limits.max_numbers // 4:,}", "send .npy"
        )
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        if b"\\u" in body:  # half of a surrogate pair is no character
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise Problem(400, f"a body that is not UTF-8 ({error})", "JSON in UTF-8", "encode it in UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise Problem(400, f"a body that is not JSON ({error})", "one JSON object", "correct the JSON") from None
    if _deeper(found, DEPTH):
        raise _too_deep()
    return found


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON; give null for a missing value")


def _too_deep() -> Problem:
    return Problem(400, "JSON that is nested too deeply", f"at most {DEPTH} levels", "flatten it")


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, list | dict):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(one, levels - 1) for one in inside if isinstance(one, list | dict))


def from_base64(text: Any, what: str) -> bytes:
    """The bytes of a text in base64. Raises `Problem`."""
    if not isinstance(text, str):
        raise Problem(422, f"{what} that is no text", f"{what} in base64", "encode it in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, f"{what} that is not base64", f"{what} in base64", "encode it in base64") from None


# ---------------------------------------------------------------------------------------------- arrays


def npy(content: bytes, limits: Limits) -> np.ndarray:
    """The array of a .npy file, whose header is checked first. Raises `Problem`; pickled objects are refused."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, column_major, dtype = reader(stream, max_header_size=HEADER)
    except Exception:  # NumPy's parser raises many kinds of error, all caused by the bytes
        raise Problem(
            400, "a .npy file whose header cannot be read", "an array of numbers", "write it with numpy.save"
        ) from None
    if dtype.hasobject or dtype.kind not in KINDS:
        raise Problem(422, f".npy of type {dtype}", "an array of numbers; objects are never unpickled", "convert it")
    count, held = math.prod(shape), len(content) - stream.tell()
    if count > limits.max_numbers:
        raise Problem(413, f".npy of {count:,} numbers", f"at most {limits.max_numbers:,}", "send fewer examples")
    if any(type(side) is not int or side < 0 for side in shape) or count * dtype.itemsize != held:
        raise Problem(
            400, f".npy of shape {shape} with {held:,} bytes of numbers", "the bytes of its shape and type",
            "send the whole file, as numpy.save writes it",
        )  # fmt: skip
    flat = np.frombuffer(content, dtype, count, stream.tell())
    try:
        return flat.reshape(shape, order="F" if column_major else "C")
    except ValueError as error:  # too many axes, or one that is too long
        raise Problem(400, f".npy of shape {shape} ({error})", "a shape of NumPy", "write it with numpy.save") from None


def png(content: bytes, served: Served, limits: Limits) -> np.ndarray:
    """The pixels (C, H, W) of a PNG, whose size is checked before its pixels are decoded. Raises `Problem`.

    A damaged PNG may have a second header, and Pillow believes the last one; so Pillow's own size is checked, too.
    """
    if content[:8] != MAGIC or content[12:16] != b"IHDR" or len(content) < 33:
        raise Problem(400, "a picture that is no PNG", "a PNG", "convert it to PNG")
    width, height = struct.unpack(">II", content[16:24])
    most = limits.max_numbers // 4
    if width * height > most:
        raise Problem(413, f"a PNG of {width} x {height} pixels", f"at most {most:,} pixels", "shrink it")
    spec = served.run.spec
    try:
        pixels = decode(io.BytesIO(content), "the PNG", spec.options, most=most)
    except InputError as error:
        raise Problem(422, str(error), "a PNG like the pictures of the training data", "convert it") from None
    if pixels.dtype == np.uint8 and spec.layout == "image" and pixels.shape[0] < spec.shape[0]:
        pixels = widened(pixels, spec.shape[0])
    if pixels.shape != spec.shape:
        raise Problem(
            422, f"a PNG of (channels, height, width) {pixels.shape}", f"{tuple(spec.shape)}", "resize or convert it"
        )
    highest = 255 if pixels.dtype == np.uint8 else 65535
    if spec.levels is not None and pixels.max(initial=0) >= spec.levels and pixels.dtype != np.float32:
        pixels = np.rint(pixels * ((spec.levels - 1) / highest))  # black to white, as the pictures of samples are
    return pixels


def numbers(value: Any, served: Served, limits: Limits) -> np.ndarray:
    """The examples (n, *shape), in float64 or whole, of a JSON value; null is NaN. Raises `Problem`.

    The value is nested lists, `{"npy": base64}`, `{"png": base64}`, or a list of such pictures.
    """
    if isinstance(value, dict):
        if set(value) == {"npy"}:
            return npy(from_base64(value["npy"], "npy"), limits)
        if set(value) == {"png"}:
            return png(from_base64(value["png"], "png"), served, limits)[None]
        raise Problem(422, f"x with the keys {sorted(value)[:5]}", "nested lists, npy or png", "correct x")
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        refuse_size(len(value), served, limits)
        return np.stack([numbers({"png": one.get("png")}, served, limits)[0] for one in value])
    return nested(value, "x")


def nested(value: Any, name: str) -> np.ndarray:
    """Nested lists of numbers as an array; null is NaN. Raises `Problem`."""
    if not isinstance(value, list):
        raise Problem(422, f"{name} of type {type(value).__name__}", "nested lists of numbers", f"correct {name}")
    try:
        found = np.array(value, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        raise Problem(
            422, f"{name} that is ragged or holds other than numbers", "nested lists of numbers of one length each",
            f"correct {name}",
        ) from None  # fmt: skip
    return found


def examples(given: np.ndarray, served: Served, limits: Limits, *, missing: bool = False) -> Tensor:
    """Raw examples (n, *shape) of the run's type. One example may come without its first axis. Raises `Problem`.

    `missing` allows NaN, which stands for 0 in whole numbers.
    """
    spec = served.run.spec
    x = given[None] if given.shape == spec.shape else given
    if x.shape[1:] != spec.shape or not len(x):
        raise Problem(
            422, f"x of shape {given.shape}", f"(n, {', '.join(map(str, spec.shape))}), in the units of the raw data",
            "reshape it",
        )  # fmt: skip
    refuse_size(len(x), served, limits)
    wide = x.astype(np.float64)
    empty = np.isnan(wide)
    if empty.any() and not missing and not spec.options.missing:
        raise Problem(422, "x with missing values", "known numbers", "fill them, or ask /impute")
    known = np.where(empty, 0.0, wide)
    if not np.isfinite(known).all():
        raise Problem(422, "x with infinite values", "finite numbers", "correct x")
    if spec.levels is not None:
        _refuse_levels(known, spec.levels)
        return torch.from_numpy(known.astype(spec.dtype))
    if spec.preparation.kind in ("threshold", "static", "dynamic") and (known.min() < 0 or known.max() > 1):
        raise Problem(422, f"x from {known.min():g} to {known.max():g}", "numbers from 0 to 1", "rescale x")
    with np.errstate(over="ignore"):
        found = wide.astype(spec.dtype)
    if np.isinf(found).any():
        raise Problem(422, "x with values beyond the range of the data's type", f"{spec.dtype}", "rescale x")
    return torch.from_numpy(found)


def _refuse_levels(x: np.ndarray, levels: int) -> None:
    if (x != np.rint(x)).any() or x.min() < 0 or x.max() >= levels:
        wrong = x[(x != np.rint(x)) | (x < 0) | (x >= levels)].flat[0]
        raise Problem(422, f"x with the value {wrong:g}", f"whole numbers from 0 to {levels - 1}", "rescale x")


def refuse_size(count: int, served: Served, limits: Limits) -> None:
    """Raises `Problem` for too many examples of the run, and for examples of too many numbers together."""
    if count > limits.max_examples:
        raise Problem(413, f"{count:,} examples", f"at most {limits.max_examples:,} a request", "send several requests")
    refuse_numbers(count * math.prod(served.run.spec.shape), limits)


def refuse_numbers(count: int, limits: Limits) -> None:
    """Raises `Problem` for a request, an answer or a block of draws with too many numbers."""
    if count > limits.max_numbers:
        raise Problem(413, f"a request for {count:,} numbers", f"at most {limits.max_numbers:,}", "ask for less")


# ---------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table: raw (n, D) with NaN for missing cells, and notes about cells that were changed."""

    raw: Tensor
    notes: tuple[str, ...]


def csv_cells(content: bytes, table: Table, limits: Limits) -> dict[str, list[Any]]:
    """The cells of CSV in UTF-8 by column, as text; the first row has the names, the delimiter is the run's."""
    try:
        text = content.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=table.delimiter)
        lines = list(islice((line for line in reader if line), limits.max_examples + 2))  # one too many is refused
    except UnicodeError:
        raise Problem(400, "CSV that is not UTF-8", "CSV in UTF-8", "encode it in UTF-8") from None
    except csv.Error as error:
        raise Problem(400, f"CSV that cannot be read ({error})", "sound CSV", "write it again") from None
    if "\0" in text:
        raise Problem(400, "CSV with a zero byte", "text", "write it again")
    if len(lines) < 2:
        raise Problem(422, f"CSV of {len(lines)} lines", "the names of the columns, and rows below", "add them")
    names, rows = [name.strip() for name in lines[0]], lines[1:]
    for number, line in enumerate(rows, start=2):
        if len(line) != len(names):
            raise Problem(400, f"line {number} with {len(line)} cells", f"{len(names)} cells", "correct the CSV")
    return _columns(names, rows, table, limits)


def json_cells(value: Any, table: Table, limits: Limits) -> dict[str, list[Any]]:
    """The cells of JSON by column: a list of objects, an object of lists, or lists in the order of the columns."""
    if isinstance(value, dict) and all(isinstance(one, list) for one in value.values()):
        names, lengths = list(value), {len(one) for one in value.values()}
        if len(lengths) > 1:
            raise Problem(422, f"columns of the lengths {sorted(lengths)[:5]}", "columns of one length", "correct x")
        return _columns(names, list(zip(*value.values(), strict=True)), table, limits)
    rows = [value] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not rows:
        raise Problem(422, f"x of type {type(value).__name__}", "a list of objects {column: cell}", "correct x")
    if all(isinstance(row, dict) for row in rows):
        names = list(dict.fromkeys(name for row in rows for name in row))
        if len(names) * len(rows) > limits.max_numbers:
            raise Problem(413, f"{len(names) * len(rows):,} cells", f"at most {limits.max_numbers:,}", "send fewer")
        return _columns(names, [[row.get(name) for name in names] for row in rows], table, limits)
    names = [column.name for column in table.columns]
    if all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return _columns(names, rows, table, limits)
    raise Problem(422, "rows of several kinds", f"objects, or lists of {len(names)} cells", "correct x")


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]], table: Table, limits: Limits) -> dict[str, list[Any]]:
    """The cells of the table's columns; others are left out, so that their number costs nothing."""
    if len(rows) > limits.max_examples:
        most = f"at most {limits.max_examples:,} a request"
        raise Problem(413, f"more than {limits.max_examples:,} rows", most, "send several requests")
    refuse_numbers(len(rows) * len(table.fields), limits)
    if len(set(names)) < len(names):
        raise Problem(422, "two columns of one name", "different names", "rename one")
    known = {column.name for column in table.columns}
    found = {name: [row[place] for row in rows] for place, name in enumerate(names) if name in known}
    if rows and not found:
        few = ", ".join([column.name for column in table.columns][:5])
        raise Problem(422, "rows without any column of the run", f"columns such as {few}", "name the columns")
    return found


def table_rows(cells: Mapping[str, Sequence[Any]], served: Served, *, missing: bool = False) -> Rows:
    """Rows of the run's table from cells by column, with the types of `docs/tables.md`. Raises `Problem`.

    `missing` allows absent columns, and empty cells in columns that have none in the training rows.
    """
    import pyarrow

    table = served.table
    assert table is not None
    count = max((len(column) for column in cells.values()), default=0)
    if not count:
        raise Problem(422, "no rows", "at least one row of cells", "add rows")
    texts: dict[str, list[str | None]] = {}
    for name, column in cells.items():
        texts[name] = [_text(cell, name, table.decimal) for cell in column]
    for column_of_run in table.columns if missing else ():
        texts.setdefault(column_of_run.name, [None] * count)
    arrow = pyarrow.table({name: pyarrow.array(column, pyarrow.string()) for name, column in texts.items()})
    arrow = arrow.replace_schema_metadata({TEXT: table.decimal.encode()})
    matrix, notes = encode_with_notes(arrow, table, lambda row: f"row {row}")
    for place, field in enumerate(table.fields):
        empty = np.isnan(matrix[:, place])
        if not missing and not field.missing and empty.any():
            name = table.columns[field.column].name
            raise Problem(
                422, f"row {int(empty.argmax())} without a cell in column {name!r}", "a cell, as in all training rows",
                "fill it, or ask /impute",
            )  # fmt: skip
    return Rows(torch.from_numpy(matrix), notes)


def _text(cell: Any, name: str, decimal: str) -> str | None:
    """A cell of JSON as a text file of the table holds it."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, int | float):
        return str(cell).replace(".", decimal)
    raise Problem(
        422, f"a cell of column {name!r} that is a {type(cell).__name__}", "text, a number or null", "correct it"
    )
