"""`jensen features check` on real runs: what it prints and writes, and one line with status 2 for every mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jensen
from jensen.cli import main
from jensen.errors import InputError
from jensen.features.sample_metrics import SampleMetrics
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.report.further import further_records

BRIEF = {"steps": 20, "batch_size": 32, "validate_every": 20, "ema_decay": None}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "vae"
    jensen.train(VAERecipe(model=VAESettings(latent_dims=2, hidden=(8,)), training=BRIEF), folder)
    return folder


def _check(run: Path, *words: str) -> list[str]:
    return ["features", "check", str(run), "--n", "60", *words]


def _metrics(path: Path) -> SampleMetrics:
    return SampleMetrics.model_validate_json(path.read_bytes())


def test_check_prints_a_table_and_writes_numbers_and_a_picture(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_check(run)) == 0
    told = capsys.readouterr().out
    rows = [
        "Fréchet",
        "sliced Wasserstein",
        "MMD²",
        "precision, k = 5",
        "coverage",
        "nearer than fresh",
        "near copies",
    ]
    assert all(row in told for row in [*rows, "features: pixels", "60 training", "No sign of memorised"])
    found = _metrics(run / "sample_metrics-pixels.json")
    assert (found.samples.count, found.samples.test, found.floor.count) == (60, 60, 60)
    assert (found.train, found.memorisation.held_out, found.memorisation_floor.samples) == (1437, 180, 90)
    assert found.samples.kernel.p_value == 0.001  # 20 steps make nothing that is like a digit
    assert found.floor.kernel.p_value > 0.001  # real against real: fails in one of 1000 cases
    assert Image.open(run / "pictures" / "nearest-pixels.png").width > 1000
    assert main(_check(run)) == 0
    again = _metrics(run / "sample_metrics-pixels.json")
    assert again.model_copy(update={"provenance": found.provenance}) == found
    assert again.provenance.weights == jensen.load(run).weights
    assert main(["evaluate", str(run), "--examples", "20", "--samples", "5"]) == 0
    report = (run / "report.html").read_text()
    assert "Samples against data" in report
    assert "No sign of memorised" in report
    (run / "sample_metrics-pixels.json").write_text("{")
    with pytest.raises(InputError, match="jensen features check"):
        further_records(run, jensen.load(run).weights)


def test_check_uses_the_runs_classifier_and_its_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "diffusion"
    tiny = DiffusionSettings(network="mlp", width=16, depth=1, chain_steps=50, bound_terms=5, sampling_steps=5)
    jensen.train(DiffusionRecipe(model=tiny, training=BRIEF), folder)
    assert main(["features", "train", str(folder), "--visits", "4000"]) == 0
    assert main(_check(folder, "--k", "3")) == 0
    assert "features: classifier" in capsys.readouterr().out
    assert _metrics(folder / "sample_metrics-classifier.json").samples.fidelity.k == 3
    assert main(_check(folder, "--pixels")) == 0
    assert _metrics(folder / "sample_metrics-pixels.json").features == "pixels"


def test_vectors_have_a_picture_without_images(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32))
    jensen.train(
        VAERecipe(data=str(tmp_path / "x.npy"), model=VAESettings(hidden=(8,)), training=BRIEF), tmp_path / "run"
    )
    assert main(_check(tmp_path / "run")) == 0
    assert json.loads((tmp_path / "run" / "sample_metrics-pixels.json").read_text())["samples"]["test"] == 30


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--n", "11"], "11 samples and 5 neighbours: expected at least 12"),
        (["--k", "90"], "60 samples and 90 neighbours: expected at least 182"),
        (["--n", "0"], "n = 0"),
        (["--k", "0"], "k = 0"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert main(_check(run, *words)) == 2
    said = capsys.readouterr()
    assert said.err.startswith("jensen: ")
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert said.out == ""
