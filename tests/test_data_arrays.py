""".npy and .npz: what is written is read back, and whatever is wrong is one InputError that says so."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import assert_read_or_refused, byte_images, read_all, refused, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jensen.data.check import check
from jensen.data.load import load_data, read_examples
from jensen.data.options import ReadOptions


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
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
        (">f8", "float64", None),
        ("longdouble", "float64", None),
    ],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_an_array_of_every_dtype_comes_back(tmp_path, dtype, kept, levels, ending):
    values = (byte_images(shape=(3,)) % (2 if dtype == "bool" else 251)).astype(dtype)
    reading = read_all(saved(tmp_path / f"x.{ending}", x=values))
    np.testing.assert_array_equal(reading.values, values.astype(kept))
    kind = "array" if ending == "npy" else "arrays"
    assert (reading.values.dtype, reading.levels, reading.layout, reading.kind) == (kept, levels, "vector", kind)


def test_wider_integers_become_the_smallest_dtype_that_holds_them(tmp_path):
    values = np.array([[0], [300]] * 10)
    reading = read_all(saved(tmp_path / "x.npy", x=values))
    assert (reading.values.dtype, reading.levels) == (np.uint16, 65536)
    reading = read_all(tmp_path / "x.npy", levels=301)
    assert (reading.values.dtype, reading.levels) == (np.uint16, 301)
    reading = read_all(saved(tmp_path / "y.npy", x=np.array([[0], [3]])), levels=4)
    assert (reading.values.dtype, reading.levels) == (np.uint8, 4)


def test_fortran_order_and_memory_maps(tmp_path):
    values = np.asfortranarray(byte_images())
    for ending in ("npy", "npz"):
        reading = read_all(saved(tmp_path / f"x.{ending}", x=values))
        np.testing.assert_array_equal(reading.values[:, 0], values)
    assert isinstance(read_all(saved(tmp_path / "m.npy", x=byte_images(shape=(3,)))).values, np.memmap)


@pytest.mark.parametrize(
    ("shape", "layout", "option", "read_shape"),
    [
        ((7,), "vector", "auto", (7,)),
        ((5, 4), "image", "auto", (1, 5, 4)),
        ((5, 6, 3), "image", "auto", (3, 5, 6)),
        ((5, 6, 1), "image", "auto", (1, 5, 6)),
        ((4, 5, 6), "image", "auto", (4, 5, 6)),
        ((2, 5, 6), "image", "auto", (2, 5, 6)),
        ((6, 6, 2), "image", "auto", (2, 6, 6)),
        ((8, 8, 8), "volume", "auto", (1, 8, 8, 8)),
        ((4, 8, 8), "image", "auto", (4, 8, 8)),
        ((5, 8, 8), "volume", "auto", (1, 5, 8, 8)),
        ((1, 8, 8, 8), "volume", "auto", (1, 8, 8, 8)),
        ((8, 8, 9, 3), "volume", "auto", (3, 8, 8, 9)),
        ((2, 6, 6, 6), "volume", "auto", (2, 6, 6, 6)),
        ((2, 16), "signal", "auto", (2, 16)),
        ((16, 2), "signal", "auto", (2, 16)),
        ((2, 15), "image", "auto", (1, 2, 15)),
        ((9,), "signal", "signal", (1, 9)),
        ((5, 4), "signal", "signal", (4, 5)),
        ((5, 4), "signal", "cl", (5, 4)),
        ((4, 5), "signal", "lc", (5, 4)),
        ((6, 6, 9), "image", "hwc", (9, 6, 6)),
        ((9, 6, 6), "image", "chw", (9, 6, 6)),
        ((3, 6, 6), "volume", "volume", (1, 3, 6, 6)),
        ((2, 6, 6, 3), "volume", "volume", (2, 6, 6, 3)),
        ((6, 6, 6, 3), "volume", "volume", (3, 6, 6, 6)),
        ((6, 2, 3, 5), "volume", "cdhw", (6, 2, 3, 5)),
        ((6, 2, 3, 7), "volume", "dhwc", (7, 6, 2, 3)),
        ((2, 3, 4, 5), "array", "auto", (2, 3, 4, 5)),
        ((3, 5, 3), "image", "chw", (3, 5, 3)),
        ((3, 5, 4), "image", "hwc", (4, 3, 5)),
        ((5, 4), "vector", "vector", (20,)),
        ((5, 4), "array", "array", (5, 4)),
        ((5, 4), "image", "hw", (1, 5, 4)),
    ],
)
def test_the_axes_of_arrays(tmp_path, shape, layout, option, read_shape):
    values = byte_images(shape=shape)
    reading = read_all(saved(tmp_path / "x.npy", x=values), layout=option)
    assert (reading.layout, reading.values.shape[1:]) == (layout, read_shape)
    back = np.moveaxis(reading.values, 1, -1) if read_shape == (*shape[-1:], *shape[:-1]) else reading.values
    np.testing.assert_array_equal(back.reshape(values.shape), values)
    assert str(shape) in (*reading.doubts, *reading.notes)[0]


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
    arrays = {name: byte_images(seed=seed, shape=(3,)) for seed, name in enumerate(names)}
    for name in ("y", "labels", "targets", "c", "y_train", "y_test"):
        if name in arrays:
            arrays[name] = np.arange(30) % 4
    reading = read_all(saved(tmp_path / "x.npz", **arrays), **options)
    np.testing.assert_array_equal(reading.values, arrays[expected])
    assert (reading.labels is not None) == labelled


@pytest.mark.parametrize("names", ["x_{}|y_{}", "{}_images|{}_labels", "X_{}|Y_{}", "{}|{}-targets"])
def test_train_and_test_pairs_of_an_npz(tmp_path, names):
    data_name, label_name = names.split("|")
    arrays = {data_name.format("train"): byte_images(20), data_name.format("test"): byte_images(6, 1)}
    arrays |= {
        label_name.format("train"): np.arange(20)[:, None] % 3,
        label_name.format("test"): np.arange(6)[:, None] % 3,
    }
    data = load_data(str(saved(tmp_path / "x.npz", **arrays)))
    assert data.spec.counts == {"train": 18, "validation": 2, "test": 6}
    np.testing.assert_array_equal(data.test.x.numpy()[:, 0], byte_images(6, 1))
    assert data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_supplied_validation_split_is_kept(tmp_path):
    path = saved(tmp_path / "x.npz", train_x=byte_images(20), val_x=byte_images(5, 1), test_x=byte_images(6, 2))
    data = load_data(str(path))
    assert data.spec.counts == {"train": 20, "validation": 5, "test": 6}
    assert data.spec.splits == "test: as supplied; validation: as supplied"
    refused(path, "--validation-fraction: DATA brings its own validation examples", validation_fraction=0.5)
    refused(path, "--test-fraction: DATA brings its own test examples", test_fraction=0.4)
    refused(path, "--split-seed 3: no split is drawn", split_seed=3)


def test_labels_may_be_strings(tmp_path):
    names = np.array(["dog", "cat", "eel"] * 10)
    reading = read_all(saved(tmp_path / "x.npz", x=byte_images(), y=names))
    assert reading.label_names == ("cat", "dog", "eel")
    assert reading.labels.tolist()[:3] == [1, 0, 2]


@pytest.mark.parametrize(
    ("given", "names", "first"),
    [
        ([2, 0, 1], None, [2, 0, 1]),
        ([1, 2, 3], ("1", "2", "3"), [0, 1, 2]),  # EMNIST's letters begin at 1
        ([2001, 7, 10**9], ("7", "2001", "1000000000"), [1, 0, 2]),
        ([True, False, True], None, [1, 0, 1]),
    ],
)
def test_no_class_is_without_examples(tmp_path, given, names, first):
    reading = read_all(saved(tmp_path / "x.npz", x=byte_images(), y=np.array(given * 10)))
    assert reading.label_names == names
    assert reading.labels.tolist()[:3] == first


@pytest.mark.parametrize(
    ("trained_on", "given", "expected"),
    [
        ([1, 2, 3], [3, 1], [2, 0]),
        ([1, 2, 3], [0, 1], None),
        ([0, 1, 2], [2], [2]),
        ([0, 1, 2], [5], None),
        (["cat", "dog", "eel"], ["eel"], [2]),
        (["cat", "dog", "eel"], [0, 1], [0, 1]),
        (["cat", "dog", "eel"], ["ape"], None),
        ([0, 1, 2], ["ape"], None),
    ],
)
def test_labels_of_other_data_are_numbered_as_in_the_run(tmp_path, trained_on, given, expected):
    spec = load_data(str(saved(tmp_path / "x.npz", x=byte_images(), y=np.array(trained_on * 10)))).spec
    other = saved(tmp_path / "y.npz", x=byte_images(len(given)), y=np.array(given))
    labels = read_examples(other, spec).labels
    assert (None if labels is None else labels.tolist()) == expected


def floats(**at: float) -> np.ndarray:
    values = np.zeros((30, 2, 3), np.float32)
    for place, value in at.items():
        values[tuple(int(digit) for digit in place[1:].split("_"))] = value
    return values


@pytest.mark.parametrize(
    ("values", "options", "says"),
    [
        (floats(i12_1_2=np.nan, i13_0_0=np.inf), {}, r"2 of its 180 values are NaN.* example 12 at \(0, 1, 2\)"),
        (np.full((30, 2), 1e300), {}, "60 of its 60 values are NaN, infinite or beyond float32"),
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
        (byte_images(shape=(3, 5, 4)), {}, "give --layout chw or --layout hwc"),
        (byte_images(shape=(5, 5)), {"layout": "chw"}, "expected"),
        (byte_images(shape=(5, 5)), {"layout": "volume"}, r"expected \(N, D, H, W\), \(N, C, D, H, W\) or"),
        (byte_images(shape=(5, 5, 5)), {"layout": "signal"}, r"expected \(N, L\), \(N, C, L\) or \(N, L, C\)"),
        (byte_images(shape=(5, 5, 5)), {"layout": "dhwc"}, r"expected \(N, D, H, W, C\)"),
        (byte_images(shape=(3, 5, 5, 4)), {}, "give --layout cdhw or --layout dhwc"),
        (byte_images(), {"levels": 17}, r"but with 17 levels the highest is 16"),
        (byte_images(), {"levels": 1}, "--levels 1: must be from 2"),
        (floats(), {"levels": 4}, "--levels 4 is for integers"),
        (byte_images(), {"size": (4, 4)}, "--size is for images and a table of images but DATA is "),
        (byte_images(), {"skip_bad": True}, "--skip-bad is for images"),
    ],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_a_bad_array_is_refused(tmp_path, values, options, says, ending):
    refused(saved(tmp_path / f"x.{ending}", x=values), says, **options)


BYTES, ZEROS = byte_images(), np.zeros(30, int)


@pytest.mark.parametrize(
    ("arrays", "options", "says"),
    [
        (
            {"a": BYTES, "b": BYTES},
            {},
            "which array holds the examples. give --array as one of 'a', 'b'",
        ),
        ({"x": BYTES, "data": BYTES}, {}, "which array"),
        ({"x": BYTES}, {"array": "z"}, "has no array 'z'; --array may be 'x'"),
        ({"x": BYTES}, {"labels": "z"}, "has no array 'z'; --labels may be 'x'"),
        ({"x": BYTES, "y": ZEROS[1:]}, {}, "30 examples but 29 labels"),
        ({"x": BYTES, "y": np.zeros(30, complex)}, {}, "are complex128; expected integers or strings"),
        ({"x": BYTES, "y": np.full(30, -1)}, {}, "go from -1 to -1"),
        ({"x": BYTES, "y": np.zeros((30, 2), int)}, {}, "one label per example"),
        (
            {"x": BYTES, "y": ZEROS, "labels": ZEROS},
            {},
            "--labels as one of 'y', 'labels'",
        ),
        ({"x_train": BYTES, "train_data": BYTES, "x_test": BYTES}, {}, "one split twice"),
        (
            {"x_train": BYTES, "x_test": BYTES.astype(float)},
            {},
            "they must agree",
        ),
        ({"x_train": BYTES, "x_test": byte_images(shape=(2, 2))}, {}, "they must agree"),
        (
            {"x_train": BYTES, "x_test": BYTES, "y_train": ZEROS},
            {},
            "has no labels but others",
        ),
        (
            {
                "x_train": BYTES,
                "x_test": BYTES,
                "y_train": ZEROS,
                "y_test": np.full(30, "a"),
            },
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


NPY = npy_bytes(byte_images())


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
    refused(written(tmp_path / "x.npy", content), says)
    refused(written(tmp_path / "x.npz", zipped(x=content)), says)


def test_damaged_archives_are_refused(tmp_path):
    whole = zipped(x=NPY)
    refused(written(tmp_path / "short.npz", whole[:-30]), "not a sound .npz")
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    refused(written(tmp_path / "damaged.npz", bytes(damaged)), "Bad CRC-32")
    refused(written(tmp_path / "empty.npz", zipped()), "holds no NumPy arrays, and nothing else; unpack it")
    refused(written(tmp_path / "text.npz", b"hello, world"), "is text .*; write it again with numpy")


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
    assert_read_or_refused(path)


def test_what_is_no_data_is_refused(tmp_path):
    refused(tmp_path / "absent", "no such file or folder; DATA is 'digits'")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").touch()
    refused(tmp_path / "empty", "is an empty folder")
    refused(written(tmp_path / "table.csv", b"a,b\nx,y\n"), "no column can be modelled \\('a': constant")
    refused(written(tmp_path / "nothing.bin", b""), "is an empty file; write it again")
    refused(
        written(tmp_path / "noise.bin", b"\xfe\x01\x02\xff" * 9), "of an unknown kind, beginning with bytes fe 01 02"
    )
    refused(written(tmp_path / "one.png", b"\x89PNG"), "single image; name the folder")
    (tmp_path / "texts").mkdir()
    written(tmp_path / "texts" / "a.txt", b"a")
    refused(tmp_path / "texts", "holds no images or other files that are read, only .txt; a.txt is text")
    refused("/dev/null", "neither a file nor a folder")


def test_a_check_names_all_problems_at_once(tmp_path):
    values = floats(i3_0_0=np.nan)
    path = saved(tmp_path / "x.npz", x=values, y=np.zeros(7, int))
    report = check(str(path), ReadOptions(size=(3, 3), levels=3, validation_fraction=2))
    assert not report.good
    text = "\n".join(report.lines())
    for expected in ("NaN", "7 labels", "--size", "--levels", "--validation-fraction 2", "result       "):
        assert expected in text


@pytest.mark.parametrize("option", [{"labels": "y"}, {"array": "x"}])
def test_names_of_arrays_are_refused_for_a_single_array(tmp_path, option):
    source = saved(tmp_path / "x.npy", x=byte_images())
    refused(source, rf"--{next(iter(option))} is for named arrays \(.npz\), .* but DATA is a single array", **option)


def test_a_npz_of_labels_only_asks_for_examples(tmp_path):
    refused(saved(tmp_path / "x.npz", y=np.arange(9)), "holds only labels, 'y'; add the examples, named x")
