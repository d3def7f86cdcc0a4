"""A detector of new rows that are unlike the training rows, by exact densities and without a network."""

from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from jensen.errors import InputError
from jensen.mixture import Novelty
from jensen.records import Value, write_file, write_record

ROWS, RECORD = "rows.safetensors", "novelty.json"


class Fitted(Value):
    """novelty.json: what the detector knows besides its rows."""

    contamination: float
    seed: int
    names: tuple[str, ...] | None = None
    """The names of the columns of a DataFrame."""


class NoveltyDetector(OutlierMixin, BaseEstimator):
    """A detector of new rows, like scikit-learn's `LocalOutlierFactor(novelty=True)`, by the scores of `Novelty`.

    `score_samples` is the mean of four standardised log-densities, low for an unusual row; it has no unit. The other
    methods and signs are those of `JensenDetector`. The threshold is such that the share `contamination` of the
    training rows is below it, each scored without its own kernel. **Give training rows to no method but `fit`**: their
    own kernels make them look usual, so there is no `fit_predict`. X is a matrix of numbers without missing cells.

    >>> from sklearn.datasets import load_wine
    >>> wine = load_wine().data
    >>> detector = NoveltyDetector(contamination=0.05, random_state=0).fit(wine[:130])
    >>> bool((detector.predict(wine[130:]) == -1).mean() > 0.9)
    True
    """

    novelty = True  # scikit-learn's name for: the training rows are not to be scored

    def __init__(self, *, contamination: float = 0.1, random_state: int | np.random.RandomState | None = None) -> None:
        self.contamination, self.random_state = contamination, random_state

    def fit(self, X: Any, y: None = None) -> Self:
        """Fit the densities to the rows of X (n, features), of which few are unusual; y is ignored."""
        if not 0 < self.contamination <= 0.5:
            raise InputError(f"contamination={self.contamination}: expected a share above 0, at most 0.5")
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return self._fitted_to(np.array(X, order="C"), seed)  # safetensors writes memory as it lies

    def _fitted_to(self, rows: np.ndarray, seed: int) -> Self:
        """The detector after a fit to rows, a pure function of rows and seed."""
        self.rows_, self.seed_ = rows, seed
        self.scores_ = Novelty.fit(torch.from_numpy(rows), seed=seed)
        self.offset_ = float(np.percentile(self.scores_.held_out.numpy(), 100 * self.contamination))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """The score of each new row, (n): low for an unusual one."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return self.scores_(torch.from_numpy(np.array(X))).numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` less `offset_`, (n): negative for an outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for an outlier and +1 for an inlier, (n)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    @available_if(lambda self: False)  # type: ignore[untyped-decorator]
    def fit_predict(self, X: Any, y: None = None) -> NoReturn:
        """Not available: see the docstring of the class."""
        raise AssertionError

    def save(self, folder: str | Path) -> Path:
        """Write the training rows and the settings, which are the whole detector, to a new folder; return its path."""
        check_is_fitted(self)
        folder = Path(folder)
        if folder.exists() or folder.is_symlink():
            raise InputError(f"folder {folder} exists and would be lost; give a new one")
        folder.mkdir(parents=True)
        write_file(folder / ROWS, save({"rows": self.rows_}))
        names = tuple(self.feature_names_in_) if hasattr(self, "feature_names_in_") else None
        write_record(folder / RECORD, Fitted(contamination=self.contamination, seed=self.seed_, names=names))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The detector that `save` wrote into a folder, fitted again to its rows: the same numbers, nothing unpickled.

        Raises `InputError` for a folder that holds none.
        """
        folder = Path(folder)
        try:
            found = Fitted.model_validate_json((folder / RECORD).read_bytes())
            rows = load((folder / ROWS).read_bytes())["rows"]
        except (OSError, ValidationError, SafetensorError, KeyError) as error:
            raise InputError(f"{folder} is not a folder that NoveltyDetector.save has written; give one") from error
        detector = cls(contamination=found.contamination)
        detector.n_features_in_ = rows.shape[1]
        if found.names is not None:
            detector.feature_names_in_ = np.array(found.names, dtype=object)
        return detector._fitted_to(rows, found.seed)
