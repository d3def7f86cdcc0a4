"""`jensen import`: a model that another program trained becomes a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import NonNegativeInt

from jensen.commands.common import Command
from jensen.data.options import ReadOptions

if TYPE_CHECKING:
    from jensen.data.readers.memory import Source
    from jensen.run import Run

Variance = Literal["as-is", "beta", "posterior", "analytic"]


class Import(Command):
    """Make a run of a model that another program trained, such as diffusers."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """The folder of the model: a pipeline of diffusers, or weights of improved-diffusion with their settings."""
    data: str
    """DATA of the run: images of the model's size, in the range of its training data."""
    out: Path
    """The new folder of the run."""
    variance: Variance = "as-is"
    """Variance of the reverse step, which matters for the bound. as-is: as the model's program draws."""
    seed: NonNegativeInt = 0
    """Seed of the run."""
    read: tyro.conf.OmitArgPrefixes[ReadOptions] = ReadOptions()
    """How to read and split the data."""

    def execute(self) -> None:
        """Write the run; print where its weights came from and the next command."""
        run = import_run(
            self.folder, data=self.data, out=self.out, variance=self.variance, seed=self.seed, read=self.read
        )
        print(f"{run.folder}: a run {run.recipe.beginning}\nNext: jensen evaluate {run.folder}")


def import_run(
    folder: str | Path,
    *,
    data: "Source",
    out: str | Path,
    variance: Variance = "as-is",
    seed: int = 0,
    read: ReadOptions | None = None,
) -> "Run":
    """A run in the new folder `out` with the weights of another program's model, and with `data` as its data.

    Nothing is trained. Raises `InputError` for a model with a part that jensen lacks, and for data that do not fit.
    """
    from dataclasses import replace

    from jensen.errors import InputError
    from jensen.exchange.arrival import become_run
    from jensen.exchange.read import read_model

    found = read_model(Path(folder))
    if variance != "as-is":
        if found.settings.variance == "learned":
            raise InputError(f"--variance {variance}: the network of {folder} learned its own; leave the option out")
        found = replace(found, settings=found.settings.model_copy(update={"variance": variance}))
    return become_run(found, data, read or ReadOptions(), Path(out), seed)
