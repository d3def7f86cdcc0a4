"""What a GPU gives: does everything work on it, and how many images a second does training take?

    python benchmarks/gpu.py check --out RESULTS             # every verb, three precisions, resume, several processes
    python benchmarks/gpu.py speed --out RESULTS             # training, beside diffusers; needs diffusers
    python benchmarks/gpu.py check --device cpu --steps 40 --out RESULTS   # the same commands on a CPU

`check` starts chains of commands side by side. A failed command ends its chain only; check.log holds the output of all
commands, and check.json a line for each. The exit status is 1 if a command failed. For `speed` see `gpu_speed.py`.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

PYTHON = sys.executable
LONGEST = 20_000  # characters of a command's output in the log
JENSEN = (PYTHON, "-m", "jensen")
# torch's deterministic algorithms cannot be chosen by the environment
DETERMINISTIC = (
    "import sys, torch; torch.use_deterministic_algorithms(True); sys.argv[0] = 'jensen'; "
    "from jensen.__main__ import main; sys.exit(main())"
)
NCCL = """
import torch
from torch import distributed
distributed.init_process_group("cpu:gloo,cuda:nccl")
torch.cuda.set_device(0)
for device in ("cpu", "cuda"):
    value = torch.arange(4.0, device=device)
    distributed.all_reduce(value)
    print(device, value.tolist(), flush=True)
