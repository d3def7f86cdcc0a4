"""Kernel densities, whose kernels have the covariance of the rows around them, or one variance for each column."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jensen.errors import InputError
from jensen.gaussian import LOG_SQRT_TWO_PI

WIDEST, HALVINGS = 1.5, 8  # the bandwidths: the widest, and how often its square is halved
CLUSTERS = 20
RIDGE = 0.01  # of the mean variance of a column, added to every covariance
SHRINKAGE = 0.3  # per column: the number of rows for which the covariance of all rows counts in a cluster's
HELD_OUT = 2000  # training rows, at most, by which the weights of the bandwidths are fitted
EM_STEPS, SLACK = 1000, 1e-3  # EM ends when no weight's slope exceeds that of a maximum by more than `SLACK`
PAIRS = 1 << 18  # of a row and a kernel, computed at once in the cache: changes speed, never a number


@dataclass(frozen=True, eq=False)
class KernelDensity:
    """p(x) = (1/N) Σ_i Σ_k w_k N(x | x_i, h_k² S_c(i)): a kernel (1.6) at every training row x_i.

    `rows` (N, d) are the x_i and `cluster` (N) their c(i); `cholesky` (clusters, d, d) holds the factors of S_c.
    `log_weights` (K) are log w_k. The bandwidths are h_k² = 1.5² / 2^k, k = 0..8, relative to S_c. log p(x) is exact,
    and its cost grows with N.
    """

    rows: Float[Tensor, "n d"]
    cluster: Int[Tensor, " n"]
    cholesky: Float[Tensor, "clusters d d"]
    log_weights: Float[Tensor, " bandwidths"]

    @classmethod
    def fit(
        cls, rows: Float[Tensor, "n d"], covariances: "Covariances | None" = None, *, seed: int = 0
    ) -> "KernelDensity":
        """The density with kernels at `rows`, in the precision of `rows`.

        `covariances` gives the S_c: `local_covariances` (default), or `column_variances`. The weights maximise the
        likelihood of up to 2,000 random rows, each under the kernels of all other rows. Raises `InputError` for less
        than two rows, and for rows that are not finite or all equal.
        """
        if rows.ndim != 2 or len(rows) < 2:
            raise InputError(f"rows of shape {tuple(rows.shape)} for a kernel density: expected (N, d) with N >= 2")
        if not bool(rows.isfinite().all()) or bool((rows == rows[0]).all()):
            raise InputError("rows for a kernel density: expected finite numbers that are not all equal")
        cluster, cholesky = (covariances or local_covariances)(rows, seed)
        flat = torch.full((HALVINGS + 1,), -math.log(HALVINGS + 1)).to(rows)
        density = cls(rows, cluster, cholesky, flat)
        return cls(rows, cluster, cholesky, _fitted_log_weights(density._held_out_terms(seed)))

    def log_prob(self, x: Float[Tensor, " batch d"]) -> Float[Tensor, " batch"]:
        """log p(x) in nats, exact."""
        return (self._terms(x.to(self.rows)) + self.log_weights).logsumexp(1)

    def held_out_log_prob(self, seed: int = 0) -> Float[Tensor, " rows"]:
        """log p(x_i) in nats under the kernels of all other rows, for up to 2,000 random training rows x_i."""
        return (self._held_out_terms(seed) + self.log_weights).logsumexp(1)

    def _held_out_terms(self, seed: int) -> Tensor:
        count = len(self.rows)
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:HELD_OUT].to(self.cluster)
        return self._terms(self.rows[chosen], chosen) + math.log(count / (count - 1))

    def _terms(self, x: Tensor, excluded: Tensor | None = None) -> Tensor:
        """log (1/N) Σ_i N(x | x_i, h_k² S_c(i)), (batch, K); for row j of x without the kernel excluded[j]."""
        log_bandwidths = math.log(WIDEST) - 0.5 * math.log(2) * torch.arange(HALVINGS + 1).to(x)
        dimensions = x.shape[1]
        total = x.new_full((len(x), HALVINGS + 1), -torch.inf)
        for c, factor in enumerate(self.cholesky):
            members = (self.cluster == c).nonzero()[:, 0]
            centre = self.rows[members].mean(0)  # near the kernels, lest the squares in a distance cancel
            kernels, points = (_whitened(part - centre, factor) for part in (self.rows[members], x))
            log_volume = factor.diagonal().log().sum() + dimensions * (LOG_SQRT_TWO_PI + log_bandwidths)
            size, sums = max(1, PAIRS // len(members)), []
            for start in range(0, len(x), size):
                without = None if excluded is None else excluded[start : start + size, None] == members
                sums.append(_log_kernel_sums(points[start : start + size], kernels, without))
            total = torch.logaddexp(total, torch.cat(sums) - log_volume)
        return total - math.log(len(self.rows))


def _whitened(rows: Tensor, factor: Tensor) -> Tensor:
    """L^{-1} of each row."""
    return torch.linalg.solve_triangular(factor, rows.mT, upper=False).mT


def _log_kernel_sums(
    points: Float[Tensor, " batch d"], kernels: Float[Tensor, "members d"], without: Tensor | None
) -> Float[Tensor, " batch bandwidths"]:
    """log Σ_i exp(-||x - x_i||² / 2h_k²) by kernels x_i, without the pairs where `without` (batch, members) is True.

    Half the square of a bandwidth squares its kernel, so there is only one exponential for each pair.
    """
    squares = torch.cdist(points, kernels, compute_mode="use_mm_for_euclid_dist").square()
    if without is not None:
        squares = squares.masked_fill(without, torch.inf)
    nearest = squares.amin(1, keepdim=True)
    nearest = torch.where(nearest.isinf(), 0, nearest)  # no kernel is left: the sum is 0
    kernel = torch.exp((nearest - squares) / (2 * WIDEST**2))  # 1 for the nearest, so that the sum is never 0
    sums = [kernel.sum(1)]
    for _ in range(HALVINGS):
        kernel.square_()
        sums.append(kernel.sum(1))
    precisions = 2.0 ** torch.arange(HALVINGS + 1).to(points) / WIDEST**2
    return torch.stack(sums, 1).log() - 0.5 * nearest * precisions


# ---------------------------------------------------------------------------------------------- the kernels' shapes

Covariances = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""From rows (N, d) and a seed: the cluster of each row (N), and the Cholesky factors of the S_c (clusters, d, d)."""


