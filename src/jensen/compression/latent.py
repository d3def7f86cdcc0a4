"""Bits-back with a variational autoencoder (Townsend, Bird & Barber 2019): the codelength is minus the bound (4.6).

    draw z ~ q(z|x): + log q(z|x)      push x under p(x|z): - log p(x|z)      push z under p(z): - log p(z)

z lies on a grid of equal bins. Both q and p are discretised to the masses of these bins; the width of the bins cancels.
"""

import numpy as np
import torch
from torch import Tensor

from jensen.compression.codec import AbstractCodec, Tick, refuse_density
from jensen.compression.coder import Floats, Integers, Stack
from jensen.compression.levels import pop_observation, push_observation, to_floats
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.likelihood import BernoulliLikelihood, CategoricalLikelihood, DiscretisedLikelihood
from jensen.vae import VAE, StandardNormal

BINS = 256  # bins per standard deviation of the prior


class VAECodec(AbstractCodec):
    """Codes levels by a VAE. Raises `InputError` for a likelihood that is a density instead of probabilities."""

    def __init__(self, model: VAE) -> None:
        likelihood = model.likelihood
        if not isinstance(likelihood, BernoulliLikelihood | CategoricalLikelihood | DiscretisedLikelihood):
            raise refuse_density("a Gaussian likelihood", "train with --likelihood discretised-logistic on integers")
        if not isinstance(model.prior, StandardNormal):
            raise InputError("z is coded by the prior N(0, I), but this VAE has another prior; use one with N(0, I)")
        self._model, self._binary = model, isinstance(likelihood, BernoulliLikelihood)
        self.shape, self.noise_dims = model.shape, model.latent_dims
        if isinstance(likelihood, DiscretisedLikelihood):
            self.levels = likelihood.levels
        else:
            self.levels = 2 if self._binary else likelihood.outputs

    def symbols(self, x: Tensor) -> Tensor:
        return x.round().long() if self._binary else super().symbols(x)

    def prepared(self, symbols: Tensor) -> Tensor:
        return symbols.to(torch.float32) if self._binary else super().prepared(symbols)

    @torch.no_grad()
    def push(self, stack: Stack, symbols: Tensor, tick: Tick) -> Tensor:
        x = self.prepared(symbols).to(self._model.device)
        q = self._model.infer(x)
        stack.scramble(len(x) * self.noise_dims)
        points = stack.draw_near(*_on_grid(q))
        p = self._model.decode(self._latent(points, len(x)))
        push_observation(stack, p, symbols)
        stack.push_near(points, *_prior(points))
        tick(1.0)
        return (p.log_prob(x) - q.kl_to_standard()).double().cpu()  # (4.6)

    @torch.no_grad()
    def pop(self, stack: Stack, count: int, tick: Tick) -> Tensor:
        points = stack.pop_near(*_prior(np.empty(count * self.noise_dims)))
        p = self._model.decode(self._latent(points, count))
        symbols = pop_observation(stack, p, torch.Size((count, *self.shape)))
        q = self._model.infer(self.prepared(symbols).to(self._model.device))
        stack.give_back(points, *_on_grid(q))
        stack.unscramble(len(points))
        tick(1.0)
        return symbols

    def _latent(self, points: Integers, count: int) -> Tensor:
        z = torch.from_numpy(points / BINS).reshape(count, self.noise_dims)
        return z.to(self._model.device, next(self._model.parameters()).dtype)


def _on_grid(q: Gaussian) -> tuple[Floats, Floats]:
    """The mean and the scale in units of a bin."""
    return BINS * to_floats(q.mean, q.mean.shape), BINS * to_floats(q.scale, q.mean.shape)


def _prior(points: Floats | Integers) -> tuple[Floats, Floats]:
    return np.zeros(len(points)), np.full(len(points), float(BINS))