distributed.destroy_process_group()
"""
DIFFUSION = ("--widths", "32", "64", "--bound-terms", "8", "--sampling-steps", "10")


@dataclass(frozen=True)
class Outcome:
    """One command, or one comparison of files: whether it did what it should, and what it said last."""

    chain: str
    what: str
    good: bool
    seconds: float
    said: str


class ChainError(Exception):
    """A command failed, so the rest of its chain cannot run."""


@dataclass
class Checks:
    """Runs commands with a time limit and keeps their outcomes."""

    out: Path
    work: Path
    device: str
    steps: int
    every: int
    deadline: float
    each: float
    outcomes: list[Outcome] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, chain: str, what: str, good: bool, began: float, text: str) -> None:
        """Keep an outcome, in the log and in check.json."""
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
        outcome = Outcome(chain, what, bool(good), round(time.monotonic() - began, 1), last[:300])
        with self.lock:
            self.outcomes.append(outcome)
            print(
                f"{'good  ' if good else 'FAILED'} {outcome.seconds:6.1f} s  {chain}: {what}: {last[:200]}", flush=True
            )
            with (self.out / "check.log").open("a") as log:
                log.write(f"\n===== {chain}: {what}: {'good' if good else 'FAILED'}, {outcome.seconds} s\n")
                log.write(text[-LONGEST:])
            rows = [asdict(each) for each in self.outcomes]
            (self.out / "check.json").write_text(json.dumps(rows, indent=1))

    def run(self, chain: str, what: str, command: Sequence[str], *, status: int = 0, **environment: str) -> str:
        """Run a command to its end; raises `ChainError` if its exit status is another than `status`."""
        began = time.monotonic()
        limit = max(1.0, min(self.each, self.deadline - began))
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=limit,
                check=False,
                env=os.environ | environment,
                errors="replace",
            )
            text, good = done.stdout, done.returncode == status
            text += "" if good else f"\nexit status {done.returncode}, expected {status}"
        except subprocess.TimeoutExpired as error:
            text, good = f"{_text(error.stdout)}\nended after {limit:.0f} s", False
        self.note(chain, what, good, began, text)
        if not good:
            raise ChainError(what)
        return text

    def killed(self, chain: str, command: Sequence[str], folder: Path, **environment: str) -> None:
        """Start a training and kill it (SIGKILL) once it has written its second checkpoint."""
        began = time.monotonic()
        silent = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=silent, stderr=silent, env=os.environ | environment)
        awaited = folder / "checkpoints" / f"step-{2 * self.every:08d}" / "state.json"
        while (
            process.poll() is None and not awaited.exists() and time.monotonic() < min(began + self.each, self.deadline)
        ):
            time.sleep(0.02)
        over = process.poll() is not None
        process.kill()
        process.wait()
        done = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
        self.note(chain, "kill -9", awaited.exists() and not over, began, f"{done}, ended by itself: {over}")
        if not awaited.exists():
            raise ChainError("kill")

    def same(self, chain: str, what: str, a: Path, b: Path) -> None:
        """Compare the last checkpoints of two runs bit for bit; differences do not end the chain."""
        began = time.monotonic()
        found = [_last_checkpoint(folder) for folder in (a, b)]
        differing = [name for name in found[0] if found[0][name] != found[1].get(name)]
        self.note(chain, what, not differing, began, f"bit for bit: {not differing} {differing} {_distance(a, b)}")


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _last_checkpoint(folder: Path) -> dict[str, str]:
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in last.glob("*.safetensors")}
    return found | {"step": last.name}


def _distance(a: Path, b: Path) -> str:
    """The largest difference of the weights, relative to the largest weight."""
    from safetensors.torch import load_file

    one, two = (
        load_file(sorted((folder / "checkpoints").glob("step-*"))[-1] / "model.safetensors") for folder in (a, b)
    )
    largest = max(float((one[name].double() - two[name].double()).abs().max()) for name in one if one[name].numel())
    scale = max(float(value.double().abs().max()) for value in one.values() if value.numel())
    return f"largest difference of weights {largest:.1e}, of {scale:.1f}"


# ---------------------------------------------------------------------------------------------- chains


def of_a_family(checks: Checks, family: str, precision: str, starter: Sequence[str] = JENSEN, words: str = "") -> None:
    """Train twice, kill and resume, then every verb; the runs of one seed should be equal bit for bit."""
    chain = f"{family} {precision}{words}"
    folder = checks.work / chain.replace(" ", "-")
    steps = ["--steps", str(checks.steps), "--checkpoint-every", str(checks.every), "--device", checks.device]
    often = ["--validate-every", str(checks.steps // 2), "--log-every", "10", "--sample-every", str(checks.steps)]
    settings = [
        *steps,
        *often,
        "--precision",
        precision,
        *(DIFFUSION if family == "diffusion" else ("--ema-decay", "0.99")),
    ]
    start = [*starter, "train", family, *settings]

    def out(name: str) -> list[str]:
        return ["--out", str(folder / name)]

    deterministic = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if words else {}
    checks.run(chain, "train", [*start, *out("whole")], **deterministic)
    beside = ThreadPoolExecutor(1)
    asked = None if words else beside.submit(verbs, checks, chain, family, folder / "whole", folder)
    checks.run(chain, "train again", [*start, *out("again")], **deterministic)
    checks.same(chain, "the same seed again", folder / "whole", folder / "again")
    checks.killed(chain, [*start, *out("parts")], folder / "parts", **deterministic)
    checks.run(chain, "resume", [*starter, "resume", str(folder / "parts")], **deterministic)
    checks.same(chain, "killed and resumed", folder / "whole", folder / "parts")
    if asked:
        asked.result()


def verbs(checks: Checks, chain: str, family: str, run: Path, folder: Path) -> None:
    """Every verb that opens a run, in one process; then scores and samples on the CPU, which should be near."""
    few = ["--examples", "8"]
    lines = [
        ["info", str(run)],
        ["evaluate", str(run), "--samples", "64"],
        ["sample", str(run), "--n", "16", "--out", str(folder / "gpu.npz")],
        ["sample", str(run), "--n", "16", "--out", str(folder / "samples.png")],
        ["reconstruct", str(run), "--out", str(folder / "reconstructions.png")],
        ["score", str(run), "--out", str(folder / "gpu.csv")],
        ["impute", str(run), "--mask", "half:left", "--out", str(folder / "imputed"), "--draws", "2", *few],
        ["compress", str(run), "--out", str(folder / "file"), *few],
        ["decompress", str(folder / "file"), "--run", str(run), "--out", str(folder / "restored.npz")],
    ]
    if family == "diffusion":
        lines += [
            ["sample", str(run), "--n", "8", "--sampler", "ancestral", "--steps", "20", "--out", str(folder / "a.png")],
            ["predict", str(run), "--out", str(folder / "predicted.csv"), "--draws", "2"],
            ["features", "train", str(run), "--visits", "20000"],
            ["features", "distance", str(run), "--n", "200", "--guidance", "1"],
        ]
    text = checks.run(chain, "verbs", [PYTHON, __file__, "verbs", json.dumps(lines)])
    for word, status, seconds in re.findall(r"^== (.+): status (\d+), ([\d.]+) s$", text, re.MULTILINE):
        checks.note(chain, f"verb {word}", status == "0", time.monotonic() - float(seconds), f"status {status}")
    alone = {"CUDA_VISIBLE_DEVICES": ""}
    checks.run(chain, "score, CPU", [*JENSEN, "score", str(run), "--out", str(folder / "cpu.csv")], **alone)
    _near(checks, chain, "scores of GPU and CPU", *(_bounds(folder / f"{each}.csv") for each in ("gpu", "cpu")))
    checks.run(
        chain, "sample, CPU", [*JENSEN, "sample", str(run), "--n", "16", "--out", str(folder / "cpu.npz")], **alone
    )
    import numpy as np

    gpu, cpu = (np.load(folder / f"{each}.npz")["x"].astype(float).ravel() for each in ("gpu", "cpu"))
    _near(checks, chain, "samples of GPU and CPU", gpu, cpu)


def _bounds(path: Path) -> Sequence[float]:
    with path.open() as file:
        return [float(row["bound_nats"]) for row in csv.DictReader(file)]


def _near(checks: Checks, chain: str, what: str, a: Sequence[float], b: Sequence[float]) -> None:
    differences = [abs(one - two) for one, two in zip(a, b, strict=True)]
    largest, mean = max(differences), sum(differences) / len(differences)
    size = max(abs(value) for value in b)
    good = largest <= 0.02 * size
    said = f"differ by {largest:.2g} at most, {mean:.2g} on average, of {size:.4g}"
    checks.note(chain, what, good, time.monotonic(), said)


def of_pictures(checks: Checks, data: Path) -> None:
    """Colour pictures with the default network, and a classifier of them, as far as time allows."""
    run, words = checks.work / "colour", ["--data", str(data), "--device", checks.device, "--steps", str(checks.steps)]
    start = [*JENSEN, "train", "diffusion", *words, "--precision", "bfloat16" if checks.device == "cuda" else "float32"]
    checks.run("colour", "train", [*start, "--validation-examples", "50", "--out", str(run)])
    checks.run("colour", "sample", [*JENSEN, "sample", str(run), "--n", "16", "--out", str(checks.out / "colour.png")])


def of_processes(checks: Checks) -> None:
    """torchrun with one process, and what two processes on one GPU are answered; NCCL by itself."""
    torchrun = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]

    def train(count: int, device: str) -> list[str]:
        out = str(checks.work / f"processes-{count}-{device}")
        steps = ["--steps", "20", "--device", device, *DIFFUSION, "--out", out]
        return [*torchrun, str(count), "-m", "jensen", "train", "diffusion", *steps]

    chain = "processes"
    checks.run(chain, "torchrun, 1 process", train(1, checks.device))
    if checks.device == "cuda":
        script = checks.work / "nccl.py"
        script.write_text(NCCL)
        checks.run(chain, "NCCL, 1 process", [*torchrun, "1", str(script)])
        checks.run(chain, "2 processes on 1 GPU are refused", train(2, "cuda"), status=1)
    checks.run(chain, "torchrun, 2 processes on the CPU", train(2, "cpu"), OMP_NUM_THREADS="1")


def of_tests(checks: Checks, tests: Sequence[str], workers: int) -> None:
    """The project's tests; `auto` devices are the GPU."""
    limit = str(int(min(checks.each, checks.deadline - time.monotonic()) - 8))  # interrupted, it shows what has failed
    command = ["timeout", "-s", "INT", limit, PYTHON, "-m", "pytest", "-q", "-n", str(workers), "--tb=short"]
    command += ["-p", "no:benchmark"]  # pytest-benchmark, where it is installed, warns beside pytest-xdist
    checks.run("tests", "pytest", [*command, "-rf", "--color=no", *tests], OMP_NUM_THREADS="1")


