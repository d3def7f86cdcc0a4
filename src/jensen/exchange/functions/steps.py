"""One step of a sampler as a module without branches, for every sampler whose step is a formula.

The noise levels are log-SNRs, single numbers in float64: of x_t, and of the end of the step, infinity for the data.
`jensen.diffusion.sampler` has the samplers; `tests/test_exchange_functions.py` compares every step with them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.diffusion.analytic import AnalyticVariance
from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.reverse import reverse_step
from jensen.diffusion.sampler import DDIM, AbstractSampler, Ancestral, DPMSolver2M, Heun, LastStep, ddim_kernel
from jensen.diffusion.schedule import noise_scale, signal_scale


class AncestralStep(nn.Module):
    """(5.19); without noise in the step to the data if the sampler ends with the mean."""

    noisy, remembers = True, False

    def __init__(self, sampler: Ancestral) -> None:
        super().__init__()
        self.variance, self.still = sampler.variance, sampler.last is LastStep.MEAN
        if isinstance(sampler.variance, AnalyticVariance):
            self.errors = sampler.variance.errors  # a table of the model, which an exported program must own

    def forward(self, here: Denoised, log_snr_s: Tensor, noise: Tensor) -> Tensor:
        kernel = reverse_step(here, log_snr_s, self.variance)
        added = kernel.scale * noise
        return kernel.mean + (torch.where(torch.isposinf(log_snr_s), 0, added) if self.still else added)


class DDIMStep(nn.Module):
    """Song et al. 2020, equation 12."""

    remembers = False

    def __init__(self, sampler: DDIM) -> None:
        super().__init__()
        self.eta = sampler.eta

    @property
    def noisy(self) -> bool:
        return self.eta > 0

    def forward(self, here: Denoised, log_snr_s: Tensor, noise: Tensor | None = None) -> Tensor:
        kernel = ddim_kernel(here.x_t, here.x0, log_snr_s, here.log_snr, self.eta)
        return kernel.mean if noise is None else kernel.mean + kernel.scale * noise


class DPMSolverStep(nn.Module):
    """DPM-Solver++ (2M): x̂ extrapolated from that of the previous step.

    Before the first step there is none; a previous log-SNR of minus infinity gives its weight 0.
    """

    remembers = True

    def __init__(self, sampler: DPMSolver2M) -> None:
        super().__init__()
        self.eta = sampler.eta

    @property
    def noisy(self) -> bool:
        return self.eta > 0

    def forward(
        self,
        here: Denoised,
        log_snr_s: Tensor,
        previous_x0: Tensor,
        previous_log_snr: Tensor,
        noise: Tensor | None = None,
    ) -> Tensor:
        to_data = torch.isposinf(log_snr_s)
        inner = torch.where(to_data, here.log_snr + 1, log_snr_s)  # not infinity, lest infinity by infinity
        ratio = torch.where(to_data, 0, (inner - here.log_snr) / (here.log_snr - previous_log_snr))
        x0 = here.x0 + 0.5 * ratio * (here.x0 - previous_x0)
        kernel = ddim_kernel(here.x_t, x0, log_snr_s, here.log_snr, self.eta)
        return kernel.mean if noise is None else kernel.mean + kernel.scale * noise


class HeunStep(nn.Module):
    """Karras et al. 2022, algorithm 1: Euler's step, corrected by the slope at its end unless it ends at the data."""

    noisy, remembers = False, False

    def __init__(self, sampler: Heun) -> None:
        super().__init__()

    def forward(self, here: Denoised, log_snr_s: Tensor, denoiser: AbstractDenoiser, labels: Tensor | None) -> Tensor:
        a, s = signal_scale(log_snr_s), noise_scale(log_snr_s)
        euler = a * here.x0 + s * here.eps
        to_data = torch.isposinf(log_snr_s)
        there = denoiser(euler, torch.where(to_data, here.log_snr, log_snr_s), labels)
        ratio = torch.exp(0.5 * (F.logsigmoid(log_snr_s) - F.logsigmoid(here.log_snr)))
        slope = 0.5 * (here.eps + there.eps)
        heun = ratio * here.x_t + (s - ratio * noise_scale(here.log_snr)) * slope
        return torch.where(to_data, euler, heun)


STEPS: dict[type[AbstractSampler], type[nn.Module]] = {
    Ancestral: AncestralStep,
    DDIM: DDIMStep,
    DPMSolver2M: DPMSolverStep,
    Heun: HeunStep,
}


class SamplerStep(nn.Module):
    """x_t and two noise levels, then what the sampler needs besides -> x at the end of the step, and x̂.

    Besides: the x̂ and the noise level of the previous step if `remembers`, labels with classes, and noise if `noisy`.
    """

    def __init__(self, sampler: AbstractSampler, denoiser: AbstractDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.step = STEPS[type(sampler)](sampler)
        self.remembers, self.noisy = bool(self.step.remembers), bool(self.step.noisy)

    def forward(self, x_t: Tensor, log_snr_t: Tensor, log_snr_s: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        memory, others = (others[:2], others[2:]) if self.remembers else ((), others)
        noise, others = (others[-1:], others[:-1]) if self.noisy else ((), others)
        labels = others[0] if others else None
        found = self.denoiser(x_t, log_snr_t, labels)
        here = Denoised(x_t, log_snr_t, found.x0, found.eps, found.variance_mix)
        if isinstance(self.step, HeunStep):
            return self.step(here, log_snr_s, self.denoiser, labels), here.x0
        return self.step(here, log_snr_s, *memory, *noise), here.x0
