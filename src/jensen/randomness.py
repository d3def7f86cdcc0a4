"""Randomness is an argument: every random number is a pure function of a seed and of what it is for."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Stream(IntEnum):
    """What a random number is for; streams of the same seed are independent."""

    INITIALISATION = 0
    ORDER = 1
    TRAINING = 2
    EVALUATION = 3
    SAMPLE = 4
    SPLIT = 5
    BINARISATION = 6
    VALIDATION = 7


def derived_seed(seed: int, *path: int) -> int:
    """A 63-bit seed that depends on `seed` and every element of `path` (all >= 0), well mixed.

    Mixing is NumPy's `SeedSequence`, so that neighbouring seeds and paths give independent streams.
    """
    state = np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(seed: int, *path: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` whose stream is a pure function of (seed, path)."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, *path))


def normal_per_example(seed: int, indices: Sequence[int], shape: Sequence[int], *path: int) -> Tensor:
    """Standard normal noise of shape (len(indices), *shape), on the CPU: row i depends on (seed, indices[i], path) alone.

    So sample i is the same alone, in any batch, and on any machine.
    """
    out = torch.empty(len(indices), *shape)
    for row, index in zip(out, indices, strict=True):
        torch.randn(tuple(shape), generator=generator(seed, Stream.SAMPLE, index, *path), out=row)
    return out


def uniform_per_example(seed: int, indices: Sequence[int], shape: Sequence[int], *path: int) -> Tensor:
    """Uniform noise in the open interval (0, 1), float64, shape (len(indices), *shape), keyed like `normal_per_example`."""
    out = torch.empty(len(indices), *shape, dtype=torch.float64)
    for row, index in zip(out, indices, strict=True):
        torch.rand(tuple(shape), generator=generator(seed, Stream.SAMPLE, index, *path), out=row)
    return out.clamp_(1e-15, 1 - 1e-15)
