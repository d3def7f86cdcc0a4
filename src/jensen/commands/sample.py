"""`jensen sample`: draw samples from a trained model, as values and as files."""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from jensen.commands.common import Command, RunFolder
from jensen.commands.files import TABLES, refuse_other_file
from jensen.errors import InputError
from jensen.recipe.diffusion.samplers import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from torch import Tensor

    from jensen.data.spec import DataSpec
    from jensen.model import AbstractLatentVariableModel
    from jensen.recipe.family import Sampling, SamplingWish
    from jensen.run import Run

    Draw = Callable[..., Tensor]

AT_ONCE = 4096  # most samples drawn together
VALUES_AT_ONCE = {"cpu": 1 << 18, "gpu": 1 << 22}  # so that the progress bar moves every few seconds
FEW = 2  # effective number of draws of z below which a sample given some cells is doubtful
Labels = Literal["in-turn", "p(y)"]
LastStep = Literal["mean", "draw"]


class Sample(Command):
    """Draw samples from a trained model; sample i depends only on (seed, i)."""

    several_processes: ClassVar[bool] = True

    run: RunFolder
    """The folder of the run."""
    out: Path
    """A .png (a grid), an .npz (raw values `x`, labels `y`), or a folder of PNGs, with one sub-folder per label.
    A .png and an .npz of a VAE also have the means E[x | latent]: beside the samples, and as `mean`.
    For a table: a .csv, .tsv, .parquet or .arrow with the columns of the training data that are modelled."""
    n: PositiveInt = 64
    """Number of samples."""
    seed: NonNegativeInt = 0
    """The seed of the samples."""
    first: NonNegativeInt = 0
    """The number of the first sample. To continue an earlier set of n samples, give the same seed and --first n."""
    mean: bool = False
    """Give only the means E[x | latent], without the observation noise of p(x|latent), as if they were the samples."""
    given: tuple[str, ...] = ()
    """Tables: cells of all samples, as in --given 'age=40' sex=F. The other cells are drawn from p(rest | given)."""
    label: str | None = None
    """Diffusion with labels: the label of all samples, by name or number. Default: see --labels-from."""
    labels_from: Labels = "in-turn"
    """Diffusion with labels. in-turn: one label after the other. p(y): random labels, as frequent as in training."""
    guidance: float | None = None
    """Diffusion with labels: scale of classifier-free guidance, or of guidance by --guide. Default: the run's."""
    guide: Path | None = None
    """Diffusion: a worse run on the same data, such as one trained for fewer steps. Samples are guided away from it."""
    sampler: Sampler | None = None
    """Diffusion: the sampler. Default: the run's."""
    steps: PositiveInt | None = None
    """Diffusion: the number of steps of the sampler. Default: the run's."""
    last_step: LastStep | None = None
    """Diffusion with --sampler ancestral: the last step is the mean of p(x_0|x_1) or a draw. Default: the run's."""

    def execute(self) -> None:
        """Write samples as a grid, as raw values, as a folder of PNGs, or as a table."""
        from jensen import processes
        from jensen.commands.pictures import refuse_taken
        from jensen.data.table.given import parsed_cells
        from jensen.recipe.family import SamplingWish
        from jensen.run import load, opened

        with processes.together():
            refuse_taken(self.out, *TABLES)
            given = parsed_cells(self.given)
            run = opened(self.run)
            refuse_other_file(self.out, run.spec, ".png", ".npz", "")
            guide = guide_of(run, load(self.guide)) if self.guide else None
        found = sample(
            run,
            self.n,
            seed=self.seed,
            first=self.first,
            mean=self.mean,
            with_means=not self.mean and self.out.suffix in (".png", ".npz"),
            labels=self.labels_from if self.label is None else self.label,
            given=given,
            wish=SamplingWish(self.sampler, self.steps, self.guidance, guide, self.last_step),
        )
        processes.on_main(lambda: found.save(self.out))
        print(f"{self.out}: {_counted(self.n, run.spec)}")


