"""Diffusion models in the layout of Hugging Face's diffusers: a folder with `UNet2DModel` and a scheduler."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from jensen.data.spec import DataSpec
from jensen.diffusion.model import DiffusionModel
from jensen.diffusion.process import beta
from jensen.errors import InputError
from jensen.exchange.names import DIFFUSERS, diffusers_layers, names_in, written_state
from jensen.exchange.own_unet import foreign
from jensen.nets import Architecture
from jensen.provenance import jensen_version
from jensen.recipe.diffusion.build import explicit
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.run import Run

VERSION = "0.42.1"  # of diffusers, whose files these are
WEIGHTS = "diffusion_pytorch_model.safetensors"
PREDICTIONS = {"epsilon": "epsilon", "clean": "sample", "velocity": "v_prediction"}
VARIANCES = {"beta": "fixed_large", "posterior": "fixed_small", "learned": "learned_range", "analytic": "fixed_small"}

# ---------------------------------------------------------------------------------------------- a run becomes a folder


def export_diffusers(run: Run, folder: Path) -> list[str]:
    """Fill `folder` with a pipeline that `DDPMPipeline.from_pretrained` and `DDIMPipeline.from_pretrained` load.

    The network is the one that draws samples: the averaged weights of the best checkpoint. Raises `InputError` for the
    first setting of the run that diffusers lacks.
    """
    if run.recipe.family != "diffusion":
        raise InputError(f"{run.folder}: a run of family {run.recipe.family} has no counterpart in diffusers' U-Nets")
    assert isinstance(run.recipe, DiffusionRecipe)
    assert isinstance(run.model, DiffusionModel)
    settings = explicit(run.recipe.model, run.spec)
    _refuse_data(run.spec)
    settings, sign = _as_velocity(settings)
    _refuse_sampling(settings)
    chain = run.model.bound().log_snr.detach().double().cpu()
    found = foreign(run.model.get_submodule("denoiser.network"), settings, -chain[1:] / 8)
    halved = 2 ** (len(found.architecture.widths) - 1)
    if any(size % halved or size < 2 for size in run.spec.shape[1:]):
        raise InputError(
            f"examples of shape {run.spec.shape} have no counterpart with {len(found.architecture.widths)} widths: "
            f"diffusers' U-Net needs sides that are multiples of {halved}; train with --size, or with fewer --widths"
        )
    found.weights["last.weight"], found.weights["last.bias"] = (
        sign * found.weights[f"last.{part}"] for part in ("weight", "bias")
    )
    _write(folder / "unet" / "config.json", unet_config(found.architecture, run.spec.shape, len(chain) - 1))
    weights = written_state(found.weights, names_in(DIFFUSERS, diffusers_layers(found.architecture)))
    save_file(weights, folder / "unet" / WEIGHTS, metadata={"format": "pt"})
    scheduler = scheduler_config(settings, chain)
    _write(folder / "scheduler" / "scheduler_config.json", scheduler)
    _write(folder / "model_index.json", _index(scheduler["_class_name"]))
    _write(folder / "jensen.json", _about(run))
    return _notes(settings, found.architecture, len(chain) - 1)


def _refuse_data(spec: DataSpec) -> None:
    if len(spec.shape) != 3 or spec.table is not None:
        raise InputError(f"layout {spec.layout}, shape {spec.shape}: diffusers' U-Net is for images (C, H, W) only")
    if spec.levels is None:
        raise InputError(
            f"preparation {spec.preparation.kind} of floats has no counterpart: diffusers' pipelines take the "
            "range [-1, 1] for pictures; train on integers or images"
        )


def _as_velocity(settings: DiffusionSettings) -> tuple[DiffusionSettings, int]:
    """The settings with a parameterisation that diffusers knows, and the sign of the network's output there.

    EDM's preconditioning with sigma_data = 1 is the negative velocity (`jensen.diffusion.denoiser`).
    """
    if settings.parameterisation != "edm":
        return settings, 1
    if not settings.sigma_data == settings.skip == 1:
        raise InputError(
            f"parameterisation edm with sigma_data {settings.sigma_data} and skip {settings.skip} has no counterpart: "
            "diffusers' pipelines scale no input of the network; train with --parameterisation velocity, or with "
            "--sigma-data 1 --skip 1"
        )
    return settings.model_copy(update={"parameterisation": "velocity"}), -1


def _refuse_sampling(settings: DiffusionSettings) -> None:
    if settings.sampler == "ancestral" and settings.variance == "analytic":
        raise InputError(
            "variance analytic with sampler ancestral has no counterpart: diffusers' DDPMScheduler has no table of "
            "errors; train with --variance beta or posterior, or with another --sampler"
        )
    if settings.last_step == "draw":
        raise InputError("last_step draw has no counterpart: diffusers' DDPMScheduler ends with the mean; use mean")


def unet_config(a: Architecture, shape: tuple[int, ...], steps: int) -> dict[str, Any]:
    """config.json of `UNet2DModel`. Raises `InputError` for heads of attention that differ from level to level."""
    levels = range(len(a.widths))
    down = [f"{'Attn' if level in a.down_attention else ''}DownBlock2D" for level in levels]
    up = [f"{'Attn' if level in a.up_attention else ''}UpBlock2D" for level in reversed(levels)]
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        "sample_size": list(shape[1:]),
        "in_channels": a.channels,
        "out_channels": a.outputs,
        "center_input_sample": False,
        "time_embedding_type": "learned" if a.embedding == "table" else "positional",
        "time_embedding_dim": a.condition,
        "freq_shift": a.frequency_shift,
        "flip_sin_to_cos": a.cosine_first,
        "down_block_types": down,
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": up,
        "block_out_channels": list(a.widths),
        "layers_per_block": a.blocks,
        "mid_block_scale_factor": 1,
        "downsample_padding": 1 if a.symmetric else 0,
        "downsample_type": "conv",
        "upsample_type": "conv",
        "dropout": 0.0,
        "act_fn": "silu",
        "attention_head_dim": _head_width(a),
        "norm_num_groups": a.groups,
        "attn_norm_num_groups": a.middle_groups or None,
        "norm_eps": a.epsilon,
        "resnet_time_scale_shift": "default" if a.modulation == "shift" else "scale_shift",
        "add_attention": a.middle_attention,
        "class_embed_type": None,
        "num_class_embeds": None if a.classes is None else a.classes + 1,
        "num_train_timesteps": steps,
    }


def _head_width(a: Architecture) -> int | None:
    """Channels of a head; None: each attention has one head."""
    if a.head_width is not None:
        return a.head_width
    uses = [(level, a.heads) for level in a.down_attention] + [(level, a.up_heads) for level in a.up_attention]
    uses += [(-1, a.heads)] if a.middle_attention else []
    if all(heads == 1 for _, heads in uses):
        return None
    widths = {a.widths[level] // heads for level, heads in uses}
    if len(widths) > 1:
        raise InputError(
            f"heads {a.heads} has no counterpart: heads of {', '.join(map(str, sorted(widths)))} channels, but "
            "diffusers' U-Net has one number for all levels"
        )
    return widths.pop()


def scheduler_config(settings: DiffusionSettings, chain: Tensor) -> dict[str, Any]:
    """scheduler_config.json of `DDPMScheduler`, or of `DDIMScheduler` if the recipe samples by ddim.

    `chain` (T + 1) is the chain's grid of log-SNRs. DDPM's chain is written by its name, every other one as a table.
    """
    betas = beta(chain[:-1], chain[1:])
    named = settings.noise_schedule == "linear-beta" and settings.imported is None
    clip = settings.imported.clip if settings.imported else None
    shared = {
        "_class_name": "DDIMScheduler" if settings.sampler == "ddim" else "DDPMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": len(betas),
        "beta_schedule": "linear",
        "beta_start": float(betas[0]),
        "beta_end": float(betas[-1]),
        "trained_betas": None if named else betas.tolist(),
        "prediction_type": PREDICTIONS[settings.parameterisation],
        "clip_sample": clip is not None,
        "clip_sample_range": 1.0 if clip is None else clip,
        "thresholding": False,
        "timestep_spacing": "trailing",
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
    }
    if settings.sampler == "ddim":
        return {**shared, "set_alpha_to_one": True}
    return {**shared, "variance_type": VARIANCES[settings.variance]}


def _index(scheduler: str) -> dict[str, Any]:
    return {
        "_class_name": "DDIMPipeline" if scheduler == "DDIMScheduler" else "DDPMPipeline",
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler],
        "unet": ["diffusers", "UNet2DModel"],
    }


def _about(run: Run) -> dict[str, Any]:
    """Where the weights come from, and what the labels mean."""
    labels = [run.spec.label_name(label) for label in range(run.spec.classes or 0)]
    return {"jensen": jensen_version(), "weights": run.weights, "step": run.step, "labels": labels}


def _notes(settings: DiffusionSettings, a: Architecture, steps: int) -> list[str]:
    notes = []
    if a.classes is not None:
        notes.append(
            f"The network takes class_labels from 0 to {a.classes}, where {a.classes} means no label; diffusers' "
            "pipelines pass none, so draw samples by the loop in docs/exchange.md"
        )
    if settings.guidance:
        notes.append(f"guidance {settings.guidance:g} is not in the folder: diffusers' pipelines of images have none")
    if settings.sampler not in ("ancestral", "ddim"):
        notes.append(f"sampler {settings.sampler} is not in the folder: DDPMPipeline and DDIMPipeline bring their own")
    if settings.variance == "analytic":
        notes.append("variance analytic has no counterpart: DDPMPipeline draws with fixed_small; DDIMPipeline has none")
    if steps != 1000:
        notes.append(f"The chain has {steps} steps; give DDPMPipeline num_inference_steps={steps}")
    return notes


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
