"""Training images a second on a GPU: jensen's loop and diffusers' documented loop, in turns.

    python benchmarks/gpu.py speed --out RESULTS
    python benchmarks/gpu.py speed --out RESULTS --only "jensen, usual" --warm   # fill the cache of torch.compile

A turn is one to two seconds of steps of one contestant, after which the next one has its turn. Every contestant trains
as its user would: `jensen.training.loop.steps`, and `peers.DocumentedLoop`. "same": the same layers and widths on both
sides (`unet_throughput.peer_of`). "usual": jensen's default for CIFAR-10, and the networks of diffusers' training
script and of google/ddpm-cifar10-32. The pictures are noise, which costs the same as others; --data names a folder with
train.parquet for one contestant that reads pictures as diffusers' script does. speed.json is written after every turn;
the table has medians over the rounds, lowest and highest.
"""

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SHAPE = (3, 32, 32)
SAME = {"widths": (64, 128, 128), "blocks": 2, "attention": (1,)}
LOG_EVERY = 100  # steps between two readings of jensen's losses, the default of its recipes
EXAMPLES = 50_000
PROFILED = ("jensen, usual, bfloat16", "jensen, usual, float32", "jensen, same, bfloat16, compiled")


@dataclass
class Contestant:
    """A training loop, made by `make(context)`; `rates` are images per second, one per round."""

    name: str
    make: Callable[["Context"], Callable[[], None]]
    rates: list[float] = field(default_factory=list)
    step: Callable[[], None] | None = None
    set_up: float = 0.0
    peak: int = 0
    parameters: int = 0
    trouble: str = ""

    def record(self) -> dict[str, Any]:
        """For speed.json."""
        shown = {name: getattr(self, name) for name in ("name", "rates", "set_up", "peak", "parameters", "trouble")}
        return shown | {"median": statistics.median(self.rates) if self.rates else None}


@dataclass(frozen=True)
class Context:
    """What all contestants share: the pictures, the device and the batch size."""

    x: Tensor
    labels: Tensor
    data: Path | None
    device: str
    batch: int
    cache: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> dict[str, Any]:
        """The pictures for jensen."""
        return {"x": self.x.permute(0, 2, 3, 1).numpy(), "y": self.labels.numpy()}


def wait(device: str) -> None:
    """Wait until the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------------------------------------- contestants


def jensen(
    precision: str,
    compiled: str | None = None,
    *,
    optimiser: str = "muon",
    **model: Any,
) -> Callable[[Context], Callable[[], None]]:
    """jensen's loop with the default recipe, but for the given settings; `compiled` is a mode of torch.compile."""

    def make(context: Context) -> Callable[[], None]:
        from jensen.recipe.build import build_model, load_dataset
        from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
        from jensen.training.loop import steps
        from jensen.training.state import TrainingState

        training = DiffusionTraining(
            steps=10_000_000, batch_size=context.batch, precision=precision, device=context.device, optimiser=optimiser
        )
        recipe = DiffusionRecipe(data=context.source, training=training, model=DiffusionSettings(**model))
        dataset = context.cache.setdefault("dataset", None) or load_dataset(recipe)
        context.cache["dataset"] = dataset
        built = build_model(recipe, dataset.spec).to(context.device)
        state = TrainingState.start(built, training)
        make.parameters = sum(p.numel() for p in built.parameters())
        if compiled:
            built.denoiser.network.compile(mode=compiled)
        records = steps(state, dataset.train, dataset.spec.preparation, training, seed=0)
        unread: list[Tensor] = []

        def step() -> None:
            unread.append(next(records).loss)
            if len(unread) == LOG_EVERY:
                torch.stack(unread).tolist()
                unread.clear()

        return step

    return make


