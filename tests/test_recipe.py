"""Recipes: settings that cannot act are refused, and a config file may be TOML or the recipe.json of a run."""

import json
from pathlib import Path

import numpy as np
import pytest
from data_files import byte_images

import jensen
from jensen.cli import main
from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.recipe.latent.settings import LatentRecipe, LatentSettings
from jensen.recipe.settings import AbstractRecipe
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.settings import TrainingSettings

VECTORS = np.random.default_rng(0).normal(size=(40, 3))
LABELLED = {"x": byte_images(40), "y": np.arange(40) % 3}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"network": "convolutional", "hidden": (9,)}, "hidden 9"),
        ({"network": "convolutional", "hidden": ()}, "hidden of no layer"),
        ({"network": "convolutional", "activation": "gelu"}, "activation gelu"),
        ({"hidden": (9,), "channels": (8,)}, "channels 8"),
        ({"binarisation": "static"}, "binarisation static"),
        ({"likelihood": "bernoulli", "variance": "fixed"}, "variance fixed"),
        ({"likelihood": "categorical", "variance": "shared"}, "variance shared"),
        ({"fixed_scale": 0.5}, "fixed_scale 0.5"),
        ({"importance_samples": 9}, "importance_samples 9"),
        ({"predict_hidden": (9,)}, "predict_hidden 9"),
    ],
)
def test_settings_of_a_vae_that_cannot_act_are_refused(settings: dict[str, object], named: str):
    with pytest.raises(InputError, match=rf"^{named}: .*(;|, or) leave it out$"):
        load_dataset(VAERecipe(data=LABELLED, model=VAESettings(**settings)))


@pytest.mark.parametrize(
    "recipe",
    [
        VAERecipe(data=VECTORS, model=VAESettings(network="convolutional")),
        DiffusionRecipe(data=VECTORS, model=DiffusionSettings(network="unet")),
        LatentRecipe(data=VECTORS, model=LatentSettings(vae=VAESettings(network="convolutional"))),
    ],
)
def test_networks_for_pictures_refuse_vectors(recipe: AbstractRecipe):
    line = r"^network \w+ for vectors of shape \(3,\): choose network mlp; for signals give --layout signal$"
    with pytest.raises(InputError, match=line):
        build_model(recipe, load_dataset(recipe).spec)


@pytest.mark.parametrize(
    "settings",
    [
        {"network": "convolutional", "activation": "gelu", "predict": "label"},
        {"channels": (8,), "blocks": 2, "patch": 1, "latent_channels": 2},
        {"likelihood": "bernoulli", "binarisation": "static"},
        {"variance": "fixed", "fixed_scale": 0.5},
        {"objective": "importance-weighted", "importance_samples": 9},
        {"predict": "label", "predict_hidden": (9,)},
    ],
)
def test_settings_of_a_vae_that_act_are_accepted(settings: dict[str, object]):
    load_dataset(VAERecipe(data=LABELLED, model=VAESettings(**settings)))


@pytest.mark.parametrize(
    ("data", "settings", "named"),
    [
        (LABELLED, {"width": 64}, "width 64"),
        (LABELLED, {"depth": 2}, "depth 2"),
        (LABELLED, {"network": "transformer", "widths": (8, 8)}, "widths 8 8"),
        (LABELLED, {"network": "transformer", "blocks": 2}, "blocks 2"),
        (LABELLED, {"network": "mlp", "attention": (1,)}, "attention 1"),
        (LABELLED, {"network": "transformer", "octaves": 3}, "octaves 3"),
        (VECTORS, {"patch": 2}, "patch 2"),
        (VECTORS, {"widths": (8, 8)}, "widths 8 8"),
        (LABELLED, {"noise_schedule": "cosine", "log_snr_range": (9.0, -9.0)}, "log_snr_range 9.0 -9.0"),
        (LABELLED, {"parameterisation": "epsilon", "objective": "simple", "sigma_data": 1.0}, "sigma_data 1.0"),
        (LABELLED, {"objective": "simple", "noise_mean": 0.0}, "noise_mean 0.0"),
        (LABELLED, {"objective": "bound", "noise_deviation": 2.0}, "noise_deviation 2.0"),
        (LABELLED, {"conditional": False, "label_dropout": 0.2}, "label_dropout 0.2"),
        (LABELLED["x"], {"label_dropout": 0.2}, "label_dropout 0.2"),
    ],
)
def test_settings_of_a_diffusion_model_that_cannot_act_are_refused(
    data: object, settings: dict[str, object], named: str
):
    with pytest.raises(InputError, match=rf"^{named}: .*(;|, or) leave it out$"):
        load_dataset(DiffusionRecipe(data=data, model=DiffusionSettings(**settings)))


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (VECTORS, {"width": 64, "depth": 2, "octaves": 0}),
        (LABELLED, {"network": "transformer", "width": 64, "depth": 2, "patch": 1}),
        (LABELLED, {"widths": (8, 8), "blocks": 2, "attention": (1,), "octaves": 3, "patch": 1}),
        (LABELLED, {"objective": "simple", "sigma_data": 1.0, "log_snr_range": (9.0, -9.0)}),
        (LABELLED, {"noise_mean": 0.0, "noise_deviation": 2.0, "label_dropout": 0.2, "guidance": 2.0}),
        (LABELLED["x"], {"conditional": False}),
    ],
)
def test_settings_of_a_diffusion_model_that_act_are_accepted(data: object, settings: dict[str, object]):
    load_dataset(DiffusionRecipe(data=data, model=DiffusionSettings(**settings)))


