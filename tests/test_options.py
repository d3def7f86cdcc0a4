"""What commands take: one set of examples, and help that fits a terminal."""

from pathlib import Path

import pytest

from jensen.cli import main
from jensen.commands import commands


@pytest.mark.parametrize("command", ["reconstruct", "evaluate", "score", "predict", "impute", "compress"])
def test_a_split_beside_data_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = [] if command == "evaluate" else ["--out", str(tmp_path / "out")]
    assert main([command, str(tmp_path), "--data", "digits", "--split", "test", *out]) == 2
    told = capsys.readouterr().err
    assert "--split test selects from the run's own data; leave it out, or leave out --data" in told
    assert told.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", commands())
def test_a_number_of_examples_is_always_called_so(name: str) -> None:
    assert ("n" in commands()[name].model_fields) == (name in {"sample", "features distance", "features check"})


def test_the_list_of_commands_fits_into_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 18
    assert max(map(len, lines)) <= 100
