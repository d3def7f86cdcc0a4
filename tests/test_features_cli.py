"""`jensen features` on real runs: what it prints and writes, and one line with status 2 for every mistake."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jensen
from jensen.cli import main
from jensen.features import distance
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.vae.settings import VAERecipe, VAESettings

BRIEF = {"steps": 20, "batch_size": 32, "validate_every": 20, "ema_decay": None}
TINY = DiffusionSettings(network="mlp", width=16, depth=1, noise_schedule="linear-beta", chain_steps=50, bound_terms=5)
QUICK = ["--visits", "4000"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "diffusion"
    jensen.train(DiffusionRecipe(model=TINY, training=BRIEF), folder)
    assert main(["features", "train", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture
def fresh(run: Path) -> Path:
    """The same run, nothing measured yet."""
    (run / "distances.json").unlink(missing_ok=True)
    (run / "pictures" / "distances.png").unlink(missing_ok=True)
    return run


def _distance(run: Path, *words: str) -> list[str]:
    return ["features", "distance", str(run), "--n", "60", *words]


def _measured(run: Path) -> list[tuple[str, int]]:
    cells = [one["cell"] for one in json.loads((run / "distances.json").read_text())["distances"]]
    return [(cell["sampler"], cell["steps"]) for cell in cells]


def test_train_prints_accuracies_and_saves_the_classifier(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "features" / "weights.safetensors").read_bytes()
    assert main(["features", "train", str(run), *QUICK]) == 0
    assert (run / "features" / "weights.safetensors").read_bytes() == before  # the same seed
    record = json.loads((run / "features" / "features.json").read_text())
    told = capsys.readouterr().out
    for split in ("validation", "test"):
        share = record[split]
        assert f"{split} accuracy {100 * share['mean']:.2f} ± {100 * share['standard_error']:.2f} % of 180" in told
    assert main(["features", "train", str(run), *QUICK, "--seed", "1"]) == 0
    assert (run / "features" / "weights.safetensors").read_bytes() != before
    assert main(["features", "train", str(run), *QUICK]) == 0


def test_distance_measures_every_pair_once(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_distance(fresh, "--sampler", "ddim", "heun", "--steps", "2", "4")) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("training split", "ddim", "heun", "±"))
    assert _measured(fresh) == [("ddim", 2), ("ddim", 4), ("heun", 2), ("heun", 4)]
    before = (fresh / "distances.json").read_bytes()
    assert main(_distance(fresh, "--sampler", "heun", "--steps", "4")) == 0
    assert (fresh / "distances.json").read_bytes() == before  # its times would differ, had it been measured again
    assert main(_distance(fresh, "--sampler", "unipc", "--steps", "4", "2", "2")) == 0
    assert _measured(fresh)[4:] == [("unipc", 4), ("unipc", 2)]
    assert Image.open(fresh / "pictures" / "distances.png").width > 1000


def test_distance_measures_the_runs_own_sampling_by_default(fresh: Path) -> None:
    assert main(_distance(fresh)) == 0
    assert _measured(fresh) == [(TINY.sampler, TINY.sampling_steps)]
    assert main(_distance(fresh, "--guidance", "1", "--seed", "5")) == 0
    first, second = (one["cell"] for one in json.loads((fresh / "distances.json").read_text())["distances"])
    assert (first["guidance"], second["guidance"], second["seed"]) == (0, 1, 5)


def test_a_worse_run_of_the_same_data_guides(fresh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse, vae, others = tmp_path / "worse", tmp_path / "vae", tmp_path / "others"
    jensen.train(DiffusionRecipe(model=TINY, training={**BRIEF, "steps": 2}), worse)
    words = ["--guide", str(worse), "--sampler", "ddim", "--steps", "4"]
    assert main(_distance(fresh, *words, "--guidance", "0.5")) == 0
    assert "Guidance 0.5, away from a worse model." in " ".join(capsys.readouterr().out.split())
    (found,) = json.loads((fresh / "distances.json").read_text())["distances"]
    assert found["evaluations"] == 2 * 4
    assert len(found["cell"]["guide"]) == 64
    assert main(["sample", str(fresh), *words, "--guidance", "0.5", "--n", "3", "--out", str(tmp_path / "x.npz")]) == 0
    capsys.readouterr()
    _refused(capsys, _distance(fresh, *words), "--guide needs a scale; give --guidance")
    jensen.train(VAERecipe(model=VAESettings(latent_dims=2, hidden=(8,)), training=BRIEF), vae)
    np.savez(tmp_path / "noise.npz", x=np.arange(60 * 64, dtype=np.uint8).reshape(60, 8, 8) % 17, y=np.arange(60) % 10)
    jensen.train(DiffusionRecipe(data=str(tmp_path / "noise.npz"), model=TINY, training=BRIEF), others)
    for guide, complaint in ((vae, "is a run of family vae"), (others, "was trained on other data")):
        _refused(capsys, _distance(fresh, "--guide", str(guide), "--guidance", "1"), complaint)


def test_an_interruption_loses_nothing(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, calls = distance.measure, []

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)  # type: ignore[arg-type]

    words = _distance(fresh, "--sampler", "ddim", "--steps", "2", "3", "4", "5")
    monkeypatch.setattr(distance, "measure", interrupted)
    assert main(words) == 130
    assert _measured(fresh) == [("ddim", 2), ("ddim", 3)]
    assert main(words) == 0
    assert len(calls) == 5
    assert _measured(fresh) == [("ddim", 2), ("ddim", 3), ("ddim", 4), ("ddim", 5)]


def test_a_vae_has_one_distance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "vae"
    jensen.train(VAERecipe(model=VAESettings(latent_dims=2, hidden=(8,)), training=BRIEF), folder)
    _refused(capsys, _distance(folder), "jensen features train")
    assert main(["features", "train", str(folder), *QUICK]) == 0
    assert main(_distance(folder)) == 0
    (found,) = json.loads((folder / "distances.json").read_text())["distances"]
    assert (found["cell"]["sampler"], found["recognised"], found["evaluations"]) == (None, None, 1)
    assert not (folder / "pictures" / "distances.png").exists()
    capsys.readouterr()
    _refused(capsys, _distance(folder, "--steps", "5"), "family vae")


def _refused(capsys: pytest.CaptureFixture[str], words: Sequence[str], expected: str) -> None:
    capsys.readouterr()  # a slow machine shows the progress of what went before
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("jensen: ")
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps", "10", "51"], "at most 50"),
        (["--n", "5000"], "2 to 1437"),
        (["--n", "1"], "2 to 1437"),
        (["--guidance", "nan"], "guidance scale"),
        (["--sampler", "magic"], "magic"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_sampling(
    fresh: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    _refused(capsys, _distance(fresh, *words), expected)
    assert not (fresh / "distances.json").exists()


def test_guidance_without_labels_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plain"
    jensen.train(DiffusionRecipe(model=TINY.model_copy(update={"conditional": False}), training=BRIEF), folder)
    assert main(["features", "train", str(folder), *QUICK]) == 0
    capsys.readouterr()
    _refused(capsys, _distance(folder, "--guidance", "1"), "no labels to guide by")
    assert main(_distance(folder, "--steps", "3")) == 0
    (found,) = json.loads((folder / "distances.json").read_text())["distances"]
    assert found["recognised"] is None
