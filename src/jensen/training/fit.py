"""Train and act on the loop's records: metrics, validation, convergence, checkpoints, sample grids, progress."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from jensen import processes
from jensen.bound import Estimate
from jensen.data.examples import Dataset, Examples
from jensen.data.grid import save_grids
from jensen.data.pictures import pictures_of
from jensen.data.preparation import Preparation
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel
from jensen.progress import Progress, track
from jensen.randomness import Noise, Stream, derived_seed, generator
from jensen.training.budget import Budget, Pilot, Stopwatch
from jensen.training.checkpoint import checkpoints, save_checkpoint, tidy
from jensen.training.health import (
    HISTORY,
    DivergenceError,
    check_loss,
    check_state,
    check_values,
    roll_back,
)
from jensen.training.log import MetricsLog
from jensen.training.loop import Step, stage_of, steps
from jensen.training.memory import piecewise
from jensen.training.plan import is_look
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState

VALIDATION_BATCH = 500
GRID_AT_ONCE = 16  # number of samples drawn together; each group is one step of the progress bar


def fit(
    folder: Path,
    state: TrainingState,
    dataset: Dataset,
    settings: TrainingSettings,
    seed: int,
    interrupted: Callable[[], bool] = lambda: False,
    budget: Budget | None = None,
) -> TrainingState:
    """Train until the last step, convergence (early stopping) or interruption, and save a checkpoint at the end.

    With a `budget`, the number of steps changes on the way, so that training ends in time. The budget records every
    change.

    Training that diverges goes back to the last good checkpoint, if the settings allow going back. If that is not
    allowed or fails, `fit` raises `InputError`, which names the steps, the bad value and the last good checkpoint.
    """
    with (
        MetricsLog(folder, state.step, settings.trackers) as log,
        Progress("training", settings.steps, start=state.step) as progress,
    ):
        stopwatch = Stopwatch(state.step)
        watch = _Watch(state, log, settings, folder / "checkpoints", stopwatch)
        first = max(state.model.stages, default=0)
        pilot = Pilot(budget, stopwatch, settings.steps, first) if budget else None

        def act(number: int, settings: TrainingSettings, now: float | None) -> bool:
            """What is due after step `number`; whether training is over."""
            if dataset.spec.pictured and is_look(number, settings.sample_every, settings):
                with stopwatch.timed("grid"):
                    _sample_grid(log, folder, state, dataset, settings.grid_samples, seed)
            if len(dataset.validation) and is_look(number, settings.validate_every, settings):
                with stopwatch.timed("validation"):
                    watch.validate(dataset.validation, dataset.spec.preparation, seed)
            over = interrupted() or state.converged or number == settings.steps
            old = now is not None and stopwatch.save_now(now)
            if over or old or number % settings.checkpoint_every == 0:
                watch.checkpoint()
            return over

        over = False
        while not over and state.step < settings.steps:
            training = steps(state, dataset.train, dataset.spec.preparation, settings, seed)
            for record in training:
                now = stopwatch.look(record.number)
                steered = pilot.steered(settings, record.number, now) if pilot and now is not None else None
                if steered:
                    settings = watch.settings = steered
                try:
                    progress.update(record.number, watch.take(record), settings.steps)
                    over = act(record.number, settings, now)
                except DivergenceError as trouble:
                    watch.overcome(trouble)  # changes `state`; `steps` continues from it
                if over or steered:
                    break
            training.close()
    return state


def tidy_finished(folder: Path, state: TrainingState, settings: TrainingSettings) -> None:
    """Remove the checkpoints that a training leaves if it is killed between its last checkpoint and its end."""
    processes.on_main(lambda: tidy(folder, state, settings.keep_last, _judged(state, settings)))


def _judged(state: TrainingState, settings: TrainingSettings) -> int:
    """The last step whose loss is known not to have diverged."""
    return _window_start(state.step, settings) if state.window else state.step


def _window_start(step: int, settings: TrainingSettings) -> int:
    """The number of steps before the window of logged losses that contains step number `step`."""
    return (step - 1) // settings.log_every * settings.log_every


class _Watch:
    """Bookkeeping of one training session: measured values, checks that they are finite, checkpoints."""

    def __init__(
        self, state: TrainingState, log: MetricsLog, settings: TrainingSettings, folder: Path, stopwatch: Stopwatch
    ) -> None:
        self._state, self._log, self.settings, self._folder, self._stopwatch = state, log, settings, folder, stopwatch
        self._unread: list[Step] = []
        self._text = ""
        self._at_once = state.micro_batch_size
        self._began, self._began_at = time.monotonic(), state.step
        # A rollback needs a first checkpoint to go back to. An existing one is not written again: while it is replaced,
        # there would be none
        unsaved = settings.on_divergence == "rollback" and processes.anywhere(not checkpoints(folder))
        self._saved_at = -1 if unsaved else state.step
        self.checkpoint()

    def take(self, record: Step) -> str:
        """Record a step, and return the text for the progress bar; every `log_every` steps, log the window's means.

        Raises `DivergenceError`, like the other methods, if a value that it reads has diverged.
        """
        self._unread.append(record)
        self._say_what_changed(record)
        if record.number % self.settings.log_every == 0 or record.number == self.settings.steps:
            self._read()
            self._close_window(record.number)
        return self._text

    def _say_what_changed(self, record: Step) -> None:
        """Log steps that were left out, and batches that went through the network in smaller parts than before."""
        for left in self._state.left_out:
            if left.last == record.number:
                self._log.write(record.number, {"left_out": left.last - left.first + 1, "reason": left.reason})
        size = self._state.micro_batch_size
        if size != self._at_once:
            self._at_once = size
            self._log.write(record.number, {"micro_batch_size": size})
            warnings.warn(
                f"step {record.number}: memory ran out; batches of {self.settings.batch_size} go through the network "
                f"{size} examples at a time from now on",
                stacklevel=2,
            )

    def _read(self) -> None:
        """Copy the unread records to the host; raise `DivergenceError` at the first value that is not finite."""
        for record in self._unread:
            if record.loss is None or record.gradient_norm is None:
                continue
            values = {"loss": record.loss, **record.terms}
            row = {name: float(value) for name, value in values.items()}
            norms = {"gradient_norm": float(record.gradient_norm)}
            check_values(record.number, norms | row)
            self._state.window.append(row | norms | {"learning_rate": record.learning_rate})
        self._unread.clear()

    def _close_window(self, step: int) -> None:
        """Log the means over the steps since the last line, unless the loss has exploded."""
        state, rows = self._state, self._state.window
        if not rows:  # every step was left out
            return
        columns = {name: [row[name] for row in rows if name in row] for row in rows for name in row}
        means = {name: sum(column) / len(column) for name, column in columns.items()}
        check_loss(_window_start(step, self.settings) + 1, step, means["loss"], state.losses, self.settings.explosion)
        state.losses = [*state.losses, means["loss"]][-HISTORY:]
        self._log.write(step, means | {"examples_per_second": self._speed(step)})
        self._text = f"loss {means['loss']:.4g}"
        rows.clear()

    def overcome(self, trouble: DivergenceError) -> None:
        """Go back to before the divergence and leave out the diverged steps; `InputError` if that cannot be done."""
        state, settings = self._state, self.settings
        done = len(state.left_out)
        if settings.on_divergence == "stop":
            self._refuse(trouble, "or set training.on_divergence to rollback, which leaves such batches out")
        if done == settings.rollbacks:
            self._refuse(trouble, f"it was already rolled back {done} times, the limit of training.rollbacks")
        self._unread.clear()
        if not roll_back(self._folder, state, trouble):
            self._refuse(trouble, "no checkpoint from before these steps is left")
        processes.on_main(lambda: self._log.go_back(state.step))
        self._began, self._began_at, self._saved_at = time.monotonic(), state.step, state.step
        warnings.warn(
            f"{trouble.steps}: {trouble.what}; going back to step {state.step} to leave out {trouble.steps} "
            f"(rollback {done + 1} of at most {settings.rollbacks})",
            stacklevel=2,
        )

    def _refuse(self, trouble: DivergenceError, further: str) -> None:
        saved = processes.on_main(lambda: checkpoints(self._folder))
        kept = f"the last good checkpoint, {saved[-1]}, is kept" if saved else "no checkpoint had been written yet"
        advice = "try a smaller training.learning_rate or set training.clip_norm"
        with processes.together():
            raise InputError(f"training stopped at {trouble.steps}: {trouble.what}; {kept}; {advice}; {further}")

    def _speed(self, step: int) -> float:
        return (step - self._began_at) * self.settings.batch_size / max(time.monotonic() - self._began, 1e-9)

    def validate(self, examples: Examples, preparation: Preparation, seed: int) -> None:
        """Compute the validation bound; save a checkpoint if it is the best, set `converged` if `patience` is over.

        Validations in a warm-up do not count against `patience`.
        """
        state, settings = self._state, self.settings
        self._read()
        with averaged(state):
            bound = validation_bound(state.model, examples[: settings.validation_examples], preparation, seed)
        doubt = {"validation_doubt": bound.doubt} if bound.doubt else {}
        line = {"validation_bound": bound.mean, "validation_standard_error": bound.standard_error, **doubt}
        self._log.write(state.step, line)
        if not math.isfinite(bound.mean):
            warnings.warn(f"the validation bound of step {state.step} is not finite, so no best one", stacklevel=2)
        if bound.mean > state.best_bound:
            state.best_bound, state.best_step, state.stale_validations = bound.mean, state.step, 0
            self.checkpoint()
        elif not in_warmup(state.step, state.model, settings):
            state.stale_validations += 1
            last_stage = state.step > max(state.model.stages, default=0)
            state.converged = last_stage and 0 < (settings.patience or 0) <= state.stale_validations

    def checkpoint(self) -> None:
        """Save a checkpoint unless this step has one; raise `DivergenceError` if a weight or a moment is not finite."""
        if self._saved_at == self._state.step:
            return
        self._read()
        check_state(self._state)
        processes.on_main(self._log.flush)
        with self._stopwatch.timed("checkpoint"):
            save_checkpoint(self._folder, self._state, self.settings.keep_last, _judged(self._state, self.settings))
        self._saved_at = self._state.step


def in_warmup(done: int, model: AbstractLatentVariableModel, settings: TrainingSettings) -> bool:
    """Whether step number `done` is in the warm-up of the loss or in its stage's warm-up of the learning rate.

    During a warm-up, a bound that stops rising does not mean that training has converged.
    """
    begin, _ = stage_of(max(0, done - 1), model.stages, settings.steps)
    return done <= max(model.warmup, begin + settings.warmup_steps)


@contextmanager
def averaged(state: TrainingState) -> Iterator[None]:
    """Inside the block, the model has the averaged weights (if `state` has an average), in full in every process."""
    with state.ema.applied() if state.ema else nullcontext(), processes.unsharded(state.model):
        yield


def validation_bound(
    model: AbstractLatentVariableModel, examples: Examples, preparation: Preparation, seed: int
) -> Estimate:
    """The mean ELBO over `examples`, in nats of the raw data.

    Calls with the same seed use the same noise, so their results differ only because the model differs. Each process
    evaluates its part of every batch, and splits the part into pieces only if memory is too small for the whole part.
    """
    noise_seed = derived_seed(seed, Stream.VALIDATION)
    noise = Noise(generator(noise_seed))
    mine = []
    with processes.together():
        for batch in torch.arange(len(examples)).split(VALIDATION_BATCH):
            raw = examples.x[batch]
            x = preparation(raw, noise)
            rows = torch.arange(len(batch)).tensor_split(processes.count())[processes.rank()]

            def elbo(rows: Tensor, x: Tensor = x, index: Tensor = batch) -> Tensor:
                return model.elbo(x[rows].to(model.device), seed=noise_seed, index=index[rows]).value

            nats = piecewise(elbo, rows) if len(rows) else x.new_empty(0)
            mine.append({"value": preparation.raw_nats(nats.cpu(), raw[rows])})
    return Estimate.of(torch.cat([part["value"] for part in processes.gathered(mine)]))


def grid_of_samples(state: TrainingState, count: int, seed: int) -> Tensor:
    """The first `count` samples, in all processes, which divide them; progress is shown if they take long."""

    def samples(rows: Tensor) -> Tensor:
        """Draws (rows, 1, *shape), or draws and their means (rows, 2, *shape) if the draws are noisy."""
        ways = [state.model.sample, *([state.model.sample_mean] if state.model.noisy_samples else [])]
        return torch.stack([draw(len(rows), seed=seed, first=int(rows[0])).cpu() for draw in ways], dim=1)

    parts = torch.arange(count).split(min(GRID_AT_ONCE, -(-count // processes.count())))
    with averaged(state), processes.together():
        mine = [{"x": piecewise(samples, rows)} for rows in track(processes.share(parts), "samples")]
    return torch.cat([part["x"] for part in processes.gathered(mine)])


def _sample_grid(log: MetricsLog, folder: Path, state: TrainingState, dataset: Dataset, count: int, seed: int) -> None:
    x = grid_of_samples(state, count, seed)
    if not x.isfinite().all():  # no picture; the checks of losses and weights report the cause
        return
    path = folder / "samples" / f"step-{state.step:08d}.png"
    pictures = [pictures_of(one, dataset.spec) for one in x.unbind(1)]

    def write() -> None:
        save_grids(pictures, path)
        log.show(state.step, path)

    processes.on_main(write)
