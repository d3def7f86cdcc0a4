"""`jensen train diffusion` and what follows, on real files: what can be done works, a mistake is one line, status 2."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jensen
from jensen.cli import main
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.training.log import read_lines

TINY = [
    *("--steps", "2", "--batch-size", "8", "--validate-every", "2", "--validation-examples", "8"),
    *("--widths", "4", "--blocks", "1", "--chain-steps", "30", "--bound-terms", "4", "--sampling-steps", "2"),
]
AS_BY_DEFAULT = ["--widths", "None"]  # the U-Net's, which other networks refuse
MLP = ["--network", "mlp", "--width", "8", "--depth", "1", *AS_BY_DEFAULT]
TRANSFORMER = ["--network", "transformer", "--width", "8", "--depth", "1", *AS_BY_DEFAULT]

RANDOM = np.random.default_rng(0)
ODD = RANDOM.integers(0, 256, (40, 9, 7), dtype=np.uint8)
NAN = ODD.astype(np.float32)
NAN[3, 1, 2] = np.nan


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets, good and bad."""
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "labelled.npz", x=ODD, y=np.arange(40) % 3)
    np.savez(folder / "numbered.npz", x=ODD, y=np.array(["1", "3", "7"])[np.arange(40) % 3])
    np.savez(folder / "one-class.npz", x=ODD, y=np.zeros(40, int))
    np.save(folder / "unlabelled.npy", ODD)
    np.save(folder / "floats.npy", RANDOM.normal(size=(40, 8, 8)).astype(np.float32))
    np.save(folder / "vectors.npy", RANDOM.normal(size=(40, 5)).astype(np.float32))
    np.save(folder / "signals.npy", RANDOM.normal(size=(40, 2, 17)).astype(np.float32))
    np.save(folder / "volumes.npy", ODD[:, None, :4, :4, None] * np.ones(4, np.uint8))
    np.save(folder / "pixels.npy", ODD[:, :1, :1])
    np.save(folder / "nan.npy", NAN)
    np.save(folder / "few.npy", ODD[:3])
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Diffusion runs with labels, with names that are numbers, without, of a chain with its own T; and a VAE."""
    folder = tmp_path_factory.mktemp("runs")
    for name, source, flags in (
        ("labelled", "labelled.npz", []),
        ("numbered", "numbered.npz", []),
        ("unlabelled", "unlabelled.npy", []),
        ("chain", "labelled.npz", ["--noise-schedule", "linear-beta", "--no-conditional"]),
    ):
        assert (
            main(["train", "diffusion", "--data", str(data / source), "--out", str(folder / name), *TINY, *flags]) == 0
        )
    vae = ["--steps", "2", "--hidden", "4", "--latent-dims", "2"]
    assert main(["train", "vae", "--data", str(data / "labelled.npz"), "--out", str(folder / "vae"), *vae]) == 0
    return folder


def refused(words: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`words` end in status 2 and one line that matches `word`."""
    capsys.readouterr()
    assert main(words) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jensen: ")]
    assert len(told) == 1
    assert re.search(word, told[0]), told[0]
    assert "──" not in told[0]
    assert "---" not in told[0]