def diffusers(
    network: str, precision: str, pictures: bool = False, conditional: bool = False, **helped: Any
) -> Callable[[Context], Callable[[], None]]:
    """The documented loop; `pictures`: with the script's own loading of files, else with the data on the device."""

    def make(context: Context) -> Callable[[], None]:
        from peers import CIFAR10, SCRIPT, DocumentedLoop, Helped, Pictures, from_memory, from_pictures, unet

        settings = Helped(**helped)
        if network == "same":
            from unet_throughput import peer_of

            made = peer_of(SHAPE, SAME["widths"], SAME["blocks"], SAME["attention"])
        else:
            widths, attention = {"script": (SCRIPT, (4,)), "cifar10": (CIFAR10, (1,))}[network]
            made = unet(SHAPE, widths, attention, 10 if conditional else None)
        make.parameters = sum(p.numel() for p in made.parameters())
        if pictures:
            assert context.data is not None
            batches = from_pictures(Pictures(context.data / "train.parquet", SHAPE[1]), context.batch, context.device)
        else:
            batches = from_memory(context.x.to(context.device), None, context.batch, settings.flips)
        return DocumentedLoop(made, batches, 100_000, context.device, precision, settings).step

    return make


HELP = {"fused": True, "quiet": True, "channels_last": True}


def contestants(data: bool) -> list[Contestant]:
    """All contestants, the most important first."""
    same = {**SAME, "patch": 1, "octaves": 0}
    found = [
        Contestant("jensen, same, bfloat16, compiled", jensen("bfloat16", "default", **same)),
        Contestant("diffusers, same, bfloat16", diffusers("same", "bfloat16")),
        Contestant("jensen, same, bfloat16", jensen("bfloat16", **same)),
        Contestant("diffusers, same, bfloat16, helped, compiled", diffusers("same", "bfloat16", compiled=True, **HELP)),
        Contestant("jensen, usual, bfloat16", jensen("bfloat16")),
        Contestant("jensen, usual, bfloat16, compiled", jensen("bfloat16", "default")),
        Contestant("jensen, usual, bfloat16, CUDA graphs", jensen("bfloat16", "reduce-overhead")),
        Contestant("diffusers, cifar10, bfloat16", diffusers("cifar10", "bfloat16")),
        Contestant("diffusers, script, bfloat16", diffusers("script", "bfloat16")),
        Contestant("jensen, same, float32", jensen("float32", **same)),
        Contestant("diffusers, same, float32", diffusers("same", "float32")),
        Contestant("diffusers, same, bfloat16, helped", diffusers("same", "bfloat16", **HELP)),
        Contestant("jensen, usual, float32", jensen("float32")),
        Contestant("jensen, same, bfloat16, adamw", jensen("bfloat16", optimiser="adamw", **same)),
    ]
    if data:
        pictures = Contestant("diffusers, same, bfloat16, the script's loading", diffusers("same", "bfloat16", True))
        found.insert(2, pictures)
    return found


# ---------------------------------------------------------------------------------------------- the race


def turn(one: Contestant, context: Context, seconds: float) -> None:
    """About `seconds` of steps; appends to `rates`."""
    assert one.step is not None
    wait(context.device)
    began, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - began < seconds:
        for _ in range(5 if context.device == "cuda" else 1):
            one.step()
            count += 1
        wait(context.device)
    one.rates.append(count * context.batch / (time.perf_counter() - began))


def enter(one: Contestant, context: Context, warmup: int) -> None:
    """Make the loop, take the first steps, and note their memory."""
    began = time.perf_counter()
    before = 0
    if context.device == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    try:
        one.step = one.make(context)
        for _ in range(warmup):
            one.step()
        wait(context.device)
    except Exception:
        one.trouble, one.step = traceback.format_exc()[-3000:], None
        print(f"{one.name}:\n{one.trouble}", flush=True)
    one.parameters = getattr(one.make, "parameters", 0)
    one.set_up = time.perf_counter() - began
    if context.device == "cuda":
        one.peak = torch.cuda.max_memory_allocated() - before


