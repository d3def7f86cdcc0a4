"""Weights, memory and time of a training step of the default networks, for examples of many shapes.

    python benchmarks/default_networks.py [vae | diffusion] [SHAPE ...] [--profile]

One core; a SHAPE is written 3x64x64. The time is CPU seconds of a step of the default batch, the best of two after one
step. Memory is the peak of the process. With --profile, the shares of the parts of a step are printed instead.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from jensen.data.options import ReadOptions
from jensen.randomness import Noise, Stream, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.recipe.vae.settings import VAERecipe
from jensen.training.gradient import gradient, optimise
from jensen.training.loop import Batches
from jensen.training.precision import Precision
from jensen.training.state import TrainingState

BYTES = ["1x8x8", "1x28x28", "3x32x32", "3x64x64", "3x128x192", "3x256x256"]
FLOATS = ["1x256", "12x5000", "1x16x16x16", "1x64x64x64"]
FAMILIES = {"vae": VAERecipe, "diffusion": DiffusionRecipe}
PARTS = {
    "convolutions": ("convolution", "mkldnn_conv"),
    "group norms": ("group_norm",),
    "waves": ("aten::sin", "aten::cos", "aten::cat"),
    "SiLU": ("silu",),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "attention"),
    "copies": ("copy_", "clone"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("family", nargs="?", choices=FAMILIES)
    parser.add_argument("shapes", nargs="*")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    for family in [given.family] if given.family else FAMILIES:
        print(f"{family + ', shape':<22}{'weights':>12}{'seconds a step':>16}{'peak, MB':>10}", flush=True)
        for text in given.shapes or [*BYTES, *FLOATS]:
            # A process of its own: the peak of the memory is of one shape alone
            process = multiprocessing.get_context("spawn").Process(target=_measure, args=(family, text, given.profile))
            process.start()
            process.join()


def _measure(family: str, text: str, profiled: bool) -> None:
    torch.set_num_threads(1)
    shape = tuple(map(int, text.split("x")))
    recipe = FAMILIES[family](data={"x": _examples(shape)}, read=ReadOptions(layout="array"))
    dataset = load_dataset(recipe)
    # As many examples as a data set has on which such networks are trained
    spec = dataset.spec.model_copy(update={"counts": {"train": 10_000, "validation": 1000, "test": 1000}})
    state = TrainingState.start(build_model(recipe, spec), recipe.training)
    batch = Batches(dataset.train, spec.preparation, recipe.training.batch_size, seed=1)(0)

    def step() -> float:
        began = time.process_time()
        gradient(state.model, batch, 3, Noise(generator(0, Stream.TRAINING, 3)), Precision(), None)
        optimise(state, 1e-4, None)
        return time.process_time() - began

    step()
    if profiled:
        with profile(activities=[ProfilerActivity.CPU]) as found:
            step()
        _print_parts(text, found)
        return
    seconds = min(step(), step())
    weights = sum(parameter.numel() for parameter in state.model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{text:<22}{weights:>12,}{seconds:>16.3f}{peak:>10.0f}", flush=True)


def _examples(shape: tuple[int, ...]) -> np.ndarray:
    """Smooth waves, so that no warning of noise or of a constant appears; bytes for images, else floats."""
    phases = np.random.default_rng(0).uniform(0, 6, (40, *(1 for _ in shape)))
    waves = np.sin(phases + np.arange(np.prod(shape)).reshape(shape) / 50)
    return (127 + 127 * waves).astype("uint8") if len(shape) == 3 else waves.astype("float32")


def _print_parts(text: str, found: profile) -> None:
    left = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    total = sum(left.values())
    parts = {}
    for part, names in PARTS.items():
        mine = [key for key in left if any(name in key for name in names)]
        parts[part] = sum(left.pop(key) for key in mine)
    said = [f"{part} {100 * part_time / total:.0f} %" for part, part_time in parts.items()]
    print(f"{text}: {', '.join(said)}, else {100 * sum(left.values()) / total:.0f} %", flush=True)


if __name__ == "__main__":
    main()
