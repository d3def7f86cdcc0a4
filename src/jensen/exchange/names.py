"""The names of the weights of `DDPMUNet` in other programs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.nets import Architecture, DDPMUNet
from jensen.nets.ddpm_unet import way_down, way_up


@dataclass(frozen=True)
class Dialect:
    """The names of one program for the layers outside of blocks, and for the parts of a block and of its attention.

    Keys are the names in `DDPMUNet`. The name "qkv" is that of one layer, or of three layers for q, k and v.
    """

    outside: dict[str, str]
    block: dict[str, str]
    attention: dict[str, str]
    qkv: tuple[str, ...]


DIFFUSERS = Dialect(
    outside={
        "table": "time_proj",
        "embed1": "time_embedding.linear_1",
        "embed2": "time_embedding.linear_2",
        "labels": "class_embedding",
        "first": "conv_in",
        "norm": "conv_norm_out",
        "last": "conv_out",
    },
    block={
        "norm1": "norm1",
        "conv1": "conv1",
        "embed": "time_emb_proj",
        "norm2": "norm2",
        "conv2": "conv2",
        "skip": "conv_shortcut",
    },
    attention={"norm": "group_norm", "out": "to_out.0"},
    qkv=("to_q", "to_k", "to_v"),
)

OPENAI = Dialect(
    outside={
        "embed1": "time_embed.0",
        "embed2": "time_embed.2",
        "labels": "label_emb",
        "first": "input_blocks.0.0",
        "norm": "out.0",
        "last": "out.2",
    },
    block={
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "embed": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "skip": "skip_connection",
    },
    attention={"norm": "norm", "out": "proj_out"},
    qkv=("qkv",),
)

Layer = tuple[str, str, str]
"""Our name of a layer with blocks; the other program's name; that of its attention, or "" where it has none."""


def diffusers_layers(architecture: Architecture) -> Iterator[Layer]:
    """Blocks and convolutions between levels in diffusers' `UNet2DModel`."""
    last = len(architecture.widths) - 1
    ways = (("down", way_down(architecture), "downsamplers"), ("up", way_up(architecture), "upsamplers"))
    for way, places, between in ways:
        for number, place in enumerate(places):
            at = f"{way}_blocks.{place.level if way == 'down' else last - place.level}"
            if place.number < 0:
                yield f"{way}.{number}", f"{at}.{between}.0.conv", ""
            else:
                attention = f"{at}.attentions.{place.number}" if place.attention else ""
                yield f"{way}.{number}", f"{at}.resnets.{place.number}", attention
    yield "middle.0", "mid_block.resnets.0", "mid_block.attentions.0" if architecture.middle_attention else ""
    yield "middle.1", "mid_block.resnets.1", ""


def openai_layers(architecture: Architecture) -> Iterator[Layer]:
    """Blocks and convolutions between levels in `UNetModel` of improved-diffusion.

    A convolution that doubles stands behind the last block of its level, in the same group of layers.
    """
    for number, place in enumerate(way_down(architecture)):
        at = f"input_blocks.{number + 1}"  # 0 is the first convolution
        yield f"down.{number}", f"{at}.0{'.op' if place.number < 0 else ''}", f"{at}.1" if place.attention else ""
    at, block, attends = "", -1, False
    for number, place in enumerate(way_up(architecture)):
        if place.number < 0:
            yield f"up.{number}", f"{at}.{2 if attends else 1}.conv", ""
        else:
            block, attends = block + 1, place.attention
            at = f"output_blocks.{block}"
            yield f"up.{number}", f"{at}.0", f"{at}.1" if attends else ""
    yield "middle.0", "middle_block.0", "middle_block.1"
    yield "middle.1", "middle_block.2", ""


def names_in(dialect: Dialect, layers: Iterator[Layer]) -> dict[str, tuple[str, ...]]:
    """The other program's names of every layer of `DDPMUNet` with weights, three where q, k and v are apart.

    Some layers have no weights in some networks: `skip` of a block with equal channels, and `norm` of an attention.
    """
    found: dict[str, tuple[str, ...]] = {ours: (theirs,) for ours, theirs in dialect.outside.items()}
    for ours, theirs, attention in layers:
        if theirs.endswith((".conv", ".op")):
            found[f"{ours}.convolution"] = (theirs,)
            continue
        found |= {f"{ours}.{part}": (f"{theirs}.{name}",) for part, name in dialect.block.items()}
        if attention:
            found |= {f"{ours}.attention.{part}": (f"{attention}.{name}",) for part, name in dialect.attention.items()}
            found[f"{ours}.attention.qkv"] = tuple(f"{attention}.{name}" for name in dialect.qkv)
    return found


def read_state(
    tensors: Mapping[str, Tensor],
    architecture: Architecture,
    names: Mapping[str, tuple[str, ...]],
    source: str,
    steps: int,
) -> dict[str, Tensor]:
    """The weights of `DDPMUNet` from those of another program, given its `names` of our layers and T, the steps.

    Raises `InputError` for a weight that is missing, too many, or of another shape; the message names `source`.
    """
    with torch.device("meta"):
        own = DDPMUNet(architecture, torch.empty(steps)).state_dict()
    found, left = {}, set(tensors)
    for name, like in own.items():
        layer, _, part = name.rpartition(".")
        theirs = [f"{each}.{part}" for each in names[layer]]
        if missing := [each for each in theirs if each not in tensors]:
            raise InputError(f"{source} lacks the weight {missing[0]}; its settings do not describe its weights")
        value = torch.cat([tensors[each] for each in theirs]) if len(theirs) > 1 else tensors[theirs[0]]
        value = value.squeeze(-1) if value.ndim == like.ndim + 1 else value  # a convolution of one tap is a matrix
        if value.shape != like.shape:
            raise InputError(
                f"{source}: the weight {theirs[0]} has shape {tuple(value.shape)}, expected {tuple(like.shape)}; "
                "its settings do not describe its weights"
            )
        if not value.is_floating_point():
            raise InputError(
                f"{source}: the weight {theirs[0]} is {value.dtype}, expected floats; use another checkpoint"
            )
        if not value.isfinite().all():
            raise InputError(f"{source}: the weight {theirs[0]} has values that are not finite; use another checkpoint")
        found[name] = value.float().contiguous()
        left -= set(theirs)
    if left:
        raise InputError(f"{source} holds {min(left)}, which is no weight of a network of its settings; mend them")
    return found


def written_state(weights: Mapping[str, Tensor], names: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """The weights of `DDPMUNet` under another program's `names`."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer, _, part = name.rpartition(".")
        chunks = value.chunk(len(names[layer]))
        found |= {f"{each}.{part}": chunk.contiguous() for each, chunk in zip(names[layer], chunks, strict=True)}
    return found
