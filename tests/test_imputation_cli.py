"""`jensen impute` on real runs: what it writes, every kind of mask, and one line with status 2 for every mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jensen
from jensen.cli import main
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.vae.settings import VAERecipe, VAESettings

BRIEF = {"steps": 20, "batch_size": 32, "validate_every": 20, "ema_decay": None}
SMALL = VAESettings(latent_dims=2, hidden=(8,), fit_steps=5)
TINY = DiffusionSettings(network="mlp", width=16, depth=1, noise_schedule="linear-beta", chain_steps=50, bound_terms=5)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "vae"
    jensen.train(VAERecipe(model=SMALL, training=BRIEF), folder)
    return folder


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "diffusion"
    jensen.train(DiffusionRecipe(model=TINY, training=BRIEF), folder)
    return folder


def _impute(run: Path, out: Path, *words: str) -> int:
    quick = (
        [] if "--method" in words else ["--sweeps", "2", "--samples", "10"] if run.name == "vae" else ["--steps", "4"]
    )
    return main(["impute", str(run), "--examples", "3", "--draws", "2", "--out", str(out), *quick, *words])


def _mask(run: Path, out: Path, mask: object) -> np.ndarray:
    assert _impute(run, out, "--mask", str(mask)) == 0
    written = np.load(out / "imputations.npz")
    assert (written["draws"] == written["draws"][:1])[:, written["mask"]].all()
    return written["mask"]


@pytest.mark.parametrize("method", ["gibbs", "importance", "particles", "replacement"])
def test_arrays_a_picture_and_calibration(
    method: str, vae: Path, diffusion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = vae if method in ("gibbs", "importance") else diffusion
    size = ["--samples", "10"] if run == vae else ["--steps", "4"]
    assert _impute(run, tmp_path / "o", "--method", method, *size, "--mask", "half:bottom", "--calibrate") == 0
    written = np.load(tmp_path / "o" / "imputations.npz")
    raw = jensen.load(run).examples().x.numpy()[written["example"]]
    assert written["draws"].shape == (2, 3, 1, 8, 8)
    assert written["draws"].dtype == raw.dtype
    assert np.array_equal(written["draws"][1][written["mask"]], raw[written["mask"]])
    assert np.array_equal(written["mask"], np.broadcast_to(np.arange(8)[:, None] < 4, (3, 1, 8, 8)))
    np.testing.assert_allclose(written["mean"], written["draws"].mean(0), rtol=1e-6)
    assert (written["sd"][written["mask"]] == 0).all()
    picture = Image.open(tmp_path / "o" / "imputations.png")
    assert picture.width > picture.height  # 5 columns, 3 rows
    record = json.loads((tmp_path / "o" / "calibration.json").read_text())
    assert (record["draws"], record["examples"], record["entries"], record["mask"]) == (2, 3, 96, "half:bottom")
    assert json.loads((run / "calibration.json").read_text()) == record
    told = capsys.readouterr().out
    assert "hold the truth" in told
    assert f"{tmp_path / 'o'}: 2 draws for each of 3 examples\n" in told
    last = told.splitlines()[-1]
    assert last == "It holds calibration.json, calibration.png, imputations.npz, imputations.png"
    assert len(last) <= 80


def test_every_kind_of_mask(vae: Path, tmp_path: Path) -> None:
    observed = np.ones((8, 8), bool)
    observed[2:5, 1:7] = False
    Image.fromarray(np.where(observed, 0, 255).astype(np.uint8)).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", observed)
    np.savez(tmp_path / "mask.npz", mask=np.broadcast_to(observed, (180, 8, 8)).astype(np.uint8))
    for number, name in enumerate(("mask.png", "mask.npy", "mask.npz")):
        found = _mask(vae, tmp_path / str(number), tmp_path / name)
        assert np.array_equal(found, np.broadcast_to(observed, (3, 1, 8, 8))), name
    assert not _mask(vae, tmp_path / "centre", "centre")[:, :, 2:6, 2:6].any()
    assert _mask(vae, tmp_path / "left", "half:left")[..., 4:].all()
    random = _mask(vae, tmp_path / "random", "random:0.3")
    assert 0.5 < random.mean() < 0.9
    assert (random[0] != random[1]).any()


def test_nan_of_the_data_are_imputed_also_by_a_run_trained_with_some(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    x[::2, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    run = tmp_path / "vae"
    recipe = VAERecipe(data=str(tmp_path / "x.npy"), model=SMALL, training=BRIEF, read={"missing": True})
    jensen.train(recipe, run)
    assert _impute(run, tmp_path / "o", "--data", str(tmp_path / "x.npy"), "--mask", "half:left", "--calibrate") == 0
    written = np.load(tmp_path / "o" / "imputations.npz")
    assert np.isfinite(written["draws"]).all()
    assert np.array_equal(written["draws"][0][written["mask"]], x[written["example"]][written["mask"]])
    assert not written["mask"][np.isnan(x[written["example"]])].any()
    assert not (tmp_path / "o" / "imputations.png").exists()
    record = json.loads((tmp_path / "o" / "calibration.json").read_text())
    assert record["entries"] == 3  # of three examples' first entries, which are known
    assert not (run / "calibration.json").exists()  # which is about its test examples
    assert _impute(run, tmp_path / "own", "--mask", "half:left", "--calibrate") == 0
    assert main(["evaluate", str(run), "--samples", "5", "--further-examples", "4", "--draws", "2"]) == 0
    assert "Imputation" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no value is missing and no --mask hides any"),
        (["--mask", "half:up"], "not a pattern for examples of shape"),
        (["--mask", "stripes"], "neither a pattern nor a file"),
        (["--mask", "random:2"], "probability of a missing value between 0 and 1"),
        (["--mask", "absent.png"], "no such file"),
        (["--mask", "{}/small.png"], "is 4 high and 8 wide, the images are 8 high and 8 wide"),
        (["--mask", "{}/red.png"], "is coloured or transparent"),
        (["--mask", "{}/brush.png"], "is coloured or transparent"),
        (["--mask", "{}/small.npy"], "has shape (4, 8); expected that of an example"),
        (["--mask", "{}/numbers.npy"], "expected booleans"),
        (["--mask", "{}/damaged.npz"], "cannot be read"),
        (["--mask", "{}/all.npy"], "hides nothing"),
        (["--mask", "centre", "--method", "particles"], "a model of family vae imputes by gibbs or importance"),
        (["--mask", "centre", "--particles", "4"], "--particles is not for --method gibbs"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    words: list[str], says: str, vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(np.full((8, 8, 3), (255, 0, 0), np.uint8)).save(tmp_path / "red.png")
    Image.fromarray(np.full((8, 8, 4), (255, 255, 255, 0), np.uint8)).save(tmp_path / "brush.png")
    np.save(tmp_path / "small.npy", np.zeros((4, 8), bool))
    np.save(tmp_path / "numbers.npy", np.full((8, 8), 0.5))
    np.save(tmp_path / "all.npy", np.ones((8, 8), bool))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 no")
    assert _impute(vae, tmp_path / "o", *(word.format(tmp_path) for word in words)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("jensen: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_folder_with_something_in_it_is_kept(vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").write_text("mine")
    assert _impute(vae, tmp_path, "--mask", "centre") == 2
    assert "is not an empty folder; give a new one" in capsys.readouterr().err
