"""`jensen evaluate --referee`: every estimate of log p(x) on the same examples."""

from jensen.cli import options
from jensen.data import Examples
from jensen.errors import InputError
from jensen.evaluate.referee import Verdict, referee, save_verdict
from jensen.evaluate.settings import RefereeSettings
from jensen.run import Run


def judged(run: Run, examples: Examples, source: str, command: options.Evaluate) -> Verdict | None:
    """The verdict, saved in the run's folder; None where it was not asked for."""
    if not command.referee:
        if command.comparison != RefereeSettings():
            given = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(command.comparison.model_fields_set))
            raise InputError(f"{given} without --referee: they say how estimates are compared; add --referee")
        return None
    verdict = referee(
        run.model,
        examples,
        run.spec.preparation,
        command.comparison,
        samples=command.settings.samples,
        seed=command.settings.seed,
        source=source,
    )
    save_verdict(run.folder, verdict)
    return verdict


def show(verdict: Verdict) -> None:
    """Print the table."""
    from rich.console import Console

    from jensen.evaluate.referee_table import verdict_table

    Console().print(verdict_table(verdict))
