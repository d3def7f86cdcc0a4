"""Models as programs of torch.export, one for each function, which PyTorch runs without jensen."""

from pathlib import Path

import torch

from jensen.exchange.description import Kind, describe
from jensen.exchange.functions import functions_of
from jensen.exchange.tracing import quiet, traced
from jensen.progress import track
from jensen.run import Run

CODE = """import torch

program = torch.export.load("NAME.pt2").module()
OUTPUTS = program(ARGUMENTS)  # tensors
"""


def export_torch(run: Run, folder: Path) -> list[str]:
    """Fill `folder` with one .pt2 file for each function of the model, model.json and README.md."""
    found = functions_of(run)
    for function in track(found.functions, "exporting"):
        with quiet():
            torch.export.save(traced(function), folder / f"{function.name}.pt2")
    ports = {function.name: (function, function.inputs) for function in found.functions}
    notes = [*found.notes, "torch.export.load trusts its file: load only programs whose origin you know"]
    kind = Kind("torch.export", "pt2", CODE, {"torch": torch.__version__})
    describe(run, folder, kind, ports, found.facts, notes)
    return notes
