"""Run the cells of a page in a folder of its own, and put what they print and draw under them."""

import contextlib
import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.cells import Cell, cells

SHOW = re.compile(r"^<!-- show: (?P<file>\S+) \| ?(?P<words>.*?) ?-->$", re.M)
LINES = 60  # of an output that are shown
ROWS = 5  # of a CSV file that are shown


@dataclass(frozen=True)
class Made:
    """A page with its outputs: Markdown, pictures by name, and the seconds of processor time that it took."""

    markdown: str
    pictures: dict[str, bytes]
    seconds: float


def shown(path: Path) -> Made:
    """The page without running it; what it would show is left out."""
    return Made(SHOW.sub("", "\n".join(cell.markdown for cell in cells(path))), {}, 0.0)


def made(path: Path, cache: Path, code: str) -> Made:
    """The page with its outputs, from the cache if neither the page nor the code (its digest) has changed."""
    key = hashlib.sha256(path.read_bytes() + code.encode()).hexdigest()
    folder = cache / f"{path.stem}-{key[:20]}"
    if not folder.is_dir():
        result = run(path)
        half = folder.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        (half / "page.md").write_text(result.markdown, encoding="utf-8")
        for name, picture in result.pictures.items():
            (half / name).write_bytes(picture)
        half.rename(folder)
        return result
    pictures = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "page.md"}
    return Made((folder / "page.md").read_text(encoding="utf-8"), pictures, 0.0)


def run(path: Path) -> Made:
    """Execute all cells in order, in an empty folder. An error names the page and the cell, and ends the build."""
    began = time.process_time() + os.times().children_user
    page = _Page(path.stem)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in cells(path):
            try:
                page.add(cell)
            except BaseException as error:
                raise RuntimeError(f"{path}: {type(error).__name__}: {error}\n{cell.text}") from error
    return Made("\n".join(page.parts), page.pictures, time.process_time() + os.times().children_user - began)


class _Page:
    """A page in the making: what was written so far, its pictures, and the names that its Python cells share."""

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.parts: list[str] = []
        self.pictures: dict[str, bytes] = {}
        self.session: dict[str, object] = {"__name__": "page"}

    def add(self, cell: Cell) -> None:
        if cell.kind == "text":
            self.parts.append(SHOW.sub(lambda found: self._file(Path(found["file"]), found["words"]), cell.text))
            return
        self.parts.append(cell.markdown)
        if cell.kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()):
                exec(compile(cell.text, f"<{self.stem}>", "exec"), self.session)
            self._printed(printed.getvalue())
            self.parts.extend(self._figures())
        elif cell.kind == "commands":
            self._printed("".join(_command(words) for words in cell.commands))

    def _printed(self, text: str) -> None:
        here = text.replace(f"{Path.cwd()}{os.sep}", "")  # the folder of this build says nothing to a reader
        lines = [line.rstrip() for line in here.strip("\n").splitlines()]
        cut = [*lines[:LINES], f"... {len(lines) - LINES} more lines"] if len(lines) > LINES + 3 else lines
        if cut:
            self.parts.append("\n".join(["``` { .text .output }", *cut, "```", ""]))

    def _figures(self) -> Iterator[str]:
        """The open figures as pictures, with the alternative text that they got as `num` of `subplots`."""
        from matplotlib import pyplot

        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            page = io.BytesIO()
            figure.savefig(page, dpi=110, bbox_inches="tight", metadata={"Software": None})
            yield self._picture(page.getvalue(), str(figure.get_label()))
        pyplot.close("all")

    def _file(self, file: Path, words: str) -> str:
        if file.suffix == ".png":
            return self._picture(file.read_bytes(), words)
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines))
        table = [rows[0], ["---"] * len(rows[0]), *rows[1 : ROWS + 1]]
        rest = f"*{file.name}: the first {ROWS} of {len(rows) - 1:,} rows. {words}*"
        return "\n".join(["|" + "|".join(cell.replace("|", "\\|") for cell in row) + "|" for row in table] + ["", rest])

    def _picture(self, content: bytes, words: str) -> str:
        if not words:
            raise ValueError(
                "a picture needs words for those who do not see it: subplots(num=...), or show: FILE | WORDS"
            )
        name = f"{self.stem}-{len(self.pictures) + 1}.png"
        self.pictures[name] = content
        return f"![{words}](made/{name})\n"


def _command(words: list[str]) -> str:
    """What a command prints; torchrun starts processes of its own."""
    if words[0] == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return done.stdout
    from jensen.cli import main

    # Progress bars and logs, which go to standard error, are no part of a page.
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()) as printed:
        status = main(words[1:])
    if status:
        raise RuntimeError(f"{words} ended with {status}: {said.getvalue()[-500:]}")
    return printed.getvalue()
