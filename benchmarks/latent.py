"""Latent and pixel diffusion on the same pictures, after equal CPU seconds of training on one core.

    python benchmarks/latent.py --data ../shared/data/cifar10-jpeg --minutes 30 --out runs/latent-race
    python benchmarks/latent.py --data FOLDER --size 64 64 --minutes 30 --out runs/latent-race-64

Each model is trained by its default recipe, or by a TOML file (--pixel, --latent), for as many steps as fit into the
CPU seconds; the speed is that of a short run of the same recipe. Then both draw the same number of samples. The
Fréchet distance is in the features of one classifier of the data, beside the floor, the distance of as many training
examples; a latent model is measured twice, by draws of x ~ p(x|z) and by the means E[x|z]. The last columns are the
ELBO of the first test examples in bits/dim, each with its standard error. Grids of samples go into --out.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import jensen
from jensen.bound import Estimate
from jensen.data.grid import save_grid
from jensen.data.options import ReadOptions
from jensen.features.classifier import features
from jensen.features.distance import Reference
from jensen.features.frechet_distance import frechet
from jensen.features.settings import ClassifierSettings
from jensen.features.store import load_classifier
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.recipe.latent.settings import LatentRecipe
from jensen.recipe.settings import AbstractRecipe

PROBE = 60  # steps of the short run; its first 40 % are the first stage of a latent model, as in the long run
GRID = 100


@dataclass(frozen=True)
class Row:
    """What one way of sampling came to."""

    name: str
    steps: int
    training: float
    parameters: int
    distance: Estimate
    bits: Estimate
    seconds_per_sample: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--minutes", type=float, default=30, help="CPU minutes of training of each model")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--scored", type=int, default=200, help="test examples for the ELBO")
    parser.add_argument("--visits", type=int, default=400_000, help="examples that the classifier sees")
    parser.add_argument("--pixel", type=Path)
    parser.add_argument("--latent", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    read = ReadOptions(size=tuple(options.size) if options.size else None, colour="rgb" if options.size else "as-is")
    options.out.mkdir(parents=True)
    rows: list[Row] = []
    classifier: Path | None = None
    for name, kind, config in (("pixel", DiffusionRecipe, options.pixel), ("latent", LatentRecipe, options.latent)):
        recipe = (kind.from_file(config) if config else kind()).model_copy(update={"data": options.data, "read": read})
        run, seconds = trained(recipe, 60 * options.minutes, options.out / name)
        if classifier is None:
            jensen.features_train(run, ClassifierSettings(visits=options.visits))
            classifier = run.folder / "features"
        else:
            shutil.copytree(classifier, run.folder / "features")
        rows += measured(run, seconds, options)
        show(rows)


def with_steps(recipe: AbstractRecipe, steps: int) -> AbstractRecipe:
    """The recipe for another number of steps; validations only at the end, so that training is what takes the time."""
    rare = {"validate_every": steps, "checkpoint_every": steps, "sample_every": steps, "first_look": 0}
    changes = {"steps": steps, "patience": 0, "validation_examples": 20, "grid_samples": 1, **rare}
    training = type(recipe.training).model_validate(recipe.training.model_dump() | changes)
    return recipe.model_copy(update={"training": training})


def trained(recipe: AbstractRecipe, seconds: float, out: Path) -> tuple[jensen.Run, float]:
    """The run after about so many CPU seconds, and the CPU seconds that it took."""
    began = time.process_time()
    jensen.train(with_steps(recipe, PROBE), out.with_name(f"{out.name}-probe"))
    whole = time.process_time() - began
    began = time.process_time()
    jensen.train(with_steps(recipe, 2 * PROBE), out.with_name(f"{out.name}-probe-2"))
    per_step = (time.process_time() - began - whole) / PROBE  # without reading, validation and the first batches
    steps = max(PROBE, round(seconds / max(per_step, 1e-6)))
    print(f"{out.name}: {1000 * per_step:.1f} CPU ms a step, so {steps:,} steps", flush=True)
    began = time.process_time()
    run = jensen.train(with_steps(recipe, steps), out)
    return run, time.process_time() - began


def measured(run: jensen.Run, training: float, options: argparse.Namespace) -> list[Row]:
    """One row for draws and, for a latent model, one for means."""
    classifier, _ = load_classifier(run.folder, run.spec)
    reference = Reference.of(classifier, run.dataset, options.samples)
    print(f"floor: {reference.floor}")
    scores = jensen.score(run, {"x": run.dataset.test.x[: options.scored].numpy()}, draws=1).scores
    bits = Estimate.of(scores.bits_per_dimension)
    ways: dict[str, Callable[..., Tensor]] = {"": run.model.sample}
    if run.recipe.family == "latent":
        ways = {", draws": run.model.sample, ", means": run.model.sample_mean}
    rows = []
    for way, draw in ways.items():
        began, seen = time.process_time(), []
        for part in torch.arange(options.samples).split(250):
            labels = None if run.model.classes is None else reference.labels[part]
            x = draw(len(part), seed=0, first=int(part[0]), labels=labels)
            seen.append(features(classifier, run.spec.preparation.to_raw(x)))
        seconds = (time.process_time() - began) / options.samples
        save_grid(run.spec.preparation.to_picture(draw(GRID, seed=0)), options.out / f"{run.folder.name}{way}.png")
        count = sum(parameter.numel() for parameter in run.model.parameters())
        distance = frechet(torch.cat(seen), reference.test)
        rows.append(Row(f"{run.folder.name}{way}", run.step, training, count, distance, bits, seconds))
    return rows


def show(rows: list[Row]) -> None:
    """Print the table."""
    print(
        "| model | steps | CPU s | weights | Fréchet distance | bits/dim | CPU ms a sample |",
        "|---|---|---|---|---|---|---|",
        sep="\n",
    )
    for row in rows:
        print(
            f"| {row.name} | {row.steps:,} | {row.training:.0f} | {row.parameters:,} | {row.distance} | {row.bits} "
            f"| {1000 * row.seconds_per_sample:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
