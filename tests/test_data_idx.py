"""IDX: what is written is read back, and whatever is wrong is one InputError that says so."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from data_files import assert_read_or_refused, byte_images, read_all, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jensen.data.check import check
from jensen.data.load import load_data
from jensen.data.readers.idx import TYPES

CODES = {np.dtype(name): code for code, name in TYPES.items()}


def idx_bytes(array: np.ndarray) -> bytes:
    big = np.asarray(array, np.dtype(array.dtype).newbyteorder(">"))
    header = bytes([0, 0, CODES[big.dtype], big.ndim]) + struct.pack(f">{big.ndim}I", *big.shape)
    return header + big.tobytes()


def write(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_idx_file_comes_back(tmp_path, ending):
    values = byte_images()
    reading = read_all(write(tmp_path / f"images-idx3-ubyte{ending}", idx_bytes(values)))
    np.testing.assert_array_equal(reading.values, values[:, None])
    assert (reading.kind, reading.layout, reading.levels, reading.labels) == ("idx", "image", 256, None)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "f4", "f8"])
def test_the_other_idx_types(tmp_path, dtype):
    values = byte_images(shape=(3,)).astype(dtype) if dtype != "i1" else (byte_images(shape=(3,)) // 2).astype(dtype)
    reading = read_all(write(tmp_path / "x.idx", idx_bytes(values)))
    np.testing.assert_array_equal(reading.values, values)
    assert reading.values.dtype == {"f4": "float32", "f8": "float64"}.get(dtype[-2:], "uint8")
    assert reading.layout == "vector"


def mnist_like(folder: Path, ending: str = "", **changed: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    files = {
        "train-images-idx3-ubyte": idx_bytes(byte_images(20)),
        "train-labels-idx1-ubyte": idx_bytes(np.arange(20, dtype=np.uint8) % 3),
        "t10k-images-idx3-ubyte": idx_bytes(byte_images(6, 1)),
        "t10k-labels-idx1-ubyte": idx_bytes(np.arange(6, dtype=np.uint8) % 3),
    }
    for name, content in files.items():
        write(folder / (name + ending), changed.get(name.replace("-", "_"), content))
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_idx_folder_brings_its_own_test_examples(tmp_path, ending):
    folder = mnist_like(tmp_path / "mnist", ending)
    (folder / "README").write_text("beside")
    data = load_data(str(folder))
    assert data.spec.counts == {"train": 18, "validation": 2, "test": 6}
    np.testing.assert_array_equal(data.test.x.numpy()[:, 0], byte_images(6, 1))
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.spec.splits.startswith("test: as supplied")
    assert data.spec.classes == 3


def test_an_unpacked_twin_is_read_once(tmp_path):
    folder = mnist_like(mnist_like(tmp_path / "mnist"), ".gz")
    assert sum(load_data(str(folder)).spec.counts.values()) == 26


def test_an_idx_folder_with_images_alone(tmp_path):
    write(tmp_path / "stars-idx3-ubyte.gz", idx_bytes(byte_images()))
    data = load_data(str(tmp_path))
    assert data.spec.counts == {"train": 24, "validation": 3, "test": 3}
    assert data.train.labels is None


IDX = idx_bytes(byte_images())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (IDX[:-1], r"declares \(30, 5, 4\), 600 bytes, but the file holds only 599"),
        (IDX + b"\0", "600 bytes, but the file holds more"),
        (IDX[:9], "ends inside its IDX header"),
        (IDX[:3], "is not IDX"),
        (b"\0\0\x07\x01" + IDX[4:], "begins with bytes 00 00 07 01, which is not IDX"),
        (b"\0\0\x08\0" + IDX[4:], "rank 0"),
        (b"\0\0\x08\xff" + IDX[4:], "rank 255"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 0, 5, 4), "no examples"),
        (b"\0\0\x08\x03" + struct.pack(">3I", *[2**32 - 1] * 3) + b"x", "the file holds only 1|would take .* unpacked"),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_bad_idx_file_is_refused(tmp_path, content, says, ending):
    refused(write(tmp_path / f"bad-idx3-ubyte{ending}", content), says)


def test_a_truncated_or_damaged_gzip_is_refused(tmp_path):
    whole = gzip.compress(IDX, mtime=0)
    for name, content in {"short": whole[:-9], "tail": whole[:-3], "head": whole[:5]}.items():
        path = tmp_path / f"{name}-idx3-ubyte.gz"
        path.write_bytes(content)
        refused(path, "gzip file is truncated or damaged")
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # the checksum
    (tmp_path / "damaged-idx3-ubyte.gz").write_bytes(damaged)
    refused(tmp_path / "damaged-idx3-ubyte.gz", "truncated or damaged")


def test_idx_folders_that_do_not_fit_together_are_refused(tmp_path):
    labels = idx_bytes(np.zeros(19, np.uint8))
    refused(mnist_like(tmp_path / "a", train_labels_idx1_ubyte=labels), "20 examples but 19 labels")
    other = idx_bytes(byte_images(6, 1, (5, 5)))
    refused(mnist_like(tmp_path / "b", t10k_images_idx3_ubyte=other), r"\(5, 5\) .* they must agree")
    (mnist_like(tmp_path / "c") / "t10k-labels-idx1-ubyte").unlink()
    refused(tmp_path / "c", "has no labels but others")
    write(mnist_like(tmp_path / "d") / "train-digits-images-idx3-ubyte", IDX)
    refused(tmp_path / "d", "both hold train images")
    write(mnist_like(tmp_path / "e") / "images-idx3-ubyte", IDX)
    refused(tmp_path / "e", "has neither train nor test in its name")
    for path in mnist_like(tmp_path / "f").glob("*images*"):
        path.unlink()
    refused(tmp_path / "f", "files of labels but none of images")
    labels = idx_bytes(np.zeros((20, 2), np.uint8))
    (mnist_like(tmp_path / "g", train_labels_idx1_ubyte=labels) / "t10k-labels-idx1-ubyte").unlink()
    (tmp_path / "g" / "t10k-images-idx3-ubyte").unlink()
    refused(tmp_path / "g", "expected one label per example")


def test_checking_an_idx_folder_names_every_bad_file(tmp_path):
    folder = mnist_like(tmp_path / "m", train_images_idx3_ubyte=IDX[:-1], t10k_labels_idx1_ubyte=b"nonsense")
    problems = check(str(folder)).problems
    assert any("train-images" in problem for problem in problems)
    assert any("t10k-labels" in problem for problem in problems)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=40), st.sampled_from([b"", b"\0\0", b"\0\0\x08\x01", b"\0\0\x08\x02\0\0\0\x01", b"\x1f\x8b\x08"])
)
def test_idx_bytes_give_an_array_or_an_input_error(tmp_path, content, start):
    path = tmp_path / "any-idx1-ubyte"
    path.write_bytes(start + content)
    assert_read_or_refused(path)


def test_images_of_idx_folders_are_named_by_file_and_row(tmp_path):
    data = load_data(mnist_like(tmp_path / "m"))
    assert data.test.names[3] == "t10k-images-idx3-ubyte row 3"
    assert {name.rpartition(" row ")[0] for name in data.train.names} == {"train-images-idx3-ubyte"}


def test_a_gzipped_file_of_another_kind_is_named(tmp_path):
    for name, content, what in (("a.csv.gz", b"a,b\n1,2\n", "text"), ("a.tiff.gz", b"II*\0rest", "a TIFF image")):
        (tmp_path / name).write_bytes(gzip.compress(content))
        refused(tmp_path / name, f"is a gzip archive of {what.removeprefix('a ')}")
