"""Any preparation, as a run records it."""

from typing import Annotated

from pydantic import Field

from jensen.data.preparation import (
    Dequantise,
    DynamicBinarisation,
    Levels,
    Standardise,
    StaticBinarisation,
    Threshold,
)
from jensen.data.table_preparation import TablePreparation

AnyPreparation = Annotated[
    Dequantise | Levels | Threshold | StaticBinarisation | DynamicBinarisation | Standardise | TablePreparation,
    Field(discriminator="kind"),
]
