"""The log of a training: metrics.jsonl, and the same values for trackers such as TensorBoard."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from jensen import processes
from jensen.records import write_file
from jensen.training.trackers import Trackers


class MetricsLog:
    """Appends lines of JSON to metrics.jsonl, and gives the same values to `trackers`.

    When it opens the files, it drops the lines after `step`. Only the main process writes. Every line has a "step". All
    values except "examples_per_second" are a pure function of the recipe, so a resumed run and an uninterrupted one
    have equal files.
    """

    def __init__(self, folder: Path, step: int = 0, trackers: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._open(step)
        self._trackers = Trackers(trackers, folder, step) if self._file else None

    def _open(self, step: int) -> None:
        self._file: TextIO | None = None
        if not processes.is_main():
            return
        path = self._folder / "metrics.jsonl"
        kept = [line for line in read_lines(path) if line["step"] <= step]
        write_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = path.open("a")

    def go_back(self, step: int) -> None:
        """Drop the lines after `step`, to continue from there."""
        if self._file:
            self._file.close()
        self._open(step)
        if self._trackers:
            self._trackers.go_back(step)

    def show(self, step: int, path: Path) -> None:
        """Give a grid of samples, a PNG, to the trackers."""
        if self._trackers:
            self._trackers.show(step, path)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line of `values`, which are numbers or texts."""
        if self._file and self._trackers:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._trackers.log(step, values)

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
        if self._file and self._trackers:
            self._file.close()
            self._trackers.close()


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
