"""`jensen evaluate --referee`: every estimate of log p(x) on the same examples."""

from collections.abc import Iterable

from jensen.cli import options
from jensen.data.examples import Examples
from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.evaluation.referee import Verdict, referee, save_verdict
from jensen.evaluation.settings import RefereeSettings
from jensen.run import Run


def judged(run: Run, examples: Examples, source: str, command: options.Evaluate) -> Verdict | None:
    """The verdict, saved in the run's folder; None where it was not asked for."""
    if not command.referee:
        if command.comparison != RefereeSettings():
            given = _flags(command.comparison.model_dump(exclude_defaults=True))
            raise InputError(f"{given} without --referee: says how estimates are compared; add --referee")
        return None
    annealing = command.comparison.model_dump(exclude_defaults=True, exclude={"referee_examples"})
    if annealing and isinstance(run.model, DiffusionModel):
        raise InputError(f"{_flags(annealing)}: for VAEs, and {run.folder} is a diffusion model; leave it out")
    verdict = referee(
        run.model,
        examples,
        run.spec.preparation,
        command.comparison,
        samples=command.settings.samples,
        seed=command.settings.seed,
        source=source,
        step=run.step,
    )
    save_verdict(run.folder, verdict)
    return verdict


def _flags(given: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in given)


def show(verdict: Verdict) -> None:
    """Print the table."""
    from rich.console import Console

    from jensen.report.referee import verdict_table

    Console().print(verdict_table(verdict))
