"""Tables that are larger than memory: columns and numbers in temporary files, which vanish with the process."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow

    from jensen.data.stored import FileRows


def columns_on_disk(batches: "Iterator[pyarrow.RecordBatch]", schema: "pyarrow.Schema") -> "pyarrow.Table":
    """A table whose batches are written to a temporary file, which is mapped and has no name any more."""
    import pyarrow
    from pyarrow import ipc

    with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
        with ipc.new_file(file.name, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return ipc.open_file(pyarrow.memory_map(file.name)).read_all()


def rows_on_disk(blocks: Iterator[np.ndarray], width: int) -> "FileRows":
    """Rows (N, width) of float64 in a temporary file that has no name any more."""
    from jensen.data.stored import FileRows, OpenFile  # needs torch, which the types of tables do not

    count = 0
    with tempfile.NamedTemporaryFile() as file:
        for block in blocks:
            count += len(block)
            file.write(np.ascontiguousarray(block, np.float64).tobytes())
        file.flush()
        return FileRows(OpenFile(Path(file.name)), 0, (count, width), np.dtype(np.float64))
