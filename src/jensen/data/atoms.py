"""Atoms: values of a column of real numbers that repeat far more often than a density allows.

Exact zeros, clipped ends and rounded values are atoms. A density would grow without bound at them.
"""

import numpy as np
from jaxtyping import Float

FALSE_ALARM = 1e-6
"""Probability that a column of continuous numbers without atoms, however coarsely they are rounded, has one."""

NEIGHBOURS = 16
"""Distinct values on each side of a value, from which the density around it is estimated."""

FEWEST = 5
"""An atom has at least this many rows,"""

SHARE = 0.002
"""and at least this share of the rows."""

FEW_VALUES, REPEATED = 32, 10
"""All repeated values of a column are atoms if it has at most this many distinct values, each with this many rows on
average. Its grid of values is then too coarse for a density at all."""

MOST = 32
"""Atoms of one column at most; the most frequent ones are kept."""


def find_atoms(values: Float[np.ndarray, " rows"]) -> tuple[Float[np.ndarray, " atoms"], Float[np.ndarray, " atoms"]]:
    """The atoms of a column in ascending order, and the share of the rows of each; the values have no NaN.

    The null hypothesis: the column is a density, rounded to a grid. Then the count of a value, given its sum with the
    counts of its neighbours, is binomial, and its share is one cell of the grid between the outermost neighbours. The
    step of the grid is the smallest distance of two neighbours. The level of the test is `FALSE_ALARM` for the column,
    divided among its distinct values (Bonferroni).
    """
    from scipy.stats import binom

    distinct, counts = np.unique(values, return_counts=True)
    rows = len(values)
    frequent = (counts >= FEWEST) & (counts >= SHARE * rows)
    if len(distinct) > FEW_VALUES or rows < REPEATED * len(distinct):
        for place in np.flatnonzero(frequent):
            first, last = max(0, place - NEIGHBOURS), min(len(distinct), place + NEIGHBOURS + 1)
            near = distinct[first:last]
            if len(near) < 2:
                continue
            cells = (near[-1] - near[0]) / np.diff(near).min() + 1
            surprise = binom.sf(counts[place] - 1, counts[first:last].sum(), 1 / cells)
            frequent[place] = surprise * len(distinct) < FALSE_ALARM
    found = np.flatnonzero(frequent)
    found = np.sort(found[np.argsort(-counts[found], kind="stable")[:MOST]])
    return distinct[found], counts[found] / rows