# ---------------------------------------------------------------------------------------------- commands


def run_verbs(lines: Sequence[Sequence[str]]) -> int:
    """Run commands of jensen in this process, with tracebacks; a failed one does not stop the others."""
    from jensen.cli.main import main as jensen

    failed = 0
    for line in lines:
        began = time.monotonic()
        print(f"\n-- jensen {' '.join(line)}", flush=True)
        try:
            status = jensen(line)
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            status = 1
        failed += status != 0
        print(f"== {' '.join(line[: 2 if line[0] == 'features' else 1])}: status {status}, ", end="")
        print(f"{time.monotonic() - began:.1f} s", flush=True)
    return 0 if not failed else 3


def chains(options: argparse.Namespace, checks: Checks) -> Iterator[tuple[str, tuple]]:
    """(name of a function, its arguments) of each chain, the longest first."""
    if options.tests:
        yield "of_tests", (options.tests, options.test_workers)
    precisions = ("float32", "bfloat16", "float16") if checks.device == "cuda" else ("float32",)
    for precision in precisions:
        for family in ("diffusion", "vae"):
            yield "of_a_family", (family, precision)
    if checks.device == "cuda":
        for family in ("diffusion", "vae"):
            yield "of_a_family", (family, "float32", (PYTHON, "-c", DETERMINISTIC), ", deterministic")
    yield "of_processes", ()
    if options.data:
        yield "of_pictures", (options.data,)


