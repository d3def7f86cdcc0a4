"""The interface of imputation: from incomplete examples to draws of complete ones."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jensen.model import AbstractLatentVariableModel
from jensen.randomness import Stream, derived_seed, normal_per_example, uniform_per_example


@dataclass(frozen=True, eq=False)
class Imputation:
    """Draws (draws, batch, *shape) from p(x_missing | x_observed); every draw includes the observed entries of x.

    `diagnostics` holds measures of the quality of the draws by name, one value per example (batch).
    """

    draws: Tensor
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """E[x | x_observed], (batch, *shape), over the draws."""
        return self.draws.mean(0)

    @property
    def standard_deviation(self) -> Tensor:
        """The standard deviation of x over the draws, (batch, *shape); 0 where x is observed, nan for a single draw."""
        return self.draws.std(0)


@dataclass(frozen=True)
class ExampleNoise:
    """Random numbers for examples, each a pure function of (seed, index of the example, path) in any batch."""

    seed: int
    numbers: Sequence[int]

    def normal(self, shape: Sequence[int], *path: int) -> Tensor:
        """Standard normal, (batch, *shape), on the CPU."""
        return normal_per_example(self._stream, self.numbers, shape, *path)

    def uniform(self, shape: Sequence[int], *path: int) -> Tensor:
        """Uniform in the open interval (0, 1), (batch, *shape), float64, on the CPU."""
        return uniform_per_example(self._stream, self.numbers, shape, *path)

    @property
    def _stream(self) -> int:
        return derived_seed(self.seed, Stream.IMPUTATION)


class AbstractImputer(ABC):
    """A sampler of p(x_missing | x_observed) for one family of models.

    `unobserved` stands in x for an entry that is not observed, unless NaN was there before.
    """

    unobserved: float = math.nan

    @abstractmethod
    def __call__(
        self, model: AbstractLatentVariableModel, x: Tensor, observed: Tensor, noise: ExampleNoise, draws: int
    ) -> Imputation:
        """Draws for x (batch, *shape), which is NaN or `unobserved` where `observed`, of the same shape, is False.

        Observed entries of the draws are ignored. Raises `InputError` for a model of another family.
        """

    def copies(self, draws: int) -> int:
        """The number of copies of an example in memory at once."""
        return draws


def chosen_by_weight(log_weights: Tensor, u: Tensor) -> Tensor:
    """For each u (rows, n), the index (rows, n) of the weight of (rows, K) whose share of (0, 1) contains u."""
    cumulative = log_weights.double().softmax(-1).cumsum(-1)
    found = torch.searchsorted(cumulative.contiguous(), u.to(cumulative).contiguous())
    return found.clamp(max=log_weights.shape[-1] - 1)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(Σ w)² / Σ w² over the last dimension, between 1 and the number of weights (Kong 1992)."""
    return 1 / log_weights.double().softmax(-1).square().sum(-1)
