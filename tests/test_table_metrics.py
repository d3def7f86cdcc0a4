"""Metrics of synthetic tables against other implementations and known answers."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from jensen.data.options import ReadOptions
from jensen.data.readers.memory import cells_in_memory
from jensen.data.readers.tables import read_table
from jensen.features.table_metrics import (
    Columns,
    detection,
    pair_trends,
    row_features,
    shapes,
    table_metrics,
    usefulness,
)
from jensen.inference.row_scores import Cell

TWO = Columns(("x", "y", "c", "d"), (True, True, False, False), np.array([0, 0, 3, 2]))


def rows(count: int, seed: int, *, related: bool = True) -> np.ndarray:
    """Two numbers of correlation 0.8 and two categories, of which the first follows the sign of x; some are missing."""
    rng = np.random.default_rng(seed)
    x, noise, c = rng.normal(size=count), rng.normal(size=count), rng.integers(0, 3, count)
    y = (0.8 * x if related else 0.8 * rng.normal(size=count)) + 0.6 * noise
    d = x > 0 if related else rng.random(count) < 0.5
    found = np.stack([x, y, c, d], 1).astype(float)
    found[rng.random(found.shape) < 0.1] = np.nan
    return found


def test_shapes_are_those_of_scipy_and_of_counting() -> None:
    a, b = rows(300, 0), rows(200, 1) + np.array([0.5, 0, 0, 0])
    found = shapes(a, b, TWO)
    for place in (0, 1):
        known = [of[:, place][~np.isnan(of[:, place])] for of in (a, b)]
        assert found[place] == pytest.approx(1 - ks_2samp(*known).statistic, abs=1e-12)
    shares = [
        [np.nanmean(np.where(np.isnan(of[:, 2]), np.nan, of[:, 2] == code)) for code in range(3)] for of in (a, b)
    ]
    assert found[2] == pytest.approx(1 - np.abs(np.subtract(*shares)).sum() / 2, abs=1e-12)
    assert shapes(a, a, TWO) == pytest.approx(np.ones(4))


def test_pairs_of_numbers_have_the_correlation_of_pandas() -> None:
    import pandas

    a, b = rows(300, 0), rows(200, 1, related=False)
    other = [pandas.DataFrame(of).corr().iloc[0, 1] for of in (a, b)]
    found = pair_trends(a, b, TWO)
    assert found[0] == pytest.approx(1 - abs(other[0] - other[1]) / 2, abs=1e-9)
    assert pair_trends(a, a, TWO) == pytest.approx(np.ones(6))
    both = [of[~np.isnan(of[:, 2:]).any(1), 2:] for of in (a, b)]
    tables = [np.histogram2d(of[:, 0], of[:, 1], [np.arange(4) - 0.5, np.arange(3) - 0.5])[0] / len(of) for of in both]
    assert found[5] == pytest.approx(1 - np.abs(tables[0] - tables[1]).sum() / 2, abs=1e-12)


def test_a_shift_of_units_changes_no_trend() -> None:
    a, b = rows(300, 0), rows(200, 1)
    scaled = [of * np.array([1e9, -3, 1, 1]) + np.array([1e12, 5, 0, 0]) for of in (a, b)]
    assert pair_trends(*scaled, TWO)[0] == pytest.approx(pair_trends(a, b, TWO)[0], abs=1e-6)


def test_rows_of_one_law_are_not_told_apart_and_others_are() -> None:
    # A fair detector's interval misses 1 - 2 sd of its noise in 5 % of seeds; these seeds are fixed
    same, other = detection(rows(300, 0), rows(300, 1), TWO), detection(rows(300, 0), rows(300, 1) + 3, TWO)
    assert same.value > 0.8
    assert same.high > 0.97
    assert other.value < 0.05
    unrelated = detection(rows(600, 0, related=False), rows(600, 1), TWO)
    assert unrelated.value < 0.6  # only the relation of columns differs, which no single column shows
    assert shapes(rows(600, 0, related=False), rows(600, 1), TWO).min() > 0.9


def test_usefulness_is_that_of_the_rows_that_teach() -> None:
    fresh = rows(400, 1)
    good, bad = (usefulness(rows(400, 0, related=related), fresh, TWO, 3) for related in (True, False))
    assert good.value > 0.85
    assert bad.low < 0.6
    number = usefulness(rows(400, 0), fresh, TWO, 1)
    assert 0.3 < number.value < 0.7  # the share that x explains is 0.64, less for cells that are missing


def test_the_metrics_of_a_table_and_distances_between_its_rows() -> None:
    rng = np.random.default_rng(0)
    source = {"size": rng.lognormal(size=200), "kind": rng.choice(["a", "b", "c"], 200)}
    table = read_table(cells_in_memory(source), ReadOptions())
    matrix, known = np.asarray(table.values[:]), table.table
    found = table_metrics(matrix[:80], matrix[:120], matrix[120:], known, "kind")
    assert found.held_out == 80
    assert found.floor.rows == 80
    import torch

    features = row_features(matrix, known)
    three = features(torch.from_numpy(np.array([[1.0, 0], [1.0, 1], [np.nan, 0]])))
    distance = torch.cdist(three.double(), three.double())
    assert float(distance[0, 1]) == pytest.approx(1, abs=1e-6)  # two categories
    rank = float(three[0].double() @ three[0].double()) - 0.5  # the square of the normal score of 1
    assert float(distance[0, 2]) == pytest.approx(np.sqrt(0.5 + rank), abs=1e-5)


def test_a_cell_says_how_much_less_likely_it_is_than_usual() -> None:
    assert str(Cell("pay", -17.2, -8.634)) == "pay -17.20 (usually -8.63)"
