"""jensen against pythae on the IWAE paper's MLP: training, L_K and memory, the two by turns in one process.

    pip install "jensen[benchmarks]" && python benchmarks/vae_throughput.py

Both get the same network, weights, data, batch size and Adam; before anything is timed, loss, gradient and L_K must
agree, or the exit status is 1. docs/benchmarks.md says what either does in a step. A contestant is timed for a fraction
of a second, then the next, and so on for many rounds: a ratio is the median over rounds, with its range. On one thread
the clock is the process's CPU time, which other processes disturb least, else the wall clock. The floor is the time of
the matrix products alone (in training with Adam's step), which nobody who computes in float32 can go below.
"""

# ruff: noqa: E402 (tqdm reads its environment when it is imported)

import argparse
import copy
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # the peer's progress bar, to its advantage
logging.disable(logging.INFO)

import numpy as np
import torch
from torch import Tensor, nn

from jensen.data.examples import Dataset
from jensen.model import Batch
from jensen.randomness import Noise, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.loop import steps
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState
from jensen.vae import VAE

LATENT, LEARNING_RATE = 50, 1e-3
STEPS = {20: 150, 100: 75, 500: 20}  # per turn, by batch size
IMAGES, TRAINED_FOR = 8, 1000  # of L_K: test images, steps of training before
MNIST = Path(__file__).resolve().parents[2] / "shared/data/mnist"


@dataclass(frozen=True)
class Case:
    """One comparison of training speed."""

    batch_size: int
    binarisation: str = "threshold"
    peer_optimiser: dict[str, object] | None = None

    @property
    def name(self) -> str:
        """What is special about it."""
        notes = [self.binarisation] if self.binarisation != "threshold" else []
        notes += ["peer: fused Adam"] if self.peer_optimiser else []
        return ", ".join([str(self.batch_size), *notes])


CASES = [Case(size) for size in STEPS]
FURTHER = [Case(100, binarisation="dynamic"), Case(100, peer_optimiser={"fused": True})]


# ---------------------------------------------------------------------------------------------- the contestants


def recipe_for(data: str, device: str, batch_size: int = 100, binarisation: str = "threshold") -> VAERecipe:
    """The one-layer network of Burda et al. 2016: 784-200-200-50 and back, tanh, Bernoulli."""
    return VAERecipe(
        data=data,
        model=VAESettings(latent_dims=LATENT, hidden=(200, 200), likelihood="bernoulli", binarisation=binarisation),
        training=TrainingSettings(
            steps=10**9, batch_size=batch_size, learning_rate=LEARNING_RATE, schedule="constant", device=device
        ),
    )


def jensen_training(model: VAE, dataset: Dataset, recipe: VAERecipe) -> Callable[[int], None]:
    """A function that trains for n steps more by `jensen.training.loop.steps`, refusing a loss that is not finite."""
    state = TrainingState.start(model, recipe.training)
    records = steps(state, dataset.train, dataset.spec.preparation, recipe.training, recipe.seed)

    def train(count: int) -> None:
        losses = torch.stack([record.loss for record in islice(records, count)])
        if not torch.isfinite(losses.mean()):
            raise ArithmeticError("jensen: a loss is not finite")

    return train


def pythae_model(model: VAE) -> nn.Module:
    """pythae's VAE with a copy of the network of `model`.

    The half of the last layer that is log s becomes log s² by doubling its weights, for that is what pythae wants.
    """
    from pythae import models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_variance = self.network(x).chunk(2, dim=-1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.network(z).squeeze(1).sigmoid())

    encoder = copy.deepcopy(model.posterior.encoder)
    with torch.no_grad():
        for parameter in encoder.layers[-1].parameters():
            parameter[LATENT:] *= 2
    config = models.VAEConfig(input_dim=model.shape, latent_dim=LATENT, reconstruction_loss="bce")
    return models.VAE(config, Encoder(encoder), Decoder(copy.deepcopy(model.decoder))).to(model.device)


