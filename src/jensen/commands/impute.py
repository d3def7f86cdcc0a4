"""`jensen impute`: draws of missing values, as pictures and arrays, and the calibration of the draws."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from jensen.commands.common import OfExamples, RunFolder
from jensen.data.options import Split
from jensen.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from jensen.data.examples import Names
    from jensen.inference.calibration import Calibration
    from jensen.inference.imputer import Imputation
    from jensen.provenance import Provenance
    from jensen.recipe.family import ImputationWish
    from jensen.run import Run

SHOWN = 16  # default number of a run's own examples, and the maximum number of examples in the picture
HOLE = 0.45  # the brightness of a missing value in a picture
Method = Literal["gibbs", "importance", "particles", "replacement"]


class Impute(OfExamples):
    """Draw missing values given the observed ones: pictures and arrays."""

    run: RunFolder
    """The folder of the run."""
    out: Path
    """The new folder for imputations.npz, for imputations.png (images), and for the files of --calibrate."""
    mask: str | None = None
    """Mask: half:left|right|top|bottom, centre, random:0.5 (share missing), a PNG (white is missing), .npy or .npz.
    In an .npy or .npz, True means observed. Default: NaN in --data is missing."""
    data: str | None = None
    """DATA to use instead of the run's own. In floats, NaN is missing. Default: the run's own test examples."""
    examples: PositiveInt | None = None
    """Number of examples, evenly spread over the data. Default: all of --data, or 16 of the run's own."""
    draws: PositiveInt = 5
    """Draws per example."""
    method: Method | None = None
    """VAE: gibbs (default) or importance. Diffusion: particles (default) or replacement, which is faster but biased."""
    samples: PositiveInt | None = None
    """gibbs, importance: number of weighted proposals. Default: 1000."""
    sweeps: PositiveInt | None = None
    """gibbs: number of sweeps of each chain. Default: 100."""
    particles: PositiveInt | None = None
    """particles: number of particles for each draw. Default: 16."""
    resamplings: PositiveInt | None = None
    """replacement: number of repetitions of each step. Default: 5."""
    steps: int | None = Field(None, ge=2)
    """particles, replacement: number of steps from noise to data. Default: 100 for particles, 50 for replacement."""
    calibrate: bool = False
    """Compare the draws with the values hidden by --mask: coverage of intervals, ranks; also in the run's report."""
    seed: NonNegativeInt = 0
    """The seed of the draws and of random masks."""

    def execute(self) -> None:
        """Impute; write arrays and, for images, a picture; with --calibrate also the calibration."""
        from jensen.data.examples import counted
        from jensen.inference.calibration import RECORD
        from jensen.recipe.family import ImputationWish
        from jensen.records import refuse_filled_folder, write_record
        from jensen.run import opened

        refuse_filled_folder(self.out)
        options = ("method", "samples", "sweeps", "particles", "resamplings", "steps")
        found = impute(
            opened(self.run),
            self.data,
            self.mask,
            split=self.part,
            examples=self.examples,
            draws=self.draws,
            seed=self.seed,
            wish=ImputationWish(**{name: getattr(self, name) for name in options}),
        )
        calibration = found.calibration() if self.calibrate else None
        found.save(self.out, calibration)
        if calibration:
            _show(calibration)
        if calibration and self.of_test:
            print(f"{write_record(found.run.folder / RECORD, calibration)} written, for its report")
        for name, values in found.diagnostics.items():
            print(f"{name}: {values.double().mean():.3g} (mean), {values.min():.3g} (least)")
        print(f"{self.out}: {self.draws} draws for each of {counted(len(found.rows))}")
        print(f"It holds {', '.join(sorted(path.name for path in self.out.iterdir()))}")


def _show(found: "Calibration") -> None:
    from rich.console import Console

    from jensen.report.imputation import calibration_table, remarks

    print("\n".join([f"{found.source}: {found.method}", *remarks(found)]))
    Console().print(calibration_table(found))


