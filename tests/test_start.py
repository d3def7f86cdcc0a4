"""Fine-tuning: training starts from another run's weights, on other data, labels and sizes, and then stands alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import jensen
from jensen.cli import main
from jensen.data.augment_options import AugmentOptions
from jensen.errors import InputError
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.run import Run
from jensen.run.run import load
from jensen.training.checkpoint import checkpoints, load_weights
from jensen.training.settings import TrainingSettings

UNCHANGED = AugmentOptions()
CONDITION = "denoiser.network.condition"
UNET = {"widths": (8, 16), "bound_terms": 3, "sampling_steps": 3}


def pictures(names: tuple[str, ...] | None, side: int = 8, channels: int = 1, count: int = 40) -> dict[str, np.ndarray]:
    source = np.random.default_rng(side)
    x = source.integers(0, 256, (count, channels, side, side)).astype(np.uint8)
    return {"x": x} if names is None else {"x": x, "y": np.array(names)[np.arange(count) % len(names)]}


def training(kind: type, steps: int = 2, **further: object) -> TrainingSettings:
    return kind(steps=steps, batch_size=8, validation_examples=4, checkpoint_every=1, keep_last=9, **further)


def diffusion(data: object, steps: int = 2, augment: AugmentOptions = UNCHANGED, **settings: object) -> DiffusionRecipe:
    return DiffusionRecipe(
        data=data,
        model=DiffusionSettings(**settings),
        training=training(DiffusionTraining, steps, augment=augment),
    )


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small U-Net with the classes cat, dog, emu."""
    folder = tmp_path_factory.mktemp("start") / "unet"
    run = jensen.train(diffusion(pictures(("cat", "dog", "emu")), 6, **UNET), folder)
    condition = run.model.state_dict()[f"{CONDITION}.labels.weight"]
    assert len(condition) == 4
    return run


def at_the_start(run: Run) -> dict[str, torch.Tensor]:
    """The weights of the first checkpoint."""
    first = checkpoints(run.folder / "checkpoints")[0]
    assert first.name == "step-00000000"
    load_weights(first, run.model)
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def prediction(run: Run, side: int = 8, label: int | None = None) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * side * side).view(2, 1, side, side)
    labels = None if label is None else torch.full((2,), label)
    with torch.no_grad():
        return run.model.denoiser(x, torch.tensor([1.0, -1.0]), labels).x0


# ---------------------------------------------------------------------------------------------- which weights


def test_training_starts_from_the_best_weights_and_says_so(unet: Run, tmp_path: Path):
    run = jensen.train(diffusion(pictures(("cat", "dog", "emu"))), tmp_path / "run", start=unet)
    assert run.recipe.model.widths == (8, 16)
    assert (run.recipe.start_from.path, run.recipe.start_from.weights) == (str(unet.folder.resolve()), unet.weights)
    before, start = unet.model.state_dict(), at_the_start(run)
    assert start.keys() == before.keys()
    for name in before:
        fresh = name.startswith("errors.")  # the errors were those on other data
        assert torch.equal(start[name], before[name]) != fresh, name
    assert jensen.info(load(run.folder))["started"].startswith(f"from {unet.folder.resolve()}, weights with")


def test_labels_are_matched_by_their_names_and_new_ones_begin_as_no_label(unet: Run, tmp_path: Path):
    run = jensen.train(diffusion(pictures(("ant", "dog", "cat", "fox", "bee"))), tmp_path / "run", start=unet)
    assert run.spec.label_names == ("ant", "bee", "cat", "dog", "fox")
    old, new = (weights[f"{CONDITION}.labels.weight"] for weights in (unet.model.state_dict(), at_the_start(run)))
    assert torch.equal(new, old[[3, 3, 0, 1, 3, 3]])
    assert torch.equal(prediction(run, label=3), prediction(unet, label=1))
    assert torch.equal(prediction(run, label=0), prediction(unet))


@pytest.mark.parametrize(
    ("names", "settings", "augment"),
    [
        (None, {}, UNCHANGED),  # no labels: their vector for no label moves into a bias
        (("ant", "bee"), {"conditional": False}, UNCHANGED),
        (("ant", "bee"), {}, AugmentOptions(flip="all")),
    ],
)
def test_the_prediction_without_a_label_stays_the_same(
    unet: Run, tmp_path: Path, names: tuple[str, ...] | None, settings: dict[str, object], augment: AugmentOptions
):
    run = jensen.train(diffusion(pictures(names), augment=augment, **settings), tmp_path / "run", start=unet)
    at_the_start(run)
    torch.testing.assert_close(prediction(run), prediction(unet))


