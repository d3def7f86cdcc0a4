"""Examples as a model sees them, with the empty cells of a table."""

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from jensen.data.spec import DataSpec
from jensen.evaluation.scores import prepare
from jensen.inference.proposals import knows_parts
from jensen.model import AbstractLatentVariableModel
from jensen.vae import VAE
from jensen.vae.missing import HIDDEN


def seen_rows(raw: Shaped[Tensor, " batch *shape"], spec: DataSpec, index: Tensor, seed: int) -> Tensor:
    """Raw examples after the run's preparation.

    An empty cell of a table is NaN, or inf if no training row has one in its column.

    The model has learned nothing about an empty cell of such a column, so the cell is unknown and not missing.
    """
    x, unknown = prepare(spec.preparation, raw, index, seed), unknown_if_empty(spec)
    return x if unknown is None else torch.where(x.isnan() & unknown, HIDDEN, x)


def marginalised(model: AbstractLatentVariableModel, spec: DataSpec) -> Bool[Tensor, " fields"] | None:
    """`unknown_if_empty` for a model with a bound on log p(some cells of a row); None for any other model."""
    return unknown_if_empty(spec) if isinstance(model, VAE) and knows_parts(model) else None


def unknown_if_empty(spec: DataSpec) -> Bool[Tensor, " fields"] | None:
    """For each field of a table whether an empty cell is unknown, as no training row has one; None for other data."""
    if spec.table is None:
        return None
    return torch.tensor([not field.missing for field in spec.table.fields])
