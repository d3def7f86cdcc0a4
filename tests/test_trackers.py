"""Trackers: each is really started, gets what metrics.jsonl and the grids hold, and stops no training if it fails."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import jensen
from jensen.recipe.vae.settings import VAESettings
from jensen.training.trackers import KINDS, Trackers, check_trackers

ROOT = Path(__file__).resolve().parents[1]
BRIEF = {"batch_size": 16, "log_every": 5, "validate_every": 10, "sample_every": 10, "grid_samples": 4, "first_look": 0}


def train(folder: Path, trackers: tuple[str, ...], steps: int = 20) -> jensen.Run:
    x = np.random.default_rng(0).integers(0, 16, (60, 4, 4), dtype=np.uint8)
    training = {**BRIEF, "steps": steps, "trackers": trackers}
    model = VAESettings(latent_dims=2, hidden=(8,))
    return jensen.train(jensen.VAERecipe(data={"x": x}, model=model, read={"levels": 16}, training=training), folder)


def logged(run: Path, name: str) -> dict[int, float]:
    """A value of metrics.jsonl by step."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line[name] for line in lines if name in line}


def resume(run: jensen.Run, steps: int) -> None:
    x = np.random.default_rng(0).integers(0, 16, (60, 4, 4), dtype=np.uint8)
    jensen.resume(run.folder, data={"x": x}, steps=steps)


# ---------------------------------------------------------------------------------------------- TensorBoard


def test_tensorboard_has_the_curves_and_the_grids(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path / "run", ("tensorboard",))
    resume(run, 30)
    found = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    for name in ("loss", "validation_bound"):
        curve = {event.step: event.value for event in found.Scalars(name)}
        assert curve == pytest.approx(logged(run.folder, name))
        assert len(found.Scalars(name)) == len(curve)  # each step once
    assert [event.step for event in found.Images("samples")] == [10, 20, 30]
    picture = found.Images("samples")[0]
    from PIL import Image

    with Image.open(run.folder / "samples/step-00000010.png") as grid:
        assert (picture.width, picture.height) == grid.size


def test_no_tracker_writes_only_the_log(tmp_path: Path) -> None:
    run = train(tmp_path / "run", ())
    assert not (run.folder / "tensorboard").exists()
    assert logged(run.folder, "loss")


def test_the_choice_of_trackers_changes_no_number_and_may_change_between_sessions(tmp_path: Path) -> None:
    with_one, without = train(tmp_path / "a", ("tensorboard",)), train(tmp_path / "b", ())
    assert with_one.weights == without.weights
    recipe = json.loads((without.folder / "recipe.json").read_text())
    recipe["training"]["trackers"] = ["tensorboard"]
    (without.folder / "recipe.json").write_text(json.dumps(recipe))
    resume(without, 30)
    assert (without.folder / "tensorboard").exists()


# ---------------------------------------------------------------------------------------------- the others


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = train(tmp_path / "run", ("wandb",))
    resume(run, 30)
    name = json.loads((run.folder / "trackers.json").read_text())["wandb"]
    files = sorted((run.folder / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2  # a file for each session, of one run
    curve: dict[int, float] = {}
    for file in files:
        curve |= history(file, "loss")
    assert curve == pytest.approx(logged(run.folder, "loss"))
    pictures = sorted((run.folder / "wandb").glob("offline-run-*/files/media/images/samples_*.png"))
    assert len(pictures) == 3


def history(file: Path, name: str) -> dict[int, float]:
    """A value by step in a file of Weights & Biases."""
    from wandb.proto import wandb_internal_pb2

    found = {}
    for content in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        for item in record.history.item:
            if name in (item.key, *item.nested_key):
                found[record.history.step.num] = json.loads(item.value_json)
    return found


def records(content: bytes) -> list[bytes]:
    """The records of a log of LevelDB, of parts with a header: checksum (4), length (2), kind; in blocks of 32 KiB."""
    found, part, place = [], b"", 7  # after the name of the format
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # the rest of a block is empty
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        part = (
            content[place + 7 : place + 7 + length]
            if kind in (1, 2)
            else part + content[place + 7 : place + 7 + length]
        )
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(part)
    return found


def newer_mlflow() -> ModuleType:
    """MLflow, if it is not older than our range."""
    if find_spec("mlflow") is None or int(version("mlflow-skinny").partition(".")[0]) < 3:
        pytest.skip("needs mlflow-skinny 3; pip install 'jensen[tracking]'")
    import mlflow

    return mlflow


@pytest.mark.slow
def test_mlflow_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = newer_mlflow()
    run = train(tmp_path / "run", ("mlflow",))
    resume(run, 30)
    client = mlflow.MlflowClient((run.folder / "mlruns").as_uri())
    name = json.loads((run.folder / "trackers.json").read_text())["mlflow"]
    curve = {metric.step: metric.value for metric in client.get_metric_history(name, "loss")}
    assert curve == pytest.approx(logged(run.folder, "loss"))
    assert client.get_run(name).data.params["model.latent_dims"] == "2"
    assert len(client.list_artifacts(name, "samples")) == 3
    (experiment,) = (one for one in client.search_experiments() if one.name == "jensen")
    assert len(client.search_runs([experiment.experiment_id])) == 1


@pytest.mark.slow
def test_trackio_in_the_folder(tmp_path: Path) -> None:
    """In a process of its own, as trackio reads its folder when it is imported."""
    if find_spec("trackio") is None:
        pytest.skip("trackio needs Pillow below 13, so it is not among the pinned packages: make trackio")
    program = "import sys; sys.path.insert(0, 'tests'); import test_trackers as t; from pathlib import Path\n"
    program += f"run = t.train(Path({str(tmp_path / 'run')!r}), ('trackio',)); t.resume(run, 30)"
    environment = {name: value for name, value in os.environ.items() if name != "TRACKIO_DIR"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True)
    import sqlite3

    folder = tmp_path / "run"
    name = json.loads((folder / "trackers.json").read_text())["trackio"]
    with sqlite3.connect(folder / "trackio/jensen.db") as base:
        rows = base.execute("SELECT step, metrics FROM metrics WHERE run_name = ?", (name,)).fetchall()
    curve = {step: json.loads(values)["loss"] for step, values in rows if "loss" in json.loads(values)}
    assert curve == pytest.approx(logged(folder, "loss"))
    assert sum("samples" in json.loads(values) for _, values in rows) == 3


# ---------------------------------------------------------------------------------------------- failures


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KINDS["wandb"], "package", "no_such_package")
    with pytest.raises(jensen.InputError, match=r"--trackers wandb: the package no_such_package is not installed"):
        train(tmp_path / "run", ("wandb",))
    assert not (tmp_path / "run").exists()
    check_trackers(("tensorboard",))


def test_a_tracker_that_fails_stops_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer_mlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.warns(UserWarning, match="the tracker mlflow failed and is left out, training goes on"):
        run = train(tmp_path / "run", ("tensorboard", "mlflow"))
    assert run.finished
    assert logged(run.folder, "loss")


def test_a_tracker_that_fails_later_is_left_out_once(tmp_path: Path) -> None:
    trackers = Trackers(("tensorboard",), tmp_path, 0)
    with pytest.warns(UserWarning, match="the tracker tensorboard failed"):
        trackers.show(1, Path(__file__))  # which is no picture
    trackers.log(2, {"loss": 1.0})  # no second warning, which would be an error
    trackers.close()
