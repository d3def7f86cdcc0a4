"""Distances between two sets of features, in blocks of bounded memory."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jensen.errors import InputError
from jensen.progress import track

PAIRS = 1 << 23  # maximum number of distances (float64) in memory; changes memory and speed only


def squared_distances(a: Float[Tensor, " a dims"], b: Float[Tensor, " b dims"]) -> Float[Tensor, " a b"]:
    """|a_i - b_j|² = |a_i|² + |b_j|² - 2 a_i·b_j, clamped at 0; the error in float64 is about 1e-15 |a|²."""
    products = a @ b.T
    return products.mul_(-2).add_(a.square().sum(1)[:, None]).add_(b.square().sum(1)).clamp_(min=0)


def blocks(x: Tensor, others: Tensor) -> list[Tensor]:
    """The rows of x in order, in blocks with at most `PAIRS` distances to `others`."""
    return list(x.split(max(1, PAIRS // len(others))))


def nearest(
    x: Float[Tensor, " count dims"], others: Float[Tensor, " others dims"]
) -> tuple[Float[Tensor, " count"], Int[Tensor, " count"]]:
    """The Euclidean distance (float64) from each x to its nearest neighbour in `others`, and the neighbour's row.

    The neighbour is found by products in float32, relative to the mean of `others`. Its distance is then computed in
    float64, so a copy has distance 0. If rounding chooses a neighbour that is not the nearest, its distance is too
    large by at most about 1e-7 |x|² / distance.
    """
    origin = others.mean(0)
    near = (others - origin).float()
    distances, rows = [], []
    for part in track(blocks(x, others), "nearest neighbours"):
        row = squared_distances((part - origin).float(), near).argmin(1)
        distances.append((part - others[row]).square().sum(1).sqrt())
        rows.append(row)
    return torch.cat(distances), torch.cat(rows)


def comparable(what: str, least: int, *sets: Tensor) -> list[Tensor]:
    """Sets of features (count, dims) in float64 on the CPU.

    All sets are shifted to a common origin, which keeps products exact. Raises `InputError` for a set with fewer than
    `least` examples, for different dims, and for numbers that are not finite.
    """
    shapes = " and ".join(str(tuple(features.shape)) for features in sets)
    if any(x.ndim != 2 or x.shape[1:] != sets[0].shape[1:] or len(x) < least for x in sets):
        raise InputError(
            f"{what} of features of shapes {shapes}: expected (count, dims), count at least {least}, dims the same; "
            "give more examples, or features of one function"
        )
    if not all(x.isfinite().all() for x in sets):
        raise InputError(f"{what} of features that are not finite: expected numbers; look at the samples")
    wide = [x.detach().cpu().double() for x in sets]
    origin = wide[0].mean(0)
    return [x - origin for x in wide]
