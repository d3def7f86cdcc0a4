"""jensen and diffusers race on one core: quality of samples against CPU seconds of training.

    python benchmarks/race.py --data DATA --out RESULTS --budgets 1 2 6 --peer-minutes 60

DATA are images of bytes with labels. Every training has one core; its clock is the CPU time of its process, without
reading data and without judging. jensen trains anew for each of `--budgets` (CPU minutes), with a schedule that decays
within it. diffusers trains once for `--peer-minutes` and is judged on the way, at every budget and at the end:

- "documented": `UNet2DModel` of google/ddpm-cifar10-32's widths, and its training script's settings (`peers.py`)
- "helped": narrower (64, 128, 256), batch 64, learning rate 4e-4, EMA up to 0.999, a fused AdamW, labels hidden in a
  tenth of the examples, so that classifier-free guidance works; its schedule decays within `--peer-minutes`

A classifier of the real images (`jensen.features`) judges `--n` samples: the share in which it sees the label that was
asked for, and the Fréchet distance in its features. Guidance, and diffusers' sampler, are the best of several by the
distance to the validation images; the printed numbers are about other samples and the test images. race.jsonl has a
line per point, so a race that was interrupted goes on; race.png is the picture; samples of every point are PNGs.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import CIFAR10, DocumentedLoop, Helped, from_memory, unet
from torch import Tensor, nn

from jensen.bound import Estimate
from jensen.data.examples import Dataset
from jensen.data.grid import save_grid
from jensen.features.classifier import Classifier, features, recognised
from jensen.features.fit import accuracy, train_classifier
from jensen.features.frechet_distance import frechet
from jensen.features.settings import ClassifierSettings
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.training.loop import steps
from jensen.training.state import TrainingState

GUIDANCE = (0.0, 1.0, 2.0)
AT_ONCE = 250  # samples
HIDDEN = 0.1  # share of labels that the helped peer does not see

Sampler = Callable[[Tensor, int], Tensor]
"""Bytes (n, C, H, W) for labels (n) and a seed."""


@dataclass(frozen=True)
class Judge:
    """The classifier, and the features of the validation and the test images."""

    classifier: Classifier
    validation: Tensor
    test: Tensor

    @classmethod
    def of(cls, dataset: Dataset, visits: int) -> "Judge":
        """Train the classifier on the training images and print its accuracy."""
        classifier = train_classifier(dataset, ClassifierSettings(visits=visits))
        print("classifier:", accuracy(classifier, dataset.test, dataset.spec.preparation), flush=True)
        return cls(classifier, *(features(classifier, part.x) for part in (dataset.validation, dataset.test)))

    def distance(self, raw: Tensor, real: Tensor) -> Estimate:
        """The Fréchet distance of bytes to real images, by their features."""
        return frechet(features(self.classifier, raw), real)

    def point(self, ways: dict[str, Sampler], labels: Tensor, picture: Path) -> dict[str, Any]:
        """The best of the ways by validation images, judged by the test images with samples of another seed."""
        few = labels[: max(2, len(labels) // 4)]
        found = {name: self.distance(way(few, 1), self.validation).mean for name, way in ways.items()}
        best = min(found, key=lambda name: found[name])
        raw = ways[best](labels, 0)
        save_grid(raw[:100].numpy(), picture, 10)
        seen = recognised(self.classifier, features(self.classifier, raw))
        agreement, distance = Estimate.share(seen == labels), self.distance(raw, self.test)
        return {
            "way": best,
            "agreement": [agreement.mean, agreement.standard_error],
            "distance": [distance.mean, distance.standard_error],
        }


# ---------------------------------------------------------------------------------------------- jensen


def jensen(dataset: Dataset, recipe: DiffusionRecipe, seconds: float) -> tuple[dict[str, Sampler], dict[str, Any]]:
    """Train for CPU seconds: a few steps on a scratch state say how many steps fit."""

    def start(count: int) -> tuple[TrainingState, Iterator[Any]]:
        training = recipe.training.model_copy(update={"steps": count, "threads": 1})
        torch.manual_seed(0)
        state = TrainingState.start(build_model(recipe, dataset.spec), training)
        return state, steps(state, dataset.train, dataset.spec.preparation, training, 0)

    began = time.process_time()
    _, scratch = start(1000)
    next(scratch)
    first, count = time.process_time(), 0
    while count < 3 or time.process_time() - first < 0.03 * seconds:
        next(scratch)
        count += 1
    pace = (time.process_time() - first) / count
    total = max(1, int((began + seconds - time.process_time()) / pace))
    state, training = start(total)
    for _ in training:
        pass
    facts = {"seconds": time.process_time() - began, "steps": total, "batch": recipe.training.batch_size}
    if state.ema:
        state.ema.applied().__enter__()  # until the next training
    model = state.model.eval()

    def way(guidance: float) -> Sampler:
        def draw(labels: Tensor, seed: int) -> Tensor:
            model.generation = replace(model.generation, steps=20, guidance=guidance)
            parts = []
            for rows in torch.arange(len(labels)).split(AT_ONCE):
                x = model.sample(len(rows), seed=seed, first=int(rows[0]), labels=labels[rows])
                parts.append(torch.from_numpy(np.asarray(dataset.spec.preparation.to_raw(x))))
            return torch.cat(parts)

        return draw

    return {f"guidance {guidance:g}": way(guidance) for guidance in GUIDANCE}, facts


# ---------------------------------------------------------------------------------------------- diffusers


def peer(dataset: Dataset, name: str, total_steps: int) -> tuple[DocumentedLoop, bool]:
    """The peer's loop, and whether its network knows "no label"."""
    shape, classes = dataset.spec.shape, dataset.spec.classes
    torch.manual_seed(0)
    if name == "documented":
        network, helped, batch = unet(shape, CIFAR10, (1,), classes), Helped(), 16
    else:
        network = unet(shape, (64, 128, 256), (2,), classes + 1)
        helped = Helped(4e-4, warmup_steps=100, ema_max_decay=0.999, fused=True, quiet=True, channels_last=True)
        batch = 64
    batches = from_memory(dataset.train.x, dataset.train.labels, batch, helped.flips)
    if name == "helped":
        batches = _hiding(batches, classes)
    return DocumentedLoop(network, batches, total_steps, "cpu", "float32", helped), name == "helped"


