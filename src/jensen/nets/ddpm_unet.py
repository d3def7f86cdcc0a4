"""The U-Net of DDPM as other programs build it, for weights that come from there: diffusers, improved-diffusion."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.nets.blocks import AbstractBlockNetwork
from jensen.nets.initial import at_the_edge, zeroed
from jensen.nets.layers import channels_last

PERIOD = 10_000  # of the slowest sinusoid of the time, over 2 pi
SNAP = 1e-3  # a time this close to a whole step is the step: what float32 leaves of its noise level


@dataclass(frozen=True)
class Architecture:
    """The choices in which the programs that build this network differ."""

    channels: int
    outputs: int
    """Channels of the output: `channels`, or twice as many with a learned variance."""
    widths: tuple[int, ...]
    """Channels of each level, finest level first."""
    blocks: int
    """Residual blocks per level on the way down; one more on the way up."""
    down_attention: tuple[int, ...]
    """Levels with attention on the way down; level 0 is the finest."""
    up_attention: tuple[int, ...]
    middle_attention: bool
    heads: int
    """Heads of an attention on the way down and in the middle, unless `head_width` says how many."""
    up_heads: int
    groups: int
    """Groups of each normalisation."""
    middle_groups: int
    """Groups of the normalisation before the middle's attention; 0: no normalisation."""
    epsilon: float
    """The normalisation's guard against division by zero."""
    modulation: Literal["shift", "scale-shift"]
    """What the condition does in a block: a shift before the second normalisation, or a scale and shift after it."""
    symmetric: bool
    """Whether a convolution that halves pads both sides by one pixel, or the right and lower side only."""
    embedding: Literal["sinusoids", "table"]
    """The time as sinusoids, or as a row of a table with one row per step."""
    cosine_first: bool
    frequency_shift: float
    time_scale: float
    """Factor of the step before its sinusoids are taken."""
    condition: int
    """Width of the embedded condition."""
    head_width: int | None = None
    """Channels of a head of attention; None: by the number of heads."""
    classes: int | None = None
    """Number of labels; the table of labels has one more row, for no label. None: no labels."""


class Place(NamedTuple):
    """A layer of the network: a residual block, or a convolution between two levels."""

    level: int
    number: int
    """Number of the block within its level; -1 for the convolution between levels."""
    inputs: int
    outputs: int
    attention: bool


def way_down(architecture: Architecture) -> Iterator[Place]:
    """The layers of the way down, in order."""
    channels = architecture.widths[0]
    for level, width in enumerate(architecture.widths):
        for number in range(architecture.blocks):
            yield Place(level, number, channels, width, level in architecture.down_attention)
            channels = width
        if level < len(architecture.widths) - 1:
            yield Place(level, -1, width, width, False)


def way_up(architecture: Architecture) -> Iterator[Place]:
    """The layers of the way up, in order; the inputs of a block include the features from the way down."""
    left = [architecture.widths[0], *(place.outputs for place in way_down(architecture))]
    channels = architecture.widths[-1]
    for level, width in reversed(list(enumerate(architecture.widths))):
        for number in range(architecture.blocks + 1):
            yield Place(level, number, channels + left.pop(), width, level in architecture.up_attention)
            channels = width
        if level:
            yield Place(level, -1, width, width, False)


