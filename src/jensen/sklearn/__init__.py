"""Estimators for scikit-learn: density, imputation, anomalies, classification and regression by jensen's models.

settings     the recipe of an estimator's training
estimator    what all estimators share: training, checks of X, the run folder
density      `JensenDensity`: log p(x), samples
detector     `JensenDetector`: unusual rows
novelty      `NoveltyDetector`: unusual rows, without a network
imputer      `JensenImputer`: missing cells
prediction   `JensenClassifier`, `JensenRegressor`: p(y|x)

`import jensen` does not import this package, and so it does not import scikit-learn.
"""

from jensen.sklearn.density import JensenDensity
from jensen.sklearn.detector import JensenDetector
from jensen.sklearn.imputer import JensenImputer
from jensen.sklearn.novelty import NoveltyDetector
from jensen.sklearn.prediction import JensenClassifier, JensenRegressor

__all__ = ["JensenClassifier", "JensenDensity", "JensenDetector", "JensenImputer", "JensenRegressor", "NoveltyDetector"]
