"""Columns of whole numbers with a range: mixtures of logistic laws of T(x), integrated over the bins (4.11)."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jensen.likelihood.components import Components, Logistic
from jensen.likelihood.distributions import OUTERMOST
from jensen.likelihood.laws import Whole
from jensen.likelihood.stack import Cells, Stack
from jensen.monotone import Curves

FLOOR = 1e-4
"""Smallest scale of a component in units of T."""

POINTS = 64
"""Levels at most at which the distribution function is computed for the mean."""

BLOCK = 13
"""Levels at which it is computed together."""

LOGISTIC = Logistic()


@dataclass(frozen=True, eq=False)
class WholeCells(Cells):
    """P(x = k) = Σ_c w_c [F((T(k + ½) - m_c) / s_c) - F((T(k - ½) - m_c) / s_c)], F logistic; absorbing ends (4.11)."""

    components: Components
    curves: Curves
    top: Tensor  # levels - 1, (fields)
    edges: Tensor  # T(k + ½) of some k from 0 to top - 1 in ascending order, (fields, points)
    weights: Tensor  # of P(x > k) in the mean, (fields, points)

    @property
    def levels(self) -> int | None:
        return int(self.top.item()) + 1 if len(self.top) == 1 else None

    @property
    def mean(self) -> Tensor:
        """E[x] = Σ_k P(x > k), k = 0 .. levels - 2: exact for up to 65 levels, else by the trapezium rule on 65."""
        batch = (1,) * (self.components.scales.ndim - 2)
        total = torch.zeros_like(self.components.scales[..., 0], dtype=torch.float64)
        for edges, weights in zip(self.edges.split(BLOCK, 1), self.weights.split(BLOCK, 1), strict=True):
            edges, weights = (each.mT.reshape(each.shape[1], *batch, -1) for each in (edges, weights))
            total = total + (weights * (1 - self.components.cdf(edges, LOGISTIC))).sum(0)
        return total.to(self.components.scales)

    def log_prob(self, x: Tensor) -> Tensor:
        k = x.double().round().clamp(min=0).minimum(self.top)
        edges = self.curves(torch.stack([k - 0.5, k + 0.5]))
        width = (edges[1] - edges[0]).to(self.components.scales)
        lower, upper = edges.to(self.components.scales)
        lower, upper = torch.where(k == 0, -OUTERMOST, lower), torch.where(k == self.top, OUTERMOST, upper)
        width = torch.where((k == 0) | (k == self.top), OUTERMOST, width)
        below, above = self.components.standardised(lower), self.components.standardised(upper)
        # F(b) - F(a) = F(b) F(-a) (1 - exp(a - b)): no cancellation
        inside = torch.log(-torch.expm1(-width.unsqueeze(-1) / self.components.scales))
        masses = F.logsigmoid(above) + F.logsigmoid(-below) + inside
        return (self.components.log_weights + masses).logsumexp(-1)

    def cdf(self, x: Tensor) -> Tensor:
        k = x.double().floor()
        return torch.where(k < 0, 0, torch.where(k >= self.top, 1, self._below(k)))

    def quantile(self, u: Tensor) -> Tensor:
        value = self.curves.inverse(self.components.quantile(u, LOGISTIC))
        return (value - 0.5).ceil().clamp(min=0).minimum(self.top)

    def at(self, field: int) -> "WholeCells":
        one = slice(field, field + 1)
        edges, weights = self.edges[one], self.weights[one]
        return WholeCells(self.components.at(field), self.curves.at(field), self.top[one], edges, weights)

    def _below(self, k: Tensor) -> Tensor:
        """P(x <= k) for k within the range."""
        return self.components.cdf(self.curves(k + 0.5), LOGISTIC)


class WholeStack(Stack):
    """Columns of whole numbers with the same number of components."""

    top: Tensor
    edges: Tensor
    weights: Tensor
    floor: Tensor

    def __init__(self, laws: Sequence[Whole]) -> None:
        super().__init__()
        self.components = laws[0].components
        self.curves = Curves([law.curve for law in laws])
        self.register_buffer("top", torch.tensor([law.levels - 1.0 for law in laws]).double(), persistent=False)
        grid = _grid(self.curves, self.top)
        self.register_buffer("edges", self.curves(grid.mT + 0.5).mT.contiguous(), persistent=False)
        self.register_buffer("weights", _weights(grid) * (self.top[:, None] > 0), persistent=False)
        self.register_buffer("floor", torch.full((len(laws),), FLOOR), persistent=False)

    @staticmethod
    def key(law: Whole) -> Hashable:
        return Whole, law.components

    def forward(self, raw: Tensor) -> WholeCells:
        components = Components.of(raw.unflatten(-1, (-1, 3, self.components)), self.floor)
        return WholeCells(components, self.curves, self.top, self.edges, self.weights)


def _grid(curves: Curves, top: Tensor) -> Tensor:
    """Numbers from 0 to top - 1 for each field, all of them or about evenly spaced in T, (fields, POINTS + 1)."""
    share = torch.linspace(0, 1, POINTS + 1, dtype=torch.float64)[:, None]
    last = top - 1
    first_edge, last_edge = curves(torch.full_like(top, 0.5)), curves(last + 0.5)
    spread = (curves.inverse(first_edge + share * (last_edge - first_edge)) - 0.5).round()
    few = torch.arange(POINTS + 1, dtype=torch.float64)[:, None].expand_as(spread)
    return torch.where(last > POINTS, spread, few).clamp(min=0).minimum(last).mT.contiguous()


def _weights(grid: Tensor) -> Tensor:
    """The weights of a_i in Σ_k a(k), by the trapezium rule between the points of the grid, (fields, points).

    Between two points k and l the sum of a over k + 1 .. l is (l - k) (a_k + a_l) / 2 + (a_l - a_k) / 2.
    """
    steps = grid.diff(dim=1)
    return F.pad((steps + 1) / 2, (1, 0), value=1.0) + F.pad((steps - 1) / 2, (0, 1))
