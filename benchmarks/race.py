"""jensen and diffusers race: the quality of samples against the CPU seconds of training on one core.

    python benchmarks/race.py --data DATA --out RESULTS                                  # everything on one core
    python benchmarks/race.py --data DATA --out RESULTS --only-pace                      # the cost alone, on one core
    python benchmarks/race.py --data DATA --out RESULTS --device cuda --workers 14       # then the rest on a GPU

The cost of a training is the number of its steps times the CPU seconds of a step. RESULTS/pace.json has the CPU seconds
of a step of every contestant: the least of several turns, one thread, all contestants in turns, without reading data.
The quality is that of samples after this number of steps. Where the steps are computed does not matter: the weights
after n steps have the same distribution on every device.

DATA are images of bytes with labels. The contestants of one kind differ by their settings (`JENSEN`, `PEERS`):

- "jensen" trains anew for each of `--budgets` (CPU minutes), with a schedule that decays within the budget
- "diffusers, documented": `UNet2DModel` of google/ddpm-cifar10-32's widths, by the settings of its training script
- "diffusers, helped": smaller networks, larger batches and rates, a shorter average, and labels hidden in a tenth of
  the examples, so that classifier-free guidance works

diffusers trains once for `--peer-minutes`; its schedule decays within them, and `--marks` are looks on the way. A
classifier of the real images judges the samples: the share in which it sees the label that was asked for, and the
Fréchet distance in its features. Contestant, sampler, clipping and guidance are those with the least distance of `--n`
/ 2 samples, at the end of the training, to the validation images; the printed numbers are of `--n` other samples and
the test images. race.jsonl has a line for each training and mark, and every line a PNG of samples; race.png is the
picture.
"""

import argparse
import copy
import json
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar_search import Judge, load, load_judge, seen, train_judge
from peers import CIFAR10, DocumentedLoop, Helped, from_memory, unet
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.examples import Dataset
from jensen.data.grid import save_grid
from jensen.diffusion import DPMSolver2M
from jensen.diffusion.model import Generation
from jensen.features.frechet_distance import frechet
from jensen.recipe.build import build_model
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.training.loop import steps
from jensen.training.state import TrainingState

GUIDANCE = (0.0, 1.0, 2.0, 3.0)
AT_ONCE = 250  # samples
HIDDEN = 0.1  # share of labels that the helped peer does not see
TURNS = 4

Sampler = Callable[[Tensor, int], Tensor]
"""Bytes (n, C, H, W) for labels (n) and a seed."""


@dataclass(frozen=True)
class Peer:
    """A network of diffusers and the settings of its training."""

    widths: tuple[int, ...]
    attention: tuple[int, ...]
    batch: int
    helped: Helped

    @property
    def hides(self) -> bool:
        """Whether labels are hidden in a tenth of the examples; the documented loop does not do it."""
        return self.helped != Helped()


def _helped(widths: tuple[int, ...], batch: int, rate: float, flips: bool = True) -> Peer:
    helped = Helped(rate, 100, 0.999, fused=True, quiet=True, channels_last=True, flips=flips)
    return Peer(widths, (len(widths) - 1,), batch, helped)


def _jensen(patch: int, widths: tuple[int, ...], batch: int, **model: Any) -> dict[str, Any]:
    return {"model": {"patch": patch, "widths": widths, **model}, "training": {"batch_size": batch}}


JENSEN = {
    "2: 64-64, 32, EDM": _jensen(2, (64, 64), 32, skip=0.5, octaves=8),
    "2: 64-64, 32": _jensen(2, (64, 64), 32, skip=0.1, octaves=0),
    "2: 64-64, 32, waves": _jensen(2, (64, 64), 32, skip=0.1, octaves=8),
    "2: 64-64, 16": _jensen(2, (64, 64), 16, skip=0.1, octaves=0),
    "2: 64-64, 32, mean -0.6": _jensen(2, (64, 64), 32, skip=0.1, octaves=0, noise_mean=-0.6),
    "2: 64-128, 32": _jensen(2, (64, 128), 32, skip=0.1, octaves=0),
    "2: 48-96, 16": _jensen(2, (48, 96), 16, skip=0.1, octaves=0),
    "2: 32-64-128, 32": _jensen(2, (32, 64, 128), 32, skip=0.1, octaves=0),
    "4: 64-64, 32": _jensen(4, (64, 64), 32, skip=0.1, octaves=0),
    "4: 128-128, 32": _jensen(4, (128, 128), 32, skip=0.1, octaves=0),
}
PEERS = {
    "documented": Peer(CIFAR10, (1,), 16, Helped()),
    "helped 64-128-256, 64": _helped((64, 128, 256), 64, 4e-4),
    "helped 64-128-256, 64, 1e-3": _helped((64, 128, 256), 64, 1e-3),
    "helped 32-64-128, 64, 1e-3": _helped((32, 64, 128), 64, 1e-3),
}


