"""Strictly increasing curves y = T(v), fitted so that y of the given numbers is about N(0, 1). Float64 throughout.

Between its knots a curve is a rational-quadratic spline (Gregory and Delbourgo 1982): value, slope and inverse are
formulas. It keeps increasing whatever the slopes at its knots, so the slopes can follow the density of the numbers.
Beyond the outermost knots (e, y_e) a curve grows like the logarithm of a generalised Pareto tail:

    t = |v - e| / scale,  L = log(1 + shape t) / shape,  |y - y_e| = sqrt(a² + 2 L) - a,  a = max(1, |y_e|)

Under y ~ N(0, 1) the number v then has about a generalised Pareto tail, because the normal law has log P(|y| > r) of
about -r²/2. So a Cauchy variable, or a value a thousand times beyond all others, costs what its tail says. With a
straight line it would cost the square of its distance. `docs/tables.md` compares the two on held-out rows.

Every quantity is a ratio of differences of v: a change of unit, v -> a v + b, changes T(v) only by rounding, and its
log-slope by log |a|. A negative a turns T into -T.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

MOST_KNOTS = 32
"""Knots of one curve at most, so that a thousand columns have a description of about a megabyte."""

MOST_KNOTS_OF_LEVELS = 128
"""The same for whole numbers, which may have many heaps, such as 1,000 and 5,000; a heap takes two knots."""

GAIN = 12.0
"""A knot is added if it raises the log-likelihood of the rows by this many nats, as a histogram's edge would."""

STEEPEST = 1e4
"""The slope at a knot is at most this many times that of the line through its neighbour, and at least its inverse."""

LIGHTEST, HEAVIEST = 1e-8, 4.0
"""The range of the shape of a tail: exponential, and heavier than that of a Cauchy variable (1)."""

DECIMALS = 7
"""Decimals of a height, so that a description is short; neighbouring heights differ by 1e-5 or more."""

ROUNDING = 1e-12
"""Relative rounding of the computed steps, at most."""

INTERVAL, TAIL = 6, 6
"""Numbers that describe an interval between two knots, and a tail."""

TINY = 1e-300
"""Keeps a quotient of zeros from being NaN."""

NARROWEST = 0.1
"""The least difference of heights of the outermost knots, if the points allow it."""

SAME = 1e-6
"""A point whose height is that close to that of a knot is no other knot."""

PENALTY = 0.5
"""Nats per unit of the shape of a tail."""

FAR, LARGEST = 600.0, float(np.finfo(np.float64).max)
"""Larger exponents, and larger numbers, would leave the range of float64."""