def local_covariances(rows: Float[Tensor, "n d"], seed: int) -> tuple[Int[Tensor, " n"], Float[Tensor, "clusters d d"]]:
    """S_c is the covariance of cluster c, shrunk towards the covariance of all rows.

    Clusters come from scikit-learn's k-means, in coordinates in which the rows have covariance I. There are at most 20
    clusters, with at least 20 rows on average. Source: Vincent & Bengio 2003, "Manifold Parzen windows", with one
    covariance per cluster instead of one per row.
    """
    count, dimensions = rows.shape
    whole = _covariance(rows)
    ridge = _ridge(whole)
    cluster = _clusters(_whitened(rows - rows.mean(0), torch.linalg.cholesky(whole + ridge)), seed)
    covariances = []
    for c in range(int(cluster.max()) + 1):
        members = rows[cluster == c]
        own, prior = _covariance(members), SHRINKAGE * dimensions
        scale = (own.trace() / whole.trace()).clamp(max=1)
        shrunk = (len(members) * own + prior * scale * whole) / (len(members) + prior)
        covariances.append((whole if len(members) in (1, count) else shrunk) + ridge)
    return cluster, torch.linalg.cholesky(torch.stack(covariances))


def column_variances(rows: Float[Tensor, "n d"], seed: int) -> tuple[Int[Tensor, " n"], Float[Tensor, "one d d"]]:
    """One cluster, whose S is diagonal: the variance of each column."""
    whole = _covariance(rows).diagonal().diag()
    return torch.zeros(len(rows), dtype=torch.long, device=rows.device), (whole + _ridge(whole)).sqrt()[None]


def _covariance(rows: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    centred = rows - rows.mean(0)
    return centred.mT @ centred / len(rows)


def _ridge(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    return RIDGE * covariance.trace() / len(covariance) * torch.eye(len(covariance)).to(covariance)


def _clusters(rows: Tensor, seed: int) -> Tensor:
    count = max(1, min(CLUSTERS, len(rows) // 20))
    if count == 1:
        return torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    from sklearn.cluster import KMeans

    found = torch.from_numpy(KMeans(count, n_init=1, random_state=seed).fit_predict(rows.cpu().numpy()))
    return found.unique(return_inverse=True)[1].to(rows.device)  # equal rows may leave a cluster empty


def _fitted_log_weights(terms: Float[Tensor, "rows bandwidths"]) -> Float[Tensor, " bandwidths"]:
    """log w that maximise Σ_i log Σ_k w_k exp(terms_ik), by EM from equal weights."""
    log_weights = terms.new_full((terms.shape[1],), -math.log(terms.shape[1]))
    for _ in range(EM_STEPS):
        shares = (terms + log_weights).log_softmax(1).logsumexp(0) - math.log(len(terms))
        if bool((shares - log_weights).max() < math.log1p(SLACK)):
            break
        log_weights = shares.clamp(min=-30)
    return log_weights.log_softmax(0)
