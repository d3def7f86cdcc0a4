"""`jensen decode`: the examples of codes, as pictures, arrays or a table."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jensen.commands.common import Command, RunFolder
from jensen.commands.files import TABLES, refuse_other_file

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from jensen.data.spec import DataSpec
    from jensen.run import Run

NAME = "name"  # the column of a decoded table with the names of the examples


class Decode(Command):
    """Decode codes: the example of each row of a file of `encode`."""

    run: RunFolder
    """The folder of the run that made the codes."""
    codes: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CODES")]
    """A file of `encode`, or another .parquet, .csv or .npz with the columns z_0, z_1, ... and perhaps `name`."""
    out: Path
    """A .png (a grid), an .npz (`x` and `name`), or a folder of PNGs, numbered in the order of the codes.
    For a table: a .csv, .tsv, .parquet or .arrow with the modelled columns, and with `name`."""

    def execute(self) -> None:
        """Write the examples."""
        from jensen.commands.code_files import read_codes
        from jensen.commands.pictures import refuse_taken
        from jensen.data.examples import counted
        from jensen.run import opened

        refuse_taken(self.out, *TABLES)
        codes, run = read_codes(self.codes), opened(self.run)
        refuse_other_file(self.out, run.spec, ".png", ".npz", "")
        if codes.weights not in (None, run.weights):
            warnings.warn(
                f"{self.codes} was made with other weights than those of {self.run}, so z may mean something else; "
                "encode the examples again",
                stacklevel=2,
            )
        found = decode(run, codes.z, names=codes.names)
        found.save(self.out)
        print(f"{self.out}: {counted(len(found.names))} decoded")


@dataclass(frozen=True, eq=False)
class Decoded:
    """Examples x (count, *shape) in the units of the raw data, with a name for each.

    Of a table, x are the numbers of its fields. `prepared` are the examples in the form of the run's preparation; None
    for a table.
    """

    names: Sequence[str]
    x: "np.ndarray"
    prepared: "Tensor | None"
    spec: "DataSpec"

    def frame(self, like: Any = None) -> Any:
        """The rows of a table, with the names, order and types of the modelled columns.

        They are a pyarrow.Table or, if `like` is a DataFrame of pandas or polars, a DataFrame of the same library.
        Raises `InputError` if the examples are no rows of a table.
        """
        from jensen.data.table.frames import like as as_frame
        from jensen.data.table.matrix import decode
        from jensen.errors import InputError

        if self.spec.table is None:
            raise InputError("the run was not trained on a table, so its examples have no columns; use x")
        rows = decode(self.x, self.spec.table)
        return rows if like is None else as_frame(rows, like)

    def save(self, out: str | Path, *, columns: int | None = None) -> None:
        """Write a .png with `columns` pictures in a row, an .npz or a folder of PNGs; of a table a table.

        A table also has the column `name`, unless it models a column of that name.
        """
        import numpy as np

        from jensen.commands.pictures import save_pictures
        from jensen.data.table.write import write_table
        from jensen.records import write_arrays

        out = Path(out)
        refuse_other_file(out, self.spec, ".png", ".npz", "")
        if self.spec.table is not None:
            rows = self.frame()
            rows = rows if NAME in rows.column_names else rows.add_column(0, NAME, [list(self.names)])
            out.parent.mkdir(parents=True, exist_ok=True)
            write_table(rows, out, self.spec.table)
        elif out.suffix == ".npz":
            write_arrays(out, {"x": self.x, "name": np.array(list(self.names))})
        else:
            assert self.prepared is not None
            save_pictures(out, self.prepared, self.spec, columns=columns)


def decode(run: "Run", z: "np.ndarray | Tensor", *, names: Sequence[str] | None = None) -> Decoded:
    """The examples of codes z (count, latent dimensions), as `jensen.encode` gives them; `names` are names for them.

    The examples are E[x|z] for a VAE, also with a diffusion prior. For a diffusion model they are the x at the other
    end of the probability-flow ODE. A row of a table is the centre of p(x|z): the median of a number, the most frequent
    category, given that the cell is not missing. Raises `InputError` for codes of another length or not finite.
    """
    import numpy as np
    import torch

    from jensen.inference.codes import decode_codes, decode_rows

    codes = torch.from_numpy(np.asarray(z.cpu() if isinstance(z, torch.Tensor) else z, np.float64))
    told = [f"row {number}" for number in range(len(codes))] if names is None else names
    spec = run.spec
    if spec.table is not None:
        return Decoded(told, decode_rows(run.model, codes, spec.preparation, spec.table), None, spec)
    prepared = decode_codes(run.model, codes)
    return Decoded(told, spec.preparation.to_raw(prepared), prepared, spec)
