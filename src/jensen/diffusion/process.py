"""5. The forward process (5.1)-(5.8): every kernel is a `Gaussian`, given x and the log-SNRs of two times.

Time s comes before t, so log_snr_s > log_snr_t. In the lecture's chain s = t - 1; here s and t are any two times. A
log-SNR has the shape () or (batch). With d = log_snr_t - log_snr_s < 0,

    beta_t  = (1 - alpha_bar_t) (1 - exp(d)),      beta~_t = (1 - alpha_bar_s) (1 - exp(d)),

so that no nearly equal numbers are subtracted, and s may be the data (log_snr_s = inf).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from jensen.diffusion.schedule import noise_scale, one_minus_alpha_bar, signal_scale
from jensen.gaussian import Gaussian


def per_example(values: Float[Tensor, "*values"], x: Float[Tensor, " batch *shape"]) -> Tensor:
    """Reshape one number per example (batch) to (batch, 1, ..., 1), with the precision and device of x.

    The result multiplies x. A single number () stays unchanged, because it multiplies x on any device and in any
    precision.

    >>> per_example(torch.arange(5.0), torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5, 1, 1, 1])
    """
    return values.to(x).reshape(-1, *[1] * (x.ndim - 1)) if values.ndim else values


def beta(log_snr_s: Float[Tensor, "*#batch"], log_snr_t: Float[Tensor, "*#batch"]) -> Float[Tensor, "*#batch"]:
    """beta = 1 - alpha_bar_t / alpha_bar_s, the variance added between s and t (5.1)."""
    return one_minus_alpha_bar(log_snr_t) * -torch.expm1(log_snr_t - log_snr_s)


def posterior_variance(
    log_snr_s: Float[Tensor, "*#batch"], log_snr_t: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch"]:
    """beta~ = beta (1 - alpha_bar_s) / (1 - alpha_bar_t), the variance of (5.8); 0 where s is the data."""
    return one_minus_alpha_bar(log_snr_s) * -torch.expm1(log_snr_t - log_snr_s)


def marginal(x0: Float[Tensor, " batch *shape"], log_snr: Float[Tensor, "*#batch"]) -> Gaussian:
    """q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I) (5.6)."""
    mean = per_example(signal_scale(log_snr), x0) * x0
    return Gaussian(mean, per_example(noise_scale(log_snr), x0), x0.ndim - 1)


def step_kernel(
    x_s: Float[Tensor, " batch *shape"], log_snr_s: Float[Tensor, "*#batch"], log_snr_t: Float[Tensor, "*#batch"]
) -> Gaussian:
    """q(x_t | x_s) = N(sqrt(1 - beta) x_s, beta I) (5.1), between any two times."""
    keep = torch.exp(0.5 * (F.logsigmoid(log_snr_t) - F.logsigmoid(log_snr_s)))  # sqrt(1 - beta)
    return Gaussian(per_example(keep, x_s) * x_s, per_example(beta(log_snr_s, log_snr_t).sqrt(), x_s), x_s.ndim - 1)


def posterior(
    x_t: Float[Tensor, " batch *shape"],
    x0: Float[Tensor, " batch *shape"],
    log_snr_s: Float[Tensor, "*#batch"],
    log_snr_t: Float[Tensor, "*#batch"],
) -> Gaussian:
    """q(x_s | x_t, x_0) = N(mu~, beta~ I) (5.8); if s is the data, the point mass at x_0 (scale 0)."""
    on_x0 = signal_scale(log_snr_s) * -torch.expm1(log_snr_t - log_snr_s)  # sqrt(alpha_bar_s) beta / (1 - alpha_bar_t)
    log_keep = 0.5 * (F.logsigmoid(log_snr_t) - F.logsigmoid(log_snr_s))
    on_x_t = torch.exp(log_keep + F.logsigmoid(-log_snr_s) - F.logsigmoid(-log_snr_t))
    scale = per_example(posterior_variance(log_snr_s, log_snr_t).sqrt(), x_t)
    return Gaussian(per_example(on_x0, x_t) * x0 + per_example(on_x_t, x_t) * x_t, scale, x_t.ndim - 1)
