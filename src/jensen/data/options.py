"""How DATA is read: what a user may say about it. Light: nothing here imports torch."""

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

PreparationName = Literal["dequantise", "levels", "threshold", "static", "dynamic", "standardise"]
"""How raw data become the model's input; see `jensen.data.preparation`."""

PreparationWish = PreparationName | str | Callable[[int | None], PreparationName] | None
"""A preparation by name, chosen from the data's number of levels (None: floats), or the default for them."""


Split = Literal["train", "validation", "test"]
"""Which part of a run's own data."""

Streaming = Literal["auto", "always", "never"]
"""Whether examples stay on disk."""

LARGE = 4 << 30
"""Bytes of examples above which they stay on disk if nobody says otherwise."""


class ReadOptions(BaseModel):
    """What may be said about DATA; recorded in every run, so that it never needs to be said again."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    size: tuple[int, int] | None = None
    """Images: height and width; each image is resized (antialiased, its shape kept) to cover it and centre-cropped.
    Without it all images must have the same size."""

    colour: Literal["as-is", "grey", "rgb", "rgba"] = "as-is"
    """Images: the channels to read; as-is keeps those of the files, which must all agree. Transparency becomes white
    in grey and rgb."""

    layout: Literal["auto", "vector", "hw", "hwc", "chw", "array"] = "auto"
    """Arrays and IDX: what the axes after the first mean. auto: (N, D) is a vector, (N, H, W) a grey image, and
    with three axes the first or last is channels if its length is 1, 3 or 4."""

    levels: int | None = None
    """Arrays and IDX of integers: how many levels there are, values being 0 to levels - 1. Without it 2 for booleans,
    256 for 8 bits and 65536 for 16 bits."""

    array: str | None = None
    """.npz, Parquet and Arrow: the name of the array or column to read. Without it x, data or images, or train and test
    pairs such as x_train and x_test; the only column of images or of lists of numbers."""

    labels: str | None = None
    """.npz, Parquet and Arrow: the name of the array or column of labels, or of targets if it holds floats. Without it
    y, labels or targets, or the only column of class labels."""

    missing: bool = False
    """Arrays of floats: NaN stand for missing values, which a VAE can be trained with. Without it they are refused."""

    skip_bad: bool = False
    """Images: go on without the files that cannot be read; their number is recorded."""

    stream: Streaming = "auto"
    """Read batches from disk as they are needed, instead of all examples into memory once. auto: if they are more than
    4 GiB. Changes memory and speed, never a number."""

    validation_fraction: float = 0.1
    """The share of the examples set aside for validation; not used where DATA brings its own validation examples."""

    test_fraction: float = 0.1
    """The share of the examples set aside for the test; not used where DATA brings its own test examples."""

    split_seed: int = 0
    """Which examples are set aside is a pure function of this seed and of their number."""

    def streams(self, size: int) -> bool:
        """Whether examples of `size` bytes are to stay on disk."""
        return self.stream == "always" or (self.stream == "auto" and size > LARGE)


DEFAULTS = ReadOptions()