def check(options: argparse.Namespace) -> int:
    """Run all chains."""
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        deadline = time.monotonic() + options.limit
        checks = Checks(options.out, Path(folder), options.device, options.steps, options.every, deadline, options.each)

        def follow(name: str, arguments: tuple) -> None:
            began = time.monotonic()
            try:
                globals()[name](checks, *arguments)
            except ChainError:
                pass
            except Exception:
                checks.note(f"{name} {arguments}", "the program itself", False, began, traceback.format_exc())

        with ThreadPoolExecutor(options.workers) as pool:
            for name, arguments in chains(options, checks):
                words = " ".join([name, *map(str, arguments)])
                if options.only and not any(word in words for word in options.only):
                    continue
                pool.submit(follow, name, arguments)
    return 0 if all(outcome.good for outcome in checks.outcomes) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("check", help="does everything work?")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    one.add_argument("--steps", type=int, default=400)
    one.add_argument("--every", type=int, default=50, help="steps between two checkpoints")
    one.add_argument("--limit", type=float, default=600, help="seconds for everything")
    one.add_argument("--each", type=float, default=300, help="seconds for one command")
    one.add_argument("--workers", type=int, default=6, help="chains side by side")
    one.add_argument("--data", type=Path, help="a labelled data set of colour pictures")
    one.add_argument("--tests", nargs="*", default=(), help="tests of the project to run as well")
    one.add_argument("--only", nargs="*", help="chains with one of these words: diffusion, vae, float32, processes ...")
    one.add_argument("--test-workers", type=int, default=6)
    from gpu_speed import add_options, speed

    add_options(commands.add_parser("speed", help="images a second in training"))
    commands.add_parser("verbs", help="(internal) commands of jensen in one process").add_argument("lines")
    options = parser.parse_args()
    if options.command == "verbs":
        return run_verbs(json.loads(options.lines))
    return check(options) if options.command == "check" else speed(options)


if __name__ == "__main__":
    sys.exit(main())
