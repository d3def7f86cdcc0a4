"""The kernel two-sample test (are two sets from one distribution?), and the sliced Wasserstein distance."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from jensen.features.jackknife import Interval, parts
from jensen.features.neighbours import blocks, comparable, squared_distances
from jensen.progress import track
from jensen.randomness import Stream, generator
from jensen.records import Value

MEDIAN_OF = 2000  # maximum number of examples whose median distance is the bandwidth
PERMUTATIONS, PROJECTIONS = 999, 200
TEST, DIRECTIONS, MEDIAN = 0, 1, 2  # purposes of random numbers

# ---------------------------------------------------------------------------------------------- kernel two-sample test


class KernelTest(Value):
    """The unbiased MMD² (maximum mean discrepancy) of two sets, and the p-value of a common distribution."""

    squared: Interval
    """MMD², unbiased, so it may be negative. The jackknife interval is too wide for two sets of one distribution."""
    p_value: float
    """The p-value of the one-sided permutation test."""
    bandwidth: float
    """s, the median distance."""


def kernel_test(a: Tensor, b: Tensor, *, permutations: int = PERMUTATIONS, seed: int = 0) -> KernelTest:
    """The unbiased estimate of MMD² between features a (n, d) and b (m, d), and its permutation p-value.

    MMD² = E k(a, a') + E k(b, b') - 2 E k(a, b), without pairs of an example with itself. The kernel k(x, y) is the
    mean of exp(-|x - y|² / 2h²) over h = s/2, s, 2s. Here s is the median distance between different examples of the
    union of both sets, or of 2,000 random examples of the union. The examples are divided at random `permutations`
    times into sets of n and m. The p-value is (1 + the number of divisions with an MMD² at least as large) / (1 +
    permutations). If both sets are from one distribution, the p-value is at most p with probability at most p, for any
    n, m and d. Memory grows with (n + m) permutations, time with (n + m)². Raises `InputError` for fewer than four
    examples, for different d, and for numbers that are not finite. Source: Gretton et al. 2012, lemma 6 and section 8.
    """
    pooled = torch.cat(comparable("a kernel two-sample test", 4, a, b))
    n, m = len(a), len(b)
    bandwidth = _median_distance(pooled, seed)
    first = torch.zeros(n + m, 1 + permutations, dtype=torch.float64)
    first[:n, 0] = 1
    source = generator(seed, Stream.EVALUATION, TEST)
    for column in range(1, 1 + permutations):
        first[torch.randperm(n + m, generator=source)[:n], column] = 1
    part_a, part_b = parts(n), parts(m)
    groups = F.one_hot(torch.cat([part_a, part_b + part_a.max() + 1])).double()
    within, reach, total, between = _kernel_sums(pooled, bandwidth, first, groups)
    squared = _squared(within, reach - within, total - 2 * reach + within, n, m)
    # Divisions with equal MMD² may differ by rounding, and must count as equal
    as_large = (squared[1:] >= squared[0] - 1e-12 * squared[0].abs()).sum().item()
    left = _parts_left(between, part_a.bincount(), part_b.bincount())
    interval = Interval.around(squared[0].item(), *left)
    return KernelTest(squared=interval, p_value=(1 + as_large) / (1 + permutations), bandwidth=bandwidth)


def _squared(aa: Tensor, ab: Tensor, bb: Tensor, n: Tensor | int, m: Tensor | int) -> Tensor:
    """MMD² from sums of k over ordered pairs of different examples."""
    return aa / (n * (n - 1)) + bb / (m * (m - 1)) - 2 * ab / (n * m)


def _kernel_sums(
    pooled: Float[Tensor, " count dims"],
    bandwidth: float,
    first: Float[Tensor, " count divisions"],
    groups: Float[Tensor, " count groups"],
) -> tuple[
    Float[Tensor, " divisions"], Float[Tensor, " divisions"], Float[Tensor, ""], Float[Tensor, " groups groups"]
]:
    """Sums of k over pairs of different examples: within each `first`, from each to all, over all, between groups."""
    within, reach = torch.zeros(2, first.shape[1], dtype=torch.float64)
    between = torch.zeros(groups.shape[1], groups.shape[1], dtype=torch.float64)
    total, start = torch.zeros((), dtype=torch.float64), 0
    for part in track(blocks(pooled, pooled), "kernel two-sample test"):
        rows = slice(start, start + len(part))
        start += len(part)
        kernel = squared_distances(part, pooled).mul_(-1 / (8 * bandwidth**2)).exp_()  # h = 2s
        kernel = (kernel + kernel.pow(4) + kernel.pow(16)) / 3  # h = 2s, s, s/2
        kernel[torch.arange(len(part)), torch.arange(rows.start, rows.stop)] = 0
        within += (first[rows] * (kernel @ first)).sum(0)
        reach += first[rows].T @ kernel.sum(1)
        between += groups[rows].T @ (kernel @ groups)
        total += kernel.sum()
    return within, reach, total, between


def _parts_left(
    between: Float[Tensor, " groups groups"], sizes_a: Int[Tensor, " a"], sizes_b: Int[Tensor, " b"]
) -> tuple[list[float], list[float]]:
    """MMD² without each part of a, and without each part of b."""
    split, n, m = len(sizes_a), int(sizes_a.sum()), int(sizes_b.sum())
    keep = 1 - torch.eye(len(between), dtype=torch.float64)
    in_a = torch.arange(len(between)) < split
    a, b = keep * in_a, keep * ~in_a
    aa, ab, bb = (torch.einsum("gi,ij,gj->g", left, between, right) for left, right in ((a, a), (a, b), (b, b)))
    n_left = n - torch.cat([sizes_a, torch.zeros_like(sizes_b)])
    m_left = m - torch.cat([torch.zeros_like(sizes_a), sizes_b])
    values = _squared(aa, ab, bb, n_left, m_left).tolist()
    return values[:split], values[split:]


def _median_distance(pooled: Tensor, seed: int) -> float:
    """The median distance between different examples; 1 if all are the same."""
    order = torch.randperm(len(pooled), generator=generator(seed, Stream.EVALUATION, MEDIAN))
    distances = torch.nn.functional.pdist(pooled[order[:MEDIAN_OF]])
    apart = distances[distances > 0]
    return apart.median().item() if len(apart) else 1.0


# ---------------------------------------------------------------------------------------------- sliced Wasserstein


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = PROJECTIONS, seed: int = 0) -> Interval:
    """SW_2 = (E_θ W_2²(θ·a, θ·b))^½ between features a (n, d) and b (m, d), over random unit vectors θ.

    Each W_2 is exact for any n and m. The directions θ are a pure function of (seed, d, projections). The jackknife
    interval does not include the randomness of θ. For two sets from one distribution the estimate is about n^-½ too
    large, so compare distances for equal n. Raises `InputError` like `kernel_test`. Source: Bonneel et al. 2015,
    section 3.
    """
    a, b = comparable("a sliced Wasserstein distance", 3, a, b)
    source = generator(seed, Stream.EVALUATION, DIRECTIONS)
    directions = F.normalize(torch.randn(a.shape[1], projections, generator=source, dtype=torch.float64), dim=0)
    shadow_a, shadow_b = (directions.T @ x.T for x in (a, b))
    (sorted_a, order_a), (sorted_b, order_b) = shadow_a.sort(1), shadow_b.sort(1)
    left_a = [_root(rest, sorted_b) for rest in track(_sorted_parts_left(sorted_a, order_a), "sliced Wasserstein")]
    left_b = [_root(sorted_a, rest) for rest in track(_sorted_parts_left(sorted_b, order_b), "sliced Wasserstein")]
    return Interval.around(_root(sorted_a, sorted_b), left_a, left_b)


def _sorted_parts_left(
    ascending: Float[Tensor, " projections count"], order: Int[Tensor, " projections count"]
) -> Iterator[Tensor]:
    """Every row without each part of the examples in turn; `order` gives the index of the example at each position."""
    part = parts(order.shape[1])
    for gone in part.unique():
        yield ascending[part[order] != gone].reshape(len(ascending), -1)


def _root(a: Tensor, b: Tensor) -> float:
    return math.sqrt(wasserstein(a, b, order=2).mean().item())


def wasserstein(
    a: Float[Tensor, " projections a"], b: Float[Tensor, " projections b"], *, order: int
) -> Float[Tensor, " projections"]:
    """W_p^p = ∫ |F_a^-1(u) - F_b^-1(u)|^p du, p = `order`, exact, for every row; rows are sorted, of any lengths."""
    n, m = a.shape[1], b.shape[1]
    ends = torch.cat([m * torch.arange(1, n + 1), n * torch.arange(1, m + 1)]).unique()  # of steps, times 1 / nm
    starts = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1]])
    difference = a[:, starts // m] - b[:, starts // n]
    return difference.abs_().pow_(order) @ (ends - starts).to(difference.dtype) / (n * m)
