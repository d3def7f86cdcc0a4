"""`jensen export`: write a trained model in a format that other programs read."""

import shutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jensen.commands.common import Command, RunFolder
from jensen.errors import InputError
from jensen.records import Value

if TYPE_CHECKING:
    from jensen.run import Run

EXPORTERS = {
    "diffusers": "jensen.exchange.diffusers.export_diffusers",
}
"""The function of each format, (run, folder) -> notes: it fills the new, empty folder, and its notes are sentences."""

if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[tuple(EXPORTERS)]


class Export(Command):
    """Write a trained model in a format that other programs read."""

    run: RunFolder
    """The folder of the run."""
    to: Format
    """The format: diffusers, for the pipelines of Hugging Face's diffusers."""
    out: Path
    """The new folder to write."""

    def execute(self) -> None:
        """Write the folder; print its files and what a reader should know."""
        from jensen.run import load

        found = export(load(self.run), to=self.to, out=self.out)
        print("\n".join([f"{self.out}: {', '.join(found.files)}", *found.notes]))


class Exported(Value):
    """An exported model."""

    folder: str
    files: tuple[str, ...]
    """Every file of the folder, by its path within the folder."""
    notes: tuple[str, ...]
    """What a reader of the folder should know, one sentence each."""


def export(run: "Run", *, to: str, out: str | Path) -> Exported:
    """Write the best weights of a run into the new folder `out`, in the format `to`, a key of `EXPORTERS`.

    The folder appears whole or not at all. Raises `InputError` for another format, for a folder with files, and for
    settings of the run that have no counterpart in the format.
    """
    from jensen.records import refuse_filled_folder

    out = Path(out)
    if to not in EXPORTERS:
        raise InputError(f"--to {to}: expected one of {', '.join(EXPORTERS)}")
    refuse_filled_folder(out)
    module, _, name = EXPORTERS[to].rpartition(".")
    exporter = getattr(import_module(module), name)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed
    temporary.mkdir(parents=True)
    try:
        notes = exporter(run, temporary)
        if out.exists():
            out.rmdir()  # it is empty
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    return Exported(folder=str(out), files=tuple(files), notes=tuple(notes))
