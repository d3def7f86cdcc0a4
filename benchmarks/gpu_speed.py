"""Training images a second on a GPU: jensen's loop and diffusers' documented loop, in turns.

    python benchmarks/gpu.py speed --out RESULTS
    python benchmarks/gpu.py speed --out RESULTS --only "jensen, usual" --warm   # fill the cache of torch.compile
    python benchmarks/gpu.py speed --out RESULTS --set compiled --limit 75       # the compiled ones, and their peers

A turn is one to two seconds of steps of one contestant, after which the next one has its turn. Every contestant trains
as its user would: `jensen.training.loop.steps`, and `peers.DocumentedLoop`. "same": the same layers and widths on both
sides (`unet_throughput.peer_of`). "usual": jensen's default for CIFAR-10, and the networks of diffusers' training
script and of google/ddpm-cifar10-32. The pictures are noise, which costs the same as others; --data names a folder with
train.parquet for one contestant that reads pictures as diffusers' script does. Compiled contestants have a process of
their own, so that they compile at the same time, and wait idle for their turns. speed.json is written after every turn;
the table has medians over the rounds, lowest and highest.
"""

import argparse
import json
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SHAPE = (3, 32, 32)
SAME = {"widths": (64, 128, 128), "blocks": 2, "attention": (1,)}
LOG_EVERY = 100  # steps between two readings of jensen's losses, the default of its recipes
EXAMPLES = 50_000
PROFILED = (
    "jensen, usual, bfloat16, compiled",
    "jensen, same, bfloat16, compiled",
    "jensen, usual, bfloat16",
    "jensen, usual, float32",
)
COMPILED = (  # at most three compiled ones, whose compilers share the cores
    "jensen, same, bfloat16, compiled",
    "jensen, usual, bfloat16, compiled",
    "diffusers, same, bfloat16, helped, compiled",
    "diffusers, same, bfloat16",
    "jensen, same, bfloat16",
    "jensen, same, bfloat16, not deterministic",
    "jensen, same, float32",
    "jensen, same, float32, not deterministic",
    "jensen, usual, bfloat16",
)


@dataclass
class Contestant:
    """A training loop, made by `make(context)`; `rates` are images per second, one per round.

    A contestant `apart` has a process of its own. If `make` or the first steps fail, `otherwise` is tried.
    """

    name: str
    make: Callable[["Context"], Callable[[], None]]
    rates: list[float] = field(default_factory=list)
    step: Callable[[], None] | None = None
    set_up: float = 0.0
    peak: int = 0
    parameters: int = 0
    trouble: str = ""
    apart: bool = False
    otherwise: Callable[["Context"], Callable[[], None]] | None = None
    process: BaseProcess | None = None
    pipe: Connection | None = None

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
    compiled: str = "none",
    *,
    optimiser: str = "muon",
    deterministic: bool = True,
    **model: Any,
) -> Callable[[Context], Callable[[], None]]:
    """jensen's loop with the default recipe, but for the given settings; `compiled` is the setting `compile`."""

    def make(context: Context) -> Callable[[], None]:
        from jensen.recipe.build import build_model, load_dataset
        from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
        from jensen.training.loop import steps
        from jensen.training.precision import arithmetic
        from jensen.training.state import TrainingState

        training = DiffusionTraining(
            steps=10_000_000,
            batch_size=context.batch,
            precision=precision,
            device=context.device,
            optimiser=optimiser,
            compile=compiled,
            deterministic=deterministic,
        )
        recipe = DiffusionRecipe(data=context.source, training=training, model=DiffusionSettings(**model))
        dataset = context.cache.setdefault("dataset", None) or load_dataset(recipe)
        context.cache["dataset"] = dataset
        built = build_model(recipe, dataset.spec).to(context.device)
        state = TrainingState.start(built, training)
        make.parameters = sum(p.numel() for p in built.parameters())
        records = steps(state, dataset.train, dataset.spec.preparation, training, seed=0)
        unread: list[Tensor] = []

        def step() -> None:
            with arithmetic(training):
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
        _compiled("jensen, same, bfloat16, compiled", **same),
        Contestant("diffusers, same, bfloat16", diffusers("same", "bfloat16")),
        Contestant("jensen, same, bfloat16", jensen("bfloat16", **same)),
        Contestant(
            "diffusers, same, bfloat16, helped, compiled",
            diffusers("same", "bfloat16", compiled=True, **HELP),
            apart=True,
        ),
        Contestant("jensen, usual, bfloat16", jensen("bfloat16")),
        _compiled("jensen, usual, bfloat16, compiled"),
        Contestant("diffusers, cifar10, bfloat16", diffusers("cifar10", "bfloat16")),
        Contestant("diffusers, script, bfloat16", diffusers("script", "bfloat16")),
        Contestant("jensen, same, float32", jensen("float32", **same)),
        Contestant("diffusers, same, float32", diffusers("same", "float32")),
        Contestant("diffusers, same, bfloat16, helped", diffusers("same", "bfloat16", **HELP)),
        Contestant("jensen, usual, float32", jensen("float32")),
        Contestant("jensen, same, bfloat16, adamw", jensen("bfloat16", optimiser="adamw", **same)),
        Contestant("jensen, same, bfloat16, not deterministic", jensen("bfloat16", deterministic=False, **same)),
        Contestant("jensen, same, float32, not deterministic", jensen("float32", deterministic=False, **same)),
    ]
    if data:
        pictures = Contestant("diffusers, same, bfloat16, the script's loading", diffusers("same", "bfloat16", True))
        found.insert(2, pictures)
    return found


