"""Training as a job of Slurm, by submitit: `jensen train ... --slurm partition=gpu timeout_min=240`. Imports no torch.

The job trains by the recipe in its folder. If Slurm ends the job at its time limit or preempts it, submitit puts the
same job into the queue again, and it resumes the run from its last checkpoint.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jensen.errors import InputError
from jensen.records import write_file

if TYPE_CHECKING:
    import submitit

    from jensen.recipe.settings import AbstractRecipe

CLUSTERS = ("slurm", "local", "debug")
SHARED = ("timeout_min", "mem_gb", "gpus_per_node", "cpus_per_task", "nodes", "tasks_per_node", "name")


@dataclass(frozen=True)
class Job:
    """Trains a run, or resumes it if it has begun; each task of the job is one of the processes that train together."""

    family: str
    recipe: str
    out: str

    def __call__(self) -> str:
        """Train or resume, and return the SHA-256 of the run's weights."""
        import submitit

        from jensen.recipe.families import RECIPES
        from jensen.run import resume, train

        if submitit.JobEnvironment().num_tasks > 1:
            submitit.helpers.TorchDistributedEnvironment().export(overwrite=True)
        if (Path(self.out) / "recipe.json").exists():
            return resume(self.out).weights
        return train(RECIPES[self.family].from_file(Path(self.recipe)), self.out).weights

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """The same job again, after a time limit or a preemption."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def submit(recipe: "AbstractRecipe", out: Path, options: Sequence[str]) -> "submitit.Job[str]":
    """Submit the training of `recipe` into `out`; `options` are settings of submitit, as in partition=gpu.

    The files of the job go into the folder OUT-job: the recipe, submitit's own files, and the output. `cluster=local`
    trains on this machine in the background, `cluster=debug` in this process. Raises `InputError` without submitit,
    for an unknown setting, without Slurm, for a job that Slurm refuses, and for a folder that exists.
    """
    try:
        import submitit
    except ImportError as error:
        raise InputError("--slurm needs the package submitit; pip install 'jensen[slurm]'") from error
    settings = _parsed(options)
    cluster = str(settings.pop("cluster", "slurm"))
    if cluster not in CLUSTERS:
        raise InputError(f"--slurm cluster={cluster}: expected one of {', '.join(CLUSTERS)}; choose one")
    if cluster == "slurm" and shutil.which("srun") is None:
        raise InputError(
            "--slurm: this machine has no srun, so it belongs to no cluster; log in to one, or leave it out"
        )
    folder = out.absolute().with_name(f"{out.name}-job")
    for path in (out, folder):
        if path.exists():
            raise InputError(f"{path} exists and would be lost; give another --out, or remove it first")
    executor = submitit.AutoExecutor(folder, cluster=cluster)
    named = {name if name in SHARED else f"slurm_{name}": value for name, value in settings.items()}
    try:
        executor.update_parameters(**{"name": f"jensen-{out.name}", **named})
    except (NameError, ValueError, TypeError, AssertionError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"--slurm {' '.join(options)}: {' '.join(str(error).split())[:300]}") from error
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "recipe.json"
    write_file(config, json.dumps(recipe.model_dump(mode="json"), indent=1).encode())
    try:
        return executor.submit(Job(recipe.family, str(config), str(out.absolute())))
    except (submitit.core.utils.FailedJobError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)  # or the next try would be refused
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"--slurm {' '.join(options)}: Slurm refused the job ({reason}); correct it") from error


def _parsed(options: Sequence[str]) -> dict[str, Any]:
    """The settings by name, whole numbers as numbers."""
    found: dict[str, Any] = {}
    for word in options:
        name, sign, value = word.partition("=")
        if not sign or not name or not value:
            raise InputError(f"--slurm {word}: expected NAME=VALUE, as in partition=gpu or timeout_min=240")
        found[name.replace("-", "_")] = int(value) if value.isdecimal() else value
    return found
