"""Probabilistic PCA as a VAE: likelihood, posterior and maximum-likelihood fit are formulas (lecture.md, section 4)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.gaussian import Gaussian, LinearGaussian, MultivariateGaussian
from jensen.likelihood import FixedScale, FreeScale, GaussianLikelihood
from jensen.nets import MLP
from jensen.vae import VAE, AbstractPosterior, AbstractVAEObjective, AmortisedPosterior


@dataclass(frozen=True)
class PPCA:
    """p(x|z) = N(Wz + b, sigma² I), p(z) = N(0, I); everything in float64."""

    matrix: Tensor  # W (D, latent)
    offset: Tensor  # b (D)
    sigma: float

    @property
    def joint(self) -> LinearGaussian:
        dims, latent = self.matrix.shape
        prior = MultivariateGaussian(torch.zeros(latent).double(), torch.eye(latent).double())
        return LinearGaussian(
            prior, self.matrix, MultivariateGaussian(self.offset, self.sigma * torch.eye(dims).double())
        )

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x | b, W W^T + sigma² I)."""
        return self.joint.marginal().log_prob(x)

    def posterior(self, x: Tensor) -> MultivariateGaussian:
        """N(z | M^{-1} W^T (x - b), sigma² M^{-1}), M = W^T W + sigma² I."""
        return self.joint.posterior(x)

    def factorised_posterior(self, x: Tensor) -> Gaussian:
        """The posterior as a diagonal Gaussian, which it is where the columns of W are orthogonal."""
        exact = self.posterior(x)
        covariance = exact.covariance
        assert covariance.abs().sub(covariance.diagonal().diag()).max() < 1e-12
        return Gaussian(exact.mean, covariance.diagonal().sqrt().expand_as(exact.mean))

    def kl_to_posterior(self, q: Gaussian, x: Tensor) -> Tensor:
        """KL(q || p(z|x)), the gap of the bound (4.4)."""
        return MultivariateGaussian(q.mean, q.scale.diag_embed()).kl(self.posterior(x))

    def draw(self, count: int) -> Tensor:
        return self.joint.marginal().rsample(torch.Generator().manual_seed(0), (count,))


def random_ppca(dims: int = 5, latent: int = 2, sigma: float = 0.75, *, orthogonal: bool = True) -> PPCA:
    """W with columns of lengths 3, 1.5, ..., orthogonal (then the posterior is diagonal) or not."""
    source = torch.Generator().manual_seed(1)
    matrix = torch.randn(dims, latent, dtype=torch.float64, generator=source)
    if orthogonal:
        matrix = torch.linalg.qr(matrix).Q * (3.0 / 2 ** torch.arange(latent))
    return PPCA(matrix, torch.randn(dims, dtype=torch.float64, generator=source), sigma)


def linear_vae(
    dims: int, latent: int, posterior: AbstractPosterior | None = None, objective: AbstractVAEObjective | None = None
) -> VAE:
    """Linear encoder (or another posterior), linear decoder, one learned shared scale; float64."""
    posterior = posterior or AmortisedPosterior(MLP((dims,), (), (2 * latent,)), latent)
    likelihood = GaussianLikelihood((dims,), FreeScale((), floor=1e-3))
    return VAE(posterior, MLP((latent,), (), (1, dims)), likelihood, objective).double()


def as_vae(ppca: PPCA, *, exact_encoder: bool = True) -> VAE:
    """The VAE that is `ppca`, whose linear encoder is its posterior (or keeps random weights)."""
    dims, latent = ppca.matrix.shape
    vae = linear_vae(dims, latent)
    vae.likelihood = GaussianLikelihood((dims,), FixedScale(ppca.sigma)).double()
    with torch.no_grad():
        _set(vae.decoder, ppca.matrix, ppca.offset)
        if exact_encoder:
            zero, one = torch.zeros(1, dims).double(), torch.eye(dims).double()
            q = ppca.factorised_posterior(
                torch.cat([zero, one])
            )  # affine in x: read it off at 0 and at the unit vectors
            slope, offset = (q.mean[1:] - q.mean[0]).mT, q.mean[0]
            _set(vae.posterior.encoder, torch.cat([slope, 0 * slope]), torch.cat([offset, q.scale[0].log()]))
    return vae


def learned_ppca(vae: VAE) -> PPCA:
    """The PPCA that a linear VAE has become."""
    layer = vae.decoder.layers[0]
    sigma = vae.likelihood.scale(None).item()
    return PPCA(layer.weight.detach().clone(), layer.bias.detach().clone(), sigma)


def _set(network: MLP, weight: Tensor, bias: Tensor) -> None:
    network.layers[0].weight.copy_(weight)
    network.layers[0].bias.copy_(bias)
