"""Push and pop x under p(x|z), for every likelihood that gives probabilities of levels."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from jensen.compression.coder import Floats, Integers, Stack
from jensen.likelihood import Bernoulli, Categorical, DiscretisedGaussian, DiscretisedLogistic, Observation

ELEMENTS = 1 << 22  # maximum size of a table of probabilities


def push_observation(stack: Stack, p: Observation, symbols: Tensor) -> None:
    """Push levels (batch, *shape) under p(x|z)."""
    values = to_integers(symbols)
    if isinstance(p, DiscretisedGaussian):
        stack.push_gaussian_levels(values, p.levels, *_in_levels(p, symbols.shape))
        return
    for rows, masses in _tables(p, symbols.shape):
        stack.push_levels(values[rows], masses())


def pop_observation(stack: Stack, p: Observation, shape: torch.Size) -> Tensor:
    """Pop the levels (batch, *shape) that `push_observation` pushed."""
    if isinstance(p, DiscretisedGaussian):
        values = stack.pop_gaussian_levels(p.levels, *_in_levels(p, shape))
    else:
        values = np.empty(math.prod(shape), np.int64)
        for rows, masses in reversed(list(_tables(p, shape))):
            values[rows] = stack.pop_levels(masses())
    return torch.from_numpy(values).reshape(shape)


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


def _tables(p: Observation, shape: torch.Size) -> Iterator[tuple[slice, Callable[[], Floats]]]:
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


def _logistic_tables(p: DiscretisedLogistic, shape: torch.Size) -> Iterator[tuple[slice, Callable[[], Floats]]]:
    location, scale = _in_levels(p, shape)
    edges = np.arange(p.levels - 1) + 0.5

    def masses(rows: slice) -> Floats:
        standard = torch.from_numpy((edges - location[rows, None]) / scale[rows, None])
        below = torch.nn.functional.pad(torch.sigmoid(standard), (1, 0))
        return torch.nn.functional.pad(below, (0, 1), value=1.0).diff(dim=1).numpy()

    for rows in _row_slices(len(location), p.levels):
        yield rows, partial(masses, rows)


def _row_slices(count: int, levels: int) -> Iterator[slice]:
    step = max(1, ELEMENTS // levels)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
