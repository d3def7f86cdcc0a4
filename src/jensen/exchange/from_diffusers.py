"""diffusers' `UNet2DModel` with its scheduler, read as the settings and weights of a diffusion model."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from jensen.errors import InputError
from jensen.exchange.arrival import Arrival, arrival
from jensen.exchange.chains import BY_NAME, Betas, checked
from jensen.exchange.names import DIFFUSERS, diffusers_layers, names_in, read_state
from jensen.exchange.own_unet import Foreign
from jensen.exchange.weights import digest_of, read_tensors
from jensen.nets import Architecture, DDPMUNet
from jensen.recipe.diffusion.imported import Imported

INDEX = "model_index.json"
LONGEST = 100_000  # steps of a chain; its table is kept in the recipe
SCHEDULERS = {"DDPMScheduler": "ancestral", "DDIMScheduler": "ddim", "PNDMScheduler": "ddim"}
"""The schedulers that are read, and the sampler of the run; PNDM's steps have no counterpart."""
PREDICTIONS = {"epsilon": "epsilon", "sample": "clean", "v_prediction": "velocity"}
VARIANCES = {
    "fixed_small": "posterior",
    "fixed_small_log": "posterior",
    "fixed_large": "beta",
    "fixed_large_log": "beta",
    "learned_range": "learned",
}
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of the parts of an attention in weights from before diffusers 0.13."""

UNET: dict[str, tuple[Any, tuple[Any, ...] | None]] = {
    "sample_size": (None, None),
    "in_channels": (3, None),
    "out_channels": (3, None),
    "center_input_sample": (False, (False,)),
    "time_embedding_type": ("positional", ("positional", "learned")),
    "time_embedding_dim": (None, None),
    "freq_shift": (0, None),
    "flip_sin_to_cos": (True, (True, False)),
    "down_block_types": (("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"), None),
    "mid_block_type": ("UNetMidBlock2D", ("UNetMidBlock2D",)),
    "up_block_types": (("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"), None),
    "block_out_channels": ((224, 448, 672, 896), None),
    "layers_per_block": (2, None),
    "mid_block_scale_factor": (1, (1,)),
    "downsample_padding": (1, (0, 1)),
    "downsample_type": ("conv", ("conv",)),
    "upsample_type": ("conv", ("conv",)),
    "dropout": (0.0, None),
    "act_fn": ("silu", ("silu", "swish")),
    "attention_head_dim": (8, None),
    "norm_num_groups": (32, None),
    "attn_norm_num_groups": (None, None),
    "norm_eps": (1e-5, None),
    "resnet_time_scale_shift": ("default", ("default", "scale_shift")),
    "add_attention": (True, (True, False)),
    "class_embed_type": (None, (None,)),
    "num_class_embeds": (None, None),
    "num_train_timesteps": (None, None),
}
"""The settings of `UNet2DModel`: the default, and the values that are read; None: any value."""

SCHEDULER: dict[str, tuple[Any, tuple[Any, ...] | None]] = {
    "num_train_timesteps": (1000, None),
    "beta_start": (1e-4, None),
    "beta_end": (0.02, None),
    "beta_schedule": ("linear", tuple(BY_NAME)),
    "trained_betas": (None, None),
    "prediction_type": ("epsilon", tuple(PREDICTIONS)),
    "thresholding": (False, (False,)),
    "rescale_betas_zero_snr": (False, (False,)),
    "variance_type": ("fixed_small", tuple(VARIANCES)),
    "clip_sample": (True, (True, False)),
    "clip_sample_range": (1.0, None),
}
"""The settings of a scheduler, as above. Those that are not listed choose the steps of sampling only."""


def read_diffusers(folder: Path) -> Arrival:
    """The model in a folder of `DDPMPipeline.save_pretrained` or `DDIMPipeline.save_pretrained`.

    Raises `InputError` for files that are missing or damaged, and for the first setting that jensen lacks, by name.
    """
    _kind(folder, "unet", ("UNet2DModel",))
    kind = _kind(folder, "scheduler", tuple(SCHEDULERS))
    unet, scheduler = _part(folder, "unet"), _part(folder, "scheduler")
    paths = unet / "config.json", scheduler / "scheduler_config.json", _weights(unet)
    config = _settings(_json(paths[0]), UNET, paths[0])
    chain = _settings(_json(paths[1]), SCHEDULER, paths[1])
    betas, architecture = _betas(chain, paths[1]), _architecture(config, paths[0])
    tensors = {_newer(name): value for name, value in read_tensors(paths[2]).items()}
    names = names_in(DIFFUSERS, diffusers_layers(architecture))
    weights = read_state(tensors, architecture, names, str(paths[2]), len(betas))
    sums = {str(path.relative_to(folder)): digest_of(path) for path in paths}
    imported = Imported(
        program="diffusers",
        files=sums,
        network=None,
        betas=betas,
        clip=_limit(chain["clip_sample_range"], paths[1]) if chain["clip_sample"] else None,
    )
    size = _size(config["sample_size"], paths[0])
    variance = _variance(chain, architecture, kind, paths[1])
    chosen = {"parameterisation": PREDICTIONS[chain["prediction_type"]], "sampler": SCHEDULERS[kind]}
    return arrival(Foreign(architecture, weights), imported, {**chosen, "variance": variance}, size, str(folder))


def _kind(folder: Path, part: str, kinds: tuple[str, ...]) -> str:
    """The class of a part of the pipeline. Raises `InputError` for any other than `kinds`."""
    given = _json(folder / INDEX).get(part)
    kind = given[1] if isinstance(given, list) and len(given) == 2 else given
    if kind not in kinds:
        raise InputError(f"{folder / INDEX}: {part} {kind or 'is missing'}; jensen knows {', '.join(kinds)}")
    return str(kind)


def _variance(chain: Mapping[str, Any], a: Architecture, kind: str, path: Path) -> str:
    """The variance of the reverse step (5.12), which DDPM's scheduler says; others draw by beta~ (5.8)."""
    found = VARIANCES[chain["variance_type"]] if kind == "DDPMScheduler" else "posterior"
    if kind != "DDPMScheduler" and a.outputs == 2 * a.channels:
        return "learned"
    if (found == "learned") != (a.outputs == 2 * a.channels):
        raise InputError(
            f"{path}: variance_type {chain['variance_type']} with out_channels {a.outputs} of {a.channels} channels; "
            "expected twice the channels for learned_range, and the same number otherwise"
        )
    return found