def test_labels_where_the_other_run_had_none(tmp_path: Path):
    plain = jensen.train(diffusion(pictures(None), **UNET), tmp_path / "plain")
    run = jensen.train(diffusion(pictures(("ant", "bee"))), tmp_path / "run", start=plain)
    at_the_start(run)
    for label in (None, 0, 1):
        torch.testing.assert_close(prediction(run, label=label), prediction(plain))
    after = load(run.folder).model.state_dict()[f"{CONDITION}.labels.weight"]
    assert (after[:2] != 0).any()  # and labels are learned


def test_a_condition_on_augmentation_is_kept_where_the_changes_are_the_same(tmp_path: Path):
    flips, shifts = AugmentOptions(flip="horizontal"), AugmentOptions(flip="vertical")
    first = jensen.train(diffusion(pictures(None), augment=flips, **UNET), tmp_path / "first")
    told = f"{CONDITION}.augmentation.weight"
    same = jensen.train(diffusion(pictures(None), augment=flips), tmp_path / "same", start=first)
    assert torch.equal(at_the_start(same)[told], first.model.state_dict()[told])
    other = jensen.train(diffusion(pictures(None), augment=shifts), tmp_path / "other", start=first)
    assert (at_the_start(other)[told] == 0).all()
    without = jensen.train(diffusion(pictures(None)), tmp_path / "without", start=first)
    assert told not in at_the_start(without)


def test_a_larger_size_keeps_the_choices_that_depended_on_the_size(unet: Run, tmp_path: Path):
    assert unet.recipe.model.patch is None  # 1 at 8 pixels; at 20 pixels the choice would be 2
    run = jensen.train(diffusion(pictures(None, side=20)), tmp_path / "run", start=unet)
    assert (run.recipe.model.patch, run.recipe.model.octaves) == (1, 8)
    weight = "denoiser.network.first.weight"
    assert torch.equal(at_the_start(run)[weight], unet.model.state_dict()[weight])
    assert run.model.sample(1).shape == (1, 1, 20, 20)


def test_a_vae_keeps_the_rows_of_known_labels(tmp_path: Path):
    small = VAESettings(latent_dims=2, hidden=(8,), predict="label", predict_hidden=(4,))
    first = jensen.train(
        VAERecipe(data=pictures(("cat", "dog")), model=small, training=training(TrainingSettings)), tmp_path / "first"
    )
    recipe = VAERecipe(data=pictures(("dog", "emu", "cat")), training=training(TrainingSettings))
    run = jensen.train(recipe, tmp_path / "run", start=tmp_path / "first")
    assert run.spec.label_names == ("cat", "dog", "emu")
    old, new = first.model.state_dict(), at_the_start(run)
    for name in ("target.network.layers.1.weight", "target.network.layers.1.bias"):
        assert torch.equal(new[name][:2], old[name])
    assert torch.equal(new["target.network.layers.0.weight"], old["target.network.layers.0.weight"])


