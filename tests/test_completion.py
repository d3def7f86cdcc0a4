"""Completion in a shell: every flag of every command, by the shell itself."""

import os
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
import tyro

from jensen.cli import main
from jensen.commands import commands
from jensen.commands.common import flags
from jensen.commands.completion import completion
from jensen.commands.train import Train


@pytest.mark.parametrize("name", commands())
def test_the_flags_are_those_that_tyro_accepts(name: str) -> None:
    kind = commands()[name]
    trains = issubclass(kind, Train)
    default = {"default": kind(recipe=kind.model_fields["recipe"].default)} if trains else {}
    config = (*(() if trains else (tyro.conf.OmitArgPrefixes,)), tyro.conf.FlagCreatePairsOff)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its parser for argparse goes some day
        parser = tyro.extras.get_parser(kind, prog="jensen", config=config, **default)
    accepted = {action.option_strings[0] for action in parser._actions if action.option_strings} - {"-h"}
    assert {flag for flag, _ in flags(kind)} == accepted


def completed(script: Path, *words: str) -> list[str]:
    """The words that bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in ("jensen", *words))
    asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words)}; _jensen"
    program = f"source {script}; {asked}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "jensen.bash"
    script.write_text(completion("bash"))
    assert completed(script, "sa") == ["sample"]
    assert completed(script, "") == list(dict.fromkeys(name.split()[0] for name in commands()))
    assert set(completed(script, "train", "")) == {"diffusion", "latent", "vae"}
    assert completed(script, "train", "vae", "--latent-d") == ["--latent-dims"]
    assert completed(script, "sample", "run", "--sampler", "he") == ["heun"]
    assert completed(script, "train", "diffusion", "--out", "x", "--trackers", "wan") == ["wandb"]
    assert completed(script, "sample", "--se") == ["--seed"]
    assert completed(script, "sample", "run") == []  # files, by bash itself


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_accepts_its_script(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    (tmp_path / "script").write_text(script)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [("sa", ["sample"]), ("sample run --sampler he", ["heun"]), ("train vae --latent-d", ["--latent-dims"])],
)
def test_fish_completes(line: str, offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "jensen.fish").write_text(completion("fish"))
    program = f"source {tmp_path / 'jensen.fish'}; complete -C 'jensen {line}'"
    done = subprocess.run(["fish", "--no-config", "-c", program], capture_output=True, text=True, check=True)
    assert [word.split("\t")[0] for word in done.stdout.splitlines()] == offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_takes_over_the_function_of_bash(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(completion("zsh"))
    program = f"source {tmp_path / 'script'}; echo ${{_comps[jensen]}}"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert "_jensen" in done.stdout
