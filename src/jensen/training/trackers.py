"""Trackers: programs that show a training while it runs, through Accelerate. A tracker that fails is left out.

TensorBoard, Weights & Biases, MLflow and trackio get every line of metrics.jsonl, the grids of samples and the recipe.
None of them sends anything anywhere unless the user has asked for it in the tracker's own environment variables:
Weights & Biases is offline, and MLflow and trackio write into the run's folder.
"""

import errno
import json
import os
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jensen.errors import InputError
from jensen.records import Value, read_record, write_record

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "jensen"
RECORD = "trackers.json"
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
AGAIN = "remove it, and trackers begin new runs of their own"


class TrackerRuns(Value):
    """The names of a run in its trackers, so that a resumed training continues the same run there."""

    wandb: str | None = None
    mlflow: str | None = None
    trackio: str | None = None


class AbstractTracker(ABC):
    """One tracker of the run in `folder`.

    The tracker starts after step `step`. It continues its own run with the name `run`; None begins a new one.
    """

    package: ClassVar[str]
    """The module that must be installed."""
    extra: ClassVar[str] = "tracking"

    def __init__(self, folder: Path, step: int, run: str | None) -> None:
        self.folder = folder
        self.inner = self.started(step, run)
        self.inner.start()

    @property
    def run(self) -> str | None:
        """The name of the run in the tracker; None if the tracker has no names."""
        return None

    @abstractmethod
    def started(self, step: int, run: str | None) -> "GeneralTracker":
        """Accelerate's tracker."""

    def configure(self, recipe: Mapping[str, Any]) -> None:
        """Record the recipe, values by name."""
        self.inner.store_init_configuration(dict(recipe))

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Record numbers and texts of one step."""
        self.inner.log(dict(values), step=step)

    @abstractmethod
    def show(self, step: int, path: Path) -> None:
        """Record a grid of samples, a PNG."""

    def close(self) -> None:
        """Write all values."""
        self.inner.finish()


class TensorBoard(AbstractTracker):
    """tensorboard/ in the run's folder; values after the step at which it starts are dropped."""

    package = "tensorboard"

    def started(self, step: int, run: str | None) -> "GeneralTracker":
        from accelerate.tracking import TensorBoardTracker

        return TensorBoardTracker("tensorboard", self.folder, purge_step=step + 1 if step else None)

    def configure(self, recipe: Mapping[str, Any]) -> None:
        """Record nothing: the recipe is in the run's folder, and TensorBoard would make a run of its own for it."""

    def show(self, step: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            grid = np.asarray(picture.convert("RGB"))
        self.inner.log_images({"samples": grid[None]}, step=step, dataformats="NHWC")


class WeightsAndBiases(AbstractTracker):
    """Weights & Biases, offline: `wandb sync` sends the run later. WANDB_MODE=online sends it at once."""

    package = "wandb"

    def started(self, step: int, run: str | None) -> "GeneralTracker":
        import wandb
        from accelerate.tracking import WandBTracker

        self._run = run or uuid.uuid4().hex
        online = os.environ.get("WANDB_MODE", "offline") != "offline"
        return WandBTracker(
            PROJECT,
            id=self._run,
            name=self.folder.name,
            dir=str(self.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow" if online else None,
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    @property
    def run(self) -> str:
        return self._run

    def show(self, step: int, path: Path) -> None:
        self.inner.log_images({"samples": [str(path)]}, step=step)


class MLflow(AbstractTracker):
    """MLflow, into mlruns/ in the run's folder, or to the server of MLFLOW_TRACKING_URI."""

    package = "mlflow"

    def started(self, step: int, run: str | None) -> "GeneralTracker":
        import mlflow
        from accelerate.tracking import MLflowTracker

        self._resumed, given = run is not None, os.environ.get("MLFLOW_TRACKING_URI")
        self._own = given is None
        if self._own:  # MLflow 3 prefers a database, which needs SQLAlchemy
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri(given or (self.folder / "mlruns").absolute().as_uri())
        return MLflowTracker(PROJECT, run_id=run, run_name=self.folder.name)

    @property
    def run(self) -> str:
        return self.inner.tracker.info.run_id

    def configure(self, recipe: Mapping[str, Any]) -> None:
        if not self._resumed:  # MLflow refuses other values of a parameter it knows
            super().configure(recipe)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        super().log(step, {name: value for name, value in values.items() if not isinstance(value, str)})

    def show(self, step: int, path: Path) -> None:
        self.inner.log_artifact(str(path), "samples")

    def close(self) -> None:
        import mlflow

        super().close()
        if self._own:  # or the next run in this process would be written here, too
            mlflow.set_tracking_uri("")


class Trackio(AbstractTracker):
    """trackio, into trackio/ in the run's folder, or into TRACKIO_DIR."""

    package, extra = "trackio", "trackio"

    def started(self, step: int, run: str | None) -> "GeneralTracker":
        os.environ.setdefault("TRACKIO_DIR", str((self.folder / "trackio").absolute()))  # read at the first import
        from accelerate.tracking import TrackioTracker

        self._run = run or f"{self.folder.name}-{uuid.uuid4().hex[:8]}"
        return TrackioTracker(PROJECT, name=self._run, resume="allow", embed=False)

    @property
    def run(self) -> str:
        return self._run

    def configure(self, recipe: Mapping[str, Any]) -> None:
        """Record the recipe; Accelerate's own way is for a module of trackio that does not exist."""
        self.inner.tracker.config.update(recipe)

    def show(self, step: int, path: Path) -> None:
        import trackio

        self.inner.log({"samples": trackio.Image(str(path))}, step=step)


KINDS: dict[str, type[AbstractTracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises `InputError` for a tracker whose package is not installed."""
    for name in names:
        kind = KINDS[name]
        if find_spec(kind.package) is None:
            raise InputError(
                f"--trackers {name}: the package {kind.package} is not installed; pip install 'jensen[{kind.extra}]', "
                "or leave it out"
            )


class Trackers:
    """The trackers `names` of the run in `folder`, whose training starts after step `step`.

    A tracker that fails is left out from then on, with a warning, and training goes on. A full disk is an error of the
    run itself, and is raised.
    """

    def __init__(self, names: tuple[str, ...], folder: Path, step: int) -> None:
        self._open: dict[str, AbstractTracker] = {}
        self._folder, self._names = folder, tuple(dict.fromkeys(names))
        known = read_record(folder / RECORD, TrackerRuns, AGAIN) or TrackerRuns()
        recipe = _flat(folder / "recipe.json")
        for name in self._names:
            self._start(name, step, getattr(known, name, None), recipe)
        runs = known.model_copy(update={name: one.run for name, one in self._open.items() if one.run})
        if runs != known:
            write_record(folder / RECORD, runs)

    def _start(self, name: str, step: int, run: str | None, recipe: Mapping[str, Any]) -> None:
        with self._unharmed(name):
            tracker = self._open[name] = KINDS[name](self._folder, step, run)
            tracker.configure(recipe)

    def go_back(self, step: int) -> None:
        """Drop TensorBoard's values after `step`. Other trackers keep what they have, and later values follow."""
        if "tensorboard" in self._open:
            self._do("tensorboard", lambda tracker: tracker.close())
            self._start("tensorboard", step, None, {})

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Give the numbers and texts of one step to every tracker."""
        for name in list(self._open):
            self._do(name, lambda tracker: tracker.log(step, values))

    def show(self, step: int, path: Path) -> None:
        """Give a grid of samples, a PNG, to every tracker."""
        for name in list(self._open):
            self._do(name, lambda tracker: tracker.show(step, path))

    def close(self) -> None:
        """Write all values and end the trackers."""
        for name in list(self._open):
            self._do(name, lambda tracker: tracker.close())
        self._open = {}

    def _do(self, name: str, action: Callable[[AbstractTracker], None]) -> None:
        with self._unharmed(name):
            action(self._open[name])

    @contextmanager
    def _unharmed(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            self._open.pop(name, None)
            what = " ".join(str(error).split())[:200] or type(error).__name__
            warnings.warn(f"the tracker {name} failed and is left out, training goes on: {what}", stacklevel=2)


def _flat(recipe: Path) -> dict[str, Any]:
    """The values of recipe.json by name, such as model.latent_dims; {} without a recipe."""
    found: dict[str, Any] = {}

    def collect(values: Mapping[str, Any], prefix: str) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                collect(value, f"{prefix}{name}.")
            else:
                found[f"{prefix}{name}"] = value if isinstance(value, int | float | str) else json.dumps(value)

    if recipe.exists():
        collect(json.loads(recipe.read_text()), "")
    return found
