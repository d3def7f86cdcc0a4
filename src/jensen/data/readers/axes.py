"""The meaning of the axes of an example: vectors, signals, images and volumes, with channels first or last."""

import math
from collections.abc import Callable

import numpy as np

from jensen.data.readers.reading import Layout
from jensen.data.stored import Values, converted
from jensen.errors import InputError

CHANNELS = (1, 3, 4)
"""Usual numbers of channels; a first or last axis of such a length holds the channels."""

THIN = 2
"""A first or last axis of another length holds the channels if every other axis is over this many times longer."""

LONG = 8
"""Two axes are a signal, not a grey image, if one axis is at least this many times longer than the other."""

RATHER_LONG = 4
"""If the ratio of two axes is at least this, it is doubtful that they are a grey image."""

Rearrange = Callable[[np.ndarray], np.ndarray]


def _unchanged(block: np.ndarray) -> np.ndarray:
    return block


def _one_channel(block: np.ndarray) -> np.ndarray:
    return block[:, None]


def _channels_first(block: np.ndarray) -> np.ndarray:
    return np.moveaxis(block, -1, 1)


def _flat(block: np.ndarray) -> np.ndarray:
    return block.reshape(len(block), math.prod(block.shape[1:]))


_WORDS = {"c": "channels", "l": "length", "d": "depth", "h": "height", "w": "width"}

_ORDERS: dict[str, tuple[Layout, Rearrange]] = {
    "l": ("signal", _one_channel),
    "cl": ("signal", _unchanged),
    "lc": ("signal", _channels_first),
    "hw": ("image", _one_channel),
    "chw": ("image", _unchanged),
    "hwc": ("image", _channels_first),
    "dhw": ("volume", _one_channel),
    "cdhw": ("volume", _unchanged),
    "dhwc": ("volume", _channels_first),
}
"""What each order of axes means, and the step to (N, C, ...)."""

_RANKS = {"signal": (1, 2), "volume": (3, 4)} | {order: (len(order), len(order)) for order in _ORDERS}
"""The least and the greatest number of axes after the first, by --layout; other layouts accept any number from 1."""


def arrange(values: Values, name: str, wish: str) -> tuple[Values, Layout, str, bool]:
    """Decide what the axes of `values` mean, and bring them into the order of the layout.

    Vectors become (N, D), signals (N, C, L), images (N, C, H, W) and volumes (N, C, D, H, W). `wish` is
    `ReadOptions.layout`. Returns the arranged values, the layout, a note on the decision, and whether the decision is
    doubtful. Raises InputError, which begins with `name`, if the number of axes does not fit `wish`, or if `auto`
    cannot decide which axis holds the channels.
    """
    shape = values.shape[1:]
    _refuse_rank(values.shape, name, wish)
    order, others = _automatic(shape, name) if wish == "auto" else (_order(shape, wish), ())
    told = f"examples of shape {shape} are read as"
    otherwise = f". For other axes give {' or '.join(f'--layout {other}' for other in others)}" if others else ""
    if order == "vector":
        return converted(values, _flat), "vector", f"{told} vectors", False
    if order == "array":
        return values, "array", f"{told} arrays, neither vectors nor images{otherwise}", bool(others)
    layout, rearrange = _ORDERS[order]
    arranged = converted(values, rearrange)
    channels, *sides = arranged.shape[1:]
    axes = ", ".join(_WORDS[letter] for letter in order)
    many = f"{channels} channel{'s' if channels > 1 else ''} of {' x '.join(map(str, sides))}"
    networks = f"for networks of {len(sides)} dimension{'s' if len(sides) > 1 else ''}, or mlp"
    return arranged, layout, f"{told} {layout}s: {axes}, so {many}, {networks}{otherwise}", bool(others)


def _refuse_rank(shape: tuple[int, ...], name: str, wish: str) -> None:
    """Raises InputError if examples of `shape`, which includes N, cannot have the axes of `wish`."""
    lowest, highest = _RANKS.get(wish, (1, None))
    if lowest <= len(shape) - 1 <= (highest or len(shape)):
        return
    wanted = {"signal": "(N, L), (N, C, L) or (N, L, C)", "volume": "(N, D, H, W), (N, C, D, H, W) or (N, D, H, W, C)"}
    expected = f"(N, {', '.join(wish.upper())})" if wish in _ORDERS else wanted.get(wish, "(N, ...), examples first")
    advice = "reshape it to (N, 1) if each number is an example" if len(shape) == 1 else "give another --layout"
    raise InputError(f"{name} has shape {shape}; expected {expected}: {advice}")


def _order(shape: tuple[int, ...], wish: str) -> str:
    """The order of the axes for a given --layout; the channels are the shorter end of a signal or volume."""
    plain = {"signal": "l", "volume": "dhw"}.get(wish)
    if plain is None or len(shape) == len(plain):
        return plain or wish
    return f"c{plain}" if shape[0] <= shape[-1] else f"{plain}c"


def _automatic(shape: tuple[int, ...], name: str) -> tuple[str, tuple[str, ...]]:
    """The order of the axes by their lengths, and other values of --layout if the lengths leave a doubt."""
    if len(shape) == 1:
        return "vector", ()
    if len(shape) == 2:
        return _of_two_axes(*shape)
    if len(shape) > 4:
        return "array", ()
    plain = "hw" if len(shape) == 3 else "dhw"
    first, last = shape[0] in CHANNELS, shape[-1] in CHANNELS
    if first and last:
        volume = " or --layout volume" if plain == "hw" and min(shape) > 1 else ""
        raise InputError(
            f"{name} holds examples of shape {shape}, where the first or the last axis may be channels; "
            f"give --layout c{plain} or --layout {plain}c{volume}"
        )
    if first or last:
        return (f"c{plain}" if first else f"{plain}c"), ()
    volume = "volume" if plain == "hw" else "array"
    found = {f"c{plain}": _is_thin(shape[0], shape[1:]), f"{plain}c": _is_thin(shape[-1], shape[:-1])}
    order = next((order for order, thin in found.items() if thin), volume)
    others = tuple(other for other in (*found, volume) if other != order)
    return ("dhw" if order == "volume" else order), others


def _of_two_axes(first: int, last: int) -> tuple[str, tuple[str, ...]]:
    short, long = sorted((first, last))
    if long >= LONG * short:
        return ("cl" if first < last else "lc"), (() if short == 1 else ("hw",))
    return "hw", (("signal",) if long >= RATHER_LONG * short else ())


def _is_thin(length: int, others: tuple[int, ...]) -> bool:
    return all(other > THIN * length for other in others)
