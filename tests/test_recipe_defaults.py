"""What a recipe leaves open follows the data; what it says stands."""

from pathlib import Path

import numpy as np
import pytest

from jensen.diffusion import (
    Ancestral,
    BetaVariance,
    EDMWeighting,
    Epsilon,
    LastStep,
    LinearBeta,
    Preconditioned,
    Simple,
    UniformTime,
    UniformTimes,
)
from jensen.errors import InputError
from jensen.likelihood import GaussianLikelihood, LearnedScale
from jensen.nets import ResidualMLP, UNet
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.families import read_recipe
from jensen.recipe.vae.settings import VAERecipe
from jensen.vae import AmortisedPosterior, ElboObjective, PerDatapointPosterior

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


@pytest.mark.parametrize(
    ("shape", "octaves", "skip", "mean"),
    [
        ((28, 28), 8, 0.5, -1.2),
        ((3, 32, 32), 8, 0.5, -1.2),
        ((3, 64, 64), 0, 0.1, -0.507),
        ((4, 64, 64), 0, 0.1, -0.507),
    ],
)
def test_large_patches_are_predicted_as_data_and_learned_at_more_noise(
    shape: tuple[int, ...], octaves: int, skip: float, mean: float, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (20, *shape), dtype="uint8"))
    recipe = DiffusionRecipe(data=str(tmp_path / "x.npy"))
    model = build_model(recipe, load_dataset(recipe).spec)
    assert model.denoiser.network.octaves == octaves
    assert model.denoiser.parameterisation == Preconditioned(0.5, skip)
    assert model.objective.weighting == EDMWeighting(0.5, mean, 1.2, skip)
    assert model.objective.noise.mean == mean


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


# ---------------------------------------------------------------------------------------------- the lecture's models


RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def test_ddpm_is_the_lectures() -> None:
    recipe = DiffusionRecipe.from_file(RECIPES / "ddpm.toml")
    model = build_model(recipe, load_dataset(recipe).spec)
    betas = np.linspace(1e-4, 0.02, 1000)  # (5.1)
    np.testing.assert_allclose(model.schedule.log_alpha_bar[1:], np.log1p(-betas).cumsum())
    assert isinstance(model.schedule, LinearBeta)
    assert isinstance(model.denoiser.parameterisation, Epsilon)  # (5.15)
    assert (model.objective.weighting, model.objective.steps) == (Simple(), 1000)  # (5.17)
    assert isinstance(model.objective.times, UniformTimes)  # (5.18)
    assert (model.scoring.steps, model.scoring.variance) == (1000, BetaVariance())  # (5.12)
    assert (model.generation.sampler, model.generation.steps) == (
        Ancestral(BetaVariance(), LastStep.MEAN),
        1000,
    )  # (5.19)
    assert isinstance(model.generation.grid, UniformTime)
    assert model.classes is None
    assert recipe.training.patience is not None


@pytest.mark.parametrize(
    ("name", "posterior"), [("vae", AmortisedPosterior), ("vae-per-datapoint", PerDatapointPosterior)]
)
def test_both_vaes_are_the_lectures(name: str, posterior: type) -> None:
    recipe = VAERecipe.from_file(RECIPES / f"{name}.toml")
    model = build_model(recipe, load_dataset(recipe).spec)
    assert isinstance(model.posterior, posterior)  # (4.5)
    assert isinstance(model.likelihood, GaussianLikelihood)  # (4.2)
    assert isinstance(model.likelihood.scale, LearnedScale)
    assert model.objective == ElboObjective()  # (4.8)
    assert recipe.training.patience is not None


def test_the_last_step_is_a_choice_of_the_ancestral_sampler_alone() -> None:
    recipe = DiffusionRecipe(model=DiffusionSettings(sampler="ancestral", last_step="draw"))
    assert build_model(recipe, load_dataset(recipe).spec).generation.sampler.last is LastStep.DRAW
    with pytest.raises(InputError, match="last_step draw with sampler heun: choose sampler ancestral"):
        read_recipe({"family": "diffusion", "model": {"sampler": "heun", "last_step": "draw"}}, "here")
