"""5. The denoiser's error at each noise level, and the best reverse variance (5.12) for this error."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jensen.diffusion.denoiser import Denoised
from jensen.diffusion.process import per_example, posterior_variance
from jensen.diffusion.reverse import AbstractReverseVariance
from jensen.diffusion.schedule import one_minus_alpha_bar, signal_scale
from jensen.errors import InputError


class MeanSquaredErrors(nn.Module):
    """A table of E ||x_0 - x̂||² / D by log-SNR, as running means in bins.

    D is the number of dimensions of x. The table averages the ratio of the error to 1 - alpha_bar, the error for N(0,
    I) data, because this ratio varies slowly. Each bin starts with one observation of the ratio 1. The weight of an
    observation decays over about `memory` further observations. The table is saved with the model.
    """

    total: Tensor
    weight: Tensor

    def __init__(self, minimum: float = -20.0, maximum: float = 20.0, bins: int = 80, memory: int = 2000) -> None:
        super().__init__()
        if not (minimum < maximum and bins > 1 and memory > 0):
            raise InputError(
                f"table of errors from log-SNR {minimum} to {maximum} in {bins} bins, memory {memory}: "
                "expected minimum < maximum, more than one bin and a positive memory"
            )
        self.minimum, self.maximum, self.bins, self.memory = minimum, maximum, bins, memory
        self.register_buffer("total", torch.ones(bins))
        self.register_buffer("weight", torch.ones(bins))

    @torch.no_grad()
    def observe(self, log_snr: Float[Tensor, " rows"], squared_error: Float[Tensor, " rows"]) -> None:
        """Add ||x_0 - x̂||² / D of some examples to the means; errors that are not finite are left out."""
        ratio = squared_error.float() / one_minus_alpha_bar(log_snr.double()).float()
        good = ratio.isfinite()
        bins = self._place(log_snr).round().long().clamp(0, self.bins - 1)
        member = torch.nn.functional.one_hot(bins, self.bins).float() * good.unsqueeze(1)  # a sum in a fixed order
        kept = (1 - 1 / self.memory) ** member.sum(0)
        self.total.mul_(kept).add_(torch.where(good, ratio, 0) @ member)
        self.weight.mul_(kept).add_(member.sum(0))

    def forward(self, log_snr: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """E ||x_0 - x̂||² / D, interpolated; beyond the ends of the table the ratio to 1 - alpha_bar is constant."""
        ratio = (self.total / self.weight).to(log_snr)
        place = self._place(log_snr).clamp(0, self.bins - 1)
        left = place.detach().nan_to_num().long().clamp(max=self.bins - 2)  # nan, of a diverged schedule, stays nan
        return one_minus_alpha_bar(log_snr) * torch.lerp(ratio[left], ratio[left + 1], place - left)

    def _place(self, log_snr: Tensor) -> Tensor:
        """The log-SNR in units of bins: 0 at the middle of the first bin."""
        return (log_snr - self.minimum) * (self.bins / (self.maximum - self.minimum)) - 0.5


class AnalyticVariance(AbstractReverseVariance):
    """sigma_t² = beta~_t + c² E ||x_0 - x̂||² / D, where c is the weight of x_0 in mu~_t (5.8).

    Of all variances that depend on t only, this variance minimises the mean of (5.13) over the data of the table (Bao
    et al. 2022, theorem 1, in terms of the score). In the last step, to the data, sigma_t² is E ||x_0 - x̂||² / D. The
    bound holds for any table.
    """

    def __init__(self, errors: MeanSquaredErrors) -> None:
        self.errors = errors

    def scale(self, prediction: Denoised, log_snr_s: Tensor) -> Tensor:
        log_snr_t = prediction.log_snr
        on_x0 = signal_scale(log_snr_s) * -torch.expm1(log_snr_t - log_snr_s)
        squared_error = self.errors(log_snr_t.to(self.errors.total.device))
        variance = posterior_variance(log_snr_s, log_snr_t) + on_x0.square() * squared_error.to(on_x0)
        return per_example(variance.sqrt(), prediction.x_t)