# ---------------------------------------------------------------------------------------------- the files


def _part(folder: Path, name: str) -> Path:
    """The folder of a part; older pipelines hold the files of all parts side by side."""
    return folder / name if (folder / name).is_dir() else folder


def _weights(folder: Path) -> Path:
    names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{folder} holds no {' or '.join(names)}; give a folder with the weights in one file")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a folder that holds it") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); restore it from a copy") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected settings by name, got {type(found).__name__}; restore it from a copy")
    return found


def _settings(
    given: Mapping[str, Any], known: Mapping[str, tuple[Any, tuple[Any, ...] | None]], path: Path
) -> dict[str, Any]:
    """Every known setting, given or default. Raises `InputError` for a value that jensen lacks."""
    found: dict[str, Any] = {}
    for name, (default, allowed) in known.items():
        value = given.get(name, default)
        if allowed is not None and value not in allowed:
            expected = " or ".join(map(str, allowed))
            raise InputError(f"{path}: {name} {value} has no counterpart; jensen knows {expected}")
        found[name] = value
    return found


def _newer(name: str) -> str:
    """The name of a weight in present versions."""
    layer, dot, part = name.rpartition(".")
    above, _, last = layer.rpartition(".")
    return f"{above}.{OLDER[last]}{dot}{part}" if ".attentions." in name and last in OLDER else name


# ---------------------------------------------------------------------------------------------- what they mean


def _size(given: Any, path: Path) -> tuple[int | None, int | None]:
    """Height and width; None: any."""
    pair = given if isinstance(given, list) else [given, given]
    if len(pair) != 2 or not all(side is None or (isinstance(side, int) and side > 0) for side in pair):
        raise InputError(f"{path}: sample_size {given}: expected a number of pixels, or height and width; mend it")
    return pair[0], pair[1]


def _limit(given: Any, path: Path) -> float:
    """The limit of clipping."""
    if not isinstance(given, int | float) or not 0 < given < math.inf:
        raise InputError(f"{path}: clip_sample_range {given}: expected a positive number; mend it")
    return float(given)