@dataclass(frozen=True, eq=False)
class Imputed:
    """Draws from p(x_missing | x_observed) for the examples whose indices are in `rows` (count).

    `names` gives the place of each example in the source. `raw` are the examples as in the data. `x` are the examples
    after the run's preparation, and `found` are the draws in the form of `x`. `observed` (count, *shape) is True for an
    entry that the model sees. `known` (count, *shape) is True for an entry that has a value in the data, even if the
    model does not see it.
    """

    run: "Run"
    rows: "Tensor"
    names: "Names"
    raw: "Tensor"
    x: "Tensor"
    observed: "Tensor"
    known: "Tensor"
    found: "Imputation"
    source: str
    mask: str
    method: str
    seed: int
    provenance: "Provenance"

    @property
    def truth(self) -> "np.ndarray":
        """The examples in the units of the raw data, (count, *shape); binarised if the run binarises its data."""
        if self.raw.is_floating_point() and self.run.spec.preparation.kind == "standardise":
            return self.raw.numpy()
        return self.run.spec.preparation.to_raw(self.x)

    @property
    def draws(self) -> "np.ndarray":
        """The draws in the units of the raw data, (draws, count, *shape); observed entries are unchanged."""
        import numpy as np

        drawn = self.found.draws
        flat = self.run.spec.preparation.to_raw(drawn.cpu().flatten(0, 1)).reshape(tuple(drawn.shape))
        return np.where(self.observed.numpy(), self.truth, flat)

    @property
    def diagnostics(self) -> "dict[str, Tensor]":
        """Measures of the quality of the draws by name, one value per example."""
        return dict(self.found.diagnostics)

    def save(self, folder: str | Path, calibration: "Calibration | None" = None) -> None:
        """Write imputations.npz and, for examples that can be shown, imputations.png into a folder.

        If there is a calibration, it is written to calibration.json and calibration.png.
        """
        import numpy as np

        from jensen.inference.calibration import RECORD
        from jensen.records import write_arrays, write_record
        from jensen.report.charts import save_chart
        from jensen.report.imputation import calibration_picture

        folder, wide = Path(folder), self.draws.astype(np.float64)
        deviation = wide.std(0, ddof=1) if len(wide) > 1 else np.full(wide.shape[1:], np.nan)
        precision = np.result_type(self.draws.dtype, np.float32)
        arrays = {
            "draws": self.draws,
            "mask": self.observed.numpy(),
            "mean": wide.mean(0).astype(precision),
            "sd": deviation.astype(precision),
            "example": self.rows.numpy(),
            "name": np.array(list(self.names)),
        }
        write_arrays(folder / "imputations.npz", arrays, compressed=True)
        if self.run.spec.pictured:
            self._save_picture(folder / "imputations.png")
        if calibration:
            write_record(folder / RECORD, calibration)
            save_chart(calibration_picture(calibration), folder / "calibration.png")

    def _save_picture(self, path: Path) -> None:
        """One row per example: the example if it is fully known, its observed part, the draws, the draws' mean."""
        import numpy as np

        from jensen.data.grid import save_grid
        from jensen.data.pictures import as_pictures

        pictures = self.run.spec.preparation.to_picture
        x, draws = self.x[:SHOWN].cpu().nan_to_num(), self.found.draws[:, :SHOWN].cpu()
        original = pictures(x)
        hole = original.dtype.type(HOLE * np.iinfo(original.dtype).max)
        seen = np.where(self.observed[:SHOWN].numpy(), original, hole)
        whole = [original] if bool(self.known.all()) else []
        columns = [*whole, seen, *map(pictures, draws), pictures(draws.mean(0))]
        shown = np.stack(columns, 1).reshape(-1, *self.run.spec.shape)
        save_grid(as_pictures(shown, self.run.spec.layout), path, columns=len(columns))

    # -- calibration, for known values

    def calibration(self) -> "Calibration":
        """Compares the draws with the hidden true values. Raises `InputError` if no mask hid a known value."""
        import numpy as np
        import torch

        from jensen.inference.calibration import calibration
        from jensen.inference.imputer import ExampleNoise

        hidden = self.known & ~self.observed
        if not bool(hidden.any()):
            raise InputError("--calibrate needs known values hidden by a --mask; give a mask, say random:0.5")
        draws, truth = (torch.from_numpy(values.astype(np.float64)) for values in (self.draws, self.truth))
        return calibration(
            draws,
            truth.nan_to_num(),
            hidden,
            ExampleNoise(self.seed, range(len(truth))),
            source=self.source,
            mask=self.mask,
            method=self.method,
            provenance=self.provenance,
        )


def impute(
    run: "Run",
    data: Any = None,
    mask: "str | np.ndarray | Tensor | None" = None,
    *,
    split: Split = "test",
    examples: int | None = None,
    draws: int = 5,
    seed: int = 0,
    wish: "ImputationWish | None" = None,
) -> Imputed:
    """Draws from p(x_missing | x_observed) for the examples of `data`.

    If `data` is None, the examples are the split `split` of the run's own data. `mask` is the name of a pattern, the
    path of a file, or an array in which True means observed. A file or an array holds one mask for all examples, or a
    mask for each example. NaN in floats is always missing. `examples` is the number of examples to impute, which are
    evenly spread. None means all examples of `data`, or 16 examples of the run's own data. Raises `InputError` if
    nothing is missing, and for options in `wish` that the model's family does not have.
    """
    from jensen.data.mask import masked
    from jensen.evaluation.scores import note_shortage, prepare, spread
    from jensen.inference.imputation import impute as draw_missing
    from jensen.recipe.family import ImputationWish

    began = time.perf_counter()
    imputer = run.family.imputer(wish or ImputationWish(), run.spec)
    found = run.examples(data, split, missing=run.spec.levels is None)
    note_shortage(len(found), examples)
    rows = spread(len(found), examples or (SHOWN if data is None else None))
    raw = found.x[rows]
    observed, known = masked(raw, mask, run.spec, len(found), rows.tolist(), seed)
    x = prepare(run.spec.preparation, raw, rows, seed)
    drawn = draw_missing(run.model, x, observed, imputer, draws=draws, seed=seed, index=rows)
    if not drawn.draws.isfinite().all():
        raise InputError(f"{run.folder}: draws are not finite; try other --steps")
    said = mask if isinstance(mask, str) else "NaN" if mask is None else "an array"
    source, traced = run.source(data, split), run.provenance(began)
    return Imputed(
        run, rows, found[rows].names, raw, x, observed, known, drawn, source, said, str(imputer), seed, traced
    )