class Curve(BaseModel):
    """One strictly increasing curve: its knots and heights (T at the knots), and (scale, shape) of its two tails."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    knots: tuple[float, ...]
    heights: tuple[float, ...]
    lower: tuple[float, float]
    upper: tuple[float, float]


class Curves(nn.Module):
    """The curves of several columns at once: column d of (*batch, D) goes through curve d."""

    knots: Tensor
    heights: Tensor
    last: Tensor
    intervals: Tensor
    tails: Tensor

    def __init__(self, curves: Sequence[Curve]) -> None:
        super().__init__()
        most = max((len(curve.knots) for curve in curves), default=2)
        rows = {"knots": [curve.knots for curve in curves], "heights": [curve.heights for curve in curves]}
        for name, values in rows.items():
            padded = [np.pad(each, (0, most - len(each)), constant_values=np.inf) for each in values]
            self._keep(name, np.array(padded).reshape(len(curves), most))
        self._keep("last", np.array([len(curve.knots) - 2 for curve in curves], np.int64))
        padded = [np.pad(_intervals(curve), ((0, most - len(curve.knots)), (0, 0))) for curve in curves]
        self._keep("intervals", np.array(padded).reshape(len(curves), most - 1, INTERVAL))
        self._keep("tails", np.array([_tails(curve) for curve in curves]).reshape(len(curves), 2, TAIL))

    def at(self, column: int) -> "Curves":
        """The curve of one column."""
        one = Curves([])
        for name, values in self.named_buffers():
            setattr(one, name, values[column : column + 1])
        return one

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Curves":
        # A module that is cast to another type moves its curves to another device only: they need all digits.
        device = fn(torch.zeros(())).device
        return super()._apply(lambda values: values.to(device), recurse)

    def _keep(self, name: str, values: np.ndarray) -> None:
        # Not in the state dictionary: a run records its curves in the description of its data.
        self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def forward(self, v: Tensor) -> Tensor:
        """T(v), float64, of the shape of v (*batch, D); NaN stays NaN."""
        v = v.double()
        x0, width, y0, height, left, right = self._interval(v, self.knots)
        share = ((v - x0) / width).clamp(0, 1)
        both = share * (1 - share)
        inside = y0 + height * (share.square() + left * both) / (1 + (left + right - 2) * both)
        sign, x, y, a, scale, shape = self._tail(v, self.knots)
        beyond = (sign * (v - x)).clamp(min=0)
        log_tail = _grown(beyond, scale, shape) / shape
        return torch.where(beyond > 0, y + sign * 2 * log_tail / (a + (a.square() + 2 * log_tail).sqrt()), inside)

    def log_slope(self, v: Tensor) -> Tensor:
        """log dT/dv at v, float64."""
        v = v.double()
        x0, width, _, height, left, right = self._interval(v, self.knots)
        share = ((v - x0) / width).clamp(0, 1)
        both = share * (1 - share)
        top = right * share.square() + 2 * both + left * (1 - share).square()
        inside = (height / width).log() + top.log() - 2 * torch.log1p((left + right - 2) * both)
        sign, x, _, a, scale, shape = self._tail(v, self.knots)
        beyond = (sign * (v - x)).clamp(min=0)
        grown = _grown(beyond, scale, shape)
        return torch.where(beyond > 0, -scale.log() - grown - (a.square() + 2 * grown / shape).log() / 2, inside)

    def inverse(self, y: Tensor) -> Tensor:
        """v with T(v) = y, float64, by formula; finite for every y."""
        y = y.double()
        x0, width, y0, height, left, right = self._interval(y, self.heights)
        share = ((y - y0) / height).clamp(0, 1)
        # The root of a quadratic equation in the place within the interval, without cancellation
        b = left - share * (left + right - 2)
        root = (b.square() + 4 * (1 - b) * share).clamp(min=0).sqrt()
        inside = x0 + width * (2 * share / (b + root).clamp(min=TINY)).clamp(0, 1)
        sign, x, start, a, scale, shape = self._tail(y, self.heights)
        beyond = (sign * (y - start)).clamp(min=0)
        log_tail = beyond * (beyond + 2 * a) / 2
        t = torch.expm1((shape * log_tail).clamp(max=FAR)) / shape
        return torch.where(beyond > 0, x + sign * scale * t, inside).clamp(-LARGEST, LARGEST)

    def _interval(self, values: Tensor, ordered: Tensor) -> tuple[Tensor, ...]:
        """The numbers of the interval that holds each value, see `_intervals`; of the nearest one in the tails."""
        flat = values.reshape(-1, values.shape[-1]).mT.contiguous()
        place = torch.searchsorted(ordered, flat, right=True) - 1
        return self._rows(self.intervals, torch.minimum(place.clamp(min=0), self.last[:, None]), values)

    def _tail(self, values: Tensor, ordered: Tensor) -> tuple[Tensor, ...]:
        """The numbers of the tail on the side of each value, see `_tails`."""
        flat = values.reshape(-1, values.shape[-1]).mT
        return self._rows(self.tails, (flat > ordered[:, :1]).long(), values)

    def _rows(self, table: Tensor, place: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        """The columns of a table (D, rows, columns), each of the shape of the values; `place` is (D, values)."""
        first = torch.arange(len(table), device=table.device) * table.shape[1]
        return table.flatten(0, 1)[(place.mT + first).reshape(values.shape)].unbind(-1)


def _grown(beyond: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
    """log(1 + shape t), t = beyond / scale; finite for every number of float64, which a small scale would overflow."""
    return torch.log1p((shape * (beyond / scale)).clamp(max=LARGEST))


def _intervals(curve: Curve) -> np.ndarray:
    """Start and width in v, start and height in y, and the slopes at both ends in units of the chord's; a row each."""
    knots, heights = np.array(curve.knots), np.array(curve.heights)
    widths, rises = np.diff(knots), np.diff(heights)
    chords = np.log(rises) - np.log(widths)
    # At an inner knot the log-slope is that of the parabola in log-density through both intervals: the narrower one
    # counts more, so that the edge of a cluster keeps the slope of the cluster, not that of the gap beside it.
    inner = (widths[1:] * chords[:-1] + widths[:-1] * chords[1:]) / (widths[1:] + widths[:-1])
    lowest, highest = (-math.log(scale * a) for _, _, _, a, scale, _ in _tails(curve))
    slopes = np.concatenate([[lowest], inner, [highest]])
    limit = math.log(STEEPEST)
    left, right = (np.exp(np.clip(each - chords, -limit, limit)) for each in (slopes[:-1], slopes[1:]))
    return np.stack([knots[:-1], widths, heights[:-1], rises, left, right], 1)


