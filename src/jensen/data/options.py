"""The options of reading and splitting DATA. Imports no torch."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from jensen.data.table.wishes import toml_of

PreparationName = Literal["dequantise", "levels", "threshold", "static", "dynamic", "standardise"]
"""The ways to turn raw data into the model's input; see `jensen.data.preparation`."""

PreparationWish = PreparationName | str | Callable[[int | None], PreparationName] | None
"""A preparation by name, or chosen by the data's number of levels (None: floats). None: the default for the data."""

Split = Literal["train", "validation", "test"]
"""A split of a run's own data."""

LayoutWish = Literal[
    "auto", "table", "vector", "signal", "cl", "lc", "hw", "chw", "hwc", "volume", "cdhw", "dhwc", "array"
]  # fmt: skip
"""The meaning of the axes of arrays; c, l, d, h, w are channels, length, depth, height and width."""

Streaming = Literal["auto", "always", "never"]
"""When to leave the examples on disk; see `ReadOptions.stream`."""

LARGE = 4 << 30
"""Size in bytes above which `auto` leaves the examples on disk."""


class ReadOptions(BaseModel):
    """How to read and split DATA. Every run records its options and applies them whenever it reads data."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    size: tuple[int, int] | None = None
    """Images: height and width in pixels. Default: all images must have the same size.
    Each image is resized (antialiased, aspect ratio kept) until it covers this size, then cropped around its centre."""

    tile: int | None = None
    """Images: cut each image, after `size`, into squares of this side, which become the examples.
    All tiles of an image stay in one split. Pixels at the edges that fill no tile are left out."""

    colour: Literal["as-is", "grey", "rgb", "rgba"] = "as-is"
    """Images: the channels to read. as-is: the channels of the files, which must be the same in all files.
    grey, rgb: transparency becomes white."""

    layout: LayoutWish = "auto"
    """Arrays, CSV and IDX: the meaning of the axes after the first, channels of any number first or last.
    table: the columns have types, the default of a CSV file unless it holds pixels; vector: a CSV file holds numbers.
    signal, cl, lc: signals; hw, chw, hwc: images; volume, cdhw, dhwc: volumes. signal also takes (N, L), volume also
    (N, D, H, W); both take the shorter of the first and the last axis as channels. auto: (N, D) are vectors, (N, H, W)
    grey images, or signals if one axis is at least 8 times longer. Of more axes, the first or the last are channels if
    their number is 1, 3 or 4, or less than half of each other axis. Otherwise three axes are a volume."""

    levels: int | None = None
    """Integers: the number of levels; values are 0 to levels - 1.
    Default: 2 for booleans, 256 for 8 bits, 65536 for 16 bits."""

    array: str | None = None
    """.npz, HDF5, MATLAB, FITS, Parquet and Arrow: the name of the array or column of examples.
    Default for named arrays: x, data or images, or arrays of several splits such as x_train and x_test.
    Default for Parquet and Arrow: the only column of images or of lists of numbers."""

    labels: str | None = None
    """.npz, HDF5, MATLAB, CSV, Parquet and Arrow, and metadata of images: the name of the array or column of labels, or
    of targets if it holds floats. Default: the only one called y, labels or targets. Default for Parquet and Arrow: the
    only column of class labels. Tables: the column that `predict` predicts by default; it remains in x."""

    columns: Annotated[str, BeforeValidator(toml_of)] | None = None
    """Tables: a file of TOML with the types of some columns, as jensen data check --write-columns writes it."""

    window: int | None = None
    """WAV: the number of samples of an example. Default: each file is one example, and all have one length."""

    hop: int | None = None
    """WAV: the number of samples from the start of a window to the start of the next. Default: that of a window."""

    missing: bool = False
    """Arrays of floats: NaN means a missing value. A VAE can be trained on such data. Default: NaN is refused."""

    skip_bad: bool = False
    """Images, WAV, NIfTI, DICOM and FITS: leave out the files that cannot be read, and record their number."""

    stream: Streaming = "auto"
    """When to read each batch from disk instead of all examples into memory. auto: above 4 GiB.
    The choice changes memory and speed, never a number."""

    validation_fraction: float = 0.1
    """The share of the examples for validation, unless DATA has a validation split of its own."""

    test_fraction: float = 0.1
    """The share of the examples for testing, unless DATA has a test split of its own."""

    split_seed: int = 0
    """The seed of the split. The split depends only on this seed, the number of examples and the groups."""

    group: str | None = None
    """Keep all examples of a group in one split; the fractions are then met as nearly as groups allow.
    folder, file: examples from folders of one name, or from one file, are a group.
    .npz, HDF5, MATLAB, CSV, Parquet and Arrow: the name of an array or column with the group of each example."""

    def streams(self, size: int) -> bool:
        """Whether examples of `size` bytes stay on disk."""
        return self.stream == "always" or (self.stream == "auto" and size > LARGE)


DEFAULTS = ReadOptions()
