"""What people expect of synthetic tables: shapes of columns, trends of pairs, detection, and usefulness.

Each number lies between 0 and 1 (usefulness may be negative), and higher is better. Missing cells are left out of
shapes and pairs; the classifiers see them. Source of the first three: SDMetrics, the library of SDV.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float

from jensen.data.table.column import Table
from jensen.data.table.views import compared, ordered_columns
from jensen.features.jackknife import Interval, parts
from jensen.progress import track
from jensen.records import Value

FOLDS = 5  # of the cross-validation of detection
BINS = 10  # of numbers beside categories
MOST_PAIRS = 500  # pairs of columns, chosen at random from more
MOST_CODES = 255  # categories that scikit-learn's trees divide without an order

Rows = Float[np.ndarray, "_ columns"]


class TableLikeness(Value):
    """All metrics of one set of rows against held-out rows; intervals are 95 %."""

    rows: int
    shapes: Interval
    """The mean over columns of 1 - KS distance (numbers and dates) or 1 - total variation distance (categories)."""
    pairs: Interval
    """The mean over pairs of columns of 1 - |difference of the correlations| / 2 (both numbers), or 1 - total variation
    distance of the tables of frequencies, with numbers in ten bins."""
    detection: Interval
    """2 - 2 max(1/2, AUROC) of a gradient-boosted classifier that tells the rows from held-out rows: 1 if it cannot."""
    usefulness: Interval
    """The score on held-out rows of a gradient-boosted model of the target, trained on the rows."""
    columns: dict[str, float]
    """The shape of each column."""


class TableMetrics(Value):
    """The metrics of samples and, as a floor, of training rows in place of the samples."""

    target: str
    """The column that is predicted to measure usefulness."""
    score: str
    """accuracy, or R², the explained share of the variance."""
    held_out: int
    samples: TableLikeness
    floor: TableLikeness


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a table as `compared` gives them: names, and which are numbers or dates and which categories."""

    names: tuple[str, ...]
    ordered: tuple[bool, ...]
    most: np.ndarray
    """The number of codes of each category; 0 for numbers."""
    seed: int = 0

    @classmethod
    def of(cls, table: Table, seed: int = 0) -> "Columns":
        """The columns of a table."""
        levels = [table.fields[places[0]].levels or 0 for places in table.places()]
        ordered = ordered_columns(table)
        most = np.where(ordered, 0, levels)
        return cls(tuple(column.name for column in table.columns), ordered, most, seed)


