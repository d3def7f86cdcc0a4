"""Runs of VAEs with learned priors, full covariances and hierarchies: settings, resume, and every command."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import byte_images

import jensen
from jensen.cli import main
from jensen.errors import InputError
from jensen.model import Batch
from jensen.randomness import Noise, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.latent.settings import LatentRecipe, LatentSettings
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.checkpoint import checkpoints
from jensen.training.settings import TrainingSettings
from jensen.vae import CouplingPrior, CovariancePosterior, GroupedPrior, HierarchicalPosterior, MixturePrior, VampPrior

X = byte_images(30)
FEW = {"fit_steps": 4}
FLAT = {**FEW, "network": "mlp", "hidden": (16,), "latent_dims": 3}
LADDER = {**FEW, "network": "ladder", "groups": (2, 3, 2), "width": 16, "depth": 1}
GATED = {**FEW, "network": "gated-ladder", "groups": (3, 2)}
MODELS = {
    "vamp": {**FLAT, "prior": "vamp", "prior_components": 6},
    "mixture": {**FLAT, "prior": "mixture", "prior_components": 6},
    "flow": {**FLAT, "prior": "flow", "prior_couplings": 2},
    "full covariance": {**FLAT, "posterior": "full-covariance"},
    "ladder": {**LADDER, "kl_warmup_steps": 6, "kl_balance": True, "free_bits": 0.1},
    "ladder, vamp, reparameterised": {
        **LADDER,
        "prior": "vamp",
        "prior_components": 5,
        "objective": "doubly-reparameterised",
    },
    "maps": {
        **FEW,
        "network": "convolutional-ladder",
        "channels": (4, 8),
        "patch": 1,
        "level_groups": (2, 1),
        "latent_channels": 2,
    },
    "logistic mixture": {**FLAT, "likelihood": "logistic-mixture", "components": 3},
    "gated ladder, mixture": {**GATED, "prior": "mixture", "prior_components": 4},
}
TRAINING = TrainingSettings(
    steps=8, batch_size=8, log_every=2, validate_every=4, checkpoint_every=3, keep_last=9, ema_decay=0.9, clip_norm=50.0
)


QUICK = ("vamp", "ladder")  # the others take seconds each


def recipe_of(name: str) -> VAERecipe:
    return VAERecipe(data=X, model=VAESettings(**MODELS[name]), training=TRAINING)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MODELS]
)
def test_every_verb_works_on_a_run_and_a_resumed_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    run = jensen.train(recipe_of(name), tmp_path / "run")
    np.save(tmp_path / "x.npy", X)
    folder, data = str(run.folder), str(tmp_path / "x.npy")
    shutil.copytree(run.folder, tmp_path / "part")
    for path in checkpoints(tmp_path / "part/checkpoints"):
        if int(path.name.removeprefix("step-")) > 3:
            shutil.rmtree(path)
    jensen.resume(tmp_path / "part", data=X)
    whole, part = (checkpoints(each / "checkpoints")[-1] for each in (run.folder, tmp_path / "part"))
    for file in ("model.safetensors", "optimiser.safetensors", "state.json"):
        assert (whole / file).read_bytes() == (part / file).read_bytes(), file
    given = ["--data", data]
    assert main(["evaluate", folder, *given, "--examples", "3", "--samples", "9"]) == 0
    assert main(["score", folder, *given, "--out", str(tmp_path / "scores.csv")]) == 0
    assert main(["sample", folder, "--n", "3", "--out", str(tmp_path / "samples.npz")]) == 0
    assert main(["reconstruct", folder, *given, "--examples", "3", "--out", str(tmp_path / "pairs.npz")]) == 0
    some = ["--mask", "half:left", "--examples", "2", "--draws", "1", "--sweeps", "1", "--samples", "9"]
    assert main(["impute", folder, *given, *some, "--out", str(tmp_path / "imputed")]) == 0
    assert main(["encode", folder, *given, "--out", str(tmp_path / "codes.npz")]) == 0
    if name != "logistic mixture":
        assert main(["export", folder, "--to", "torch", "--out", str(tmp_path / "exported")]) == 2
    archive, back = str(tmp_path / "x.jensen"), tmp_path / "back.npy"
    assert main(["compress", folder, *given, "--out", archive]) == (2 if name == "flow" else 0)
    if name != "flow":
        assert main(["decompress", archive, "--run", folder, "--out", str(back)]) == 0
        np.testing.assert_array_equal(np.load(back).reshape(X.shape), X)


def test_settings_become_the_parts_that_they_name() -> None:
    dataset = load_dataset(recipe_of("vamp"))
    models = {name: build_model(recipe_of(name), dataset.spec) for name in MODELS}
    assert isinstance(models["vamp"].prior, VampPrior)
    assert models["vamp"].prior.bounds == (-1, 1)
    assert isinstance(models["mixture"].prior, MixturePrior)
    assert isinstance(models["flow"].prior, CouplingPrior)
    z = torch.randn(4, 3)
    torch.testing.assert_close(models["flow"].prior.log_prob(z), torch.distributions.Normal(0, 1).log_prob(z).sum(-1))
    assert isinstance(models["full covariance"].posterior, CovariancePosterior)
    ladder = models["ladder"]
    assert isinstance(ladder.posterior, HierarchicalPosterior)
    assert isinstance(ladder.prior, GroupedPrior)
    assert ladder.prior.sizes == ladder.decoder.sizes == (2, 3, 2)
    names = [name for name, _ in ladder.named_parameters()]
    assert len(names) == len(set(names))
    assert not any(name.startswith("posterior.decoder") for name in names)  # one owner for every weight
    assert models["maps"].decoder.sizes == (2 * 3 * 2, 2 * 3 * 2, 2 * 5 * 4)
    assert isinstance(models["gated ladder, mixture"].prior.top, MixturePrior)
    default = build_model(VAERecipe(data=X, model=VAESettings(network="ladder")), dataset.spec)
    assert default.decoder.sizes == (2, 2, 2, 2)


@pytest.mark.parametrize("name", ["vamp", "full covariance", "gated ladder, mixture"])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(name: str) -> None:
    recipe = recipe_of(name)
    dataset = load_dataset(recipe)
    model = build_model(recipe, dataset.spec).double()
    batch = Batch(torch.rand(8, *dataset.spec.shape).double() * 2 - 1, torch.arange(8))
    whole = model.loss(batch, step=0, noise=Noise(generator(1))).value
    parts = [
        model.loss(batch[rows], step=0, noise=Noise(generator(1), rows, 8)).value for rows in (slice(0, 3), slice(3, 8))
    ]
    torch.testing.assert_close(whole, (3 * parts[0] + 5 * parts[1]) / 8)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prior": "vamp", "posterior": "per-datapoint"}, "choose posterior amortised"),
        ({"prior": "vamp", "posterior": "full-covariance"}, "choose posterior amortised"),
        ({"prior": "mixture", "free_bits": 0.1}, "prior mixture has none"),
        ({**LADDER, "posterior": "full-covariance"}, "is for a single group"),
        ({"kl_balance": True}, "give both"),
        ({**LADDER, "kl_balance": True}, "give both"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        VAESettings(**settings)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"prior_components": 9}, "prior_components 9"),
        ({"prior_couplings": 9}, "prior_couplings 9"),
        ({**FLAT, "groups": (2, 2)}, "groups 2 2"),
        ({"network": "ladder", "level_groups": (2, 2)}, "level_groups 2 2"),
        ({**FLAT, "width": 9}, "width 9"),
        ({"network": "ladder", "latent_dims": 4}, "latent_dims 4"),
        ({"network": "gated-ladder", "width": 9}, "width 9"),
    ],
)
def test_settings_that_cannot_act_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=rf"^{named}: .*(;|, or) leave it out$"):
        load_dataset(VAERecipe(data=X, model=VAESettings(**settings)))


@pytest.mark.parametrize(
    ("vae", "said"),
    [
        ({"prior": "mixture"}, "vae.prior mixture"),
        (LADDER, "vae.network ladder"),
        ({"posterior": "full-covariance"}, "vae.posterior full-covariance"),
    ],
)
def test_a_latent_model_refuses_what_its_prior_cannot_use(vae: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LatentSettings(vae=VAESettings(**vae))
    LatentRecipe(data=X)


def test_a_gated_ladder_has_two_groups() -> None:
    recipe = VAERecipe(data=X, model=VAESettings(network="gated-ladder", groups=(2, 2, 2)))
    with pytest.raises(InputError, match="3 groups: expected 2"):
        build_model(recipe, load_dataset(recipe).spec)


def test_dependent_channels_refuse_missing_values_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (24, 3, 6, 6), dtype=np.uint8)
    np.save(tmp_path / "x.npy", colour)
    model = VAESettings(**FLAT, likelihood="logistic-mixture", components=2)
    training = TrainingSettings(steps=2, batch_size=8, validate_every=2)
    run = jensen.train(VAERecipe(data=str(tmp_path / "x.npy"), model=model, training=training), tmp_path / "run")
    capsys.readouterr()
    words = ["impute", str(run.folder), "--mask", "half:left", "--out", str(tmp_path / "imputed")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "missing values need channels that are independent given z" in said
    assert not (tmp_path / "imputed").exists()
