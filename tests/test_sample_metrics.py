"""Two-sample tests, fidelity, memorisation: against brute force, closed forms and laws whose answer is known."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.features.copies import Nearest, memorisation, near_copies_interval
from jensen.features.frechet_distance import frechet
from jensen.features.jackknife import Interval, parts
from jensen.features.neighbours import nearest
from jensen.features.precision_recall import Fidelity, fidelity
from jensen.features.sample_metrics import check_samples
from jensen.features.two_sample import kernel_test, sliced_wasserstein, wasserstein
from jensen.randomness import generator
from jensen.report.sample_metrics import metrics_table, nearest_chart, verdict


def _normal(seed: int, count: int, dims: int) -> Tensor:
    return torch.randn(count, dims, generator=generator(seed, 11), dtype=torch.float64)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances come in many blocks, the last one smaller."""
    monkeypatch.setattr("jensen.features.neighbours.PAIRS", 700)


# ---------------------------------------------------------------------------------------------- kernel two-sample test


def _kernel(x: Tensor, y: Tensor, scale: float) -> float:
    squared = float((x - y).square().sum())
    return sum(math.exp(-squared / (2 * (factor * scale) ** 2)) for factor in (0.5, 1, 2)) / 3


def _brute_force(a: Tensor, b: Tensor, scale: float) -> float:
    n, m = len(a), len(b)
    aa = sum(_kernel(a[i], a[j], scale) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    bb = sum(_kernel(b[i], b[j], scale) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return aa + bb - 2 * sum(_kernel(x, y, scale) for x in a for y in b) / (n * m)


@pytest.mark.usefixtures("small_blocks")
def test_mmd_is_the_sum_over_pairs() -> None:
    a, b = _normal(0, 25, 3), _normal(1, 30, 3) * 1.3 + 0.4
    found = kernel_test(a, b, permutations=9)
    assert found.bandwidth == pytest.approx(torch.nn.functional.pdist(torch.cat([a, b])).median().item(), rel=1e-12)
    assert found.squared.value == pytest.approx(_brute_force(a, b, found.bandwidth), rel=1e-10)


@pytest.mark.usefixtures("small_blocks")
def test_the_jackknife_of_mmd_leaves_out_each_example_of_small_sets() -> None:
    a, b = _normal(0, 12, 2), _normal(1, 15, 2) + 1
    found = kernel_test(a, b, permutations=1)
    left_a = [_brute_force(torch.cat([a[:i], a[i + 1 :]]), b, found.bandwidth) for i in range(12)]
    left_b = [_brute_force(a, torch.cat([b[:i], b[i + 1 :]]), found.bandwidth) for i in range(15)]
    expected = Interval.around(found.squared.value, left_a, left_b)
    assert found.squared.high == pytest.approx(expected.high, rel=1e-9)


def test_p_values_are_uniform_under_the_null_and_small_for_a_shift() -> None:
    null, shifted = [], []
    for seed in range(150):
        a, b = _normal(seed, 20, 4), _normal(seed + 1000, 30, 4)
        null.append(kernel_test(a, b, permutations=99, seed=seed).p_value)
        shifted.append(kernel_test(a, b + 1, permutations=99, seed=seed).p_value)
    # Uniform on 1/100 .. 100/100, 0.005 from uniform on [0, 1]; the test fails in one of 1e4 cases
    assert scipy.stats.kstest(np.array(null) - 0.005, "uniform").pvalue > 1e-4
    assert np.mean(np.array(shifted) <= 0.05) > 0.95


def test_mmd_does_not_know_where_the_origin_is() -> None:
    a, b = _normal(0, 30, 3), _normal(1, 30, 3)
    near, far = kernel_test(a, b), kernel_test(a + 1e4, b + 1e4)
    assert far.squared.value == pytest.approx(near.squared.value, abs=1e-9)
    assert far.p_value == near.p_value


def test_sets_of_one_point_are_no_evidence() -> None:
    found = kernel_test(torch.zeros(10, 2), torch.zeros(10, 2))
    assert (found.squared.value, found.p_value) == (0, 1)


# ---------------------------------------------------------------------------------------------- sliced Wasserstein


@pytest.mark.parametrize("counts", [(40, 40), (40, 28), (7, 30)])
def test_wasserstein_is_scipys_in_one_dimension(counts: tuple[int, int]) -> None:
    a, b = _normal(0, counts[0], 3), _normal(1, counts[1], 3) * 2 + 1
    found = wasserstein(a.T.sort(1).values, b.T.sort(1).values, order=1)
    expected = [scipy.stats.wasserstein_distance(a[:, i].numpy(), b[:, i].numpy()) for i in range(3)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_wasserstein_of_equal_sizes_pairs_in_order() -> None:
    a, b = _normal(0, 50, 4), _normal(1, 50, 4)
    in_order = [x.T.sort(1).values for x in (a, b)]
    expected = (in_order[0] - in_order[1]).square().mean(1)
    assert torch.allclose(wasserstein(*in_order, order=2), expected, rtol=1e-12)


def test_sliced_wasserstein_of_gaussians() -> None:
    # N(0, s²) and N(μ, t²) in 3 dimensions: SW_2² = |μ|² / 3 + (s - t)², the mean over directions of (θ·μ)² + (s - t)²
    mean = torch.tensor([2.0, 1.0, 2.0], dtype=torch.float64)
    found = sliced_wasserstein(_normal(0, 1000, 3), 3 * _normal(1, 1000, 3) + mean, projections=300)
    # (θ·μ)² / |μ|² has mean 1/3, sd 0.3: over 300 directions 0.16 of 7, samples 0.25; 10 % of SW is 4.5 sigma
    assert found.value == pytest.approx(math.sqrt(9 / 3 + 4), rel=0.1)
    same = _normal(0, 100, 3)
    assert sliced_wasserstein(same, same).value == 0
    assert sliced_wasserstein(same, same + 5, seed=1).value == sliced_wasserstein(same, same + 5, seed=1).value


def test_the_jackknife_of_sliced_wasserstein_leaves_parts_out() -> None:
    a, b = _normal(0, 33, 3), _normal(1, 50, 3) + 1
    part_a, part_b = parts(33), parts(50)
    left_a = [sliced_wasserstein(a[part_a != gone], b).value for gone in part_a.unique()]
    left_b = [sliced_wasserstein(a, b[part_b != gone]).value for gone in part_b.unique()]
    found = sliced_wasserstein(a, b)
    assert found.high == pytest.approx(Interval.around(found.value, left_a, left_b).high, rel=1e-9)


# ---------------------------------------------------------------------------------------------- fidelity


def _by_definition(real: Tensor, samples: Tensor, k: int) -> list[float]:
    between = torch.cdist(real, samples, compute_mode="donot_use_mm_for_euclid_dist")
    radii = [
        torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        .fill_diagonal_(torch.inf)
        .sort(1)
        .values[:, k - 1]
        for x in (real, samples)
    ]
    inside = between <= radii[0][:, None]
    return [
        inside.any(0).double().mean().item(),
        (between <= radii[1]).any(1).double().mean().item(),
        inside.sum().item() / (k * len(samples)),
        inside.any(1).double().mean().item(),
    ]


def _four(found: Fidelity) -> list[Interval]:
    return [found.precision, found.recall, found.density, found.coverage]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("counts", "k"), [((60, 45), 3), ((45, 60), 5), ((12, 14), 5), ((50, 50), 1)])
def test_fidelity_is_its_definition_and_its_jackknife_leaves_parts_out(counts: tuple[int, int], k: int) -> None:
    real, samples = _normal(0, counts[0], 2), _normal(1, counts[1], 2) * 0.8 + 0.5
    found = _four(fidelity(real, samples, k=k))
    expected = _by_definition(real, samples, k)
    assert [one.value for one in found] == pytest.approx(expected, abs=1e-12)
    part_x, part_y = parts(counts[0]), parts(counts[1])
    left_x = [_by_definition(real[part_x != gone], samples, k) for gone in part_x.unique()]
    left_y = [_by_definition(real, samples[part_y != gone], k) for gone in part_y.unique()]
    density = Interval.around(expected[2], *([row[2] for row in rows] for rows in (left_x, left_y)))
    assert (found[2].low, found[2].high) == pytest.approx((density.low, density.high), abs=1e-12)
    for place, count in ((0, counts[1]), (1, counts[0]), (3, counts[0])):
        interval = Interval.share(expected[place], count, *([row[place] for row in rows] for rows in (left_x, left_y)))
        assert (found[place].low, found[place].high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_fidelity_of_the_same_and_of_sets_far_apart() -> None:
    a = _normal(0, 100, 3)
    same, apart = _four(fidelity(a, a)), _four(fidelity(a, a + 100))
    assert [one.value for one in same] == pytest.approx([1, 1, 6 / 5, 1])  # each example lies in its own ball too
    assert [one.value for one in apart] == [0, 0, 0, 0]
    assert apart[0].high > 0  # none of 100 is no proof of none


def test_fidelity_tells_a_lost_mode_from_a_bad_one() -> None:
    two = _normal(0, 400, 2) + 20 * (torch.arange(400) % 2)[:, None]
    lost = fidelity(two, _normal(1, 400, 2))
    bad = fidelity(_normal(2, 400, 2), two)
    assert lost.precision.value > 0.9
    assert lost.recall.high < 0.6
    assert lost.coverage.high < 0.6
    assert bad.precision.high < 0.6
    assert bad.recall.value > 0.9


# ---------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("name", ["precision", "recall", "density", "coverage", "sliced", "mmd"])
def test_intervals_hold_the_mean_over_repetitions(name: str) -> None:
    found = []
    for seed in range(80):
        a, b = _normal(seed, 100, 2), _normal(seed + 5000, 120, 2) * 1.5 + 0.5
        if name == "sliced":
            found.append(sliced_wasserstein(a, b, projections=20))
        elif name == "mmd":
            found.append(kernel_test(a, b, permutations=1).squared)
        else:
            found.append(getattr(fidelity(a, b), name))
    mean = np.mean([one.value for one in found])
    held = np.mean([one.low <= mean <= one.high for one in found])
    # 95 % of 80 have sd 2.4 %: below 0.85 in less than one of 1e4 cases
    assert held > 0.85
    spread = np.std([one.value for one in found])
    width = np.mean([one.high - one.low for one in found]) / 2
    assert width < 2 * 1.96 * spread  # not wide of the mark either


def test_the_bootstrap_of_memorisation_holds_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jensen.features.copies.RESAMPLES", 200)
    held = []
    for seed in range(120):
        distances = Nearest(
            _normal(seed, 60, 1)[:, 0].exp(),
            torch.zeros(60, dtype=torch.long),
            (_normal(seed + 5000, 150, 1)[:, 0] + 0.5).exp(),
        )
        found = memorisation(distances, seed).closer
        held.append(found.low <= scipy.stats.norm.cdf(0.5 / math.sqrt(2)) <= found.high)
    # 95 % of 120 have sd 2 %, and 200 resamples cost 1 %: below 0.86 in less than one of 1e4 cases
    assert np.mean(held) > 0.86


# ---------------------------------------------------------------------------------------------- memorisation


@pytest.mark.usefixtures("small_blocks")
def test_nearest_is_exact_for_copies_far_from_the_origin() -> None:
    others, x = _normal(0, 83, 6) + 1e3, _normal(1, 31, 6) + 1e3
    x[7] = others[40]
    distance, row = nearest(x, others)
    expected = torch.cdist(x, others, compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(row, expected.argmin(1))
    assert torch.allclose(distance, expected.amin(1), rtol=1e-12)
    assert (distance[7], row[7]) == (0, 40)


def test_fresh_data_are_not_flagged_more_often_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jensen.features.copies.RESAMPLES", 1)  # of the intervals, which are not looked at
    p_values = []
    for seed in range(300):
        train, fresh, held_out = _normal(seed, 60, 3), _normal(seed + 1000, 40, 3), _normal(seed + 2000, 150, 3)
        found = memorisation(Nearest.of(fresh, train, held_out), seed)
        p_values.append((found.p_value, found.near_copies_p_value))
    closer, copies = np.array(p_values).T
    assert scipy.stats.kstest(closer, "uniform").pvalue > 1e-4  # fails in one of 1e4 cases
    # P(p <= 0.05) is at most 0.05, of 300 with sd 1.3 %: more than 0.10 in less than one of 1e4 cases
    assert np.mean(copies <= 0.05) < 0.10


def test_the_exceedance_probability_is_that_of_random_ranks() -> None:
    n, m, rank = 30, 199, 2  # 1 % of 199 + 1
    order = torch.rand(20000, n + m, generator=generator(4)).argsort(1)  # the first n are samples
    held_out_place = (order >= n).cumsum(1)
    below = ((held_out_place < rank) & (order < n)).sum(1)
    for count in (1, 2, 3):
        distances = Nearest(
            torch.cat([torch.zeros(count), torch.full((n - count,), 9.0)]).double(),
            torch.zeros(n, dtype=torch.long),
            torch.arange(1, m + 1).double(),
        )
        found = memorisation(distances)
        assert (found.near_copies.value, found.threshold) == (count / n, rank)
        assert found.near_copies_p_value == pytest.approx((below >= count).double().mean().item(), abs=0.012)  # 4 sigma


def test_copies_are_flagged_among_good_and_among_bad_samples() -> None:
    train, fresh, held_out = _normal(0, 300, 8), _normal(1, 150, 8), _normal(2, 300, 8)
    copies = train[:150] + 0.01 * _normal(3, 150, 8)
    all_copied = memorisation(Nearest.of(copies, train, held_out))
    assert all_copied.closer.value > 0.999
    assert all_copied.near_copies.value == 1
    assert max(all_copied.p_value, all_copied.near_copies_p_value) < 1e-20
    assert "Warning" in verdict(all_copied)
    # 15 copies among samples that are worse than fresh ones: not nearer on average, yet near copies
    hidden = memorisation(Nearest.of(torch.cat([copies[:15], 1.5 * fresh]), train, held_out))
    assert hidden.p_value > 0.1
    assert hidden.near_copies_p_value < 1e-4
    assert hidden.near_copies.low > hidden.expected
    assert "Warning" in verdict(hidden)
    plain = memorisation(Nearest.of(fresh, train, held_out))
    assert "No sign" in verdict(plain)


def test_the_verdict_follows_from_every_number() -> None:
    """Fresh samples but 4 of 20 copies: p = 0.02, and the interval of the near copies lies above what is expected."""
    held_out = torch.arange(1, 201).double()
    own = torch.cat([torch.full((2,), 0.5), torch.linspace(5, 195, 18)]).double()
    weak = memorisation(Nearest(own, torch.zeros(20, dtype=torch.long), held_out))
    assert 0.005 < weak.near_copies_p_value < 0.025
    assert weak.near_copies.low > weak.expected
    assert weak.adjusted_p_value == pytest.approx(2 * weak.near_copies_p_value)
    assert weak.sign == "weak"
    assert "weak sign" in verdict(weak)
    for p, other, low, sign in ((0.9, 0.9, 0.4, "none"), (0.9, 0.004, 0.4, "clear"), (0.9, 0.9, 0.51, "weak")):
        closer = Interval(value=0.6, low=low, high=0.7)
        changed = {"p_value": p, "near_copies_p_value": other, "closer": closer, "near_copies": Interval.share(0, 20)}
        assert weak.model_copy(update=changed).sign == sign


@pytest.mark.parametrize(("n", "m", "rank"), [(20, 99, 1), (100, 300, 3), (500, 100, 1), (7, 1, 1)])
def test_the_interval_of_near_copies_agrees_with_their_test(n: int, m: int, rank: int) -> None:
    for count in range(0, n + 1, max(1, n // 50)):
        found = near_copies_interval(count, n, m, rank)
        p = float(scipy.stats.hypergeom.cdf(rank - 1, n + m, m, count + rank - 1)) if count else 1.0
        if abs(p - 0.025) > 0.001:  # the threshold's law is a sum over 2,000 quantiles
            assert (found.low > rank / (m + 1)) == (p < 0.025)
        assert found.low <= found.value <= found.high


def test_one_held_out_example_gives_numbers() -> None:
    found = memorisation(Nearest(torch.rand(5).double(), torch.zeros(5, dtype=torch.long), torch.rand(1).double()))
    numbers = [found.p_value, found.near_copies_p_value, found.adjusted_p_value, found.threshold]
    numbers += [value for one in (found.closer, found.near_copies) for value in (one.value, one.low, one.high)]
    assert all(map(math.isfinite, numbers))
    assert found.sign != "clear"


def test_an_interval_that_is_unknown_says_so() -> None:
    two = Interval.of(frechet(_normal(0, 2, 3), _normal(1, 2, 3)))
    assert str(two).endswith("(interval unknown: too few examples)")


def test_shares_near_0_and_1_have_an_interval_of_at_least_their_binomial_width() -> None:
    found = Interval.share(0.99, 100, [0.99] * 20)  # the jackknife saw nothing
    assert (found.value, found.high) == (0.99, 1.0)
    assert found.low == pytest.approx(0.99 - 2.093 * math.sqrt(100 / 102 * 2 / 102 / 100))


def test_ties_count_half() -> None:
    zero = torch.zeros(20, dtype=torch.float64)
    found = memorisation(Nearest(zero, torch.zeros(20, dtype=torch.long), zero))
    assert found.closer.value == 0.5
    assert found.near_copies.value == 0  # no nearer than held-out examples


# ---------------------------------------------------------------------------------------------- all at once


def test_any_function_gives_the_features_and_nothing_depends_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, samples = (_normal(seed, count, 4).float() for seed, count in ((0, 90), (1, 60), (2, 50)))
    seen = []

    def halves(raw: Tensor) -> Tensor:
        seen.append(len(raw))
        return raw[:, :2] / 2

    def metrics() -> str:
        return check_samples(samples, train, test, features=halves, name="halves", seed=3).metrics.model_dump_json()

    whole = metrics()
    assert seen == [50, 90, 60]
    assert '"features":"halves"' in whole
    check = check_samples(samples, train, test, features=halves, name="halves", seed=3)
    assert check.metrics.samples.test == 50
    assert check.metrics.floor.count == 50
    assert check.metrics.memorisation.held_out == 60
    assert check.metrics.memorisation_floor.samples == 30
    assert metrics_table(check.metrics).row_count == 10
    assert nearest_chart(check.nearest, check.metrics.memorisation, None).axes
    monkeypatch.setattr("jensen.features.neighbours.PAIRS", 333)
    again = check_samples(samples, train, test, features=halves, name="halves", seed=3)
    assert again.metrics.samples.fidelity == check.metrics.samples.fidelity
    assert again.metrics.memorisation == check.metrics.memorisation
    assert again.metrics.samples.kernel.p_value == check.metrics.samples.kernel.p_value


def test_what_cannot_be_measured_is_refused() -> None:
    a = _normal(0, 30, 3)
    for other in (a[:3], a[:, :2], a[:, 0], a.where(a < a.max(), torch.nan)):
        with pytest.raises(InputError, match="kernel two-sample test of features"):
            kernel_test(a, other)
        with pytest.raises(InputError, match="precision and recall by 5 neighbours"):
            fidelity(a, other)
    with pytest.raises(InputError, match="0 nearest neighbours"):
        fidelity(a, a, k=0)
    with pytest.raises(InputError, match="sliced Wasserstein"):
        sliced_wasserstein(a, a[:2])
    with pytest.raises(InputError, match="memorised"):
        Nearest.of(a, a[:0], a)
    with pytest.raises(InputError, match="11 samples and 5 neighbours: expected at least 12"):
        check_samples(a[:11], a, a, features=lambda raw: raw, name="raw")
