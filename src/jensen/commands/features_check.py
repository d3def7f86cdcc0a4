"""`jensen features check`: compare samples with the data by every measure, and search samples for copies."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import NonNegativeInt, PositiveInt

from jensen.commands.common import Command, RunFolder
from jensen.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from jensen.features.sample_metrics import Check, FeatureFunction, SampleMetrics
    from jensen.provenance import Provenance
    from jensen.run import Run


class FeaturesCheck(Command):
    """Compare samples with the data: likeness, coverage, memorisation."""

    several_processes: ClassVar[bool] = True

    run: RunFolder
    """The folder of the run. The features are those of the run's classifier, or pixels if the run has no classifier.
    For a table they are the columns, and the shapes of columns, trends of pairs and detection are measured, too."""
    n: PositiveInt = 1000
    """Number of samples."""
    pixels: bool = False
    """Compare pixels, even if the run has a classifier."""
    target: str | None = None
    """Tables: the column that a model trained on samples predicts for test rows.
    Default: the column of --labels, or the last one."""
    k: PositiveInt = 5
    """Number of neighbours for precision, recall, density and coverage."""
    seed: NonNegativeInt = 0
    """The seed of the samples, permutations and directions."""

    def execute(self) -> None:
        """Draw samples and measure them; print the table, write the metrics and a picture into the run."""
        from rich.console import Console

        from jensen import processes
        from jensen.run import opened

        with processes.together():
            run = opened(self.run)
        found = features_check(run, self.n, in_pixels=self.pixels, target=self.target, k=self.k, seed=self.seed)

        def show(found: "Checked") -> None:
            Console().print(found.table())
            record, picture = found.save()
            print(f"{record} and {picture} written")

        processes.on_main(lambda: show(found) if found else None)


@dataclass(frozen=True, eq=False)
class Checked:
    """The result of a check of samples; `pairs` (images only) are the most suspicious samples and their neighbours."""

    run: "Run"
    check: "Check"
    pairs: "tuple[np.ndarray, np.ndarray] | None"

    @property
    def metrics(self) -> "SampleMetrics":
        """All metrics of the samples."""
        return self.check.metrics

    def table(self) -> Any:
        """Every metric of the samples beside the same metric of real data, as a rich table."""
        from jensen.report.sample_metrics import metrics_table

        return metrics_table(self.metrics)

    def save(self) -> tuple[Path, Path]:
        """Write the metrics and the picture of the nearest samples into the run. Returns their paths."""
        from jensen.records import write_record
        from jensen.report.charts import save_chart
        from jensen.report.sample_metrics import PICTURE, RECORD, nearest_chart

        record = write_record(self.run.folder / RECORD.format(self.metrics.features), self.metrics)
        picture = self.run.folder / PICTURE.format(self.metrics.features)
        picture.parent.mkdir(exist_ok=True)
        save_chart(nearest_chart(self.check.nearest, self.metrics.memorisation, self.pairs), picture)
        return record, picture


def features_check(
    run: "Run",
    n: int = 1000,
    *,
    in_pixels: bool = False,
    target: str | None = None,
    k: int = 5,
    seed: int = 0,
) -> "Checked | None":
    """Compare `n` samples with the run's test and training examples, by features of a classifier or by pixels.

    Samples of a table are compared by their columns, see `jensen.features.table_metrics`. `target` is the column that a
    model trained on the samples predicts; the default is the column named as labels, or the last one.

    Processes started by torchrun divide the sampling among themselves. The main process measures and returns the
    result; the other processes return None. Raises `InputError` for too few samples or examples, and for options
    that do not suit the data.
    """
    from jensen import processes
    from jensen.features.sample_metrics import draw, require

    with processes.together():
        column = _target(run, target, in_pixels)
        name, see = _seeing(run, in_pixels)
        dataset = run.dataset
        require(k, samples=n, train=len(dataset.train), test=len(dataset.test))
    began = time.perf_counter()
    x = draw(run.model, n, seed, dataset.train.labels, gaps=run.spec.table is not None)
    made = run.provenance(began)  # by all processes: the main one, when it works alone, counts itself only
    return processes.on_main(lambda: _compare(run, x, name, see, (k, seed, column), made))


def _compare(
    run: "Run", x: "Tensor", name: str, see: "FeatureFunction", settings: tuple[int, int, str], traced: "Provenance"
) -> Checked:
    from dataclasses import replace

    import torch

    from jensen.data.pictures import pictures_of
    from jensen.features.fit import shown
    from jensen.features.sample_metrics import check_samples
    from jensen.features.table_metrics import table_metrics
    from jensen.randomness import Noise, generator
    from jensen.report.sample_metrics import SUSPICIOUS

    dataset, preparation, (k, seed, target) = run.dataset, run.spec.preparation, settings
    train, test = (shown(part, preparation) for part in (dataset.train, dataset.test))
    samples = torch.from_numpy(preparation.to_raw(x))
    check = check_samples(samples, train, test, features=see, name=name, k=k, seed=seed)
    of_columns = None
    if run.spec.table is not None:
        made, known, fresh = (one.double().numpy() for one in (samples, train, test))
        of_columns = table_metrics(made, known, fresh, run.spec.table, target, seed)
    check = replace(check, metrics=check.metrics.model_copy(update={"provenance": traced, "table": of_columns}))
    pairs = None
    if run.spec.pictured:
        least = check.nearest.samples.argsort()[:SUSPICIOUS]
        copied = train[check.nearest.row[least]]
        both = x[least], preparation(copied, Noise(generator(0)))
        pairs = pictures_of(both[0], run.spec), pictures_of(both[1], run.spec)
    return Checked(run, check, pairs)


def _target(run: "Run", wanted: str | None, in_pixels: bool) -> str:
    """The column whose prediction measures the usefulness of samples; empty if the data are no table.

    Raises `InputError` for an unknown column, and for options that do not suit the data.
    """
    table = run.spec.table
    if table is None:
        if wanted is not None:
            raise InputError(f"--target {wanted}: {run.folder} was not trained on a table; leave it out")
        return ""
    if in_pixels:
        raise InputError("--pixels: the rows of a table have no pixels; leave it out")
    names = [column.name for column in table.columns]
    if wanted is not None and wanted not in names:
        raise InputError(f"--target {wanted}: {table.unknown(wanted)}")
    return wanted or run.spec.options.labels or names[-1]


def _seeing(run: "Run", in_pixels: bool) -> "tuple[str, FeatureFunction]":
    """The name and function of the features.

    They are the columns of a table, the features of the run's classifier, or pixels if `in_pixels` or without one.
    """
    from jensen.features.sample_metrics import pixels, seen_by
    from jensen.features.store import FOLDER, load_classifier
    from jensen.features.table_metrics import row_features

    if run.spec.table is not None:
        train = run.dataset.train.x
        return "columns", row_features(train[: len(train)].double().numpy(), run.spec.table)
    if in_pixels or not (run.folder / FOLDER).is_dir():
        return "pixels", pixels(run.spec)
    classifier, _ = load_classifier(run.folder, run.spec)
    return "classifier", seen_by(classifier)
