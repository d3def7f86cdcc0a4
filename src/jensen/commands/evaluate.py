"""`jensen evaluate`: bounds on log p(x) over a test set, as numbers, a table and a report."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from jensen.commands.common import OfExamples, RunFolder
from jensen.data.options import Split
from jensen.errors import InputError
from jensen.evaluation.settings import EvaluationSettings, RefereeSettings

if TYPE_CHECKING:
    from jensen.bound import Estimate
    from jensen.data.examples import Examples
    from jensen.evaluation.columns import ColumnBound
    from jensen.evaluation.evaluation import Evaluation
    from jensen.evaluation.exhibits import Exhibits
    from jensen.evaluation.referee import Verdict
    from jensen.report.results import Results, UnlikelyRow
    from jensen.run import Run

RECOGNISED = 500  # number of samples for the classifier


class Evaluate(OfExamples):
    """Bound log p(x) on a test set: a table, evaluation.json and report.html."""

    several_processes: ClassVar[bool] = True

    run: RunFolder
    """The folder of the run."""
    out: Path | None = None
    """A new folder for the evaluation. Default: the run's own folder for its test examples.
    Default for other examples: a folder in the run, below evaluations/, with the name of the split or the data."""
    settings: EvaluationSettings = EvaluationSettings()
    error: float | None = Field(default=None, gt=0)
    """Stop when the standard error of the mean ELBO is at most this, in bits per dimension (tables and continuous data:
    nats). The cheapest way to one number, written to mean_bound.json. It chooses examples and draws, and makes no
    report."""
    of: str | None = None
    """With --error: the estimate of log p(x) to average: L_1000 (K by --samples), ODE, AIS. Default: ELBO."""
    referee: bool = False
    """Compare all estimates of log p(x), and their cost, on the same few examples; written to referee.json."""
    comparison: RefereeSettings = RefereeSettings()

    def execute(self) -> None:
        """Evaluate, print the table, write evaluation.json and report.html; with --error only mean_bound.json."""
        from jensen import processes
        from jensen.commands.mean_bound import mean_bound, show
        from jensen.report.further import further_records
        from jensen.run import opened

        with processes.together():
            run = opened(self.run)
            folder = self._folder(run)
            self._refuse_idle()
            if self.error is None:
                further_records(run.folder, run.weights)  # first, so that a damaged record fails at once
        if self.error is not None:
            reached = mean_bound(
                run,
                self.data,
                error=self.error,
                of=self.of or "ELBO",
                samples=self.settings.samples,
                split=self.part,
                seed=self.settings.seed,
            )
            processes.on_main(lambda: show(reached, folder))
        else:
            self._evaluate(run, folder)

    def _evaluate(self, run: "Run", folder: Path) -> None:
        from jensen import processes
        from jensen.commands.referee import referee

        def judged() -> "Verdict | None":
            if not self.referee:
                return None
            samples, seed = self.settings.samples, self.settings.seed
            return referee(run, self.data, split=self.part, settings=self.comparison, samples=samples, seed=seed)

        verdict = processes.on_main(judged)
        found = evaluate(run, self.data, split=self.part, settings=self.settings)
        processes.on_main(lambda: _show(replace(found, verdict=verdict), folder))

    def _refuse_idle(self) -> None:
        """Raise `InputError` for options that have no effect without --referee, or with --error."""
        changed = self.comparison.model_dump(exclude_defaults=True)
        if changed and not self.referee:
            raise InputError(f"{_options(changed)} without --referee has no effect; add --referee")
        if self.of is not None and self.error is None:
            raise InputError(f"--of {self.of} without --error has no effect; add --error, the wanted standard error")
        taken = {"seed", "samples"} if self.of else {"seed"}
        idle = list(self.settings.model_dump(exclude_defaults=True, exclude=taken))
        idle += ["referee"] if self.referee else []
        if idle and self.error is not None:
            raise InputError(
                f"{_options(idle)} beside --error: --error {self.error:g} chooses examples and draws itself, and only "
                "averages one estimate; leave one of them out"
            )

    def _folder(self, run: "Run") -> Path:
        """The folder for the evaluation; raises `InputError` if it is not empty and has no evaluation of the data."""
        from jensen.records import refuse_filled_folder

        folder = self.out or evaluation_folder(run, self.data, self.part)
        if self.out is not None:
            refuse_filled_folder(folder)
            return folder
        own, source = folder == run.folder, run.source(self.data, self.part)
        if not own and folder.exists() and _source_in(folder) != source:
            raise InputError(f"{folder} holds an evaluation of other data; give a new folder by --out")
        return folder


def _options(changed: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in changed)


def _source_in(folder: Path) -> str:
    """The data of the evaluation, or of the mean bound, in `folder`."""
    from jensen.evaluation.mean_bound import FILE, MeanBound
    from jensen.evaluation.saved import MEANS, load_evaluation
    from jensen.records import read_record

    if (folder / FILE).exists() and not (folder / MEANS).exists():
        found = read_record(folder / FILE, MeanBound, "remove it, and evaluate again")
        assert found is not None
        return found.source
    return load_evaluation(folder).source


def _show(found: "Evaluated", folder: Path) -> None:
    from rich.console import Console

    from jensen.report.columns import columns_table

    page = found.save(folder)
    Console().print(found.table())
    if (columns := columns_table(found.evaluation)) is not None:
        Console().print(columns)
    if found.verdict:
        from jensen.report.referee import verdict_table

        Console().print(verdict_table(found.verdict))
    print(f"{folder / 'evaluation.json'} and {page} written")


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The evaluation of a run on `examples`; `verdict` is the referee's, or None without --referee."""

    run: "Run"
    examples: "Examples"
    evaluation: "Evaluation"
    folder: Path
    """The default folder of `save`."""
    verdict: "Verdict | None" = None
    data: Any = None
    """The source of the examples; None for the run's own."""

    def table(self) -> Any:
        """Bounds, terms and gaps with their standard errors, as a rich table."""
        from jensen.report.bound import table

        return table(self.evaluation)

    def save(self, folder: str | Path | None = None) -> Path:
        """Write evaluation.json, scores.npz, report.html and its pictures into a folder, and return the page's path.

        The default folder is the run's folder if the evaluation is of the run's own test examples. Otherwise the
        default is a new folder in RUN/evaluations.
        """
        from jensen.evaluation.referee import save_verdict
        from jensen.evaluation.saved import save_evaluation
        from jensen.report.further import Further, further_records
        from jensen.report.pages import write_report

        folder = Path(folder) if folder else self.folder
        folder.mkdir(parents=True, exist_ok=True)
        if self.verdict:
            save_verdict(folder, self.verdict)
        save_evaluation(folder, self.evaluation)
        further = further_records(self.run.folder, self.run.weights) if folder == self.run.folder else Further()
        return write_report(
            replace(self.results, folder=folder, stale=further.stale),
            replace(further, verdict=self.verdict or further.verdict),
        )

    @cached_property
    def results(self) -> "Results":
        """The contents of the run's report."""
        return self.shown(self.run.folder.name)

    def shown(self, title: str, *, compared: bool = False) -> "Results":
        """The contents of a page about the run: everything for a report, less if several runs are `compared`."""
        from jensen.evaluation.exhibits import make_exhibits
        from jensen.evaluation.yardsticks import yardsticks
        from jensen.report.results import Results
        from jensen.run.folder import commanded, read_history

        run, evaluation = self.run, self.evaluation
        scores, seed = evaluation.scores, evaluation.settings.seed
        assert scores is not None  # both `evaluate` and `load_evaluation` set them
        changes = read_history(run.folder)
        selection = run.family.words.selection(run.spec.pictured, compared=compared)
        if run.spec.table is not None:
            selection = replace(selection, reconstructions=False)
        exhibits = make_exhibits(run.model, self.examples, run.spec.preparation, scores, selection, seed)
        labels = self.examples.labels
        return Results(
            title=title,
            folder=self.folder,
            run=run.folder,
            words=run.family.words,
            recipe=run.recipe.model_dump(mode="json"),
            spec=run.spec,
            metrics=run.metrics,
            evaluation=evaluation,
            exhibits=exhibits,
            trained_steps=run.trained_steps,
            weights_step=run.step,
            history=[change.sentence for change in changes],
            changes=[change.after for change in commanded(changes)],
            first={name: v for change in reversed(commanded(changes)) for name, v in change.before.items()},
            finished=run.finished,
            labels=None if labels is None else labels[scores.index],
            names=self.examples.names.__getitem__,
            unlikely=_unlikely(self, exhibits, seed),
            recognition=_recognition(run, seed),
            yardsticks=yardsticks(_training(run), self.examples, run.spec.preparation, scores, seed),
        )


