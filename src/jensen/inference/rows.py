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

    An empty cell of a table becomes NaN. If no training row has an empty cell in this column, it becomes inf.

    The model never learned what an empty cell means there, so the value counts as unknown, not as missing.
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