def kind_of(name: str) -> str:
    """The kind that is one curve of the picture."""
    return "jensen" if name in JENSEN else f"diffusers, {name.split()[0]}"


def batch_of(name: str) -> int:
    """The number of examples of a step."""
    return PEERS[name].batch if name in PEERS else int(JENSEN[name]["training"]["batch_size"])


# ---------------------------------------------------------------------------------------------- contestants


@dataclass
class Contestant:
    """A training: `step` trains on one batch, `ways` gives samplers with the averaged weights."""

    step: Callable[[], Any]
    ways: Callable[[], dict[str, Sampler]]


def start(name: str, dataset: Dataset, total: int, device: str) -> Contestant:
    """The contestant with a schedule of `total` steps."""
    return (_start_peer if name in PEERS else _start_jensen)(name, dataset, total, device)


def _start_jensen(name: str, dataset: Dataset, total: int, device: str) -> Contestant:
    chosen = JENSEN[name]
    training = {"steps": total, "device": device, "warmup_steps": max(1, min(100, total // 10)), **chosen["training"]}
    recipe = DiffusionRecipe.model_validate({"model": chosen["model"], "training": training})
    if device == "cuda":
        fast = recipe.training.model_copy(update={"deterministic": False, "precision": "tf32"})
        recipe = recipe.model_copy(update={"training": fast})
    torch.manual_seed(0)
    state = TrainingState.start(build_model(recipe, dataset.spec).to(device), recipe.training)
    loop = steps(state, dataset.train, dataset.spec.preparation, recipe.training, 0)

    def ways() -> dict[str, Sampler]:
        assert state.ema
        state.ema.applied().__enter__()  # jensen is judged at the end only
        model = state.model.eval()

        def way(eta: float, count: int, guidance: float) -> Sampler:
            def draw(labels: Tensor, seed: int) -> Tensor:
                model.generation = Generation(DPMSolver2M(eta), count, guidance=guidance)
                parts = []
                for rows in torch.arange(len(labels)).split(AT_ONCE):
                    x = model.sample(len(rows), seed=seed, first=int(rows[0]), labels=labels[rows]).cpu()
                    parts.append(torch.from_numpy(np.asarray(dataset.spec.preparation.to_raw(x))))
                return torch.cat(parts)

            return draw

        return {
            f"{name}, guidance {guidance:g}": way(eta, count, guidance)
            for name, eta, count in (("DPM-Solver++ 20", 0.0, 20), ("DPM-Solver++ SDE 50", 1.0, 50))
            for guidance in GUIDANCE
        }

    return Contestant(lambda: next(loop), ways)


def _start_peer(name: str, dataset: Dataset, total: int, device: str) -> Contestant:
    chosen, classes = PEERS[name], dataset.spec.classes
    torch.manual_seed(0)
    network = unet(dataset.spec.shape, chosen.widths, chosen.attention, classes + chosen.hides)
    x, labels = dataset.train.x.to(device), dataset.train.labels.to(device)
    batches = from_memory(x, labels, chosen.batch, chosen.helped.flips)
    if chosen.hides:
        batches = _hiding(batches, classes)
    loop = DocumentedLoop(network, batches, total, device, "float32", chosen.helped)
    return Contestant(loop.step, lambda: _peer_ways(loop, dataset, chosen.hides, device))


def _hiding(batches: Iterator[Any], nothing: int) -> Iterator[Any]:
    for clean, labels in batches:
        yield clean, torch.where(torch.rand(len(labels), device=labels.device) < HIDDEN, nothing, labels)


def _peer_ways(loop: DocumentedLoop, dataset: Dataset, guided: bool, device: str) -> dict[str, Sampler]:
    """DDIM with 50 steps, with and without clipping, and DPM-Solver++ with 20 steps of two schedules."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    config, nothing = loop.scheduler.config, dataset.spec.classes
    network = copy.deepcopy(loop.module).eval()
    loop.ema.copy_to(network.parameters())
    schedulers: dict[str, Callable[[], Any]] = {
        "DDIM 50": lambda: DDIMScheduler.from_config(config, clip_sample=True),
        "DDIM 50 not clipped": lambda: DDIMScheduler.from_config(config, clip_sample=False),
        "DPM-Solver++ 20": lambda: DPMSolverMultistepScheduler.from_config(config),
        "DPM-Solver++ 20 Karras": lambda: DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True),
    }

    def way(make: Callable[[], Any], count: int, guidance: float) -> Sampler:
        @torch.no_grad()
        def draw(labels: Tensor, seed: int) -> Tensor:
            source, parts = torch.Generator().manual_seed(seed), []
            for asked in labels.to(device).split(AT_ONCE):
                scheduler = make()
                scheduler.set_timesteps(count)
                x = torch.randn(len(asked), *dataset.spec.shape, generator=source).to(device)
                x = x * scheduler.init_noise_sigma
                for t in scheduler.timesteps:
                    given = scheduler.scale_model_input(x, t)
                    eps = network(given, t, class_labels=asked).sample
                    if guidance:
                        weak = network(given, t, class_labels=torch.full_like(asked, nothing)).sample
                        eps = eps + guidance * (eps - weak)
                    x = scheduler.step(eps, t, x).prev_sample
                parts.append(((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu())
            return torch.cat(parts)

        return draw

    return {
        f"{name}, guidance {guidance:g}": way(make, int(name.split()[1]), guidance)
        for name, make in schedulers.items()
        for guidance in (GUIDANCE if guided else (0.0,))
    }


# ---------------------------------------------------------------------------------------------- cost and quality


def pace(names: list[str], dataset: Dataset, path: Path) -> dict[str, float]:
    """The CPU seconds of a step of each contestant: the least of several turns."""
    found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    racing = {name: start(name, dataset, 1000, "cpu") for name in names if name not in found}
    for turn in range(TURNS + 1):
        for name, contestant in racing.items():
            began = time.process_time()
            contestant.step()
            if turn:  # the first step makes the optimiser's state
                found[name] = min(found.get(name, np.inf), time.process_time() - began)
        print(f"turn {turn}", flush=True)
    path.write_text(json.dumps(found, indent=1))
    return found


@dataclass(frozen=True)
class Bench:
    """The judge, and the features of the validation and the test images."""

    judge: Judge
    validation: Tensor
    test: Tensor
    device: str

    def best(self, ways: dict[str, Sampler], labels: Tensor) -> tuple[str, float]:
        """The sampler, then the guidance, with the least distance to the validation images."""
        found: dict[str, float] = {}

        def compare(names: list[str]) -> str:
            for name in names:
                if name not in found:
                    raw = ways[name](labels, 1).to(self.device)
                    found[name] = frechet(seen(self.judge, raw), self.validation).mean
            return min(names, key=lambda name: found[name])

        usual = f"guidance {GUIDANCE[1]:g}"
        sampler = compare([name for name in ways if name.endswith(usual)] or list(ways)).split(", guidance")[0]
        best = compare([name for name in ways if name.startswith(f"{sampler}, guidance")])
        return best, found[best]

    def point(self, way: Sampler, labels: Tensor, shot: Path) -> dict[str, Any]:
        """Both measures of samples, by the test images."""
        raw = way(labels, 0)
        save_grid(raw[:100].numpy(), shot, 10)
        features = seen(self.judge, raw.to(self.device))
        with torch.no_grad():
            agreement = Estimate.share(self.judge.head(features).argmax(1).cpu() == labels)
        distance = frechet(features, self.test)
        return {
            "agreement": [agreement.mean, agreement.standard_error],
            "distance": [distance.mean, distance.standard_error],
        }


def race(name: str, dataset: Dataset, bench: Bench, seconds: float, options: argparse.Namespace) -> None:
    """Train a contestant for its budgets and write a line for each."""
    if name in JENSEN:
        for minutes in options.budgets:
            compete(name, dataset, bench, seconds, [minutes], options)
    else:
        compete(name, dataset, bench, seconds, sorted({*options.marks, options.peer_minutes}), options)


def compete(
    name: str, dataset: Dataset, bench: Bench, seconds: float, marks: list[float], options: argparse.Namespace
) -> None:
    """One training, judged at every mark with the way that is best at the end."""
    counts = [max(2, round(60 * mark / seconds)) for mark in marks]
    contestant, kept, done = start(name, dataset, counts[-1], options.device), {}, 0
    for mark, count in zip(marks, counts, strict=True):
        for _ in range(count - done):
            contestant.step()
        kept[mark], done = contestant.ways(), count
    labels = torch.arange(options.n) % dataset.spec.classes
    way, validation = bench.best(kept[marks[-1]], labels[: options.n // 2])
    for mark, count in zip(marks, counts, strict=True):
        shot = options.out / "samples" / f"{name}-{mark:g}.png".replace(" ", "-").replace(":", "").replace(",", "")
        facts = {"kind": kind_of(name), "name": name, "minutes": mark, "steps": count, "batch": batch_of(name)}
        found = {"way": way, "validation": validation, **bench.point(kept[mark][way], labels, shot)}
        row = {**facts, **found}
        with (options.out / "race.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def worker(queue: Any, paces: dict[str, float], options: argparse.Namespace) -> None:
    """Take jobs until there are none."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    dataset = load(options.data)
    judge = load_judge(options.out, options.device, 600)
    real = (part.x.to(options.device) for part in (dataset.validation, dataset.test))
    bench = Bench(judge, *(seen(judge, x) for x in real), options.device)
    while (name := queue.get()) is not None:
        try:
            race(name, dataset, bench, paces[name], options)
        except Exception:
            print(f"{name} failed\n{traceback.format_exc()}", flush=True)


# ---------------------------------------------------------------------------------------------- the result


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The row of each kind and budget with the least distance to the validation images."""
    best: dict[tuple[str, float], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["validation"]):
        best.setdefault((row["kind"], row["minutes"]), row)
    return sorted(best.values(), key=lambda row: (row["kind"], row["minutes"]))


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Both measures against CPU minutes."""
    from matplotlib.figure import Figure

    figure = Figure((9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    words = {"distance": "Fréchet distance", "agreement": "share of labels seen"}
    for panel, (measure, word) in zip(panels, words.items(), strict=True):
        for kind in dict.fromkeys(row["kind"] for row in rows):
            mine = sorted((row["minutes"], *row[measure]) for row in rows if row["kind"] == kind)
            minutes, means, errors = zip(*mine, strict=True)
            panel.errorbar(minutes, means, np.multiply(1.96, errors), marker="o", capsize=3, label=kind)
        panel.set(xscale="log", xlabel="CPU minutes of one core", ylabel=word)
        panel.grid(alpha=0.3)
    panels[0].set_yscale("log")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print("| | CPU minutes | steps x batch | settings | sampler | Fréchet distance | labels seen |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        distance, agreement = Estimate(*row["distance"], 1), Estimate(*(100 * v for v in row["agreement"]), 1)
        cells = row["kind"], f"{row['minutes']:g}", f"{row['steps']:,} x {row['batch']}", row["name"], row["way"]
        print(f"| {' | '.join(cells)} | {distance} | {agreement} % |")


def main() -> None:
    """Measure the cost, train, judge, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only-pace", action="store_true")
    parser.add_argument("--contestants", nargs="*", default=[*PEERS, *JENSEN])
    parser.add_argument("--budgets", type=float, nargs="*", default=[1, 2, 4, 6])
    parser.add_argument("--marks", type=float, nargs="*", default=[6, 20])
    parser.add_argument("--peer-minutes", type=float, default=60)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--passes", type=float, default=20, help="of the classifier over the training images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    (options.out / "samples").mkdir(parents=True, exist_ok=True)
    paces = pace(options.contestants, load(options.data), options.out / "pace.json")
    if options.only_pace:
        return
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    for name in [*options.contestants, *[None] * options.workers]:
        queue.put(name)
    workers = [context.Process(target=worker, args=(queue, paces, options)) for _ in range(options.workers)]
    for process in workers:
        process.start()
    if not (options.out / "judge.safetensors").exists():
        train_judge(options.data, options.out, options.device, options.passes)
    for process in workers:
        process.join()
    rows = chosen([json.loads(line) for line in (options.out / "race.jsonl").read_text().splitlines()])
    picture(rows, options.out / "race.png")
    show(rows)


if __name__ == "__main__":
    main()
