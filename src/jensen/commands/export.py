"""`jensen export`: write a trained model in a format that other programs read."""

from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from jensen.commands.common import Command, RunFolder
from jensen.errors import InputError
from jensen.records import Value

if TYPE_CHECKING:
    from jensen.run import Run

EXPORTERS = {
    "diffusers": "jensen.exchange.diffusers.export_diffusers",
    "onnx": "jensen.exchange.onnx.export_onnx",
    "torch": "jensen.exchange.torch_program.export_torch",
    "pretrained": "jensen.exchange.pretrained.export_pretrained",
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
    """The format. diffusers: pipelines of Hugging Face's diffusers. onnx: a file for each function, such as encoder,
    log_prob or denoiser, for onnxruntime. torch: the same functions as programs of torch.export, for PyTorch without
    jensen. pretrained: weights, recipe and model card, as the Hugging Face Hub has them."""
    out: Path
    """The new folder to write."""
    license: str | None = None
    """The licence in the model card (pretrained): an identifier of the Hub, such as apache-2.0."""

    def execute(self) -> None:
        """Write the folder; print its files and what a reader should know."""
        from jensen.run import load

        found = export(load(self.run), to=self.to, out=self.out, license=self.license)
        print("\n".join([f"{self.out}: {', '.join(found.files)}", *found.notes]))


class Exported(Value):
    """An exported model."""

    folder: str
    files: tuple[str, ...]
    """Every file of the folder, by its path within the folder."""
    notes: tuple[str, ...]
    """What a reader of the folder should know, one sentence each."""


def export(run: "Run", *, to: str, out: str | Path, license: str | None = None) -> Exported:
    """Write the best weights of a run into the new folder `out`, in the format `to`, a key of `EXPORTERS`.

    `license` is for the model card of the format pretrained.

    The folder appears whole or not at all. Raises `InputError` for another format, for a folder with files, and for
    settings of the run that have no counterpart in the format.
    """
    from jensen.records import refuse_filled_folder

    given = out = Path(out)
    if to not in EXPORTERS:
        raise InputError(f"--to {to}: expected one of {', '.join(EXPORTERS)}")
    if license is not None and to != "pretrained":
        raise InputError(f"--license {license}: {to} has no model card; leave it out, or give --to pretrained")
    refuse_filled_folder(out)
    if Path.cwd().is_relative_to(out.resolve()):
        raise InputError(f"--out {out} is the present folder or one above it; give a new folder")
    module, _, name = EXPORTERS[to].rpartition(".")
    exporter = getattr(import_module(module), name)
    exporter = exporter if license is None else partial(exporter, license=license)
    out = out.resolve()  # a link may lead to the empty folder
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        filled = Path(temporary, out.name)  # within the private folder, so that it has the usual permissions
        filled.mkdir()
        notes = exporter(run, filled)
        if out.exists():
            out.rmdir()  # it is empty
        filled.rename(out)
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    return Exported(folder=str(given), files=tuple(files), notes=tuple(notes))
