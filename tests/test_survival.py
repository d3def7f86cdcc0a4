"""A run outlives kill -9 at any moment, damaged checkpoints and a second process: nothing lost, nothing doubled."""

import json
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from mortal import RECIPES, go_on, killed_at
from several import with_everything_imported

import jensen
from jensen.errors import InputError
from jensen.training.checkpoint import checkpoints
from jensen.training.log import read_lines

WRITES = 40  # at least so many changes of the file system are made by a training of 60 steps


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each recipe trained without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rollbacks
        for name, recipe in RECIPES.items():
            jensen.train(recipe, folder / name)
    steps_left_out = [
        line["step"] for line in read_lines(folder / "rolled back" / "metrics.jsonl") if "left_out" in line
    ]
    assert len(steps_left_out) > 1
    return {name: folder / name for name in RECIPES}


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return with_everything_imported()


def _run(processes: ForkServerContext, target: Callable[..., None], *arguments: object) -> int | None:
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def _assert_equal(whole: Path, parts: Path) -> None:
    """The same checkpoints bit for bit, and the same lines of metrics but for the speed."""
    names = [path.name for path in checkpoints(whole / "checkpoints")]
    assert [path.name for path in checkpoints(parts / "checkpoints")] == names
    for name in names:
        for file in ("model.safetensors", "optimiser.safetensors", "state.json"):  # weights, EMA, moments, counters
            assert (whole / "checkpoints" / name / file).read_bytes() == (
                parts / "checkpoints" / name / file
            ).read_bytes(), (name, file)
    lines = [
        [{k: v for k, v in line.items() if k != "examples_per_second"} for line in read_lines(run / "metrics.jsonl")]
        for run in (whole, parts)
    ]
    assert lines[0] == lines[1]
    assert [path.name for path in (whole / "samples").iterdir()] == [p.name for p in (parts / "samples").iterdir()]


@pytest.mark.parametrize("family", list(RECIPES))
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9_at_any_change_of_the_file_system_changes_nothing(
    family: str, kills: int, wholes: dict[str, Path], processes: ForkServerContext, tmp_path: Path
) -> None:
    source = random.Random(f"{family}, {kills}")
    deaths, run = 0, 0
    while deaths < kills:
        folder, run = tmp_path / str(run), run + 1
        for _ in range(5):  # deaths of one run, at most
            code = _run(processes, killed_at, RECIPES[family], folder, source.randint(1, WRITES))
            assert code in (0, -signal.SIGKILL)
            deaths += code != 0
            if code == 0 or deaths == kills:
                break
        assert _run(processes, go_on, RECIPES[family], folder) == 0
        _assert_equal(wholes[family], folder)


@pytest.mark.slow
@pytest.mark.parametrize("family", list(RECIPES))
def test_kill_9_at_random_moments_changes_nothing(
    family: str, wholes: dict[str, Path], processes: ForkServerContext, tmp_path: Path
) -> None:
    source, began = random.Random(family), time.monotonic()
    assert _run(processes, go_on, RECIPES[family], tmp_path / "timed") == 0
    usual, deaths, run = time.monotonic() - began, 0, 0
    while deaths < 25:
        folder, run = tmp_path / str(run), run + 1
        for _ in range(5):
            process = processes.Process(target=go_on, args=(RECIPES[family], folder))
            process.start()
            process.join(usual * source.random())
            process.kill()
            process.join()
            deaths += process.exitcode != 0
        assert _run(processes, go_on, RECIPES[family], folder) == 0
        _assert_equal(wholes[family], folder)


# ---------------------------------------------------------------------------------------------- damage


def _copy(run: Path, folder: Path) -> Path:
    import shutil

    shutil.copytree(run, folder)
    return folder


@pytest.mark.parametrize("file", ["model.safetensors", "optimiser.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_resume_goes_back_past_a_damaged_checkpoint(
    wholes: dict[str, Path], tmp_path: Path, file: str, damage: str
) -> None:
    run = _copy(wholes["vae"], tmp_path / "run")
    last = checkpoints(run / "checkpoints")[-1]
    _damage(last / file, damage)
    with pytest.warns(UserWarning, match=rf"{last.name}/{file} .*Using .*step-00000055 in its place"):
        jensen.resume(run)
    assert (last.parent / f"{last.name}.damaged").is_dir()
    _assert_equal(wholes["vae"], run)


def test_resume_removes_what_a_death_after_the_last_checkpoint_left(wholes: dict[str, Path], tmp_path: Path) -> None:
    run = _copy(wholes["vae"], tmp_path / "run")
    for step in (45, 50):
        _copy(run / "checkpoints" / "step-00000055", run / "checkpoints" / f"step-{step:08d}")
    jensen.resume(run)
    _assert_equal(wholes["vae"], run)


def _damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[0 if path.suffix == ".json" else len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()


def test_load_uses_another_checkpoint_where_the_best_is_damaged(wholes: dict[str, Path], tmp_path: Path) -> None:
    run = _copy(wholes["vae"], tmp_path / "run")
    best = jensen.load(run).checkpoint
    _damage(best / "model.safetensors", "flip")
    with pytest.warns(UserWarning, match="truncated or altered"):
        found = jensen.load(run)
    assert found.checkpoint == [path for path in checkpoints(run / "checkpoints") if path != best][-1]
    assert (best / "model.safetensors").exists()  # loading changes nothing


def test_where_all_checkpoints_are_damaged_the_first_complaint_is_raised(
    wholes: dict[str, Path], tmp_path: Path
) -> None:
    run = _copy(wholes["vae"], tmp_path / "run")
    found = checkpoints(run / "checkpoints")
    for path in found:
        _damage(path / "model.safetensors", "truncate")
    with pytest.raises(InputError, match=f"{found[-1].name}.*truncated or altered"):
        jensen.resume(run)
    assert checkpoints(run / "checkpoints") == found


# ---------------------------------------------------------------------------------------------- two at once


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--out", str(out), "--steps", "1000000", "--hidden", "16"]
    first = subprocess.Popen([sys.executable, "-m", "jensen", "train", "vae", *words], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.05)
        before = (out / "recipe.json").read_bytes()
        with pytest.raises(InputError, match="is being trained by another process"):
            jensen.resume(out)
        assert (out / "recipe.json").read_bytes() == before
    finally:
        first.kill()
        first.wait()
    assert first.returncode == -signal.SIGKILL  # it went on undisturbed, and its lock has gone with it
    record = json.loads((out / "recipe.json").read_text())
    record["training"]["steps"] = 1
    (out / "recipe.json").write_text(json.dumps(record))
    assert jensen.resume(out).recipe.training.steps == 1
