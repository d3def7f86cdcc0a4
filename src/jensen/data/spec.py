"""The specification of data: a value that a run records, so that no option of reading must be given again."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from jensen.data.any_preparation import AnyPreparation
from jensen.data.options import ReadOptions
from jensen.data.preparation import DataType
from jensen.data.readers.reading import PICTURED, SPLITS, Kind, Layout
from jensen.data.table.column import Table
from jensen.data.target_scaling import TargetScaling


class DataSpec(BaseModel):
    """The specification of the data of a run: their shape, range, splits and the options of reading. JSON both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: str
    """`digits`, or the absolute path of the data."""

    kind: Kind

    options: ReadOptions

    layout: Layout
    """The kind of example: a vector (D,), signal (C, L), image (C, H, W), volume (C, D, H, W), the row of a table (D,),
    or any other array."""

    shape: tuple[int, ...] = Field(min_length=1)
    """The shape of one example."""

    dtype: DataType
    """The type of the raw values."""

    levels: int | None
    """Integers are 0 to levels - 1; None for floats."""

    minimum: float
    maximum: float
    """`minimum` and `maximum` are the range over all examples."""

    missing: int = 0
    """The number of missing values (NaN)."""

    counts: dict[Literal["train", "validation", "test"], int]

    classes: int | None = Field(ge=1, le=1 << 24)
    """Labels are 0 to classes - 1; None without labels."""

    label_names: tuple[str, ...] | None

    label_counts: tuple[int, ...] | None = None
    """The number of training examples of each class; None without labels."""

    targets: TargetScaling | None = None
    """The number of continuous targets and their moments over the training examples; None without targets."""

    splits: str
    """The origin of the splits, in words."""

    skipped: int
    """The number of files left out because they could not be read."""

    fingerprint: str
    """BLAKE2 digest of all examples, labels and targets in the source's order; it identifies the data."""

    preparation: AnyPreparation

    table: Table | None = None
    """The columns, if the examples are the rows of a table."""

    doubts: tuple[str, ...] = ()
    """Doubts about the data, one line each; training warns about them."""

    @property
    def pictured(self) -> bool:
        """Whether examples can be shown as pictures; see `jensen.data.pictures`."""
        return self.layout in PICTURED

    def label_name(self, label: int) -> str:
        """The name of a label, which is the integer of the label if labels have no names."""
        names = self.label_names or ()
        return names[label] if label < len(names) else str(label)

    @field_validator("counts")
    @classmethod
    def _of_all_splits(cls, counts: dict[str, int]) -> dict[str, int]:
        if set(counts) != set(SPLITS) or min(counts.values()) < 0:
            raise ValueError(f"expected the number of examples of each of {', '.join(SPLITS)}")
        return counts

    @field_validator("shape")
    @classmethod
    def _countable(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if min(shape) < 1 or math.prod(shape) > 1 << 40:
            raise ValueError("expected at least one number in each direction and no more than 2**40 in all")
        return shape