def _compiled(name: str, **model: Any) -> Contestant:
    """jensen with CUDA graphs where there is CUDA, and with compiled kernels if the graphs fail."""
    how = "graphs" if torch.cuda.is_available() else "kernels"
    otherwise = jensen("bfloat16", "kernels", **model)
    return Contestant(name, jensen("bfloat16", how, **model), apart=True, otherwise=otherwise)


# ---------------------------------------------------------------------------------------------- the race


def start_apart(one: Contestant, options: argparse.Namespace) -> None:
    """Start a process in which the contestant enters."""
    spawned = multiprocessing.get_context("spawn")
    one.pipe, there = spawned.Pipe()
    one.process = spawned.Process(target=_apart, args=(one.name, options, there), daemon=True)
    one.process.start()


def _apart(name: str, options: argparse.Namespace, pipe: Connection) -> None:
    """The work of a contestant's own process: enter, then a turn whenever one is asked for."""
    context = Context(*noise(), options.data, options.device, options.batch)
    (one,) = (each for each in contestants(options.data is not None) if each.name == name)
    enter(one, context, options.warmup)
    if one.step is None and one.otherwise:
        trouble, one.make, one.trouble = one.trouble, one.otherwise, ""
        enter(one, context, options.warmup)
        one.trouble = f"compiled kernels only: {trouble}" if one.step else f"{trouble}\n{one.trouble}"
    pipe.send({**one.record(), "ready": one.step is not None})
    while one.step and (asked := pipe.recv()) != "end":
        if asked == "turn":
            turn(one, context, options.seconds)
        pipe.send(one.rates[-1] if asked == "turn" else profile(one, context))


def await_entry(one: Contestant, until: float) -> None:
    """Wait until the contestant's own process is ready; after `until` (`time.monotonic`) it is out."""
    assert one.pipe is not None
    assert one.process is not None
    try:
        if not one.pipe.poll(max(0.0, until - time.monotonic())):
            raise TimeoutError("not ready in time")
        found = one.pipe.recv()
        one.set_up, one.peak, one.parameters = (found[key] for key in ("set_up", "peak", "parameters"))
        one.trouble = found["trouble"]
        if not found["ready"]:
            raise RuntimeError(one.trouble)
        one.step = _elsewhere
    except (EOFError, TimeoutError, RuntimeError) as error:
        one.trouble = one.trouble or repr(error)
        one.process.kill()
    said = f"ready after {one.set_up:.1f} s, peak {one.peak / 2**20:.0f} MiB" if one.step else "out"
    print(f"{one.name}: {said} {one.trouble[-1500:]}", flush=True)


def _elsewhere() -> None:
    raise AssertionError("its steps are taken in a process of its own")


def turn(one: Contestant, context: Context, seconds: float) -> None:
    """About `seconds` of steps; appends to `rates`."""
    assert one.step is not None
    if one.pipe:
        try:
            one.pipe.send("turn")
            one.rates.append(one.pipe.recv())
        except (EOFError, OSError) as error:
            one.trouble, one.step = repr(error), None
        return
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
    parser.add_argument("--set", choices=("compiled",), help="a chosen set of contestants")
    parser.add_argument("--each", type=float, default=60, help="seconds to get ready, for contestants apart")


def speed(options: argparse.Namespace) -> int:
    """Let all contestants enter, then go round until the limit."""
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    context = Context(*noise(), options.data, options.device, options.batch)
    entrants = [
        one
        for one in contestants(options.data is not None)
        if (not options.set or one.name in COMPILED)
        and (not options.only or any(word in one.name for word in options.only))
        and not any(word in one.name for word in options.without)
    ]

    def left() -> float:
        return options.limit - (time.monotonic() - began)

    def race(rounds: int) -> None:
        racing = [one for one in entrants if one.step is not None]
        print(f"racing after {options.limit - left():.0f} s", flush=True)
        for round_ in range(rounds):
            for place in range(len(racing)):
                if left() > options.seconds + 3 and racing[(place + round_) % len(racing)].step is not None:
                    turn(racing[(place + round_) % len(racing)], context, options.seconds)
                    save(options, entrants)

    apart = [] if options.warm else [one for one in entrants if one.apart]
    for one in apart:
        start_apart(one, options)
    for one in entrants:
        if one not in apart and left() > 0.25 * options.limit:
            announce(one, context, options.warmup)
    for one in apart:
        await_entry(one, began + min(options.each, 0.75 * options.limit))
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
                if one.pipe:
                    one.pipe.send("profile")
                file.write(f"{one.name}\n{one.pipe.recv() if one.pipe else profile(one, context)}\n\n")
    for one in racing:
        if one.pipe:
            one.pipe.send("end")
    return 0
