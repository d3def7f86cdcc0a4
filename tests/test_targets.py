"""What commands write to: nothing that exists is replaced, nothing half-written is left."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import jensen
from jensen.cli import main
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.records import write_file
from jensen.report.charts import save_chart

BRIEF = {"steps": 2, "batch_size": 32, "validate_every": 2, "ema_decay": None}
TARGETS = {
    "sample": ["grid.png", "raw.npz"],
    "reconstruct": ["pairs.png", "pairs.npz"],
    "score": ["scores.csv"],
    "predict": ["predictions.csv"],
    "compress": ["file"],
}
FEW = {"sample": ["--n", "2"], "reconstruct": ["--examples", "2"]}
FEW |= {"score": ["--draws", "2"], "predict": ["--draws", "2"]}
FEW |= {"compress": ["--examples", "2", "--unchecked"]}
CASES = [(command, name) for command, names in TARGETS.items() for name in names]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "joint"
    jensen.train(VAERecipe(model=VAESettings(latent_dims=2, hidden=(8,), predict="label"), training=BRIEF), out)
    return out


def _refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(words) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


@contextmanager
def _disk_with_room_for(size: int) -> Iterator[None]:
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(("command", "name"), CASES)
def test_a_file_that_exists_is_kept_and_a_folder_too(
    command: str, name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = [command, str(run), "--out", str(tmp_path / name)]
    (tmp_path / name).write_text("mine")
    _refused(words, "exists and would be lost", capsys)
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    _refused(words, "exists and would be lost", capsys)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    _refused(words, "is a folder; give a new file", capsys)
    assert [path.name for path in tmp_path.rglob("*")] == [name]
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_compression_keeps_what_would_be_beside_its_file_and_its_own_source(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.json").write_text("mine")
    _refused(["compress", str(run), "--out", str(tmp_path / "file")], "file.json exists and would be lost", capsys)
    back = ["decompress", str(tmp_path / "file.jc"), "--run", str(run), "--out", str(tmp_path / "back.npz")]
    assert main(["compress", str(run), "--out", str(tmp_path / "file.jc"), *FEW["compress"]]) == 0
    assert main(back) == 0
    restored = (tmp_path / "back.npz").read_bytes()
    _refused(back, "exists and would be lost", capsys)
    assert (tmp_path / "back.npz").read_bytes() == restored
    assert (tmp_path / "file.json").read_text() == "mine"


@pytest.mark.parametrize(("command", "name"), [("predict", "p.npz"), ("sample", "grid.csv")])
def test_another_ending_is_refused_before_any_work(
    command: str, name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _refused([command, str(run), "--out", str(tmp_path / name)], "change its ending", capsys)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "name"), CASES)
def test_a_full_disk_leaves_nothing_half_written(
    command: str, name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _disk_with_room_for(20):
        _refused([command, str(run), "--out", str(tmp_path / name), *FEW[command]], "free space", capsys)
    assert not any(tmp_path.iterdir())


def test_a_chart_is_whole_or_as_it_was(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure, path = Figure(), tmp_path / "chart.png"
    figure.subplots().plot([0, 1])
    save_chart(figure, path)
    before = path.read_bytes()
    with _disk_with_room_for(200), pytest.raises(OSError, match="File too large"):
        save_chart(figure, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["chart.png"]


def test_a_file_that_cannot_be_replaced_leaves_no_other(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "name", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
