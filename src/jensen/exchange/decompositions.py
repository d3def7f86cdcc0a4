"""Operators that ONNX lacks, or that its converter computes inaccurately, by operators that both have.

The converter's own log(1 + x), exp(x) - 1 and log sigmoid(x) lose all digits near 0 or far from it, where a log-mass
needs them. `table` replaces them, and the special functions, within an exported program. Each function has the accuracy
of torch's own function; `tests/test_export_decompositions.py` states it.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
"""Coefficients of 1/x, 1/x³, ... in Stirling's series of log Gamma (Abramowitz and Stegun 1964, 6.1.41)."""

SHIFT = 9
"""From here on Stirling's series has all digits of float64; smaller numbers are moved up by so much."""

DEGREE = 30
"""Degree of the polynomial of `erfcx`."""

AWAY = 0.7 * 2.0**-23
"""Relative step that float32 rounds to the next number: between half a step and one and a half, for every number."""


def table() -> dict[Any, Callable[..., Any]]:
    """The replacements by operator, for `ExportedProgram.run_decompositions`."""
    aten = torch.ops.aten
    return {
        aten.log1p.default: log1p,
        aten.expm1.default: expm1,
        aten.softplus.default: softplus,
        aten.log_sigmoid.default: log_sigmoid,
        aten.log_sigmoid_forward.default: lambda x: (log_sigmoid(x), x.new_zeros(0)),
        aten.logaddexp.default: logaddexp,
        aten.lgamma.default: lgamma,
        aten.special_erfcx.default: erfcx,
        aten.nextafter.default: nextafter,
        aten.searchsorted.Tensor: searchsorted,
        aten.embedding_bag.padding_idx: embedding_bag,
    }


def log1p(x: Tensor) -> Tensor:
    """log(1 + x) with all digits near 0: the rounding of w = 1 + x cancels in x log(w) / (w - 1) (Goldberg 1991)."""
    w = 1 + x
    same, infinite = w == 1, w == math.inf
    step = torch.where(same | infinite, 1.0, w - 1)
    return torch.where(same | infinite, torch.where(same, x, w), w.log() * (x / step))


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1 with all digits near 0: 2 t / (1 - t), t = tanh(x / 2)."""
    near = x.abs() < 1
    t = torch.tanh(torch.where(near, x, 0) / 2)
    return torch.where(near, 2 * t / (1 - t), x.exp() - 1)


def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(x)), never infinite."""
    y = beta * x
    return (torch.relu(y) + log1p((-y.abs()).exp())) / beta


def log_sigmoid(x: Tensor) -> Tensor:
    """log sigmoid(x), never infinite."""
    return -torch.relu(-x) - log1p((-x.abs()).exp())


def logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """log(exp(x) + exp(y)); if both are infinite and equal, that number."""
    largest, distance = torch.maximum(x, y), (x - y).abs()
    return torch.where(x == y, x + math.log(2), largest + log1p((-distance).exp()))


def lgamma(x: Tensor) -> Tensor:
    """log Gamma(x) for x > 0 by Stirling's series; NaN for x < 0."""
    wide = x.double()
    small = wide < SHIFT
    high = torch.where(small, wide + SHIFT, wide)
    inverse = 1 / high
    square, series = inverse.square(), torch.zeros_like(high)
    for coefficient in reversed(STIRLING):
        series = series * square + coefficient
    value = (high - 0.5) * high.log() - high + 0.5 * math.log(2 * math.pi) + series * inverse
    product = torch.where(small, wide, 1)
    for step in range(1, SHIFT):
        product = product * torch.where(small, wide + step, 1)
    return (value - product.log()).to(x.dtype)


def erfcx(x: Tensor) -> Tensor:
    """exp(x²) erfc(x), as t times a polynomial in t = 2 / (2 + x) for x >= 0, and by 2 exp(x²) - erfcx(-x) below."""
    wide = x.double()
    size = wide.abs()
    t = 2 / (2 + size)
    # Clenshaw's sum of the Chebyshev polynomials of 2 t - 1
    turned = 2 * (2 * t - 1)
    last, before = torch.zeros_like(t), torch.zeros_like(t)
    for coefficient in reversed(_erfcx_coefficients()[1:]):
        last, before = turned * last - before + coefficient, last
    above = t * (turned / 2 * last - before + _erfcx_coefficients()[0])
    return torch.where(wide < 0, 2 * wide.square().exp() - above, above).to(x.dtype)


@cache
def _erfcx_coefficients() -> list[float]:
    """Coefficients of erfcx(x) / t in Chebyshev polynomials of 2 t - 1, by interpolation."""
    from scipy.special import erfcx as exact

    nodes = np.polynomial.chebyshev.chebpts1(DEGREE + 1)
    t = (nodes + 1) / 2
    fitted = np.polynomial.chebyshev.chebfit(nodes, exact(2 / t - 2) / t, DEGREE)
    return [float(value) for value in fitted]


def nextafter(x: Tensor, other: Tensor) -> Tensor:
    """The next float32 after x towards another number; x itself if they are equal."""
    direction = torch.sign(other - x)
    wide = x.double()
    moved = (wide + direction * wide.abs() * AWAY).to(x.dtype)
    least = torch.where(direction == 0, 0.0, direction * 2.0**-149).to(x.dtype)
    return torch.where(x == 0, least, torch.where(direction == 0, x, moved))


def searchsorted(
    ordered: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """The number of entries of each row (rows, n) below each value (rows, m), or with `right` not above it."""
    rows, wanted = ordered.unsqueeze(-2), values.unsqueeze(-1)
    return ((rows <= wanted) if right or side == "right" else (rows < wanted)).sum(-1)


def embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, *options: Any, **named: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sums of the rows of `weight` over bags of equal size, the only ones that a network of jensen has."""
    rows = weight[indices].view(offsets.shape[0], -1, weight.shape[1]).sum(1)
    return rows, offsets, offsets, offsets  # the last three serve the gradient only
