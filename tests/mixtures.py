"""Gaussian-mixture data, of which the diffusion model's every quantity is a formula (lecture.md, section 6)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.process import per_example
from jensen.diffusion.schedule import alpha_bar, noise_scale, one_minus_alpha_bar, signal_scale
from jensen.gaussian import Gaussian

DATA = torch.tensor(math.inf)  # the log-SNR of data


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Σ_k weights_k N(x | means_k, diag(scales_k²)) with weights (K), means (K, D) and scales (K, D).

    Noised, it is again a mixture: component k becomes N(sqrt(alpha_bar) means_k, alpha_bar scales_k² + 1 - alpha_bar).
    A log-SNR has the shape () or (batch).
    """

    weights: Tensor
    means: Tensor
    scales: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n independent draws, (n, D)."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return Gaussian(self.means[k], self.scales[k]).rsample(generator)

    def log_prob(self, x_t: Tensor, log_snr: Tensor = DATA) -> Tensor:
        """log q(x_t), (batch), in nats; of the data themselves unless a log-SNR is given."""
        return self._log_joint(x_t, self._noised(x_t, log_snr)).logsumexp(-1)

    def score(self, x_t: Tensor, log_snr: Tensor) -> Tensor:
        """grad log q(x_t) = Σ_k p(k | x_t) (mean_k - x_t) / variance_k."""
        return self.posterior_mean_and_score(x_t, log_snr)[1]

    def posterior_mean(self, x_t: Tensor, log_snr: Tensor) -> Tensor:
        """E[x_0 | x_t] = Σ_k p(k | x_t) (means_k + sqrt(alpha_bar) scales_k² / variance_k (x_t - mean_k))."""
        return self.posterior_mean_and_score(x_t, log_snr)[0]

    def posterior_mean_and_score(self, x_t: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Both, for the price of one."""
        components = self._noised(x_t, log_snr)
        r = self._responsibilities(x_t, components)
        pulls = (components.mean - x_t.unsqueeze(1)) / components.variance
        return (r * self._component_means(pulls, x_t, log_snr)).sum(1), (r * pulls).sum(1)

    def posterior_variance(self, x_t: Tensor, log_snr: Tensor) -> Tensor:
        """Var[x_0 | x_t] per dimension, (batch, D): the law of total variance over the components."""
        components = self._noised(x_t, log_snr)
        r = self._responsibilities(x_t, components)
        pulls = (components.mean - x_t.unsqueeze(1)) / components.variance
        means = self._component_means(pulls, x_t, log_snr)
        noise = _lift(per_example(one_minus_alpha_bar(log_snr.to(x_t)), x_t))
        within = self.scales.square() * noise / components.variance
        return (r * (within + means.square())).sum(1) - (r * means).sum(1).square()

    def _noised(self, x_t: Tensor, log_snr: Tensor) -> Gaussian:
        a = _lift(per_example(signal_scale(log_snr.to(x_t)), x_t))
        noise = _lift(per_example(one_minus_alpha_bar(log_snr.to(x_t)), x_t))
        kept = _lift(per_example(alpha_bar(log_snr.to(x_t)), x_t))
        return Gaussian((a * self.means).expand(len(x_t), -1, -1), (kept * self.scales.square() + noise).sqrt())

    def _log_joint(self, x_t: Tensor, components: Gaussian) -> Tensor:
        return self.weights.log() + components.log_prob(x_t.unsqueeze(1))

    def _responsibilities(self, x_t: Tensor, components: Gaussian) -> Tensor:
        return self._log_joint(x_t, components).softmax(-1).unsqueeze(-1)

    def _component_means(self, pulls: Tensor, x_t: Tensor, log_snr: Tensor) -> Tensor:
        a = _lift(per_example(signal_scale(log_snr.to(x_t)), x_t))
        return self.means - a * self.scales.square() * pulls


def _lift(values: Tensor) -> Tensor:
    """(batch, 1) as (batch, 1, 1), for the axis of the components; () stays."""
    return values.unsqueeze(1) if values.ndim else values


class ExactDenoiser(AbstractDenoiser):
    """The best possible denoiser of a mixture: x̂ = E[x_0 | x_t], epŝ = -sqrt(1 - alpha_bar) score, both by formula."""

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, x_t: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Denoised:
        mean, score = self.mixture.posterior_mean_and_score(x_t, log_snr)
        return Denoised(x_t, log_snr, mean, -per_example(noise_scale(log_snr), x_t) * score)


def three_clusters() -> GaussianMixture:
    """Three unequal components in two dimensions, float64, about unit variance, clearly not Gaussian."""
    return GaussianMixture(
        weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        means=torch.tensor([[-0.9, -0.4], [1.1, -0.5], [0.4, 1.3]], dtype=torch.float64),
        scales=torch.tensor([[0.25, 0.5], [0.4, 0.15], [0.3, 0.3]], dtype=torch.float64),
    )


def one_gaussian(mean: float, scale: float, dimensions: int = 1) -> GaussianMixture:
    """N(mean, scale²) in every dimension, float64: where samplers are linear maps."""
    return GaussianMixture(
        weights=torch.ones(1, dtype=torch.float64),
        means=torch.full((1, dimensions), mean, dtype=torch.float64),
        scales=torch.full((1, dimensions), scale, dtype=torch.float64),
    )
