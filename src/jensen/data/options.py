"""How DATA is read: the options of reading and splitting. Nothing here imports torch."""

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

PreparationName = Literal["dequantise", "levels", "threshold", "static", "dynamic", "standardise"]
"""The ways to turn raw data into the model's input; see `jensen.data.preparation`."""

PreparationWish = PreparationName | str | Callable[[int | None], PreparationName] | None
"""A preparation by name, or chosen by the data's number of levels (None: floats). None: the default for the data."""

Split = Literal["train", "validation", "test"]
"""Which part of a run's own data."""

Streaming = Literal["auto", "always", "never"]
"""When examples stay on disk; see `ReadOptions.stream`."""

LARGE = 4 << 30
"""Bytes of examples above which `auto` leaves them on disk."""


class ReadOptions(BaseModel):
    """How to read and split DATA. Every run records its options and applies them whenever it reads data."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    size: tuple[int, int] | None = None
    """Images: height and width. Each image is resized (antialiased, aspect ratio kept) to cover them, and its centre
    is kept. Default: all images must have the same size."""

    colour: Literal["as-is", "grey", "rgb", "rgba"] = "as-is"
    """Images: the channels to read. as-is: those of the files, which must all agree. grey and rgb turn transparency
    into white."""

    layout: Literal["auto", "vector", "hw", "hwc", "chw", "array"] = "auto"
    """Arrays and IDX: what the axes after the first mean. auto: (N, D) are vectors, (N, H, W) grey images; of three
    axes the first or last is channels if its length is 1, 3 or 4."""

    levels: int | None = None
    """Arrays and IDX of integers: the number of levels; values are 0 to levels - 1. Default: 2 for booleans, 256 for
    8 bits, 65536 for 16 bits."""

    array: str | None = None
    """.npz, Parquet and Arrow: the name of the array or column of examples. Default: x, data or images, or arrays of
    several splits such as x_train and x_test; the only column of images or of lists of numbers."""

    labels: str | None = None
    """.npz, Parquet and Arrow: the name of the array or column of labels, or of targets if it holds floats. Default:
    y, labels or targets; the only column of class labels."""

    missing: bool = False
    """Arrays of floats: NaN stands for a missing value, which a VAE can be trained with. Default: NaN is refused."""

    skip_bad: bool = False
    """Images: leave out the files that cannot be read, and record their number."""

    stream: Streaming = "auto"
    """When to read each batch from disk instead of all examples into memory. auto: above 4 GiB. It changes memory and
    speed, never a number."""

    validation_fraction: float = 0.1
    """The share of the examples for validation. DATA may bring its own validation examples instead."""

    test_fraction: float = 0.1
    """The share of the examples for the test. DATA may bring its own test examples instead."""

    split_seed: int = 0
    """The seed of the split: which examples each split has depends on it and on their number alone."""

    def streams(self, size: int) -> bool:
        """Whether examples of `size` bytes stay on disk."""
        return self.stream == "always" or (self.stream == "auto" and size > LARGE)


DEFAULTS = ReadOptions()
