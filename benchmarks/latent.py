"""Latent and pixel diffusion on the same pictures, after equal CPU seconds of training on one core.

    python benchmarks/latent.py --data ../shared/data/cifar10-jpeg --minutes 30 --out runs/latent-race
    python benchmarks/latent.py --data DATA --minutes 30 --out runs/latent-race --only-pace    # the cost, on one core
    python benchmarks/latent.py --data DATA --minutes 30 --out runs/latent-race --device cuda  # then the rest on a GPU

DATA need labels. Each model is trained by its default recipe, or by a TOML file (--pixel, --latent), for as many steps
as fit into the CPU seconds. pace.json has the CPU seconds of a step of each stage: the least of several turns, one
thread, both models in turns. Where the steps are computed does not matter: the weights after n steps have the same
distribution on every device. Then both draw the same number of samples. The Fréchet distance is in the features of one
classifier of the data, beside the floor, the distance of as many training examples; a latent model is measured twice,
by draws of x ~ p(x|z) and by the means E[x|z]. The last columns are the ELBO of the first test examples in bits/dim,
with its standard error, and the CPU or GPU seconds of a sample. Grids of samples go into --out.
"""

import argparse
import json
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
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.recipe.latent.settings import SHARE, LatentRecipe
from jensen.recipe.settings import AbstractRecipe
from jensen.training.loop import steps
from jensen.training.state import TrainingState

TURNS, STAGE = 3, 2  # turns of the measurement, and steps of a stage in it
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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only-pace", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    read = ReadOptions(size=tuple(options.size) if options.size else None, colour="rgb" if options.size else "as-is")
    options.out.mkdir(parents=True, exist_ok=True)
    recipes: dict[str, AbstractRecipe] = {}
    for name, kind, config in (("pixel", DiffusionRecipe, options.pixel), ("latent", LatentRecipe, options.latent)):
        recipe = kind.from_file(config) if config else kind()
        recipes[name] = recipe.model_copy(update={"data": options.data, "read": read})
    paces = pace(recipes, options.out / "pace.json")
    if options.only_pace:
        return
    rows: list[Row] = []
    classifier: Path | None = None
    for name, recipe in recipes.items():
        count = int(60 * options.minutes / paces[name])
        print(f"{name}: {1000 * paces[name]:.1f} CPU ms a step, so {count:,} steps", flush=True)
        run = jensen.train(with_steps(recipe, count, options.device), options.out / name)
        if classifier is None:
            jensen.features_train(run, ClassifierSettings(visits=options.visits))
            classifier = run.folder / "features"
        else:
            shutil.copytree(classifier, run.folder / "features")
        rows += measured(run, count * paces[name], options)
        show(rows)


def pace(recipes: dict[str, AbstractRecipe], path: Path) -> dict[str, float]:
    """The CPU seconds of a step of each recipe; those of a latent model are the mean over its two stages."""
    if path.exists():
        found: dict[str, float] = json.loads(path.read_text())
        return found
    dataset = load_dataset(next(iter(recipes.values())))
    least: dict[str, list[float]] = {name: [] for name in recipes}
    for _ in range(TURNS):
        for name, recipe in recipes.items():
            stages = {"vae_steps": STAGE} if recipe.family == "latent" else {}
            short = with_steps(recipe, 2 * STAGE, "cpu")
            short = short.model_copy(update={"model": short.model.model_copy(update=stages)})
            state = TrainingState.start(build_model(short, dataset.spec), short.training)
            seconds, loop = [], steps(state, dataset.train, dataset.spec.preparation, short.training, 0)
            for _ in range(2 * STAGE):
                began = time.process_time()
                next(loop)
                seconds.append(time.process_time() - began)
            least[name] = [min(pair) for pair in zip(seconds, least[name] or seconds, strict=True)]
        print(least, flush=True)
    share = {name: SHARE if recipe.family == "latent" else 0.5 for name, recipe in recipes.items()}
    found = {n: share[n] * min(s[:STAGE]) + (1 - share[n]) * min(s[STAGE:]) for n, s in least.items()}
    path.write_text(json.dumps(found, indent=1))
    return found


def with_steps(recipe: AbstractRecipe, count: int, device: str) -> AbstractRecipe:
    """The recipe for another number of steps, with validation at the end only."""
    rare = {"validate_every": count, "checkpoint_every": count, "sample_every": count, "first_look": 0}
    changes = {"steps": count, "patience": 0, "validation_examples": 20, "grid_samples": 1, "device": device, **rare}
    changes |= {"precision": "tf32", "deterministic": False} if device == "cuda" else {}
    training = type(recipe.training).model_validate(recipe.training.model_dump() | changes)
    return recipe.model_copy(update={"training": training})


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
        began, seen = time.perf_counter(), []
        for part in torch.arange(options.samples).split(250):
            labels = None if run.model.classes is None else reference.labels[part]
            x = draw(len(part), seed=0, first=int(part[0]), labels=labels)
            seen.append(features(classifier, run.spec.preparation.to_raw(x)))
        seconds = (time.perf_counter() - began) / options.samples
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
