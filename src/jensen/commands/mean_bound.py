"""`jensen evaluate --error` and `jensen compare --error`: the mean bound, or a difference, to a wanted error."""

from typing import TYPE_CHECKING, Any

from jensen.data.options import Split
from jensen.errors import InputError
from jensen.evaluation.settings import RefereeSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jensen.data.examples import Examples
    from jensen.evaluation.mean_bound import MeanBound, Subject
    from jensen.run import Run


def mean_bound(
    run: "Run",
    data: Any = None,
    *,
    error: float,
    of: str = "ELBO",
    samples: int = 1000,
    minus: "Run | None" = None,
    split: Split = "test",
    seed: int = 0,
    control: bool = True,
) -> "MeanBound":
    """The mean ELBO of the examples of `data`, to a standard error of `error`, for few evaluations of the network.

    `error` is in bits per dimension, for tables and continuous data in nats. If `data` is None, the examples are the
    split `split` of the run's own data. `of` names another estimate of log p(x) to average: "L_1000" (K is `samples`),
    "ODE", "AIS", "optimised ELBO". With `minus`, the mean is that of the difference of the two runs' ELBOs, with
    common random numbers. With `control`, cheap numbers that are known for every example reduce the cost. Processes
    started by torchrun divide the draws among themselves.
    """
    from jensen import processes
    from jensen.evaluation.mean_bound import mean_bound as measure
    from jensen.model import Effort

    if not error > 0:
        raise InputError(f"error {error}: expected a positive standard error, such as 0.01 bits per dimension")
    with processes.together():
        examples, train = run.examples(data, split), _training(run) if control else None
        if minus is not None:
            _refuse_other_data(run, minus, data, split)
    subjects, name = [_subject(run)], of
    if minus is not None:
        subjects, name = [*subjects, _subject(minus)], f"{of} of {run.folder.name} - {of} of {minus.folder.name}"
    source = run.source(data, split)
    annealing = RefereeSettings()
    effort = Effort(samples=samples, temperatures=annealing.temperatures, chains=annealing.chains)
    return measure(
        subjects, examples, train, error, seed=seed, source=source, of=of, effort=effort, name=name, control=control
    )


def show(found: "MeanBound", folder: "Path") -> None:
    """Print the mean as a table and write mean_bound.json into `folder`."""
    from rich.console import Console

    from jensen.evaluation.mean_bound import FILE, sentences
    from jensen.records import write_record
    from jensen.report.tables import measures_table

    folder.mkdir(parents=True, exist_ok=True)
    path = write_record(folder / FILE, found)
    title = f"{found.source}: {found.examples:,} examples, to ± {found.wanted:g} {found.unit}"
    groups, bits = {"The mean bound": {found.name: found}}, found.unit != "nats per row"
    Console().print(measures_table(title, groups, sentences(found), bits=bits))
    print(f"{path} written")


def show_differences(runs: "Sequence[Run]", error: float, seed: int, folder: "Path") -> None:
    """Print the differences to the first run's ELBO as a table and write differences.json into `folder`."""
    from rich.console import Console

    from jensen.evaluation.mean_bound import Differences, sentences
    from jensen.records import write_record
    from jensen.report.tables import measures_table

    first, *others = runs
    found = [mean_bound(other, error=error, minus=first, seed=seed) for other in others]
    folder.mkdir(parents=True, exist_ok=True)
    path = write_record(folder / "differences.json", Differences(differences=tuple(found)))
    title = f"{found[0].source}: {found[0].examples:,} examples, each difference to ± {error:g} {found[0].unit}"
    rows = {"The mean difference": {one.name: one for one in found}}
    remarks = [sentence for one in found for sentence in (f"{one.name}:", *sentences(one))]
    Console().print(measures_table(title, rows, remarks, bits=found[0].unit != "nats per row"))
    print(f"{path} written")


def _subject(run: "Run") -> "Subject":
    from jensen.evaluation.mean_bound import Subject

    return Subject(run.model, run.spec.preparation, run.step)


def _training(run: "Run") -> "Examples | None":
    """The run's training examples; None if the data are gone or have changed."""
    try:
        return run.dataset.train
    except InputError:
        return None


def _refuse_other_data(run: "Run", other: "Run", data: Any, split: Split) -> None:
    """Raise `InputError` unless the runs have the same raw examples, binarised alike if at all."""
    from jensen.data.preparation import Dequantise, Levels, Standardise
    from jensen.evaluation.scores import examples_digest

    both = f"{run.folder} and {other.folder}"
    if len({examples_digest(one.examples(data, split)) for one in (run, other)}) > 1:
        raise InputError(f"{both} have different {split} examples; compare runs of the same data, split alike")
    kinds = [one.spec.preparation for one in (run, other)]
    if kinds[0] != kinds[1] and not all(isinstance(kind, Levels | Dequantise | Standardise) for kind in kinds):
        raise InputError(f"{both} binarise their data in different ways; compare runs with the same preparation")
