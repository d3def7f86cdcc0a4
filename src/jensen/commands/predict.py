"""`jensen predict`: p(y|x) of every example, for labels or targets, and the quality of p(y|x) if y is known."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from jensen.commands.common import OfExamples, RunFolder
from jensen.commands.files import refuse_other_file, save_as_table
from jensen.data.options import Split
from jensen.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from jensen.data.examples import Examples
    from jensen.inference.prediction import PredictionRecord, Predictions
    from jensen.inference.target_prediction import Regression, TargetCircumstances, TargetPredictions, TargetRecord
    from jensen.run import Run


class Predict(OfExamples):
    """Predict labels, targets or a column by p(y|x), and measure the quality."""

    several_processes: ClassVar[bool] = True

    run: RunFolder
    """The folder of the run: a VAE of a table, a VAE trained with --predict, or a diffusion model of labelled data."""
    out: Path
    """The .csv to write; for a table also a .tsv, .parquet or .arrow. Accuracy and calibration, if y is known, are
    written into the run for its test examples, or for other data into a folder beside the file, called NAME-report for
    NAME.csv."""
    target: str | None = None
    """Tables: the column to predict from all other columns. Default: the column of --labels, if the run has it."""
    examples: PositiveInt | None = None
    """Number of examples, evenly spread over the data. Default: all."""
    draws: int | None = Field(default=None, ge=2)
    """Draws per example; for diffusion the maximum per example and class.
    Default: 1000 (VAE), 200 (VAE of a table) or 16 (diffusion)."""
    seed: NonNegativeInt = 0
    """The seed of the draws."""

    def execute(self) -> None:
        """Predict and write one row per example; if y is known, print the quality and write it with pictures."""
        from jensen import processes
        from jensen.records import refuse_existing_file
        from jensen.run import opened

        with processes.together():
            refuse_existing_file(self.out)
            if not self.of_test and (report := _beside(self.out)).exists():
                raise InputError(
                    f"--out {self.out}: {report} exists and would be lost; give another name, or remove it first"
                )
            run = opened(self.run)
            refuse_other_file(self.out, run.spec, ".csv")
        found = predict(
            run,
            self.data,
            split=self.part,
            target=self.target,
            examples=self.examples,
            draws=self.draws,
            seed=self.seed,
        )
        processes.on_main(partial(_show, found, self.out, run.folder if self.of_test else _beside(self.out)))


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}-report")


def _show(found: "LabelPredictions | TargetsPredicted", out: Path, folder: Path) -> None:
    from rich.console import Console

    found.save(out)
    from jensen.data.examples import counted

    print(f"{out}: {counted(len(found.predictions.index))} predicted")
    if found.record is None:
        print(f"The {found.of} are not known: there is nothing to compare the predictions with.")
        return
    written = found.save_record(folder)
    Console().print(found.table())
    if found.advice:
        print(found.advice)
    print(f"{written[0]} and {written[1]} written")


# ---------------------------------------------------------------------------------------------- the values


@dataclass(frozen=True, eq=False)
class LabelPredictions:
    """p(y|x) over labels for some examples; `record` is the quality of p(y|x), or None if the labels are unknown.

    `names` are the names of the examples or the keys of the rows, and `of` says in words what is predicted.
    """

    run: "Run"
    predictions: "Predictions"
    names: "Iterable[str]"
    class_names: tuple[str, ...]
    record: "PredictionRecord | None"
    of: str = "labels"
    advice: ClassVar[str] = ""

    def save(self, out: str | Path) -> None:
        """Write a file with a row per example: .csv, or for a table also .tsv, .parquet and .arrow."""
        from jensen.inference.prediction import label_columns

        _save(Path(out), self.run, label_columns(self.predictions, self.class_names, self.names))

    def table(self) -> Any:
        """The quality of the predictions, as a rich table."""
        from jensen.report.predictions import predictions_table

        return predictions_table(_known(self.record))

    def save_record(self, folder: Path) -> tuple[Path, Path]:
        """Write the record and a page about the record into a folder. Returns the paths of both."""
        from jensen.inference.prediction import save_record
        from jensen.report.pages import write_predictions

        folder.mkdir(exist_ok=True)
        record = _known(self.record)
        return save_record(folder, record), write_predictions(folder, record, self.run.folder.name)


@dataclass(frozen=True, eq=False)
class TargetsPredicted:
    """p(y|x) over continuous y for some examples; `record` is the quality of p(y|x), or None if y is unknown."""

    run: "Run"
    predictions: "TargetPredictions"
    names: "Iterable[str]"
    record: "TargetRecord | None"
    of: str = "targets"

    @property
    def advice(self) -> str:
        """Advice if intervals contain y too often, by more than three standard errors; otherwise empty."""
        if self.run.spec.table is not None:
            return ""
        found = _known(self.record).model.coverage[0]
        flags = self.run.family.advice_on_wide_intervals(self.run.recipe)
        if not flags or found.share.mean - found.nominal <= 3 * found.share.standard_error:
            return ""
        return (
            f"The {100 * found.nominal:g} % intervals contain {100 * found.share.mean:.1f} % of the targets: they are "
            f"too wide, as training by the ELBO makes them. Train with\n{flags}"
        )

    def save(self, out: str | Path) -> None:
        """Write a file with a row per example: .csv, or for a table also .tsv, .parquet and .arrow."""
        from jensen.inference.target_prediction import target_columns

        _save(Path(out), self.run, target_columns(self.predictions, self.names))

    def table(self) -> Any:
        """The quality of the predictions, as a rich table."""
        from jensen.report.target_predictions import targets_table

        return targets_table(_known(self.record))

    def save_record(self, folder: Path) -> tuple[Path, Path]:
        """Write the record and a page about the record into a folder. Returns the paths of both."""
        from jensen.inference.target_prediction import save_targets
        from jensen.report.pages import write_predictions

        folder.mkdir(exist_ok=True)
        record = _known(self.record)
        return save_targets(folder, record), write_predictions(folder, record, self.run.folder.name)


def _save(out: Path, run: "Run", columns: "dict[str, list[int | float | str | None]]") -> None:
    from jensen.records import write_columns

    refuse_other_file(out, run.spec, ".csv")
    if run.spec.table is None:
        write_columns(out, columns)
    else:
        save_as_table(out, run.spec.table, columns)


def _known(record: Any) -> Any:
    if record is None:
        raise InputError("y is not known, so there is nothing to compare the predictions with; give data with y")
    return record


# ---------------------------------------------------------------------------------------------- predict


def predict(
    run: "Run",
    data: Any = None,
    *,
    split: Split = "test",
    target: str | None = None,
    examples: int | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> LabelPredictions | TargetsPredicted:
    """Predict y for every example of `data` by p(y|x).

    y is the targets if the model predicts targets, else the label. In a table y is the column `target`, or by default
    the column that was named as the labels, and x are all other columns. If `data` is None, the examples are the split
    `split` of the run's own data. `examples` is the number of examples, which are evenly spread; None means all. If y
    is the label, processes started by torchrun divide the examples among themselves. Raises `InputError` for a model
    that does not predict y, for a label that no training example has, and for a `target` without a table.
    """
    from jensen import processes

    if run.spec.table is not None:
        of_column = partial(_predict_column, run, data, split, _target(run, target), (examples, draws, seed))
        return processes.on_main(of_column)  # type: ignore[return-value]  # only the main process uses the result
    if target is not None:
        raise InputError(f"--target {target}: {run.folder} was not trained on a table; leave it out")
    if run.model.predicted_targets is not None:
        asked = partial(_predict_targets, run, data, split, examples, draws, seed)
        return processes.on_main(asked)  # type: ignore[return-value]  # only the main process uses the result
    return _predict_labels(run, data, split, examples, draws, seed)


def _predict_targets(
    run: "Run", data: Any, split: Split, count: int | None, draws: int | None, seed: int
) -> TargetsPredicted:
    from jensen.evaluation.scores import note_shortage, spread
    from jensen.inference.target_prediction import (
        TargetCircumstances,
        assess_constant,
        assess_targets,
        predict_target_examples,
    )

    examples, scaling = run.examples(data, split, only_known_y=True), run.spec.targets
    assert scaling is not None  # a model that predicts targets was trained on targets
    note_shortage(len(examples), count)
    rows, began = spread(len(examples), count), time.perf_counter()
    found = predict_target_examples(
        run.model, examples, run.spec.preparation, scaling, draws=draws, seed=seed, index=rows
    )
    if found.y is None:
        return TargetsPredicted(run, found, examples[rows].names, None)
    about = TargetCircumstances(run.source(data, split), run.provenance(began), draws, seed)
    always = assess_constant(found.y, scaling)
    record = assess_targets(found, always, _linear(run, examples[rows], found.y), about)
    return TargetsPredicted(run, found, examples[rows].names, record)


def _linear(run: "Run", examples: "Examples", y: "Tensor") -> "Regression | None":
    """A linear regression on the run's training examples; None if the data are gone or have changed."""
    from jensen.inference.target_prediction import assess_linear

    assert run.spec.targets is not None
    train = _training(run)
    return None if train is None else assess_linear(train, examples, y, run.spec.preparation, run.spec.targets)