def _tails(curve: Curve) -> list[tuple[float, ...]]:
    """Sign, outermost knot e, its height y_e, a, scale and shape of both tails."""
    ends = ((-1.0, 0, curve.lower), (1.0, -1, curve.upper))
    return [
        (sign, curve.knots[at], curve.heights[at], max(1.0, abs(curve.heights[at])), *tail) for sign, at, tail in ends
    ]


# ---------------------------------------------------------------------------------------------- fit


def fit_curve(values: Float[np.ndarray, " rows"]) -> Curve:
    """The curve of a sample of numbers; T(values) is about N(0, 1). NaN is not allowed."""
    points, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    return _fit(points, np.cumsum(counts) - counts / 2, len(values), MOST_KNOTS)


def fit_curve_to_levels(levels: Float[np.ndarray, " rows"]) -> Curve:
    """The curve of whole numbers k, each spread over k - ½ to k + ½, so that T(k ± ½) are quantiles of the numbers.

    Numbers between two found ones have together about the probability of a new number, which is the share of numbers
    that were found once (Good 1953).
    """
    found, counts = np.unique(np.asarray(levels, np.float64), return_counts=True)
    points = np.unique(np.concatenate([found - 0.5, found + 0.5]))
    between = ~np.isin(points[:-1] + 0.5, found)
    masses = np.empty(len(between))
    masses[~between] = counts
    new = ((counts == 1).sum() + 0.5) / max(1, between.sum())
    masses[between] = np.clip(new, 1e-5 * len(levels), 0.5)
    below = np.concatenate([[0], np.cumsum(masses)])
    rows = float(below[-1])
    return _fit(points, (below + 0.5) * (rows / (rows + 1)), rows, MOST_KNOTS_OF_LEVELS)


def _fit(points: np.ndarray, below: np.ndarray, rows: float, most: int) -> Curve:
    """The curve of `points`, which ascend; `below` is the number of rows below each of them, never 0 or all.

    A single point gives no scale; then it is that of the point itself.
    """
    from scipy.special import ndtri

    if len(points) < 2:
        middle = float(points[0]) if len(points) else 0.0
        unit = abs(middle) or 1.0
        tail = (unit, LIGHTEST)
        return Curve(knots=(middle - unit, middle + unit), heights=(-1, 1), lower=tail, upper=tail)
    beyond = min(math.ceil(math.sqrt(rows)), rows / 4)  # the rows of a tail
    inside = np.flatnonzero((below >= beyond) & (below <= rows - beyond))
    masses = np.convolve(np.diff(below, prepend=0, append=rows), [0.5, 0.5], "valid")  # rows at each point
    y = np.round(ndtri(below / rows), DECIMALS)
    first, last = (inside[0], inside[-1]) if len(inside) > 1 else (0, 0)
    if y[last] - y[first] < NARROWEST:  # most rows are at one or two numbers
        first, last = 0, len(points) - 1
    knots, heights = _knots(points[first : last + 1], y[first : last + 1], below[first : last + 1], rows, most)
    slopes = np.diff(heights) / np.diff(knots)
    lower = _tail(points[first] - points[:first], masses[:first], slopes[0] * max(1, abs(y[first])))
    upper = _tail(points[last + 1 :] - points[last], masses[last + 1 :], slopes[-1] * max(1, abs(y[last])))
    return Curve(knots=tuple(knots.tolist()), heights=tuple(heights.tolist()), lower=lower, upper=upper)


