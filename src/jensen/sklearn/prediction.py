"""p(y|x): a classifier, and a regressor with quantiles."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from jensen.errors import InputError
from jensen.evaluation.scores import prepare
from jensen.inference.columns import ColumnPrediction
from jensen.inference.prediction import AT_ONCE
from jensen.inference.target_prediction import in_raw_units, mixture_of
from jensen.mixture import Mixture
from jensen.progress import track
from jensen.sklearn.columns import column_predictions, field_of, quantiles_of, weighted_values
from jensen.sklearn.estimator import SEED, AbstractEstimator
from jensen.sklearn.frames import with_target

TYPES = ("continuous", "integer", "count")  # of a column of y that a regressor predicts


class _Predictor(AbstractEstimator):
    def _batches(self, X: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of X in batches as the model sees them, each with the numbers of the rows."""
        check_is_fitted(self)
        examples, numbers = self._examples(self._checked(X))
        for rows in track(torch.arange(len(examples)).split(AT_ONCE), "predicting"):
            x = prepare(self.run_.spec.preparation, examples.x[rows], numbers[rows], SEED)
            yield x.to(self.run_.model.device), numbers[rows]

    def _column_laws(self, X: Any, kind: str) -> Iterator[tuple[int, ColumnPrediction]]:
        """The field of y, and p(y|x) of the rows of a DataFrame, in batches; y has the Arrow type `kind`."""
        table, spec = with_target(self._checked(X), None, kind), self.run_.spec
        assert spec.table is not None
        field = field_of(spec.table, table.column_names[-1])
        examples, numbers = self._examples(table, missing=True)
        with self._talk():
            for law in column_predictions(self.run_, examples, numbers, field, self.draws, SEED):
                yield field, law