def _counted(n: int, spec: "DataSpec") -> str:
    """The number of samples in words; of a table with a note about the columns that they do not have."""
    from jensen.data.table.describe import left_out

    if spec.table is None:
        return "1 sample" if n == 1 else f"{n:,} samples"
    if spec.table.left_out:
        warnings.warn(
            f"the rows do not have the columns that were left out: {left_out(spec.table.left_out)}", stacklevel=2
        )
    return "1 row" if n == 1 else f"{n:,} rows"


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples first..first+n-1 of a run's model, on the CPU.

    `prepared` (n, *shape) has the form that the run's preparation gives to data; `x` has the units of the raw data.
    `prepared_means` and `means` are E[x | latent] of the same samples, or None. `labels` (n), int64, are the requested
    labels, or None if the model has no labels.
    """

    prepared: "Tensor"
    labels: "np.ndarray | None"
    first: int
    spec: "DataSpec"
    prepared_means: "Tensor | None" = None

    @cached_property
    def x(self) -> "np.ndarray":
        """The samples in the units of the raw data, (n, *shape); of a table the numbers of its fields, NaN missing."""
        return self.spec.preparation.to_raw(self.prepared)

    @cached_property
    def means(self) -> "np.ndarray | None":
        """E[x | latent] in the units of the raw data, (n, *shape), or None."""
        return None if self.prepared_means is None else self.spec.preparation.to_raw(self.prepared_means)

    def frame(self, like: Any = None) -> Any:
        """The samples of a table as rows with the names, order and types of the modelled columns.

        The rows are a pyarrow.Table or, if `like` is a DataFrame of pandas or polars, a DataFrame of the same library,
        with the types of its columns. Raises `InputError` if the samples are no rows of a table.
        """
        from jensen.data.table.frames import like as as_frame
        from jensen.data.table.matrix import decode

        if self.spec.table is None:
            raise InputError("the run was not trained on a table, so its samples have no columns; use x")
        rows = decode(self.x, self.spec.table)
        return rows if like is None else as_frame(rows, like)

    def save(self, out: str | Path) -> None:
        """Write a .png, an .npz or a folder of PNGs, with one sub-folder per label if the model has labels.

        Samples of a table become a .csv, .tsv, .parquet or .arrow, with the columns and formats of the training data.
        """
        from jensen.commands.pictures import save_pictures
        from jensen.data.table.write import write_table
        from jensen.records import write_arrays

        out = Path(out)
        refuse_other_file(out, self.spec, ".png", ".npz", "")
        if self.spec.table is not None:
            write_table(self.frame(), out, self.spec.table)
            return
        if out.suffix == ".npz":
            arrays = {"x": self.x, "y": self.labels, "mean": self.means}
            write_arrays(out, {name: values for name, values in arrays.items() if values is not None})
            return
        folders = None if self.labels is None else [self.spec.label_name(label) for label in self.labels.tolist()]
        save_pictures(out, self.prepared, self.spec, first=self.first, folders=folders, beside=self.prepared_means)


def sample(
    run: "Run",
    n: int = 64,
    *,
    seed: int = 0,
    first: int = 0,
    mean: bool = False,
    with_means: bool = False,
    labels: "str | Tensor | np.ndarray" = "in-turn",
    given: "Mapping[str, object] | None" = None,
    wish: "SamplingWish | None" = None,
) -> Samples:
    """Draw the samples with the indices first..first+n-1; sample i is a pure function of (seed, i).

    For a model with labels, `labels` "in-turn" means the labels of the training examples, one after the other. "p(y)"
    means random labels, which are as frequent as in training. `labels` may also be the name or the integer of one label
    for all samples, or integers (n), one per sample. With `mean`, the samples are E[x | latent] instead of draws. With
    `with_means`, the result has both, if the draws have observation noise. `given` maps columns of a table to cells:
    all samples have these cells, and the other cells are drawn from p(rest | given); None or "" is a missing cell.
    `wish` has the options of sampling, which are for diffusion models only; for its `guide` see `guide_of`. Processes
    started by torchrun divide the samples among themselves. Raises `InputError` for labels that no training example
    has, for cells that no row can have, for options that the model does not have, and for samples that are not finite.
    """
    import torch

    from jensen import processes
    from jensen.progress import track
    from jensen.recipe.family import SamplingWish
    from jensen.run.labels import sample_labels

    with processes.together():
        way: Sampling[Any] = run.family.sampling(run.model, run.recipe, wish or SamplingWish())
        chosen = sample_labels(run, labels, n, seed=seed, first=first)
        if mean and run.spec.table is not None:
            raise InputError("--mean: the cells of a table have no common mean; leave it out, or see jensen predict")
        draws = _ways(run, way.model, mean, with_means) if not given else {"x": _given(run, given)}
    mine = []
    with processes.together():
        for rows in track(processes.share(torch.arange(n).split(_at_once(run))), "sampling"):
            asked = None if chosen is None else chosen[rows]
            which = {"seed": seed, "first": first + int(rows[0]), "labels": asked}
            drawn = {name: draw(len(rows), **which).cpu() for name, draw in draws.items()}
            _refuse_infinite(run, drawn.values())
            mine.append(drawn)
    parts = processes.gathered(mine)
    x, *means = (torch.cat([part[name] for part in parts]) for name in draws)
    return Samples(x, None if chosen is None else chosen.numpy(), first, run.spec, means[0] if means else None)


def _at_once(run: "Run") -> int:
    """The number of samples drawn together."""
    values = VALUES_AT_ONCE["cpu" if run.model.device.type == "cpu" else "gpu"]
    return max(1, min(AT_ONCE, values // math.prod(run.model.shape)))


def _ways(run: "Run", model: "AbstractLatentVariableModel", mean: bool, with_means: bool) -> "dict[str, Draw]":
    """The functions that draw the samples, and their means if wanted."""
    ways: dict[str, Draw] = {"x": model.sample_mean if mean else model.sample}
    if with_means and model.noisy_samples and run.spec.table is None:
        ways["mean"] = model.sample_mean
    return ways


def _given(run: "Run", cells: "Mapping[str, object]") -> "Draw":
    """The function that draws rows with the given cells."""
    import torch

    from jensen.data.table.given import given_row
    from jensen.inference.columns import checked, draw_given

    if run.spec.table is None:
        raise InputError(f"--given: {run.folder} was not trained on a table, so it has no columns; leave it out")
    model = checked(run.model)
    numbers, notes = given_row(run.spec.table, cells)
    for note in notes:
        warnings.warn(note, stacklevel=3)
    raw = torch.from_numpy(numbers)[None]
    x = run.spec.preparation(torch.where(raw.isinf(), torch.nan, raw))[0]
    x = torch.where(raw[0].isinf(), torch.inf, x)

    def draw(n: int, *, seed: int, first: int, labels: "Tensor | None") -> "Tensor":
        rows, sizes = draw_given(model, x, n, seed=seed, first=first)
        if sizes.min() < FEW:
            warnings.warn(
                f"--given: a row has few useful draws of z ({sizes.min():.2g}), because such cells are rare in the "
                "training rows; the samples are only roughly draws from p(rest | given)",
                stacklevel=2,
            )
        return rows

    return draw


def _refuse_infinite(run: "Run", drawn: "Iterable[Tensor]") -> None:
    """Raises `InputError` for samples that are not finite; NaN in a sample of a table is a missing cell."""
    for values in drawn:
        bad = values.isinf() if run.spec.table is not None else ~values.isfinite()
        if bool(bad.any()):
            raise InputError(f"{run.folder}: samples are not finite; try a guidance nearer to 0 or other steps")


def guide_of(run: "Run", guide: "Run") -> "AbstractLatentVariableModel":
    """The model of `guide`, a worse run on the same data.

    Samples of `run` are guided away from this model. Raises `InputError` for a guide of another family or of other
    data.
    """
    other, own = guide.spec, run.spec
    if guide.recipe.family != run.recipe.family:
        raise InputError(
            f"--guide {guide.folder} is a run of family {guide.recipe.family}: give one of family "
            f"{run.recipe.family}, like {run.folder}"
        )
    if other.fingerprint != own.fingerprint or other.preparation.kind != own.preparation.kind:
        raise InputError(
            f"--guide {guide.folder} was trained on other data than {run.folder}; give a run on the same data"
        )
    return guide.model.to(run.model.device)
