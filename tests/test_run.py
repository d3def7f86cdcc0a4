"""Run folders: trained, opened, resumed, sampled, and refused where they are damaged."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import jensen
from jensen.errors import InputError
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.settings import TrainingSettings

TINY = VAERecipe(
    model=VAESettings(latent_dims=2, hidden=(16,)),
    training=TrainingSettings(steps=40, batch_size=64, validate_every=20, checkpoint_every=20),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> jensen.Run:
    return jensen.train(TINY, tmp_path_factory.mktemp("runs") / "tiny")


def test_a_run_explains_itself(run: jensen.Run) -> None:
    names = {path.name for path in run.folder.iterdir()}
    assert names == {"recipe.json", "data.json", "checkpoints", "metrics.jsonl", "tensorboard", "samples", ".lock"}
    assert run.recipe == TINY
    assert run.spec.counts == {"train": 1437, "validation": 180, "test": 180}
    assert run.step in (20, 40)


def test_load_gives_the_trained_model(run: jensen.Run) -> None:
    again = jensen.load(run.folder)
    x = run.spec.preparation(run.examples().x)
    assert torch.equal(again.model.elbo(x, seed=1).value, run.model.elbo(x, seed=1).value)
    assert torch.equal(again.model.sample(5, seed=2), run.model.sample(5, seed=2))
    assert again.model.sample(5, seed=2).shape == (5, 1, 8, 8)


def test_resume_of_a_finished_run_changes_nothing(run: jensen.Run) -> None:
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert jensen.resume(run.folder).step == run.step
    assert before == {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("steps", [40, 41])
def test_only_an_unfinished_run_needs_its_lock(run: jensen.Run, tmp_path: Path, steps: int) -> None:
    """A lock that cannot be opened, as in a folder that can only be read."""
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / ".lock").unlink(missing_ok=True)
    (folder / ".lock").mkdir()
    if steps == 40:
        assert jensen.resume(folder).step == run.step
    else:
        with pytest.raises(OSError, match="lock"):
            jensen.resume(folder, steps=steps)


def test_training_needs_a_new_folder(run: jensen.Run) -> None:
    before = (run.folder / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="holds a run already"):
        jensen.train(TINY, run.folder)
    assert (run.folder / "metrics.jsonl").read_bytes() == before


def test_nothing_is_written_where_training_cannot_start(tmp_path: Path) -> None:
    convolutional = VAESettings(network="convolutional")
    vectors = tmp_path / "vectors.npy"
    np.save(vectors, np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    with pytest.raises(InputError, match="network convolutional for vectors"):
        jensen.train(VAERecipe(data=str(vectors), model=convolutional), tmp_path / "run")
    with pytest.raises(InputError, match="categorical"):
        jensen.train(VAERecipe(data=str(vectors), model=VAESettings(likelihood="categorical")), tmp_path / "run")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA"):
            jensen.train(TINY.model_copy(update={"training": TrainingSettings(device="cuda")}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("likelihood", ["auto", "gaussian", "discretised-gaussian", "categorical", "bernoulli"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_likelihood_on_every_dtype_trains_or_is_refused_in_one_line(
    tmp_path: Path, likelihood: str, dtype: type
) -> None:
    values = np.random.default_rng(0).uniform(0, 200, size=(60, 3, 5, 7))
    source = tmp_path / "images.npy"
    np.save(source, values.astype(dtype))
    recipe = VAERecipe(
        data=str(source), model=VAESettings(latent_dims=2, hidden=(8,), likelihood=likelihood), training=TINY.training
    )
    discrete = likelihood in ("discretised-gaussian", "categorical")
    refused = (discrete and dtype is np.float32) or (likelihood == "bernoulli" and dtype is np.float32)
    refused = refused or (likelihood == "categorical" and dtype is np.uint16)  # 65,536 levels
    if refused:
        with pytest.raises(InputError) as error:
            jensen.train(recipe, tmp_path / "run")
        assert "\n" not in str(error.value)
        return
    trained = jensen.train(recipe, tmp_path / "run")
    raw = trained.spec.preparation.to_raw(trained.model.sample(3))
    assert raw.dtype == dtype
    assert raw.shape == (3, *trained.spec.shape)


def test_the_data_of_a_run_must_not_change(tmp_path: Path) -> None:
    source = tmp_path / "x.npy"
    values = np.random.default_rng(0).integers(0, 256, size=(60, 4, 4)).astype(np.uint8)
    np.save(source, values)
    run = jensen.train(TINY.model_copy(update={"data": str(source)}), tmp_path / "run")
    values[0, 0, 0] ^= 1
    np.save(source, values)
    with pytest.raises(InputError, match="changed"):
        run.examples()


def _copy(run: jensen.Run, folder: Path) -> Path:
    import shutil

    shutil.copytree(run.folder, folder)
    return folder


@pytest.mark.parametrize("name", ["recipe.json", "data.json"])
def test_damaged_json_is_refused(run: jensen.Run, tmp_path: Path, name: str) -> None:
    folder = _copy(run, tmp_path / "copy")
    (folder / name).write_text((folder / name).read_text()[:-20])
    with pytest.raises(InputError, match=name):
        jensen.load(folder)
    (folder / name).write_text(json.dumps(json.loads((run.folder / name).read_text()) | {"format": 2}))
    with pytest.raises(InputError, match="newer jensen"):
        jensen.load(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match="is not a run"):
        jensen.load(folder)


def test_weights_that_do_not_fit_the_recipe_are_refused(run: jensen.Run, tmp_path: Path) -> None:
    folder = _copy(run, tmp_path / "copy")
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["model"]["latent_dims"] = 5
    (folder / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(InputError, match="trained by another recipe"):
        jensen.load(folder)


def test_a_model_that_memory_does_not_hold_is_refused(run: jensen.Run, tmp_path: Path) -> None:
    folder = _copy(run, tmp_path / "copy")
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["model"]["hidden"] = [1 << 16, 1 << 24]  # 16 MiB and 4 TiB of weights
    (folder / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(InputError, match=r"^not enough memory for a vae of the recipe's sizes .*; choose smaller"):
        jensen.load(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_checkpoints_says_how_to_resume_and_exits_130(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "jensen",
        "train",
        "vae",
        "--out",
        str(out),
        "--steps",
        "1000000",
        "--hidden",
        "16",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    last = told.strip().splitlines()[-1]
    step = int(last.split("step ")[1].split(";")[0])
    assert f"jensen resume {out}" in last
    assert (out / "checkpoints" / f"step-{step:08d}").is_dir()
    assert "Traceback" not in told
