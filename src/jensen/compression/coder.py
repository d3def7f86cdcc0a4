"""A stack of bits on which numbers are pushed and popped under distributions: asymmetric numeral systems (Duda 2009).

Pushing a symbol of probability P adds log2(1/P) bits; popping under the same probabilities gives it back and takes them
off again. Popped from bits that are random, a symbol is a draw from the distribution: that is what bits-back needs.
Probabilities are multiples of 2^-24, and every symbol of a window has one of these at least, so that n symbols cost the
share n / 2^24 of the mass. Windows therefore move with the mean and are as wide as the tails of what is in them.

Bits that were pushed are random only if what was pushed followed the very law that it was pushed under. Otherwise, and
where a number is drawn from the bits that the last one was just pushed into, draws repeat themselves: x_{t+1} would
undo the noise of x_t. `scramble` therefore adds pseudo-random bits, modulo 2, to those that are drawn from next.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jensen.errors import InputError

TAIL = 6.0  # standard deviations from the mean to the end of a window, of the widest in it
WIDEST = 1 << 20  # symbols on each side of a window at most
SPLIT = 1 << 16  # words above those at hand that are worth setting aside
ESCAPE = 1 << 20  # what lies beyond a window is coded in two digits to this base

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def constriction() -> Any:
    """The library of entropy coders; `InputError` where it is not installed."""
    try:
        import constriction as library
    except ImportError as error:
        raise InputError(
            "compression needs the package constriction, which is not installed; "
            "install it with: pip install 'jensen[compression]'"
        ) from error
    return library


class Stack:
    """An ANS stack of 32-bit words, begun with `words`; `lowest` is the smallest height that it ever had, in words.

    `scrambled` is how many times it has been scrambled before.

    Numbers pushed or popped together are one array. Everything popped has to be asked for with the very parameters that
    it was pushed with, bit for bit, last in first out.
    """

    def __init__(self, words: npt.NDArray[np.uint32], scrambled: int = 0) -> None:
        stream = constriction().stream
        self._models, self._coder_of = stream.model, stream.stack.AnsCoder
        self._coder = self._coder_of(words)
        self._below: list[npt.NDArray[np.uint32]] = []  # words deep down, so that no operation copies them all
        self._scrambled = scrambled
        self.lowest = self.height

    @property
    def height(self) -> int:
        """In words."""
        return int(self._coder.num_words()) + sum(map(len, self._below))

    def words(self) -> npt.NDArray[np.uint32]:
        """All of it, the bottom first."""
        return np.concatenate([*self._below, self._coder.get_compressed()])

    def scramble(self, count: int) -> None:
        """Make random the bits that the next `count` numbers will be drawn from."""
        self._add_noise(count)
        self._scrambled += 1

    def unscramble(self, count: int) -> None:
        """Undo the last `scramble`: `count` as there, the stack as it was after it."""
        self._scrambled -= 1
        self._add_noise(count)

    def _add_noise(self, count: int) -> None:
        """To all but the topmost word, which may not become 0; a number takes less than a word."""
        self._reach(count + 1)
        words = self._coder.get_compressed()
        noise = np.random.PCG64(self._scrambled).random_raw(count).astype(np.uint32)[: len(words) - 1]
        words[-2 : -2 - len(noise) : -1] ^= noise
        deep = max(0, len(words) - 2 * count - SPLIT)
        if deep > SPLIT:
            self._below.append(words[:deep])
            words = words[deep:]
        self._coder = self._coder_of(words)

    # -- integers around a mean that both sides know

    def push_near(self, values: Integers, mean: Floats, scale: Floats) -> None:
        """Push integers under N(mean, scale²) over the unit bins around them, however far from the mean they are.

        One beyond the window is pushed as the window's end, whose bin is the whole tail, and the excess beside it.
        """
        for window in reversed(_windows(mean, scale)):
            distance = values[window.rows] - window.centre
            symbols = distance.clip(-window.half, window.half)
            excess = (np.abs(distance) - window.half)[np.abs(symbols) == window.half]
            if excess.size:
                if excess.max() >= ESCAPE**2:
                    raise InputError("the model predicts numbers that are far off the data; train it further")
                self._push(excess % ESCAPE, self._models.Uniform(ESCAPE))
                self._push(excess // ESCAPE, self._models.Uniform(ESCAPE))
            self._push(symbols, self._gaussian(window), window.offset, window.scale)

    def pop_near(self, mean: Floats, scale: Floats) -> Integers:
        """Pop what `push_near` pushed."""
        values = np.empty(len(mean), np.int64)
        for window in _windows(mean, scale):
            symbols = self._pop(self._gaussian(window), window.offset, window.scale)
            ends = np.abs(symbols) == window.half
            if ends.any():
                count, uniform = int(ends.sum()), self._models.Uniform(ESCAPE)
                excess = self._pop(uniform, count=count) * ESCAPE
                symbols[ends] += np.sign(symbols[ends]) * (excess + self._pop(uniform, count=count))
            values[window.rows] = window.centre + symbols
        return values

    def draw_near(self, mean: Floats, scale: Floats) -> Integers:
        """Pop integers that were never pushed: draws from N(mean, scale²) over unit bins, its tails cut off."""
        values = np.empty(len(mean), np.int64)
        for window in _windows(mean, scale):
            values[window.rows] = window.centre + self._pop(self._gaussian(window), window.offset, window.scale)
        return values

    def give_back(self, values: Integers, mean: Floats, scale: Floats) -> None:
        """Push what `draw_near` drew: the stack is what it was before."""
        for window in reversed(_windows(mean, scale)):
            self._push(values[window.rows] - window.centre, self._gaussian(window), window.offset, window.scale)

    def _gaussian(self, window: "_Window") -> Any:
        return self._models.QuantizedGaussian(-window.half, window.half)

    # -- levels 0..L-1

    def push_gaussian_levels(self, values: Integers, levels: int, mean: Floats, scale: Floats) -> None:
        """Push levels under N(mean, scale²) over their unit bins, the outer two of which reach to infinity."""
        self._push(values, self._models.QuantizedGaussian(0, levels - 1), *_checked(mean, scale))

    def pop_gaussian_levels(self, levels: int, mean: Floats, scale: Floats) -> Integers:
        """Pop what `push_gaussian_levels` pushed."""
        return self._pop(self._models.QuantizedGaussian(0, levels - 1), *_checked(mean, scale))

    def push_levels(self, values: Integers, masses: Floats) -> None:
        """Push levels (n) under a table of probabilities (n, L)."""
        self._push(values, self._models.Categorical(perfect=False), *_checked(masses))

    def pop_levels(self, masses: Floats) -> Integers:
        """Pop what `push_levels` pushed."""
        return self._pop(self._models.Categorical(perfect=False), *_checked(masses))

    # -- the library

    def _push(self, values: Integers, model: Any, *parameters: Floats) -> None:
        self._coder.encode_reverse(values.astype(np.int32), model, *parameters)

    def _pop(self, model: Any, *parameters: Floats, count: int | None = None) -> Integers:
        self._reach((len(parameters[0]) if count is None else count) + 2)
        popped = self._coder.decode(model, *(parameters if count is None else (count,)))
        self.lowest = min(self.lowest, self.height)
        return popped.astype(np.int64)

    def _reach(self, needed: int) -> None:
        """Have so many words at hand, if there are."""
        while self._below and self._coder.num_words() < needed:
            self._coder = self._coder_of(np.concatenate([self._below.pop(), self._coder.get_compressed()]))


@dataclass(frozen=True, eq=False)
class _Window:
    """Numbers `rows` of an array, coded as distances from `centre`, the integers nearest to their means, up to `half`.

    `offset` is what is left of the means.
    """

    rows: Integers
    centre: Integers
    offset: Floats
    scale: Floats
    half: int


def _windows(mean: Floats, scale: Floats) -> list[_Window]:
    """Numbers of like scales, up to a factor of two, in windows of their own.

    In one as wide as the widest need, the least masses of all its symbols would be tails of the narrow ones: at 2^14
    symbols, one draw of a thousand anywhere in it, a hundred standard deviations away perhaps. And no wider than what
    is in it: an image's chain takes 78,400 draws in 100 steps, so that every other image has one that is anywhere.
    """
    mean, scale = _checked(mean, scale)
    exponents = np.frexp(scale)[1]
    found = []
    for exponent in np.unique(exponents).tolist():
        rows = (exponents == exponent).nonzero()[0]
        centre = np.rint(mean[rows])
        half = min(math.ceil(TAIL * scale[rows].max()) + 1, WIDEST)
        offset = np.ascontiguousarray(mean[rows] - centre)
        found.append(_Window(rows, centre.astype(np.int64), offset, np.ascontiguousarray(scale[rows]), half))
    return found


def _checked(*parameters: Floats) -> tuple[Floats, ...]:
    """Contiguous, in float64; `InputError` where the model gave what is no number."""
    if not all(np.isfinite(values).all() and np.abs(values).max() < 2.0**62 for values in parameters):
        raise InputError("the model's predictions are not finite; train it again, with a lower learning rate")
    return tuple(np.ascontiguousarray(values, np.float64) for values in parameters)