def pythae_training(peer: nn.Module, x: Tensor, case: Case, folder: str) -> Callable[[int], None]:
    """A function that trains for one pass over `x` by `BaseTrainer.train_step`, its loop without what is per epoch."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    config = BaseTrainerConfig(
        output_dir=folder,
        per_device_train_batch_size=case.batch_size,
        learning_rate=LEARNING_RATE,
        optimizer_params=case.peer_optimiser,
        no_cuda=next(peer.parameters()).device.type == "cpu",
    )
    trainer = BaseTrainer(peer, BaseDataset(x, torch.zeros(len(x))), training_config=config)
    trainer.prepare_training()
    return lambda count: trainer.train_step(epoch=1)


def training_floor(model: VAE, batch_size: int) -> Callable[[int], None]:
    """A function that does n times the matrix products of a step, forward and backward, and a fused AdamW step."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    inputs = [torch.rand(batch_size, layer.in_features, device=model.device) for layer in layers]
    outputs = [torch.rand(batch_size, layer.out_features, device=model.device) for layer in layers]
    weights = [torch.nn.Parameter(layer.weight.detach().clone()) for layer in layers]
    optimiser = torch.optim.AdamW(weights, fused=True)

    @torch.no_grad()
    def multiply(count: int) -> None:
        for _ in range(count):
            for x, weight in zip(inputs, weights, strict=True):
                x @ weight.T
            for number, (x, gradient, weight) in enumerate(zip(inputs, outputs, weights, strict=True)):
                weight.grad = gradient.T @ x
                if number:  # nobody needs a gradient in the data
                    gradient @ weight
            optimiser.step()
        weights[0].sum().item()  # wait for a GPU

    return multiply


