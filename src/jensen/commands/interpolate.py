"""`jensen interpolate`: a path in latent space from one example to another, decoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import Field

from jensen.commands.common import OfExamples, RunFolder
from jensen.commands.files import TABLES, refuse_other_file
from jensen.data.options import Split
from jensen.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from jensen.commands.decode import Decoded
    from jensen.data.examples import Examples
    from jensen.run import Run

Course = Literal["spherical", "straight"]
SHOWN = 3  # names in an advice


class Interpolate(OfExamples):
    """Decode a path in latent space from example A to example B."""

    run: RunFolder
    """The folder of the run."""
    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """The first example: its name, as `score` and `encode` write it ("row 3", or the path of an image in DATA), or a
    file with a single example."""
    b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """The last example, given in the same way."""
    out: Path
    """A .png (a row of pictures), an .npz (`x`, `z`, `name`), or a folder of PNGs. For a table: a .csv, .tsv, .parquet
    or .arrow."""
    steps: int = Field(default=8, ge=2)
    """Number of examples on the path, with both ends."""
    path: Course = "spherical"
    """spherical: a great circle, which keeps z as long as draws of p(z) are. straight: a straight line."""

    def execute(self) -> None:
        """Write the examples on the path."""
        from jensen.commands.pictures import refuse_taken
        from jensen.run import opened

        refuse_taken(self.out, *TABLES)
        run = opened(self.run)
        refuse_other_file(self.out, run.spec, ".png", ".npz", "")
        found = interpolate(run, self.a, self.b, self.steps, path=self.path, data=self.data, split=self.part)
        found.save(self.out)
        print(f"{self.out}: {self.steps} examples from {found.names[0]} to {found.names[-1]}")


@dataclass(frozen=True, eq=False)
class Interpolated:
    """The codes z (steps, latent dimensions) on a path, and the decoded examples, whose ends are reconstructions."""

    z: "np.ndarray"
    decoded: "Decoded"

    @property
    def names(self) -> "list[str]":
        """The names of both ends, and between them the shares of the way."""
        return list(self.decoded.names)

    @property
    def x(self) -> "np.ndarray":
        """The decoded examples in the units of the raw data, (steps, *shape)."""
        return self.decoded.x

    def save(self, out: str | Path) -> None:
        """Write a .png (one row of pictures), an .npz or a folder of PNGs; of a table a table."""
        import numpy as np

        from jensen.records import write_arrays

        out = Path(out)
        if out.suffix == ".npz":
            write_arrays(out, {"x": self.x, "z": self.z, "name": np.array(self.names)})
        else:
            self.decoded.save(out, columns=len(self.z))


def interpolate(
    run: "Run",
    a: Any,
    b: Any,
    n: int = 8,
    *,
    path: Course = "spherical",
    data: Any = None,
    split: Split = "test",
) -> Interpolated:
    """`n` examples on a path in latent space from example `a` to example `b`, both ends included.

    `a` and `b` are names of examples of `data` (None: of the split `split` of the run's own data), files with a single
    example, or examples themselves: an array, or a DataFrame with one row. For the path see
    `jensen.inference.codes.between`. Raises `InputError` for a name that no example or more than one has.
    """
    import torch

    from jensen.commands.decode import decode
    from jensen.inference.codes import InterpolationPath, encode_examples, interpolate_codes

    ends = [_one(run, given, data, split) for given in (a, b)]
    codes = [encode_examples(run.model, example, run.spec.preparation).z[0] for _, example in ends]
    z = interpolate_codes(run.model, codes[0], codes[1], n, InterpolationPath(path))
    shares = [f"{share:.3g} of the way" for share in torch.linspace(0, 1, n).tolist()]
    names = [ends[0][0], *shares[1:-1], ends[1][0]]
    return Interpolated(z.numpy(), decode(run, z, names=names))


def _one(run: "Run", given: Any, data: Any, split: Split) -> "tuple[str, Examples]":
    """The example that is given by its name, by a file or as itself, with its name."""
    if not isinstance(given, str | Path):
        return _single(run, _with_axis(run, given), "the given example")
    examples, names = _named(run, data, split)
    places = [place for place, name in enumerate(names) if name == str(given)]
    if len(places) == 1:
        return str(given), examples[places[0] : places[0] + 1]
    if places:
        raise InputError(f"{given}: {len(places)} examples have this name; give another example, or a file with one")
    if Path(given).exists():
        return _single(run, str(given), str(given))
    few = ", ".join(names[:SHOWN])
    where = f"--data {data}" if isinstance(data, str | Path) else run.source(data, split)
    raise InputError(
        f"{given}: no example of {where} has this name, and there is no such file; names are {few}, ... as in "
        "the file of jensen score"
    )


def _named(run: "Run", data: Any, split: Split) -> "tuple[Examples, list[str]]":
    from jensen.commands.rows import keys

    examples = run.examples(data, split)
    return examples, keys(run, data, examples.names)


def _single(run: "Run", source: Any, name: str) -> "tuple[str, Examples]":
    examples = run.examples(source)
    if len(examples) != 1:
        raise InputError(f"{name}: holds {len(examples)} examples, expected one; give --data and the names of two")
    return name, examples


def _with_axis(run: "Run", given: Any) -> Any:
    """An array of one example as an array of examples."""
    if run.spec.table is not None or not hasattr(given, "shape") or (len(given.shape) > 1 and given.shape[0] == 1):
        return given
    return given[None]
