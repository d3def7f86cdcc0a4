"""The demo: both families side by side, samples that a classifier recognises, and nothing of a user's lost."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from jensen.cli import main
from jensen.commands.demo import RECIPES, _advise
from jensen.evaluation.saved import load_evaluation


@pytest.mark.slow
def test_both_models_are_compared_and_the_asked_label_is_seen_in_95_of_100_samples(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    share, error, count = re.findall(r"([\d.]+) ± ([\d.]+) % of (\d+)\s+samples", page)[0]
    assert float(share) >= 95, f"{share} ± {error} %"
    assert int(count) >= 500
    bits = {name: load_evaluation(out / name).elbo.bits_per_dimension for name in RECIPES}
    for name, reached in {"vae": 2.0, "diffusion": 2.0}.items():  # a uniform guess of 17 levels: 4.09
        assert bits[name].mean < reached
        assert re.search(rf"{bits[name].mean:.2f}", page)
    assert json.loads((out / "diffusion" / "features" / "features.json").read_text())["test"]["mean"] > 0.95


def test_a_demo_replaces_nothing_but_a_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "vae").mkdir()
    (mine / "thesis.txt").write_text("precious")
    assert main(["demo", "--out", str(mine)]) == 2
    assert main(["demo", "--out", str(mine / "thesis.txt")]) == 2
    (mine / "thesis.txt").rename(tmp_path / "thesis.txt")
    assert main(["train", "vae", "--steps", "2", "--hidden", "4", "--out", str(mine / "vae")]) == 0
    assert main(["demo", "--out", str(mine)]) == 2  # a run of another recipe where the demo has its own
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "not a demo; give a new folder" in line] == lines[:2] + lines[-1:]
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    assert (mine / "vae" / "recipe.json").exists()


@pytest.mark.parametrize(
    ("started", "program"),
    [("lib/jensen/__main__.py", "python -m jensen"), (".venv/bin/jensen", ".venv/bin/jensen")],
)
def test_the_commands_to_try_can_be_typed_where_jensen_is_not_on_the_path(
    started: str, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "argv", [started, "demo"])
    _advise(Path("runs/demo/report.html"), Path("runs/demo"))
    assert f"\n  {program} sample runs/demo/diffusion " in capsys.readouterr().out
