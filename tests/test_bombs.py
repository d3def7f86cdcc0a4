"""What would unpack to more than memory holds is refused before it is; nothing leads out of a run or an archive."""

import gzip
import io
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import byte_images, refused, saved

import jensen
from jensen.cli import main
from jensen.data.load import load_data
from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.recipe.settings import TrainingSettings
from jensen.recipe.vae.settings import VAERecipe

HUGE = 1 << 45  # bytes: 32 TiB


def npz_that_declares(path: Path, size: int) -> Path:
    """A member whose header and directory agree that it holds `size` zeros, and that holds a thousandth of a GiB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (size // 64, 64)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(1 << 20))
        archive.filelist[0].file_size = len(header.getvalue()) + size
    return path


@pytest.mark.parametrize("stream", ["auto", "never"])
def test_an_npz_that_declares_more_than_memory(tmp_path, stream):
    refused(npz_that_declares(tmp_path / "x.npz", HUGE), "x.npz: x: would take 32,768.0 GiB unpacked", stream=stream)


def test_labels_of_an_npz_that_declare_more_than_memory(tmp_path):
    source = saved(tmp_path / "x.npz", x=byte_images())
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (HUGE,)})
    with zipfile.ZipFile(source, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("y.npy", header.getvalue() + bytes(1 << 20))
        archive.filelist[-1].file_size = len(header.getvalue()) + HUGE
    refused(source, "x.npz: y: would take 32,768.0 GiB unpacked")


def test_a_gzipped_idx_that_declares_more_than_memory(tmp_path):
    header = struct.pack(">4B3I", 0, 0, 8, 3, 1 << 31, 1 << 7, 1 << 7)
    (tmp_path / "x.idx.gz").write_bytes(gzip.compress(header + bytes(1 << 20)))
    refused(tmp_path / "x.idx.gz", "x.idx.gz: would take 32,768.0 GiB unpacked")


def test_what_is_not_packed_may_be_larger_than_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    source = saved(tmp_path / "x.npz", x=byte_images())
    refused(source, "would take")
    assert len(load_data(source, ReadOptions(stream="always")).train.x[:]) == 24


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("checkpoints/.step-00000006.tmp", True),
        ("checkpoints/step-00000002/victim", True),
        ("samples", True),
        ("pictures", True),
        ("tensorboard", True),
        ("report.html", False),
        (".report.html.tmp", False),
        ("checkpoints/.state.json.tmp", False),
    ],
)
def test_a_link_that_leads_out_of_a_run_is_refused(tmp_path, name, folder, capsys):
    training = TrainingSettings(steps=4, batch_size=8, checkpoint_every=2, validate_every=2)
    run = jensen.train(VAERecipe(training=training), tmp_path / "run").folder
    victim = tmp_path / "outside"
    victim.mkdir() if folder else victim.write_text("precious")
    before = [victim.read_text()] if not folder else []
    planted = run / name
    if planted.exists():
        shutil.rmtree(planted) if planted.is_dir() else planted.unlink()
    planted.symlink_to(victim)
    for call in (jensen.load, jensen.resume):
        with pytest.raises(InputError, match="is a link that leads out of the run"):
            call(run)
    assert main(["evaluate", str(run), "--examples", "4"]) == 2
    assert ([victim.read_text()] if not folder else list(victim.iterdir())) == before


def test_a_run_reached_by_a_link_and_links_within_it_are_fine(tmp_path):
    training = TrainingSettings(steps=4, batch_size=8, checkpoint_every=2, validate_every=2)
    run = jensen.train(VAERecipe(training=training), tmp_path / "run").folder
    (run / "best").symlink_to("checkpoints/step-00000004")
    (tmp_path / "link").symlink_to(run)
    assert jensen.load(tmp_path / "link").step == jensen.load(run).step


def test_members_of_an_archive_are_written_nowhere(tmp_path):
    inner = tmp_path / "deep" / "er"
    inner.mkdir(parents=True)
    source = saved(inner / "x.npz", **{"../../x": byte_images(), "/tmp/../y": np.arange(24) % 3})
    with pytest.raises(InputError, match="which array holds the examples"):
        load_data(source)
    before = sorted(tmp_path.rglob("*"))
    assert len(load_data(source, ReadOptions(array="../../x")).train) == 24
    assert sorted(tmp_path.rglob("*")) == before