def table_metrics(
    samples: np.ndarray, train: np.ndarray, held_out: np.ndarray, table: Table, target: str, seed: int = 0
) -> TableMetrics:
    """The metrics of the samples; all arguments are matrices (rows, fields) of the table in the units of the data.

    The floor has as many training rows as there are samples, or all. Raises KeyError for an unknown `target`.
    """
    columns, place = Columns.of(table, seed), table.named(target)
    made, known, fresh = (compared(matrix, table) for matrix in (samples, train, held_out))
    known = known[np.arange(min(len(made), len(known))) * len(known) // min(len(made), len(known))]
    found = [likeness(rows, fresh, columns, place) for rows in track((made, known), "metrics of tables", 2)]
    score = "R²" if columns.ordered[place] else "accuracy"
    return TableMetrics(target=target, score=score, held_out=len(fresh), samples=found[0], floor=found[1])


def likeness(rows: Rows, held_out: Rows, columns: Columns, target: int) -> TableLikeness:
    """All metrics of some rows against held-out rows, both as `compared` gives them."""
    single, pair = shapes(rows, held_out, columns), pair_trends(rows, held_out, columns)
    return TableLikeness(
        rows=len(rows),
        shapes=_averaged(shapes, rows, held_out, columns),
        pairs=_averaged(pair_trends, rows, held_out, columns) if len(pair) else Interval(value=1.0, low=1.0, high=1.0),
        detection=detection(rows, held_out, columns),
        usefulness=usefulness(rows, held_out, columns, target),
        columns={name: float(value) for name, value in zip(columns.names, single, strict=True)},
    )


def _averaged(
    metric: Callable[[Rows, Rows, Columns], np.ndarray], rows: Rows, held_out: Rows, columns: Columns
) -> Interval:
    """The mean of a metric and its jackknife interval, over random parts of the rows and of the held-out rows."""

    def left(of: Rows) -> list[Rows]:
        part = parts(len(of)).numpy()
        return [of[part != gone] for gone in np.unique(part)]

    value = float(metric(rows, held_out, columns).mean())
    without = [float(metric(some, held_out, columns).mean()) for some in left(rows)]
    against = [float(metric(rows, some, columns).mean()) for some in left(held_out)]
    return Interval.around(value, without, against)


# ---------------------------------------------------------------------------------------------- columns and pairs


def shapes(rows: Rows, held_out: Rows, columns: Columns) -> np.ndarray:
    """The shape of each column: 1 - KS distance of numbers, 1 - total variation distance of categories."""
    found = []
    for place, ordered in enumerate(columns.ordered):
        ours, theirs = (of[:, place][~np.isnan(of[:, place])] for of in (rows, held_out))
        distance = _kolmogorov(ours, theirs) if ordered else _variation(ours, theirs, int(columns.most[place]))
        found.append(1 - distance)
    return np.array(found)


def _kolmogorov(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two distribution functions; 1 if only one of them has values."""
    if not len(a) or not len(b):
        return float(len(a) != len(b))
    both = np.unique(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(values), both, side="right") / len(values) for values in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def _variation(a: np.ndarray, b: np.ndarray, codes: int) -> float:
    """Half the sum of the differences of the frequencies of 0 .. codes - 1; 1 if only one of them has values."""
    if not len(a) or not len(b):
        return float(len(a) != len(b))
    shares = [np.bincount(values.astype(int), minlength=codes) / len(values) for values in (a, b)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def pair_trends(rows: Rows, held_out: Rows, columns: Columns) -> np.ndarray:
    """The similarity of each pair of columns, or of `MOST_PAIRS` random pairs."""
    pairs = list(combinations(range(len(columns.names)), 2))
    if len(pairs) > MOST_PAIRS:
        chosen = np.random.default_rng(columns.seed).choice(len(pairs), MOST_PAIRS, replace=False)
        pairs = [pairs[place] for place in np.sort(chosen)]
    correlations = [_correlations(of) for of in (rows, held_out)]
    codes, counts = _coded(rows, held_out, columns)
    found = []
    for a, b in pairs:
        if columns.ordered[a] and columns.ordered[b]:
            distance = abs(correlations[0][a, b] - correlations[1][a, b]) / 2
        else:
            both = [of[:, a] * counts[b] + of[:, b] for of in codes]
            known = [of[~np.isnan(of)] for of in both]
            distance = _variation(known[0], known[1], int(counts[a] * counts[b]))
        found.append(1 - distance)
    return np.array(found)


def _correlations(rows: Rows) -> np.ndarray:
    """Pearson's correlation of every pair of columns over the rows that have both; 0 for a constant column."""
    known = ~np.isnan(rows)
    deviation = np.nanstd(rows, 0) if len(rows) else np.zeros(rows.shape[1])
    x = np.where(known, rows - np.nanmean(np.where(known.any(0), rows, 0), 0), 0) / np.where(
        deviation > 0, deviation, 1
    )
    n = known.T.astype(float) @ known
    mean = x.T @ known / np.maximum(n, 1)
    square = (x**2).T @ known / np.maximum(n, 1) - mean**2
    covariance = x.T @ x / np.maximum(n, 1) - mean * mean.T
    scale = np.sqrt(np.maximum(square, 0) * np.maximum(square.T, 0))
    return np.clip(np.where(scale > 1e-12, covariance / np.maximum(scale, 1e-12), 0), -1, 1)


def _coded(rows: Rows, held_out: Rows, columns: Columns) -> tuple[list[Rows], np.ndarray]:
    """Both sets with numbers replaced by bins of about equal numbers of held-out rows, and the number of codes."""
    codes, counts = [rows.copy(), held_out.copy()], columns.most.astype(int).copy()
    for place in np.flatnonzero(columns.ordered):
        known = held_out[:, place][~np.isnan(held_out[:, place])]
        edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS)) if len(known) else np.zeros(0)
        for of in codes:
            column = of[:, place]
            of[:, place] = np.where(np.isnan(column), np.nan, np.searchsorted(edges, column, side="right"))
        counts[place] = len(edges) + 1
    return codes, counts


# ---------------------------------------------------------------------------------------------- models


