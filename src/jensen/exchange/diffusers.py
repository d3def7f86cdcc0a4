"""Diffusion models in the layout of Hugging Face's diffusers: `UNet2DModel` and a scheduler."""

from pathlib import Path

from jensen.errors import InputError
from jensen.run import Run


def export_diffusers(run: Run, folder: Path) -> list[str]:
    """Fill `folder` with a pipeline that `DDPMPipeline.from_pretrained` and `DDIMPipeline.from_pretrained` load."""
    raise InputError(f"{run.folder}: family {run.recipe.family} has no counterpart in diffusers")