def bound_floor(model: VAE, samples: int, block: int = 1000) -> Callable[[], None]:
    """A function that does the decoder's matrix products for `samples` draws for each of the images."""
    weights = [layer.weight for layer in model.decoder.modules() if isinstance(layer, nn.Linear)]
    z = torch.rand(block, LATENT, device=model.device)

    @torch.no_grad()
    def multiply() -> None:
        for _ in range(IMAGES * samples // block):
            h = z
            for weight in weights:
                h = h @ weight.T
        h.sum().item()  # wait for a GPU

    return multiply


# ---------------------------------------------------------------------------------------------- the same mathematics


def check_training(model: VAE, peer: nn.Module, x: Tensor) -> str:
    """One line that loss and gradient agree on the same batch and noise; SystemExit where they do not."""
    parameters = [sum(p.numel() for p in module.parameters()) for module in (model, peer)]
    loss = model.loss(
        Batch(x, torch.arange(len(x))), step=0, noise=Noise(torch.Generator(x.device).manual_seed(1))
    ).value
    torch.manual_seed(1)
    peer_loss = peer({"data": x}).loss
    loss.backward()
    peer_loss.backward()
    ours, theirs = model.decoder.layers[0].weight.grad, peer.decoder.network.layers[0].weight.grad
    error = ((ours - theirs).norm() / theirs.norm()).item()
    if parameters[0] != parameters[1] or abs(loss / peer_loss - 1) > 1e-5 or error > 1e-4:
        raise SystemExit(f"not the same: parameters {parameters}, loss {loss} and {peer_loss}, gradient off by {error}")
    model.zero_grad()
    peer.zero_grad()
    return (
        f"Same weights, batch and noise: loss {loss:.4f} and {peer_loss:.4f} nats, gradient the same to {error:.1g}, "
        f"parameters {parameters[0]:,} and {parameters[1]:,}."
    )


def check_bound(model: VAE, peer: nn.Module, x: Tensor, samples: int) -> str:
    """One line that both give the same mean L_K within their Monte-Carlo errors; SystemExit where they do not."""
    bound = model.importance_weighted_bound(x, samples=samples)
    error = bound.standard_error.square().sum().sqrt().item() / len(x)
    ours = bound.value.mean().item()
    with torch.no_grad():
        theirs = peer.get_nll(x, n_samples=samples)
    if abs(ours - theirs) > 5 * math.sqrt(2) * error:
        raise SystemExit(f"not the same: L_{samples} is {ours} and {theirs}, standard error {error}")
    return f"L_{samples} of {len(x)} test images: {ours:.2f} and {theirs:.2f} nats, standard error of each {error:.2f}."


# ---------------------------------------------------------------------------------------------- timing


def seconds_by_turns(contestants: dict[str, Callable[[], object]], rounds: int, clock: str) -> dict[str, list[float]]:
    """The seconds that each needs, one after the other, `rounds` times; a first round is not counted."""
    now = {"CPU time": time.process_time, "wall": time.perf_counter}[clock]
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for counted in range(rounds + 1):
        for name, run in contestants.items():
            start = now()
            run()
            if counted:
                seconds[name].append(now() - start)
    return seconds


def clock_for(threads: int, device: str) -> str:
    """CPU time is time only where nothing runs beside."""
    return "CPU time" if threads == 1 and device == "cpu" else "wall"


def spread(values: list[float], digits: int = 0) -> str:
    """median (lowest to highest)."""
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def ratios(slow: list[float], fast: list[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def print_row(*cells: object) -> None:
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


def print_head(*cells: str) -> None:
    print()
    print_row(*cells)
    print("|" + "---|" * len(cells))


@lru_cache
def read(data: str, binarisation: str) -> Dataset:
    """The data set, read once."""
    return load_dataset(recipe_for(data, "cpu", binarisation=binarisation))


def time_training(case: Case, options: argparse.Namespace, threads: int) -> None:
    """Print a row: examples per second of both and of the floor, and how much longer pythae takes than either."""
    torch.set_num_threads(threads)
    clock = clock_for(threads, options.device)
    recipe = recipe_for(options.data, options.device, case.batch_size, case.binarisation)
    whole, count = read(options.data, case.binarisation), STEPS[case.batch_size]
    dataset = replace(whole, train=whole.train[: count * case.batch_size])  # a turn is a pass over it, for both
    model = build_model(recipe, dataset.spec).to(options.device)
    x = dataset.spec.preparation(dataset.train.x, Noise(generator(0)))
    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "pythae": pythae_training(pythae_model(model), x, case, folder),
            "floor": training_floor(model, case.batch_size),
            "jensen": jensen_training(model, dataset, recipe),
        }
        turns = {name: partial(train, count) for name, train in contestants.items()}
        seconds = seconds_by_turns(turns, options.rounds, clock)
    speeds = [spread([count * case.batch_size / second for second in seconds[name]]) for name in ("jensen", "pythae")]
    against = [spread(ratios(seconds["pythae"], seconds[name]), 2) for name in ("jensen", "floor")]
    print_row(case.name, f"{threads}, {clock}", *speeds, *against)


def bound_rounds(options: argparse.Namespace) -> int:
    """L_K takes longer."""
    return max(3, options.rounds // 2)


def time_bound(model: VAE, x: Tensor, options: argparse.Namespace, threads: int) -> None:
    """Print rows: milliseconds per image of L_K for both, as documented and at pythae's best, and of the floor."""
    torch.set_num_threads(threads)
    peer, samples, clock = pythae_model(model).eval(), options.samples, clock_for(threads, options.device)

    def at_its_best() -> None:
        with torch.no_grad():
            peer.get_nll(x, n_samples=samples, batch_size=1000)

    contestants = {
        "pythae": lambda: peer.get_nll(x, n_samples=samples),
        "pythae, no gradients, batches of 1000": at_its_best,
        "floor": bound_floor(model, samples),
        "jensen": lambda: model.importance_weighted_bound(x, samples=samples).value.cpu(),
    }
    seconds = seconds_by_turns(contestants, bound_rounds(options), clock)
    for name, turns in seconds.items():
        row = [1000 * second / len(x) for second in turns]
        print_row(name, f"{threads}, {clock}", spread(row, 1), spread(ratios(turns, seconds["jensen"]), 2))


# ---------------------------------------------------------------------------------------------- memory


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (the most so far) of this process in MiB, as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure_memory(side: str, task: str, data: str, samples: int) -> None:
    """In a process of its own: print what is resident after importing, and the most that ever was, in MiB."""
    torch.set_num_threads(1)
    if side == "pythae":
        import_module("pythae.models")
        import_module("pythae.trainers")
    imported = resident("VmRSS")
    recipe = recipe_for(data, "cpu")
    dataset = load_dataset(recipe)
    model, prepare = build_model(recipe, dataset.spec), dataset.spec.preparation
    if task == "training" and side == "jensen":
        jensen_training(model, dataset, recipe)(len(dataset.train) // 100)
    elif task == "training":
        x = prepare(dataset.train.x)
        del dataset
        with tempfile.TemporaryDirectory() as folder:
            pythae_training(pythae_model(model), x, Case(100), folder)(len(x) // 100)
    elif side == "jensen":
        model.importance_weighted_bound(prepare(dataset.train.x[:IMAGES]), samples=samples)
    else:
        pythae_model(model).get_nll(prepare(dataset.train.x[:IMAGES]), n_samples=samples)
    print(json.dumps({"imported": imported, "peak": resident("VmHWM")}))


def print_memory(options: argparse.Namespace, folder: str) -> None:
    """Print rows: the peak memory of both, for an epoch of training and for L_K, each in a new process."""
    few = str(Path(folder) / "few.npy")
    np.save(few, read(options.data, "threshold").train.x[:100].numpy())
    for task, data in (("training", options.data), ("L_K", few)):
        for side in ("jensen", "pythae"):
            command = [
                sys.executable,
                __file__,
                "--memory",
                side,
                task,
                "--data",
                data,
                "--samples",
                str(options.samples),
            ]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            imported, peak = json.loads(answer.splitlines()[-1]).values()
            print_row(task, side, *(f"{mib:,.0f}" for mib in (imported, peak, peak - imported)))


# ---------------------------------------------------------------------------------------------- the program


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(MNIST), help="28x28 images of 8 bits, read like any data of jensen")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of torch, each in turn")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant that count")
    parser.add_argument("--samples", type=int, default=5000, help="K of L_K")
    parser.add_argument("--memory", nargs=2, metavar=("SIDE", "TASK"), help=argparse.SUPPRESS)
    return parser.parse_args()


def data_or_noise(data: str, folder: str) -> str:
    """`data` if it is there, else a file of as many random images, saying so."""
    if Path(data).exists():
        return data
    print(f"No {data}: random images of the same shape instead; speeds are the same, L_K is of another model.")
    noise = Path(folder) / "noise.npy"
    np.save(noise, np.random.default_rng(0).integers(0, 256, (60_000, 28, 28), dtype=np.uint8))
    return str(noise)


def print_machine(options: argparse.Namespace) -> None:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    device = torch.cuda.get_device_name() if options.device == "cuda" else models[0].split(": ")[1]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "jensen", "pythae"))
    print(f"{device}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {packages}.")
    print(f"{options.rounds} rounds ({bound_rounds(options)} for L_K): median (lowest to highest).")


def main() -> None:
    options = parse()
    if options.memory:
        measure_memory(*options.memory, options.data, options.samples)
        return
    print_machine(options)
    with tempfile.TemporaryDirectory() as folder:
        options.data = data_or_noise(options.data, folder)
        compare(options, folder)


def compare(options: argparse.Namespace, folder: str) -> None:
    """Check that both do the same, then print the three tables."""
    torch.set_num_threads(1)
    dataset, recipe = read(options.data, "threshold"), recipe_for(options.data, options.device)
    model = build_model(recipe, dataset.spec).to(options.device)
    x = dataset.spec.preparation(dataset.test.x[:100]).to(options.device)
    print(check_training(model, pythae_model(model), x))
    jensen_training(model, dataset, recipe)(TRAINED_FOR)
    x = x[:IMAGES]
    print(check_bound(model.eval(), pythae_model(model).eval(), x, options.samples))
    print_head(
        "training: batch",
        "threads, clock",
        "jensen, examples/s",
        "pythae, examples/s",
        "jensen / pythae",
        "floor / pythae",
    )
    for threads in options.threads:
        for case in CASES + FURTHER:
            time_training(case, options, threads)
    print_head(f"L_{options.samples}", "threads, clock", "ms per image", "times jensen's")
    for threads in options.threads:
        time_bound(model, x, options, threads)
    print_head("memory, MiB", "", "imported", "peak", "peak - imported")
    print_memory(options, folder)


if __name__ == "__main__":
    main()
