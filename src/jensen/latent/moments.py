"""The moments of z over the training examples, one pair per channel, by which z is standardised."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

SMALLEST = 1e-6  # scale of a channel that never varies


class Moments(nn.Module):
    """u = (z - shift) / scale with one shift and one scale per channel, for z (*batch, latent_dims).

    u has the shape (*batch, *shape). `shape` is (channels, ...) for latent_dims numbers in all. The initial shift is 0,
    and the initial scale is 1. `observe` measures both; they are saved with the model. Any moments give a valid bound
    on log p(z), because `log_volume` is the exact log-Jacobian.
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total", torch.zeros(shape[0], dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(shape[0], dtype=torch.float64))

    def noted(self, z: Tensor) -> dict[str, Tensor]:
        """The mean of z and of z² over the places of each channel, each (batch, channels)."""
        wide = z.detach().unflatten(1, (self.shape[0], -1))
        return {"latent_mean": wide.mean(2), "latent_square": wide.square().mean(2)}

    @torch.no_grad()
    def observe(self, mean: Tensor, square: Tensor) -> None:
        """Add the examples of a batch, as given by `noted`, to the moments."""
        self.count += len(mean)
        self.total += mean.double().sum(0)
        self.squares += square.double().sum(0)

    @property
    def shift(self) -> Tensor:
        """The mean of each channel, (channels, 1, ..., 1)."""
        return self._by_channel(self.total / self.count.clamp(min=1))

    @property
    def scale(self) -> Tensor:
        """The standard deviation of each channel, (channels, 1, ..., 1)."""
        mean = self.total / self.count.clamp(min=1)
        variance = self.squares / self.count.clamp(min=1) - mean.square()
        measured = variance.clamp(min=SMALLEST**2).sqrt()
        return self._by_channel(torch.where(self.count > 0, measured, 1.0))

    @property
    def log_volume(self) -> Tensor:
        """log p(z) - log p(u) = -Σ_d log scale_d, in nats."""
        return -self.scale.log().sum() * math.prod(self.shape[1:])

    def forward(self, z: Tensor) -> Tensor:
        """u of z."""
        return (z.unflatten(-1, self.shape) - self.shift.to(z)) / self.scale.to(z)

    def back(self, u: Tensor) -> Tensor:
        """z of u (batch, *shape), (batch, latent_dims)."""
        return (self.shift.to(u) + self.scale.to(u) * u).flatten(1)

    def _by_channel(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (len(self.shape) - 1))
