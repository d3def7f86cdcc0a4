"""A density of rows: log p(x) by its bound, and samples."""

from typing import Any, Self

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from jensen.commands.sample import sample
from jensen.evaluation.scores import Scores
from jensen.evaluation.scores import score as score_examples
from jensen.inference.rows import marginalised
from jensen.sklearn.estimator import SEED, AbstractEstimator
from jensen.sklearn.frames import as_frame, library_of


class AbstractScorer(AbstractEstimator):
    """An estimator that scores rows by the bound on log p(x)."""

    def _scores(self, X: Any) -> Scores:
        """The bound on log p(x) of every row."""
        check_is_fitted(self)
        run = self.run_
        unknown = marginalised(run.model, run.spec)
        examples, numbers = self._examples(self._checked(X), gaps=unknown is not None)
        draws, prepare = self.draws or run.model.usual_draws, run.spec.preparation
        with self._talk():
            return score_examples(run.model, examples, prepare, draws=draws, seed=SEED, index=numbers, unknown=unknown)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # A row's score does not depend on the other rows, but the rounding in float32 depends on their number, by more
        # than the 1e-7 that scikit-learn's checks of deterministic estimators allow
        tags.non_deterministic = True
        return tags


class JensenDensity(DensityMixin, AbstractScorer):
    """A density p(x) of rows, like scikit-learn's `KernelDensity` and `GaussianMixture`.

    `family` is the kind of model, `steps` or `minutes` the length of the training (default: until convergence).
    `settings` are further options of `jensen train FAMILY` by name, `folder` is the new folder of the run (default: a
    temporary folder), and `draws` is the number of draws per row for the bound.

    >>> from sklearn.datasets import load_wine
    >>> density = JensenDensity(steps=50, random_state=0).fit(load_wine().data)
    >>> density.score_samples(load_wine().data[:2]).shape, density.sample(3).shape
    ((2,), (3, 13))
    """

    def fit(self, X: Any, y: None = None) -> Self:
        """Train on the rows of X (n, features); y is ignored."""
        X = self._checked(X, fitting=True)
        self._train(X, **self._for_training(X))
        self.library_ = library_of(X) if self._as_table(X) else None
        return self._recorded()

    def score_samples(self, X: Any, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The bound on log p(x) of every row in nats, (n); with `return_std` also its Monte-Carlo standard error.

        The density is in the units of X, over the observed cells of a row.
        """
        found = self._scores(X)
        return (found.bound.numpy(), found.standard_error.numpy()) if return_std else found.bound.numpy()

    def score(self, X: Any, y: None = None) -> float:
        """The mean of `score_samples`, nats per row."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """Rows drawn from p(x), (n_samples, features); different ones at each call without a `random_state`.

        After training on a DataFrame with columns of several types, a DataFrame with the same columns.
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        with self._talk():
            found = sample(self.run_, n_samples, seed=seed)
        return found.x if self.library_ is None else as_frame(found.frame(), self.library_)