def profile(one: Contestant, context: Context, steps: int = 10) -> str:
    """Where the time of a step goes: kernels and operators by their own time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    assert one.step is not None
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if context.device == "cuda" else [])]
    with recorded(activities=activities) as found:
        for _ in range(steps):
            one.step()
        wait(context.device)
    table = found.key_averages()
    kinds = ["self_cuda_time_total"] if context.device == "cuda" else []
    return "\n".join(table.table(sort_by=kind, row_limit=30) for kind in [*kinds, "self_cpu_time_total"])


def noise() -> tuple[Tensor, Tensor]:
    """Pictures of noise (N, 3, 32, 32), uint8, and labels, which cost as much as real ones."""
    source = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (EXAMPLES, *SHAPE), dtype=torch.uint8, generator=source)
    return x, torch.randint(0, 10, (EXAMPLES,), generator=source)


def announce(one: Contestant, context: Context, warmup: int) -> None:
    """`enter`, with a line."""
    enter(one, context, warmup)
    said = f"ready after {one.set_up:.1f} s, peak {one.peak / 2**20:.0f} MiB {one.trouble[-80:]}"
    print(f"{one.name}: {said}", flush=True)


def save(options: argparse.Namespace, entrants: list[Contestant]) -> None:
    """Write speed.json."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    record = {"torch": torch.__version__, "device": name, "batch": options.batch}
    record["contestants"] = [one.record() for one in entrants]
    (options.out / "speed.json").write_text(json.dumps(record, indent=1))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `gpu.py speed`."""
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=10, help="steps before the first turn")
    parser.add_argument("--limit", type=float, default=600, help="seconds for everything")
    parser.add_argument("--data", type=Path, help="a folder with train.parquet, for the script's own loading")
    parser.add_argument("--only", nargs="*", help="contestants whose name contains one of the words")
    parser.add_argument("--without", nargs="*", default=(), help="leave out contestants with one of the words")
    parser.add_argument("--after", type=Path, help="enter, then wait for this file, so that the machine is quiet")
    parser.add_argument("--warm", action="store_true", help="only fill torch.compile's cache")


def speed(options: argparse.Namespace) -> int:
    """Let all contestants enter, then go round until the limit."""
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    context = Context(*noise(), options.data, options.device, options.batch)
    entrants = [
        one
        for one in contestants(options.data is not None)
        if (not options.only or any(word in one.name for word in options.only))
        and not any(word in one.name for word in options.without)
    ]

    def left() -> float:
        return options.limit - (time.monotonic() - began)

    def race(rounds: int) -> None:
        racing = [one for one in entrants if one.step is not None]
        print(f"racing after {options.limit - left():.0f} s", flush=True)
        for round_ in range(rounds):
            for place in range(len(racing)):
                if left() > options.seconds + 3:
                    turn(racing[(place + round_) % len(racing)], context, options.seconds)
                    save(options, entrants)

    for one in entrants:
        if left() > 0.25 * options.limit:
            announce(one, context, options.warmup)
    if options.warm:
        return 0
    while options.after and not options.after.exists() and left() > 0.25 * options.limit:
        time.sleep(0.1)
    race(options.rounds)
    racing = [one for one in entrants if one.step is not None]
    print(f"\n{'contestant':52} {'images/s':>9} {'(lowest to highest)':>20} {'parameters':>12} {'MiB':>7}")
    for one in entrants:
        if one.rates:
            low, middle, high = min(one.rates), statistics.median(one.rates), max(one.rates)
            span, memory = f"({low:.0f} to {high:.0f})", one.peak / 2**20
            print(f"{one.name:52} {middle:9.0f} {span:>20} {one.parameters:12,} {memory:7.0f}")
        else:
            print(f"{one.name:52} {'none':>9}   {one.trouble.strip()[-100:]}")
    with (options.out / "profile.txt").open("w") as file:
        for one in racing:
            if one.name in PROFILED and left() > 8:
                file.write(f"{one.name}\n{profile(one, context)}\n\n")
    return 0
