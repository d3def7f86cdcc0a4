"""The estimators of `jensen.sklearn` beside scikit-learn's own, on scikit-learn's sets, with their defaults.

    python benchmarks/sklearn_estimators.py --tasks classifier detector imputer --sets wine cancer diabetes digits

Five folds with a fixed seed; each number is a mean over the folds with its standard error.
- classifier: accuracy and log loss in nats (lower is better).
- detector: area under the ROC curve. Trained on normal rows of the other folds, tested on the normal rows of the fold
  and on all unusual rows: the last class of wine, the malignant tumours, the nines of digits.
- imputer: 20 % of the cells are hidden at random, in training and test rows. Root mean square error of the hidden cells
  of the test rows, in standard deviations of their columns.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jensen.sklearn import JensenClassifier, JensenDetector, JensenImputer

SETS = {"wine": load_wine, "cancer": load_breast_cancer, "diabetes": load_diabetes, "digits": load_digits}
UNUSUAL = {"wine": 2, "cancer": 0, "digits": 9}
FOLDS, SEED, HIDDEN = 5, 0, 0.2
Scores = Iterator[tuple[str, list[float]]]


def classifiers(X: np.ndarray, y: np.ndarray, name: str) -> Scores:
    """Accuracy and log loss of each classifier in every fold."""
    ways: dict[str, Callable[[], Any]] = {
        "JensenClassifier": lambda: JensenClassifier(random_state=SEED),
        "LogisticRegression": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "HistGradientBoosting": lambda: HistGradientBoostingClassifier(random_state=SEED),
    }
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(X, y):
        for way, make in ways.items():
            found = make().fit(X[train], y[train]).predict_proba(X[test])
            yield way, [float((found.argmax(1) == y[test]).mean()), log_loss(y[test], found)]


def detectors(X: np.ndarray, y: np.ndarray, name: str) -> Scores:
    """The area under the ROC curve of each detector in every fold."""
    normal, unusual = X[y != UNUSUAL[name]], X[y == UNUSUAL[name]]
    ways: dict[str, Callable[[], Any]] = {
        "JensenDetector": lambda: JensenDetector(random_state=SEED),
        "IsolationForest": lambda: IsolationForest(random_state=SEED),
    }
    for train, test in KFold(FOLDS, shuffle=True, random_state=SEED).split(normal):
        rows = np.concatenate([normal[test], unusual])
        truth = np.repeat([1, 0], [len(test), len(unusual)])
        for way, make in ways.items():
            yield way, [float(roc_auc_score(truth, make().fit(normal[train]).score_samples(rows)))]


def imputers(X: np.ndarray, y: np.ndarray, name: str) -> Scores:
    """The root mean square error of each imputer in every fold."""
    X = StandardScaler().fit_transform(X[:, X.std(0) > 0])
    hidden = np.random.default_rng(SEED).random(X.shape) < HIDDEN
    seen = np.where(hidden, np.nan, X)
    ways: dict[str, Callable[[], Any]] = {
        "JensenImputer": lambda: JensenImputer(random_state=SEED),
        "IterativeImputer": lambda: IterativeImputer(random_state=SEED),
        "KNNImputer": KNNImputer,
        "mean": SimpleImputer,
    }
    for train, test in KFold(FOLDS, shuffle=True, random_state=SEED).split(X):
        for way, make in ways.items():
            found = make().fit(seen[train]).transform(seen[test])
            yield way, [float(np.sqrt(np.square(found - X[test])[hidden[test]].mean()))]


TASKS: dict[str, tuple[Callable[[np.ndarray, np.ndarray, str], Scores], tuple[str, ...]]] = {
    "classifier": (classifiers, ("accuracy", "log loss")),
    "detector": (detectors, ("AUROC",)),
    "imputer": (imputers, ("RMSE",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for task in options.tasks:
        measure, columns = TASKS[task]
        print(f"| {task} | set | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}", flush=True)
        for name in options.sets:
            if name == "diabetes" and task != "imputer":
                continue
            began, found = time.perf_counter(), dict[str, list[list[float]]]()
            for way, values in measure(*SETS[name](return_X_y=True), name):
                found.setdefault(way, []).append(values)
            for way, folds in found.items():
                columns_of = np.array(folds).T
                cells = [f"{one.mean():.3f} ± {one.std(ddof=1) / FOLDS**0.5:.3f}" for one in columns_of]
                print(f"| {way} | {name} | {' | '.join(cells)} |", flush=True)
            print(f"<!-- {name}: {time.perf_counter() - began:.0f} s -->", flush=True)


if __name__ == "__main__":
    main()
