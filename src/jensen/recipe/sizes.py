"""Sizes of convolutional networks by the shape of the examples, chosen so that a step takes about a second of one core.

The cost of a convolution is proportional to positions x taps x width². docs/nets.md has the sizes and the seconds.
"""

import math
from collections.abc import Sequence

MOST_POSITIONS = 512  # of the finest level
LARGE_PATCH = 16  # values; the noise of larger patches does not pass through few channels


def has_large_patches(shape: Sequence[int], patch: int) -> bool:
    """Whether data of `shape` (C, *sizes) in patches of `patch` pixels a side have more than 16 values in a patch.

    >>> [has_large_patches(shape, patch_by_shape(shape)) for shape in ((1, 28, 28), (3, 32, 32), (3, 64, 64))]
    [False, False, True]
    """
    return len(shape) > 1 and values_of_a_patch(shape, patch) > LARGE_PATCH


def noise_mean(shape: Sequence[int]) -> float:
    """The mean of log sigma in training: -1.2, and ½ log(N / 1024) more for N > 1024 pixels, but at most 0.

    Neighbouring pixels are alike, so more of them hide the same picture under the same noise less (Hoogeboom et al.
    2023).

    >>> [noise_mean(shape) for shape in ((5,), (3, 32, 32), (3, 64, 64), (1, 16, 16, 16), (3, 256, 256))]
    [-1.2, -1.2, -0.507, -0.507, 0.0]
    """
    return round(min(0.0, -1.2 + 0.5 * math.log(max(1.0, math.prod(shape[1:]) / 1024))), 3)


def positions(shape: Sequence[int], patch: int) -> int:
    """The number of patches of `patch` pixels a side in data of shape (C, *sizes)."""
    return math.prod(-(-size // patch) for size in shape[1:])


def values_of_a_patch(shape: Sequence[int], patch: int) -> int:
    """The number of values of a patch of `patch` pixels a side, which is shorter along shorter axes."""
    return shape[0] * math.prod(min(size, patch) for size in shape[1:])


def patch_by_shape(shape: Sequence[int], smallest: int = 1) -> int:
    """The smallest power of 2 from `smallest` up that leaves at most `MOST_POSITIONS` patches.

    >>> [patch_by_shape(shape) for shape in ((1, 16, 16), (1, 28, 28), (3, 64, 64), (12, 5000), (1, 64, 64, 64))]
    [1, 2, 4, 16, 8]
    """
    patch = smallest
    while positions(shape, patch) > MOST_POSITIONS:
        patch *= 2
    return patch


def unet_widths(shape: Sequence[int], patch: int) -> tuple[int, ...]:
    """The channels of two levels: 64 for patches of up to 64 values, and 128 for larger patches.

    The number is smaller where a step would otherwise take too long, but at least 32.

    >>> [unet_widths(shape, patch_by_shape(shape)) for shape in ((1, 28, 28), (3, 64, 64), (3, 256, 256))]
    [(64, 64), (64, 64), (128, 128)]
    """
    taps = math.prod(3 if size > 1 else 1 for size in shape[1:])
    affordable = math.isqrt(4 * 256 * 9 * 64**2 // (positions(shape, patch) * taps))  # 4 steps of 16 x 16 positions
    wanted = 64 if values_of_a_patch(shape, patch) <= 64 else 128
    width = min(wanted, max(32, affordable // 16 * 16))
    return (width, width)


def encoder_channels(shape: Sequence[int], patch: int) -> tuple[int, ...]:
    """The channels of each level of an encoder, from the finest level to the last.

    Each further level halves the sides, until at most 64 positions are left. The last level has 32 channels for patches
    of up to 4 values, 64 channels for patches of up to 64 values and for volumes, and 128 channels for all others. Each
    finer level has half as many channels as the next level, but at least 16.

    >>> [encoder_channels(shape, patch_by_shape(shape, 2)) for shape in ((1, 8, 8), (1, 28, 28), (3, 64, 64))]
    [(32,), (16, 32), (32, 64)]
    """
    values = values_of_a_patch(shape, patch)
    last = 32 if values <= 4 else 64 if values <= 64 or len(shape) == 4 else 128  # a volume has 27 taps
    count = 1
    while positions(shape, patch << (count - 1)) > 64:
        count += 1
    return tuple(max(16, last >> finer) for finer in reversed(range(count)))


def latent_dims(shape: Sequence[int], examples: int) -> int:
    """The number of latent dimensions: the largest power of 2 up to the root of the number of values.

    A vector gets at least 16 dimensions, but not more than half of the number of its values, rounded up. In all cases
    the number is at most a quarter of the number of training examples.

    >>> [latent_dims(shape, 10_000) for shape in ((5,), (100,), (1, 8, 8), (1, 28, 28), (3, 32, 32))]
    [3, 16, 8, 16, 32]
    """
    values = math.prod(shape)
    dims = 2 ** math.floor(math.log2(values) / 2)
    if len(shape) == 1:  # a vector's values tell more than the pixels of an image, which are much alike
        dims = min(max(16, dims), -(-values // 2))
    return max(1, min(dims, examples // 4))
