"""Imputation: draws from p(x_missing | x_observed) of any model, by a method of the model's family."""

from dataclasses import replace

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.inference.imputer import AbstractImputer, ExampleNoise, Imputation
from jensen.model import AbstractLatentVariableModel
from jensen.progress import track

NUMBERS = 1 << 20  # maximum number of values of x at a time, with all copies; changes memory, never a draw


@torch.no_grad()
def impute(
    model: AbstractLatentVariableModel,
    x: Tensor,
    mask: Tensor,
    method: AbstractImputer,
    *,
    draws: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
) -> Imputation:
    """Draws (draws, batch, *shape) from p(x_missing | x_observed) for x (batch, *shape) after the run's preparation.

    `mask`, bool of the shape of x or of one example, is True where x is observed. Observed entries stay unchanged, bit
    for bit; other values of x are never used. An example without observed entries gets draws from p(x). `method` must
    be a method of the model's family. The draws for example i are a pure function of (seed, index[i], draws) in any
    batch; `index` defaults to 0..batch-1. Raises `InputError` for a mask of another shape or type, for an observed
    value that is not finite, and for a `method` of another family.
    """
    x, observed = x.to(model.device), _checked(model, x, mask, draws).to(model.device)
    numbers = list(range(len(x))) if index is None else index.tolist()
    given = torch.where(observed | x.isnan(), x, method.unobserved)
    size = max(1, NUMBERS // (method.copies(draws) * x[0].numel()))
    parts = []
    for rows in track(torch.arange(len(x)).split(size), "imputing"):
        noise = ExampleNoise(seed, [numbers[row] for row in rows.tolist()])
        rows = rows.to(x.device)
        part = method(model, given[rows], observed[rows], noise, draws)
        parts.append(replace(part, draws=torch.where(observed[rows], x[rows], part.draws.to(x))))
    names = parts[0].diagnostics
    diagnostics = {name: torch.cat([part.diagnostics[name] for part in parts]) for name in names}
    return Imputation(torch.cat([part.draws for part in parts], 1), diagnostics)


def _checked(model: AbstractLatentVariableModel, x: Tensor, mask: Tensor, draws: int) -> Tensor:
    """The mask in the shape of x. Raises `InputError` for unusable arguments."""
    if draws < 1:
        raise InputError(f"{draws} draws: expected at least 1; give a positive number")
    if x.shape[1:] != model.shape or not x.is_floating_point() or not len(x):
        raise InputError(
            f"got {x.dtype} of shape {tuple(x.shape)}, expected prepared floats of shape (batch, "
            f"{', '.join(map(str, model.shape))}); prepare raw data by the run's spec.preparation"
        )
    if mask.dtype != torch.bool or mask.shape not in (x.shape, x.shape[1:]):
        raise InputError(
            f"got a mask of shape {tuple(mask.shape)} and type {mask.dtype}, expected bool of shape {tuple(x.shape)} "
            f"or {tuple(x.shape[1:])}, True where x is observed"
        )
    observed = mask.to(x.device).expand(x.shape)
    finite = (x.isfinite() | ~observed).flatten(1).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise InputError(f"example {row}: an observed value is not finite; mark it as missing in the mask")
    return observed
