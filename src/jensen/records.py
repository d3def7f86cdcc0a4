"""Records: files that are written whole or not at all and read back as typed values. Nothing is unpickled."""

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from jensen.errors import InputError

if TYPE_CHECKING:
    import numpy as np

Record = TypeVar("Record", bound=BaseModel)


class Value(BaseModel):
    """A frozen value that converts to JSON and back: the base class of every record."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings")


# ---------------------------------------------------------------------------------------------- write


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    The file gets a temporary name, is flushed to disk, and is then renamed. A failure leaves no file behind. Every
    `OSError` names the file, even if the system's own error does not (a full disk).
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise


def named_by(name: str, column: str | None) -> str:
    """The name of a file about one column of a table; other files keep their names.

    Characters of the column that no file name should have become "_", and a part of a hash tells such columns apart.

    >>> named_by("predictions.json", "pay"), named_by("predictions.json", None), named_by("predictions.json", "a/b")
    ('predictions-pay.json', 'predictions.json', 'predictions-a_b-c14cddc0.json')
    """
    if column is None:
        return name
    safe = re.sub(r"[^\w-]", "_", column)[:40]
    if safe != column:
        safe += f"-{hashlib.sha256(column.encode()).hexdigest()[:8]}"
    stem, dot, ending = name.partition(".")
    return f"{stem}-{safe}{dot}{ending}"


def write_record(path: Path, record: BaseModel) -> Path:
    """Write a record as JSON and return its path."""
    write_file(path, record.model_dump_json(indent=1).encode())
    return path


def write_arrays(path: Path, arrays: "Mapping[str, np.ndarray]", *, compressed: bool = False) -> Path:
    """Write arrays as an .npz file, create its folder if necessary, and return its path."""
    import numpy as np

    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer.getvalue())
    return path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV file, create its folder if necessary, and return its path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.getvalue().encode())
    return path


def write_columns(path: Path, columns: "Mapping[str, Sequence[object]]") -> Path:
    """Write columns as CSV, numbers with at most ten digits and None as an empty cell, and return its path."""
    rows = zip(*columns.values(), strict=True)
    texts = ([f"{cell:.10g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return write_csv(path, list(columns), texts)


# ---------------------------------------------------------------------------------------------- read


def read_record(path: Path, kind: type[Record], again: str) -> Record | None:
    """The record in a file of a run's folder, or None if there is no such file.

    Raises `InputError` for a damaged file; the message ends with the advice `again`.
    """
    if not path.exists():
        return None
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} is damaged or of another version; {again}") from error


# ---------------------------------------------------------------------------------------------- where to write


def refuse_existing_file(out: Path, *endings: str, flag: str = "--out") -> None:
    """Raise `InputError` if the file of the option `flag` exists, or has none of the `endings` (if any are given)."""
    if endings and out.suffix not in endings:
        raise InputError(f"{flag} {out}: expected {' or '.join(endings)}; change its ending")
    if out.is_dir():
        raise InputError(f"{flag} {out} is a folder; give a new file")
    if out.exists() or out.is_symlink():
        raise InputError(f"{flag}: {out} exists and would be lost; give another name, or remove it first")


def refuse_filled_folder(out: Path) -> None:
    """Raise `InputError` unless `--out` is a new path or an empty folder."""
    taken = any(out.iterdir()) if out.is_dir() else out.exists() or out.is_symlink()
    if taken:
        raise InputError(f"--out {out} is not an empty folder; give a new one")
