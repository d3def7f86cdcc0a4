"""5. The reverse step p_theta(x_s | x_t) = N(mu_theta, sigma_t² I) (5.12): the mean, and a choice of variances."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.diffusion.denoiser import Denoised
from jensen.diffusion.process import beta, per_example, posterior, posterior_variance
from jensen.errors import InputError
from jensen.gaussian import Gaussian


class AbstractReverseVariance(ABC):
    """sigma_t² of (5.12).

    In the last step, which gives the data, the variance beta~ is 0, and p(x_0|x_1) would have no density. So variances
    that are not learned use `last_share` times beta in this step.
    """

    @abstractmethod
    def scale(self, prediction: Denoised, log_snr_s: Tensor) -> Tensor:
        """sigma_t, broadcastable to x_t, of the step from prediction.log_snr to log_snr_s."""


@dataclass(frozen=True)
class BetaVariance(AbstractReverseVariance):
    """sigma_t² = beta_t, the best fixed choice for N(0, I) data (5.12)."""

    last_share: float = 1.0

    def scale(self, prediction: Denoised, log_snr_s: Tensor) -> Tensor:
        upper = beta(log_snr_s, prediction.log_snr)
        variance = torch.where(torch.isposinf(log_snr_s), self.last_share * upper, upper)
        return per_example(variance.sqrt(), prediction.x_t)


@dataclass(frozen=True)
class PosteriorVariance(AbstractReverseVariance):
    """sigma_t² = beta~_t of (5.8), the best fixed choice for data at a single point (5.12)."""

    last_share: float = 1.0

    def scale(self, prediction: Denoised, log_snr_s: Tensor) -> Tensor:
        return per_example(_lower(log_snr_s, prediction.log_snr, self.last_share).sqrt(), prediction.x_t)


@dataclass(frozen=True)
class LearnedVariance(AbstractReverseVariance):
    """log sigma_t² = v log beta_t + (1 - v) log beta~_t, v from the network (Nichol & Dhariwal 2021, equation 15)."""

    last_share: float = 1.0

    def scale(self, prediction: Denoised, log_snr_s: Tensor) -> Tensor:
        """sigma_t from the v of the network; raises `InputError` for a network without v."""
        if prediction.variance_mix is None:
            raise InputError("learned variance: the network has no output for it; use twice the output channels")
        upper = per_example(beta(log_snr_s, prediction.log_snr).log(), prediction.x_t)
        lower = per_example(_lower(log_snr_s, prediction.log_snr, self.last_share).log(), prediction.x_t)
        return torch.exp(0.5 * (lower + prediction.variance_mix * (upper - lower)))


def _lower(log_snr_s: Tensor, log_snr_t: Tensor, last_share: float) -> Tensor:
    """beta~, or the share of beta at the last step."""
    at_data = torch.isposinf(log_snr_s)
    return torch.where(at_data, last_share * beta(log_snr_s, log_snr_t), posterior_variance(log_snr_s, log_snr_t))


def reverse_step(prediction: Denoised, log_snr_s: Tensor, variance: AbstractReverseVariance) -> Gaussian:
    """p_theta(x_s | x_t) = N(mu_theta, sigma_t² I) (5.12): mu_theta is mu~ (5.8) at x_0 = x̂, which is (5.15)."""
    mean = posterior(prediction.x_t, prediction.x0, log_snr_s, prediction.log_snr).mean
    return Gaussian(mean, variance.scale(prediction, log_snr_s), mean.ndim - 1)
