"""Randomness is an argument: every random number is a pure function of a seed and of its purpose."""

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import torch
from torch import Tensor

from jensen.errors import InputError


class Stream(IntEnum):
    """The purpose of a random number. Streams of the same seed are independent."""

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


class Crowd(int):
    """A seed that stands for many: example i of the crowd is example `numbers[i]` of the seed `seeds[i]`.

    So examples that were asked for with different seeds and numbers go through a model in one batch, and each has the
    random numbers that it has alone. A crowd goes where a seed goes, with the indices 0, 1, 2, ... of the crowd; seeds
    derived from a crowd are crowds. As an integer it is -1, which no seed is, so code that draws random numbers for a
    whole batch refuses a crowd.

    >>> bool((normal_per_example(Crowd.of([(3, 8), (5, 2)]), [1], (2,)) == normal_per_example(5, [2], (2,))).all())
    True
    """

    seeds: tuple[int, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, members: Sequence[tuple[int, int]]) -> Self:
        """The crowd of these pairs of a seed and a number."""
        crowd = cls(-1)
        crowd.seeds, crowd.numbers = tuple(seed for seed, _ in members), tuple(number for _, number in members)
        return crowd


def derived_seed(seed: int, *path: int) -> int:
    """A 63-bit seed, which is the BLAKE2b hash of `seed` and `path`; of a `Crowd`, the crowd of its derived seeds.

    `seed` and the elements of `path` are integers from 0 to 2**64 - 1. The hash covers every element, zeros included,
    and the length of the path. So neighbouring seeds and paths give unrelated streams. Raises `InputError` for an
    integer outside the range.
    """
    if isinstance(seed, Crowd):
        derived = {one: derived_seed(one, *path) for one in set(seed.seeds)}
        return Crowd.of([(derived[one], number) for one, number in zip(seed.seeds, seed.numbers, strict=True)])
    try:
        words = struct.pack(f"<{1 + len(path)}Q", seed, *path)
    except struct.error:
        raise InputError(f"seed {(seed, *path)}: expected integers from 0 to 2**64 - 1; choose another seed") from None
    # 63 bits fit into torch's int64, with which `content_uniforms` computes
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *path: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` whose stream is a pure function of (seed, path).

    On a CPU, torch uses only 32 bits of a seed, so among n such streams about n² / 2**33 pairs coincide. For one stream
    per example use `normal_per_example` or `uniform_per_example`, which use more bits.
    """
    if isinstance(seed, Crowd):  # the path of one example ends with its index
        *common, index = path
        path = (*common, seed.numbers[index])
        seed = seed.seeds[index]
    return torch.Generator(device=device).manual_seed(derived_seed(seed, *path))


@dataclass(frozen=True, eq=False)
class Noise:
    """Random draws for a batch of examples, or for some rows of the batch with the same draws.

    Every draw covers the whole batch and is then cut to `rows`, a slice of the batch's `count` rows (None: all rows).
    So a batch gets the same noise in one piece, in parts, and on several processes.
    """

    generator: torch.Generator
    rows: slice | None = None
    count: int | None = None

    def part(self, rows: slice, count: int) -> "Noise":
        """The noise for the slice `rows` of this object's `count` rows, from the generator's present state.

        The generator of this object does not advance, so all parts of a batch start from the same state.
        """
        source = torch.Generator(self.device)
        source.set_state(self.generator.get_state())
        if self.rows is None:
            return Noise(source, rows, count)
        return Noise(source, slice(self.rows.start + rows.start, self.rows.start + rows.stop), self.count)

    @property
    def device(self) -> torch.device:
        """The device on which the numbers are drawn."""
        return self.generator.device

    def normal(self, shape: Sequence[int], dtype: torch.dtype | None = None, *, dim: int = 0) -> Tensor:
        """Standard normal numbers of the given shape, whose dimension `dim` counts the rows."""
        drawn = torch.randn(self._whole(shape, dim), generator=self.generator, dtype=dtype, device=self.device)
        return self._cut(drawn, dim)

    def uniform(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Uniform numbers in [0, 1) of the given shape, whose first dimension counts the rows."""
        drawn = torch.rand(self._whole(shape), generator=self.generator, dtype=dtype, device=self.device)
        return self._cut(drawn)

    def below(self, high: int, shape: Sequence[int]) -> Tensor:
        """Uniform integers 0..high-1, as float32, of the given shape, whose first dimension counts the rows."""
        drawn = torch.empty(self._whole(shape), device=self.device).random_(0, high, generator=self.generator)
        return self._cut(drawn)

    def evenly_spaced(self, rows: int) -> Tensor:
        """(u + row) / count for each of the `rows` rows, in float64; the whole batch shares one uniform u."""
        offset = torch.rand((), generator=self.generator, dtype=torch.float64, device=self.device)
        count = rows if self.count is None else self.count
        return self._cut((offset + torch.arange(count, dtype=torch.float64, device=self.device)) / count)

    def _whole(self, shape: Sequence[int], dim: int = 0) -> list[int]:
        whole = list(shape)
        if self.count is not None:
            whole[dim] = self.count
        return whole

    def _cut(self, drawn: Tensor, dim: int = 0) -> Tensor:
        if self.rows is None:
            return drawn
        return drawn.narrow(dim, self.rows.start, self.rows.stop - self.rows.start)


def normal_per_example(seed: int, indices: Sequence[int], shape: Sequence[int], *path: int) -> Tensor:
    """Standard normal noise of shape (len(indices), *shape), on the CPU.

    Row i depends only on (seed, indices[i], path), so sample i is the same in every batch.
    """
    out = torch.empty(len(indices), *shape)
    for row, source in zip(out, _generator_per_example(seed, indices, path), strict=True):
        torch.randn(tuple(shape), generator=source, out=row)
    return out


def uniform_per_example(seed: int, indices: Sequence[int], shape: Sequence[int], *path: int) -> Tensor:
    """Uniform noise in the open interval (0, 1), in float64; otherwise like `normal_per_example`."""
    out = torch.empty(len(indices), *shape, dtype=torch.float64)
    for row, source in zip(out, _generator_per_example(seed, indices, path), strict=True):
        torch.rand(tuple(shape), generator=source, out=row)
    return out.clamp_(min=2.0**-54)  # torch draws from [0, 1), and the quantile of 0 is infinite


def _generator_per_example(seed: int, indices: Sequence[int], path: tuple[int, ...]) -> Iterator[torch.Generator]:
    """Yield one CPU generator per example; any two indices below 2**32 get different streams."""
    keys, source = derived_seed(seed, Stream.SAMPLE, *path), torch.Generator()
    for index in indices:
        key, number = (keys.seeds[index], keys.numbers[index]) if isinstance(keys, Crowd) else (keys, index)
        # torch uses 32 bits of the seed. An odd factor maps indices to seeds one-to-one modulo 2**32, so no two
        # examples share noise; of 100,000 hashed seeds, about one pair would coincide. This factor, 2**32 divided by
        # the golden ratio, puts the seeds of neighbouring indices far apart.
        yield source.manual_seed((key + number * 0x9E3779B1) % 2**32)


# ---------------------------------------------------------------------------------------------- by content


def content_uniforms(raw: Tensor, seed: int) -> Tensor:
    """Uniform numbers in [0, 1), float32, of the shape of `raw`.

    Row i is a pure function of (seed, raw[i]). The values of `raw` are integers, float32 or float64. The result is the
    same on every device. The key of an example is the sum of its values, weighted by odd random words. Splitmix64
    (Steele, Lea and Flood 2014) hashes the key and the position of the value; the top 24 bits are the uniform number.
    All integer arithmetic wraps around at 64 bits.
    """
    bits = _shifted(_mix_(_content_key(raw, seed) + _positions(raw)), 40)
    return bits.to(torch.float32).mul_(2.0**-24).reshape(raw.shape)


def content_numbers(raw: Tensor) -> Tensor:
    """A number below 2**32 for each row of `raw`, (rows) int64, which is a pure function of the row's values.

    As the index of an example it makes the draws for the example independent of its place in a batch. Equal rows get
    equal numbers. All NaN count as equal, and so do 0.0 and -0.0.
    """
    if raw.is_floating_point():
        raw = torch.where(raw.isnan(), torch.nan, raw) + 0.0
    return _shifted(_content_key(raw, 0), 32).squeeze(1)


def _content_key(raw: Tensor, seed: int) -> Tensor:
    """The hash of the values of each row, (rows, 1) int64."""
    flat = raw.flatten(1)
    content = flat.view(_WORDS[flat.dtype]) if flat.dtype in _WORDS else flat
    weights = _mix_(_positions(raw) + derived_seed(seed)) | 1
    return _mix_((content.to(torch.int64) * weights).sum(dim=1, keepdim=True))


def _positions(raw: Tensor) -> Tensor:
    return torch.arange(1, math.prod(raw.shape[1:]) + 1, device=raw.device) * _GOLDEN


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_WORDS = {torch.float32: torch.int32, torch.float64: torch.int64}
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shifted(words: Tensor, bits: int) -> Tensor:
    """A logical right shift; torch's `>>` is arithmetic, which copies the sign bit."""
    return (words >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix_(words: Tensor) -> Tensor:
    """The finaliser of splitmix64, in place."""
    words.bitwise_xor_(_shifted(words, 30)).mul_(_MIX[0])
    words.bitwise_xor_(_shifted(words, 27)).mul_(_MIX[1])
    return words.bitwise_xor_(_shifted(words, 31))
