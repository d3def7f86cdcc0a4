"""A stack of bits to push numbers onto and pop numbers from, each under a distribution: ANS (Duda 2009).

ANS means asymmetric numeral systems. Pushing a symbol of probability P adds log2(1/P) bits; popping under the same
probabilities returns the symbol and removes the bits. A symbol popped from random bits is a draw from the distribution,
which bits-back needs. Probabilities are multiples of 2^-24, and every symbol has at least 2^-24. So a window of n
symbols wastes up to n / 2^24 of the mass. Windows therefore follow the mean and are only as wide as the tails need.

Pushed bits are random only if the pushed numbers follow the distribution under which they are pushed. Otherwise, and
when a number is drawn from the bits of the number just pushed, draws repeat: x_{t+1} would undo the noise of x_t. So
`scramble` adds pseudo-random bits, modulo 2, to the bits of the next draws.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jensen.errors import InputError

TAIL = 6.0  # half the width of a window, in standard deviations of the widest distribution in it
WIDEST = 1 << 20  # maximum number of symbols on each side of a window's centre
SPLIT = 1 << 16  # minimum number of deep words to set aside
ESCAPE = 1 << 20  # base of the two digits that code the distance beyond a window

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def constriction() -> Any:
    """The library of entropy coders; `InputError` if it is not installed."""
    try:
        import constriction as library
    except ImportError as error:
        raise InputError(
            "compression needs the package constriction, which is not installed; "
            "install it with: pip install 'jensen[compression]'"
        ) from error
    return library


class Stack:
    """An ANS stack of 32-bit words with the initial content `words`.

    `lowest` is the smallest height so far, in words. `scrambled` is the number of calls of `scramble` so far. Numbers
    are pushed and popped as arrays, last in, first out. A pop needs the same parameters as the push, identical to the
    last bit.
    """

    def __init__(self, words: npt.NDArray[np.uint32], scrambled: int = 0) -> None:
        stream = constriction().stream
        self._models, self._coder_of = stream.model, stream.stack.AnsCoder
        self._coder = self._coder_of(words)
        self._below: list[npt.NDArray[np.uint32]] = []  # deep words, set aside so that operations need not copy them
        self._scrambled = scrambled
        self.lowest = self.height

    @property
    def height(self) -> int:
        """The number of words."""
        return int(self._coder.num_words()) + sum(map(len, self._below))

    def words(self) -> npt.NDArray[np.uint32]:
        """All words, from the bottom up."""
        return np.concatenate([*self._below, self._coder.get_compressed()])

    def scramble(self, count: int) -> None:
        """Randomise the bits from which the next `count` numbers will be drawn."""
        self._add_noise(count)
        self._scrambled += 1

    def unscramble(self, count: int) -> None:
        """Undo the last `scramble`, with the same `count`; the stack must be as it was right after `scramble`."""
        self._scrambled -= 1
        self._add_noise(count)

    def _add_noise(self, count: int) -> None:
        """Add noise to `count` words below the topmost word, which must not be 0; a number takes less than a word."""
        self._reach(count + 1)
        words = self._coder.get_compressed()
        noise = np.random.PCG64(self._scrambled).random_raw(count).astype(np.uint32)[: len(words) - 1]
        words[-2 : -2 - len(noise) : -1] ^= noise
        deep = max(0, len(words) - 2 * count - SPLIT)
        if deep > SPLIT:
            self._below.append(words[:deep])
            words = words[deep:]
        self._coder = self._coder_of(words)

    # -- integers around a mean that encoder and decoder know

    def push_near(self, values: Integers, mean: Floats, scale: Floats) -> None:
        """Push integers, also far from the mean, under N(mean, scale²) discretised to unit bins.

        An integer beyond the window is pushed in two parts. The first part is the end of the window, whose bin is the
        whole tail. The second part is the distance of the integer from this end. Raises `InputError` for an excess of
        `ESCAPE`² or more.
        """
        for window in reversed(_windows(mean, scale)):
            distance = values[window.rows] - window.centre
            symbols = distance.clip(-window.half, window.half)
            excess = (np.abs(distance) - window.half)[np.abs(symbols) == window.half]
            if excess.size:
                if excess.max() >= ESCAPE**2:
                    raise InputError("the model's predictions are too far from the data to code them; train it further")
                self._push(excess % ESCAPE, self._models.Uniform(ESCAPE))
                self._push(excess // ESCAPE, self._models.Uniform(ESCAPE))
            self._push(symbols, self._gaussian(window), window.offset, window.scale)

    def pop_near(self, mean: Floats, scale: Floats) -> Integers:
        """Pop the integers that `push_near` pushed."""
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
        """Pop integers that were never pushed: draws from N(mean, scale²) in unit bins, without the tails."""
        values = np.empty(len(mean), np.int64)
        for window in _windows(mean, scale):
            values[window.rows] = window.centre + self._pop(self._gaussian(window), window.offset, window.scale)
        return values

    def give_back(self, values: Integers, mean: Floats, scale: Floats) -> None:
        """Push back the integers that `draw_near` drew, which restores the stack."""
        for window in reversed(_windows(mean, scale)):
            self._push(values[window.rows] - window.centre, self._gaussian(window), window.offset, window.scale)

    def _gaussian(self, window: "_Window") -> Any:
        return self._models.QuantizedGaussian(-window.half, window.half)

    # -- levels 0..L-1

    def push_gaussian_levels(self, values: Integers, levels: int, mean: Floats, scale: Floats) -> None:
        """Push levels under N(mean, scale²) in unit bins; the two outer bins extend to infinity."""
        self._push(values, self._models.QuantizedGaussian(0, levels - 1), *_checked(mean, scale))

    def pop_gaussian_levels(self, levels: int, mean: Floats, scale: Floats) -> Integers:
        """Pop the levels that `push_gaussian_levels` pushed."""
        return self._pop(self._models.QuantizedGaussian(0, levels - 1), *_checked(mean, scale))

    def push_levels(self, values: Integers, masses: Floats) -> None:
        """Push levels (n) under a table of probabilities (n, L)."""
        self._push(values, self._models.Categorical(perfect=False), *_checked(masses))

    def pop_levels(self, masses: Floats) -> Integers:
        """Pop the levels that `push_levels` pushed."""
        return self._pop(self._models.Categorical(perfect=False), *_checked(masses))

    # -- the library

    def _push(self, values: Integers, model: Any, *parameters: Floats) -> None:
        # Reversed, because a stack returns the last symbol first: so one `decode` gives the array in its order
        self._coder.encode_reverse(values.astype(np.int32), model, *parameters)

    def _pop(self, model: Any, *parameters: Floats, count: int | None = None) -> Integers:
        self._reach((len(parameters[0]) if count is None else count) + 2)
        popped = self._coder.decode(model, *(parameters if count is None else (count,)))
        self.lowest = min(self.lowest, self.height)
        return popped.astype(np.int64)

    def _reach(self, needed: int) -> None:
        """Make the coder hold at least `needed` words, if the stack has that many."""
        while self._below and self._coder.num_words() < needed:
            self._coder = self._coder_of(np.concatenate([self._below.pop(), self._coder.get_compressed()]))


@dataclass(frozen=True, eq=False)
class _Window:
    """The elements `rows` of an array, coded as distances of at most `half` from the integers `centre`.

    `centre` is the mean rounded to an integer, and `offset` the remainder of the mean.
    """

    rows: Integers
    centre: Integers
    offset: Floats
    scale: Floats
    half: int


def _windows(mean: Floats, scale: Floats) -> list[_Window]:
    """The windows of all numbers; numbers whose scales agree within a factor of two share a window.

    A common window for all numbers would have to fit the widest scale. Every symbol has a mass of at least 2^-24, so in
    a window of 2^14 symbols one draw in a thousand would land anywhere, for narrow scales perhaps a hundred standard
    deviations away. A window is also no wider than the tails of its numbers need: a 28x28 image takes 78,400 draws in a
    chain of 100 steps, so in about every other image one draw lands anywhere in the window.
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
    """The arrays, contiguous and in float64; `InputError` if the model's predictions are not finite."""
    if not all(np.isfinite(values).all() and np.abs(values).max() < 2.0**62 for values in parameters):
        raise InputError("the model's predictions are not finite; train it again with a lower learning rate")
    return tuple(np.ascontiguousarray(values, np.float64) for values in parameters)
