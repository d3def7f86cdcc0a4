"""Self-attention over a sequence of tokens."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from jensen.nets.initial import zeroed


class SelfAttention(nn.Module):
    """Multi-head self-attention from (batch, tokens, width) to the same shape, with an initial output of zero.

    A head has gcd(`width`, `head_width`) channels, which is `head_width` if `head_width` divides `width`. Source:
    Vaswani et al. 2017.
    """

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.heads = width // math.gcd(width, head_width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), zeroed(nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
