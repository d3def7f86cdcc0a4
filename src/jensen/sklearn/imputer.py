"""An imputer of missing cells: draws from p(missing | observed)."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from jensen.data.spec import DataSpec
from jensen.data.table.column import Table
from jensen.data.table.fill import centre, filled
from jensen.data.table.frames import like
from jensen.errors import InputError
from jensen.inference.imputation import impute
from jensen.inference.imputer import AbstractImputer
from jensen.inference.rows import seen_rows
from jensen.recipe.families import family_of
from jensen.recipe.family import ImputationWish
from jensen.sklearn.estimator import SEED, AbstractEstimator, Family
from jensen.sklearn.frames import arrow_of
from jensen.sklearn.settings import recipe_for

DRAWS = 20  # default number of draws of a missing cell


class JensenImputer(OneToOneFeatureMixin, TransformerMixin, AbstractEstimator):
    """An imputer of missing cells (NaN), like scikit-learn's `IterativeImputer`.

    `transform` replaces a missing cell by the mean of `draws` draws from p(missing | observed), or with
    `sample_posterior` by one draw. `imputation` are the options of `jensen impute` by name, such as `{"sweeps": 50}`.
    A VAE learns from rows with missing cells; the other families need complete rows for `fit`. For the other
    parameters see `JensenDensity`.

    >>> from sklearn.datasets import load_wine
    >>> X = load_wine().data
    >>> X[::10, 3] = np.nan
    >>> imputer = JensenImputer(steps=50, draws=5, imputation={"method": "importance"}, random_state=0)
    >>> int(np.isnan(imputer.fit_transform(X)).sum())
    0
    """

    def __init__(
        self,
        family: Family = "vae",
        *,
        draws: int | None = DRAWS,
        sample_posterior: bool = False,
        imputation: Mapping[str, Any] | None = None,
        steps: int | None = None,
        minutes: float | None = None,
        settings: Mapping[str, Any] | None = None,
        folder: str | Path | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.family, self.settings, self.folder = family, settings, folder
        self.steps, self.minutes, self.draws = steps, minutes, draws
        self.sample_posterior, self.imputation = sample_posterior, imputation
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: None = None) -> Self:
        """Train on the rows of X (n, features); y is ignored."""
        X = self._checked(X, fitting=True, missing=self.family == "vae")
        kind: dict[str, Any] = {"table": Table(columns=(), fields=()) if self._as_table(X) else None}
        self._method(DataSpec.model_construct(**kind))  # refuses before a long training, not after it
        self._train(X, **self._for_training(X))
        return self._recorded()

    def transform(self, X: Any) -> Any:
        """X (n, features) with every missing cell replaced."""
        check_is_fitted(self)
        X = self._checked(X)
        if self._of_table:
            return self._filled(X)
        draws = self._drawn(X, 1 if self.sample_posterior else self.draws or DRAWS)
        return np.where(np.isnan(X), draws.mean(0), X)

    def sample(self, X: Any, draws: int | None = None) -> np.ndarray:
        """Several completions of a matrix X, (draws, n, features): multiple imputation."""
        check_is_fitted(self)
        if self._of_table:
            raise InputError("sample is for a matrix X; of a DataFrame, transform with sample_posterior=True")
        return self._drawn(self._checked(X), draws or self.draws or DRAWS)

    def _drawn(self, X: np.ndarray, count: int) -> np.ndarray:
        """`count` completions of X, which keep the observed cells unchanged."""
        found = np.repeat(X[None], count, 0)
        rows = np.flatnonzero(np.isnan(X).any(1))
        if len(rows):
            examples, numbers = self._examples(X[rows], missing=True)
            found[:, rows] = np.where(np.isnan(X[rows]), self._draws(examples.x[:], numbers, count), X[rows])
        return found

    def _filled(self, X: Any) -> Any:
        """A DataFrame whose empty cells are filled: a number by its mean, other cells by median or mode."""
        examples, numbers = self._examples(X, missing=True)
        raw, table = examples.x[:], self.run_.spec.table
        assert table is not None
        rows = raw.isnan().any(1)
        values = np.zeros(raw.shape)
        if bool(rows.any()):
            draws = self._draws(raw[rows], numbers[rows], 1 if self.sample_posterior else self.draws or DRAWS)
            values[rows.numpy()] = centre(draws, table, "draw" if self.sample_posterior else "mean")
        return like(filled(arrow_of(X), values, raw.isnan().numpy(), table, text=False), X, same_rows=True)

    def _draws(self, raw: Tensor, numbers: Tensor, count: int) -> np.ndarray:
        """Draws of the missing cells of `raw` (rows, fields) in its units, (count, rows, fields)."""
        run = self.run_
        x = seen_rows(raw, run.spec, numbers, SEED)
        with self._talk():
            drawn = impute(run.model, x, ~raw.isnan(), self._method(run.spec), draws=count, seed=SEED, index=numbers)
        return run.spec.preparation.to_raw(drawn.draws.cpu().flatten(0, 1)).reshape(count, *raw.shape)

    def _method(self, spec: DataSpec) -> AbstractImputer:
        """The method of imputation. Raises `InputError` for a family without any, and for options it does not have."""
        given = dict(self.imputation or {})
        known = [field.name for field in fields(ImputationWish)]
        if strange := given.keys() - known:
            raise InputError(f"imputation: {min(strange)!r} is not an option; expected one of {', '.join(known)}")
        return family_of(recipe_for(self.family, None, 0, {})).imputer(ImputationWish(**given), spec)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
