"""Imputation by a Gaussian mixture: draws from the exact conditional distribution."""

from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.inference.imputer import AbstractImputer, ExampleNoise, Imputation
from jensen.mixture import GaussianMixture
from jensen.model import AbstractLatentVariableModel
from jensen.randomness import Stream, derived_seed


@dataclass(frozen=True)
class ExactConditional(AbstractImputer):
    """Exact independent draws from p(x_missing | x_observed) of a Gaussian mixture; the method has no settings."""

    def __call__(
        self, model: AbstractLatentVariableModel, x: Tensor, observed: Tensor, noise: ExampleNoise, draws: int
    ) -> Imputation:
        if not isinstance(model, GaussianMixture):
            raise InputError(f"exact imputation by a {type(model).__name__}: expected a Gaussian mixture")
        complete = x.expand(draws, *x.shape).flatten(2).clone()
        patterns, which = torch.unique(observed.flatten(1), dim=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            if pattern.all():
                continue
            rows = (which == number).nonzero()[:, 0]
            conditional = model.condition(x[rows], pattern.reshape(model.shape))
            numbers = [noise.numbers[row] for row in rows.tolist()]
            found = conditional.sample(draws, seed=derived_seed(noise.seed, Stream.IMPUTATION), index=numbers)
            missing = (~pattern).nonzero()[:, 0]
            complete[:, rows.unsqueeze(1), missing] = found.to(complete)
        return Imputation(complete.unflatten(2, model.shape))
