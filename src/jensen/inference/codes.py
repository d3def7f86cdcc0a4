"""Codes: the latent representations of examples, the examples of codes, and paths between codes.

The code of x is the mean of q(z|x) for a VAE, and for a diffusion model x_T, the end of the probability-flow ODE that
starts from x (5.20). The ODE has an inverse, so the code of a diffusion model gives x back up to the ODE's tolerance.
"""

import math
from enum import Enum

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from jensen import processes
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.data.table.column import Table
from jensen.data.table.fill import centre
from jensen.errors import InputError
from jensen.evaluation.scores import prepare
from jensen.likelihood.columns import Columns
from jensen.model import AbstractLatentVariableModel, Codes
from jensen.progress import track
from jensen.randomness import Stream, derived_seed, uniform_per_example
from jensen.vae import VAE
from jensen.vae.missing import PartialObservation

VALUES = {"cpu": 1 << 16, "gpu": 1 << 22}  # most values of x at a time, so that the progress bar moves
ROW_DRAWS = 100  # default number of draws of a table's row given z
FLAT = 1e-4  # radians between two directions, or from opposite ones, below which a great circle is ill-defined


class InterpolationPath(Enum):
    """The shape of a path between two codes: a great circle or a straight line."""

    SPHERICAL = "spherical"
    STRAIGHT = "straight"


def encode_examples(
    model: AbstractLatentVariableModel, examples: Examples, preparation: Preparation, *, seed: int = 0
) -> Codes:
    """The codes of all examples, on the CPU; the noise of a random preparation belongs to the seed.

    Processes started by torchrun divide the examples among themselves.
    """
    mine = []
    with processes.together():
        batches = torch.arange(len(examples)).split(_at_once(model))
        for rows in track(processes.share(batches), "encoding"):
            x = prepare(preparation, examples.x[rows], rows, seed).to(model.device)
            found = model.codes(x, seed=seed, index=rows)
            mine.append({name: part.cpu() for name, part in vars(found).items() if part is not None})
    parts = processes.gathered(mine)
    return Codes(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def decode_codes(model: AbstractLatentVariableModel, z: Float[Tensor, " batch latent"]) -> Tensor:
    """E[x|z], (batch, *shape), after the run's preparation, on the CPU. Raises `InputError` for z of another length."""
    z = _checked(model, z)
    batches = track(z.split(_at_once(model)), "decoding")
    return torch.cat([model.decode_mean(rows.to(model.device)).cpu() for rows in batches])


@torch.no_grad()
def decode_rows(
    model: AbstractLatentVariableModel,
    z: Float[Tensor, " batch latent"],
    preparation: Preparation,
    table: Table,
    *,
    draws: int = ROW_DRAWS,
    seed: int = 0,
) -> Float[np.ndarray, " batch fields"]:
    """Rows of a table for codes z, in the units of the data: the centre of p(x|z) of every column.

    The centre is the median of `draws` draws of a number or a date, and the most frequent category, given that the cell
    is not missing. The mean would be no value of most columns. Draw k of row i is a pure function of (seed, i, k).
    """
    if not isinstance(model, VAE):
        return preparation.to_raw(decode_codes(model, z))
    z, parts = _checked(model, z), []
    for rows in track(torch.arange(len(z)).split(max(1, _at_once(model) // draws)), "decoding"):
        law = model.decode(z[rows].to(model.device))
        whole = law.whole if isinstance(law, PartialObservation) else law
        assert isinstance(whole, Columns)
        stream = derived_seed(seed, Stream.SAMPLE)
        u = uniform_per_example(stream, rows.tolist(), (draws, *model.shape)).transpose(0, 1)
        x = whole.present().quantile(u.to(model.device)).cpu()
        raw = preparation.to_raw(x.flatten(0, 1)).reshape(tuple(x.shape))
        parts.append(torch.from_numpy(centre(raw, table, "median")))
    return torch.cat(parts).numpy()


def interpolate_codes(
    model: AbstractLatentVariableModel,
    first: Float[Tensor, " latent"],
    last: Float[Tensor, " latent"],
    steps: int,
    path: InterpolationPath = InterpolationPath.SPHERICAL,
) -> Float[Tensor, " steps latent"]:
    """`steps` codes from `first` to `last`, both included, at even distances along the path.

    The path is drawn in coordinates in which the model's p(z) is N(0, I). For a diffusion prior of a VAE, these are the
    ends of its probability-flow ODE. Raises `InputError` for fewer than 2 steps.
    """
    if steps < 2:
        raise InputError(f"{steps} steps: expected at least 2, the two ends; give a larger number")
    ends = model.to_normal(_checked(model, torch.stack([first, last])).to(model.device))
    shares = torch.linspace(0, 1, steps, dtype=torch.float64)
    found = between(ends[0].cpu().double(), ends[1].cpu().double(), shares, path)
    return model.from_normal(found.to(ends)).cpu()


def between(
    first: Float[Tensor, " latent"],
    last: Float[Tensor, " latent"],
    shares: Float[Tensor, " steps"],
    path: InterpolationPath,
) -> Float[Tensor, " steps latent"]:
    """The points at the `shares` (0 to 1) of the way from `first` to `last`.

    On a great circle (White 2016, section 2.1, after Shoemake 1985), with the angle Ω between the ends,

        z(t) = sin((1 - t) Ω) / sin Ω · first + sin(t Ω) / sin Ω · last.

    For independent ends from N(0, I) in many dimensions, Ω is about π/2. Then the squares of the weights add up to one,
    so that z(t) is from N(0, I), too. Points of a straight line are shorter: those in its middle by a factor √2. If the
    directions are the same or opposite, a great circle is not defined, and the path is straight.
    """
    t = shares.unsqueeze(1)
    cosine = torch.nn.functional.cosine_similarity(first, last, dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if path is InterpolationPath.STRAIGHT or not FLAT < float(angle) < torch.pi - FLAT:
        return (1 - t) * first + t * last
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * last) / torch.sin(angle)


def _at_once(model: AbstractLatentVariableModel) -> int:
    """The number of examples at a time; it changes memory and speed, never a code."""
    return max(1, VALUES["cpu" if model.device.type == "cpu" else "gpu"] // math.prod(model.shape))


def _checked(model: AbstractLatentVariableModel, z: Tensor) -> Tensor:
    """The codes in the precision of the model. Raises `InputError` for codes of another length, or not finite."""
    if z.ndim != 2 or z.shape[1] != model.latent_dims or not len(z):
        raise InputError(
            f"codes of shape {tuple(z.shape)}: expected (count, {model.latent_dims}), a row of latent dimensions for "
            "each example; give codes of this run"
        )
    if not bool(z.isfinite().all()):
        row = int((~z.isfinite()).any(1).nonzero()[0])
        raise InputError(f"code {row} is not finite; give finite numbers")
    return z.to(next((parameter.dtype for parameter in model.parameters()), z.dtype))
