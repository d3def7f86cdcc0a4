"""Cheap codelengths of every example, which predict how many nats a model needs for it.

They are the control variates of `regression_estimate`. Their mean over all test examples is known, so only the
difference between the model's bound and its prediction from them is left to chance.
"""

import zlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.scores import at_once, prepare, spread

FITTED = 10_000  # maximum number of training examples for the normal distribution
WIDEST = 2048  # maximum number of dimensions for its covariance
NOISE = 0.1  # variance of the noise that is added to it, as a share of the mean variance
ROWS = 1000


def controls(
    train: Examples | None, examples: Examples, preparation: Preparation, seed: int
) -> dict[str, Float[Tensor, " examples"]]:
    """Every control by its name, standardised, float64; a control that is constant or not finite is left out.

    Without training examples, and for many dimensions, there is no normal distribution.
    """
    normal = None
    if train is not None and len(train) > 1 and preparation.dimensions <= WIDEST:
        normal = _Normal.fitted(train, preparation, seed)
    parts = []
    for rows in torch.arange(len(examples)).split(at_once(ROWS, preparation.dimensions)):
        raw, x = examples.x[rows].cpu(), prepare(preparation, examples.x[rows], rows, seed).cpu()
        found = {
            "total variation": total_variation(x),
            "size when deflated": _deflated(raw),
            "observed values": preparation.observed(raw).double(),
        }
        parts.append(found if normal is None else {**found, "normal distribution": normal.energy(x)})
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {name: (c - c.mean()) / c.std() for name, c in whole.items() if 1e-9 < c.std() < torch.inf}


def total_variation(x: Float[Tensor, " batch *shape"]) -> Float[Tensor, " batch"]:
    """Σ |difference| of neighbours along every dimension but the first (channels, features); missing values count 0."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for dim in range(2, x.ndim):
        total += x.diff(dim=dim).abs().nan_to_num(0.0).flatten(1).double().sum(1)
    return total


def _deflated(raw: Tensor) -> Tensor:
    """The bytes of each raw example after zlib, which are nearly proportional to those of a PNG."""
    sizes = [len(zlib.compress(one.tobytes())) for one in raw.contiguous().numpy()]
    return torch.tensor(sizes, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class _Normal:
    """N(m, C + s² I) of training examples, the linear Gaussian model: the bound of the best linear denoiser from s²."""

    mean: Tensor
    basis: Tensor
    variance: Tensor

    @classmethod
    def fitted(cls, train: Examples, preparation: Preparation, seed: int) -> "_Normal":
        rows = spread(len(train), FITTED)
        x = prepare(preparation, train.x[rows], rows, seed).cpu().flatten(1).nan_to_num(0.0)
        mean = x.mean(0)
        variance, basis = torch.linalg.eigh((x - mean).mT @ (x - mean) / len(x))
        return cls(mean, basis, variance.clamp(min=0) + NOISE * variance.mean())

    def energy(self, x: Tensor) -> Tensor:
        """Minus the log-density of each example, up to a constant, in nats."""
        squares = ((x.flatten(1).nan_to_num(0.0) - self.mean) @ self.basis).square()
        return (0.5 * squares / self.variance).sum(1).double()
