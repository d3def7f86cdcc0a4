"""What distinguishes neighbouring grey levels, made large enough for a network to see."""

import torch
from jaxtyping import Float
from torch import Tensor


def with_details(
    x: Float[Tensor, " batch channels height width"], noise_level: Float[Tensor, " batch"], octaves: int
) -> Float[Tensor, " batch more height width"]:
    """x, then sin and cos of f x for f = 2, 4 .. 2^octaves, as (1 + 2 octaves) times the channels.

    Each wave is faded by exp(-½ f² sigma² / (1 + sigma²)), log sigma being 4 `noise_level`: what averaging over the
    noise leaves of it where x is x_t. EDM's input is x_t over its deviation, w <= 1, and keeps a little more. So where
    noise hides a detail, the network gets little noise to read from. Source: Fourier features of Kingma et al. 2021,
    appendix C, there without fading.
    """
    frequencies = 2.0 ** torch.arange(1, octaves + 1, device=x.device, dtype=x.dtype)
    variance = torch.sigmoid(8 * noise_level)  # sigma² / (1 + sigma²)
    fade = torch.exp(-0.5 * frequencies.square() * variance[:, None])[:, :, None, None, None]
    angles = frequencies[:, None, None, None] * x[:, None]
    return torch.cat([x[:, None], fade * angles.sin(), fade * angles.cos()], dim=1).flatten(1, 2)
