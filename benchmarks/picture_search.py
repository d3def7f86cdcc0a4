"""Diffusion recipes for colour pictures of 64 px at the cost of five minutes of two CPU cores.

    python benchmarks/picture_search.py pace --data PACKAGE --out RESULTS                        # the cost, on one core
    python benchmarks/picture_search.py run --data PACKAGE --out RESULTS --device cuda --workers 14

PACKAGE is the unpacked npm package emoji-datasource-apple: 3,793 PNGs of 64 x 64 pixels and an index with a category
for each. RESULTS/pace.json has the CPU seconds of a step of every candidate: the least of several turns, one thread,
all candidates in turns. `run` trains each candidate for as many steps as 600 CPU seconds pay; the weights after n steps
have the same distribution on every device. A classifier of the categories, trained first, gives features; the Fréchet
distance is that of 1,000 samples on white to all pictures. rows.jsonl has a line per candidate and sampler, samples.png
a row of 16 samples for each, seed 0.
"""

import argparse
import json
import math
import multiprocessing
import os
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cifar_search import _Residual, _unit
from PIL import Image
from torch import Tensor, nn

BUDGET = 600.0  # CPU seconds
TURNS, SHOWN, HELD_OUT = 5, 16, 400
SAMPLERS = {"ODE": 0.0, "SDE": 1.0}


@dataclass(frozen=True)
class Candidate:
    """Settings of the model and of the training; waves are off unless they are given."""

    model: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)


def _unet(patch: int, *widths: int, batch: int = 32, rate: float = 4e-3, **model: Any) -> Candidate:
    settings = {"patch": patch, "widths": widths, "octaves": 0, "skip": 0.5, "noise_mean": -1.2}
    return Candidate(settings | model, {"batch_size": batch, "learning_rate": rate})


CANDIDATES = {
    "4: 64-64": _unet(4, 64, 64),
    "4: 64-64, mean -0.4": _unet(4, 64, 64, noise_mean=-0.4),
    "4: 64-64, skip 0.1, mean -0.4": _unet(4, 64, 64, skip=0.1, noise_mean=-0.4),
    "4: 64-64, skip 0.05, mean -0.4": _unet(4, 64, 64, skip=0.05, noise_mean=-0.4),
    "4: 64-64, skip 0.1, mean 0": _unet(4, 64, 64, skip=0.1, noise_mean=0.0),
    "4: 64-64, skip 0.1, mean -0.4, batch 16": _unet(4, 64, 64, batch=16, skip=0.1, noise_mean=-0.4),
    "4: 64-64, skip 0.1, mean -0.4, rate 8e-3": _unet(4, 64, 64, rate=8e-3, skip=0.1, noise_mean=-0.4),
    "4: 64-64, waves": _unet(4, 64, 64, octaves=8),
    "4: 48-48, skip 0.1, mean -0.4": _unet(4, 48, 48, skip=0.1, noise_mean=-0.4),
    "4: 64-64-64, skip 0.1, mean -0.4": _unet(4, 64, 64, 64, skip=0.1, noise_mean=-0.4),
    "4: 64-128": _unet(4, 64, 128),
    "4: 64-128, batch 16": _unet(4, 64, 128, batch=16),
    "4: 64-128, attention": _unet(4, 64, 128, attention=(1,)),
    "4: 64-128, skip 0.1": _unet(4, 64, 128, skip=0.1),
    "4: 64-128, skip 0.1, mean -0.4": _unet(4, 64, 128, skip=0.1, noise_mean=-0.4),
    "4: 64-128, skip 0.03, mean -0.4": _unet(4, 64, 128, skip=0.03, noise_mean=-0.4),
    "2: 32-64-128": _unet(2, 32, 64, 128),
    "2: 32-64-128, skip 0.1, mean -0.4": _unet(2, 32, 64, 128, skip=0.1, noise_mean=-0.4),
    "8: 128-128, skip 0.1, mean -0.4": _unet(8, 128, 128, skip=0.1, noise_mean=-0.4),
}


