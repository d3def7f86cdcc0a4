"""Recipes for CIFAR-10 at the cost of one hour of two CPU cores, tried side by side on a GPU.

    python benchmarks/cifar_search.py all --data DATA --out RESULTS [--device cuda] [--seconds 300]

DATA is a folder with train.parquet and test.parquet. Every candidate trains on as many images as its network sees in
7,200 CPU seconds (`CANDIDATES` has the milliseconds per image, measured on one core), or on fewer if `--seconds` are
over; the learning rate falls to zero within this number. A classifier of the real images, trained at the same time,
judges samples: the share in which it sees the label that was asked for, and the Fréchet distance in its features to the
VALIDATION images. The best candidate then draws 10,000 samples. Results: one JSON line per candidate and guidance,
judge.json, best.json, and a grid of samples per candidate.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BUDGET = 7200.0  # CPU seconds
GUIDANCE = (0.0, 0.5, 1.0, 2.0, 3.0)
SAMPLING_STEPS = 20
REST = float(os.environ.get("REST", "60"))  # seconds for the samples of a candidate


@dataclass(frozen=True)
class Candidate:
    """A recipe; `milliseconds` are the CPU time per training image."""

    milliseconds: float
    batch: int
    model: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """The number of steps that the budget pays."""
        return int(BUDGET / (self.milliseconds / 1000) / self.batch)


NARROW, USUAL, DEEP = ({"widths": w, "patch": 2} for w in ((64, 64), (64, 128), (64, 128, 256)))
FLIP = {"augment": {"flip": "horizontal"}}
CANDIDATES = {
    "64-64": Candidate(9.8, 128, NARROW),
    "64-128": Candidate(15.2, 128, USUAL),
    "64-128, rate 8e-3": Candidate(15.2, 128, USUAL, {"learning_rate": 8e-3}),
    "64-128, flips": Candidate(15.2, 128, USUAL, FLIP),
    "64-128-256": Candidate(28.7, 128, DEEP),
    "64-128-256, batch 64": Candidate(28.7, 64, DEEP),
    "64-128-256, batch 64, flips": Candidate(28.7, 64, DEEP, FLIP),
    "64-128, two blocks, batch 64": Candidate(22.8, 64, USUAL | {"blocks": 2}),
    "128-128, attention, batch 64": Candidate(31.3, 64, {"widths": (128, 128), "patch": 2, "attention": (1,)}),
    "96-192, batch 64": Candidate(31.9, 64, {"widths": (96, 192), "patch": 2}),
    "32-64-128, patch 1, batch 64": Candidate(24.8, 64, {"widths": (32, 64, 128), "patch": 1}),
    "transformer, batch 64": Candidate(24.7, 64, {"network": "transformer", "width": 192, "depth": 8, "patch": 4}),
}


# ---------------------------------------------------------------------------------------------- the judge


class Judge(nn.Module):
    """A residual classifier of images (batch, 3, 32, 32) in [-1, 1]."""

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = [_unit(3, widths[0])]
        for before, width in pairwise(widths):
            layers += [_unit(before, width), nn.MaxPool2d(2), _Residual(width)]
        self.body = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(_unit(width, width), _unit(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inside(x)


def _unit(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.GELU())


def scaled(raw: Tensor) -> Tensor:
    """Bytes to [-1, 1]."""
    return raw.float() / 127.5 - 1


def train_judge(folder: Path, out: Path, device: str, passes: int) -> None:
    """Train a judge on the training split, with flips and shifts, and write its weights and its test accuracy."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    data = load(folder)
    x, y = data.train.x.to(device), data.train.labels.to(device)
    judge = Judge().to(device, memory_format=torch.channels_last)
    steps, batch = passes * len(x) // 512, 512
    optimiser = torch.optim.SGD(judge.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.4, total_steps=steps, pct_start=0.25)
    for _ in range(steps):
        rows = torch.randint(len(x), (batch,), device=device)
        images = F.pad(scaled(x[rows]), (4, 4, 4, 4), mode="reflect")
        top, left = (int(v) for v in torch.randint(0, 9, (2,)))
        images = images[:, :, top : top + 32, left : left + 32]
        images = torch.where(torch.rand(batch, 1, 1, 1, device=device) < 0.5, images.flip(3), images)
        with torch.autocast(device, torch.bfloat16):
            loss = F.cross_entropy(judge(images).float(), y[rows], label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    judge.eval()
    right = answers(judge, data.test.x.to(device)) == data.test.labels.to(device)
    report = {"test accuracy": right.float().mean().item(), "examples": len(right), "passes": passes}
    (out / "judge.json").write_text(json.dumps(report))
    save_file({name: value.contiguous() for name, value in judge.state_dict().items()}, out / "partial.safetensors")
    os.replace(out / "partial.safetensors", out / "judge.safetensors")
    print(report, flush=True)


def load_judge(out: Path, device: str, wait: float) -> Judge:
    """The judge, when it is there."""
    from safetensors.torch import load_file

    until = time.monotonic() + wait
    while not (out / "judge.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.5)
    judge = Judge()
    judge.load_state_dict(load_file(out / "judge.safetensors"))
    return judge.eval().to(device)


@torch.no_grad()
def seen(judge: Judge, raw: Tensor) -> Tensor:
    """The features (n, width) of bytes (n, 3, 32, 32)."""
    return torch.cat([judge.body(scaled(rows)) for rows in raw.split(500)])


@torch.no_grad()
def answers(judge: Judge, raw: Tensor) -> Tensor:
    """The labels that the judge sees."""
    return judge.head(seen(judge, raw)).argmax(1)


# ---------------------------------------------------------------------------------------------- candidates


def load(folder: Path) -> Any:
    """The splits; the labels are in training as in the files."""
    from jensen.recipe.build import load_dataset
    from jensen.recipe.diffusion.settings import DiffusionRecipe

    return load_dataset(DiffusionRecipe(data=str(folder)))


def recipe_of(candidate: Candidate, folder: Path, device: str, steps: int) -> Any:
    """The candidate's recipe."""
    from jensen.recipe.diffusion.settings import DiffusionRecipe

    training = {"steps": steps, "batch_size": candidate.batch, "device": device, "patience": 0, "first_look": 0}
    return DiffusionRecipe.model_validate(
        {"data": str(folder), "model": candidate.model, "training": training | candidate.training}
    )


def trained(candidate: Candidate, folder: Path, device: str, seconds: float) -> tuple[Any, Any, dict[str, Any]]:
    """The model with its averaged weights, the data, and what the training was."""
    from jensen.recipe.build import build_model, load_dataset
    from jensen.training.loop import steps
    from jensen.training.state import TrainingState

    began = time.monotonic()
    dataset = load_dataset(recipe_of(candidate, folder, device, candidate.steps))

    def start(count: int) -> tuple[Any, Any]:
        recipe = recipe_of(candidate, folder, device, count)
        torch.manual_seed(0)
        state = TrainingState.start(build_model(recipe, dataset.spec).to(device), recipe.training)
        return state, steps(state, dataset.train, dataset.spec.preparation, recipe.training, 0)

    _, training = start(candidate.steps)  # how fast are we beside the others?
    for _ in range(10):
        next(training)
    at, count = time.monotonic(), 0
    while time.monotonic() - at < 6:
        next(training)
        count += 1
    pace = (time.monotonic() - at) / count
    affordable = int((began + seconds - REST - time.monotonic()) / pace)
    total = max(2, min(candidate.steps, affordable))
    state, training = start(total)
    at = time.monotonic()
    losses = [record.loss.detach() for record in training][-200:]
    facts = {
        "steps": total,
        "of steps": candidate.steps,
        "images": total * candidate.batch,
        "seconds": time.monotonic() - at,
        "loss": torch.stack(losses).mean().item(),
        "weights": sum(p.numel() for p in state.model.parameters()),
    }
    averaged = state.ema.applied()
    averaged.__enter__()  # until the process ends
    state.model.eval()
    return state.model, dataset, facts


def drawn(model: Any, dataset: Any, n: int, guidance: float, device: str) -> tuple[Tensor, Tensor]:
    """Samples as bytes, and the labels that were asked for, in turn."""
    from dataclasses import replace

    model.generation = replace(model.generation, steps=SAMPLING_STEPS, guidance=guidance)
    labels = torch.arange(n) % 10
    parts = []
    for rows in torch.arange(n).split(1000):
        x = model.sample(len(rows), seed=0, first=int(rows[0]), labels=labels[rows]).cpu()
        parts.append(torch.from_numpy(np.asarray(dataset.spec.preparation.to_raw(x))))
    return torch.cat(parts).to(device), labels.to(device)


def judged(judge: Judge, raw: Tensor, labels: Tensor, reference: Tensor) -> dict[str, float]:
    """Label agreement and Fréchet distance of samples, with standard errors."""
    from jensen.bound import Estimate
    from jensen.features.frechet_distance import frechet

    found = seen(judge, raw)
    with torch.no_grad():
        agreement = Estimate.share(judge.head(found).argmax(1) == labels)
    distance = frechet(found.double().cpu(), reference.double().cpu())
    return {
        "agreement": agreement.mean,
        "agreement error": agreement.standard_error,
        "distance": distance.mean,
        "distance error": distance.standard_error,
    }


def worker(name: str, folder: Path, out: Path, device: str, seconds: float, n: int) -> None:
    """Train one candidate, judge its samples, and write a JSON line per guidance and a grid of the best."""
    from safetensors.torch import save_file

    from jensen.data.grid import save_grid

    torch.set_num_threads(1)
    model, dataset, facts = trained(CANDIDATES[name], folder, device, seconds)
    file = name.replace(", ", "_").replace(" ", "-")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / f"weights-{file}.safetensors")
    judge = load_judge(out, device, 60)
    reference = seen(judge, dataset.validation.x[:5000].to(device))
    best: tuple[float, Tensor] | None = None
    for guidance in GUIDANCE:
        raw, labels = drawn(model, dataset, n, guidance, device)
        row = {"name": name, "guidance": guidance, **judged(judge, raw, labels, reference), **facts}
        with (out / "rows.jsonl").open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        if best is None or row["distance"] < best[0]:
            best = row["distance"], raw[:100].cpu()
            save_grid(best[1].numpy(), out / f"grid-{file}.png", 10)


def finish(folder: Path, out: Path, device: str, n: int) -> None:
    """The best candidate's n samples, judged against the test images once; and the floor."""
    from safetensors.torch import load_file

    from jensen.data.grid import save_grid
    from jensen.recipe.build import build_model, load_dataset

    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    good = [row for row in rows if row["agreement"] >= 0.6] or rows
    chosen = min(good, key=lambda row: row["distance"])
    candidate = CANDIDATES[chosen["name"]]
    recipe = recipe_of(candidate, folder, device, chosen["steps"])
    dataset = load_dataset(recipe)
    model = build_model(recipe, dataset.spec)
    file = chosen["name"].replace(", ", "_").replace(" ", "-")
    model.load_state_dict(load_file(out / f"weights-{file}.safetensors"))
    model = model.to(device).eval()
    judge = load_judge(out, device, 5)
    raw, labels = drawn(model, dataset, n, chosen["guidance"], device)
    of_test = seen(judge, dataset.test.x.to(device))
    result = judged(judge, raw, labels, of_test)
    real = dataset.train.x[:n].to(device)
    floor = judged(judge, real, dataset.train.labels[:n].to(device), of_test)
    report = {"chosen": chosen, "n": n, "samples": result, "training images": floor}
    (out / "best.json").write_text(json.dumps(report, indent=1))
    save_grid(raw[:100].cpu().numpy(), out / "best.png", 10)
    print(json.dumps(report), flush=True)


def run_all(folder: Path, out: Path, options: argparse.Namespace) -> None:
    """The judge and all candidates side by side, then the best."""
    here, device = [sys.executable, "-W", "ignore", __file__], ["--device", options.device]
    common = ["--data", str(folder), "--out", str(out), *device]
    names = options.only or list(CANDIDATES)
    with (out / "log.txt").open("w") as log:
        jobs = [subprocess.Popen([*here, "judge", *common, "--passes", str(options.passes)], stdout=log, stderr=log)]
        for name in names:
            rest = ["--only", name, "--seconds", str(options.seconds), "--n", str(options.n)]
            jobs.append(subprocess.Popen([*here, "worker", *common, *rest], stdout=log, stderr=log))
        until = time.monotonic() + options.seconds + 30
        for job in jobs:
            try:
                job.wait(max(1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.kill()
    finish(folder, out, options.device, options.last)


def main() -> None:
    """Parse the command and run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("all", "judge", "worker", "finish"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--last", type=int, default=10_000)
    parser.add_argument("--only", action="append")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "all":
        run_all(options.data, options.out, options)
    elif options.what == "judge":
        train_judge(options.data, options.out, options.device, options.passes)
    elif options.what == "worker":
        worker(options.only[0], options.data, options.out, options.device, options.seconds, options.n)
    else:
        finish(options.data, options.out, options.device, options.last)


if __name__ == "__main__":
    main()
