"""A model of another program that has been read, and the run that it becomes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jensen.data.examples import Dataset
from jensen.data.options import ReadOptions
from jensen.data.readers.memory import Source
from jensen.data.spec import DataSpec
from jensen.diffusion.model import DiffusionModel
from jensen.diffusion.schedule import BetaTable, UniformTime
from jensen.errors import InputError
from jensen.exchange.own_unet import Foreign, own
from jensen.model import Batch
from jensen.nets import Architecture
from jensen.progress import track
from jensen.randomness import Noise, Stream, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.imported import Imported
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.run import Run, establish_untrained
from jensen.run.folder import check_new

PROBED, ROWS = 512, 32  # training examples whose errors fill the table of errors, and rows of one call of the network


@dataclass(frozen=True, eq=False)
class Arrival:
    """A denoising model of another program: the settings of its recipe, and the weights of its network."""

    settings: DiffusionSettings
    weights: dict[str, Tensor]
    shape: tuple[int, int | None, int | None]
    """Channels, height and width of its examples; None: any size."""
    rows: int | None
    """Rows of its table of labels; None without labels."""
    halvings: int
    """How often it halves the resolution."""
    source: str
    """What was read, for messages."""


def arrival(
    found: Foreign, imported: Imported, chosen: Mapping[str, Any], size: tuple[int | None, int | None], source: str
) -> Arrival:
    """The settings and weights of a run for the network `found` of another program.

    `imported` has no network yet, and `chosen` are the settings of the parameterisation, the variance and the sampler.
    If jensen's own U-Net computes the same function from the same weights, the network becomes that U-Net.
    """
    a, steps = found.architecture, len(imported.betas)
    levels = -UniformTime()(BetaTable(imported.betas), steps)[1:] / 8
    ours = own(found, levels)
    of_unet = {"network": "unet", "widths": a.widths, "blocks": a.blocks, "attention": a.down_attention}
    settings = DiffusionSettings.model_validate(
        {
            **chosen,
            **(of_unet if ours else {}),
            "octaves": 0,
            "patch": 1,
            "chain_steps": steps,
            "objective": "hybrid" if chosen["variance"] == "learned" else "simple",
            "conditional": a.classes is not None,
            "sampling_steps": steps if chosen["sampler"] == "ancestral" else min(50, steps),
            "imported": imported.model_copy(update={"network": None if ours else _given(a)}),
        }
    )
    rows = None if a.classes is None else a.classes + 1
    return Arrival(settings, ours or found.weights, (a.channels, *size), rows, len(a.widths) - 1, source)


def _given(architecture: Architecture) -> dict[str, Any]:
    """The fields of the architecture, without those that are None, so that TOML can hold them."""
    return {name: value for name, value in asdict(architecture).items() if value is not None}


def become_run(found: Arrival, data: Source, read: ReadOptions, out: Path, seed: int = 0) -> Run:
    """A run in the new folder `out` whose only checkpoint, of step 0, holds the weights, and whose data are `data`.

    The weights of the network stay as they are. `PROBED` training examples fill the model's table of errors, by which
    an estimate of the bound spreads its draws over the chain. Raises `InputError`, before anything is written, for data
    of another shape, without levels, or without the labels that the network needs.
    """
    check_new(out)
    training = DiffusionTraining(steps=1, ema_decay=None)
    recipe = DiffusionRecipe.model_validate(
        {"data": data, "read": read, "seed": seed, "model": found.settings, "training": training}
    )
    dataset = load_dataset(recipe)
    _refuse_other_data(found, dataset.spec)
    model = build_model(recipe, dataset.spec)
    assert isinstance(model, DiffusionModel)
    network = model.get_submodule("denoiser.network")
    network.load_state_dict(found.weights)
    _observe_errors(model.eval(), dataset, seed)
    return establish_untrained(out, recipe, dataset.spec, model)


def _refuse_other_data(found: Arrival, spec: DataSpec) -> None:
    """Raise `InputError` for data that the network does not model."""
    expected = tuple("any" if size is None else size for size in found.shape)
    image = len(spec.shape) == 3
    if not image or any(want not in (None, size) for want, size in zip(found.shape, spec.shape, strict=True)):
        raise InputError(
            f"--data {spec.source}: examples of shape {spec.shape}, but {found.source} is a model of images (channels, "
            f"height, width) = ({', '.join(map(str, expected))}); give its data, or --size and --colour to make them so"
        )
    if any(size % 2**found.halvings for size in spec.shape[1:]):
        raise InputError(
            f"--data {spec.source}: images of {spec.shape[1]} x {spec.shape[2]} pixels, but {found.source} halves the "
            f"resolution {found.halvings} times; give --size with multiples of {2**found.halvings}"
        )
    if spec.levels is None:
        raise InputError(
            f"--data {spec.source} are floats, but {found.source} is a model of images scaled to [-1, 1]; "
            "give images or integers"
        )
    if found.rows is not None and spec.classes != found.rows - 1:
        raise InputError(
            f"--data {spec.source} has {spec.classes or 'no'} labels, but {found.source} has a table of {found.rows}; "
            f"expected data with {found.rows - 1} labels, so that the last row means no label and p(x) is known too"
        )


@torch.no_grad()
def _observe_errors(model: DiffusionModel, dataset: Dataset, seed: int) -> None:
    """Fill the model's table of errors with those of the first training examples."""
    preparation, shown = dataset.spec.preparation, dataset.train[:PROBED]
    for number, rows in enumerate(track(torch.arange(len(shown)).split(ROWS), "measuring the errors of denoising")):
        noise = Noise(generator(seed, Stream.EVALUATION, number))
        batch = shown[rows]
        x = preparation(batch.x[:], noise)
        loss = model.loss(Batch(x, rows, batch.labels), step=0, noise=noise)
        model.observe(loss.noted)
