"""`jensen info`: the summary of a run."""

from typing import TYPE_CHECKING, Any

from jensen.commands.common import Command, RunFolder
from jensen.errors import InputError

if TYPE_CHECKING:
    from jensen.run import Run


class Info(Command):
    """Summarise a run: data, model, training, progress."""

    run: RunFolder
    """The folder of the run."""
    data: str | None = None
    """The new path of the run's own data, if they have moved. The data are checked, and the path is recorded."""

    def execute(self) -> None:
        """Print the summary."""
        from jensen.run import opened

        run = opened(self.run)
        run = run if self.data is None else run.with_data(self.data)
        for name, value in info(run).items():
            print(f"{name:<13} {value}")


def info(run: "Run") -> dict[str, str]:
    """The summary of a run in words: data, model, training, progress."""
    from jensen.data.check import describe_targets
    from jensen.evaluation.saved import MEANS
    from jensen.report.further import further_records
    from jensen.run.folder import read_history

    spec, recipe = run.spec, run.recipe
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    counts = ", ".join(f"{count} {name}" for name, count in spec.counts.items())
    lines = {
        "run": str(run.folder),
        "data": f"{spec.source} ({spec.kind}); {counts}; shape {spec.shape}, {spec.dtype}",
        "preparation": spec.preparation.kind,
        **({"targets": describe_targets(spec.targets)} if spec.targets else {}),
        "model": f"{recipe.family}, {parameters:,} parameters; {_changed(recipe.model)}",
        **({"started": recipe.beginning} if recipe.beginning else {}),
        "training": f"{_changed(recipe.training)}; seed {recipe.seed}" if run.trained_steps else "none",
        "best weights": f"step {run.step} of {recipe.training.steps}, SHA-256 {run.weights}",
    }
    for number, change in enumerate(read_history(run.folder)):
        lines[f"change {number + 1}"] = change.sentence
    if (run.folder / MEANS).exists():
        lines["evaluated"] = _evaluated(run)
    try:
        stale = further_records(run.folder, run.weights).stale
    except InputError as error:
        stale = (str(error),)
    return lines | {f"stale {number}": sentence for number, sentence in enumerate(stale, 1)}


def _evaluated(run: "Run") -> str:
    """When the run was evaluated, or why that evaluation does not count."""
    from jensen.evaluation.saved import MEANS, load_evaluation
    from jensen.report.pages import REPORT

    try:
        made = load_evaluation(run.folder).provenance
    except InputError as error:
        return str(error)
    if made.weights != run.weights:
        return f"with other weights, of step {made.step}; evaluate these with: jensen evaluate {run.folder}"
    return f"{made.date}, see {run.folder / MEANS} and {run.folder / REPORT}"


def _changed(settings: Any) -> str:
    """The settings that differ from their defaults."""
    hidden = {name for name, field in type(settings).model_fields.items() if not field.repr}  # too long for a line
    changed = settings.model_dump(exclude_defaults=True, exclude=hidden)
    flat = {name: value for name, value in changed.items() if not isinstance(value, dict)}
    for name, table in ((name, value) for name, value in changed.items() if isinstance(value, dict)):
        flat |= {f"{name}.{inner}": value for inner, value in table.items()}
    return ", ".join(f"{name} {value}" for name, value in flat.items()) or "all defaults"
