"""A run from a stranger is data: whatever lies in its files, nothing of it is executed."""

import os
import pickle
import shutil
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest

import jensen
from jensen.cli import main
from jensen.errors import InputError
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.vae.settings import VAERecipe, VAESettings

BRIEF = {"steps": 4, "batch_size": 8, "validate_every": 2, "checkpoint_every": 2, "sample_every": 2, "log_every": 1}
TINY = DiffusionSettings(network="mlp", width=8, depth=1, chain_steps=20, bound_terms=3, sampling_steps=2)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.marker),)


def _plain(bomb: Bomb) -> bytes:
    return pickle.dumps(bomb)


def _as_torch_does(bomb: Bomb) -> bytes:
    """The archive of `torch.save`."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(bomb, protocol=2))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def _as_numpy_does(bomb: Bomb) -> bytes:
    """The .npz of an array of objects."""
    import numpy as np

    buffer = BytesIO()
    np.savez(buffer, x=np.array([bomb], dtype=object))
    return buffer.getvalue()


PAYLOADS = {"plain": _plain, "torch": _as_torch_does, "numpy": _as_numpy_does}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every file that jensen writes into one."""
    folder = tmp_path_factory.mktemp("runs") / "diffusion"
    jensen.train(DiffusionRecipe(model=TINY, training=BRIEF), folder)
    files = folder.parent
    for words in (
        ["evaluate", "--examples", "12", "--further-examples", "2", "--referee", "--referee-examples", "2"],
        ["features", "train", "--visits", "200"],
        ["features", "distance", "--n", "30"],
        ["features", "check", "--n", "30"],
        ["predict", "--examples", "4", "--draws", "2", "--out", str(files / "p.csv")],
        ["impute", "--examples", "4", "--method", "replacement", "--steps", "3", "--mask", "half:left", "--calibrate"],
        ["compress", "--examples", "4", "--steps", "2", "--out", str(files / "c.jensen")],
    ):
        name = 2 if words[0] == "features" else 1
        out = ["--out", str(files / "imputed")] if words[0] == "impute" else []
        assert main([*words[:name], str(folder), *words[name:], *out]) == 0, words
    return folder


def _use(run: Path, out: Path, thoroughly: bool) -> None:
    """Open the run, in every way if thoroughly; what is refused is refused, what works may work."""
    for call in (jensen.load, jensen.resume):
        with suppress(InputError, UserWarning):  # the latter: a damaged checkpoint passed over
            call(run)
    further = (
        ["sample", str(run), "--n", "2", "--out", str(out / f"{run.name}.npz")],
        ["evaluate", str(run), "--examples", "4", "--further-examples", "2"],
        ["features", "distance", str(run), "--n", "30"],
    )
    for words in (["info", str(run)], *(further if thoroughly else ())):
        with suppress(UserWarning):
            assert main(words) in (0, 2)


@pytest.mark.parametrize("payload", list(PAYLOADS))
@pytest.mark.parametrize("thoroughly", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_pickle_in_any_file_of_a_run_is_not_executed(
    run: Path, tmp_path: Path, payload: str, thoroughly: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".json", ".jsonl", ".safetensors", ".npz", ".png", ".html"} <= kinds
    chosen = {(path.parent.name.startswith("step-"), path.name): path for path in files}  # one of each kind of file
    for number, path in enumerate(chosen.values()):
        copy, marker = tmp_path / str(number), tmp_path / f"executed-{number}"
        shutil.copytree(run, copy)
        (copy / path).write_bytes(PAYLOADS[payload](Bomb(marker)))
        _use(copy, tmp_path, thoroughly)
        assert not marker.exists(), path
        shutil.rmtree(copy)


@pytest.mark.parametrize("payload", list(PAYLOADS))
@pytest.mark.parametrize("name", ["x.npz", "x.npy", "train-images-idx3-ubyte", "x.png"])
def test_a_pickle_as_data_is_not_executed(
    tmp_path: Path, payload: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, marker = tmp_path / "data", tmp_path / "executed"
    data.mkdir()
    (data / name).write_bytes(PAYLOADS[payload](Bomb(marker)))
    for source in (data, data / name):
        assert main(["data", "check", str(source)]) == 2
        assert main(["train", "vae", "--data", str(source), "--out", str(tmp_path / "run")]) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert not marker.exists()


def test_the_payloads_would_execute_if_they_were_unpickled(tmp_path: Path) -> None:
    pickle.loads(_plain(Bomb(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_a_recipe_cannot_name_code(tmp_path: Path) -> None:
    run = tmp_path / "run"
    jensen.train(VAERecipe(model=VAESettings(latent_dims=2, hidden=(8,)), training=BRIEF), run)
    text = (run / "recipe.json").read_text()
    for key, value in (("network", "os.system"), ("family", "builtins.eval"), ("activation", "__import__")):
        (run / "recipe.json").write_text(text.replace(f'"{key}": "', f'"{key}": "{value}", "was": "'))
        with pytest.raises(InputError):
            jensen.load(run)