def _hiding(batches: Iterator[Any], nothing: int) -> Iterator[Any]:
    for clean, labels in batches:
        yield clean, torch.where(torch.rand(len(labels)) < HIDDEN, nothing, labels)


def peer_ways(loop: DocumentedLoop, network: nn.Module, dataset: Dataset, guided: bool) -> dict[str, Sampler]:
    """DDIM with clipping, and DPM-Solver++, with each guidance that the network knows."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    config, nothing = loop.scheduler.config, dataset.spec.classes
    schedulers = {
        "DDIM": lambda: DDIMScheduler.from_config(config, clip_sample=True),
        "DPM-Solver++": lambda: DPMSolverMultistepScheduler.from_config(config),
    }

    def way(make: Callable[[], Any], count: int, guidance: float) -> Sampler:
        @torch.no_grad()
        def draw(labels: Tensor, seed: int) -> Tensor:
            source, parts = torch.Generator().manual_seed(seed), []
            for asked in labels.split(AT_ONCE):
                scheduler = make()
                scheduler.set_timesteps(count)
                x = torch.randn(len(asked), *dataset.spec.shape, generator=source) * scheduler.init_noise_sigma
                for t in scheduler.timesteps:
                    given = scheduler.scale_model_input(x, t)
                    eps = network(given, t, class_labels=asked).sample
                    if guidance:
                        weak = network(given, t, class_labels=torch.full_like(asked, nothing)).sample
                        eps = eps + guidance * (eps - weak)
                    x = scheduler.step(eps, t, x).prev_sample
                parts.append(((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
            return torch.cat(parts)

        return draw

    return {
        f"{name}, guidance {guidance:g}": way(make, 50 if name == "DDIM" else 20, guidance)
        for name, make in schedulers.items()
        for guidance in (GUIDANCE if guided else (0.0,))
    }


def race_peer(
    name: str, dataset: Dataset, judge: Judge, options: argparse.Namespace, write: Callable[..., None]
) -> None:
    """Train the peer once and judge it at every budget and at the end."""
    scratch, _ = peer(dataset, name, 1000)
    scratch.step()
    began = time.process_time()
    for _ in range(3):
        scratch.step()
    total = int(60 * options.peer_minutes / ((time.process_time() - began) / 3))
    loop, guided = peer(dataset, name, total)
    marks = sorted({60 * minutes for minutes in (*options.budgets, options.peer_minutes)})
    spent, count = 0.0, 0
    for mark in marks:
        began = time.process_time()
        while spent + time.process_time() - began < mark:
            loop.step()
            count += 1
        spent += time.process_time() - began
        loop.ema.store(loop.module.parameters())
        loop.ema.copy_to(loop.module.parameters())
        ways = peer_ways(loop, loop.module.eval(), dataset, guided)
        write(f"diffusers, {name}", mark, ways, {"seconds": spent, "steps": count})
        loop.module.train()
        loop.ema.restore(loop.module.parameters())


# ---------------------------------------------------------------------------------------------- the race


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Both measures against CPU minutes."""
    from matplotlib.figure import Figure

    figure = Figure((9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, measure, word in zip(
        panels, ("distance", "agreement"), ("Fréchet distance", "labels seen"), strict=True
    ):
        for name in dict.fromkeys(row["name"] for row in rows):
            mine = sorted((row["seconds"] / 60, *row[measure]) for row in rows if row["name"] == name)
            minutes, means, errors = zip(*mine, strict=True)
            panel.errorbar(minutes, means, np.multiply(1.96, errors), marker="o", capsize=3, label=name)
        panel.set(xscale="log", xlabel="CPU minutes of one core", ylabel=word)
        panel.grid(alpha=0.3)
    panels[0].set_yscale("log")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Race, and print a line for every point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="jensen's recipe; default: its defaults")
    parser.add_argument("--budgets", type=float, nargs="*", default=[1, 2, 6])
    parser.add_argument("--peer-minutes", type=float, default=60)
    parser.add_argument("--peers", nargs="*", default=["documented", "helped"])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--visits", type=int, default=400_000, help="training images of the classifier")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = DiffusionRecipe.from_file(options.config) if options.config else DiffusionRecipe()
    recipe = recipe.model_copy(update={"data": options.data})
    training = recipe.training.model_copy(update={"minutes": None, "patience": 0, "first_look": 0})
    recipe = recipe.model_copy(update={"training": training})
    dataset = load_dataset(recipe)
    judge, record = Judge.of(dataset, options.visits), options.out / "race.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    done = {(row["name"], row["budget"]) for row in rows}
    labels = torch.arange(options.n) % dataset.spec.classes

    def write(name: str, budget: float, ways: dict[str, Sampler], facts: dict[str, Any]) -> None:
        shot = options.out / f"{name.replace(', ', '-')}-{budget:g}.png"
        row = {"name": name, "budget": budget, **facts, **judge.point(ways, labels, shot)}
        rows.append(row)
        with record.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        picture(rows, options.out / "race.png")

    for minutes in options.budgets:
        if ("jensen", 60 * minutes) not in done:
            write("jensen", 60 * minutes, *jensen(dataset, recipe, 60 * minutes))
    for name in options.peers:
        if (f"diffusers, {name}", 60 * options.peer_minutes) not in done:
            race_peer(name, dataset, judge, options, write)


if __name__ == "__main__":
    main()
