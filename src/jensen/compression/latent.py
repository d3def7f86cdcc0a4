"""Bits-back with a variational autoencoder (Townsend, Bird & Barber 2019): the codelength is minus the bound (4.6).

    draw z ~ q(z|x): + log q(z|x)      push x under p(x|z): - log p(x|z)      push z under p(z): - log p(z)

z lies on a grid of equal bins. Both q and p are discretised to the masses of these bins; the width of the bins cancels.
If q is a product of factors, each factor is drawn given the draws of the groups before it. If p(z) is a mixture, its
component k is drawn from p(k|z), z is pushed under the component, and k under the weights: log p(k|z) - log p(z|k) -
log w_k = - log p(z).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from jensen.compression.codec import AbstractCodec, Tick, refuse_density
from jensen.compression.coder import Floats, Integers, Stack
from jensen.compression.levels import pop_observation, push_observation, to_floats
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.likelihood import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLikelihood,
    LogisticMixtureLikelihood,
)
from jensen.vae import (
    VAE,
    AbstractMixturePrior,
    AbstractSequential,
    Draw,
    GroupedPrior,
    Posterior,
    StandardNormal,
)
from jensen.vae.mixture_prior import Mixture
from jensen.vae.sequential import Choice

BINS = 256  # bins per standard deviation of the prior


class VAECodec(AbstractCodec):
    """Codes levels by a VAE. Raises `InputError` for a likelihood that is a density instead of probabilities."""

    def __init__(self, model: VAE) -> None:
        likelihood = model.likelihood
        of_levels = DiscretisedLikelihood | LogisticMixtureLikelihood
        if not isinstance(likelihood, BernoulliLikelihood | CategoricalLikelihood | of_levels):
            raise refuse_density("a Gaussian likelihood", "train with --likelihood discretised-logistic on integers")
        top = model.prior.top if isinstance(model.prior, GroupedPrior) else model.prior
        if not isinstance(top, StandardNormal | AbstractMixturePrior):
            raise InputError(
                f"z is coded by a prior N(0, I) or a mixture, but this VAE has a {type(top).__name__}; train one with "
                "--prior standard, mixture or vamp"
            )
        self._top = top
        self._model, self._binary = model, isinstance(likelihood, BernoulliLikelihood)
        self.shape, self.noise_dims = model.shape, model.latent_dims
        if isinstance(likelihood, of_levels):
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
        q, groups = self._model.infer(x), list[Integers]()
        stack.scramble(len(x) * self.noise_dims)

        def choose(_: slice, law: Gaussian) -> Tensor:
            groups.append(stack.draw_near(*_on_grid(law)))
            return self._latent(groups[-1], law.shape)

        draw = visited(q, choose)
        p = self._model.decode(draw.z)
        push_observation(stack, p, symbols)
        self._push_latent(stack, draw.z)
        tick(1.0)
        rates = self._model.prior.rates(draw.law, draw.z.unsqueeze(0))
        return (p.log_prob(x) - sum(rate.flatten() for rate in rates.values())).double().cpu()  # (4.6)

    @torch.no_grad()
    def pop(self, stack: Stack, count: int, tick: Tick) -> Tensor:
        z = self._pop_latent(stack, count)
        symbols = pop_observation(stack, self._model.decode(z), torch.Size((count, *self.shape)))
        q, laws = self._model.infer(self.prepared(symbols).to(self._model.device)), list[tuple[slice, Gaussian]]()

        def choose(group: slice, law: Gaussian) -> Tensor:
            laws.append((group, law))
            return z[:, group]

        visited(q, choose)
        for group, law in reversed(laws):
            stack.give_back(_points(z[:, group]), *_on_grid(law))
        stack.unscramble(count * self.noise_dims)
        tick(1.0)
        return symbols

    # -- z under p(z): the dimensions of a mixture first, then those with N(0, 1)

    def _push_latent(self, stack: Stack, z: Tensor) -> None:
        top, rest = z.split([self._top.latent_dims, self.noise_dims - self._top.latent_dims], 1)
        if rest.numel():
            stack.push_near(_points(rest), *_standard(rest.numel()))
        if not isinstance(self._top, AbstractMixturePrior):
            stack.push_near(_points(top), *_standard(top.numel()))
            return
        mixture = self._top.mixture()
        chosen = stack.pop_levels(_masses(mixture.log_joint(top)))
        stack.push_near(_points(top), *_on_grid(_component(mixture, chosen)))
        stack.push_levels(chosen, _masses(mixture.log_weights.expand(len(z), -1)))

    def _pop_latent(self, stack: Stack, count: int) -> Tensor:
        dims = self._top.latent_dims
        if isinstance(self._top, AbstractMixturePrior):
            mixture = self._top.mixture()
            chosen = stack.pop_levels(_masses(mixture.log_weights.expand(count, -1)))
            top = self._latent(stack.pop_near(*_on_grid(_component(mixture, chosen))), (count, dims))
            stack.push_levels(chosen, _masses(mixture.log_joint(top)))
        else:
            top = self._latent(stack.pop_near(*_standard(count * dims)), (count, dims))
        if dims == self.noise_dims:
            return top
        rest = (count, self.noise_dims - dims)
        return torch.cat([top, self._latent(stack.pop_near(*_standard(count * rest[1])), rest)], 1)

    def _latent(self, points: Integers, shape: Sequence[int]) -> Tensor:
        z = torch.from_numpy(points / BINS).reshape(tuple(shape))
        return z.to(self._model.device, next(self._model.parameters()).dtype)


def visited(q: Posterior, choose: Choice) -> Draw:
    """The z that `choose` gives group by group; a single normal law is one group."""
    if isinstance(q, AbstractSequential):
        return q.visit(choose)
    return Draw(choose(slice(None), q), q)


def _points(z: Tensor) -> Integers:
    """The numbers of the bins of z, which lies on the grid."""
    return np.rint(BINS * to_floats(z, z.shape)).astype(np.int64)


def _on_grid(law: Gaussian) -> tuple[Floats, Floats]:
    """The mean and the scale in units of a bin."""
    return BINS * to_floats(law.mean, law.shape), BINS * to_floats(law.scale, law.shape)


def _standard(count: int) -> tuple[Floats, Floats]:
    """N(0, 1) in units of a bin."""
    return np.zeros(count), np.full(count, float(BINS))


def _component(mixture: Mixture, chosen: Integers) -> Gaussian:
    rows = torch.from_numpy(chosen).to(mixture.normals.mean.device)
    return Gaussian(mixture.normals.mean[rows], mixture.normals.scale[rows])


def _masses(logits: Tensor) -> Floats:
    """A table of probabilities, (rows, components)."""
    return logits.double().softmax(-1).cpu().numpy()
