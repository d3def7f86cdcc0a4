"""q(z|x) = N(z | mu(x), L(x) L(x)^T) (1.6), amortised: a normal law with the correlations that a diagonal one lacks."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jensen.gaussian import Gaussian, MultivariateGaussian
from jensen.vae.missing import hidden
from jensen.vae.posterior import AbstractPosterior
from jensen.vae.sequential import AbstractSequential, Choice, Draw, joined


@dataclass(frozen=True, eq=False)
class CovarianceSequence(AbstractSequential):
    """N(z | mean, L L^T) as a product of factors: N(z_d | mean_d + Σ_{j<d} L_dj eps_j, L_dd²), z = mean + L eps (1.8).

    `normal` is over z (batch, latent_dims).
    """

    normal: MultivariateGaussian

    @property
    def shape(self) -> torch.Size:
        return self.normal.shape

    def visit(self, choose: Choice, *, decoded: bool = False) -> Draw:
        """One group per dimension."""
        mean, factor = self.normal.mean, self.normal.cholesky
        noise, groups, laws = list[Tensor](), list[Tensor](), list[Gaussian]()
        for d in range(mean.shape[-1]):
            own = mean[:, d : d + 1]
            if d:
                own = own + (torch.cat(noise, -1) * factor[:, d, :d]).sum(-1, keepdim=True)
            laws.append(Gaussian(own, factor[:, d, d : d + 1]))
            groups.append(choose(slice(d, d + 1), laws[-1]))
            noise.append((groups[-1] - own) / laws[-1].scale)
        return joined(groups, laws)

    def draw(self, eps: Tensor) -> Draw:
        scale = self.scale
        z = self.normal.mean + (self.normal.cholesky @ eps.unsqueeze(-1)).squeeze(-1)  # (1.8)
        return Draw(z, Gaussian(z - scale * eps, scale))

    def log_prob(self, z: Tensor) -> Tensor:
        return self.normal.log_prob(z)

    def __getitem__(self, rows: slice) -> "CovarianceSequence":
        return CovarianceSequence(MultivariateGaussian(self.normal.mean[rows], self.normal.cholesky[rows]))

    def detach(self) -> "CovarianceSequence":
        return CovarianceSequence(self.normal.detach())

    def refined(self, within: Gaussian) -> "CovarianceSequence":
        factor = self.normal.cholesky
        mean = self.normal.mean + (factor @ within.mean.unsqueeze(-1)).squeeze(-1)
        return CovarianceSequence(MultivariateGaussian(mean, factor * within.scale.unsqueeze(-2)))

    @property
    def mean(self) -> Tensor:
        return self.normal.mean

    @property
    def scale(self) -> Tensor:
        """The standard deviations of z_d given the dimensions before it, L_dd."""
        return self.normal.cholesky.diagonal(dim1=-2, dim2=-1)


class CovariancePosterior(AbstractPosterior):
    """An encoder gives mu, log L_dd and the entries of L below its diagonal: (batch, `outputs_of(latent_dims)`).

    The encoder gets `fill` for missing and hidden values, NaN and inf in x.
    """

    amortised = True

    def __init__(self, encoder: nn.Module, latent_dims: int, fill: float = 0.0) -> None:
        super().__init__()
        self.encoder, self.latent_dims, self.fill = encoder, latent_dims, fill
        self.register_buffer("below", torch.tril_indices(latent_dims, latent_dims, -1), persistent=False)

    def forward(self, x: Tensor, index: Tensor) -> CovarianceSequence:
        return self.initial(x)

    def initial(self, x: Tensor) -> CovarianceSequence:
        parameters = self.encoder(x.masked_fill(x.isnan() | hidden(x), self.fill)).to(x.dtype)
        dims, below = self.latent_dims, self.get_buffer("below")
        mean, log_scale, rest = parameters.split([dims, dims, below.shape[1]], -1)
        rows = below[0] * dims + below[1]
        factor = torch.zeros(len(x), dims * dims, dtype=x.dtype, device=x.device).index_copy(1, rows, rest)
        factor = factor.reshape(-1, dims, dims) + torch.diag_embed(log_scale.exp())
        return CovarianceSequence(MultivariateGaussian(mean, factor))

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.encoder,)


def outputs_of(latent_dims: int) -> int:
    """The number of the encoder's outputs.

    >>> outputs_of(3)
    9
    """
    return 2 * latent_dims + latent_dims * (latent_dims - 1) // 2
