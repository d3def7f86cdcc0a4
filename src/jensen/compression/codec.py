"""Codecs: examples through a model onto a stack, and back. This part is common to all models."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jensen.compression.coder import Stack
from jensen.errors import InputError
from jensen.progress import Progress
from jensen.randomness import Stream, generator

WORD = 32  # bits of one word of the stack
MARGIN = 1.05  # factor for the bits that an example borrows: the next batch may borrow more than the last one

Tick = Callable[[float], None]
"""A callback that gets the finished share of a batch, from 0 to 1."""


class AbstractCodec(ABC):
    """Pushes batches of symbols onto a stack and pops them again.

    A symbol is a level of the model, 0..levels-1. Batches must be popped in the sizes in which they were pushed,
    because the last digits of floating-point sums depend on the whole batch.
    """

    shape: tuple[int, ...]
    levels: int
    steps: int | None = None
    """Steps of a diffusion model's chain; None for other models."""
    noise_dims: int
    """Numbers drawn for an example before the first push."""

    def symbols(self, x: Tensor) -> Tensor:
        """The levels of x as int64, where x is an example after the run's preparation."""
        return ((x + 1) * ((self.levels - 1) / 2)).round().long()

    def prepared(self, symbols: Tensor) -> Tensor:
        """x on the grid of levels in [-1, 1], as float32: the inverse of `symbols`."""
        half = (self.levels - 1) / 2
        return symbols.to(torch.float32).sub_(half).div_(half)

    @abstractmethod
    def push(self, stack: Stack, symbols: Tensor, tick: Tick) -> Tensor:
        """Push symbols (batch, *shape); returns the bound on log p(x) for the actual draws, in nats, (batch)."""

    @abstractmethod
    def pop(self, stack: Stack, count: int, tick: Tick) -> Tensor:
        """Pop the `count` examples that were pushed last: symbols (count, *shape)."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """The words of a stack, the sizes of the batches on it, the number of initial bits, and the bound of each example.

    `excess` (batches) is in bits: the length that a batch adds to the stack, minus the length that the bound of the
    batch predicts. The coder causes a small part of the excess. The draws cause most of the excess, because a draw
    costs the predicted length only on average.
    """

    words: npt.NDArray[np.uint32]
    batches: tuple[int, ...]
    initial_bits: int
    bound: Tensor
    excess: Tensor

    @property
    def excess_error(self) -> float:
        """The standard error of the total excess in bits, estimated from the differences between batches."""
        sizes = torch.tensor(self.batches, dtype=torch.float64)
        if len(sizes) < 2:
            return math.nan
        deviation = self.excess - self.excess.sum() / sizes.sum() * sizes
        return math.sqrt(float(deviation.square().sum()) * len(sizes) / (len(sizes) - 1))


def encode(codec: AbstractCodec, symbols: Tensor, most: int) -> Encoded:
    """Push all symbols (count, *shape) onto one stack, in batches of up to `most` examples.

    The draws of an example take their bits from the earlier examples (bits-back with chaining, Townsend et al. 2019).
    Only the first example needs initial bits, which carry no data; so the first batch is one example. A batch may
    borrow only the bits of earlier batches, so batches grow as the stack grows. The stack starts with more
    pseudo-random words than necessary; the words that were never read are removed at the end.
    """
    reserve = codec.noise_dims * most + 64
    source = generator(0, Stream.SAMPLE)  # a fixed seed: equal data give equal files
    stack = Stack(torch.randint(1, 1 << WORD, (reserve,), generator=source).numpy().astype(np.uint32))
    batches: list[int] = []
    bounds, excess = [], []
    done, size = 0, 1
    with Progress("compressing", total=len(symbols)) as progress:
        while done < len(symbols):
            batch = symbols[done : done + size]
            before, lowest = stack.height, stack.lowest
            stack.lowest = before  # to measure how deep this batch alone reaches
            bounds.append(codec.push(stack, batch, _reporter(progress, done, len(batch))))
            excess.append(WORD * (stack.height - before) + float(bounds[-1].sum()) / math.log(2))
            borrowed = (before - stack.lowest) / len(batch)
            stack.lowest = min(lowest, stack.lowest)
            done += len(batch)
            batches.append(len(batch))
            size = int(min(most, max(1, (stack.height - stack.lowest) / (MARGIN * borrowed + 1))))
    untouched = max(0, stack.lowest - 2)  # the coder keeps the two topmost words as its state
    return Encoded(
        words=stack.words()[untouched:],
        batches=tuple(batches),
        initial_bits=WORD * (reserve - untouched),
        bound=torch.cat(bounds),
        excess=torch.tensor(excess, dtype=torch.float64),
    )


def decode(codec: AbstractCodec, words: npt.NDArray[np.uint32], batches: tuple[int, ...]) -> Tensor:
    """Pop all symbols (count, *shape) from a stack, as int64. Raises `InputError` if predictions are not finite."""
    stack = Stack(words, scrambled=len(batches) * (codec.steps or 1))
    parts, done = [], 0
    with Progress("decompressing", total=sum(batches)) as progress:
        for size in reversed(batches):
            parts.append(codec.pop(stack, size, _reporter(progress, done, size)))
            done += size
    return torch.cat(parts[::-1])


def _reporter(progress: Progress, done: int, size: int) -> Tick:
    return lambda share: progress.update(done + int(share * size))


def refuse_density(what: str, advice: str) -> InputError:
    """The error for a model that gives x a density instead of probabilities."""
    return InputError(f"{what} gives x a density, but compression needs probabilities of levels; {advice}")
