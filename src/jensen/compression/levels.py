"""Push and pop x under p(x|z), for every likelihood that gives probabilities of levels."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from jensen.compression.coder import Floats, Integers, Stack
from jensen.likelihood import (
    Bernoulli,
    Categorical,
    DiscretisedGaussian,
    DiscretisedLogistic,
    LogisticMixture,
    Observation,
)

ELEMENTS = 1 << 22  # maximum size of a table of probabilities
Tables = Iterator[tuple[slice, Callable[[], Floats]]]
"""Rows of a flat array, with a function for their probabilities (rows, L)."""


def push_observation(stack: Stack, p: Observation, symbols: Tensor) -> None:
    """Push levels (batch, *shape) under p(x|z)."""
    if isinstance(p, LogisticMixture):
        for channel in reversed(range(p.channels)):  # the first channel is popped first, as others depend on it
            _push_tables(stack, _mixture_tables(p, channel, _on_grid(p, symbols)), to_integers(symbols[:, channel]))
        return
    values = to_integers(symbols)
    if isinstance(p, DiscretisedGaussian):
        stack.push_gaussian_levels(values, p.levels, *_in_levels(p, symbols.shape))
        return
    _push_tables(stack, _tables(p, symbols.shape), values)


def pop_observation(stack: Stack, p: Observation, shape: torch.Size) -> Tensor:
    """Pop the levels (batch, *shape) that `push_observation` pushed."""
    if isinstance(p, LogisticMixture):
        symbols = torch.zeros(shape, dtype=torch.long)
        for channel in range(p.channels):
            values = _pop_tables(stack, _mixture_tables(p, channel, _on_grid(p, symbols)), symbols[:, channel].numel())
            symbols[:, channel] = torch.from_numpy(values).reshape(symbols[:, channel].shape)
        return symbols
    if isinstance(p, DiscretisedGaussian):
        values = stack.pop_gaussian_levels(p.levels, *_in_levels(p, shape))
    else:
        values = _pop_tables(stack, _tables(p, shape), math.prod(shape))
    return torch.from_numpy(values).reshape(shape)


def _push_tables(stack: Stack, tables: Tables, values: Integers) -> None:
    for rows, masses in tables:
        stack.push_levels(values[rows], masses())


def _pop_tables(stack: Stack, tables: Tables, count: int) -> Integers:
    values = np.empty(count, np.int64)
    for rows, masses in reversed(list(tables)):
        values[rows] = stack.pop_levels(masses())
    return values


def to_integers(values: Tensor) -> Integers:
    """The values as a flat int64 array."""
    return values.cpu().numpy().astype(np.int64).reshape(-1)


def to_floats(values: Tensor, shape: torch.Size) -> Floats:
    """The values, broadcast to `shape`, as a flat float64 array."""
    return values.detach().double().expand(shape).reshape(-1).cpu().numpy()


def _in_levels(p: DiscretisedGaussian | DiscretisedLogistic, shape: torch.Size) -> tuple[Floats, Floats]:
    """The location and the scale in units of a level, where 0 is the lowest level."""
    half = (p.levels - 1) / 2
    return (to_floats(p.location, shape) + 1) * half, to_floats(p.scale, shape) * half


def _tables(p: Observation, shape: torch.Size) -> Tables:
    """Yield rows of the flat array, up to `ELEMENTS` at a time, with a function for the probabilities (rows, L)."""
    if isinstance(p, Bernoulli):
        logits = p.logits.detach().double().expand(shape).reshape(-1, 1)
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    elif isinstance(p, Categorical):
        logits = p.logits.detach().double().movedim(-p.event_dims - 1, -1).reshape(-1, p.levels)
    else:
        assert isinstance(p, DiscretisedLogistic)
        yield from _logistic_tables(p, shape)
        return
    for rows in _row_slices(len(logits), logits.shape[1]):
        yield rows, partial(_softmax, logits, rows)


def _softmax(logits: Tensor, rows: slice) -> Floats:
    return logits[rows].softmax(1).cpu().numpy()


def _logistic_tables(p: DiscretisedLogistic, shape: torch.Size) -> Tables:
    location, scale = _in_levels(p, shape)
    for rows in _row_slices(len(location), p.levels):
        yield rows, partial(_logistic_masses, location, scale, p.levels, rows)


def _logistic_masses(location: Floats, scale: Floats, levels: int, rows: slice) -> Floats:
    """The masses of all levels, (rows, L)."""
    edges = np.arange(levels - 1) + 0.5
    standard = torch.from_numpy((edges - location[rows, None]) / scale[rows, None])
    below = torch.nn.functional.pad(torch.sigmoid(standard), (1, 0))
    return torch.nn.functional.pad(below, (0, 1), value=1.0).diff(dim=1).numpy()


def _mixture_tables(p: LogisticMixture, channel: int, x: Tensor) -> Tables:
    """The tables of p(x_c | x_<c), where x (batch, C, *places) need have its channels before c only."""
    weights, law = p.double().conditional(channel, x.to(p.locations.device))
    shape = weights.movedim(1, 0).shape  # (K, batch, *places)
    parts = [_in_levels(DiscretisedLogistic(*each, p.levels, 0), shape[1:]) for each in _by_component(law, shape)]
    shares = [to_floats(share, shape[1:]) for share in weights.unbind(1)]

    def masses(rows: slice) -> Floats:
        total = np.zeros((rows.stop - rows.start, p.levels))
        for share, part in zip(shares, parts, strict=True):
            total += share[rows, None] * _logistic_masses(*part, p.levels, rows)
        return total

    for rows in _row_slices(math.prod(shape[1:]), p.levels):
        yield rows, partial(masses, rows)


def _by_component(law: DiscretisedLogistic, shape: torch.Size) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(law.location.movedim(1, 0).expand(shape), law.scale.movedim(1, 0).expand(shape), strict=True)


def _on_grid(p: LogisticMixture, symbols: Tensor) -> Tensor:
    """x in [-1, 1], float64."""
    return symbols.double() * (2 / (p.levels - 1)) - 1


def _row_slices(count: int, levels: int) -> Iterator[slice]:
    step = max(1, ELEMENTS // levels)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
