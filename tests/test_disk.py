"""Disk trouble while training, no space left or only reading allowed: one line, nothing lost, and on it goes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mortal import RECIPES
from test_survival import _assert_equal as assert_equal

import jensen
from jensen.cli import main
from jensen.training.checkpoint import checkpoints

TRAIN = {
    "vae": ["train", "vae", "--latent-dims", "2", "--hidden", "8"],
    "diffusion": [
        *("train", "diffusion", "--network", "mlp", "--width", "16", "--depth", "1", "--bound-terms", "3"),
        *("--sampling-steps", "3"),
    ],
}
MORE = [
    *("--steps", "60", "--batch-size", "32", "--ema-decay", "0.99", "--log-every", "7", "--validate-every", "20"),
    *("--validation-examples", "20", "--checkpoint-every", "5", "--sample-every", "30"),
]


class Disk:
    """A small file system in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount("size=64m", kind=["-t", "tmpfs", "tmpfs"])

    def allow(self, kibibytes: int) -> None:
        """Let it hold so much in all."""
        self._mount(f"remount,rw,size={kibibytes}k")

    def protect(self) -> None:
        """Let nobody write."""
        self._mount("remount,ro")

    def _mount(self, options: str, kind: list[str] | None = None) -> None:
        words = ["mount", *(kind or []), "-o", options, str(self.folder)]
        told = subprocess.run(words, capture_output=True, text=True, check=False)
        if told.returncode:
            pytest.skip(f"no small file system can be made here: {told.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("mounts a small file system, as root of a Linux machine may")
    made = Disk(tmp_path / "disk")
    yield made
    subprocess.run(["umount", "--lazy", str(made.folder)], check=True)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    for name in TRAIN:
        jensen.train(RECIPES[name], folder / name)
    return {name: folder / name for name in TRAIN}


def _refused(capfd: pytest.CaptureFixture[str], words: list[str]) -> str:
    """Status 2 and one line beside the bar, which is given."""
    capfd.readouterr()
    assert main(words) == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("jensen: ")]
    assert len(lines) == 1, err
    return lines[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's
@pytest.mark.parametrize("name", list(TRAIN))
@pytest.mark.parametrize("kibibytes", [0, 4, 8, 12, 24, 40, 60, 80, 120, 160])
def test_on_a_full_disk_nothing_is_lost(
    name: str, kibibytes: int, disk: Disk, wholes: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever it was that found no room: the same command, or resume, ends as if nothing had been."""
    run = disk.folder / "run"
    if kibibytes:
        disk.allow(kibibytes)
    else:
        (disk.folder / "ballast").write_bytes(bytes(60 << 10))
        disk.allow(60)
    train = [*TRAIN[name], *MORE, "--out", str(run)]
    said = _refused(capfd, train)
    assert "No space left on device" in said
    assert "free space" in said
    left = checkpoints(run / "checkpoints") if run.exists() else []
    if left:
        assert jensen.load(run).checkpoint in left
        assert "No space left on device" in _refused(capfd, ["resume", str(run)])
    disk.allow(1 << 14)
    established = (run / "recipe.json").exists()
    assert main(["resume", str(run)] if established else train) == 0
    assert_equal(wholes[name], run)
    assert not list((run / "checkpoints").glob(".*"))


def test_a_disk_that_can_only_be_read_is_one_line_and_its_run_can_be_used(
    disk: Disk, wholes: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    run = disk.folder / "run"
    program = f"from mortal import *; killed_at(RECIPES['vae'], Path({str(run)!r}), 30)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, check=False).returncode == -9
    assert checkpoints(run / "checkpoints")
    disk.protect()
    for words in (["train", "vae", "--out", str(disk.folder / "other")], ["resume", str(run)]):
        assert "Read-only file system" in _refused(capfd, words)
    assert jensen.load(run).model.sample(3).shape == (3, 1, 8, 8)
    disk.allow(1 << 14)
    assert main(["resume", str(run)]) == 0
    assert_equal(wholes["vae"], run)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_file_that_may_not_be_so_large_is_one_line(tmp_path: Path, wholes: dict[str, Path]) -> None:
    """As disk quotas do; for those who are not root. One process tries three limits, as its start takes longest."""
    program = (
        "import resource, signal, sys\nfrom jensen.cli import main\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for kibibytes in (1, 3, 8):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (kibibytes << 10, resource.RLIM_INFINITY))\n"
        "    print(main([*sys.argv[1:-1], f'{sys.argv[-1]}{kibibytes}']))"
    )
    words = [sys.executable, "-c", program, *TRAIN["vae"], *MORE, "--out", str(tmp_path / "run")]
    told = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert told.stdout.splitlines() == ["2", "2", "2"], told.stderr
    assert "Traceback" not in told.stderr
    assert [line for line in told.stderr.splitlines() if "File too large; free space" not in line] == []
    for run in (tmp_path / "run1", tmp_path / "run3", tmp_path / "run8"):
        if (run / "recipe.json").exists():
            jensen.resume(run)
        else:
            jensen.train(RECIPES["vae"], run)
        assert_equal(wholes["vae"], run)
