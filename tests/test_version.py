"""`jensen --version`: the version alone, or the whole installation for a report of a bug."""

import platform

import pytest
import torch

import jensen
from jensen.cli import main


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["--version", *words])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys) == f"jensen {jensen.__version__}\n"


def test_the_installation_is_told_without_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    found = dict(line.split(maxsplit=1) for line in told(capsys, "--verbose").splitlines())
    assert found["jensen"] == jensen.__version__
    assert found["Python"].startswith(platform.python_version())
    assert found["torch"].startswith(torch.__version__)
    assert f"torch {torch.__version__}" in found["requires"]
    assert "device" in found
    assert not any(word.startswith("/") for line in found.values() for word in line.split())


def test_other_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version", "--verbos"]) == 2
    assert "expected nothing more, or --verbose" in capsys.readouterr().err
