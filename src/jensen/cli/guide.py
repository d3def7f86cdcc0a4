"""`--guide`: a worse run of the same data, away from which samples are guided."""

import hashlib
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save

import jensen
from jensen.diffusion.model import DiffusionModel, Generation
from jensen.errors import InputError
from jensen.run import Run


def guided(run: Run, generation: Generation, folder: Path | None) -> Generation:
    """`generation` of `run`, its guidance away from the run in `folder`; as it is where there is none.

    Raises `InputError` for a run that is no diffusion model of the same data, and without a scale of guidance.
    """
    if folder is None:
        return generation
    if generation.guidance == 0:
        raise InputError(f"--guide {folder} without a scale: say how far from it with --guidance, usually 0.5 to 2")
    other = jensen.load(folder)
    if not isinstance(other.model, DiffusionModel):
        raise InputError(f"--guide {folder} is a run of family {other.recipe.family}: give that of a diffusion model")
    if other.spec.fingerprint != run.spec.fingerprint or other.spec.preparation.kind != run.spec.preparation.kind:
        raise InputError(f"--guide {folder} was trained on other data than {run.folder}: give a run of the same data")
    return replace(generation, guide=other.model.to(run.model.device).denoiser)


def digest(generation: Generation) -> str | None:
    """SHA-256 of the guide's weights; None without a guide."""
    if generation.guide is None:
        return None
    weights = {name: tensor.contiguous() for name, tensor in generation.guide.state_dict().items()}
    return hashlib.sha256(save(weights)).hexdigest()
