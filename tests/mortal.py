"""Trainings that die: what the processes of test_survival.py run, in a module that they can import."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import jensen
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.families import Recipe
from jensen.recipe.vae.settings import VAERecipe, VAESettings

TRAINING = {
    "steps": 60,
    "batch_size": 32,
    "ema_decay": 0.99,
    "log_every": 7,
    "validate_every": 20,
    "validation_examples": 20,
    "checkpoint_every": 5,
    "sample_every": 30,
}
RECIPES: dict[str, Recipe] = {
    "vae": VAERecipe(model=VAESettings(latent_dims=2, hidden=(8,)), training=TRAINING),
    "diffusion": DiffusionRecipe(
        model=DiffusionSettings(network="mlp", width=16, depth=1, bound_terms=3, sampling_steps=3), training=TRAINING
    ),
    "rolled back": VAERecipe(
        model=VAESettings(latent_dims=2, hidden=(8,)),
        training=TRAINING
        | {"learning_rate": 0.1, "log_every": 2, "explosion": 0.2, "on_divergence": "rollback", "rollbacks": 10},
    ),
}


def go_on(recipe: Recipe, folder: Path) -> None:
    """What a user does: train, or resume what is there."""
    if (folder / "recipe.json").exists():
        jensen.resume(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # killed before it was a run: resume would say that it is none
        jensen.train(recipe, folder)


def killed_at(recipe: Recipe, folder: Path, change: int) -> None:
    """The same, and SIGKILL before the file system is changed for the `change`-th time."""
    left = [change]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def deadly(*arguments: object, **named: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return deadly

    for name in ("fsync", "replace", "rename", "mkdir", "rmdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    go_on(recipe, folder)
