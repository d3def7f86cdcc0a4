"""A user's file that uses the public API is typed: `mypy --strict` finds every type, and the mistakes in the file."""

import subprocess
import sys
from pathlib import Path

import pytest

import jensen

ROOT = Path(__file__).resolve().parents[1]
GOOD = """\
import numpy as np
import jensen

run: jensen.Run = jensen.train(jensen.VAERecipe(data="digits"), "run")
recipes = [jensen.DiffusionRecipe(data=np.zeros((4, 2))), jensen.LatentRecipe(seed=1)]
settings = [jensen.EvaluationSettings(), jensen.RefereeSettings(), jensen.ClassifierSettings(passes=2)]
bound: float = jensen.score(run).bound.mean().item()
pictures: np.ndarray = jensen.decode(run, jensen.encode(run).z).x
names: list[str] = jensen.interpolate(run, "row 3", "row 4").names
samples = jensen.sample(run, 10, wish=jensen.SamplingWish(steps=20))
raw: np.ndarray = samples.x
imputed: np.ndarray = jensen.impute(run, mask="half:left").draws
again: jensen.Run = jensen.resume(run.folder, steps=100)
evaluated: float = jensen.evaluate(again).evaluation.elbo.nats.mean
"""
BAD = (
    'jensen.sample("run")',
    "jensen.score(run).bond",
    'jensen.resume(run.folder, step="many")',
    "jensen.no_such_verb",
)


@pytest.mark.slow
def test_mypy_knows_the_public_api_and_finds_mistakes(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    every = "".join(f"reveal_type(jensen.{name})\n" for name in jensen.__all__)
    (tmp_path / "bad.py").write_text(GOOD + "\n".join(BAD) + "\n" + every)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path / "cache")]
    environment = {"MYPYPATH": str(ROOT / "src"), "PATH": ""}
    words = [*mypy, "--follow-imports", "silent"]
    found = {
        name: subprocess.run([*words, name], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        for name in ("good.py", "bad.py")
    }
    assert found["good.py"].returncode == 0, found["good.py"].stdout
    said = found["bad.py"].stdout
    first = GOOD.count("\n") + 1
    for number in range(first, first + len(BAD)):
        assert f"bad.py:{number}: error" in said, said
    assert said.count("Revealed type is") == len(jensen.__all__)
    assert 'Revealed type is "Any"' not in said