def _knots(
    points: np.ndarray, y: np.ndarray, below: np.ndarray, rows: float, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Knots and heights: even steps of y, and points at which the density changes much.

    The even steps lie between the points: the slope between two neighbouring points would be random.
    """
    from scipy.special import ndtr

    intervals = int(np.clip(round(rows ** (1 / 3)), 1, MOST_KNOTS // 2))
    even = np.linspace(y[0], y[-1], intervals + 1)
    even = np.round(even * (1 - ROUNDING), DECIMALS)  # halves go towards 0, so that the curve of -v is -T
    nearest = even[np.searchsorted((even[1:] + even[:-1]) / 2, y)]
    others = np.abs(y - nearest) > SAME
    heights = np.concatenate([even, y[others]])
    order = heights.argsort()
    points = np.concatenate([np.interp(even, y, points), points[others]])[order]
    below = np.concatenate([ndtr(even) * rows, below[others]])[order]
    apart = np.diff(points, prepend=-np.inf) > 0  # a step between two neighbouring floats is one of them
    points, heights, below = points[apart], heights[order][apart], below[apart]
    steps = np.unique(np.searchsorted(heights, even).clip(max=len(heights) - 1))
    chosen = np.array(_refined(points, below, steps.tolist(), most))
    chosen = chosen[np.diff(heights[chosen], prepend=-np.inf) > SAME]
    return points[chosen], heights[chosen]


def _refined(points: np.ndarray, below: np.ndarray, chosen: list[int], most: int) -> list[int]:
    """The chosen points, and those at which a histogram gains most from an edge, as long as it gains `GAIN` nats."""
    from scipy.special import xlogy

    def best_edge(first: int, last: int) -> tuple[float, int, int, int]:
        if last - first < 2:
            return 0.0, first, first, last
        mass = (below[first + 1 : last] - below[first]) / (below[last] - below[first])
        width = (points[first + 1 : last] - points[first]) / (points[last] - points[first])
        gain = xlogy(mass, mass / width) + xlogy(1 - mass, (1 - mass) / (1 - width))
        edge = int(gain.argmax())
        return -float(gain[edge] * (below[last] - below[first])), first, first + 1 + edge, last

    found, queue = list(chosen), [best_edge(*ends) for ends in pairwise(chosen)]
    heapq.heapify(queue)
    while queue and -queue[0][0] > GAIN and len(found) < most:
        _, first, edge, last = heapq.heappop(queue)
        found.append(edge)
        heapq.heappush(queue, best_edge(first, edge))
        heapq.heappush(queue, best_edge(edge, last))
    return sorted(found)


def _tail(distances: np.ndarray, rows: np.ndarray, slope: float) -> tuple[float, float]:
    """(scale, shape) of the generalised Pareto law of the distances beyond a knot, by penalised likelihood.

    The likelihood is maximised along its profile (Grimshaw 1993): given theta = shape / scale, the best shape is the
    mean of log(1 + theta distance). The penalty keeps a few rows from making a heavy tail. Without distances the tail
    goes on with the slope of the curve, which is `slope` / a.
    """
    count = rows.sum()
    if not len(distances) or not count:
        return 1 / slope, LIGHTEST
    furthest = float(distances.max())
    mean = furthest * min(1.0, float(rows @ (distances / furthest)) / float(count))  # the sum itself may overflow
    thetas = np.geomspace(1e-4, 1e6, 201)
    shapes = np.log1p(thetas[:, None] * (distances / mean)) @ rows / count
    gains = -count * (np.log(shapes / thetas) + shapes) - PENALTY * shapes  # over an exponential tail
    best = int(np.where(shapes <= HEAVIEST, gains, -np.inf).argmax())
    if gains[best] <= 0:
        return mean, LIGHTEST
    return min(mean * float(shapes[best] / thetas[best]), LARGEST), max(float(shapes[best]), LIGHTEST)