class DDPMUNet(AbstractBlockNetwork):
    """x (batch, C, H, W), noise levels (batch), labels (batch) or None -> (batch, outputs, H, W).

    The network was trained with the number of the step, t = 0..T-1, as its condition. `noise_levels` (T) are those of
    the steps, increasing; a noise level between two steps becomes a fractional t. Labels are 0..classes; label
    `classes` means no label. H and W must be divisible by 2 to the number of levels less one. Source: Ho et al. 2020,
    appendix B; scale and shift: Nichol & Dhariwal 2021.
    """

    noise_levels: Tensor
    frequencies: Tensor

    def __init__(self, architecture: Architecture, noise_levels: Tensor) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.register_buffer("noise_levels", noise_levels.double(), persistent=False)
        half = a.widths[0] // 2
        powers = torch.arange(half, dtype=torch.float32) / (half - a.frequency_shift)
        self.register_buffer("frequencies", torch.exp(-math.log(PERIOD) * powers), persistent=False)
        self.table = nn.Embedding(len(noise_levels), a.widths[0]) if a.embedding == "table" else None
        self.embed1 = nn.Linear(a.widths[0], a.condition)
        self.embed2 = nn.Linear(a.condition, a.condition)
        self.labels = None if a.classes is None else nn.Embedding(a.classes + 1, a.condition)
        self.first = at_the_edge(nn.Conv2d(a.channels, a.widths[0], 3, padding=1))
        self.down = nn.ModuleList(
            _block(a, place, a.heads) if place.number >= 0 else Halving(place.outputs, a.symmetric)
            for place in way_down(a)
        )
        middle = [Place(-1, number, a.widths[-1], a.widths[-1], False) for number in (0, 1)]
        self.middle = nn.ModuleList(_block(a, place, a.heads) for place in middle)
        if a.middle_attention:
            heads = a.heads if a.head_width is None else a.widths[-1] // a.head_width
            self.middle[0].attention = Attention(a.widths[-1], heads, a.middle_groups, a.epsilon)
        self.up = nn.ModuleList(
            _block(a, place, a.up_heads) if place.number >= 0 else Doubling(place.outputs) for place in way_up(a)
        )
        self.norm = nn.GroupNorm(a.groups, a.widths[0], a.epsilon)
        self.last = at_the_edge(zeroed(nn.Conv2d(a.widths[0], a.outputs, 3, padding=1)))

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        condition = F.silu(self._condition(noise_level, labels))
        h = channels_last(self.first(x))
        skips = [h]
        for layer in self.down:
            h = self.block(layer, h, condition) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = self.block(layer, h, condition)
        for layer in self.up:
            if isinstance(layer, Doubling):
                h = layer(h)
            else:
                h = self.block(layer, torch.cat([h, skips.pop()], dim=1), condition)
        return self.last(F.silu(self.norm(h)))

    def _condition(self, noise_level: Tensor, labels: Tensor | None) -> Tensor:
        embedded = self.embed2(F.silu(self.embed1(self._features(self.time(noise_level)).to(noise_level))))
        if self.labels is None:
            return embedded
        return embedded + (self.labels.weight[-1] if labels is None else self.labels(labels))

    def time(self, noise_level: Tensor) -> Tensor:
        """The step t in [0, T - 1] with this noise level, fractional between two steps; (batch) in float64."""
        levels, given = self.noise_levels, noise_level.double().contiguous()
        right = torch.searchsorted(levels, given).clamp(1, len(levels) - 1)
        left = right - 1
        t = (left + (given - levels[left]) / (levels[right] - levels[left])).clamp(0, len(levels) - 1)
        return torch.where((t - t.round()).abs() < SNAP, t.round(), t)

    def _features(self, t: Tensor) -> Tensor:
        """The sinusoids of t, or its row of the table, (batch, widths[0])."""
        if self.table is not None:
            row = t.floor().long().clamp(max=self.table.num_embeddings - 2)
            share = (t - row)[:, None].to(self.table.weight)
            return torch.lerp(self.table(row), self.table(row + 1), share)
        angles = (t.float() * self.architecture.time_scale)[:, None] * self.frequencies
        waves = [angles.sin(), angles.cos()]
        return torch.cat(waves[::-1] if self.architecture.cosine_first else waves, dim=1)


class Block(nn.Module):
    """h + conv(silu(norm(conv(silu(norm(h))), condition))), then h + attention(norm(h)) if `attend` is not None."""

    def __init__(self, architecture: Architecture, inputs: int, outputs: int, heads: int | None) -> None:
        super().__init__()
        a = architecture
        self.scales = a.modulation == "scale-shift"
        self.norm1, self.conv1 = nn.GroupNorm(a.groups, inputs, a.epsilon), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.embed = at_the_edge(nn.Linear(a.condition, outputs * (2 if self.scales else 1)))
        self.norm2 = nn.GroupNorm(a.groups, outputs, a.epsilon)
        self.conv2 = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.attention = nn.Identity() if heads is None else Attention(outputs, heads, a.groups, a.epsilon)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        r, modulation = self.conv1(F.silu(self.norm1(h))), self.embed(condition)[:, :, None, None]
        if self.scales:
            scale, shift = modulation.chunk(2, dim=1)
            r = torch.addcmul(shift, self.norm2(r), 1 + scale)
        else:
            r = self.norm2(r + modulation)
        return self.attention(self.skip(h) + self.conv2(F.silu(r)))


def _block(architecture: Architecture, place: Place, heads: int) -> Block:
    if architecture.head_width is not None:
        heads = place.outputs // architecture.head_width
    return Block(architecture, place.inputs, place.outputs, heads if place.attention else None)


class Attention(nn.Module):
    """h + attention(norm(h)), where every position of h (batch, channels, H, W) is a token."""

    def __init__(self, channels: int, heads: int, groups: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels, epsilon) if groups else nn.Identity()
        self.qkv, self.out = nn.Linear(channels, 3 * channels), zeroed(nn.Linear(channels, channels))

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.norm(h).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return h + mixed.transpose(1, 2).unflatten(2, h.shape[2:])


class Halving(nn.Module):
    """A convolution of stride 2."""

    def __init__(self, channels: int, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if symmetric else 0)

    def forward(self, h: Tensor) -> Tensor:
        return self.convolution(h if self.symmetric else F.pad(h, (0, 1, 0, 1)))


class Doubling(nn.Module):
    """Nearest-neighbour doubling followed by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return self.convolution(F.interpolate(h, scale_factor=2.0, mode="nearest"))
