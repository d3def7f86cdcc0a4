"""A detector of unusual rows: those with the lowest log p(x)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import OutlierMixin

from jensen.errors import InputError
from jensen.sklearn.density import AbstractScorer
from jensen.sklearn.estimator import Family


class JensenDetector(OutlierMixin, AbstractScorer):
    """A detector of outliers and novelties, with the signs of scikit-learn's `IsolationForest`.

    **Low is unusual.** `score_samples` is the bound on log p(x) in nats. `decision_function` is `score_samples` less
    the threshold `offset_`: negative for an outlier. `predict` is -1 for an outlier and +1 for an inlier. (PyOD has
    the opposite sign: its scores are `-decision_function`, its outliers 1 and its inliers 0.) The threshold is set as
    in PyOD: the share `contamination` of the training rows lies below it. For the other parameters see
    `JensenDensity`. For new rows of a matrix of numbers, `NoveltyDetector` is often better and quicker.

    >>> from sklearn.datasets import load_wine
    >>> detector = JensenDetector(steps=50, random_state=0).fit(load_wine().data)
    >>> int((detector.predict(load_wine().data) == -1).sum())
    18
    """

    def __init__(
        self,
        family: Family = "vae",
        *,
        contamination: float = 0.1,
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
        self.contamination, self.random_state, self.verbose = contamination, random_state, verbose

    def fit(self, X: Any, y: None = None) -> Self:
        """Train on the rows of X (n, features), of which few are unusual; y is ignored."""
        if not 0 < self.contamination <= 0.5:
            raise InputError(f"contamination={self.contamination}: expected a share above 0, at most 0.5")
        X = self._checked(X, fitting=True)
        self._train(X, **self._for_training(X))
        self.offset_ = float(np.percentile(self.score_samples(X), 100 * self.contamination))
        return self._recorded()

    def score_samples(self, X: Any) -> np.ndarray:
        """The bound on log p(x) of every row in nats, (n); low for an unusual row."""
        return self._scores(X).bound.numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` less `offset_`, (n): negative for an outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for an outlier and +1 for an inlier, (n)."""
        return np.where(self.decision_function(X) < 0, -1, 1)