def detection(rows: Rows, held_out: Rows, columns: Columns) -> Interval:
    """2 - 2 max(1/2, AUROC) of a gradient-boosted classifier of real and other rows, by cross-validation.

    Both sets get the same size, and each row is judged by a classifier that has not seen it. The interval is that of
    the AUROC, by the jackknife over the rows that are judged.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    count = min(len(rows), len(held_out))
    source = np.random.default_rng(columns.seed)
    x = np.concatenate([of[source.permutation(len(of))[:count]] for of in (rows, held_out)])
    y = np.repeat([1, 0], count)
    folds = StratifiedKFold(min(FOLDS, count), shuffle=True, random_state=columns.seed)
    judged = np.zeros(len(x))
    for train, test in folds.split(x, y):
        model = HistGradientBoostingClassifier(categorical_features=_categories(columns), random_state=columns.seed)
        judged[test] = _ranked(model.fit(x[train], y[train]).predict_proba(x[test])[:, 1])
    ours, theirs = judged[:count], judged[count:]
    part = parts(count).numpy()
    places = np.unique(part)
    left = [
        [_auroc(ours[part != gone], theirs) for gone in places],
        [_auroc(ours, theirs[part != gone]) for gone in places],
    ]
    auroc = Interval.around(_auroc(ours, theirs), *left)
    return Interval(value=_undetected(auroc.value), low=_undetected(auroc.high), high=_undetected(auroc.low))


def _ranked(values: np.ndarray) -> np.ndarray:
    """The ranks of values as shares, so that those of several folds can be put together."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values)) / len(values)


def _auroc(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The probability that a row of ours is ranked above one of theirs; ties count half."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(ours, theirs).statistic / (len(ours) * len(theirs)))


def _undetected(auroc: float) -> float:
    return 2 - 2 * min(1.0, max(0.5, auroc))


def usefulness(rows: Rows, held_out: Rows, columns: Columns, target: int) -> Interval:
    """Accuracy or R² on held-out rows of a gradient-boosted model of the target, trained on the rows.

    Rows without a target are left out. The interval is by the jackknife over the held-out rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    others = np.arange(len(columns.names)) != target
    (x, y), (asked, truth) = (
        (of[~np.isnan(of[:, target])][:, others], of[:, target][~np.isnan(of[:, target])]) for of in (rows, held_out)
    )
    ordered = columns.ordered[target]
    if len(np.unique(y)) < 2:  # nothing to learn
        guess = np.full(len(truth), y[0] if len(y) else np.nan)
    else:
        kind = HistGradientBoostingRegressor if ordered else HistGradientBoostingClassifier
        model = kind(categorical_features=_categories(columns)[others], random_state=columns.seed)
        guess = model.fit(x, y).predict(asked)

    def score(keep: np.ndarray) -> float:
        if not ordered:
            return float((guess[keep] == truth[keep]).mean())
        spread = ((truth[keep] - truth[keep].mean()) ** 2).sum()
        return float(1 - ((guess[keep] - truth[keep]) ** 2).sum() / spread) if spread > 0 else 0.0

    part = parts(len(truth)).numpy()
    every = np.ones(len(truth), bool)
    return Interval.around(score(every), [score(part != gone) for gone in np.unique(part)])


def _categories(columns: Columns) -> np.ndarray:
    """Which columns the trees divide without an order."""
    return (columns.most > 0) & (columns.most <= MOST_CODES)


# ---------------------------------------------------------------------------------------------- distances


def row_features(train: np.ndarray, table: Table) -> Callable[[torch.Tensor], torch.Tensor]:
    """`distance_features` of rows (count, fields) in the units of the data."""
    features = distance_features(compared(train, table), Columns.of(table))
    return lambda raw: torch.from_numpy(features(compared(raw.double().numpy(), table)))


def distance_features(known: Rows, columns: Columns) -> Callable[[Rows], np.ndarray]:
    """A function from rows, as `compared` gives them, to features for distances between rows; `known` are for training.

    A number becomes its normal score among the training rows, and a category an indicator of each of its values over
    √2, so that two different categories have distance 1. A missing cell is 0, with an indicator of its own over √2.
    """
    scores = [_NormalScores.of(known[:, place]) if ordered else None for place, ordered in enumerate(columns.ordered)]

    def features(rows: Rows) -> np.ndarray:
        found = []
        for place, score in enumerate(scores):
            column = rows[:, place]
            missing = np.isnan(column)
            found.append(missing[:, None] / np.sqrt(2))
            if score is not None:
                found.append(np.where(missing, 0, score(np.nan_to_num(column)))[:, None])
                continue
            found.append((column[:, None] == np.arange(columns.most[place])) / np.sqrt(2))
        return np.concatenate(found, 1).astype(np.float32)

    return features


@dataclass(frozen=True, eq=False)
class _NormalScores:
    """The map from a number to the normal quantile of its rank among known numbers."""

    values: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, column: np.ndarray) -> "_NormalScores":
        from scipy.special import ndtri

        known = np.sort(column[~np.isnan(column)])
        if not len(known):
            return cls(np.zeros(1), np.zeros(1))
        values, counts = np.unique(known, return_counts=True)
        middle = np.cumsum(counts) - counts / 2
        return cls(values, ndtri(middle / len(known)))

    def __call__(self, column: np.ndarray) -> np.ndarray:
        return np.interp(column, self.values, self.scores)
