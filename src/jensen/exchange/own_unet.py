"""jensen's U-Net as a `DDPMUNet` and back: the same function from the same numbers.

Three things differ. jensen's network computes sinusoids of the noise level, which become a table with one row per step.
It holds the scales and shifts of all blocks in one matrix. It has no bias for queries, keys and values and no second
scale of a modulated normalisation, which become zeros and ones.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.nets import Architecture, DDPMUNet, UNet
from jensen.nets.embedding import HIGHEST, LOWEST, geometric_frequencies, sinusoids
from jensen.nets.layers import HEAD_WIDTH
from jensen.recipe.diffusion.settings import DiffusionSettings

SAME = 1e-4  # between two tables of sinusoids, whose noise levels went through a file of betas


@dataclass(frozen=True, eq=False)
class Foreign:
    """A network as other programs build it: its architecture and the weights of its `DDPMUNet`."""

    architecture: Architecture
    weights: dict[str, Tensor]


def foreign(network: nn.Module, settings: DiffusionSettings, noise_levels: Tensor) -> Foreign:
    """A denoising network as other programs build it, for the noise levels (T) of a chain's steps.

    `settings` are the model's, with every choice made. Raises `InputError` for a network that the other programs cannot
    build; the message names the setting.
    """
    weights = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    if isinstance(network, DDPMUNet):
        return Foreign(network.architecture, weights)
    if not isinstance(network, UNet):
        raise InputError(f"network {settings.network} has no counterpart there; train with --network unet")
    for name, neutral in (("octaves", 0), ("patch", 1)):
        if getattr(settings, name) != neutral:
            given = getattr(settings, name)
            raise InputError(f"{name} {given} has no counterpart there; train with --{name} {neutral}")
    assert settings.widths is not None
    classes, outputs = network.condition.classes, network.last.out_channels
    ends = network.first.in_channels, outputs, classes
    architecture = own_architecture(*ends, settings.widths, settings.blocks, settings.attention)
    modulations = {part: iter(weights[f"modulation.{part}"].split(network.modulated)) for part in ("weight", "bias")}
    found: dict[str, Tensor] = {}
    for name, like in _empty(architecture).items():
        if name.endswith((".embed.weight", ".embed.bias")):
            found[name] = next(modulations[name.rpartition(".")[2]]).clone()
        else:
            fixed = _fixed(name, like, noise_levels)
            found[name] = weights[_own_name(name)] if fixed is None else fixed
    return Foreign(architecture, found)


def own(found: Foreign, noise_levels: Tensor) -> dict[str, Tensor] | None:
    """The weights of the `UNet` of which `foreign` makes `found`, bit for bit; None if there is none."""
    a = found.architecture
    if a.embedding != "table" or len(found.weights["table.weight"]) != len(noise_levels):
        return None
    try:
        same = own_architecture(a.channels, a.outputs, a.classes, a.widths, a.blocks, a.down_attention)
    except InputError:
        return None
    if a != same:
        return None
    weights: dict[str, Tensor] = {}
    modulations: dict[str, list[Tensor]] = {"weight": [], "bias": []}
    for name, value in found.weights.items():
        fixed = _fixed(name, value, noise_levels)
        if name.endswith((".embed.weight", ".embed.bias")):
            modulations[name.rpartition(".")[2]].append(value)
        elif fixed is None:
            weights[_own_name(name)] = value
        elif not torch.allclose(value, fixed, rtol=0, atol=SAME if name == "table.weight" else 0):
            return None
    return weights | {f"modulation.{part}": torch.cat(values) for part, values in modulations.items()}


def own_architecture(
    channels: int,
    outputs: int,
    classes: int | None,
    widths: tuple[int, ...],
    blocks: int,
    attention: tuple[int, ...],
) -> Architecture:
    """The architecture of a `UNet`.

    Raises `InputError` if its layers have different numbers of groups, or heads of different widths.
    """
    with torch.device("meta"):
        network = UNet((channels, 2, 2), widths, blocks, attention, classes=classes)
    groups = {module.num_groups for module in network.modules() if isinstance(module, nn.GroupNorm)}
    heads = {math.gcd(widths[level], HEAD_WIDTH) for level in attention}
    for name, values, what, counts in (
        ("widths", widths, "numbers of groups in its normalisations", groups),
        ("attention", attention, "widths of its heads", heads),
    ):
        if len(counts) > 1:
            given, found = " ".join(map(str, values)), ", ".join(map(str, sorted(counts)))
            raise InputError(
                f"{name} {given} has no counterpart there: the {what} differ ({found}), and there they are one number; "
                "train with widths that are multiples of 32"
            )
    return Architecture(
        channels=channels,
        outputs=outputs,
        widths=widths,
        blocks=blocks,
        down_attention=tuple(sorted(attention)),
        up_attention=tuple(sorted(attention)),
        middle_attention=len(widths) - 1 in attention,
        head_width=heads.pop() if heads else None,
        heads=1,
        up_heads=1,
        groups=network.norm.num_groups,
        middle_groups=network.norm.num_groups,
        epsilon=network.norm.eps,
        modulation="scale-shift",
        symmetric=True,
        embedding="table",
        cosine_first=True,
        frequency_shift=0.0,
        time_scale=1.0,
        condition=network.condition.second.out_features,
        classes=classes,
    )


def _empty(architecture: Architecture, steps: int = 2) -> Mapping[str, Tensor]:
    """The names and shapes of the weights, without values."""
    with torch.device("meta"):
        return DDPMUNet(architecture, torch.empty(steps)).state_dict()


def _fixed(name: str, like: Tensor, noise_levels: Tensor) -> Tensor | None:
    """The value of a weight of `DDPMUNet` that `UNet` does not have as a weight; None for all others."""
    if name == "table.weight":
        return sinusoids(noise_levels.float(), geometric_frequencies(like.shape[1], LOWEST, HIGHEST))
    if name.endswith(".norm2.weight"):
        return torch.ones(like.shape)
    if name.endswith((".norm2.bias", ".attention.qkv.bias")):
        return torch.zeros(like.shape)
    return None


def _own_name(name: str) -> str:
    """The name in `UNet` of a weight of `DDPMUNet`."""
    for there, here in (("embed1.", "first."), ("embed2.", "second."), ("labels.", "labels.")):
        if name.startswith(there):
            return f"condition.{here}{name.removeprefix(there)}"
    if name.startswith("down."):
        name = name.replace(".convolution.", ".")
    for part in ("qkv", "out"):
        name = name.replace(f".attention.{part}.", f".attention.attention.{part}.")
    return name