# ---------------------------------------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (
            lambda: diffusion(pictures(None), widths=(8, 8)),
            r"the weight denoiser\.network\.\S+ has shape .* there and .* here; widths is \(8, 16\) there and \(8, 8\)",
        ),
        (
            lambda: diffusion(pictures(None, channels=3)),
            r"the weight \S+ has .*; examples of shape is \(1, 8, 8\) there and \(3, 8, 8\) here; make them equal",
        ),
        (
            lambda: diffusion(pictures(None), blocks=2),
            r"has shape \(8,\) there and no place here; blocks is 1",
        ),
        (
            lambda: VAERecipe(data=pictures(None)),
            "is a run of family diffusion, not vae; use it by",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_setting(unet: Run, tmp_path: Path, recipe, says: str):
    with pytest.raises(InputError, match=f"^--from {unet.folder}.*{says}"):
        jensen.train(recipe(), tmp_path / "run", start=unet)
    assert not (tmp_path / "run").exists()


def test_an_mlp_of_another_size_is_refused(tmp_path: Path):
    first = jensen.train(diffusion(pictures(None), network="mlp", width=8, depth=1), tmp_path / "first")
    with pytest.raises(InputError, match=r"the weight denoiser\.network\.first\.weight has shape \(8, 64\) there and"):
        jensen.train(diffusion(pictures(None, side=12)), tmp_path / "run", start=first)


# ---------------------------------------------------------------------------------------------- the run stands alone


def test_the_run_is_resumed_without_the_other_run(unet: Run, tmp_path: Path):
    """From its very first checkpoint, as if it had been killed before the first step."""
    origin, data = tmp_path / "origin", tmp_path / "data.npz"
    shutil.copytree(unet.folder, origin)
    np.savez(data, **pictures(("cat", "dog")))
    run = jensen.train(diffusion(str(data)), tmp_path / "run", start=origin)
    killed = tmp_path / "killed"
    shutil.copytree(run.folder, killed)
    assert checkpoints(killed / "checkpoints")[0].name == "step-00000000"
    for path in checkpoints(killed / "checkpoints")[1:]:
        shutil.rmtree(path)
    shutil.rmtree(origin)
    resumed = jensen.resume(killed)
    assert (resumed.step, resumed.weights) == (run.step, run.weights)
    assert resumed.recipe == run.recipe
    shutil.rmtree(killed / "checkpoints")
    with pytest.raises(InputError, match="holds no checkpoint, not even its starting weights"):
        jensen.resume(killed)


def test_the_recipe_of_such_a_run_repeats_it_from_the_same_weights_only(unet: Run, tmp_path: Path):
    origin = tmp_path / "origin"
    shutil.copytree(unet.folder, origin)
    data = pictures(("cat", "dog"))
    run = jensen.train(diffusion(data), tmp_path / "run", start=str(origin))
    values = json.loads((run.folder / "recipe.json").read_text())
    del values["format"]
    again = DiffusionRecipe.model_validate(values | {"data": data})
    assert jensen.train(again, tmp_path / "again").weights == run.weights
    shutil.rmtree(origin)
    jensen.train(diffusion(pictures(None), **UNET), origin)
    with pytest.raises(InputError, match=f"has the weights [0-9a-f]+, but the recipe names {unet.weights}; restore"):
        jensen.train(again, tmp_path / "third")


def test_the_command_line_takes_the_model_of_the_other_run_and_flags_win(
    unet: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    np.savez(tmp_path / "new.npz", **pictures(("dog", "gnu")))
    words = ["train", "diffusion", "--from", str(unet.folder), "--data", str(tmp_path / "new.npz"), "--steps", "1"]
    words += ["--batch-size", "8", "--sampling-steps", "7", "--validation-examples", "4"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    run = load(tmp_path / "run")
    assert (run.recipe.model.widths, run.recipe.model.sampling_steps) == ((8, 16), 7)
    assert run.recipe.start_from.weights == unet.weights
    capsys.readouterr()
    assert main(["train", "vae", "--from", str(unet.folder), "--out", str(tmp_path / "no")]) == 2
    assert "is a run of family diffusion, not vae" in capsys.readouterr().err
    assert main(["train", "vae", "--from", str(tmp_path / "nothing"), "--out", str(tmp_path / "no")]) == 2
    assert "is not a run" in capsys.readouterr().err


def test_other_data_are_not_read_by_the_options_of_the_other_run(tmp_path: Path) -> None:
    """Its options of reading belong to its data: the column of its labels is not expected elsewhere."""
    (tmp_path / "named.csv").write_text("a,b,kind\n" + "".join(f"{n},{n % 5},{n % 2}\n" for n in range(40)))
    (tmp_path / "bare.csv").write_text("a,b\n" + "".join(f"{n},{n % 5}\n" for n in range(40)))
    named, bare, start, other = (str(tmp_path / name) for name in ("named.csv", "bare.csv", "start", "other"))
    small = ["--steps", "1", "--levels", "64", "--layout", "vector"]
    assert main(["train", "vae", "--data", named, "--labels", "kind", "--hidden", "4", *small, "--out", start]) == 0
    assert main(["train", "vae", "--data", bare, "--from", start, *small, "--out", other]) == 0
    assert (load(other).spec.options.labels, load(start).spec.options.labels) == (None, "kind")
    assert main(["train", "vae", "--from", start, "--steps", "1", "--out", str(tmp_path / "own")]) == 0
    assert load(tmp_path / "own").spec.options.labels == "kind"
