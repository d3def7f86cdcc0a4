"""q(z) of (4.5), amortised or per datapoint, and the optimisation of q with theta fixed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.randomness import generator
from jensen.vae.missing import hidden
from jensen.vae.sequential import Posterior


class AbstractPosterior(nn.Module, ABC):
    """q(z_i) for the examples of a training batch; `amortised` says whether a network gives q for any x."""

    latent_dims: int
    amortised: bool = False

    @abstractmethod
    def forward(self, x: Tensor, index: Tensor) -> Posterior:
        """q (batch, latent_dims) for training examples x (batch, *shape) whose indices are `index` (batch)."""

    @abstractmethod
    def initial(self, x: Tensor) -> Posterior:
        """q for examples that training has not seen, before any optimisation."""

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks that give q."""
        return ()


class AmortisedPosterior(AbstractPosterior):
    """(4.5) ②: q(z|x) = N(z | mu(x), diag(s(x)²)), where an encoder gives mu and log s (batch, 2 latent_dims).

    The encoder gets `fill` for missing and hidden values, NaN and inf in x (0 as in Mattei & Frellsen 2019); with None
    it gets x as it is. `of_parts` is a second encoder, for examples with hidden values. `jensen.vae.parts` trains its
    q(z | observed part of x), and leaves the encoder of whole examples alone.
    """

    amortised = True

    def __init__(
        self, encoder: nn.Module, latent_dims: int, fill: float | None = 0.0, of_parts: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.latent_dims, self.fill, self.of_parts = encoder, latent_dims, fill, of_parts

    def forward(self, x: Tensor, index: Tensor) -> Gaussian:
        """q(z|x) of training examples, in which no value is hidden."""
        return self.whole(x)

    def initial(self, x: Tensor) -> Gaussian:
        """q(z|x), which needs no optimisation, in the precision of x even under autocast."""
        q, some = self.whole(x), hidden(x).flatten(1).any(1, keepdim=True)
        if self.of_parts is None or not some.any():
            return q
        part = self.part(x)
        return Gaussian(torch.where(some, part.mean, q.mean), torch.where(some, part.scale, q.scale))

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.encoder,)

    def whole(self, x: Tensor) -> Gaussian:
        """q(z|x) by the encoder of whole examples."""
        return self._by(self.encoder, x)

    def part(self, x: Tensor) -> Gaussian:
        """q(z | observed part of x) by the encoder of examples with hidden values."""
        assert self.of_parts is not None
        return self._by(self.of_parts, x)

    def _by(self, encoder: nn.Module, x: Tensor) -> Gaussian:
        given = x if self.fill is None else x.masked_fill(x.isnan() | hidden(x), self.fill)
        return _from_mean_and_log_scale(encoder(given).to(x.dtype))


class PerDatapointPosterior(AbstractPosterior):
    """(4.5) ①: a free mu_i and s_i for every training example i = 1..N.

    Initially q is near N(0, initial_scale²). The gradients of all mu and s are sparse, so a training step changes only
    the examples of its batch.
    """

    def __init__(self, examples: int, latent_dims: int, initial_scale: float = 0.5) -> None:
        super().__init__()
        if not initial_scale > 0:
            raise InputError(
                f"initial scale {initial_scale}: expected a standard deviation > 0; give a positive number"
            )
        self.latent_dims, self.initial_scale = latent_dims, initial_scale
        self.table = nn.Embedding(examples, 2 * latent_dims, sparse=True)
        with torch.no_grad():
            self.table.weight[:, :latent_dims].mul_(0.01)  # small and different, so that symmetry is broken
            self.table.weight[:, latent_dims:].fill_(math.log(initial_scale))

    def forward(self, x: Tensor, index: Tensor) -> Gaussian:
        return _from_mean_and_log_scale(self.table(index))

    def initial(self, x: Tensor) -> Gaussian:
        mean = x.new_zeros(x.shape[0], self.latent_dims)
        return Gaussian(mean, torch.full_like(mean, self.initial_scale))


def _from_mean_and_log_scale(parameters: Tensor) -> Gaussian:
    mean, log_scale = parameters.chunk(2, dim=-1)
    return Gaussian(mean, log_scale.exp())


def optimise_posterior(
    negative_elbo: Callable[[Gaussian, Tensor], Tensor],
    start: Gaussian,
    *,
    steps: int,
    draws: int = 4,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> Gaussian:
    """Maximise the bound (4.4) over q with theta fixed, from `start`; each example has its own (mu_i, s_i).

    `negative_elbo(q, eps)` gives one value per example (batch) from standard normal eps (draws, 1, latent_dims), which
    all examples share. Examples do not interact, so the result for one example does not depend on other examples. The
    optimiser is Adam with a learning rate that falls to zero along half a cosine, so that the noise of the gradient
    averages out. Raises `InputError` if `steps` < 1.
    """
    if steps < 1:
        raise InputError(f"optimise_posterior for {steps} steps: expected at least 1; give a positive number of steps")
    mean = start.mean.detach().clone().requires_grad_()
    log_scale = start.scale.detach().expand_as(start.mean).log().requires_grad_()
    optimiser = torch.optim.Adam([mean, log_scale], lr=learning_rate, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    noise = generator(seed)
    with torch.enable_grad():
        for _ in range(steps):
            eps = torch.randn(draws, 1, mean.shape[-1], generator=noise).to(mean)
            objective = negative_elbo(Gaussian(mean, log_scale.exp()), eps).sum()
            mean.grad, log_scale.grad = torch.autograd.grad(objective, [mean, log_scale])
            optimiser.step()
            schedule.step()
    return Gaussian(mean.detach(), log_scale.detach().exp())


def active_units(mean: Tensor) -> Tensor:
    """Latent dimensions in use, bool (latent_dims), given posterior means (batch, latent_dims).

    The variance of the posterior mean over the examples exceeds 0.01 (Burda et al. 2016, section 5.2).
    """
    return mean.var(0, correction=0) > 0.01