def evaluate(
    run: "Run", data: Any = None, *, split: Split = "test", settings: EvaluationSettings | None = None
) -> Evaluated:
    """Bounds on log p(x) of the examples of `data` in nats, with standard errors.

    If `data` is None, the examples are the split `split` of the run's own data. Processes started by torchrun divide
    the examples among themselves.
    """
    from jensen import processes
    from jensen.evaluation.evaluation import evaluate as measure

    with processes.together():
        examples = run.examples(data, split)
    source = run.source(data, split)
    found = measure(run.model, examples, run.spec.preparation, settings or EvaluationSettings(), source, run.step)
    if run.spec.table is not None:
        columns = processes.on_main(lambda: _columns(run, examples, found))
        found = found.model_copy(update={"columns": columns or ()})
    return Evaluated(run, examples, found, evaluation_folder(run, data, split), data=data)


def _columns(run: "Run", examples: "Examples", found: "Evaluation") -> "tuple[ColumnBound, ...]":
    """The terms of the bound by column."""
    from jensen.evaluation.columns import column_bounds

    assert found.scores is not None
    draws = found.settings.draws or run.model.usual_draws
    index, seed = found.scores.index, found.settings.seed
    return column_bounds(run.model, examples, _training(run), run.spec, index, draws=draws, seed=seed)