def _betas(chain: Mapping[str, Any], path: Path) -> Betas:
    steps, first, last = (chain[name] for name in ("num_train_timesteps", "beta_start", "beta_end"))
    try:
        if chain["trained_betas"] is not None:
            betas = tuple(float(value) for value in chain["trained_betas"])
            if len(betas) != steps:
                raise ValueError(f"num_train_timesteps {steps}, but {len(betas)} trained_betas")
        elif not 2 <= int(steps) <= LONGEST:
            raise ValueError(f"num_train_timesteps {steps}, expected 2 to {LONGEST}")
        else:
            betas = BY_NAME[chain["beta_schedule"]](int(steps), float(first), float(last))
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(f"{path}: a chain that is none ({error}); restore it from a copy") from error
    return checked(betas, str(path))


def _architecture(config: Mapping[str, Any], path: Path) -> Architecture:
    """The architecture by the settings. Raises `InputError` for blocks or numbers that make no such network."""
    try:
        widths = tuple(int(width) for width in config["block_out_channels"])
        down, up = (tuple(map(str, config[f"{way}_block_types"])) for way in ("down", "up"))
        attends = _attention(down, "DownBlock2D", path), _attention(up[::-1], "UpBlock2D", path)
        if not len(widths) == len(down) == len(up):
            raise ValueError(f"{len(widths)} widths, {len(down)} and {len(up)} blocks")
        shifts = config["resnet_time_scale_shift"] == "default"
        groups, middle = int(config["norm_num_groups"]), config["attn_norm_num_groups"]
        head, rows = config["attention_head_dim"], config["num_class_embeds"]
        found = Architecture(
            channels=int(config["in_channels"]),
            outputs=int(config["out_channels"]),
            widths=widths,
            blocks=int(config["layers_per_block"]),
            down_attention=attends[0],
            up_attention=attends[1],
            middle_attention=config["add_attention"],
            head_width=None if head is None else int(head),
            heads=1,
            up_heads=1,
            groups=groups,
            middle_groups=(groups if shifts else 0) if middle is None else int(middle),
            epsilon=float(config["norm_eps"]),
            modulation="shift" if shifts else "scale-shift",
            symmetric=config["downsample_padding"] == 1,
            embedding="table" if config["time_embedding_type"] == "learned" else "sinusoids",
            cosine_first=config["flip_sin_to_cos"],
            frequency_shift=float(config["freq_shift"]),
            time_scale=1.0,
            condition=int(config["time_embedding_dim"] or 4 * widths[0]),
            classes=None if rows is None else int(rows) - 1,
        )
        _check(found)
    except (TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError, RuntimeError) as error:
        raise InputError(f"{path}: {error}; these settings make no network, restore them from a copy") from error
    return found


def _attention(kinds: tuple[str, ...], plain: str, path: Path) -> tuple[int, ...]:
    """The levels with attention, from the names of the blocks, finest first."""
    if other := [kind for kind in kinds if kind not in (plain, f"Attn{plain}")]:
        raise InputError(
            f"{path}: block {other[0]} has no counterpart in jensen, which knows {plain} and Attn{plain} only"
        )
    return tuple(level for level, kind in enumerate(kinds) if kind != plain)


def _check(a: Architecture) -> None:
    """Raise ValueError for numbers that no network can have, or that would make one too large to be meant."""
    counts = a.channels, a.blocks, a.groups, *a.widths, a.condition
    if min(counts) < 1 or max(counts) > 1 << 16 or max(a.blocks, len(a.widths)) > 100 or a.middle_groups < 0:
        raise ValueError(f"widths {a.widths}, {a.blocks} blocks, {a.groups} groups")
    if a.widths[0] % 2 or not 0 <= a.frequency_shift < a.widths[0] / 2 or not 0 <= a.epsilon < 1:
        raise ValueError(f"width {a.widths[0]} with freq_shift {a.frequency_shift}, norm_eps {a.epsilon}")
    if a.classes is not None and not 0 < a.classes < 1 << 24:
        raise ValueError(f"num_class_embeds {a.classes + 1}")
    if a.outputs not in (a.channels, 2 * a.channels):
        raise ValueError(
            f"out_channels {a.outputs}, expected {a.channels}, or {2 * a.channels} with a learned variance"
        )
    attending = {
        a.widths[level] for level in (*a.down_attention, *a.up_attention, *([-1] if a.middle_attention else []))
    }
    if a.head_width is not None and any(width % a.head_width for width in attending):
        raise ValueError(f"attention_head_dim {a.head_width}, expected a divisor of {sorted(attending)}")
    with torch.device("meta"):
        DDPMUNet(a, torch.empty(2))  # raises ValueError for groups that do not divide the widths
