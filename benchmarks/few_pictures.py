"""Held-out bounds of models of 200 digits, trained with and without augmentation.

    python benchmarks/few_pictures.py

Every model is trained on the same 200 of scikit-learn's digits, keeps the weights with the best bound on 197 others,
and is evaluated on 1,400 (vae) or 400 (diffusion) of the rest. The gain over training without augmentation is paired by
example; its standard error is that over the examples, for one training each. `python benchmarks/few_pictures.py
diffusion` trains one family only; with `--cost`, the program prints the time of augmentation instead.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sklearn.datasets import load_digits

import jensen
from jensen.data.augment import Augmentation
from jensen.data.augment_options import AugmentOptions
from jensen.data.load import load_data
from jensen.randomness import Noise, generator
from jensen.recipe.build import build_model
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.loop import steps
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState

CHANGES = {
    "none": {},
    "shift 0.125": {"shift": 0.125},
    "shift 0.125, jitter 0.1": {"shift": 0.125, "jitter": 0.1},
    "crop 0.2": {"crop": 0.2},
    "flip horizontal": {"flip": "horizontal"},
}
STEPS = {"vae": 3000, "diffusion": 2000}
EXAMPLES = {"vae": 1400, "diffusion": 400}
DRAWS = {"vae": 4, "diffusion": 2}


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
    model, training = DiffusionSettings(network="mlp"), DiffusionTraining(**options)
    return DiffusionRecipe(data=digits(), read=read, model=model, training=training)


def cost() -> None:
    """CPU milliseconds of the augmentation of one batch of 32 images, beside a training step of the default U-Net."""
    all_of_them = {"flip": "all", "shift": 0.125, "crop": 0.2, "jitter": 0.1}
    print("| 32 images | flip, shift | all | training step without |\n|---|---|---|---|")
    for shape in ((1, 28, 28), (3, 32, 32)):
        x = torch.randint(0, 256, (64, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        data, found = load_data(x.numpy()), []
        for changes in ({"flip": "horizontal", "shift": 0.125}, all_of_them):
            changed = Augmentation.of(AugmentOptions(**changes), shape, data.spec.preparation)
            raw = x[:32]
            found.append(milliseconds(lambda step, c=changed, r=raw: c(r, Noise(generator(step)))))
        state = TrainingState.start(build_model(DiffusionRecipe(), data.spec), DiffusionTraining())
        records = steps(state, data.train, data.spec.preparation, DiffusionTraining(), 0)
        found.append(milliseconds(lambda _, r=records: next(r), 10))
        print(f"| {' x '.join(map(str, shape))} | {' | '.join(f'{value:.2f}' for value in found)} |", flush=True)


def milliseconds(compute: Callable[[int], object], repeats: int = 50) -> float:
    """The least CPU time of one call, after a first one."""
    compute(0)
    found = []
    for step in range(1, repeats):
        began = time.process_time()
        compute(step)
        found.append(time.process_time() - began)
    return 1000 * min(found)


def main() -> None:
    print("| family | augmentation | bound, nats | gain, nats | best step | CPU seconds |\n|---|---|---|---|---|---|")
    for family in [family for family in STEPS if family in sys.argv] or STEPS:
        plain = None
        for name, changes in CHANGES.items():
            began = time.process_time()
            with TemporaryDirectory() as folder:
                run = jensen.train(recipe(family, changes), Path(folder) / "run")
            seconds = time.process_time() - began
            x = run.spec.preparation(run.examples().x[: EXAMPLES[family]])
            nats = torch.cat(
                [run.model.elbo(part, draws=DRAWS[family], seed=1).value.detach() for part in x.split(200)]
            )
            plain = nats if plain is None else plain
            gain = nats - plain
            errors = [float(values.std() / len(values) ** 0.5) for values in (nats, gain)]
            print(
                f"| {family} | {name} | {nats.mean():.2f} ± {errors[0]:.2f} | {gain.mean():.2f} ± {errors[1]:.2f} "
                f"| {run.step:,} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    cost() if "--cost" in sys.argv else main()
