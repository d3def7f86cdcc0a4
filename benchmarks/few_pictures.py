"""Held-out bounds of models of 200 digits, trained with and without augmentation.

    python benchmarks/few_pictures.py

Every model is trained on the same 200 of scikit-learn's digits, keeps the weights with the best bound on 197 others,
and is evaluated on the remaining 1,400. The gain over training without augmentation is paired by example; its standard
error is that over the examples, for one training each.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sklearn.datasets import load_digits

import jensen
from jensen.data.augment_options import AugmentOptions
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.settings import TrainingSettings

CHANGES = {
    "none": {},
    "shift 0.125": {"shift": 0.125},
    "shift 0.125, jitter 0.1": {"shift": 0.125, "jitter": 0.1},
    "crop 0.2": {"crop": 0.2},
    "flip horizontal": {"flip": "horizontal"},
}
STEPS = {"vae": 3000, "diffusion": 1500}


def digits() -> dict[str, torch.Tensor]:
    """200 digits for training, 197 for validation, 1,400 for the test."""
    found = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(found.images).to(torch.uint8)[order]
    return {"x_train": x[:200], "x_val": x[200:397], "x_test": x[397:]}


def recipe(family: str, changes: dict[str, object]) -> VAERecipe | DiffusionRecipe:
    """The recipe of a family with its defaults, fewer steps, and the best weights of ten validations."""
    options = {"augment": AugmentOptions(**changes), "steps": STEPS[family], "validate_every": STEPS[family] // 10}
    read = {"levels": 17}
    if family == "vae":
        return VAERecipe(data=digits(), read=read, model=VAESettings(), training=TrainingSettings(**options))
    model, training = DiffusionSettings(widths=(32, 32)), DiffusionTraining(**options)
    return DiffusionRecipe(data=digits(), read=read, model=model, training=training)


def main() -> None:
    print("| family | augmentation | bound, nats | gain, nats | best step | CPU seconds |\n|---|---|---|---|---|---|")
    for family in STEPS:
        plain = None
        for name, changes in CHANGES.items():
            began = time.process_time()
            with TemporaryDirectory() as folder:
                run = jensen.train(recipe(family, changes), Path(folder) / "run")
            seconds = time.process_time() - began
            x = run.spec.preparation(run.examples().x)
            nats = torch.cat([run.model.elbo(part, draws=4, seed=1).value.detach() for part in x.split(200)])
            plain = nats if plain is None else plain
            gain = nats - plain
            errors = [float(values.std() / len(values) ** 0.5) for values in (nats, gain)]
            print(
                f"| {family} | {name} | {nats.mean():.2f} ± {errors[0]:.2f} | {gain.mean():.2f} ± {errors[1]:.2f} "
                f"| {run.step:,} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
