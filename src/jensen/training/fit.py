"""Work through the training loop's records: metrics, validation, convergence, checkpoints, sample grids, progress."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from jensen.bound import Estimate
from jensen.data import Dataset, Examples, Preparation
from jensen.data.grid import save_grid
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel
from jensen.progress import Progress
from jensen.randomness import Noise, Stream, derived_seed, generator
from jensen.training.checkpoint import checkpoints, save_checkpoint
from jensen.training.log import MetricsLog
from jensen.training.loop import Step, TrainingState, steps
from jensen.training.settings import TrainingSettings

VALIDATION_BATCH = 500
GRID = 64  # samples in a periodic grid


def fit(
    folder: Path,
    state: TrainingState,
    dataset: Dataset,
    settings: TrainingSettings,
    seed: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrainingState:
    """Train until the last step, convergence (early stopping) or interruption; leaves a checkpoint of where it stopped.

    Raises `InputError` that names the step, the term and the last good checkpoint where a loss is not finite.
    """
    checkpoint_folder = folder / "checkpoints"
    with (
        MetricsLog(folder, state.step) as log,
        Progress("training", settings.steps, start=state.step) as progress,
    ):
        watch = _Watch(state, log, settings, checkpoint_folder)
        validating = settings.validate_every if len(dataset.validation) else 0
        for record in steps(state, dataset.train, dataset.spec.preparation, settings, seed):
            text = watch.take(record)
            progress.update(record.number, text)
            if _due(record.number, settings.sample_every, settings.steps):
                _sample_grid(folder, state, dataset, seed)
            if validating and _due(record.number, validating, settings.steps):
                watch.validate(dataset.validation, dataset.spec.preparation, seed)
            if interrupted() or state.converged:
                break
            if record.number % settings.checkpoint_every == 0:
                watch.checkpoint()
        watch.checkpoint()
    return state


class _Watch:
    """Keeps the books of one training session: what was measured, whether it is finite, what is saved."""

    def __init__(self, state: TrainingState, log: MetricsLog, settings: TrainingSettings, folder: Path) -> None:
        self._state, self._log, self._settings, self._folder = state, log, settings, folder
        self._unread: list[Step] = []
        self._text = ""
        self._began, self._began_at = time.monotonic(), state.step
        self._saved_at = state.step  # a resumed run starts from a checkpoint; a fresh one need not save its start

    def take(self, record: Step) -> str:
        """Note a step; at every `log_every`-th write the window's means. Gives the text for the progress bar."""
        self._unread.append(record)
        if record.number % self._settings.log_every == 0 or record.number == self._settings.steps:
            self._read()
            window = self._state.window
            means = {name: sum(row[name] for row in window) / len(window) for name in window[0]}
            self._log.write(record.number, means | {"examples_per_second": self._speed(record.number)})
            self._text = f"loss {means['loss']:.4g}"
            window.clear()
        return self._text

    def _read(self) -> None:
        """Bring the unread records to the host, refusing the first that is not finite."""
        for record in self._unread:
            values = {"loss": float(record.loss)} | {name: float(value) for name, value in record.terms.items()}
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if bad:
                self._refuse(record.number, f"{bad[-1]} is {values[bad[-1]]}")
            norm = {} if record.gradient_norm is None else {"gradient_norm": float(record.gradient_norm)}
            self._state.window.append(values | norm | {"learning_rate": record.learning_rate})
        self._unread.clear()

    def _refuse(self, step: int, what: str) -> None:
        saved = checkpoints(self._folder)
        kept = f"the last good checkpoint, {saved[-1]}, is kept" if saved else "no checkpoint had been written yet"
        advice = "try a smaller training.learning_rate or set training.clip_norm"
        raise InputError(f"training stopped at step {step}: {what}, expected a finite number; {kept}; {advice}")

    def _speed(self, step: int) -> float:
        return (step - self._began_at) * self._settings.batch_size / max(time.monotonic() - self._began, 1e-9)

    def validate(self, examples: Examples, preparation: Preparation, seed: int) -> None:
        """The validation bound; a better one than ever is a checkpoint, too long without one is convergence."""
        state, settings = self._state, self._settings
        self._read()
        with averaged(state):
            bound = validation_bound(state.model, examples[: settings.validation_examples], preparation, seed)
        self._log.write(state.step, {"validation_bound": bound.mean, "validation_standard_error": bound.standard_error})
        if bound.mean > state.best_bound:
            state.best_bound, state.best_step, state.stale_validations = bound.mean, state.step, 0
            self.checkpoint()
        else:
            state.stale_validations += 1
            state.converged = settings.patience is not None and state.stale_validations >= settings.patience

    def checkpoint(self) -> None:
        """Save where that has not been done at this step; refuse if a weight is not finite."""
        if self._saved_at == self._state.step:
            return
        self._read()
        for name, tensor in self._state.model.state_dict().items():
            if not torch.isfinite(tensor).all():
                self._refuse(self._state.step, f"weight {name} is not finite")
        self._log.flush()
        save_checkpoint(self._folder, self._state, self._settings.keep_last)
        self._saved_at = self._state.step


def _due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


def averaged(state: TrainingState) -> AbstractContextManager[None]:
    """Within, the model computes with its moving average, where there is one."""
    return state.ema.applied() if state.ema else nullcontext()


def validation_bound(
    model: AbstractLatentVariableModel, examples: Examples, preparation: Preparation, seed: int
) -> Estimate:
    """The mean ELBO over `examples`, with the same noise at every call, so that two calls differ by the model alone."""
    noise_seed = derived_seed(seed, Stream.VALIDATION)
    noise = Noise(generator(noise_seed))
    values = []
    for index in torch.arange(len(examples)).split(VALIDATION_BATCH):
        x = preparation(examples.x[index], noise).to(model.device)
        values.append(model.elbo(x, seed=noise_seed, index=index).value)
    return Estimate.of(torch.cat(values))


def _sample_grid(folder: Path, state: TrainingState, dataset: Dataset, seed: int) -> None:
    if dataset.spec.layout != "image":
        return
    with averaged(state):
        x = state.model.sample_mean(GRID, seed=seed).cpu()
    if not x.isfinite().all():  # no picture; what went astray is said where losses and weights are checked
        return
    save_grid(dataset.spec.preparation.to_picture(x), folder / "samples" / f"step-{state.step:08d}.png")
