"""Examples as a model sees them, with the empty cells of a table."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from jensen.data.spec import DataSpec
from jensen.evaluation.scores import prepare
from jensen.vae.missing import HIDDEN


def seen_rows(raw: Shaped[Tensor, " batch *shape"], spec: DataSpec, index: Tensor, seed: int) -> Tensor:
    """Raw examples after the run's preparation.

    An empty cell of a table is NaN, or inf if no training row has one in its column.

    The model has learned nothing about an empty cell of such a column, so the cell is unknown and not missing.
    """
    x = prepare(spec.preparation, raw, index, seed)
    if spec.table is None:
        return x
    with_gaps = torch.tensor([field.missing for field in spec.table.fields])
    return torch.where(x.isnan() & ~with_gaps, HIDDEN, x)