# ---------------------------------------------------------------------------------------------- what works


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("unlabelled.npy", ["--patch", "2"]),
        ("unlabelled.npy", [*TRANSFORMER, "--patch", "4"]),
        ("unlabelled.npy", ["--patch", "32"]),
        ("unlabelled.npy", ["--widths", "4", "4", "4", "4", "4", "4"]),
        ("pixels.npy", ["--widths", "4", "4"]),
        ("one-class.npz", ["--guidance", "1"]),
        ("floats.npy", []),
        ("signals.npy", ["--layout", "array"]),
        ("signals.npy", [*TRANSFORMER, "--patch", "4", "--layout", "array"]),
        ("vectors.npy", MLP),
        ("volumes.npy", [*MLP, "--layout", "cdhw"]),
        ("volumes.npy", ["--layout", "cdhw"]),
        ("labelled.npz", ["--batch-size", "100"]),
        ("labelled.npz", ["--sampling-steps", "1"]),
        ("labelled.npz", ["--objective", "hybrid", "--variance", "learned", "--sampler", "ancestral"]),
    ],
)
def test_what_can_be_trained_is_trained_sampled_and_reconstructed(
    source: str, flags: list[str], data: Path, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    assert main(["train", "diffusion", "--data", str(data / source), "--out", run, *TINY, *flags]) == 0
    assert main(["sample", run, "--n", "3", "--out", str(tmp_path / "x.npz")]) == 0
    assert main(["reconstruct", run, "--examples", "2", "--out", str(tmp_path / "r.npz")]) == 0
    raw = np.load(data / source)
    raw = raw["x"] if source.endswith("npz") else raw
    sampled = np.load(tmp_path / "x.npz")["x"]
    assert sampled.dtype == raw.dtype
    assert sampled[0].size == raw[0].size
    assert np.isfinite(sampled).all()


def test_a_single_example_is_evaluated(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "labelled", run)
    np.save(tmp_path / "one.npy", ODD[:1])
    assert main(["evaluate", str(run), "--data", str(tmp_path / "one.npy"), "--draws", "2"]) == 0
    assert (run / "evaluations" / "one" / "report.html").exists()


# ---------------------------------------------------------------------------------------------- training refuses

BAD_RECIPES: dict[str, tuple[str, list[str], str]] = {
    "guidance without labels": ("unlabelled.npy", ["--guidance", "2"], "guidance scale 2.0: .*no labels"),
    "guidance, labels unused": ("labelled.npz", ["--guidance", "2", "--no-conditional"], "no labels"),
    "guidance nan": ("labelled.npz", ["--guidance", "nan"], "guidance = nan: .*finite"),
    "labels never hidden": ("labelled.npz", ["--label-dropout", "0"], "label_dropout = 0.0: .*greater than 0"),
    "labels always hidden": ("labelled.npz", ["--label-dropout", "1"], "label_dropout = 1.0: .*less than 1"),
    "more steps than T": (
        "labelled.npz",
        ["--noise-schedule", "linear-beta", "--sampling-steps", "31"],
        "31 steps: .*at most 30",
    ),
    "a chain too short for linear-beta": (
        "labelled.npz",
        ["--noise-schedule", "linear-beta", "--chain-steps", "10"],
        "10 steps .*more steps",
    ),
    "a chain of one step": ("labelled.npz", ["--chain-steps", "1"], "chain_steps = 1: .*2"),
    "swapped log-SNRs": ("labelled.npz", ["--log-snr-range", "-9", "9"], "from -9.0 to 9.0: .*swap"),
    "an infinite log-SNR": ("labelled.npz", ["--log-snr-range", "inf", "-9"], "log_snr_range.* = inf: .*finite"),
    "a learned schedule, not trained": (
        "labelled.npz",
        ["--noise-schedule", "learned"],
        "^jensen: noise_schedule learned with objective edm: only objective bound",
    ),
    "a learned variance, not trained": (
        "labelled.npz",
        ["--variance", "learned"],
        "^jensen: variance learned with objective edm: choose",
    ),
    "hybrid without its variance": ("labelled.npz", ["--objective", "hybrid"], "choose variance learned"),
    "attention at no level": ("labelled.npz", ["--attention", "1"], r"levels \(1,\) .*from 0 to 0"),
    "attention below 0": ("labelled.npz", ["--attention", "-1"], "attention.0 = -1"),
    "no widths": ("labelled.npz", ["--widths"], "widths"),
    "an odd width": ("labelled.npz", ["--widths", "7"], "width 7: .*even"),
    "a transformer's width": ("labelled.npz", [*TRANSFORMER, "--width", "6"], "width 6: .*multiple of 4"),
    "more than memory": ("labelled.npz", ["--widths", "4000000"], "not enough memory"),
    "noise beyond numbers": ("labelled.npz", ["--noise-mean", "1000"], "noise_mean = 1000.0: .*10"),
    "an infinite rate": ("labelled.npz", ["--learning-rate", "inf"], "learning_rate = inf: .*finite"),
    "vectors for a U-Net": (
        "vectors.npy",
        ["--network", "unet"],
        r"unet for vectors of shape \(5,\): choose network mlp",
    ),
    "volumes of one or four channels": ("volumes.npy", [], "give --layout cdhw or --layout dhwc"),
    "vectors for a transformer": ("vectors.npy", TRANSFORMER, "choose network mlp"),
    "NaN": ("nan.npy", [], "NaN.* example 3"),
    "an empty folder": ("empty", [], "empty folder"),
    "no such data": ("nowhere", [], "no such file"),
    "too few to split": ("few.npy", [], "3 examples, too few"),
    "a VAE's field": ("labelled.npz", ["--latent-dims", "3"], "--latent-dims"),
    "a misspelt field": ("labelled.npz", ["--samplr", "ddim"], "perhaps you meant --sampler"),
    "no such sampler": ("labelled.npz", ["--sampler", "euler"], "euler: .*ddim"),
    "a word for a number": ("labelled.npz", ["--guidance", "strong"], "'strong'"),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_bad_recipe_is_one_line_status_2_and_nothing_written(
    case: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, flags, word = BAD_RECIPES[case]
    refused(
        ["train", "diffusion", "--data", str(data / source), "--out", str(tmp_path / "run"), *TINY, *flags],
        word,
        capsys,
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[model]\nguidance = 2.0\n", "guidance scale 2.0"),
        ("[model]\nlatent_dims = 3\n", "unknown field model.latent_dims.* train diffusion --help"),
        ('family = "vae"\n', "is a recipe of family vae; use it by: jensen train vae"),
        ("[model]\nlabel_dropout = nan\n", "model.label_dropout = nan"),
        ('[model]\nobjective = "hybrid"\n', "model: objective hybrid .*choose variance learned"),
    ],
)
def test_bad_config_is_one_line(
    text: str, word: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text(text)
    words = [
        "--config",
        str(tmp_path / "c.toml"),
        "--data",
        str(data / "unlabelled.npy"),
        "--out",
        str(tmp_path / "run"),
    ]
    refused(["train", "diffusion", *words], word, capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags", [[], ["--objective", "bound", "--noise-schedule", "learned"], ["--sample-every", "1"]]
)
def test_a_loss_that_is_not_finite_stops_training_in_one_line(
    flags: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "diffusion", "--data", str(data / "labelled.npz"), "--out", str(tmp_path / "run"), *TINY, *flags]
    refused([*words, "--learning-rate", "1e30", "--steps", "9"], "stopped at step .*learning_rate", capsys)


def test_places_that_are_taken_or_cannot_be_written(
    runs: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    labelled = str(data / "labelled.npz")
    refused(["train", "diffusion", "--data", labelled, "--out", str(runs / "labelled")], "holds a run", capsys)
    refused(["train", "diffusion", "--data", labelled, "--out", f"{labelled}/run", *TINY], "give another path", capsys)
    refused(["sample", str(runs / "labelled"), "--out", f"{labelled}/x.png"], "give another path", capsys)
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("*")}


# ---------------------------------------------------------------------------------------------- sampling refuses


@pytest.mark.parametrize(
    ("run", "flags", "word"),
    [
        ("labelled", ["--label", "3"], "--label 3: .*0 to 2"),
        ("labelled", ["--label", "-1"], "--label -1: "),
        ("labelled", ["--label", "cat"], "--label cat: "),
        ("numbered", ["--label", "0"], "--label 0: .*1, 3, 7"),
        ("unlabelled", ["--label", "0"], "--label 0: .*without labels"),
        ("chain", ["--label", "0"], "--label 0: .*without labels"),
        ("unlabelled", ["--guidance", "2"], "guidance scale 2.0: .*no labels"),
        ("labelled", ["--guidance", "nan"], "guidance scale nan: .*finite"),
        ("labelled", ["--guidance", "1e38"], "not finite; .*guidance"),
        ("chain", ["--steps", "31"], "31 steps: .*at most 30"),
        ("chain", ["--steps", "31", "--sampler", "ddim"], "31 steps: .*at most 30"),
        ("labelled", ["--steps", "0"], "steps = 0"),
        ("labelled", ["--sampler", "euler"], "euler: "),
        ("vae", ["--label", "0"], "trained without labels"),
        ("vae", ["--steps", "5"], "family vae"),
        ("nowhere", [], "not a run"),
    ],
)
def test_what_cannot_be_sampled_is_one_line_and_nothing_written(
    run: str, flags: list[str], word: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["sample", str(runs / run), "--n", "3", "--out", str(tmp_path / "x.png"), *flags], word, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["score", "reconstruct", "evaluate"])
@pytest.mark.parametrize(
    ("source", "word"),
    [("nan.npy", "NaN"), ("floats.npy", "shape"), ("vectors.npy", "shape"), ("empty", "empty"), ("nowhere", "no such")],
)
def test_data_that_do_not_fit_the_run_are_one_line_and_nothing_written(
    command: str, source: str, word: str, runs: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    suffix = "csv" if command == "score" else "npz"
    out = [] if command == "evaluate" else ["--out", str(tmp_path / f"out.{suffix}")]
    refused([command, str(runs / "labelled"), "--data", str(data / source), *out], word, capsys)
    assert not list(tmp_path.iterdir())
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("*")}


# ---------------------------------------------------------------------------------------------- damaged runs


def _edit(name: str, *keys: str, value: Any) -> Callable[[Path], None]:
    """Set a value in one of the run's JSON files, those of all checkpoints for state.json."""

    def damage(run: Path) -> None:
        for path in run.rglob(name):
            content = json.loads(path.read_text())
            inner = content
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = value
            path.write_text(json.dumps(content))

    return damage


def _cut(run: Path) -> None:
    for path in run.rglob("model.safetensors"):
        path.write_bytes(path.read_bytes()[:-4])


def _alter(run: Path) -> None:
    for path in run.rglob("model.safetensors"):
        path.write_bytes(path.read_bytes()[:-4] + b"abcd")


DAMAGES = {
    "weights cut off": (_cut, "truncated or altered"),
    "weights altered": (_alter, "truncated or altered"),
    "a newer checkpoint": (_edit("state.json", "format", value=9), "newer jensen"),
    "a newer recipe": (_edit("recipe.json", "format", value=9), "newer jensen"),
    "a checkpoint without checksums": (_edit("state.json", "sha256", value={}), "state.json is missing or damaged"),
    "another network": (
        _edit("recipe.json", "model", "widths", value=[8]),
        "does not fit the run's recipe|trained by another recipe than recipe.json is now",
    ),
    "another number of classes": (_edit("data.json", "classes", value=5), "does not fit the run's recipe"),
    "another family": (_edit("recipe.json", "family", value="vae"), "recipe.json"),
    "an unknown family": (_edit("recipe.json", "family", value="gan"), "'gan'"),
    "an unknown field": (_edit("recipe.json", "model", "colour", value=1), "unknown field .*colour"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_run_is_refused_by_every_command_and_left_alone(
    case: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, word = DAMAGES[case]
    run = tmp_path / "run"
    shutil.copytree(runs / "labelled", run)
    damage(run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for command in ("resume", "info", "sample", "evaluate", "score", "reconstruct"):
        out = ["--out", str(tmp_path / "out.npz")] if command in ("sample", "score", "reconstruct") else []
        refused([command, str(run), *out], word, capsys)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(("field", "value"), [("optimiser", "adamw"), ("ema_decay", None)])
def test_a_checkpoint_of_other_training_is_not_resumed(
    field: str, value: Any, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "labelled", run)
    _edit("recipe.json", "training", field, value=value)(run)
    refused(["resume", str(run)], "by another recipe than recipe.json is now", capsys)


def test_strangers_among_the_checkpoints_are_left_alone(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "labelled", run)
    (run / "checkpoints" / "step-00000001 (copy)").mkdir()
    assert main(["info", str(run)]) == 0


# ---------------------------------------------------------------------------------------------- stop and go on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(
    number: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all that has a memory: Muon, averaged weights, the table of errors and the times drawn by it."""
    flags = ["--optimiser", "muon", "--ema-decay", "0.9", "--times", "loss-aware", "--steps", "8", "--log-every", "3"]
    words = ["train", "diffusion", "--data", str(data / "labelled.npz"), *TINY, *flags]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("jensen.training.loop.learning_rate", _interrupting_at(5, number))
        assert main([*words, "--out", str(tmp_path / "parts")]) == 130
    assert "jensen resume" in capsys.readouterr().err
    assert main(["resume", str(tmp_path / "parts")]) == 0
    whole, parts = ({p.relative_to(run): p for p in run.rglob("*")} for run in (tmp_path / "whole", tmp_path / "parts"))
    files = [name for name in whole if name.suffix == ".safetensors"]
    assert len(files) >= 4
    assert files == [name for name in whole if name in parts and name.suffix == ".safetensors"]
    assert all(whole[name].read_bytes() == parts[name].read_bytes() for name in files)
    clock = {"time", "seconds", "examples_per_second"}
    logs = [
        [{k: v for k, v in line.items() if k not in clock} for line in read_lines(tmp_path / run / "metrics.jsonl")]
        for run in ("whole", "parts")
    ]
    assert logs[0] == logs[1]


def _interrupting_at(step: int, number: int) -> Callable[..., float]:
    """The learning rate, which sends this process a signal on the way."""
    from jensen.training.loop import learning_rate

    def rate(now: int, *rest: Any) -> float:
        if now == step:
            os.kill(os.getpid(), number)
        return learning_rate(now, *rest)

    return rate


# ---------------------------------------------------------------------------------------------- from Python


def test_python_refuses_the_same(runs: Path, data: Path, tmp_path: Path) -> None:
    labelled, unlabelled = jensen.load(runs / "labelled").model, jensen.load(runs / "unlabelled").model
    for labels in ([0, 7], [0, -1], [0], [0, 1, 2], [0.0, 1.0], [True, False]):
        with pytest.raises(jensen.InputError, match="label"):
            labelled.sample(2, labels=torch.tensor(labels))
    with pytest.raises(jensen.InputError, match="leave the labels out"):
        unlabelled.sample(2, labels=torch.tensor([0, 1]))
    for x in (torch.zeros(2, 1, 9, 8), torch.zeros(1, 9, 7), torch.zeros(2, 1, 9, 7, dtype=torch.uint8)):
        with pytest.raises(jensen.InputError, match="prepare"):
            labelled.elbo(x)
        with pytest.raises(jensen.InputError, match="prepare"):
            labelled.ode_bound(x, samples=1)
    recipe = DiffusionRecipe(data=str(data / "unlabelled.npy"), model=DiffusionSettings(widths=(4,), guidance=1.0))
    with pytest.raises(jensen.InputError, match="no labels"):
        jensen.train(recipe, tmp_path / "run")
    with pytest.raises(jensen.InputError, match="not a run"):
        jensen.load(tmp_path / "run")
    assert not list(tmp_path.iterdir())