def evaluation_folder(run: "Run", data: Any, split: Split) -> Path:
    """The default folder of an evaluation; the run's own folder is only for the run's own test examples."""
    if data is None:
        return run.folder if split == "test" else run.folder / "evaluations" / split
    from jensen.data.readers.memory import source_name

    return run.folder / "evaluations" / (Path(source_name(data)).stem or "data")


def _unlikely(found: Evaluated, exhibits: "Exhibits", seed: int) -> "list[UnlikelyRow]":
    """The rows of a table with the lowest bounds; empty for other data, and for a model without p(column | others)."""
    import torch

    from jensen.bound import Estimate
    from jensen.commands.rows import keys, shown_cells
    from jensen.inference.columns import checked
    from jensen.inference.row_scores import affordable_rows, score_rows
    from jensen.report.results import UnlikelyRow

    run, scores, table = found.run, found.evaluation.scores, found.run.spec.table
    if table is None or scores is None or exhibits.lowest is None or not affordable_rows(len(table.columns)):
        return []
    try:
        checked(run.model)
    except InputError:
        return []
    places = exhibits.lowest.rows
    rows = scores.index[places]
    of_cells = score_rows(run.model, found.examples, run.spec, rows, seed=seed)
    names = keys(run, found.data, found.examples[rows].names)
    texts = shown_cells(torch.as_tensor(found.examples.x[rows]).double().numpy(), table)
    order = [column.name for column in table.columns]
    made = []
    for place, row in enumerate(places.tolist()):
        bound = Estimate(scores.bound[row].item(), scores.standard_error[row].item(), 1)
        cells = of_cells.unusual(place)
        made.append(UnlikelyRow(names[place], bound, cells, [texts[place][order.index(cell.column)] for cell in cells]))
    return made


def _training(run: "Run") -> "Examples | None":
    """The run's training examples; None if the data are gone or have changed."""
    try:
        return run.dataset.train
    except InputError:
        return None


def _recognition(run: "Run", seed: int) -> "Estimate | None":
    """The share of samples in which the run's classifier recognises the requested label; None without a classifier."""
    import torch

    from jensen.features.classifier import recognition
    from jensen.features.store import FOLDER, load_classifier

    if run.model.classes is None or not (run.folder / FOLDER).is_dir():
        return None
    classifier, _ = load_classifier(run.folder, run.spec)
    known = torch.tensor(run.model.known_labels)
    labels = known[torch.arange(RECOGNISED) % len(known)]
    samples = run.model.sample(RECOGNISED, seed=seed, labels=labels)
    return recognition(classifier, run.spec.preparation.to_raw(samples), labels)
