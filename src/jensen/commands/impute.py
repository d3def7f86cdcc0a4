"""`jensen impute`: draws of missing values, as pictures, arrays and tables, and the calibration of the draws."""

import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from jensen.commands.common import OfExamples, RunFolder
from jensen.commands.files import TABLES, refuse_other_file
from jensen.data.options import Split
from jensen.data.table.fill import Fill
from jensen.errors import InputError
from jensen.records import refuse_existing_file, refuse_filled_folder

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from torch import Tensor

    from jensen.data.examples import Names
    from jensen.data.table.column import Table
    from jensen.data.table.fill import FilledCell
    from jensen.inference.calibration import Calibration
    from jensen.inference.imputer import Imputation
    from jensen.provenance import Provenance
    from jensen.recipe.family import ImputationWish
    from jensen.run import Run

SHOWN = 16  # default number of a run's own examples, and the maximum number of examples in the picture
FEW_DRAWS, TABLE_DRAWS = 5, 100  # default numbers of draws
NAMED = 8  # the most columns that a note names
HOLE = 0.45  # the brightness of a missing value in a picture
Method = Literal["gibbs", "importance", "particles", "replacement"]


class Impute(OfExamples):
    """Draw missing values given the observed ones: pictures, arrays, tables."""

    run: RunFolder
    """The folder of the run."""
    out: Path
    """The new folder for imputations.npz, for imputations.png (images), and for the files of --calibrate.
    For a table: the filled table, NAME.csv, .tsv, .parquet or .arrow. NAME-cells.csv lists the filled cells with their
    intervals, and the folder NAME-report has the files of --calibrate."""
    mask: str | None = None
    """Mask: half:left|right|top|bottom, centre, random:0.5 (share missing), a PNG (white is missing), .npy or .npz.
    In an .npy or .npz, True means observed. Default: NaN in --data is missing."""
    data: str | None = None
    """DATA to use instead of the run's own. In floats, NaN is missing. Default: the run's own test examples."""
    examples: PositiveInt | None = None
    """Number of examples, evenly spread over the data. Default: all of --data or of a table, or 16 of the run's own."""
    draws: PositiveInt | None = None
    """Draws per example. Default: 5; for a table 100, or 5 with --fill draw."""
    fill: Fill | None = None
    """Tables: the value of an empty cell. median (default) and mean are over the draws, a category gets its most
    frequent value. draw: one file for each draw, NAME-1.csv and so on, as multiple imputation needs them."""
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
    steps: int | None = Field(default=None, ge=2)
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
        from jensen.records import write_record
        from jensen.run import opened

        self._refuse_taken()
        options = ("method", "samples", "sweeps", "particles", "resamplings", "steps")
        run = opened(self.run)
        refuse_other_file(self.out, run.spec)
        found = impute(
            run,
            self.data,
            self.mask,
            split=self.part,
            examples=self.examples,
            draws=self.draws,
            fill=self.fill,
            seed=self.seed,
            wish=ImputationWish(**{name: getattr(self, name) for name in options}),
        )
        calibration = found.calibration() if self.calibrate else None
        written = found.save(self.out, calibration)
        if calibration:
            _show(calibration)
        if calibration and self.of_test:
            print(f"{write_record(found.run.folder / RECORD, calibration)} written, for its report")
        for name, values in found.diagnostics.items():
            print(f"{name}: {values.double().mean():.3g} (mean), {values.min():.3g} (least)")
        print(f"{self.out}: {len(found.found.draws):,} draws for each of {counted(len(found.rows))}")
        names = ", ".join(sorted(path.name for path in written))
        print(f"It holds {names}" if run.spec.table is None else f"Written: {names}")

    def _refuse_taken(self) -> None:
        if self.out.suffix.lower() not in TABLES:
            refuse_filled_folder(self.out)
            return
        for path in (self.out, beside(self.out, "cells", ".csv"), beside(self.out, "1")):
            refuse_existing_file(path)
        if self.calibrate:
            refuse_filled_folder(beside(self.out, "report", ""))


