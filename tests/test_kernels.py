"""Kernel densities against scipy, integrals and invariances; the novelty score against invariances and planted rows."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.mixture import KernelDensity, Novelty
from jensen.mixture import kernels as module
from jensen.mixture.kernels import column_variances
from jensen.mixture.novelty import compress

EXACT = {"rtol": 1e-8, "atol": 1e-8}


def rows(count: int, seed: int = 0) -> Tensor:
    """Two curved groups of correlated columns."""
    source = np.random.default_rng(seed)
    first = source.normal(size=count)
    group = 6 * (np.arange(count) % 2)
    return torch.from_numpy(np.stack([first, 0.5 * first**2 + 0.1 * source.normal(size=count) + group], 1))


@pytest.fixture(scope="module")
def density() -> KernelDensity:
    return KernelDensity.fit(rows(90))


def test_column_variances_are_those_of_the_columns() -> None:
    x = rows(90)
    variances = x.numpy().var(0)
    density = KernelDensity.fit(x, column_variances)
    found = torch.from_numpy(np.sqrt(variances + module.RIDGE * variances.mean()))
    torch.testing.assert_close(density.cholesky, found.diag()[None])


def brute_force(density: KernelDensity, x: Tensor, kernels: Tensor) -> np.ndarray:
    """Σ over `kernels` and bandwidths by scipy, divided by their number."""
    total = np.zeros(len(x))
    for c, factor in enumerate(density.cholesky):
        centres = density.rows[kernels[density.cluster[kernels] == c]]
        differences = (x[:, None] - centres).numpy()
        for k, weight in enumerate(density.log_weights.exp().tolist()):
            kernel = scipy.stats.multivariate_normal(np.zeros(2), 2.25 / 2**k * (factor @ factor.mT).numpy())
            total += weight * kernel.pdf(differences).reshape(differences.shape[:2]).sum(1)
    return np.log(total / len(kernels))


def test_log_prob_is_scipys(density: KernelDensity) -> None:
    assert len(density.cholesky) == 4  # 90 rows, at least 20 for each
    x = rows(12, seed=1)
    torch.testing.assert_close(
        density.log_prob(x), torch.from_numpy(brute_force(density, x, torch.arange(90))), **EXACT
    )


def test_a_held_out_row_meets_only_the_other_kernels(density: KernelDensity) -> None:
    found = density.held_out_log_prob(seed=3)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(3))
    for place in (0, 40, 89):
        i = int(order[place])
        others = torch.tensor([j for j in range(90) if j != i])
        expected = float(brute_force(density, density.rows[i : i + 1], others)[0])
        assert float(found[place]) == pytest.approx(expected, abs=1e-8)


def test_the_density_integrates_to_one() -> None:
    grid = torch.linspace(-30, 40, 20_001, dtype=torch.float64)
    total = KernelDensity.fit(rows(90)[:, 1:]).log_prob(grid[:, None]).exp().sum() * (grid[1] - grid[0])
    assert float(total) == pytest.approx(1, abs=1e-6)


def test_the_unit_adds_its_logarithm_and_nothing_else(density: KernelDensity) -> None:
    x = rows(12, seed=1)
    scaled = KernelDensity.fit(1000 * rows(90) + 5).log_prob(1000 * x + 5)
    torch.testing.assert_close(scaled, density.log_prob(x) - 2 * math.log(1000), rtol=1e-6, atol=1e-6)


def test_the_weights_are_a_maximum(density: KernelDensity) -> None:
    terms = density._held_out_terms(0)
    shares = (terms + density.log_weights).softmax(1).mean(0)
    slopes = shares / density.log_weights.exp()  # of the mean log-likelihood, by weight: at a maximum none exceeds 1
    assert float(slopes.max()) < 1 + 2e-3


def test_parts_do_not_change_a_number(density: KernelDensity, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(40, seed=1)
    whole, held = density.log_prob(x), density.held_out_log_prob()
    monkeypatch.setattr(module, "PAIRS", 100)
    torch.testing.assert_close(density.log_prob(x), whole, **EXACT)
    torch.testing.assert_close(density.held_out_log_prob(), held, **EXACT)


def test_equal_rows_and_columns_without_variance_are_allowed() -> None:
    x = torch.cat([rows(30), torch.zeros(30, 1)], 1).repeat(3, 1)
    density = KernelDensity.fit(x)
    assert bool(density.log_prob(x).isfinite().all())
    assert bool(density.held_out_log_prob().isfinite().all())


@pytest.mark.parametrize("wrong", [torch.zeros(1, 2), torch.ones(5, 2), torch.tensor([[1.0], [math.nan]])])
def test_what_has_no_density_is_refused(wrong: Tensor) -> None:
    with pytest.raises(InputError, match="kernel density: expected"):
        KernelDensity.fit(wrong)


# ---------------------------------------------------------------------------------------------- novelty


def test_novelty_does_not_depend_on_units() -> None:
    x, new = rows(90), rows(12, seed=1)
    unit, origin = torch.tensor([1000.0, -0.01]).double(), torch.tensor([3.0, -7.0]).double()
    expected = Novelty.fit(x)(new)
    torch.testing.assert_close(Novelty.fit(unit * x + origin)(unit * new + origin), expected, rtol=1e-6, atol=1e-6)


def test_novelty_finds_rows_whose_columns_do_not_belong_together() -> None:
    new = rows(200, seed=1)
    broken = torch.stack([new[:, 0], new[:, 1].roll(7)], 1)  # the same columns, joined at random
    novelty = Novelty.fit(rows(400))
    usual, unusual = novelty(new), novelty(broken)
    # 0.5 by chance, with a standard deviation of 0.03: false alarm below 1e-9. Some joined rows are usual by chance
    assert float((unusual[:, None] < usual).double().mean()) > 0.7


def test_novelty_is_finite_and_falls_with_distance() -> None:
    novelty = Novelty.fit(rows(90).float())
    far = torch.tensor([[10.0**power, 0.0] for power in range(1, 9)])
    score = novelty(far)
    assert bool(score.isfinite().all())
    assert bool((score.diff() < 0).all())


def test_novelty_is_the_mean_of_its_views() -> None:
    novelty, new = Novelty.fit(rows(90)), rows(12, seed=1)
    views = novelty.by_view(new)
    assert len(views) == 4
    torch.testing.assert_close(novelty(new), sum(views.values()) / 4)


def test_compression_is_odd_and_logarithmic() -> None:
    x = torch.tensor([-math.expm1(3), -math.expm1(1), 0, math.expm1(2)], dtype=torch.float64)
    torch.testing.assert_close(compress(x), torch.tensor([-3.0, -1, 0, 2], dtype=torch.float64))


def test_missing_cells_are_refused() -> None:
    x = rows(30)
    x[3, 1] = math.nan
    with pytest.raises(InputError, match="missing cells"):
        Novelty.fit(x)