@pytest.mark.parametrize("family", [VAERecipe, DiffusionRecipe])
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"milestones": (10,)}, "milestones 10"),
        ({"decay": 0.5}, "decay 0.5"),
        ({"schedule": "staircase", "decay": 0.5}, "decay 0.5"),
        ({"schedule": "staircase"}, "schedule staircase"),
        ({"sharding": "full"}, "sharding full"),
        ({"rollbacks": 5}, "rollbacks 5"),
        ({"micro_batch_size": 500}, "micro_batch_size 500"),
        ({"patience": 3}, "patience 3"),
        ({"validate_every": 3}, "validate_every 3"),
        ({"validation_examples": 3}, "validation_examples 3"),
    ],
)
def test_settings_of_training_that_cannot_act_are_refused(family: type, settings: dict[str, object], named: str):
    kind = TrainingSettings if family is VAERecipe else DiffusionTraining
    without = {"read": ReadOptions(validation_fraction=0.0)} if "vali" in named or "pat" in named else {}
    with pytest.raises(InputError, match=rf"^{named}: .*(;|, or) leave it out$"):
        load_dataset(family(data=LABELLED, training=kind(**settings), **without))
    if without:
        load_dataset(family(data=LABELLED, training=kind(**settings)))


def test_nothing_is_written_where_a_setting_cannot_act(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An unconditional model of a .npy where labels were asked for; patience without validation examples."""
    np.save(tmp_path / "x.npy", byte_images(40))
    train = ["train", "vae", "--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "run"), "--steps", "3"]
    for words, says in (
        (["--labels", "y"], "--labels is for named arrays (.npz), a dict of arrays"),
        (["--array", "x"], "--array is for named arrays (.npz), a dict of arrays"),
        (["--patience", "3", "--validation-fraction", "0"], "patience 3: acts on validation examples"),
    ):
        assert main([*train, *words]) == 2
        assert says in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_the_recipes_of_the_repository_have_no_idle_setting():
    for path in (Path(__file__).parents[1] / "recipes").glob("*.toml"):
        family = DiffusionRecipe if "[model]\nnetwork" in path.read_text() else VAERecipe
        try:
            recipe = family.from_file(path)
        except InputError:
            recipe = (VAERecipe if family is DiffusionRecipe else DiffusionRecipe).from_file(path)
        values = recipe.model_dump()
        load_dataset(type(recipe).model_validate({**values, "data": LABELLED}))


# ---------------------------------------------------------------------------------------------- config files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps = 50\n", "field steps at the top belongs to the table [training]; write it below a line [training]"),
        ("latent_dims = 3\n", "field latent_dims at the top belongs to the table [model]"),
        ("array = 'x'\n", "field array at the top belongs to the table [read]"),
        ("[model]\nsteps = 50\n", "field steps in the table [model] belongs to the table [training]"),
        ("[training]\nsplit_seed = 50\n", "field split_seed in the table [training] belongs to the table [read]"),
        ("stepz = 50\n", "unknown field stepz; mend its name or leave it out"),
        ("{'a': 1}", "is neither TOML nor JSON"),
        ("steps = [", "is neither TOML nor JSON"),
        ('{"family": "diffusion"}', "is a recipe of family diffusion; use it by: jensen train diffusion"),
    ],
)
def test_a_field_in_the_wrong_table_is_told_its_place(tmp_path: Path, text: str, says: str):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        VAERecipe.from_file(tmp_path / "mine.toml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_recipe_of_a_run_is_a_config_file(tmp_path: Path):
    small = VAESettings(latent_dims=2, hidden=(8,))
    first = jensen.train(VAERecipe(seed=4, model=small, training=TrainingSettings(steps=9)), tmp_path / "first")
    config = str(tmp_path / "first" / "recipe.json")
    assert main(["train", "vae", "--config", config, "--out", str(tmp_path / "second")]) == 0
    assert jensen.load(tmp_path / "second").recipe == first.recipe
    assert main(["train", "vae", "--config", config, "--steps", "5", "--out", str(tmp_path / "third")]) == 0
    written = json.loads((tmp_path / "third" / "recipe.json").read_text())
    assert (written["training"]["steps"], written["seed"], written["model"]["latent_dims"]) == (5, 4, 2)
