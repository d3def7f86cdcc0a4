"""`jensen train FAMILY`: train a model on data and write a run folder."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro
from pydantic import create_model

from jensen.commands.common import Command
from jensen.recipe.families import RECIPES
from jensen.recipe.settings import AbstractRecipe

if TYPE_CHECKING:
    from jensen.run import Run


OUTSIDE = 1.5  # seconds of a command before and after `execute`: the interpreter starts, parses and ends


class Train(Command):
    """Train a model: data in, a run folder out."""

    several_processes: ClassVar[bool] = True

    out: Path | None = None
    """The new folder of the run. Default: runs/NAME, where NAME is that of the config file, or of the family."""
    config: Path | None = None
    """A TOML file, or the recipe.json of a run, that sets any of the options below. Flags override the file."""
    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """A run to start from: its best weights, its settings of the model, and its data if no other DATA are given."""
    slurm: tuple[str, ...] | None = None
    """Train as a job of Slurm, by submitit; settings of the job, as in --slurm partition=gpu timeout_min=240.
    cluster=local: in the background of this machine."""
    recipe: AbstractRecipe

    @classmethod
    def by_family(cls) -> dict[str, type[Command]]:
        """The train command of each family; its flags are the fields of the family's recipe."""
        return {f"train {name}": _command_of(name, recipe) for name, recipe in RECIPES.items()}

    def execute(self) -> None:
        """Train by the recipe, then print the result and the next command."""
        if self.slurm is not None:
            self._submit(self.slurm)
            return
        began = time.monotonic() - OUTSIDE  # before torch is imported: the minutes are those of the whole command
        from jensen.run import train

        print("\n".join(reached(train(self.recipe, self._folder, began=began))))

    @property
    def _folder(self) -> Path:
        return self.out or Path("runs") / (self.config.stem if self.config else self.recipe.family)

    def _submit(self, options: tuple[str, ...]) -> None:
        from jensen.commands.slurm import submit

        job = submit(self.recipe, self._folder, options)
        print(f"job {job.job_id} trains {self._folder}; its output: {job.paths.stdout} and {job.paths.stderr}")


def _command_of(name: str, recipe: type[AbstractRecipe]) -> type[Command]:
    about = (recipe.__doc__ or "").strip().partition(",")[0]
    return create_model(
        f"Train{recipe.__name__.removesuffix('Recipe')}",
        __base__=Train,
        __doc__=f"Train {about[0].lower()}{about[1:]}: data in, a run folder out.",
        recipe=(recipe, recipe.model_validate({})),
    )


def reached(run: "Run") -> list[str]:
    """The result of a training and the next command, one line each."""
    bounds = [line for line in run.metrics if "validation_bound" in line and line["step"] == run.step]
    bound = ""
    if bounds:
        value, error = bounds[-1]["validation_bound"], bounds[-1]["validation_standard_error"]
        doubt = bounds[-1].get("validation_doubt")
        bound = f", validation bound {value:.3f} ± {error:.3f} nats per example{f' ({doubt})' if doubt else ''}"
    lines = [f"{run.folder}: the best weights are from step {run.step}{bound}"]
    planned = run.recipe.training.steps
    if run.finished and run.trained_steps < planned:
        lines.append(
            f"Stopped at step {run.trained_steps:,} of {planned:,}: the validation bound has not risen in "
            f"{run.recipe.training.patience} validations"
        )
    validated = [line["step"] for line in run.metrics if "validation_bound" in line]
    if len(validated) > 1 and run.step == validated[-1]:
        more = f"jensen resume {run.folder} --steps {2 * run.trained_steps}"
        lines.append(f"The validation bound was still rising at the last step: train longer with: {more}")
    return [*lines, f"Next: jensen evaluate {run.folder}"]
