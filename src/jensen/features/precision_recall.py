"""Precision, recall, density and coverage: the share of samples near data, and of data near samples."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jensen.errors import InputError
from jensen.features.jackknife import Interval, parts
from jensen.features.neighbours import blocks, comparable, squared_distances
from jensen.progress import track
from jensen.records import Value

K = 5  # default number of neighbours


class Fidelity(Value):
    """Four metrics from balls around examples, with the distance to the k-th neighbour in the same set as radius."""

    k: int
    precision: Interval
    """The share of samples inside a ball around a real example."""
    recall: Interval
    """The share of real examples inside a ball around a sample."""
    density: Interval
    """The mean number of real examples' balls around a sample, divided by k; it may exceed 1."""
    coverage: Interval
    """The share of real examples whose ball holds a sample."""


def fidelity(real: Tensor, samples: Tensor, *, k: int = K) -> Fidelity:
    """Precision, recall, density and coverage of samples (m, d), measured against real examples (n, d).

    For two sets from one distribution, density is near 1. Precision, recall and coverage are below 1 and depend on k, n
    and m, so compare with a floor. The intervals are by the jackknife over parts of both sets. A bootstrap would repeat
    examples, and a repeated example has its nearest neighbour at distance 0 (Abadie and Imbens 2008). Memory is
    bounded, and time grows with (n + m)². Raises `InputError` for fewer than 2k + 2 examples, for different d, and for
    numbers that are not finite. Sources: Kynkäänniemi et al. 2019, equations 1 and 2; Naeem et al. 2020, equations 3
    and 4.
    """
    if k < 1:
        raise InputError(f"{k} nearest neighbours: expected at least 1; change k")
    x, y = comparable(f"precision and recall by {k} neighbours", 2 * k + 2, real, samples)
    part_x, part_y = parts(len(x)), parts(len(y))
    radii_x, radii_y = _squared_radii(x, part_x, k), _squared_radii(y, part_y, k)
    around_x, around_y = _balls(x, radii_x, y), _balls(y, radii_y, x)
    return Fidelity(
        k=k,
        precision=_share(around_x > 0, part_y),
        recall=_share(around_y > 0, part_x),
        density=Interval.around(*_means(around_x.double() / k, part_y)),
        coverage=_coverage(x, part_x, radii_x, y, part_y),
    )


def _squared_radii(
    x: Float[Tensor, " count dims"], part: Int[Tensor, " count"], k: int
) -> Float[Tensor, " ways count"]:
    """The squared distance to the k-th other example: among all examples, then without each part in turn.

    An example of the left-out part gets -1, an empty ball.
    """
    found, start = [], 0
    for rows in track(blocks(x, x), "distances within a set"):
        distances = squared_distances(rows, x)
        distances[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = torch.inf
        start += len(rows)
        # The nearest 8k suffice: with a random twentieth of the set left out, at least k of them remain
        values, index = distances.topk(min(8 * k, len(x) - 1), largest=False)
        left = [values.where(part[index] != gone, torch.inf).sort(1).values[:, k - 1] for gone in part.unique()]
        found.append(torch.stack([values[:, k - 1], *left]))
    radii = torch.cat(found, 1) * (1 + 1e-9)  # a margin for rounding: the k-th neighbour is inside
    radii[1:][part == part.unique()[:, None]] = -1
    return radii


def _balls(
    centres: Float[Tensor, " count dims"], radii: Float[Tensor, " ways count"], points: Float[Tensor, " points dims"]
) -> Int[Tensor, " ways points"]:
    """The number of balls around each point."""
    found = []
    for rows in track(blocks(points, centres), "distances between the sets"):
        distances = squared_distances(rows, centres)
        found.append(torch.stack([(distances <= radius).sum(1) for radius in radii]))
    return torch.cat(found, 1)


def _means(
    values: Float[Tensor, " ways points"] | Bool[Tensor, " ways points"], part: Int[Tensor, " points"]
) -> tuple[float, list[float], list[float]]:
    """The mean over all points, the means without each part of centres, and the means without each part of points."""
    wide = values.double()
    without = [wide[0, part != gone].mean().item() for gone in part.unique()]
    return wide[0].mean().item(), wide[1:].mean(1).tolist(), without


def _share(inside: Bool[Tensor, " ways points"], part: Int[Tensor, " points"]) -> Interval:
    value, of_centres, of_points = _means(inside, part)
    return Interval.share(value, inside.shape[1], of_centres, of_points)


def _coverage(x: Tensor, part_x: Tensor, radii: Float[Tensor, " ways count"], y: Tensor, part_y: Tensor) -> Interval:
    gone = part_y.unique()
    order, sizes = part_y.argsort(), part_y.bincount().tolist()
    nearest = torch.cat(
        [
            torch.stack([some.amin(1) for some in squared_distances(rows, y[order]).split(sizes, 1)])
            for rows in track(blocks(x, y), "distances between the sets")
        ],
        dim=1,
    )
    covered = (nearest.amin(0) <= radii).double()
    kept = len(x) - part_x.bincount()
    without_x = (covered[1:].sum(1) / kept).tolist()
    without_y = [(nearest[gone != part].amin(0) <= radii[0]).double().mean().item() for part in gone]
    return Interval.share(covered[0].mean().item(), len(x), without_x, without_y)
