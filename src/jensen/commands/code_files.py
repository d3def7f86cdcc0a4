"""Files of codes: a row per example with its name, in .parquet, .csv or .npz. Imports no torch."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jensen.errors import InputError
from jensen.records import refuse_existing_file, write_arrays, write_csv, write_file

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

FORMATS = (".parquet", ".csv", ".npz")
WEIGHTS = "jensen.weights"  # the key of the SHA-256 of the weights in the metadata of a .parquet


@dataclass(frozen=True, eq=False)
class CodeFile:
    """The codes z (count, latent dimensions) of a file, and the names of the examples.

    `weights` is the SHA-256 of the weights that made the codes; None if the file does not say so, as a .csv.
    """

    z: "np.ndarray"
    names: Sequence[str]
    weights: str | None


def refuse_other_codes(out: Path) -> None:
    """Raises `InputError` for a file that exists or has another ending, and for a .parquet without pyarrow."""
    from jensen.data.readers.tables import table_package

    refuse_existing_file(out, *FORMATS)
    if out.suffix == ".parquet":
        table_package(str(out))


def write_codes(
    out: Path,
    names: Sequence[str],
    labels: Sequence[str] | None,
    numbers: "Mapping[str, np.ndarray | None]",
    weights: str,
) -> None:
    """Write arrays of `numbers` (count, dims), such as z; a table has a column for each dimension: z_0, z_1, ..."""
    import numpy as np

    refuse_other_codes(out)
    known = {name: array for name, array in numbers.items() if array is not None}
    texts = {"name": list(names)} | ({} if labels is None else {"label": list(labels)})
    if out.suffix == ".npz":
        words = {name: np.array(words) for name, words in texts.items()}
        write_arrays(out, {**words, **known, "weights": np.array(weights)})
        return
    columns = {f"{name}_{place}": array[:, place] for name, array in known.items() for place in range(array.shape[1])}
    if out.suffix == ".csv":  # a float32 has at most 9 digits, and str gives as many as identify it
        cells = [list(words) for words in texts.values()] + [list(map(str, column)) for column in columns.values()]
        write_csv(out, [*texts, *columns], zip(*cells, strict=True))
        return
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({**texts, **{name: np.ascontiguousarray(column) for name, column in columns.items()}})
    content = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({WEIGHTS: weights}), content)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, content.getvalue())


def read_codes(path: str | Path) -> CodeFile:
    """The codes of a file that `write_codes` wrote, or of another table with the columns z_0, z_1, ...

    Nothing is unpickled. Raises `InputError` for a damaged file, and for a file without such columns.
    """
    from jensen.data.readers.numpy_files import named_arrays
    from jensen.data.readers.read import read_cells

    path = Path(path)
    if path.suffix == ".npz" and path.is_file():
        return _read_arrays(named_arrays(path), path)
    arrow = read_cells(path, header=True).arrow
    z, weights = _matrix(arrow, path), None
    if path.suffix == ".parquet":
        from pyarrow import parquet

        weights = (parquet.read_schema(path).metadata or {}).get(WEIGHTS.encode())
    named = "name" in arrow.column_names
    names = [str(name) for name in arrow.column("name").to_pylist()] if named else _rows(len(z))
    return CodeFile(z, names, None if weights is None else weights.decode(errors="replace"))


def _read_arrays(arrays: "Mapping[str, np.ndarray]", path: Path) -> CodeFile:
    z, names, weights = (arrays.get(name) for name in ("z", "name", "weights"))
    if z is None or z.ndim != 2 or z.dtype.kind not in "iuf":
        raise InputError(f"{path}: expected an array z (count, latent dimensions) of numbers; give a file of encode")
    told = _rows(len(z)) if names is None or names.shape != z.shape[:1] else [str(name) for name in names]
    return CodeFile(z, told, None if weights is None else str(weights))


def _rows(count: int) -> list[str]:
    return [f"row {number}" for number in range(count)]


def _matrix(arrow: "pyarrow.Table", path: Path) -> "np.ndarray":
    """The columns z_0, z_1, ... as an array."""
    import numpy as np

    from jensen.data.table.cells import quick_numbers, typed_cells

    count = sum(name.startswith("z_") and name[2:].isdecimal() for name in arrow.column_names)
    wanted = [f"z_{number}" for number in range(count)]
    lost = [name for name in wanted if name not in arrow.column_names]
    if not wanted or lost:
        what = f"it has no column {lost[0]!r}" if lost else "it has none"
        raise InputError(
            f"{path}: expected the columns z_0, z_1, ... of codes, but {what}; give a file of jensen encode"
        )
    columns = []
    for name in wanted:
        cells = typed_cells(name, arrow.column(name))
        numbers = cells.numbers if cells.text is None else quick_numbers(cells.text)
        if numbers is None:
            raise InputError(f"{path}: column {name!r} holds other cells than numbers; write the codes again")
        columns.append(numbers)
    return np.stack(columns, 1)
