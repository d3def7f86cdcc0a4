"""Mixtures of normals as p(z): one with free components, and one whose components are q(z|x) of learned inputs.

Both have log p(z) in closed form, so a VAE with such a prior has L_K (4.9) and annealed importance sampling. The
KL(q(z|x) || p(z)) of a mixture has no closed form; its estimate is log q(z|x) - log p(z) of each draw.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.gaussian import LOG_SQRT_TWO_PI, Gaussian
from jensen.randomness import normal_per_example, uniform_per_example
from jensen.vae.prior import AbstractPrior, refuse_labels

NOISE, CHOICE = 0, 2  # purposes of random numbers; p(x|z) of the same seed has purpose 1
START_VARIANCE = 0.5  # initial variance of a component; the initial means have the rest of the variance 1


@dataclass(frozen=True, eq=False)
class Mixture:
    """Σ_k w_k N(z | m_k, diag(s_k²)): `log_weights` (K), normalised, and the components `normals` (K, latent_dims)."""

    log_weights: Tensor
    normals: Gaussian

    def log_joint(self, z: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch components"]:
        """log w_k + log N(z | m_k, diag(s_k²)) of every component, in float64.

        The squares are expanded, ((z - m) / s)² = z² / s² - 2 z m / s² + m² / s², so that two matrix products compute
        them without a tensor of all z, k and d. The terms cancel, and float64 has the digits for it.
        """
        wide, mean, scale = z.double(), self.normals.mean.double(), self.normals.scale.double()
        precision = scale.square().reciprocal()
        squares = wide.square() @ precision.mT - 2 * wide @ (mean * precision).mT
        constants = (mean.square() * precision).sum(-1)
        log_volume = scale.log().sum(-1) + mean.shape[-1] * LOG_SQRT_TWO_PI
        return self.log_weights.double() - log_volume - 0.5 * (squares + constants)

    def log_prob(self, z: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch"]:
        """log Σ_k w_k N(z | m_k, diag(s_k²)) in nats."""
        return self.log_joint(z).logsumexp(-1).to(z.dtype)

    def sample(self, n: int, seed: int, first: int) -> Float[Tensor, "n dims"]:
        """Draws first..first+n-1 of `seed`, on the CPU."""
        rows = range(first, first + n)
        cumulative = self.log_weights.double().cpu().exp().cumsum(0)
        u = uniform_per_example(seed, rows, (1,), CHOICE)
        chosen = torch.searchsorted(cumulative, u).squeeze(1).clamp(max=len(cumulative) - 1)  # by rounding
        mean, scale = self.normals.mean.cpu(), self.normals.scale.cpu()
        eps = normal_per_example(seed, rows, (mean.shape[-1],), NOISE).to(mean)
        return mean[chosen] + scale[chosen] * eps


class AbstractMixturePrior(AbstractPrior):
    """A prior that is a mixture of normals."""

    @abstractmethod
    def mixture(self) -> Mixture:
        """The mixture, differentiable in its parameters."""

    def log_prob(self, z: Tensor) -> Tensor:
        return self.mixture().log_prob(z)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        refuse_labels(labels)
        return self.mixture().sample(n, seed, first)

    @torch.no_grad()
    def settled(self) -> "FixedMixturePrior":
        found = self.mixture()
        return FixedMixturePrior(Mixture(found.log_weights.detach(), found.normals.detach()))

    @torch.no_grad()
    def diagnostics(self, z: Tensor) -> dict[str, float]:
        """The number of components in use: exp of the entropy of the mean of p(k|z) over the codes z."""
        share = self.mixture().log_joint(z).softmax(-1).mean(0)
        return {
            "components of the prior in use": float(torch.special.entr(share).sum().exp()),
            "components of the prior": float(len(share)),
        }


class FixedMixturePrior(AbstractMixturePrior):
    """p(z) is the given mixture, which has no parameters."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__(mixture.normals.mean.shape[-1])
        self._mixture = mixture

    def mixture(self) -> Mixture:
        return self._mixture


class MixturePrior(AbstractMixturePrior):
    """p(z) = Σ_k w_k N(z | m_k, diag(s_k²)) (4.19) with free weights, means and scales of `components` normals.

    Initially the weights are equal, and mean and variance of p(z) are about those of N(0, I). Initial means come from
    torch's global generator. Raises `InputError` for less than one component.
    """

    def __init__(self, latent_dims: int, components: int) -> None:
        super().__init__(latent_dims)
        _check_components(components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(math.sqrt(1 - START_VARIANCE) * torch.randn(components, latent_dims))
        self.log_scale = nn.Parameter(torch.full((components, latent_dims), 0.5 * math.log(START_VARIANCE)))

    def mixture(self) -> Mixture:
        return Mixture(self.logits.log_softmax(0), Gaussian(self.mean, self.log_scale.exp()))


class VampPrior(AbstractMixturePrior):
    """p(z) = (1/K) Σ_k q(z | x̃_k) (4.19) with learned pseudo-inputs x̃_k (Tomczak & Welling 2018, eq. 9).

    `encode` gives q of pseudo-inputs (K, *shape); it shares its parameters with the model's q(z|x), so this module does
    not own them. `bounds` are the least and the greatest value of x, between which the pseudo-inputs stay; None for x
    without bounds. Initial pseudo-inputs come from torch's global generator. Raises `InputError` for less than one
    component.
    """

    def __init__(
        self,
        latent_dims: int,
        encode: Callable[[Tensor], Gaussian],
        shape: Sequence[int],
        components: int,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(latent_dims)
        _check_components(components)
        self._encode, self.bounds = encode, bounds
        self.raw = nn.Parameter(torch.randn(components, *shape))

    @property
    def pseudo_inputs(self) -> Tensor:
        """x̃, (K, *shape)."""
        if self.bounds is None:
            return self.raw
        low, high = self.bounds
        return low + (high - low) * torch.sigmoid(self.raw)

    def mixture(self) -> Mixture:
        q = self._encode(self.pseudo_inputs)
        weights = torch.full_like(q.mean[:, 0], -math.log(len(q.mean)))
        return Mixture(weights, Gaussian(q.mean, q.scale.expand_as(q.mean)))


def _check_components(components: int) -> None:
    if components < 1:
        raise InputError(f"a mixture prior with {components} components: expected at least 1; give a positive number")
