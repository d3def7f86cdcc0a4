"""`jensen reconstruct`: encode examples and decode them again."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from jensen.commands.common import OfExamples, RunFolder
from jensen.data.options import Split

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from jensen.data.examples import Names
    from jensen.data.spec import DataSpec
    from jensen.run import Run


class Reconstruct(OfExamples):
    """Encode examples and decode them again: originals and reconstructions."""

    run: RunFolder
    """The folder of the run."""
    out: Path
    """A .png with each example above its reconstruction, or an .npz with the arrays `x` and `reconstruction`."""
    examples: PositiveInt = 16
    """Number of examples, counted from the first."""

    def execute(self) -> None:
        """Write originals and reconstructions side by side."""
        from jensen.commands.pictures import refuse_taken
        from jensen.data.examples import counted
        from jensen.run import opened

        refuse_taken(self.out)
        found = reconstruct(opened(self.run), self.data, split=self.part, examples=self.examples)
        found.save(self.out)
        print(f"{self.out}: {counted(len(found.prepared))} and as many reconstructions")


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """Examples and their reconstructions, both (n, *shape) after the run's preparation, on the CPU."""

    names: "Names"
    prepared: "Tensor"
    prepared_reconstruction: "Tensor"
    spec: "DataSpec"

    @property
    def x(self) -> "np.ndarray":
        """The examples in the units of the raw data."""
        return self.spec.preparation.to_raw(self.prepared)

    @property
    def reconstruction(self) -> "np.ndarray":
        """The reconstructions in the units of the raw data."""
        return self.spec.preparation.to_raw(self.prepared_reconstruction)

    def save(self, out: str | Path) -> None:
        """Write an .npz, or pictures: a grid with each example above its reconstruction."""
        import numpy as np
        import torch

        from jensen.commands.pictures import save_pictures
        from jensen.records import write_arrays

        out = Path(out)
        if out.suffix == ".npz":
            names = np.array(list(self.names))
            write_arrays(out, {"x": self.x, "reconstruction": self.reconstruction, "name": names})
        else:
            both = torch.cat([self.prepared, self.prepared_reconstruction])
            save_pictures(out, both, self.spec, columns=len(self.prepared))


def reconstruct(run: "Run", data: Any = None, *, split: Split = "test", examples: int = 16) -> Reconstructions:
    """Encode and decode the first `examples` examples of `data`; None means the split `split` of the run's own data.

    Raises `InputError` for a run on a table.
    """
    from jensen.commands.files import refuse_table
    from jensen.randomness import Noise, Stream, generator

    refuse_table(run.spec, "reconstruct", "hide cells and draw them again: jensen impute --mask random:0.3 --out t.csv")
    shown = run.examples(data, split)[:examples]
    x = run.spec.preparation(shown.x[:], Noise(generator(0, Stream.EVALUATION))).to(run.model.device)
    return Reconstructions(shown.names, x.cpu(), run.model.reconstruct(x).cpu(), run.spec)