class JensenClassifier(ClassifierMixin, _Predictor):
    """A classifier by a joint model of x and y: p(y|x) from p(x, y).

    `draws` is the number of draws per row for p(y|x). Families vae, latent and diffusion predict labels. For the other
    parameters see `JensenDensity`.

    >>> from sklearn.datasets import load_wine
    >>> X, y = load_wine(return_X_y=True)
    >>> classifier = JensenClassifier(steps=200, random_state=0).fit(X, y)
    >>> bool(classifier.score(X, y) > 0.9)
    True
    """

    _arrays: ClassVar[tuple[str, ...]] = ("feature_names_in_", "classes_")

    def fit(self, X: Any, y: Any) -> Self:
        """Train on the rows of X (n, features) with the classes y (n)."""
        X, y = self._checked(X, y, fitting=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y has 1 class, {self.classes_[0]}; expected at least 2 classes")
        settings = self._for_training(X)
        if self._as_table(X):
            if self.family != "vae":  # before a long training, not after it
                raise InputError(f"family={self.family!r} predicts no column of a table; give family='vae'")
            table = with_target(X, codes.astype(str), "string")
            self._train(table, {table.column_names[-1]: ("categorical",)}, **settings)
        else:
            settings |= {"predict": "label"} if self.family == "vae" else {}
            self._train({"x": X, "y": codes}, **settings)
        return self._recorded()

    def predict_proba(self, X: Any) -> np.ndarray:
        """p(y|x) of every class, (n, classes), in the order of `classes_`."""
        check_is_fitted(self)
        if self._of_table:
            return self._from_columns(X)
        with self._talk(), torch.no_grad():
            found = [
                self.run_.model.predict(x, draws=self.draws, seed=SEED, index=numbers).probabilities.cpu()
                for x, numbers in self._batches(X)
            ]
        return torch.cat(found).double().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of every row, (n)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def _from_columns(self, X: Any) -> np.ndarray:
        fields, laws = zip(*((field, law.classes()) for field, law in self._column_laws(X, "string")), strict=True)
        table = self.run_.spec.table
        assert table is not None
        codes = [int(value) for value in table.columns[table.fields[fields[0]].column].values]
        found = torch.cat([law.probabilities.cpu() for law in laws])
        probabilities = np.zeros((len(found), len(self.classes_)))
        probabilities[:, codes] = found.numpy()
        return probabilities


class JensenRegressor(RegressorMixin, _Predictor):
    """A regressor by a joint model of x and y (family vae): p(y|x) with its mean, spread and quantiles.

    `draws` is the number of draws per row for p(y|x). For the other parameters see `JensenDensity`.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> X = X[:, 2:]
    >>> regressor = JensenRegressor(steps=200, random_state=0).fit(X, y)
    >>> regressor.predict(X[:3]).shape, regressor.predict_interval(X[:3], coverage=0.9).shape
    ((3,), (3, 2))
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on the rows of X (n, features) with the targets y, (n) or (n, targets)."""
        if self.family != "vae":
            raise InputError(f"family={self.family!r} learns no p(y|x) of a continuous y; give family='vae'")
        X, y = self._checked(X, y, fitting=True)
        y, settings = y.astype(np.float64), self._for_training(X)
        if self._as_table(X):
            if y.min() == y.max():  # before a long training, not after it
                raise InputError(f"y is {y[0]:g} in every row; expected at least 2 different values")
            table = with_target(X, y, "float64")
            self._train(table, {table.column_names[-1]: TYPES}, **settings)
        else:
            self._train({"x": X, "y": y}, **settings, predict="target")
        self.one_target_ = y.ndim == 1
        return self._recorded()

    def predict(self, X: Any, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """E[y|x], (n) or (n, targets); with `return_std` also the standard deviation of p(y|x)."""
        check_is_fitted(self)
        if self._of_table:
            values, weights = self._values(X)
            mean = (weights * values).sum(1)
            deviation = np.sqrt((weights * np.square(values - mean[:, None])).sum(1))
            return (mean, deviation) if return_std else mean
        laws = self._laws(X)
        mean = self._shaped(torch.cat([law.mean for law in laws]))
        if not return_std:
            return mean
        return mean, self._shaped(torch.cat([law.variance.sqrt() for law in laws]))

    def predict_quantiles(self, X: Any, quantiles: Sequence[float]) -> np.ndarray:
        """Quantiles of p(y|x), (n, quantiles) or (n, targets, quantiles)."""
        if not all(0 < q < 1 for q in quantiles):
            raise InputError(f"quantiles={list(quantiles)}: expected numbers between 0 and 1")
        check_is_fitted(self)
        if self._of_table:
            return quantiles_of(*self._values(X), np.array(quantiles))
        found = []
        for law in self._laws(X):
            u = law.mean.new_tensor(quantiles).reshape(-1, 1, 1).expand(-1, *law.mean.shape)
            found.append(law.quantile(u).movedim(0, -1))
        return self._shaped(torch.cat(found))

    def predict_interval(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """The ends of the central interval of p(y|x) that holds the share `coverage`, (n, 2) or (n, targets, 2)."""
        return self.predict_quantiles(X, ((1 - coverage) / 2, (1 + coverage) / 2))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _values(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Values of y and their weights, (n, points), for the rows of a DataFrame."""
        with torch.no_grad():
            parts = [weighted_values(law, self.run_.spec, field) for field, law in self._column_laws(X, "float64")]
        return np.concatenate([values for values, _ in parts]), np.concatenate([weights for _, weights in parts])

    def _laws(self, X: Any) -> list[Mixture]:
        """p(y|x) in the units of y, a mixture of normals for every row, in batches."""
        with self._talk(), torch.no_grad():
            found = [
                self.run_.model.predict_targets(x, draws=self.draws, seed=SEED, index=numbers)
                for x, numbers in self._batches(X)
            ]
        scaling = self.run_.spec.targets
        assert scaling is not None  # `fit` trained on targets
        return [in_raw_units(mixture_of(part), scaling) for part in found]

    def _shaped(self, values: Tensor) -> np.ndarray:
        """Values (n, targets, ...) as y has its shape: without the second axis if y was (n)."""
        array = values.cpu().double().numpy()
        return array[:, 0] if self.one_target_ else array
