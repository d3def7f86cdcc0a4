"""Changes of a run after its training began: only by `resume`, and recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import jensen
from jensen.cli import main
from jensen.recipe.vae.settings import VAESettings
from jensen.run.folder import read_history, recorded_digest
from jensen.training.checkpoint import Record, checkpoints

SMALL = VAESettings(latent_dims=2, hidden=(8,))


def a_recipe(steps: int) -> jensen.VAERecipe:
    training = {"steps": steps, "batch_size": 16, "validate_every": 10, "checkpoint_every": 10, "schedule": "constant"}
    return jensen.VAERecipe(model=SMALL, training=training)


def test_a_recipe_that_was_edited_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    jensen.train(a_recipe(20), folder)
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["training"]["steps"], recipe["training"]["learning_rate"] = 40, 0.01
    (folder / "recipe.json").write_text(json.dumps(recipe))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for words in (["resume"], ["resume", "--steps", "60"], ["info"], ["evaluate"]):
        assert main([words[0], str(folder), *words[1:]]) == 2
        said = capsys.readouterr().err
        assert "was trained by another recipe" in said
        assert said.count("\n") == 1
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _by_an_older_version(folder: Path, setting: str) -> None:
    """Make a run as an older jensen writes it that does not know a setting of `training`."""
    path = folder / "recipe.json"
    values = json.loads(path.read_text())
    del values["training"][setting]
    path.write_text(json.dumps(values))
    for checkpoint in checkpoints(folder / "checkpoints"):
        record = Record.model_validate_json((checkpoint / "state.json").read_bytes())
        older = record.model_copy(update={"recipe": recorded_digest(folder)})
        (checkpoint / "state.json").write_bytes(older.sealed())


def test_a_run_of_an_older_version_that_lacks_a_setting_is_read_and_resumed(tmp_path: Path) -> None:
    straight = jensen.train(a_recipe(40), tmp_path / "straight")
    folder = tmp_path / "run"
    jensen.train(a_recipe(20), folder)
    _by_an_older_version(folder, "rollbacks")
    assert jensen.load(folder).step == 20
    jensen.resume(folder)  # it has ended: nothing to do
    resumed = jensen.resume(folder, steps=40)
    assert jensen.load(folder).weights == resumed.weights == straight.weights
    assert [change.step for change in read_history(folder)] == [20]


def test_more_steps_are_trained_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """20 steps, then 20 more, are 40 steps: the learning rate of a constant schedule does not know the end."""
    straight = jensen.train(a_recipe(40), tmp_path / "straight")
    jensen.train(a_recipe(20), tmp_path / "run")
    assert main(["resume", str(tmp_path / "run"), "--steps", "40"]) == 0
    run = jensen.load(tmp_path / "run")
    assert run.recipe == straight.recipe
    assert run.trained_steps == 40
    weights = zip(run.model.parameters(), straight.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
    (change,) = read_history(run.folder)
    assert (change.step, change.before, change.after) == (20, {"steps": 20.0}, {"steps": 40.0})
    assert main(["resume", str(run.folder), "--steps", "30"]) == 2
    assert "has been trained for 40 steps; give more" in capsys.readouterr().err
    assert main(["resume", str(run.folder), "--steps", "50", "--learning-rate", "0.0005"]) == 0
    assert [sorted(change.after) for change in read_history(run.folder)] == [["steps"], ["learning_rate", "steps"]]
    assert jensen.load(run.folder).recipe.training.learning_rate == 0.0005


def test_a_refused_change_is_not_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = tmp_path / "x.npy", tmp_path / "run"
    np.save(data, np.random.default_rng(0).normal(size=(80, 3)))
    jensen.train(a_recipe(20).model_copy(update={"data": str(data)}), folder)
    data.rename(tmp_path / "moved.npy")
    assert main(["resume", str(folder), "--steps", "40"]) == 2
    assert read_history(folder) == ()
    assert jensen.load(folder).recipe.training.steps == 20
    assert main(["resume", str(folder), "--steps", "40", "--data", str(tmp_path / "moved.npy")]) == 0
    (change,) = read_history(folder)
    assert change.after == {"steps": 40.0}


def test_a_bound_that_still_rises_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "vae", "--steps", "40", "--validate-every", "10", "--out", str(tmp_path / "run")]
    assert main([*words, "--hidden", "8", "--learning-rate", "0.01"]) == 0
    assert f"still rising at the last step: train longer with: jensen resume {tmp_path}" in capsys.readouterr().out


def test_what_is_about_other_weights_is_not_shown_as_current(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluate, train on, and ask: `info` and `compare` refuse the old numbers and say what to type."""
    run, other = str(tmp_path / "run"), str(tmp_path / "other")
    quick = ["--further-examples", "4", "--samples", "5", "--draws", "2"]
    for folder in (run, other):
        jensen.train(a_recipe(20), folder)
        assert main(["evaluate", folder, *quick]) == 0
    jensen.features_check(jensen.load(run), 60, in_pixels=True).save()
    assert main(["compare", run, other, "--out", str(tmp_path / "both")]) == 0
    assert main(["resume", run, "--steps", "40", "--learning-rate", "0.002"]) == 0
    capsys.readouterr()
    assert main(["info", run]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"with other weights, of step 20; evaluate these with: jensen evaluate {run}" in told
    assert "sample_metrics-pixels.json is about other weights than the run's best and is left out" in told
    assert "after step 20: steps from 20 to 40, learning_rate from 0.001 to 0.002" in told
    assert main(["compare", run, other, "--out", str(tmp_path / "now")]) == 2
    said = capsys.readouterr().err
    assert "used other weights (step 20) than the run's best (step 40)" in said
    assert f"evaluate again with: jensen evaluate {run}" in said
    assert main(["evaluate", run, *quick]) == 0
    report = " ".join((tmp_path / "run" / "report.html").read_text().split())
    assert "Sample_metrics-pixels.json is about other weights" in report
    assert jensen.load(run).weights in report
    assert "learning_rate from 0.001 to 0.002" in report
    assert (
        "train vae --config recipe.toml --out again --steps 20 --learning-rate 0.001 jensen resume again --steps 40"
        in report
    )
    assert main(["compare", run, other, "--out", str(tmp_path / "now")]) == 0


def test_a_comparison_of_estimates_stays_in_the_report_while_the_weights_do(tmp_path: Path) -> None:
    run, report = str(tmp_path / "run"), tmp_path / "run" / "report.html"
    quick = ["--further-examples", "4", "--samples", "5", "--draws", "2"]
    jensen.train(a_recipe(20), run)
    judge = ["--referee", "--referee-examples", "2", "--temperatures", "3", "--chains", "2"]
    shown = []
    for words in (["evaluate", run, *quick, *judge], ["evaluate", run, *quick], ["resume", run, "--steps", "40"]):
        assert main(words) == 0
        shown.append("The referee" in report.read_text())
    assert main(["evaluate", run, *quick]) == 0
    assert shown[:2] == [True, True]
    assert "Referee.json is about other weights" in " ".join(report.read_text().split())