def beside(out: Path, word: object, suffix: str | None = None) -> Path:
    """A further file of a table NAME.csv: NAME-WORD.csv, or with another ending."""
    return out.with_name(f"{out.stem}-{word}{out.suffix if suffix is None else suffix}")


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
    model does not see it. `everything` are the names of all examples of the data, and `fill` is how a table is filled.
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
    data: Any
    everything: "Names"
    fill: Fill = "median"

    @property
    def truth(self) -> "np.ndarray":
        """The examples in the units of the raw data, (count, *shape); binarised if the run binarises its data."""
        if self.raw.is_floating_point() and self.run.spec.preparation.kind in ("standardise", "table"):
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

    def frames(self, *, text: bool = False, like: Any = None) -> list[Any]:
        """The filled table, or with fill "draw" one table for each draw: all rows and columns of the source.

        Only empty cells change. The tables are pyarrow.Tables or, if `like` is a DataFrame of pandas or polars,
        DataFrames of its library, for pandas with the index of `like` if it has as many rows. With `text`, the cells of
        a text file stay text. Raises `InputError` if the data are no table.
        """
        import numpy as np

        from jensen.data.table.fill import filled
        from jensen.data.table.frames import like as as_frame

        if self.run.spec.table is None:
            raise InputError("the run was not trained on a table; use draws")
        source, table = self._source
        rows, hidden = self.rows.numpy(), np.zeros((source.num_rows, self.draws.shape[-1]), bool)
        hidden[rows] = ~self.observed.numpy()
        found = []
        for part in self.draws if self.fill == "draw" else [self._values]:
            values = np.zeros(hidden.shape)
            values[rows] = part
            found.append(filled(source, values, hidden, table, text=text))
        return found if like is None else [as_frame(one, like, same_rows=True) for one in found]

    @cached_property
    def _source(self) -> "tuple[pyarrow.Table, Table]":
        """All rows of the source of a table, and the run's table in the source's form.

        Warns of the empty cells in columns that the model does not know, which stay empty.
        """
        from jensen.commands.rows import source_rows
        from jensen.data.table.fill import empty_elsewhere

        source, table = source_rows(self.run, self.data, self.everything)
        if others := empty_elsewhere(source, table):
            few = ", ".join(f"{name!r} ({many:,})" for name, many in [*others.items()][:NAMED])
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            total = sum(others.values())
            warnings.warn(
                f"{total:,} empty {'cell stays' if total == 1 else 'cells stay'} empty, in columns that the model does "
                f"not know: {few}{more}",
                stacklevel=2,
            )
        return source, table

    @cached_property
    def _values(self) -> "np.ndarray":
        """The values that fill the empty cells of a table, (count, fields)."""
        from jensen.data.table.fill import centre

        assert self.run.spec.table is not None
        return centre(self.draws, self.run.spec.table, self.fill)

    @cached_property
    def cells(self) -> "list[FilledCell]":
        """The filled cells of a table with their intervals; `row` is a place in `rows`."""
        from jensen.data.table.fill import filled_cells

        return filled_cells(self.draws, self._values, ~self.observed.numpy(), self._source[1])

    def save(self, out: str | Path, calibration: "Calibration | None" = None) -> list[Path]:
        """Write a filled table, or imputations.npz and, for examples that can be shown, imputations.png into a folder.

        If there is a calibration, it is written to calibration.json and calibration.png. Returns the paths.
        """
        from jensen.inference.calibration import RECORD
        from jensen.records import write_record
        from jensen.report.charts import save_chart
        from jensen.report.imputation import calibration_picture

        out = Path(out)
        table = self.run.spec.table is not None
        written = self._save_table(out) if table else self._save_arrays(out)
        if calibration:
            folder = beside(out, "report", "") if table else out
            folder.mkdir(exist_ok=True)
            written.append(write_record(folder / RECORD, calibration))
            save_chart(calibration_picture(calibration), folder / "calibration.png")
            written.append(folder / "calibration.png")
        return written

    def _save_table(self, out: Path) -> list[Path]:
        """NAME.csv, or NAME-1.csv and so on for single draws, and NAME-cells.csv."""
        import pyarrow

        from jensen.data.table.write import write_table

        refuse_other_file(out, self.run.spec)
        _, table = self._source
        frames = self.frames(text=out.suffix.lower() in (".csv", ".tsv"))
        paths = [beside(out, number + 1) for number in range(len(frames))] if self.fill == "draw" else [out]
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, frame in zip(paths, frames, strict=True):
            write_table(frame, path, table)
        listed = beside(out, "cells", ".csv")
        columns = pyarrow.table(self._listed())
        write_table(columns, listed, table.model_copy(update={"columns": (), "header": True}))
        return [*paths, listed]

    def _listed(self) -> dict[str, list[Any]]:
        """The filled cells as columns: row, column, value, share of the draws, and the ends of the intervals."""
        from jensen.commands.rows import keys
        from jensen.data.table.fill import LEVELS

        _, table = self._source
        names = keys(self.run, self.data, self.names)
        ends = [f"{end}_{100 * level:g}" for level in LEVELS for end in ("low", "high")]
        return {
            "name": [names[cell.row] for cell in self.cells],
            "column": [table.columns[cell.column].name for cell in self.cells],
            "value": [cell.value for cell in self.cells],
            "share_of_draws": [cell.share for cell in self.cells],
            **{end: [cell.ends[k] if cell.ends else "" for cell in self.cells] for k, end in enumerate(ends)},
        }

    def _save_arrays(self, folder: Path) -> list[Path]:
        import numpy as np

        from jensen.records import write_arrays

        wide = self.draws.astype(np.float64)
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
        written = [write_arrays(folder / "imputations.npz", arrays, compressed=True)]
        if self.run.spec.pictured:
            written.append(folder / "imputations.png")
            self._save_picture(written[-1])
        return written

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
    draws: int | None = None,
    fill: Fill | None = None,
    seed: int = 0,
    wish: "ImputationWish | None" = None,
) -> Imputed:
    """Draws from p(x_missing | x_observed) for the examples of `data`.

    If `data` is None, the examples are the split `split` of the run's own data. `mask` is the name of a pattern, the
    path of a file, or an array in which True means observed. A file or an array holds one mask for all examples, or a
    mask for each example. NaN in floats is always missing. `examples` is the number of examples to impute, which are
    evenly spread. None means all examples of `data`, or 16 examples of the run's own data; of a table all rows. Rows of
    a table without an empty cell are left out of the result. `draws` are 5 by default, and 100 for a table whose `fill`
    is not "draw". Raises `InputError` if nothing is missing, for `fill` without a table, and for options in `wish` that
    the model's family does not have.
    """
    from jensen.data.mask import masked
    from jensen.evaluation.scores import note_shortage, spread
    from jensen.inference.imputation import impute as draw_missing
    from jensen.inference.rows import seen_rows
    from jensen.recipe.family import ImputationWish

    began, table = time.perf_counter(), run.spec.table
    if fill is not None and table is None:
        raise InputError(f"--fill {fill}: {run.folder} was not trained on a table; leave it out")
    fill = fill or "median"
    imputer = run.family.imputer(wish or ImputationWish(), run.spec)
    found = run.examples(data, split, missing=run.spec.levels is None)
    note_shortage(len(found), examples)
    rows = spread(len(found), examples or (SHOWN if data is None and table is None else None))
    raw = found.x[rows]
    observed, known = masked(raw, mask, run.spec, len(found), rows.tolist(), seed)
    if table is not None:
        some = ~observed.all(1)
        rows, raw, observed, known = rows[some], raw[some], observed[some], known[some]
    x = seen_rows(raw, run.spec, rows, seed)
    draws = draws or (FEW_DRAWS if table is None or fill == "draw" else TABLE_DRAWS)
    drawn = draw_missing(run.model, x, observed, imputer, draws=draws, seed=seed, index=rows)
    if not drawn.draws.isfinite().all():
        raise InputError(f"{run.folder}: draws are not finite; try other --steps")
    said = mask if isinstance(mask, str) else "NaN" if mask is None else "an array"
    source, traced = run.source(data, split), run.provenance(began)
    return Imputed(
        run, rows, found[rows].names, raw, x, observed, known, drawn, source, said, str(imputer), seed, traced, data,
        found.names, fill,
    )  # fmt: skip
