"""The transformer on patches, conditioned on the noise level by adaptive norms, for data of any size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.attention import SelfAttention
from jensen.nets.blocks import AbstractBlockNetwork
from jensen.nets.embedding import ConditionEmbedding, geometric_frequencies, sinusoids
from jensen.nets.initial import at_the_edge, zeroed
from jensen.nets.layers import HEAD_WIDTH, Axes
from jensen.nets.patches import Patches


class PatchTransformer(AbstractBlockNetwork):
    """x (batch, C, *sizes), noise levels (batch), labels (batch) or None -> (batch, outputs * C, *sizes).

    The data are signals (C, L), images (C, H, W) or volumes (C, D, H, W). Each patch of `patch` pixels a side becomes a
    token of `width` channels. Sinusoids of the patch's place along each axis are added to the token. The tokens pass
    through `depth` blocks. Inputs are padded to whole patches, and outputs are cropped. The initial output of the
    network and of every residual branch is zero. `shape` fixes the channels and the number of axes; `forward` accepts
    any size along the axes. For labels and augmentations see `ConditionEmbedding`. Raises `InputError` for data
    of other kinds, and for a width that is no multiple of 4. Source: Peebles & Xie 2023, adaLN-Zero.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 6,
        patch: int = 4,
        classes: int | None = None,
        outputs: int = 1,
        augmentations: int = 0,
    ) -> None:
        super().__init__()
        if width % 4:
            raise InputError(
                f"transformer of width {width}: expected a multiple of 4 (sines and cosines of two axes); change width"
            )
        self.patches = Patches(shape, patch)
        self.condition = ConditionEmbedding(width, width, classes, augmentations)
        self.first = at_the_edge(nn.Linear(self.patches.folded, width))
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last = at_the_edge(zeroed(nn.Linear(width, outputs * self.patches.folded)))
        modulated = (6 * depth + 2) * width  # six for every block, two for the last norm
        self.modulation = at_the_edge(zeroed(nn.Linear(width, modulated)))

    def forward(
        self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Tensor:
        patches = self.patches.fold(x)
        grid = tuple(patches.shape[2:])
        h = self.first(patches.flatten(2).transpose(1, 2))
        h = h + grid_positions(grid, h.shape[2]).to(h)
        condition = self.condition(noise_level, labels, augmentation)
        modulations = self.modulation(F.silu(condition)).unflatten(1, (-1, 1, h.shape[2]))
        *of_blocks, shift, scale = modulations.unbind(1)
        for i, block in enumerate(self.blocks):
            h = self.block(block, h, of_blocks[6 * i : 6 * i + 6])
        h = self.last(torch.addcmul(shift, self.norm(h), 1 + scale))
        return self.patches.unfold(h.transpose(1, 2).unflatten(2, grid), x.shape[2:])


class TransformerBlock(nn.Module):
    """h + gate * attention(modulated norm(h)), then h + gate * mlp(modulated norm(h)); h is (batch, tokens, width).

    The six modulations, each (batch, 1, width), are the shift, scale and gate of the attention, then of the MLP.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = SelfAttention(width, HEAD_WIDTH)
        self.first, self.second = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor, modulations: Sequence[Tensor]) -> Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulations
        h = torch.addcmul(h, gate, self.attention(torch.addcmul(shift, self.norm(h), 1 + scale)))
        hidden = F.gelu(self.first(torch.addcmul(mlp_shift, self.norm(h), 1 + mlp_scale)))
        return torch.addcmul(h, mlp_gate, self.second(hidden))


def grid_positions(grid: Axes, width: int) -> Float[Tensor, " tokens width"]:
    """Sinusoids of the place along each axis, for tokens in row order.

    Every axis gets an even number of sinusoids. The numbers are as equal as possible, and the last axis gets the rest.
    """
    share = 2 * (width // (2 * len(grid)))
    shares = [*[share] * (len(grid) - 1), width - share * (len(grid) - 1)]
    places = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    parts = zip(places, shares, strict=True)
    return torch.cat([sinusoids(at.flatten(), geometric_frequencies(part, 0.01, 1.0)) for at, part in parts], dim=1)
