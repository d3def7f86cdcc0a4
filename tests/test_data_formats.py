"""IDX, .npy and .npz: what is written is read back, and whatever is wrong is one InputError that says so."""

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jensen.data import ReadOptions, check, load_data
from jensen.data.idx import TYPES, read_idx
from jensen.data.read import read
from jensen.data.reading import Reading, refuse_at_once
from jensen.errors import InputError

NOTHING = ReadOptions()
CODES = {np.dtype(name): code for code, name in TYPES.items()}


def idx_bytes(array: np.ndarray) -> bytes:
    big = np.asarray(array, np.dtype(array.dtype).newbyteorder(">"))
    header = bytes([0, 0, CODES[big.dtype], big.ndim]) + struct.pack(f">{big.ndim}I", *big.shape)
    return header + big.tobytes()


def write(path: Path, content: bytes) -> str:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def read_all(source: str | Path, **options) -> Reading:
    return read(str(source), ReadOptions(**options), refuse_at_once)


def refused(source: str | Path, says: str, **options) -> str:
    """The one line that both loading and checking refuse `source` with."""
    with pytest.raises(InputError, match=says) as caught:
        load_data(str(source), ReadOptions(**options))
    line = str(caught.value)
    assert "\n" not in line
    assert line in check(str(source), ReadOptions(**options)).problems
    return line


def assert_read_or_refused(reader: Callable[[], object]) -> None:
    """No exception but an InputError of one line."""
    lines = []
    try:
        reader()
    except InputError as error:
        lines = str(error).splitlines()
    assert len(lines) < 2


def images(count: int = 30, seed: int = 0, shape: tuple[int, ...] = (5, 4)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


# ---------------------------------------------------------------------------------------------- IDX


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_an_idx_file_comes_back(tmp_path, ending):
    values = images()
    reading = read_all(write(tmp_path / f"images-idx3-ubyte{ending}", idx_bytes(values)))
    np.testing.assert_array_equal(reading.values, values[:, None])
    assert (reading.kind, reading.layout, reading.levels, reading.labels) == ("idx", "image", 256, None)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "f4", "f8"])
