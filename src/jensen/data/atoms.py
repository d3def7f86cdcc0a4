"""Atoms: values of a column of real numbers that repeat far more often than a density allows.

Exact zeros, clipped ends and rounded values are atoms. A density would grow without bound at them.
"""

import numpy as np
from jaxtyping import Float

FALSE_ALARM = 1e-6
"""Probability that a column of continuous numbers without atoms, however coarsely they are rounded, has one."""

PEAK = 4
"""A density is at most this many times its mean over the neighbourhood of a value."""

NEIGHBOURS = 16
"""Distinct values on each side of a value, from which the density around it is estimated."""

FEWEST = 5
"""An atom has at least this many rows,"""

SHARE = 0.002
"""and at least this share of the rows."""

FEW_VALUES, REPEATED = 32, 10
"""All repeated values of a column are atoms if it has at most this many distinct values, each with this many rows on
average. Its grid of values is then too coarse for a density at all."""

NARROWEST, WIDEST = float(np.finfo(np.float64).smallest_subnormal), float(np.finfo(np.float64).max)
"""The range of a step between two neighbours."""

MOST = 64
"""Atoms of one column at most; the most frequent ones are kept."""


def find_atoms(values: Float[np.ndarray, " rows"]) -> tuple[Float[np.ndarray, " atoms"], Float[np.ndarray, " atoms"]]:
    """The atoms of a column in ascending order, and the share of the rows of each; the values have no NaN.

    The null hypothesis: the column is a density, rounded to a grid. Then the count of a value, given its sum with the
    counts of its neighbours, is binomial, with the share of one cell of the grid, times at most `PEAK`. The step of the
    grid is the smallest distance of two neighbours. The level of the test is `FALSE_ALARM` for the column, divided
    among its distinct values (Bonferroni).
    """
    distinct, counts = np.unique(values, return_counts=True)
    rows = len(values)
    frequent = np.flatnonzero((counts >= FEWEST) & (counts >= SHARE * rows))
    if len(frequent) and (len(distinct) > FEW_VALUES or rows < REPEATED * len(distinct)):
        frequent = frequent[_surprise(distinct, counts, frequent) * len(distinct) < FALSE_ALARM]
    found = np.sort(frequent[np.argsort(-counts[frequent], kind="stable")[:MOST]])
    return distinct[found], counts[found] / rows


def _surprise(distinct: np.ndarray, counts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Under the null hypothesis, the probability of a count as large as each of those at the places."""
    from scipy.special import bdtrc

    first, last = np.maximum(places - NEIGHBOURS, 0), np.minimum(places + NEIGHBOURS, len(distinct) - 1)
    quarter = distinct / 4  # so that no difference overflows
    pairs = zip(first, last, strict=True)
    step = np.array([np.diff(quarter[low : high + 1]).min(initial=WIDEST) for low, high in pairs]).clip(min=NARROWEST)
    neighbourhood = quarter[last] - quarter[first]
    share = step / (step + neighbourhood / PEAK)  # PEAK cells, of them and those of the grid beside the value
    total = np.concatenate([[0], np.cumsum(counts)])
    return bdtrc(counts[places] - 1, total[last + 1] - total[first], share)
