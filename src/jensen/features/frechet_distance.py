"""The Fréchet distance between two sets of features."""

import math

import torch
from torch import Tensor

from jensen.bound import Estimate
from jensen.errors import InputError
from jensen.features.jackknife import parts, variance


def frechet(a: Tensor, b: Tensor) -> Estimate:
    """|m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½) of the Gaussians fitted to features (count, dims), in float64.

    The distance is biased upwards, and the bias is larger for fewer examples. So compare only distances between sets of
    equal size. The best comparison is with a floor, which is the distance between two sets of real data. The standard
    error is by the jackknife. Each set is divided into 20 random parts, and each part is left out in turn. The
    variances from both sets are added. Near distance 0 the error is too large. `count` is the size of a. Raises
    `InputError` for fewer than two examples, for different dims, and for numbers that are not finite. Sources: Heusel
    et al. 2017, equation 6; Quenouille 1956 for the jackknife.
    """
    a, b = (features.detach().cpu().double() for features in (a, b))
    if a.ndim != 2 or a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise InputError(
            f"Fréchet distance between features of shapes {tuple(a.shape)} and {tuple(b.shape)}: expected (count, "
            "dims), count at least 2, dims the same; give more examples, or features of one classifier"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise InputError("Fréchet distance between features that are not finite: expected numbers; look at the samples")
    of_a, of_b = _moments(a), _moments(b)
    of_parts = variance([_squared(_moments(rest), of_b) for rest in _parts_left(a)])
    of_parts += variance([_squared(of_a, _moments(rest)) for rest in _parts_left(b)])
    return Estimate(_squared(of_a, of_b), math.sqrt(of_parts), len(a))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean m and a factor R of the covariance, S = R^T R."""
    mean = x.mean(0)
    return mean, torch.linalg.qr(x - mean, mode="r").R / math.sqrt(len(x) - 1)


def _squared(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """The squared distance from means and factors.

    The eigenvalues of S_a S_b are the squares of the singular values of R_a R_b^T, so the trace of (S_a S_b)^½ is the
    sum of these singular values. This loses no precision, and covariances may be singular.
    """
    (mean_a, factor_a), (mean_b, factor_b) = a, b
    root = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    distance = (mean_a - mean_b).square().sum() + factor_a.square().sum() + factor_b.square().sum() - 2 * root
    return max(distance.item(), 0.0)


def _parts_left(x: Tensor) -> list[Tensor]:
    """x without each part in turn; empty for two examples, because only one example would remain."""
    part = parts(len(x))
    return [x[part != left_out] for left_out in part.unique()] if len(x) > 2 else []