def test_the_other_idx_types(tmp_path, dtype):
    values = images(shape=(3,)).astype(dtype) if dtype != "i1" else (images(shape=(3,)) // 2).astype(dtype)
    reading = read_all(write(tmp_path / "x.idx", idx_bytes(values)))
    np.testing.assert_array_equal(reading.values, values)
    assert reading.values.dtype == ("float32" if dtype[0] == "f" else "uint8")
    assert reading.layout == "vector"


def mnist_like(folder: Path, ending: str = "", **changed: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    files = {
        "train-images-idx3-ubyte": idx_bytes(images(20)),
        "train-labels-idx1-ubyte": idx_bytes(np.arange(20, dtype=np.uint8) % 3),
        "t10k-images-idx3-ubyte": idx_bytes(images(6, 1)),
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
    np.testing.assert_array_equal(data.test.x.numpy()[:, 0], images(6, 1))
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.spec.splits.startswith("test: as supplied")
    assert data.spec.classes == 3


def test_an_unpacked_twin_is_read_once(tmp_path):
    folder = mnist_like(mnist_like(tmp_path / "mnist"), ".gz")
    assert sum(load_data(str(folder)).spec.counts.values()) == 26


def test_an_idx_folder_with_images_alone(tmp_path):
    write(tmp_path / "stars-idx3-ubyte.gz", idx_bytes(images()))
    data = load_data(str(tmp_path))
    assert data.spec.counts == {"train": 24, "validation": 3, "test": 3}
    assert data.train.labels is None


IDX = idx_bytes(images())


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
        (b"\0\0\x08\x03" + struct.pack(">3I", *[2**32 - 1] * 3) + b"x", "the file holds only 1"),
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
    other = idx_bytes(images(6, 1, (5, 5)))
    refused(mnist_like(tmp_path / "b", t10k_images_idx3_ubyte=other), r"\(5, 5\) .* they must agree")
    (mnist_like(tmp_path / "c") / "t10k-labels-idx1-ubyte").unlink()
    refused(tmp_path / "c", "has no labels but others")
    write(mnist_like(tmp_path / "d") / "train-digits-images-idx3-ubyte", IDX)
    refused(tmp_path / "d", "both hold train images")
    write(mnist_like(tmp_path / "e") / "images-idx3-ubyte", IDX)
    refused(tmp_path / "e", "not named train or test")
    for path in mnist_like(tmp_path / "f").glob("*images*"):
        path.unlink()
    refused(tmp_path / "f", "no IDX images")
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
    assert_read_or_refused(lambda: read_idx(path))


# ---------------------------------------------------------------------------------------------- arrays


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays) if path.suffix == ".npz" else np.save(path, arrays["x"])
    return path


@pytest.mark.parametrize(
    ("dtype", "kept", "levels"),
    [
        ("uint8", "uint8", 256),
        ("uint16", "uint16", 65536),
        (">u2", "uint16", 65536),
        ("bool", "uint8", 2),
        ("int64", "uint8", 256),
        ("uint32", "uint8", 256),
        ("float16", "float32", None),
        ("float32", "float32", None),
        (">f8", "float32", None),
    ],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_an_array_of_every_dtype_comes_back(tmp_path, dtype, kept, levels, ending):
    values = (images(shape=(3,)) % (2 if dtype == "bool" else 251)).astype(dtype)
    reading = read_all(saved(tmp_path / f"x.{ending}", x=values))
    np.testing.assert_array_equal(reading.values, values.astype(kept))
    assert (reading.values.dtype, reading.levels, reading.layout, reading.kind) == (kept, levels, "vector", "array")


def test_wider_integers_become_the_smallest_dtype_that_holds_them(tmp_path):
    values = np.array([[0], [300]] * 10)
    reading = read_all(saved(tmp_path / "x.npy", x=values))
    assert (reading.values.dtype, reading.levels) == (np.uint16, 65536)
    reading = read_all(tmp_path / "x.npy", levels=301)
    assert (reading.values.dtype, reading.levels) == (np.uint16, 301)
    reading = read_all(saved(tmp_path / "y.npy", x=np.array([[0], [3]])), levels=4)
    assert (reading.values.dtype, reading.levels) == (np.uint8, 4)


def test_fortran_order_and_memory_maps(tmp_path):
    values = np.asfortranarray(images())
    for ending in ("npy", "npz"):
        reading = read_all(saved(tmp_path / f"x.{ending}", x=values))
        np.testing.assert_array_equal(reading.values[:, 0], values)
    assert isinstance(read_all(saved(tmp_path / "m.npy", x=images(shape=(3,)))).values, np.memmap)


@pytest.mark.parametrize(
    ("shape", "layout", "option", "read_shape"),
    [
        ((7,), "vector", "auto", (7,)),
        ((5, 4), "image", "auto", (1, 5, 4)),
        ((5, 6, 3), "image", "auto", (3, 5, 6)),
        ((5, 6, 1), "image", "auto", (1, 5, 6)),
        ((4, 5, 6), "image", "auto", (4, 5, 6)),
        ((2, 5, 6), "array", "auto", (2, 5, 6)),
        ((2, 3, 4, 5), "array", "auto", (2, 3, 4, 5)),
        ((3, 5, 3), "image", "chw", (3, 5, 3)),
        ((3, 5, 4), "image", "hwc", (4, 3, 5)),
        ((5, 4), "vector", "vector", (20,)),
        ((5, 4), "array", "array", (5, 4)),
        ((5, 4), "image", "hw", (1, 5, 4)),
    ],
)
def test_which_arrays_are_images(tmp_path, shape, layout, option, read_shape):
    values = images(shape=shape)
    reading = read_all(saved(tmp_path / "x.npy", x=values), layout=option)
    assert (reading.layout, reading.values.shape[1:]) == (layout, read_shape)
    back = np.moveaxis(reading.values, 1, -1) if read_shape == (*shape[-1:], *shape[:-1]) else reading.values
    np.testing.assert_array_equal(back.reshape(values.shape), values)
    assert str(shape) in reading.notes[0]


@pytest.mark.parametrize(
    ("names", "options", "expected", "labelled"),
    [
        (["x", "y"], {}, "x", True),
        (["images", "labels"], {}, "images", True),
        (["weights"], {}, "weights", False),
        (["weights", "targets"], {}, "weights", True),
        (["x", "other"], {}, "x", False),
        (["a", "b"], {"array": "b"}, "b", False),
        (["a", "b", "c"], {"array": "b", "labels": "c"}, "b", True),
        (["x_train", "x_test", "y_train", "y_test"], {"array": "x_train"}, "x_train", True),
    ],
)
def test_which_array_of_an_npz_is_read(tmp_path, names, options, expected, labelled):
    arrays = {name: images(seed=seed, shape=(3,)) for seed, name in enumerate(names)}
    for name in ("y", "labels", "targets", "c", "y_train", "y_test"):
        if name in arrays:
            arrays[name] = np.arange(30) % 4
    reading = read_all(saved(tmp_path / "x.npz", **arrays), **options)
    np.testing.assert_array_equal(reading.values, arrays[expected])
    assert (reading.labels is not None) == labelled


@pytest.mark.parametrize("names", ["x_{}|y_{}", "{}_images|{}_labels", "X_{}|Y_{}", "{}|{}-targets"])
def test_train_and_test_pairs_of_an_npz(tmp_path, names):
    data_name, label_name = names.split("|")
    arrays = {data_name.format("train"): images(20), data_name.format("test"): images(6, 1)}
    arrays |= {
        label_name.format("train"): np.arange(20)[:, None] % 3,
        label_name.format("test"): np.arange(6)[:, None] % 3,
    }
    data = load_data(str(saved(tmp_path / "x.npz", **arrays)))
    assert data.spec.counts == {"train": 18, "validation": 2, "test": 6}
    np.testing.assert_array_equal(data.test.x.numpy()[:, 0], images(6, 1))
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_supplied_validation_split_is_kept(tmp_path):
    path = saved(tmp_path / "x.npz", train_x=images(20), val_x=images(5, 1), test_x=images(6, 2))
    data = load_data(str(path), ReadOptions(validation_fraction=0.5, test_fraction=0.4))
    assert data.spec.counts == {"train": 20, "validation": 5, "test": 6}
    assert data.spec.splits == "test: as supplied; validation: as supplied"


def test_labels_may_be_strings(tmp_path):
    names = np.array(["dog", "cat", "eel"] * 10)
    reading = read_all(saved(tmp_path / "x.npz", x=images(), y=names))
    assert reading.label_names == ("cat", "dog", "eel")
    assert reading.labels.tolist()[:3] == [1, 0, 2]


def floats(**at: float) -> np.ndarray:
    values = np.zeros((30, 2, 3), np.float32)
    for place, value in at.items():
        values[tuple(int(digit) for digit in place[1:].split("_"))] = value
    return values


@pytest.mark.parametrize(
    ("values", "options", "says"),
    [
        (floats(i12_1_2=np.nan, i13_0_0=np.inf), {}, r"2 values that are NaN.* example 12, index \(1, 2\)"),
        (np.full((30, 2), 1e300), {}, "60 values that are NaN, infinite or beyond float32"),
        (np.zeros(30, np.float32), {}, r"shape \(30,\); expected \(N, ...\).* reshape it to \(N, 1\)"),
        (np.float32(3), {}, r"shape \(\)"),
        (np.zeros((0, 3), np.uint8), {}, r"shape \(0, 3\)"),
        (np.zeros((1, 3), np.uint8), {}, "1 example, too few"),
        (np.zeros((3, 3), np.uint8), {}, "3 examples, too few for --validation-fraction 0.1"),
        (np.zeros((2, 3), np.uint8), {"validation_fraction": 0.4, "test_fraction": 0.4}, "cannot be split"),
        (np.array([[-1], [2]]), {}, r"from -1 to 2; integers must lie in 0..65535"),
        (np.array([[0], [65536]]), {}, "from 0 to 65536"),
        (np.array([[1j], [2]]), {}, "complex128; expected integers or real floats"),
        (np.array([["a"], ["b"]]), {}, "expected integers or real floats"),
        (np.zeros((30, 3), "V4"), {}, "plain numbers"),
        (np.zeros(30, [("a", "f4"), ("b", "i4")]), {}, "plain numbers"),
        (np.array([[{"a": 1}], [None]], dtype=object), {}, "pickled Python objects"),
        (images(shape=(3, 5, 4)), {}, "give --layout chw or --layout hwc"),
        (images(shape=(5, 5)), {"layout": "chw"}, "expected"),
        (images(shape=(5, 5, 5)), {"layout": "chw"}, "has 5 channels"),
        (images(), {"levels": 17}, r"but with 17 levels the highest is 16"),
        (images(), {"levels": 1}, "--levels 1: must be from 2"),
        (floats(), {"levels": 4}, "--levels 4 is for integers"),
        (images(), {"size": (4, 4)}, "--size is for images but DATA is array"),
        (images(), {"skip_bad": True}, "--skip-bad is for images"),
    ],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_a_bad_array_is_refused(tmp_path, values, options, says, ending):
    refused(saved(tmp_path / f"x.{ending}", x=values), says, **options)


@pytest.mark.parametrize(
    ("arrays", "options", "says"),
    [
        ({"a": images(), "b": images()}, {}, "which array holds the examples. give --array as one of 'a', 'b'"),
        ({"x": images(), "data": images()}, {}, "which array"),
        ({"x": images()}, {"array": "z"}, "has no array 'z'; --array may be 'x'"),
        ({"x": images()}, {"labels": "z"}, "has no array 'z'; --labels may be 'x'"),
        ({"x": images(), "y": np.zeros(29, int)}, {}, "30 examples but 29 labels"),
        ({"x": images(), "y": np.zeros(30)}, {}, "are float64; expected integers or strings"),
        ({"x": images(), "y": np.full(30, -1)}, {}, "go from -1 to -1"),
        ({"x": images(), "y": np.zeros((30, 2), int)}, {}, "one label per example"),
        ({"x": images(), "y": np.zeros(30, int), "labels": np.zeros(30, int)}, {}, "--labels as one of 'y', 'labels'"),
        ({"x_train": images(), "train_data": images(), "x_test": images()}, {}, "one split twice"),
        ({"x_train": images(), "x_test": images().astype(float)}, {}, "dtype uint8.*they must agree|they must agree"),
        ({"x_train": images(), "x_test": images(shape=(2, 2))}, {}, "they must agree"),
        ({"x_train": images(), "x_test": images(), "y_train": np.zeros(30, int)}, {}, "has no labels but others"),
        (
            {"x_train": images(), "x_test": images(), "y_train": np.zeros(30, int), "y_test": np.full(30, "a")},
            {},
            "different kinds",
        ),
    ],
)
def test_an_npz_that_does_not_fit_together_is_refused(tmp_path, arrays, options, says):
    refused(saved(tmp_path / "x.npz", **arrays), says, **options)


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


NPY = npy_bytes(images())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (NPY[:-1], "600 bytes, but it holds 599"),
        (NPY + b"\0", "600 bytes, but it holds 601"),
        (NPY[:40], "header cannot be read"),
        (NPY.replace(b"(30, 5, 4)", b"(-3, 5,-4)"), "none empty"),
        (NPY.replace(b"(30, 5, 4)", b"(30, 5, 9)"), "1350 bytes, but it holds 600"),
        (NPY.replace(b"'|u1'", b"'|x1'"), "header cannot be read"),
        (NPY.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09"), "header cannot be read"),
    ],
)
def test_damaged_numpy_files_are_refused(tmp_path, content, says):
    refused(write(tmp_path / "x.npy", content), says)
    refused(write(tmp_path / "x.npz", zipped(x=content)), says)


def test_damaged_archives_are_refused(tmp_path):
    whole = zipped(x=NPY)
    refused(write(tmp_path / "short.npz", whole[:-30]), "not a sound .npz")
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    refused(write(tmp_path / "damaged.npz", bytes(damaged)), "Bad CRC-32")
    refused(write(tmp_path / "empty.npz", zipped()), "--array as one of none")
    refused(write(tmp_path / "text.npz", b"hello, world"), "does not begin as a .npz file does")


def test_a_pickle_is_never_run(tmp_path):
    """The file would create `ran` if anything unpickled it."""

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    for ending in ("npy", "npz"):
        refused(saved(tmp_path / f"x.{ending}", x=np.array([Trap(), Trap()], dtype=object)), "pickled Python objects")
    assert not (tmp_path / "ran").exists()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(NPY) - 1), st.binary(min_size=1, max_size=4), st.booleans(), st.sampled_from(["npy", "npz"]))
def test_damaged_numpy_bytes_give_a_reading_or_an_input_error(tmp_path, position, content, inside, ending):
    """A few bytes overwritten, in the array or in the archive around it."""
    start = 0 if position % 3 else min(position, 130)  # the headers are where it hurts
    body = NPY if inside or ending == "npy" else zipped(x=NPY)
    place = (start + position) % len(body)
    body = body[:place] + content + body[place + len(content) :]
    path = tmp_path / f"any.{ending}"
    path.write_bytes(zipped(x=body) if inside and ending == "npz" else body)
    assert_read_or_refused(lambda: read(str(path), NOTHING, refuse_at_once))


# ---------------------------------------------------------------------------------------------- anything else


def test_what_is_no_data_is_refused(tmp_path):
    refused(tmp_path / "absent", "no such file or folder; DATA is 'digits'")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").touch()
    refused(tmp_path / "empty", "is an empty folder")
    refused(write(tmp_path / "table.csv", b"a,b\n1,2\n"), "unknown kind")
    refused(write(tmp_path / "nothing.bin", b""), "unknown kind")
    refused(write(tmp_path / "one.png", b"\x89PNG"), "single image; name the folder")
    (tmp_path / "texts").mkdir()
    write(tmp_path / "texts" / "a.txt", b"a")
    refused(tmp_path / "texts", "holds no PNG, JPEG, WebP or IDX files, only .txt")
    refused("/dev/null", "neither a file nor a folder")


def test_a_check_names_all_problems_at_once(tmp_path):
    values = floats(i3_0_0=np.nan)
    path = saved(tmp_path / "x.npz", x=values, y=np.zeros(7, int))
    report = check(str(path), ReadOptions(size=(3, 3), levels=3, validation_fraction=2))
    assert not report.good
    text = "\n".join(report.lines())
    for expected in ("NaN", "7 labels", "--size", "--levels", "--validation-fraction 2", "result       "):
        assert expected in text
