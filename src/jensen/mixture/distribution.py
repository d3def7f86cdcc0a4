"""Σ_k w_k N(x | m_k, L_k L_k^T): marginals, conditionals, quantiles and draws, all exact (1.2), (1.3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.gaussian import MultivariateGaussian
from jensen.likelihood.components import Components, Normal
from jensen.randomness import uniform_per_example


@dataclass(frozen=True, eq=False)
class Mixture:
    """Σ_k w_k N(x | m_k, L_k L_k^T) with `log_weights` (*batch, K) and `components` of batch shape (*batch, K) or (K).

    The weights add up to one (not checked). Raises `InputError` where the shapes do not fit.
    """

    log_weights: Tensor
    components: MultivariateGaussian

    def __post_init__(self) -> None:
        weights, components = tuple(self.log_weights.shape), tuple(self.components.batch_shape)
        if not weights or not components or components != weights[len(weights) - len(components) :]:
            raise InputError(
                f"a mixture with weights of shape {weights} over components of shape {components}: give (*batch, K) "
                "weights and as many components"
            )

    @property
    def dimensions(self) -> int:
        """d, the number of dimensions of x."""
        return self.components.mean.shape[-1]

    @property
    def weights(self) -> Tensor:
        """The weights w, (*batch, K)."""
        return self.log_weights.exp()

    @property
    def mean(self) -> Tensor:
        """E[x] = Σ_k w_k m_k, (*batch, d)."""
        return (self.weights.unsqueeze(-1) * self.components.mean).sum(-2)

    @property
    def variance(self) -> Tensor:
        """Var[x] of each dimension, (*batch, d), by the law of total variance."""
        deviation = self.components.mean - self.mean.unsqueeze(-2)
        return (self.weights.unsqueeze(-1) * (self._scales().square() + deviation.square())).sum(-2)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k) in nats, (*batch, K), for x (*batch, d)."""
        return self.log_weights + self.components.log_prob(x.unsqueeze(-2))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (*batch)."""
        return self.log_joint(x).logsumexp(-1)

    def marginal(self, indices: Sequence[int]) -> "Mixture":
        """The distribution of x[indices] (1.3), in the order given."""
        return Mixture(self.log_weights, self.components.marginal(indices))

    def condition(self, indices: Sequence[int], values: Tensor) -> "Mixture":
        """The distribution (1.2) of the other coordinates, in ascending order, given x[indices] = values.

        `values` is (*batch, len(indices)). The result is also a mixture. Each component k is conditioned, and its
        weight becomes w_k p(values | k) / p(values).
        """
        known = values.unsqueeze(-2)
        log_weights = self.log_weights + self.components.marginal(indices).log_prob(known)
        return Mixture(log_weights.log_softmax(-1), self.components.condition(indices, known))

    def cdf(self, x: Tensor) -> Tensor:
        """P(x_d <= value) of each dimension on its own, for values (*sample, *batch, d)."""
        return self._by_dimension().cdf(x, Normal()).to(self.log_weights.dtype)

    def quantile(self, u: Tensor) -> Tensor:
        """The inverse of `cdf` for u (*sample, *batch, d) in (0, 1)."""
        return self._by_dimension().quantile(u, Normal()).to(self.log_weights.dtype)

    def sample(self, draws: int, *, seed: int, index: Sequence[int]) -> Tensor:
        """`draws` draws from each mixture of a batch, (draws, batch, d); mixture i depends only on (seed, index[i])."""
        u = uniform_per_example(seed, index, (draws, self.dimensions + 1)).transpose(0, 1)
        return self.transform(u.to(self.log_weights.device))

    def transform(self, u: Tensor) -> Tensor:
        """A draw (*sample, *batch, d) from uniform noise (*sample, *batch, d + 1).

        The first of the d + 1 numbers chooses the component k, the other numbers give eps in m_k + L_k eps (1.8).
        """
        chosen = self.choose(u[..., 0]).unsqueeze(-1)
        eps = torch.special.ndtri(u[..., 1:]).to(self.log_weights.dtype)
        mean, factor = self.components.mean, self.components.cholesky
        factor = factor.expand(*self.components.batch_shape, *factor.shape[-2:])
        drawn = torch.zeros_like(eps)
        for k in range(self.log_weights.shape[-1]):  # no factor is copied for every draw
            drawn = torch.where(
                chosen == k, mean[..., k, :] + (factor[..., k, :, :] @ eps.unsqueeze(-1))[..., 0], drawn
            )
        return drawn

    def choose(self, u: Tensor) -> Tensor:
        """The component whose share of [0, 1] contains u, (*sample, *batch)."""
        cumulative = self.weights.cumsum(-1)
        return (cumulative < u.unsqueeze(-1)).sum(-1).clamp(max=self.log_weights.shape[-1] - 1)

    def _by_dimension(self) -> Components:
        """The mixture of each dimension on its own."""
        return Components(self.log_weights.unsqueeze(-2), self.components.mean.mT, self._scales().mT)

    def _scales(self) -> Tensor:
        """The standard deviation of each dimension within each component."""
        return self.components.cholesky.square().sum(-1).sqrt()


def mixture(weights: Tensor, means: Tensor, covariances: Tensor) -> Mixture:
    """The mixture of weights (K), means (K, d) and covariances (K, d, d), in float64.

    Raises `InputError` for weights that are negative or do not add up to one, and for a matrix that is not a
    covariance.

    >>> mixture(torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1, 1)).variance
    tensor([2.], dtype=torch.float64)
    """
    weights = weights.double()
    if weights.ndim != 1 or not bool((weights >= 0).all()) or not math.isclose(float(weights.sum()), 1, abs_tol=1e-6):
        raise InputError(f"weights {weights.tolist()} of a mixture: expected a list of numbers >= 0 that add up to 1")
    components = MultivariateGaussian.from_covariance(means.double(), covariances.double())
    return Mixture((weights / weights.sum()).log(), components)
