"""Runs of the family latent: recipe, flags, stages, resume, and every command on such a run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import byte_images
from safetensors.torch import load_file

import jensen
from jensen.cli import main
from jensen.commands import commands
from jensen.commands.sample import guide_of
from jensen.compression.latent import VAECodec
from jensen.data.augment_options import AugmentOptions
from jensen.errors import InputError
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionSettings, DiffusionTraining
from jensen.recipe.families import read_recipe
from jensen.recipe.latent.settings import LatentRecipe, LatentSettings
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.checkpoint import checkpoints
from jensen.training.log import read_lines
from jensen.training.loop import learning_rate, stage_of
from jensen.training.measure import measured
from jensen.training.state import TrainingState

LABELLED = {"x": byte_images(60), "y": np.arange(60) % 3}
FLAT = VAESettings(network="mlp", hidden=(16,), latent_dims=3)
PRIOR = DiffusionSettings(width=16, depth=1, bound_terms=3, sampling_steps=3)
TRAINING = DiffusionTraining(
    steps=20, batch_size=8, log_every=3, validate_every=4, checkpoint_every=5, keep_last=9, warmup_steps=2
)


def tiny(**changes: object) -> LatentRecipe:
    settings = {"vae": FLAT, "prior": PRIOR, "vae_steps": 7, "prior_steps": 6, **changes}
    return LatentRecipe(data=LABELLED, model=LatentSettings(**settings), training=TRAINING)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> jensen.Run:
    """Three stages: steps 1 to 7, 8 to 13, 14 to 20; the checkpoints are of steps 5, 10, 15, 20 and the best ones."""
    return jensen.train(tiny(), tmp_path_factory.mktemp("latent") / "run")


# ---------------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize("step", [5, 10, 15])
def test_a_run_resumed_in_any_stage_ends_with_the_same_bits(run: jensen.Run, tmp_path: Path, step: int) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    for path in checkpoints(tmp_path / "run/checkpoints"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    jensen.resume(tmp_path / "run", data=LABELLED)
    whole, parts = (checkpoints(folder / "checkpoints")[-1] for folder in (run.folder, tmp_path / "run"))
    assert whole.name == parts.name == "step-00000020"
    for file in ("model.safetensors", "optimiser.safetensors", "state.json"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file


def test_each_stage_has_its_own_schedule_and_search_for_the_best(run: jensen.Run) -> None:
    assert run.model.stages == (7, 13)
    assert [stage_of(step, (7, 13), 20) for step in (6, 7, 12, 13, 19)] == [
        *[(0, 7), (7, 13), (7, 13), (13, 20), (13, 20)]
    ]
    assert learning_rate(7, TRAINING, (7, 13)) == learning_rate(0, TRAINING) == TRAINING.learning_rate / 2
    validated = [line for line in read_lines(run.folder / "metrics.jsonl") if "validation_bound" in line]
    last = {line["step"]: line["validation_bound"] for line in validated if line["step"] > 13}
    assert run.step == max(last, key=last.__getitem__)


def test_a_stage_starts_from_the_averaged_weights(run: jensen.Run) -> None:
    """The VAE of the second stage is fixed at the average of the first stage; in the other stages the two differ."""
    name, equal = "decoder.layers.0.weight", {}
    for path in checkpoints(run.folder / "checkpoints"):
        found = load_file(path / "model.safetensors")
        equal[int(path.name.removeprefix("step-"))] = torch.equal(found[name], found[f"ema/{name}"])
    assert {step: equal[step] for step in (5, 10, 15)} == {5: False, 10: True, 15: False}


def test_prolonged_training_prolongs_the_last_stage(tmp_path: Path) -> None:
    recipe = tiny(vae_steps=None, prior_steps=None)
    assert recipe.vae_steps == 8  # 40 % of 20
    jensen.train(recipe, tmp_path / "run")
    longer = jensen.resume(tmp_path / "run", steps=40, data=LABELLED)
    assert longer.recipe.training.steps == 40
    assert longer.model.stages == (8,)


# ---------------------------------------------------------------------------------------------- the recipe


def test_pictures_get_a_spatial_z_and_a_unet() -> None:
    recipe = LatentRecipe(data=LABELLED)
    model = build_model(recipe, load_dataset(recipe).spec)
    assert model.prior.model.shape == model.decoder.latent_shape
    assert len(model.prior.model.shape) == 3
    assert type(model.prior.model.denoiser.network).__name__ == "UNet"
    assert model.classes == 3
    flat = tiny()
    assert type(build_model(flat, load_dataset(flat).spec).prior.model.denoiser.network).__name__ == "ResidualMLP"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vae": FLAT.model_copy(update={"fixed_scale": 2.0})}, "vae.fixed_scale 2.0: acts with variance fixed only"),
        ({"prior": PRIOR.model_copy(update={"widths": (8,)})}, "prior.widths 8: acts with network unet only"),
        ({"prior": DiffusionSettings(octaves=3)}, "prior.octaves 3: acts with network unet only"),
    ],
)
def test_idle_settings_of_both_parts_are_refused_by_their_full_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}.*leave it out$"):
        load_dataset(tiny(**changes))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"vae_steps": 20}, "training": {"steps": 20}}, "no step is left for the prior"),
        ({"model": {"vae_steps": 9, "prior_steps": 9}, "training": {"steps": 17}}, "give more steps"),
        ({"model": {"vae": {"posterior": "per-datapoint"}}}, "choose amortised"),
        ({"model": {"vae": {"predict": "label"}}}, r"predicts labels by its prior p\(z\|label\)"),
        ({"model": {"vae": {"objective": "importance-weighted"}, "kl_weight": 0.5}}, "belongs to vae.objective elbo"),
    ],
)
def test_recipes_without_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe({"family": "latent", **values}, "here")


def test_flags_of_the_two_parts_have_their_names_as_prefixes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", "latent", "--help"])
    said = capsys.readouterr().out
    for flag in (
        "--vae.latent-dims",
        "--prior.depth",
        "--prior.no-conditional",
        "--vae-steps",
        "--kl-weight",
        "--steps",
    ):
        assert f" {flag} " in said, flag
    assert main(["train", "latent", "--prior.dept", "3"]) == 2
    assert "perhaps you meant --prior.depth" in capsys.readouterr().err
    assert "train latent" in commands()


# ---------------------------------------------------------------------------------------------- every command


def test_every_command_works_or_says_why_not(run: jensen.Run, tmp_path: Path) -> None:
    scores = jensen.score(run)
    assert list(scores.scores.terms)[1:3] == ["entropy", "latent reconstruction"]
    predicted = jensen.predict(run, draws=2).predictions
    torch.testing.assert_close(
        predicted.prediction.probabilities.sum(1), torch.ones(len(predicted.prediction.labels)).double()
    )
    labels = torch.tensor([2, 0])
    drawn = jensen.sample(run, 2, labels=labels, wish=jensen.SamplingWish("ddim", 2, 1.0))
    assert drawn.labels.tolist() == [2, 0]
    unguided = jensen.sample(run, 2, labels=labels, wish=jensen.SamplingWish("ddim", 2))
    assert not torch.equal(drawn.prepared, unguided.prepared)
    by_itself = jensen.SamplingWish(guidance=0.5, guide=guide_of(run, run))
    torch.testing.assert_close(
        jensen.sample(run, 2, wish=by_itself).prepared, jensen.sample(run, 2).prepared
    )  # away from itself is nowhere
    other = jensen.train(tiny(vae_steps=3), tmp_path / "other")
    with pytest.raises(InputError, match="another VAE"):
        jensen.sample(run, 2, wish=jensen.SamplingWish(guidance=0.5, guide=guide_of(run, other)))
    with pytest.raises(InputError, match=r"cannot compress.*use a vae or a diffusion run"):
        jensen.compress(run)
    with pytest.raises(InputError, match="this VAE has a DiffusionPrior"):
        VAECodec(run.model)
    with pytest.raises(InputError, match=r"cannot impute.*use a vae or a diffusion run"):
        jensen.impute(run, mask="right-half")
    assert jensen.reconstruct(run).prepared.shape[1:] == (1, 5, 4)


def test_a_training_that_goes_on_is_measured_in_the_stages_to_come() -> None:
    recipe, states = tiny(), []
    dataset = load_dataset(recipe)

    def start() -> TrainingState:
        states.append(TrainingState.start(build_model(recipe, dataset.spec), recipe.training))
        return states[-1]

    for done in (0, 150, 400):  # the last stage begins at step 13; step 400 is after the last one
        settings = TRAINING.model_copy(update={"steps": 300, "minutes": 0.01})
        assert measured(start, dataset, settings, recipe.seed, 0.05, done) is not None
        assert states[-1].step > max(done, 13)


def test_stages_that_do_not_fit_into_the_minutes_are_refused(tmp_path: Path) -> None:
    """Before training, and only by the plan: the default number of steps says nothing about a training of minutes."""
    hurried = TRAINING.model_copy(update={"steps": DiffusionTraining().steps, "minutes": 0.02})
    for stages in ({"vae_steps": 10**8}, {"prior_steps": 10**8}):
        recipe = LatentRecipe(data=LABELLED, model=LatentSettings(vae=FLAT, prior=PRIOR, **stages), training=hurried)
        with pytest.raises(InputError, match=r"minutes 0\.02, time for \d+ steps: .*vae_steps \d+ .*give more steps"):
            jensen.train(recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------- over another run


def test_a_latent_model_starts_from_a_vae(tmp_path: Path) -> None:
    """The VAE is the first stage: its weights and settings stay, and only the prior is trained."""
    settings = FLAT.model_copy(update={"predict": "label"})
    vae = jensen.train(VAERecipe(data=LABELLED, model=settings, training=TRAINING), tmp_path / "vae")
    recipe = LatentRecipe(data=LABELLED, model=LatentSettings(prior=PRIOR), training=TRAINING)
    over = jensen.train(recipe, tmp_path / "over", start=vae)
    assert over.recipe.model.vae_steps == 0
    assert (over.recipe.model.vae.hidden, over.recipe.model.prior.depth) == ((16,), 1)
    assert over.recipe.start_from.weights == vae.weights
    own = over.model.state_dict()
    for name, tensor in vae.model.state_dict().items():
        assert name.startswith("target.") or torch.equal(own[name], tensor), name
    again = jensen.train(LatentRecipe(data=LABELLED, training=TRAINING), tmp_path / "again", start=over)
    assert again.recipe.model.prior.depth == 1
    assert again.recipe.model.vae_steps == 8
    with pytest.raises(InputError, match="is a run of family latent, not vae"):
        jensen.train(VAERecipe(data=LABELLED), tmp_path / "refused", start=over)
    with pytest.raises(InputError, match="would stay untrained; give --from RUN"):
        jensen.train(tiny(vae_steps=0), tmp_path / "refused")
    other = FLAT.model_copy(update={"latent_dims": 5})
    with pytest.raises(InputError, match=r"vae\.latent_dims is 3 there and 5 here"):
        jensen.train(recipe.model_copy(update={"model": LatentSettings(vae=other)}), tmp_path / "refused", start=vae)


def test_an_augmentation_of_x_is_told_to_the_prior(tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"augment": AugmentOptions(flip="horizontal")})
    recipe = tiny().model_copy(update={"training": training})
    run = jensen.train(recipe, tmp_path / "run")
    assert any("augmentation" in name for name in run.model.prior.state_dict())