def _target(run: "Run", wanted: str | None) -> str:
    """The column to predict. Raises `InputError` if none is known, and for a model that cannot predict columns."""
    from jensen.inference.columns import checked

    checked(run.model)
    name = wanted or run.spec.options.labels
    if name is None:
        raise InputError(f"{run.folder} was trained on a table; name the column to predict: --target COLUMN")
    return name


def _predict_column(
    run: "Run", data: Any, split: Split, name: str, how: tuple[int | None, int | None, int]
) -> LabelPredictions | TargetsPredicted:
    from jensen.commands.rows import keys
    from jensen.evaluation.scores import note_shortage, spread
    from jensen.inference.predict_column import predict_classes, predict_numbers, target_column
    from jensen.inference.target_prediction import TargetCircumstances

    table, (count, draws, seed) = run.spec.table, how
    assert table is not None
    field = target_column(table, name)
    examples = run.examples(data, split, missing=True)
    note_shortage(len(examples), count)
    rows, began, classes = spread(len(examples), count), time.perf_counter(), table.columns[table.named(name)].values
    asked = predict_classes if classes else predict_numbers
    found = asked(run.model, examples, run.spec, field, draws=draws, seed=seed, index=rows)
    names = keys(run, data, examples[rows].names)
    where = f"{run.source(data, split)}, column {name}"
    about = TargetCircumstances(where, run.provenance(began), draws, seed, name)
    record = _assess_column(run, examples, found, field, classes, about)
    if classes:
        return LabelPredictions(run, found, names, classes, record, f"cells of {name}")  # type: ignore[arg-type]
    return TargetsPredicted(run, found, names, record, f"cells of {name}")  # type: ignore[arg-type]


