"""A normalising flow as p(z): affine couplings, whose density and draws are each one pass (Dinh et al. 2017)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.randomness import normal_per_example
from jensen.vae.prior import AbstractPrior, refuse_labels

STEEPEST = 2.0  # limit of the absolute log scale of a coupling


class CouplingPrior(AbstractPrior):
    """z = f(u), u ~ N(0, I), where f is a chain of affine couplings; log p(z) by (4.20).

    Coupling number j leaves the dimensions d with d + j even as they are, and maps the others by z_d = u_d exp(s_d) +
    t_d. Here s and t come from `networks[j]`, which maps the fixed dimensions (rows, latent_dims), with zeros for all
    others, to (rows, 2 latent_dims). If the networks give zeros, p(z) is N(0, I). Raises `InputError` for less than two
    dimensions, and without networks.
    """

    def __init__(self, latent_dims: int, networks: Sequence[nn.Module]) -> None:
        super().__init__(latent_dims)
        if latent_dims < 2 or not networks:
            raise InputError(
                f"a flow of {len(networks)} couplings over {latent_dims} latent dimensions: expected at least 1 "
                "coupling and 2 dimensions; give more, or another prior"
            )
        self.conditioners = nn.ModuleList(networks)
        even = torch.arange(latent_dims) % 2 == 0
        self.register_buffer("fixed", torch.stack([even, ~even]), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        u, log_scale = self._inverse(z)
        return Gaussian.standard(z.shape[-1:], dtype=z.dtype, device=z.device).log_prob(u) - log_scale

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        refuse_labels(labels)
        u = normal_per_example(seed, range(first, first + n), (self.latent_dims,), 0)
        return self.transformed(u.to(next(self.parameters())))

    def transformed(self, u: Tensor) -> Tensor:
        """z = f(u), (rows, latent_dims)."""
        for number in range(len(self.conditioners)):
            log_scale, shift = self._coupling(number, u)
            u = u * log_scale.exp() + shift
        return u

    @torch.no_grad()
    def to_normal(self, z: Tensor) -> Tensor:
        """u of z."""
        return self._inverse(z)[0]

    @torch.no_grad()
    def from_normal(self, normal: Tensor) -> Tensor:
        """f(u)."""
        return self.transformed(normal)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return tuple(self.conditioners)

    def _inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """u and log |det df/du|, for z (*batch, latent_dims)."""
        u, total = z, z.new_zeros(z.shape[:-1])
        for number in reversed(range(len(self.conditioners))):
            log_scale, shift = self._coupling(number, u)
            u, total = (u - shift) * torch.exp(-log_scale), total + log_scale.sum(-1)
        return u, total

    def _coupling(self, number: int, values: Tensor) -> tuple[Tensor, Tensor]:
        """s and t of one coupling, which are 0 in the fixed dimensions; they depend on these dimensions only."""
        fixed = self.get_buffer("fixed")[number % 2]
        output = self.conditioners[number]((values * fixed).flatten(0, -2)).to(values.dtype)
        raw, shift = output.reshape(*values.shape[:-1], 2, self.latent_dims).unbind(-2)
        return STEEPEST * torch.tanh(raw / STEEPEST) * ~fixed, shift * ~fixed
