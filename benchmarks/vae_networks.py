"""The ELBO of a VAE's default network and of the MLP after equal CPU seconds of one core.

    python benchmarks/vae_networks.py [digits | MNIST_FOLDER] [SECONDS]

Batches of 128, AdamW with the default learning rate: a warm-up of 100 steps, then half a cosine over the seconds. The
bound is that of up to 1,000 validation examples, 4 draws each.
"""

import math
import sys
import time

import torch

from jensen.data.options import ReadOptions
from jensen.randomness import Noise, Stream, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.gradient import gradient, optimise
from jensen.training.loop import Batches
from jensen.training.precision import Precision
from jensen.training.state import TrainingState

NETWORKS = {
    "MLP 200 200, z of 16": VAESettings(hidden=(200, 200), latent_dims=16),
    "by the data": VAESettings(),
}


def main() -> None:
    torch.set_num_threads(1)
    data, seconds = sys.argv[1] if len(sys.argv) > 1 else "digits", float(sys.argv[2]) if len(sys.argv) > 2 else 15.0
    for name, settings in NETWORKS.items():
        recipe = VAERecipe(data=data, model=settings, read=ReadOptions(validation_fraction=0.05))
        print(f"{name:<24}{trained(recipe, seconds)}", flush=True)


def trained(recipe: VAERecipe, seconds: float) -> str:
    """The number of steps that fit into `seconds` of CPU time, and the ELBO of validation examples after them."""
    dataset, training = load_dataset(recipe), recipe.training
    preparation = dataset.spec.preparation
    state = TrainingState.start(build_model(recipe, dataset.spec), training)
    batches = Batches(dataset.train, preparation, training.batch_size, seed=1)
    began, step, share = time.process_time(), 0, 0.0
    while share < 1:
        rate = training.learning_rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * share))
        gradient(state.model, batches(step), step, Noise(generator(0, Stream.TRAINING, step)), Precision(), None)
        optimise(state, rate, None)
        step, share = step + 1, (time.process_time() - began) / seconds
    index = torch.arange(min(1000, len(dataset.validation)))
    with torch.no_grad():
        bound = state.model.elbo(preparation(dataset.validation.x[index]), draws=4, seed=3).value
    error = bound.std() / len(bound) ** 0.5
    return f"{step:>7} steps, ELBO {bound.mean():.1f} ± {error:.1f} nats"


if __name__ == "__main__":
    main()
