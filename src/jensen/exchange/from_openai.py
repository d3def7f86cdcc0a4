"""Weights of OpenAI's improved-diffusion, read with the flags of its training as a diffusion model."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from jensen.errors import InputError
from jensen.exchange.arrival import Arrival, arrival
from jensen.exchange.chains import checked, cosine, linear
from jensen.exchange.names import OPENAI, names_in, openai_layers, read_state
from jensen.exchange.own_unet import Foreign
from jensen.exchange.weights import digest_of, read_tensors
from jensen.nets import Architecture
from jensen.recipe.diffusion.imported import Imported
from jensen.recipe.settings import explain

FLAGS = "improved_diffusion.json"
GROUPS, CHANNELS = 32, 3
MULTIPLES = {32: (1, 2, 2, 2), 64: (1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4)}
"""The widths of the levels by the image's side, in units of num_channels."""


class Flags(BaseModel):
    """The flags of improved-diffusion's training that its network and chain depend on, with its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    image_size: Literal[32, 64, 256] = 64
    num_channels: int = Field(128, ge=GROUPS, multiple_of=GROUPS, le=4096)
    num_res_blocks: int = Field(2, ge=1, le=1000)
    num_heads: int = Field(4, ge=1, le=1024)
    num_heads_upsample: int = -1
    attention_resolutions: str = Field("16,8", pattern=r"^[0-9]{1,9}(,[0-9]{1,9})*$", max_length=99)
    dropout: float = 0.0
    learn_sigma: bool = False
    sigma_small: bool = False
    class_cond: Literal[False] = False
    diffusion_steps: int = Field(1000, ge=2, le=100_000)
    noise_schedule: Literal["linear", "cosine"] = "linear"
    timestep_respacing: Literal[""] = ""
    use_kl: bool = False
    predict_xstart: bool = False
    rescale_timesteps: bool = True
    rescale_learned_sigmas: bool = True
    use_checkpoint: bool = False
    use_scale_shift_norm: bool = True


def read_openai(folder: Path) -> Arrival:
    """The model in a folder with one file of weights and `FLAGS`, the flags of its training.

    Raises `InputError` for flags that jensen lacks, by name, and for weights that do not fit the flags.
    """
    flags, path = _flags(folder / FLAGS), _weights(folder)
    a = _architecture(flags)
    steps = flags.diffusion_steps
    scale = 1000 / steps
    betas = cosine(steps) if flags.noise_schedule == "cosine" else linear(steps, 1e-4 * scale, 0.02 * scale)
    weights = read_state(read_tensors(path), a, names_in(OPENAI, openai_layers(a)), str(path), steps)
    weights = {name: _by_kind(name, value, a) for name, value in weights.items()}
    sums = {each.name: digest_of(each) for each in (folder / FLAGS, path)}
    betas = checked(betas, str(folder / FLAGS))
    imported = Imported(program="improved-diffusion", files=sums, network=None, betas=betas, clip=1.0)
    chosen = {
        "parameterisation": "clean" if flags.predict_xstart else "epsilon",
        "variance": "learned" if flags.learn_sigma else "posterior" if flags.sigma_small else "beta",
        "sampler": "ancestral",
    }
    return arrival(Foreign(a, weights), imported, chosen, (flags.image_size, flags.image_size), str(folder))


def _flags(path: Path) -> Flags:
    try:
        return Flags.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}; jensen has no counterpart for other values") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); docs/exchange.md says what it holds") from error


def _weights(folder: Path) -> Path:
    found = sorted(path for path in folder.iterdir() if path.suffix in (".pt", ".safetensors"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder} holds {names}; expected one .pt or .safetensors with weights, such as ema_*.pt")
    return found[0]


def _architecture(flags: Flags) -> Architecture:
    multiples = MULTIPLES[flags.image_size]
    rates = [flags.image_size // side for side in map(int, flags.attention_resolutions.split(",")) if side]
    attends = tuple(level for level in range(len(multiples)) if 2**level in rates)
    up_heads = flags.num_heads if flags.num_heads_upsample == -1 else flags.num_heads_upsample
    widths = tuple(flags.num_channels * multiple for multiple in multiples)
    for name, heads in (("num_heads", flags.num_heads), ("num_heads_upsample", up_heads)):
        if heads < 1 or any(widths[level] % heads for level in (*attends, -1)):
            raise InputError(f"{FLAGS}: {name} {heads} does not divide the widths {widths} of levels with attention")
    return Architecture(
        channels=CHANNELS,
        outputs=CHANNELS * (2 if flags.learn_sigma else 1),
        widths=widths,
        blocks=flags.num_res_blocks,
        down_attention=attends,
        up_attention=attends,
        middle_attention=True,
        head_width=None,
        heads=flags.num_heads,
        up_heads=up_heads,
        groups=GROUPS,
        middle_groups=GROUPS,
        epsilon=1e-5,
        modulation="scale-shift" if flags.use_scale_shift_norm else "shift",
        symmetric=True,
        embedding="sinusoids",
        cosine_first=True,
        frequency_shift=0.0,
        time_scale=1000 / flags.diffusion_steps if flags.rescale_timesteps else 1.0,
        condition=4 * flags.num_channels,
        classes=None,
    )


def _by_kind(name: str, value: Tensor, a: Architecture) -> Tensor:
    """Queries, keys and values of all heads, in this order; there, each head has its own three side by side."""
    if ".attention.qkv." not in name:
        return value
    heads: Any = a.up_heads if name.startswith("up.") else a.heads
    return value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2).contiguous()
