"""The conditions of a network (noise level, label, augmentation), embedded as one vector per example."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets.initial import at_the_edge

# Angular frequencies. Noise levels lie within ±3, and the best denoiser varies smoothly over steps of about 0.1
LOWEST, HIGHEST = 0.25, 16.0


def sinusoids(position: Float[Tensor, " batch"], frequencies: Float[Tensor, " half"]) -> Float[Tensor, " batch width"]:
    """cos(f p), then sin(f p), for every angular frequency f: (batch) -> (batch, 2 half). Vaswani et al. 2017."""
    angles = position[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def geometric_frequencies(width: int, lowest: float, highest: float) -> Float[Tensor, " half"]:
    """width / 2 frequencies from `highest` down to `lowest`, evenly spaced on a logarithmic scale."""
    if width < 2 or width % 2:
        raise InputError(f"embedding of width {width}: expected an even number from 2 up; change the widths")
    return torch.logspace(math.log2(highest), math.log2(lowest), width // 2, base=2.0)


class ConditionEmbedding(nn.Module):
    """Maps noise levels (batch), labels (batch) or None, and augmentations (batch, `augmentations`) to (batch, width).

    The noise level becomes `sinusoid_width` sinusoids, then passes through linear, SiLU, linear. A learned vector of
    the label is added. Labels are 0..classes; label `classes` and None both mean unconditional. A linear function of
    the augmentation, without bias, is added (Karras et al. 2022, appendix F.2). Augmentations None means zeros, that
    is, unchanged examples. Raises `InputError` for labels if `classes` is None, and for augmentations of another width.
    """

    frequencies: Tensor

    def __init__(self, sinusoid_width: int, width: int, classes: int | None = None, augmentations: int = 0) -> None:
        super().__init__()
        self.register_buffer("frequencies", geometric_frequencies(sinusoid_width, LOWEST, HIGHEST), persistent=False)
        self.first, self.second = nn.Linear(sinusoid_width, width), nn.Linear(width, width)
        self.classes = classes
        self.labels = None if classes is None else nn.Embedding(classes + 1, width)
        told = augmentations > 0
        self.augmentation = at_the_edge(nn.Linear(augmentations, width, bias=False)) if told else None
        if self.augmentation is not None:
            nn.init.normal_(self.augmentation.weight)  # as large as the label's vector, so that it is learned as soon
        self.augmentations = augmentations

    def forward(self, noise_level: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        embedding = self.second(F.silu(self.first(sinusoids(noise_level, self.frequencies))))
        if self.labels is None:
            if labels is not None:
                raise InputError("got labels, but the network was made without classes; leave the labels out")
        else:
            embedding = embedding + (self.labels.weight[-1] if labels is None else self._vectors(self.labels, labels))
        if augmentation is None:
            return embedding
        if self.augmentation is None or augmentation.shape[1] != self.augmentations:
            raise InputError(
                f"got augmentations of {augmentation.shape[1]} numbers, but the network was made for "
                f"{self.augmentations}; leave them out, or make the network for them"
            )
        return embedding + self.augmentation(augmentation)

    @staticmethod
    def _vectors(table: nn.Embedding, labels: Tensor) -> Tensor:
        """The row of each label."""
        if not labels.is_cuda:
            return table(labels)
        # The same rows by a product, whose gradient has a fixed order on CUDA without a sort
        chosen = labels[:, None] == torch.arange(table.num_embeddings, device=labels.device)
        return chosen.to(table.weight.dtype) @ table.weight
