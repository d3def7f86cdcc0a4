"""L_0 of data on six levels with an exact denoiser: rare wrong predictions, whose cost is an integral."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from jensen.diffusion.bound import DiffusionBound
from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.process import per_example
from jensen.diffusion.reverse import AbstractReverseVariance
from jensen.diffusion.schedule import noise_scale, signal_scale
from jensen.randomness import generator


class GivenError(AbstractReverseVariance):
    """sigma_1 = the root mean square error of x̂, which is what `AnalyticVariance` makes of a table of errors."""

    def __init__(self, value: float) -> None:
        self.value = value

    def scale(self, prediction: Denoised, log_snr_s: Tensor) -> Tensor:
        return per_example(torch.full_like(prediction.log_snr, self.value), prediction.x_t)


class LevelDenoiser(AbstractDenoiser):
    """The exact denoiser of data that lie on each of L levels with the same probability."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.grid = torch.linspace(-1, 1, levels, dtype=torch.float64)

    def forward(self, x_t: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Denoised:
        a, s = (per_example(scale(log_snr), x_t).unsqueeze(-1) for scale in (signal_scale, noise_scale))
        logits = -0.5 * ((x_t.unsqueeze(-1) - a * self.grid) / s).square()
        return Denoised.from_x0(x_t, log_snr, logits.softmax(-1) @ self.grid)


@dataclass(frozen=True)
class SixLevels:
    """L_0 of an exact denoiser in 16 dimensions of six levels, where x_1 has a quarter of half a level of noise."""

    levels: int = 6
    dims: int = 16

    @property
    def log_snr(self) -> Tensor:
        noise = torch.tensor(0.25 / (self.levels - 1), dtype=torch.float64)
        return torch.log1p(-noise.square()) - 2 * noise.log()

    def predicted(self, x0: Tensor, eps: Tensor) -> Denoised:
        denoiser, log_snr = LevelDenoiser(self.levels), self.log_snr.expand(len(x0))
        return denoiser(signal_scale(log_snr[0]) * x0 + noise_scale(log_snr[0]) * eps, log_snr)

    def term(self, x0: Tensor, eps: Tensor) -> Tensor:
        """L_0 (batch), sigma_1 fitted to the mean square error of x̂."""
        grid = torch.stack([torch.full_like(self.log_snr, math.inf), self.log_snr, self.log_snr - 5])
        bound = DiffusionBound(LevelDenoiser(self.levels), grid, GivenError(error_of(self)), self.levels)
        return bound.reconstruction_term(self.predicted(x0, eps), x0, torch.ones(len(x0), dtype=torch.long))

    def error(self) -> float:
        """The root mean square error of x̂, by integration."""
        x0, eps, weight = self._grid()
        return ((self.predicted(x0, eps).x0 - x0).square()[:, 0] @ weight).sqrt().item()

    def mean(self) -> float:
        """E L_0, by integration."""
        x0, eps, weight = self._grid()
        return self.dims * (self.term(x0, eps) @ weight).item()

    def terms(self, seed: int, count: int) -> Tensor:
        """L_0 of some examples."""
        place = torch.rand(count, self.dims, generator=generator(seed, 14), dtype=torch.float64) * self.levels
        eps = torch.randn(count, self.dims, generator=generator(seed, 13), dtype=torch.float64)
        return self.term(LevelDenoiser(self.levels).grid[place.long()], eps)

    def _grid(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every level and noise of one dimension, (points, 1) each, and how probable they are."""
        e = torch.linspace(-9, 9, 18_001, dtype=torch.float64)
        weight = torch.exp(-0.5 * e.square())
        x0, eps = torch.cartesian_prod(LevelDenoiser(self.levels).grid, e).split(1, 1)
        return x0, eps, (weight / weight.sum() / self.levels).repeat(self.levels)


@cache
def error_of(case: SixLevels) -> float:
    """Its `error`, computed once."""
    return case.error()
