"""What a recipe leaves open follows the data; what it says stands."""

from pathlib import Path

import numpy as np
import pytest

from jensen.nets import ResidualMLP, UNet
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings

DATA = {
    "bytes": (np.arange(20 * 28 * 28, dtype="uint8").reshape(20, 28, 28), UNet, {"octaves": 8, "patch": (2, 2)}, 0.5),
    "small": (np.arange(20 * 64, dtype="uint8").reshape(20, 8, 8), UNet, {"octaves": 8, "patch": (1, 1)}, 0.5),
    "large": (np.zeros((20, 70, 65), "uint8") + np.arange(70, dtype="uint8")[:, None], UNet, {"patch": (4, 4)}, 0.5),
    "floats": (np.random.default_rng(0).normal(size=(20, 12, 9)), UNet, {"octaves": 0, "patch": (1, 1)}, 1.0),
    "vectors": (np.random.default_rng(0).normal(size=(20, 5)), ResidualMLP, {}, 1.0),
}


@pytest.mark.parametrize("kind", DATA)
def test_network_and_scale_follow_the_data(kind: str, tmp_path: Path) -> None:
    values, network, sizes, scale = DATA[kind]
    np.save(tmp_path / "x.npy", values)
    recipe = DiffusionRecipe(data=str(tmp_path / "x.npy"))
    denoiser = build_model(recipe, load_dataset(recipe).spec).denoiser
    assert isinstance(denoiser.network, network)
    found = {"octaves": getattr(denoiser.network, "octaves", None)}
    if network is UNet:
        found["patch"] = denoiser.network.patches.patch
    assert found.items() >= sizes.items()
    assert denoiser.parameterisation.sigma_data == scale


def test_what_is_said_stands(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", DATA["bytes"][0])
    settings = DiffusionSettings(octaves=0, patch=3, sigma_data=0.25, widths=(8,))
    recipe = DiffusionRecipe(data=str(tmp_path / "x.npy"), model=settings)
    denoiser = build_model(recipe, load_dataset(recipe).spec).denoiser
    assert (denoiser.network.octaves, denoiser.network.patches.patch) == (0, (3, 3))
    assert denoiser.parameterisation.sigma_data == 0.25


def test_a_partial_training_table_keeps_the_family_s_defaults() -> None:
    recipe = DiffusionRecipe.model_validate({"training": {"steps": 7}})
    assert recipe.training.steps == 7
    assert (recipe.training.optimiser, recipe.training.ema_decay) == ("muon", 0.999)
