"""Chains of other programs: beta_1..beta_T (5.1) by their names of schedules."""

import math
from collections.abc import Callable

import torch

from jensen.errors import InputError

MOST = 0.999  # the largest beta of a schedule given by its alpha_bar (Nichol & Dhariwal 2021, section 3.2)


def linear(steps: int, first: float, last: float) -> tuple[float, ...]:
    """Betas that rise linearly (Ho et al. 2020)."""
    return tuple(torch.linspace(first, last, steps, dtype=torch.float64).tolist())


def scaled_linear(steps: int, first: float, last: float) -> tuple[float, ...]:
    """Betas whose square roots rise linearly (Rombach et al. 2022)."""
    return tuple(root**2 for root in linear(steps, first**0.5, last**0.5))


def cosine(steps: int) -> tuple[float, ...]:
    """beta_t = 1 - f(t/T) / f((t-1)/T), at most 0.999, where f(t) = cos²(pi/2 (t + 0.008) / 1.008).

    Source: Nichol & Dhariwal 2021, equation 17.
    """

    def f(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    return tuple(min(1 - f((t + 1) / steps) / f(t / steps), MOST) for t in range(steps))


def sigmoid(steps: int, first: float, last: float) -> tuple[float, ...]:
    """Betas that rise along a sigmoid from -6 to 6 (Xu et al. 2022, GeoDiff)."""
    return tuple(first + (last - first) / (1 + math.exp(-u)) for u in linear(steps, -6.0, 6.0))


Betas = tuple[float, ...]
BY_NAME: dict[str, Callable[[int, float, float], Betas]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "squaredcos_cap_v2": lambda steps, first, last: cosine(steps),
    "sigmoid": sigmoid,
}
"""The schedules of diffusers."""


def checked(betas: Betas, source: str) -> Betas:
    """The betas. Raises `InputError` for fewer than two, and for a beta outside (0, 1)."""
    if len(betas) < 2 or not all(0 < value < 1 for value in betas):
        raise InputError(f"{source}: expected at least two betas, each between 0 and 1; this chain has no log-SNRs")
    return betas