# ---------------------------------------------------------------------------------------------- data and judge


def pictures(package: Path) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (N, 4, 64, 64), and the number of each picture's category."""
    files = sorted((package / "img" / "apple" / "64").glob("*.png"))
    category = {}
    for entry in json.loads((package / "emoji.json").read_text()):
        for each in (entry, *entry.get("skin_variations", {}).values()):
            category[each["image"]] = entry["category"]
    named = [category.get(file.name, "none") for file in files]
    numbers = {name: number for number, name in enumerate(sorted(set(named)))}
    x = np.stack([np.asarray(Image.open(file).convert("RGBA")).transpose(2, 0, 1) for file in files])
    return x, np.array([numbers[name] for name in named])


def on_white(raw: Tensor) -> Tensor:
    """RGBA bytes as RGB bytes on white."""
    opacity = raw[:, 3:].float() / 255
    return (raw[:, :3].float() * opacity + 255 * (1 - opacity)).round().to(torch.uint8)


class Judge(nn.Module):
    """A residual classifier of images (batch, 3, 64, 64) in [-1, 1]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_unit(3, 32)]
        for before, width in pairwise((32, 64, 128, 256, 256)):
            layers += [_unit(before, width), nn.MaxPool2d(2), _Residual(width)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, raw: Tensor) -> Tensor:
        """The features (n, 256) of RGB bytes."""
        return torch.cat([self.body(rows.float() / 127.5 - 1) for rows in raw.split(250)])


def train_judge(x: Tensor, labels: Tensor, device: str, steps: int) -> Judge:
    """A judge of RGB bytes, trained with flips and shifts on all but 400 pictures; prints its accuracy on those."""
    torch.manual_seed(0)
    x, labels = x.to(device), labels.to(device)
    held_out, train = torch.randperm(len(x)).to(device).tensor_split([min(HELD_OUT, len(x) // 4)])
    judge = Judge(int(labels.max()) + 1).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(judge.parameters(), 0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.2, total_steps=steps, pct_start=0.25)
    for _ in range(steps):
        rows = train[torch.randint(len(train), (256,), device=device)]
        images = F.pad(x[rows].float() / 127.5 - 1, (6, 6, 6, 6), value=1.0)
        top, left = (int(v) for v in torch.randint(0, 13, (2,)))
        images = images[:, :, top : top + 64, left : left + 64]
        images = torch.where(torch.rand(len(rows), 1, 1, 1, device=device) < 0.5, images.flip(3), images)
        with torch.autocast(device, torch.bfloat16):
            loss = F.cross_entropy(judge(images).float(), labels[rows], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    judge.eval()
    right = judge.head(judge.features(x[held_out])).argmax(1) == labels[held_out]
    print(f"the classifier sees the category of {right.float().mean():.1%} of {len(held_out)} pictures", flush=True)
    return judge


# ---------------------------------------------------------------------------------------------- candidates


def start(candidate: Candidate, x: np.ndarray, count: int, device: str) -> tuple[Any, Any, Any]:
    """The state of a training of `count` steps, its steps, and the data."""
    from jensen.recipe.build import build_model, load_dataset
    from jensen.recipe.diffusion.settings import DiffusionRecipe
    from jensen.training.loop import steps
    from jensen.training.state import TrainingState

    training = {"steps": count, "device": device, "patience": 0, "warmup_steps": max(1, min(100, count // 10))}
    if device == "cuda":
        training |= {"precision": "tf32", "deterministic": False}
    recipe = DiffusionRecipe.model_validate(
        {"data": {"x": x}, "model": candidate.model, "training": training | candidate.training}
    )
    dataset = load_dataset(recipe)
    state = TrainingState.start(build_model(recipe, dataset.spec).to(device), recipe.training)
    return state, steps(state, dataset.train, dataset.spec.preparation, recipe.training, 0), dataset


def pace(names: list[str], x: np.ndarray, path: Path) -> None:
    """Write the CPU seconds of a step of each candidate: the least of several turns."""
    racing = {name: start(CANDIDATES[name], x[:320], 1000, "cpu")[1] for name in names}
    found: dict[str, float] = {}
    for turn in range(TURNS):
        for name, steps in racing.items():
            began = time.process_time()
            next(steps)
            if turn:  # the first step makes the optimiser's state
                found[name] = min(found.get(name, math.inf), time.process_time() - began)
    path.write_text(json.dumps(found, indent=1))
    for name, seconds in found.items():
        print(f"{name:45} {1000 * seconds:6.0f} CPU ms a step, {BUDGET / seconds:6.0f} steps", flush=True)


def run(name: str, seconds: float, x: np.ndarray, judge: Judge, options: argparse.Namespace) -> None:
    """Train a candidate, and write the distance of its samples by both samplers."""
    from jensen.diffusion import DPMSolver2M
    from jensen.diffusion.model import Generation
    from jensen.features.frechet_distance import frechet

    total = max(2, int(options.share * BUDGET / seconds))
    state, steps, dataset = start(CANDIDATES[name], x, total, options.device)
    for _ in steps:
        pass
    state.ema.applied().__enter__()
    model, spec = state.model.eval(), dataset.spec
    reference = judge.features(on_white(torch.from_numpy(x)).to(options.device))
    for way, eta in SAMPLERS.items():
        model.generation = Generation(DPMSolver2M(eta), options.sampling_steps)
        parts = []
        for rows in torch.arange(options.n).split(250):
            drawn = model.sample(len(rows), seed=0, first=int(rows[0])).cpu()
            parts.append(on_white(torch.from_numpy(np.asarray(spec.preparation.to_raw(drawn)))))
        raw = torch.cat(parts)
        distance = frechet(judge.features(raw.to(options.device)), reference)
        np.save(options.out / "samples" / f"{name}, {way}.npy", raw[:SHOWN].numpy())
        batch = CANDIDATES[name].training["batch_size"]
        row = {"name": name, "sampler": way, "steps": total, "images": total * batch, "seconds": seconds}
        row |= {"distance": distance.mean, "error": distance.standard_error}
        with (options.out / "rows.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def worker(queue: Any, judge: Judge, x: np.ndarray, options: argparse.Namespace) -> None:
    """Take candidates until there are none."""
    torch.set_num_threads(1)
    judge = judge.to(options.device)
    paces = json.loads((options.out / "pace.json").read_text())
    while (name := queue.get()) is not None:
        run(name, paces[name], x, judge, options)


def samples(names: list[str], out: Path) -> None:
    """A row of samples for each candidate and sampler in samples.png; samples.txt names the rows."""
    files = [out / "samples" / f"{name}, {way}.npy" for name in names for way in SAMPLERS]
    files = [file for file in files if file.exists()]
    rows = [np.concatenate([np.pad(one, ((0, 0), (1, 1), (1, 1))) for one in np.load(file)], 2) for file in files]
    if rows:
        Image.fromarray(np.concatenate(rows, 1).transpose(1, 2, 0)).save(out / "samples.png")
        (out / "samples.txt").write_text("\n".join(file.stem for file in files))


def main() -> None:
    """Parse the command and run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pace", "run"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES))
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--sampling-steps", type=int, default=50)
    parser.add_argument("--judge-steps", type=int, default=1200)
    parser.add_argument("--share", type=float, default=1.0, help="share of the budget, for a quick trial")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    (options.out / "samples").mkdir(parents=True, exist_ok=True)
    x, labels = pictures(options.data)
    if options.what == "pace":
        pace(options.only, x, options.out / "pace.json")
        return
    judge = train_judge(on_white(torch.from_numpy(x)), torch.from_numpy(labels), options.device, options.judge_steps)
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    for name in [*options.only, *[None] * options.workers]:
        queue.put(name)
    jobs = [context.Process(target=worker, args=(queue, judge.cpu(), x, options)) for _ in range(options.workers)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    samples(options.only, options.out)


if __name__ == "__main__":
    main()
