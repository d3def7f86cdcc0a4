"""Randomness is an argument: every random number is a pure function of a seed and of what it is for."""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum

import torch
from torch import Tensor

from jensen.errors import InputError


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
    ANNEALING = 8
    IMPUTATION = 9


def derived_seed(seed: int, *path: int) -> int:
    """A 63-bit seed, a hash (BLAKE2b) of `seed` and `path`, which are integers from 0 to 2**64 - 1.

    Every element counts, zeros and the length included, so that neighbouring seeds and paths give unrelated streams.
    Raises `InputError` for an integer out of that range.
    """
    try:
        words = struct.pack(f"<{1 + len(path)}Q", seed, *path)
    except struct.error:
        raise InputError(f"seed {(seed, *path)}: expected integers from 0 to 2**64 - 1; choose another seed") from None
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *path: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` whose stream is a pure function of (seed, path).

    On a CPU, torch keeps 32 bits of a seed: of n such streams about n² / 2**33 pairs coincide. For one stream per
    example, where that would show, there are `normal_per_example` and `uniform_per_example`.
    """
    return torch.Generator(device=device).manual_seed(derived_seed(seed, *path))


def normal_per_example(seed: int, indices: Sequence[int], shape: Sequence[int], *path: int) -> Tensor:
    """Standard normal noise of shape (len(indices), *shape), on the CPU.

    Row i depends on (seed, indices[i], path) alone, so that sample i is the same alone and in any batch.
    """
    out = torch.empty(len(indices), *shape)
    for row, source in zip(out, _generator_per_example(seed, indices, path), strict=True):
        torch.randn(tuple(shape), generator=source, out=row)
    return out


def uniform_per_example(seed: int, indices: Sequence[int], shape: Sequence[int], *path: int) -> Tensor:
    """Uniform noise in the open interval (0, 1), float64, otherwise like `normal_per_example`."""
    out = torch.empty(len(indices), *shape, dtype=torch.float64)
    for row, source in zip(out, _generator_per_example(seed, indices, path), strict=True):
        torch.rand(tuple(shape), generator=source, out=row)
    return out.clamp_(min=2.0**-54)  # torch draws from [0, 1)


def _generator_per_example(seed: int, indices: Sequence[int], path: tuple[int, ...]) -> Iterator[torch.Generator]:
    """One CPU generator per example, different for any two indices below 2**32."""
    key, source = derived_seed(seed, Stream.SAMPLE, *path), torch.Generator()
    for index in indices:
        # Of the seed 32 bits count. An odd factor makes index -> seed one-to-one on them: no two examples share noise,
        # which of 100 000 hashed seeds one pair would; 2**32 divided by the golden ratio sets neighbours far apart.
        yield source.manual_seed((key + index * 0x9E3779B1) % 2**32)