def _assess_column(
    run: "Run",
    examples: "Examples",
    found: "Predictions | TargetPredictions",
    field: int,
    classes: tuple[str, ...],
    about: "TargetCircumstances",
) -> "PredictionRecord | TargetRecord | None":
    """The quality of predictions of the rows whose y is known; None if there are none.

    There is no constant prediction beside it if the training rows are gone.
    """
    from jensen.inference.predict_column import assess_marginal, class_counts
    from jensen.inference.prediction import Circumstances, Predictions, assess
    from jensen.inference.target_prediction import assess_targets

    if isinstance(found, Predictions):
        if found.labels is None:
            return None
        counts = None if (train := _training(run)) is None else class_counts(train, field, classes)
        return assess(found.known(), Circumstances(**vars(about), class_names=classes, label_counts=counts))
    if found.y is None:
        return None
    train, known = _training(run), found.known()
    always = None if train is None else assess_marginal(train, examples, known, run.spec, field, about.seed)
    return assess_targets(known, always, None, about)


def _training(run: "Run") -> "Examples | None":
    """The run's training examples; None if the data are gone or have changed."""
    try:
        return run.dataset.train
    except InputError:
        return None


def _predict_labels(
    run: "Run", data: Any, split: Split, count: int | None, draws: int | None, seed: int
) -> LabelPredictions:
    from jensen import processes
    from jensen.evaluation.scores import note_shortage, spread
    from jensen.inference.prediction import Circumstances, assess, predict_examples

    with processes.together():
        counts = _label_counts(run)
        examples = run.examples(data, split, only_known_y=True)
        names = run.spec.label_names or tuple(str(number) for number in range(len(counts)))
        _refuse_unseen(examples, counts, names)
    note_shortage(len(examples), count)
    rows, began = spread(len(examples), count), time.perf_counter()
    found = predict_examples(run.model, examples, run.spec.preparation, draws=draws, seed=seed, index=rows)
    if found.labels is None:
        return LabelPredictions(run, found, examples[rows].names, names, None)
    about = Circumstances(
        run.source(data, split), run.provenance(began), draws, seed, names, counts, run.model.bound_evaluations
    )
    return LabelPredictions(run, found, examples[rows].names, names, assess(found, about))


def _label_counts(run: "Run") -> tuple[int, ...]:
    """The number of training examples per class; raises `InputError` for a model that does not predict labels."""
    if run.model.predicted_classes is None or run.spec.label_counts is None:
        family, advice = run.recipe.family, run.family.conditional_advice
        if not advice:
            raise InputError(f"{run.folder}: a model of family {family} predicts nothing; train one of family vae")
        raise InputError(
            f"{run.folder} was trained without labels, so it has no p(y|x); train on labelled data, {advice}: "
            f"jensen train {family}"
        )
    return run.spec.label_counts


def _refuse_unseen(examples: "Examples", counts: tuple[int, ...], names: tuple[str, ...]) -> None:
    """Raises `InputError` for a label that no training example has; the model has learned nothing about it."""
    if examples.labels is None:
        return
    for label in examples.labels.unique().tolist():
        if not counts[label]:
            raise InputError(
                f"label {names[label]} of the data: no training example has it; train on more data, or leave such "
                "examples out"
            )
