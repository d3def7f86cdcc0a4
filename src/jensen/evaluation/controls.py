"""Cheap codelengths of every example, which predict how many nats a model needs for it.

They are the control variates of `regression_estimate`. Their mean over all test examples is known, so only the
difference between the model's bound and its prediction from them is left to chance.
"""

import zlib

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.scores import at_once, prepare, spread

FITTED = 10_000  # maximum number of training examples for the normal distribution
WIDEST = 2048  # maximum number of dimensions for its covariance
NOISES = (0.01, 0.1)  # variance of the noise that is added to it, as a share of the mean variance


def controls(
    train: Examples | None, examples: Examples, preparation: Preparation, seed: int
) -> dict[str, Float[Tensor, " examples"]]:
    """Every control by its name, standardised, float64; a control that is constant or not finite is left out."""
    found = {"size of the deflated example": _deflated(examples)}
    if train is not None and preparation.dimensions <= WIDEST and len(train) > 1:
        found |= _normal(train, examples, preparation, seed)
    found |= _counts(preparation, examples)
    return {name: (c - c.mean()) / c.std() for name, c in found.items() if len(c) > 1 and 0 < c.std() < torch.inf}


def _deflated(examples: Examples) -> Tensor:
    """The bytes of each raw example after zlib, of differences between neighbours as in PNG for integers."""
    sizes = []
    for rows in torch.arange(len(examples)).split(1000):
        raw = examples.x[rows].cpu()
        if not raw.is_floating_point() and raw.ndim > 1:
            raw = raw.diff(dim=-1, prepend=torch.zeros_like(raw[..., :1]))
        sizes += [len(zlib.compress(one.tobytes(), 6)) for one in raw.contiguous().numpy()]
    return torch.tensor(sizes, dtype=torch.float64)


def _counts(preparation: Preparation, examples: Examples) -> dict[str, Tensor]:
    parts = [preparation.observed(examples.x[rows]) for rows in torch.arange(len(examples)).split(1000)]
    return {"observed values": torch.cat(parts).double().cpu()}


def _normal(train: Examples, examples: Examples, preparation: Preparation, seed: int) -> dict[str, Tensor]:
    """-log N(x | m, C + s² I) up to a constant, the linear Gaussian model (4.5), for some s²: C from training examples.

    It is the bound of the best linear denoiser, from the noise s² on.
    """
    mean, basis, variance = _principal(train, preparation, seed)
    found: list[list[Tensor]] = [[] for _ in NOISES]
    for rows in torch.arange(len(examples)).split(at_once(1000, preparation.dimensions)):
        x = prepare(preparation, examples.x[rows], rows, seed).flatten(1).nan_to_num(0.0)
        squares = ((x - mean) @ basis).square()
        for each, noise in zip(found, NOISES, strict=True):
            each.append((squares / (variance + noise * variance.mean())).sum(1).double())
    return {f"normal distribution, noise {noise}": torch.cat(each) for noise, each in zip(NOISES, found, strict=True)}


def _principal(train: Examples, preparation: Preparation, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    rows = spread(len(train), FITTED)
    x = prepare(preparation, train.x[rows], rows, seed).flatten(1).nan_to_num(0.0)
    mean = x.mean(0)
    variance, basis = torch.linalg.eigh((x - mean).mT @ (x - mean) / len(x))
    return mean, basis, variance.clamp(min=0)
