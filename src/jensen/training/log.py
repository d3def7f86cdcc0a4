"""The log of a training: metrics.jsonl, and the same values for TensorBoard."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from jensen import processes
from jensen.records import write_file


class MetricsLog:
    """Appends lines of JSON to metrics.jsonl, and scalars to tensorboard/.

    When it opens the files, it drops the lines after `step`. Only the main process writes. Every line has a "step". All
    values except "examples_per_second" are a pure function of the recipe, so a resumed run and an uninterrupted one
    have equal files.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._folder = folder
        self._open(step)

    def _open(self, step: int) -> None:
        self._file: TextIO | None = None
        if not processes.is_main():
            return
        from torch.utils.tensorboard import SummaryWriter

        path = self._folder / "metrics.jsonl"
        kept = [line for line in read_lines(path) if line["step"] <= step]
        write_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = path.open("a")
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=step + 1 if step else None)

    def go_back(self, step: int) -> None:
        """Drop the lines after `step`, to continue from there."""
        self._close()
        self._open(step)

    def _close(self) -> None:
        if self._file:
            self._file.close()
            self._board.close()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line of `values`, which are numbers or texts."""
        if not self._file:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            add = self._board.add_text if isinstance(value, str) else self._board.add_scalar
            add(name, value, step)

    def flush(self) -> None:
        """Write all lines and scalars so far to disk, through all buffers."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file up to the first incomplete one (a crash may cut a line); [] if there is no file."""
    lines: list[dict[str, Any]] = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not (isinstance(line, dict) and isinstance(line.get("step"), int)):
            break
        lines.append(line)
    return lines
