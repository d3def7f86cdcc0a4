"""A convolutional VAE of pictures after equal CPU seconds of training, by size of batch and optimiser.

    python benchmarks/vae_batches.py FOLDER [--seconds 40]

One core; every training has the default network and a schedule that decays within its steps, whose number follows from
the CPU seconds of a step, the least of three. The ELBO is that of the first 200 validation pictures, 2 draws.
"""

import argparse
import time
from typing import Any

import torch

from jensen.bound import Estimate
from jensen.data.examples import Dataset
from jensen.randomness import Noise, Stream, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.vae.settings import VAERecipe
from jensen.training.loop import steps
from jensen.training.state import TrainingState

MUON: dict[str, Any] = {"optimiser": "muon", "learning_rate": 4e-3}
CANDIDATES: dict[str, dict[str, Any]] = {
    "AdamW, 128": {"batch_size": 128},
    "AdamW, 32": {"batch_size": 32},
    "Muon, 32": {"batch_size": 32, **MUON},
}


def start(data: Dataset, training: dict[str, Any], count: int) -> tuple[TrainingState, Any]:
    """The state and the steps of a training of `count` steps."""
    settings = {"steps": count, "patience": 0, "warmup_steps": min(20, count // 4), **training}
    recipe = VAERecipe.model_validate({"training": settings})
    state = TrainingState.start(build_model(recipe, data.spec), recipe.training)
    return state, steps(state, data.train, data.spec.preparation, recipe.training, 0)


def pace(data: Dataset, training: dict[str, Any]) -> float:
    """The CPU seconds of a step."""
    _, loop = start(data, training, 100)
    next(loop)  # the first step makes the optimiser's state
    found = []
    for _ in range(3):
        began = time.process_time()
        next(loop)
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    """Train every candidate and print a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=40, help="CPU seconds of each training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(VAERecipe(data=options.folder))
    noise = Noise(generator(0, Stream.EVALUATION, 0))
    x = data.spec.preparation(data.validation.x[:200], noise)
    print("| optimiser, batch | CPU ms a step | steps | ELBO, nats |\n|---|---|---|---|")
    for name, training in CANDIDATES.items():
        seconds = pace(data, training)
        count = max(8, int(options.seconds / seconds))
        state, loop = start(data, training, count)
        for _ in loop:
            pass
        bound = Estimate.of(state.model.eval().elbo(x, draws=2).value)
        print(f"| {name} | {1000 * seconds:.0f} | {count} | {bound} |", flush=True)


if __name__ == "__main__":
    main()
