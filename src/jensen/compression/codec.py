"""Examples through a model onto a stack, and back: what the codecs of all models share."""

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

WORD = 32  # bits
MARGIN = 1.05  # how much more than the batch before the next one may borrow per example

Tick = Callable[[float], None]
"""Told now and then which share of a batch is done."""


class AbstractCodec(ABC):
    """Pushes batches of symbols, the model's levels 0..levels-1, onto a stack and pops them again.

    What it computes for a batch depends on the batch as a whole, as floating-point sums do, so that batches are popped
    in the sizes they were pushed in.
    """

    shape: tuple[int, ...]
    levels: int
    steps: int | None = None
    """Of a diffusion model's chain."""
    noise_dims: int
    """Numbers that are drawn for an example before anything of it is pushed."""

    def symbols(self, x: Tensor) -> Tensor:
        """The levels, int64, of prepared x."""
        return ((x + 1) * ((self.levels - 1) / 2)).round().long()

    def prepared(self, symbols: Tensor) -> Tensor:
        """x on the grid of the levels in [-1, 1], in float32."""
        half = (self.levels - 1) / 2
        return symbols.to(torch.float32).sub_(half).div_(half)

    @abstractmethod
    def push(self, stack: Stack, symbols: Tensor, tick: Tick) -> Tensor:
        """Push symbols (batch, *shape); gives the bound on log p(x) that the draws gave, in nats, (batch)."""

    @abstractmethod
    def pop(self, stack: Stack, count: int, tick: Tick) -> Tensor:
        """Pop the `count` examples that were pushed last: symbols (count, *shape)."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A stack's words, the sizes of the batches on it, the bits it was begun with, and the bound of each example.

    `excess` (batches) is what each batch added to the stack beyond minus its bound, in bits: coding makes some of it,
    the draws most, which cost what the bound says only on average.
    """

    words: npt.NDArray[np.uint32]
    batches: tuple[int, ...]
    initial_bits: int
    bound: Tensor
    excess: Tensor

    @property
    def excess_error(self) -> float:
        """The standard error of the excess of all examples, in bits, from its variation between batches."""
        sizes = torch.tensor(self.batches, dtype=torch.float64)
        if len(sizes) < 2:
            return math.nan
        deviation = self.excess - self.excess.sum() / sizes.sum() * sizes
        return math.sqrt(float(deviation.square().sum()) * len(sizes) / (len(sizes) - 1))


def encode(codec: AbstractCodec, symbols: Tensor, most: int) -> Encoded:
    """Push all symbols (count, *shape) onto one stack, at most `most` examples at a time.

    The draws of an example take their bits from the examples before it (bits-back with chaining, Townsend et al. 2019);
    only the first ones need bits that carry nothing. The more the stack holds, the more examples go together: a batch
    borrows what has been earned, so that the initial bits stay those of one example. The stack begins with more
    pseudo-random words than can be needed, and those that nothing ever reached are taken away in the end.
    """
    reserve = codec.noise_dims * most + 64
    source = generator(0, Stream.SAMPLE)
    stack = Stack(torch.randint(1, 1 << WORD, (reserve,), generator=source).numpy().astype(np.uint32))
    batches: list[int] = []
    bounds, excess = [], []
    done, size = 0, 1
    with Progress("compressing", total=len(symbols)) as progress:
        while done < len(symbols):
            batch = symbols[done : done + size]
            before, lowest = stack.height, stack.lowest
            stack.lowest = before
            bounds.append(codec.push(stack, batch, _reporter(progress, done, len(batch))))
            excess.append(WORD * (stack.height - before) + float(bounds[-1].sum()) / math.log(2))
            borrowed = (before - stack.lowest) / len(batch)
            stack.lowest = min(lowest, stack.lowest)
            done += len(batch)
            batches.append(len(batch))
            size = int(min(most, max(1, (stack.height - stack.lowest) / (MARGIN * borrowed + 1))))
    untouched = max(0, stack.lowest - 2)  # the coder's state is the two topmost words
    return Encoded(
        words=stack.words()[untouched:],
        batches=tuple(batches),
        initial_bits=WORD * (reserve - untouched),
        bound=torch.cat(bounds),
        excess=torch.tensor(excess, dtype=torch.float64),
    )


def decode(codec: AbstractCodec, words: npt.NDArray[np.uint32], batches: tuple[int, ...]) -> Tensor:
    """Pop all symbols from a stack: (count, *shape), int64. Raises `InputError` where the model gives no numbers."""
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
    """The error for a model whose x has a density and no mass."""
    return InputError(f"{what} gives x a density, and only masses over levels can be coded; {advice}")
