"""A run as a value: the model with its best weights, its recipe and its data."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from jensen.data.examples import Dataset, Examples
from jensen.data.load import load_again, load_split, read_examples
from jensen.data.options import Split
from jensen.data.readers.memory import Source, source_name
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel
from jensen.provenance import Provenance, provenance, weights_digest
from jensen.recipe.build import build_model
from jensen.recipe.families import family_of
from jensen.recipe.family import AbstractFamily
from jensen.recipe.settings import AbstractRecipe
from jensen.run.folder import CHECKPOINTS, DATA, read_history, read_spec, recipe_of, recorded_digest, write_json
from jensen.training.checkpoint import best_checkpoint, checkpoints, first_good, is_finished, load_weights, step_of
from jensen.training.log import read_lines
from jensen.training.precision import exact_float32


@dataclass(frozen=True)
class Run:
    """A trained model with its recipe and the description of its data."""

    folder: Path
    recipe: AbstractRecipe
    spec: DataSpec
    model: AbstractLatentVariableModel
    checkpoint: Path
    data: Source | None = None
    """The run's own data if they are in memory; None if they are read from `spec.source`."""

    @property
    def family(self) -> AbstractFamily[Any, Any]:
        """The run's family of models."""
        return family_of(self.recipe)

    @property
    def step(self) -> int:
        """The training step of the weights."""
        return step_of(self.checkpoint)

    @cached_property
    def weights(self) -> str:
        """SHA-256 of the weights, see `jensen.provenance.weights_digest`; every record of the run contains it."""
        return weights_digest(self.model)

    def provenance(self, began: float) -> Provenance:
        """The provenance of a result just computed; `began` is `time.perf_counter()` at the beginning."""
        return provenance(self.model, self.step, began)

    @property
    def trained_steps(self) -> int:
        """The number of training steps done and saved."""
        return step_of(checkpoints(self.folder / CHECKPOINTS)[-1])

    @property
    def finished(self) -> bool:
        """Whether training reached the last step or stopped early by convergence."""
        return is_finished(self.folder / CHECKPOINTS, self.recipe.training.steps)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_lines(self.folder / "metrics.jsonl")

    @cached_property
    def dataset(self) -> Dataset:
        """The data of the run, read again. Raises `InputError` if the data have changed."""
        return load_again(self.spec, source=self.data)

    def examples(
        self,
        data: Source | None = None,
        split: Split = "test",
        *,
        only_known_y: bool = False,
        missing: bool = False,
        gaps: bool = False,
    ) -> Examples:
        """All examples of `data`, read as the run read the training data.

        `data` is a path, `digits`, an array or tensor, or a dict of arrays or tensors; None means the split `split` of
        the run's own data. `only_known_y`, `missing` and `gaps` apply to `data` only, see
        `jensen.data.load.read_examples`.
        """
        if data is None:
            return load_split(self.spec, split, self.data)
        return read_examples(data, self.spec, only_known_y=only_known_y, missing=missing, gaps=gaps)

    def with_data(self, source: Source) -> "Run":
        """The run with its own data read again from `source`.

        If `source` is a path, the run's folder records it as the new place of the data. Arrays stay in memory. Raises
        `InputError` if the fingerprint shows that the data are different.
        """
        spec = load_again(self.spec, source=source).spec
        if isinstance(source, str | Path):
            write_json(self.folder / DATA, spec)
            return replace(self, spec=spec, data=None)
        return replace(self, data=source)

    @property
    def unseen_labels(self) -> tuple[int, ...]:
        """The labels that no training example has, so that the model has learned nothing about these labels."""
        return tuple(label for label, count in enumerate(self.spec.label_counts or ()) if not count)

    def source(self, data: Any = None, split: Split = "test") -> str:
        """The description of the examples that `examples` returns for the same arguments."""
        return f"{self.spec.source}, {split} split" if data is None else source_name(data)


def load(folder: str | Path, data: Source | None = None) -> Run:
    """Open a run: the model with its best weights, on the CPU.

    Nothing in the folder is executed or unpickled. If the best checkpoint is damaged, the last good one is used, with a
    warning. `data` gives the run's own data if they were in memory or have moved, see `Run.with_data`.
    """
    folder = Path(folder)
    recipe, spec = recipe_of(folder), read_spec(folder)
    best = best_checkpoint(folder / CHECKPOINTS)
    if best is None:
        raise InputError(f"{folder} holds no checkpoint yet; train it further with: jensen resume {folder}")
    model = build_model(recipe, spec)
    others = [path for path in reversed(checkpoints(folder / CHECKPOINTS)) if path != best]
    recipes = (recorded_digest(folder), *(change.recipe for change in read_history(folder)))
    best, _ = first_good([best, *others], lambda path: load_weights(path, model, recipes))
    run = Run(folder, recipe, spec, model.eval(), best)
    return run if data is None else run.with_data(data)


def opened(folder: str | Path) -> Run:
    """`load` on the GPU if there is one, else on the CPU with as many threads as in training."""
    run = load(folder)
    torch.set_num_threads(run.recipe.training.threads)
    if torch.cuda.is_available() and run.recipe.training.device != "cpu":
        exact_float32()
        run.model.to("cuda")
    return run
