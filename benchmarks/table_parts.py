"""Three ways to get q(z | any part of a row), and what each costs in the bound of whole rows.

python benchmarks/table_parts.py FILE.csv [--steps 1500]
    trains the same VAE of the table in three ways and prints, on test rows: the ELBO of whole rows; the sum over
    columns of log p(x_j | others); log p of a random half of the cells given the others; and the share of the draws
    of z that are effective for this half.
"""

import argparse
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from jensen.bound import Estimate
from jensen.inference.columns import score_columns
from jensen.inference.imputer import ExampleNoise, effective_sample_size
from jensen.inference.proposals import Proposals
from jensen.model import Batch, Loss
from jensen.randomness import Noise, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.vae.settings import VAERecipe
from jensen.training.loop import Batches, learning_rate
from jensen.training.settings import TrainingSettings
from jensen.vae import VAE, AbstractVAEObjective, ElboObjective, PartsObjective
from jensen.vae.missing import hidden
from jensen.vae.objective import AbstractJoint
from jensen.vae.parts import randomly_hidden

DRAWS = 100


@dataclass(frozen=True)
class HiddenObjective(AbstractVAEObjective):
    """The bound of the cells that are not hidden; each example hides cells with probability `share`."""

    share: float

    def __call__(self, vae: AbstractJoint, batch: Batch, step: int, noise: Noise) -> Loss:
        some = noise.uniform((len(batch.x), 1)) < self.share
        x = torch.where(some, randomly_hidden(batch.x, noise), batch.x)
        return ElboObjective()(vae, replace(batch, x=x), step, noise)


WAYS = {
    "one encoder, whole rows": ElboObjective(),
    "one encoder, half of the rows with hidden cells": HiddenObjective(0.5),
    "one encoder, all rows with hidden cells": HiddenObjective(1.0),
    "second encoder of parts": PartsObjective(ElboObjective()),
}


def main() -> None:
    """Train in each way and print a row for it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rows", type=int, default=300)
    arguments = parser.parse_args()
    recipe = VAERecipe(data=arguments.file)
    dataset = load_dataset(recipe)
    settings = TrainingSettings(steps=arguments.steps, batch_size=256, warmup_steps=50)
    batches = Batches(dataset.train, dataset.spec.preparation, 256, 0)
    x = dataset.spec.preparation(dataset.test.x[: arguments.rows])
    print("| q of parts | ELBO of rows | Σ log p(x_j given others) | log p(half given half) | effective |")
    print("|---|---|---|---|---|")
    for name, objective in WAYS.items():
        model = build_model(recipe, dataset.spec)
        assert isinstance(model, VAE)
        model.objective = objective
        if not isinstance(objective, PartsObjective):
            model.posterior.of_parts = model.posterior.encoder
        trained(model, batches, settings)
        print(f"| {name} | {' | '.join(measured(model, x))} |", flush=True)


def trained(model: VAE, batches: Batches, settings: TrainingSettings) -> None:
    """Train all steps."""
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0)
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, settings)
        loss = model.loss(batches(step), step=step, noise=Noise(generator(1, step)))
        optimiser.zero_grad()
        loss.value.backward()
        optimiser.step()


@torch.no_grad()
def measured(model: VAE, x: Tensor) -> list[str]:
    """The columns of the table."""
    elbo = Estimate.of(model.elbo(x, draws=16).value)
    rest = Estimate.of(score_columns(model, x, draws=DRAWS).log_prob.nansum(1))
    part = torch.where(torch.rand(x.shape, generator=generator(7)) < 0.5, math.inf, x)
    proposals = Proposals(DRAWS)
    z, ratio = next(proposals.blocks(model, proposals.q(model, part), ExampleNoise(0, range(len(x)))))
    terms = model.decode(z).log_prob_by_dimension(x).double()
    out = hidden(part)
    weights = (ratio + terms.masked_fill(out, 0).sum(-1)).log_softmax(0)
    half = Estimate.of((weights + terms.masked_fill(~out, 0).sum(-1)).logsumexp(0))
    return [str(elbo), str(rest), str(half), f"{effective_sample_size(weights.mT).median() / DRAWS:.2f}"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
