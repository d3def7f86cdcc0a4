"""What all estimators share: training, checks of X, the run folder."""

import json
import os
import shutil
import tempfile
import weakref
from abc import ABC
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from pydantic import ValidationError
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from jensen.data.examples import Examples
from jensen.data.table.frames import is_frame
from jensen.data.table.wishes import parsed, toml_of
from jensen.errors import InputError
from jensen.progress import quiet
from jensen.randomness import content_numbers
from jensen.records import Value, write_record
from jensen.run import Run, load, train
from jensen.run.folder import DATA, HISTORY, RECIPE
from jensen.sklearn.frames import is_mixed
from jensen.sklearn.settings import recipe_for
from jensen.training.precision import exact_float32

Estimator = TypeVar("Estimator", bound="AbstractEstimator")
Family = Literal["vae", "latent", "diffusion"]
RECORD = "estimator.json"
SEED = 0  # of the draws in all methods but `sample`: an estimator gives the same row the same numbers


class Record(Value):
    """estimator.json: what an estimator knows besides its run. JSON both ways."""

    estimator: str
    """The name of the class."""
    parameters: dict[str, Any]
    fitted: dict[str, Any]
    """The fitted attributes by name, arrays as lists."""


class AbstractEstimator(BaseEstimator, ABC):
    """An estimator whose `fit` trains a run.

    `run_` is the trained run, a `jensen.Run`, so every verb of jensen applies to it: `jensen.evaluate(estimator.run_)`.
    The draws for a row are a pure function of the row's values, so its results do not depend on the other rows.
    """

    _arrays: ClassVar[tuple[str, ...]] = ("feature_names_in_",)
    """The names of fitted attributes that are arrays."""

    def __init__(
        self,
        family: Family = "vae",
        *,
        steps: int | None = None,
        minutes: float | None = None,
        settings: Mapping[str, Any] | None = None,
        folder: str | Path | None = None,
        draws: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.family, self.settings, self.folder = family, settings, folder
        self.steps, self.minutes, self.draws = steps, minutes, draws
        self.random_state, self.verbose = random_state, verbose

    # ------------------------------------------------------------------------------------------ training

    def _train(self, data: Any, columns: Mapping[str, Sequence[str]] | None = None, **settings: Any) -> None:
        """Train a run on `data`; `settings` are the estimator's own, which the parameter `settings` overrides.

        `columns` are the possible types of columns of y, the usual one first.
        """
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        lengths = {"steps": self.steps, "minutes": self.minutes}
        settings |= {name: value for name, value in lengths.items() if value is not None}
        settings = {**settings, "split_seed": seed, **(self.settings or {})}
        if columns:
            settings["columns"] = _with_wishes(columns, str(toml_of(settings.get("columns") or {})))
        recipe = recipe_for(self.family, data, seed, settings)
        folder = _new_folder() if self.folder is None else Path(self.folder)
        _refuse_filled(folder)
        try:
            with self._talk():
                run = train(recipe, folder)
        except BaseException:
            if self.folder is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self._hold(replace(run, data=None))

    def _hold(self, run: Run) -> None:
        """Keep a run, on the GPU if there is one, and remove its folder at the end if the folder is temporary."""
        if self.folder is None:
            weakref.finalize(run, _remove, run.folder, os.getpid())
        if torch.cuda.is_available() and run.recipe.training.device != "cpu":
            exact_float32()
            run.model.to("cuda")
        self.run_ = run

    def _recorded(self) -> Self:
        """The fitted estimator, after its record was written into its run folder."""
        write_record(self.run_.folder / RECORD, self._record())
        return self

    def _talk(self) -> AbstractContextManager[None]:
        return nullcontext() if self.verbose else quiet()

    # ------------------------------------------------------------------------------------------ rows

    def _checked(self, X: Any, y: Any = "no_validation", *, fitting: bool = False, missing: bool | None = None) -> Any:
        """X, or (X, y), as arrays; X in float64. `missing` says whether NaN is allowed; default: as the tags say."""
        tags = self.__sklearn_tags__()
        allowed = tags.input_tags.allow_nan if missing is None else missing
        wishes: dict[str, Any] = {
            "reset": fitting,
            "dtype": np.float64,
            "ensure_all_finite": "allow-nan" if allowed else True,
            "ensure_min_samples": 2 if fitting else 1,
        }
        if self._as_table(X) or (not fitting and self._of_table):
            return self._checked_frame(X, y, fitting, tags)
        if isinstance(y, str):
            return validate_data(self, X, **wishes)
        several = tags.target_tags.multi_output
        return validate_data(self, X, y, multi_output=several, y_numeric=tags.regressor_tags is not None, **wishes)

    def _checked_frame(self, X: Any, y: Any, fitting: bool, tags: Tags) -> Any:
        """X, or (X, y), where X is a DataFrame with columns of several types, whose cells jensen checks."""
        if not is_frame(X):
            raise InputError(
                f"X is of type {type(X).__name__}, but fit was given a DataFrame with columns of several types; give a "
                "DataFrame with the same columns"
            )
        validate_data(self, X, skip_check_array=True, reset=fitting)  # the names of the columns
        if fitting and len(X) < 2:
            raise InputError(f"X has {len(X)} rows; expected at least 2")
        if isinstance(y, str):
            return X
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        return X, check_array(y, ensure_2d=False, dtype=None if tags.regressor_tags is None else np.float64)

    def _as_table(self, X: Any) -> bool:
        """Whether X is a table, each of whose columns has a type, and not a matrix."""
        return is_mixed(X) or (is_frame(X) and (self.settings or {}).get("layout") == "table")

    @property
    def _of_table(self) -> bool:
        """Whether the estimator was fitted on a table."""
        return "run_" in vars(self) and self.run_.spec.table is not None

    def _for_training(self, X: Any) -> dict[str, Any]:
        """The settings of reading that suit X: one row in ten is for validation, and a matrix holds vectors."""
        splits = {"test_fraction": 0.0, "validation_fraction": 0.1 if len(X) > 5 else 0.0}
        if self._as_table(X):
            return splits
        return {**splits, "layout": "vector", "missing": bool(np.isnan(X).any())}

    def _examples(self, X: Any, *, missing: bool = False, gaps: bool = False) -> tuple[Examples, torch.Tensor]:
        """The rows of X as examples, and for each row a number that depends on its values alone."""
        if not self._of_table and np.isnan(X).any() and not (missing or self.run_.spec.missing):
            raise InputError(
                "X has missing cells (NaN), but the rows given to fit had none, so the model needs complete rows; fit "
                "on rows with missing cells, or fill them in by a JensenImputer"
            )
        with self._talk():
            examples = self.run_.examples(X, missing=missing, gaps=gaps)
        return examples, content_numbers(examples.x[:])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.family == "vae"
        return tags

    # ------------------------------------------------------------------------------------------ folders

    def _record(self) -> Record:
        given = self.get_params(deep=False)
        fitted = {name: value for name, value in vars(self).items() if name.endswith("_") and name != "run_"}
        return Record(
            estimator=type(self).__name__,
            parameters=_plain({name: value for name, value in given.items() if name not in ("folder", "random_state")}),
            fitted=_plain(fitted),
        )

    def save(self, folder: str | Path) -> Path:
        """Copy the run folder, which holds the whole estimator, to the new folder `folder`, and return its path.

        The folder holds JSON and safetensors, and every command of jensen accepts it as a RUN.
        """
        check_is_fitted(self)
        _refuse_filled(Path(folder))
        shutil.copytree(self.run_.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The estimator in a folder that `save`, or `fit` with the parameter `folder`, has written.

        Nothing is unpickled. Raises `InputError` for a folder that holds no such estimator.
        """
        return _restored(cls, Path(folder), {"folder": str(folder)})

    def __getstate__(self) -> dict[str, Any]:
        """The parameters and, of a fitted estimator, the files of its run folder without the state of training."""
        if "run_" not in vars(self):
            return super().__getstate__()
        folder = self.run_.folder
        paths = [folder / name for name in (RECIPE, DATA, HISTORY, RECORD)]
        paths += [path for path in self.run_.checkpoint.iterdir() if not path.name.startswith("optimiser")]
        files = {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.exists()}
        return {"parameters": self.get_params(deep=False) | {"folder": None}, "files": files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "files" not in state:
            super().__setstate__(state)
            return
        folder = _new_folder()
        for name, content in state["files"].items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.__dict__.update(vars(_restored(type(self), folder, state["parameters"])))


def _restored(kind: type[Estimator], folder: Path, parameters: Mapping[str, Any]) -> Estimator:
    """The estimator of a run folder; `parameters` replace those that the folder records."""
    try:
        record = Record.model_validate_json((folder / RECORD).read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no {RECORD}; give a folder that {kind.__name__}.save has written") from error
    except (OSError, ValidationError) as error:
        raise InputError(f"{folder / RECORD} is damaged or of another version; restore it from a copy") from error
    if record.estimator != kind.__name__:
        raise InputError(f"{folder} holds a {record.estimator}; load it by {record.estimator}.load")
    estimator = kind(**{**record.parameters, **parameters})
    for name, value in record.fitted.items():
        setattr(estimator, name, np.array(value) if name in kind._arrays else value)
    estimator._hold(load(folder))
    return estimator


def _with_wishes(own: Mapping[str, Sequence[str]], given: str) -> str:
    """The wishes of a user in TOML, and for each other column of `own` its first type.

    Raises `InputError` if the user wishes a column of `own` to be of none of its types.

    >>> print(_with_wishes({"target": ("continuous", "count")}, 'age = "count"'))
    "target" = "continuous"
    age = "count"
    """
    wishes = parsed(given)
    for name in own.keys() & wishes.keys():
        if wishes[name].type not in own[name]:
            raise InputError(
                f"settings: columns has a wish about {name!r}, which is y; expected {' or '.join(own[name])}"
            )
    return f"{toml_of({name: types[0] for name, types in own.items() if name not in wishes})}{given}"


def _refuse_filled(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise InputError(f"folder {folder} exists and would be lost; each fit needs a new folder")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without NumPy's types, as JSON needs them."""
    return json.loads(json.dumps(values, default=lambda value: value.tolist()))


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="jensen-"))


def _remove(folder: Path, process: int) -> None:
    """Remove a temporary run folder; a child process that inherited the run leaves it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
