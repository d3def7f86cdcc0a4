"""Fourier features of pixel values, which make differences between neighbouring grey levels visible to a network."""

import torch
from jaxtyping import Float
from torch import Tensor


def waves(
    x: Float[Tensor, " batch channels *sizes"], noise_level: Float[Tensor, " batch"], octaves: int
) -> Float[Tensor, " batch more *sizes"]:
    """sin(f x), then cos(f x), for f = 2, 4 .. 2^octaves: 2 * octaves channels for each channel of x.

    Each wave is multiplied by exp(-½ f² sigma² / (1 + sigma²)), where log sigma = 4 `noise_level`. If x is x_t, this
    factor is the part of the wave that survives averaging over the noise. (If x is EDM's input, which is x_t divided by
    its standard deviation, slightly more survives.) So the network does not see waves of pure noise where the noise
    hides the detail. Source: Kingma et al. 2021, appendix C, there without the factor.
    """
    frequencies = 2.0 ** torch.arange(1, octaves + 1, device=x.device, dtype=x.dtype)
    variance = torch.sigmoid(8 * noise_level)  # sigma² / (1 + sigma²), as log sigma² = 8 noise_level
    ones = (1,) * (x.ndim - 1)
    fade = torch.exp(-0.5 * frequencies.square() * variance[:, None]).unflatten(1, (octaves, *ones))
    angles = frequencies.view(octaves, *ones) * x[:, None]
    return torch.cat([fade * angles.sin(), fade * angles.cos()], dim=1).flatten(1, 2)
