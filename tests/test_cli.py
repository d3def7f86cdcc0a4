"""The command line on real files: what it prints and writes, and one line with status 2 for every mistake."""

import csv
import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jensen.cli import main

RUN_FLAGS = ["--steps", "40", "--latent-dims", "2", "--hidden", "16", "--validate-every", "20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "vae", "--out", str(out), *RUN_FLAGS]) == 0
    return out


# ---------------------------------------------------------------------------------------------- what works


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["train", "vae", "--help"], ["sample", "--help"], ["data", "--help"]]
)
def test_help_imports_no_torch(words: list[str]) -> None:
    program = (
        "import sys\nfrom jensen.cli import main\n"
        f"try: status = main({words!r})\nexcept SystemExit as stop: status = stop.code\n"
        "assert not status, status\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "jensen" in done.stdout


@pytest.mark.parametrize("module", ["pydantic", "tyro", "torch"])
def test_an_interruption_while_modules_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    program = (
        "import os, runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a process in the background does without
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "runpy.run_module('jensen', run_name='__main__')"
    )
    words = ["train", "vae", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "jensen: interrupted\n")
    assert not (tmp_path / "run").exists()


def test_flags_win_over_the_config_file(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text("seed = 7\n[model]\nlatent_dims = 3\nhidden = [8]\n[training]\nsteps = 5\nbatch_size = 9\n")
    out = tmp_path / "run"
    assert main(["train", "vae", "--config", str(config), "--steps", "6", "--out", str(out)]) == 0
    recipe = json.loads((out / "recipe.json").read_text())
    assert (recipe["seed"], recipe["model"]["latent_dims"], recipe["model"]["hidden"]) == (7, 3, [8])
    assert (recipe["training"]["steps"], recipe["training"]["batch_size"]) == (6, 9)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("stream", ["never", "always"])
def test_odd_metadata_of_images_are_nobodys_concern(
    stream: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    cut_off = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03\0\0\0\x01"
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.jpg", exif=cut_off)
    words = ["--data", str(tmp_path / "images"), "--stream", stream, "--out", str(tmp_path / "run")]
    assert main(["train", "vae", *words, "--steps", "2", "--hidden", "4", "--batch-size", "4"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_sample_writes_png_npz_and_a_folder(run: Path, tmp_path: Path) -> None:
    for name in ("grid.png", "raw.npz", "folder"):
        assert main(["sample", str(run), "--n", "5", "--seed", "3", "--out", str(tmp_path / name)]) == 0
    grid = Image.open(tmp_path / "grid.png")
    assert grid.mode == "L"
    side = (grid.width - 16) // 2  # the samples, a white gap of 16 pixels, and their means
    pixels = np.asarray(grid)
    assert (pixels[:, side : side + 16] == 255).all()
    assert np.array_equal(pixels[:, :2], pixels[:, side + 16 : side + 18])  # the frames of two equal grids
    assert not np.array_equal(pixels[:, :side], pixels[:, side + 16 :])
    raw, mean = (np.load(tmp_path / "raw.npz")[name] for name in ("x", "mean"))
    assert mean.shape == raw.shape
    assert (raw != mean).any()
    assert main(["sample", str(run), "--n", "5", "--seed", "3", "--mean", "--out", str(tmp_path / "means.npz")]) == 0
    only = np.load(tmp_path / "means.npz")
    assert only.files == ["x"]
    assert np.array_equal(only["x"], mean)
    assert raw.shape == (5, 1, 8, 8)
    assert raw.dtype == np.uint8
    assert raw.max() <= 16
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [f"00000{i}.png" for i in range(5)]
    assert main(["sample", str(run), "--n", "2", "--first", "3", "--seed", "3", "--out", str(tmp_path / "b.npz")]) == 0
    assert np.array_equal(np.load(tmp_path / "b.npz")["x"], raw[3:])


def test_reconstruct_writes_pairs(run: Path, tmp_path: Path) -> None:
    assert main(["reconstruct", str(run), "--examples", "4", "--out", str(tmp_path / "pairs.png")]) == 0
    assert main(["reconstruct", str(run), "--examples", "4", "--out", str(tmp_path / "pairs.npz")]) == 0
    pairs = np.load(tmp_path / "pairs.npz")
    assert pairs["x"].shape == pairs["reconstruction"].shape == (4, 1, 8, 8)


def test_score_writes_one_row_per_example(run: Path, tmp_path: Path) -> None:
    assert main(["score", str(run), "--out", str(tmp_path / "scores.csv"), "--draws", "4"]) == 0
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert len(rows) == 180
    assert list(rows[0]) == ["example", "name", "bound_nats", "standard_error_nats", "bits_per_dim", "label"]
    for row in rows:
        assert float(row["bits_per_dim"]) == pytest.approx(-float(row["bound_nats"]) / (64 * np.log(2)), rel=1e-4)
        assert float(row["standard_error_nats"]) > 0


def test_evaluate_prints_a_table_and_writes_the_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--samples", "20", "--further-examples", "30", "--draws", "2"]) == 0
    assert "±" in capsys.readouterr().out
    assert json.loads((run / "evaluation.json").read_text())
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_compare_shows_two_evaluated_runs_and_refuses_the_rest(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / "one" / "vae", tmp_path / "two" / "vae"]
    for folder in runs:
        shutil.copytree(run, folder)
        (folder / "evaluation.json").unlink(missing_ok=True)
    words = ["compare", *map(str, runs), "--out", str(tmp_path / "both")]
    evaluation = ["--samples", "5", "--further-examples", "4", "--draws", "2"]
    assert main(words) == 2
    assert f"make it with: jensen evaluate {runs[0]}" in capsys.readouterr().err
    assert main(["evaluate", str(runs[0]), *evaluation]) == 0
    assert main(["evaluate", str(runs[1]), "--split", "validation", *evaluation]) == 0
    assert main(words) == 2
    assert f"make it with: jensen evaluate {runs[1]}" in capsys.readouterr().err  # validation is another evaluation
    assert not (tmp_path / "both").exists()
    assert main(["evaluate", str(runs[1]), *evaluation]) == 0
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "0.0000 ± 0.0000" in shown  # the same model twice
    assert 'href="../one/vae/report.html"' in (tmp_path / "both" / "report.html").read_text()
    before = (runs[0] / "report.html").read_bytes()
    for wrong in (
        ["compare", str(runs[0]), "--out", "x"],
        [*words[:3], "--out", str(runs[0])],
        ["compare", "--out", "x"],
    ):
        assert main(wrong) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert (runs[0] / "report.html").read_bytes() == before


def test_info_and_data_check(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(run)]) == 0
    assert "1437 train" in capsys.readouterr().out
    assert main(["data", "check", "digits"]) == 0
    assert "1797" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- bad input


def _npy(values: np.ndarray) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.save(folder / "x.npy", values)
        return folder / "x.npy"

    return make


def _images(*sizes: tuple[int, int], corrupt: bool = False) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "images").mkdir()
        for number, size in enumerate(sizes):
            Image.new("L", size, number).save(folder / "images" / f"{number}.png")
        if corrupt:
            (folder / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
        return folder / "images"

    return make


def _idx(content: bytes, name: str = "train-images-idx3-ubyte") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "idx").mkdir()
        (folder / "idx" / name).write_bytes(content)
        return folder / "idx"

    return make


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


GOOD = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
NAN, INFINITE = GOOD.copy(), GOOD.copy()
NAN[3, 1], INFINITE[5, 2] = np.nan, np.inf
HEADER = struct.pack(">HBBIII", 0, 8, 3, 20, 4, 4)

BAD_DATA = {
    "a path that does not exist": (lambda folder: folder / "nowhere", "nowhere"),
    "an empty folder": (_empty, "empty"),
    "a corrupt image": (_images(*[(4, 4)] * 20, corrupt=True), "broken.png"),
    "images of two sizes": (_images(*[(4, 4)] * 20, (5, 4)), "size"),
    "NaN": (_npy(NAN), "NaN|finite"),
    "infinity": (_npy(INFINITE), "infinit|finite"),
    "the wrong rank": (_npy(np.float32(3.0)), "axes|rank|dimension|shape"),
    "length 0": (_npy(GOOD[:0]), "0|empty"),
    "length 1": (_npy(GOOD[:1]), "1 example"),
    "IDX too short": (_idx(HEADER + bytes(20 * 16 - 1)), "idx3"),
    "IDX too long": (_idx(HEADER + bytes(20 * 16 + 1)), "idx3"),
    "truncated gzip": (_idx(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03abc", "train-images-idx3-ubyte.gz"), "gz"),
}


@pytest.mark.parametrize("case", BAD_DATA)
@pytest.mark.parametrize("command", ["train", "check", "score"])
def test_bad_data_is_one_line_status_2_and_nothing_written(
    case: str, command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, word = BAD_DATA[case]
    (tmp_path / "in").mkdir()
    data, out = str(make(tmp_path / "in")), tmp_path / ("out.csv" if command == "score" else "out")
    words = {
        "train": ["train", "vae", "--data", data, "--out", str(out)],
        "check": ["data", "check", data],
        "score": ["score", str(run), "--data", data, "--out", str(out)],
    }[command]
    assert main(words) == 2
    told = capsys.readouterr()
    assert len(told.err.strip().splitlines()) == 1
    assert not out.exists()
    expected = "shape" if command == "score" and case == "length 1" else word  # one example can be scored
    assert re.search(expected, told.err + told.out, re.IGNORECASE), told.err


def test_skip_bad_goes_on_and_reports_the_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = _images(*[(4, 4)] * 20, corrupt=True)(tmp_path)
    out = tmp_path / "run"
    assert main(["train", "vae", "--data", str(data), "--skip-bad", "--out", str(out), *RUN_FLAGS]) == 0
    assert json.loads((out / "data.json").read_text())["skipped"] == 1
    assert main(["data", "check", str(data), "--skip-bad"]) == 0
    assert "1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[model]\nlatent_dimensions = 3\n", "model.latent_dimensions"),
        ("[training]\nsteps = -1\n", "training.steps"),
        ("[model]\nlatent_dims = 'many'\n", "model.latent_dims"),
        ("[model]\nobjective = 'importance-weighted'\nfree_bits = 1.0\n", "free_bits"),
        ("colour = 'red'\n", "colour"),
        ("steps = [\n", "TOML"),
    ],
)
def test_bad_config_is_one_line_and_names_the_field(
    tmp_path: Path, text: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    assert main(["train", "vae", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert len(told.strip().splitlines()) == 1
    assert word in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"],
        ["train", "gan"],
        ["train", "vae", "--stepz", "3"],
        ["train", "vae", "--steps", "0"],
        ["train", "vae", "--steps", "many"],
        ["train", "vae", "--likelihood", "poisson"],
        ["train", "vae", "--config", "/nowhere.toml"],
        ["sample"],
        ["resume", "/nowhere"],
        ["info", "."],
        ["evaluate", "/nowhere"],
    ],
)
def test_bad_words_are_one_line_status_2(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    told = capsys.readouterr()
    assert len(told.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_out_that_holds_a_run_is_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert main(["train", "vae", "--out", str(run)]) == 2
    assert "jensen resume" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_sample_targets_that_cannot_be_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), "--out", str(tmp_path / "x.jpg")]) == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    assert main(["sample", str(run), "--out", str(tmp_path / "full")]) == 2
    assert main(["sample", str(run), "--n", "0", "--out", str(tmp_path / "x.png")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 3
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_places_that_cannot_be_written_are_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("precious")
    for words in (
        ["score", str(run), "--draws", "2", "--out", str(tmp_path / "file" / "scores.csv")],
        ["sample", str(run), "--out", str(tmp_path / "file" / "grid.png")],
        ["train", "vae", "--out", str(tmp_path / "file" / "run")],
    ):
        assert main(words) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert (tmp_path / "file").read_text() == "precious"


def test_more_than_memory_holds_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(run), "--draws", "100000000000000", "--out", str(tmp_path / "s.csv")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("jensen: not enough memory; ask for less at once (--batch-size, --draws)")


def test_data_of_another_shape_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.zeros((20, 9, 9), np.uint8))
    assert main(["score", str(run), "--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "s.csv")]) == 2
    assert "shape" in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()


def test_a_flag_with_too_few_values_is_told_without_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "anywhere", "--size", "32"]) == 2
    told = capsys.readouterr().err
    assert "--size" in told
    assert "INT INT" in told
    assert "[bold]" not in told
