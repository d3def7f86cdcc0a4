"""Data that stay on disk: the same examples, specification and weights as in memory, and one line where they fail."""

import gzip
import io
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import assert_read_or_refused, byte_images, read_all, refused, saved
from PIL import Image
from safetensors.torch import load_file

import jensen
from jensen.data.examples import Dataset
from jensen.data.load import load_again, load_data, read_examples
from jensen.data.options import ReadOptions
from jensen.data.readers.columns import parquet_batches
from jensen.data.readers.encoded import PictureRows
from jensen.data.stored import DENSE, Ahead, FileRows, OpenFile, Stored
from jensen.errors import InputError
from jensen.evaluation.scores import examples_digest, score
from jensen.recipe.build import build_model
from jensen.recipe.settings import TrainingSettings
from jensen.recipe.vae.settings import VAERecipe
from jensen.training.loop import steps
from jensen.training.state import TrainingState

try:
    import datasets
    import pyarrow
    from pyarrow import parquet
except ImportError:
    datasets = None

needs_datasets = pytest.mark.skipif(datasets is None, reason="the package datasets is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Parquet is unpacked into the test's own folder."""
    if datasets is not None:
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# ---------------------------------------------------------------------------------------------- sources

COUNT = 60
LABELS = np.arange(COUNT) % 3
FLOATS = np.random.default_rng(1).normal(3, [1, 2, 0.5, 4], (COUNT, 4))


def npy(values: np.ndarray) -> Callable[[Path], Path]:
    return lambda folder: saved(folder / "x.npy", x=values)


def npz(folder: Path) -> Path:
    parts = {"train": slice(0, 40), "test": slice(40, COUNT)}
    arrays = {f"x_{name}": byte_images(COUNT)[rows] for name, rows in parts.items()}
    return saved(folder / "x.npz", **arrays, **{f"y_{name}": LABELS[rows] for name, rows in parts.items()})


def idx(folder: Path) -> Path:
    for name, values in (("images-idx3", byte_images(COUNT)), ("labels-idx1", LABELS.astype(np.uint8))):
        header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
        (folder / f"train-{name}-ubyte").write_bytes(header + values.tobytes())
    return folder


def gzipped(path: Path) -> Path:
    zipped = path.with_name(f"{path.name}.gz")
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    return zipped


def image_folder(folder: Path) -> Path:
    for number, (pixels, label) in enumerate(zip(byte_images(COUNT, shape=(6, 5, 3)), LABELS, strict=True)):
        path = folder / "images" / f"class {label}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder / "images"


def table(**columns) -> "datasets.Dataset":
    """Columns as Hugging Face datasets writes them, with named class labels."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "grid": datasets.Array2D((5, 4), "uint8"),
            "vector": datasets.List(datasets.Value("float64"), length=4),
            "label": datasets.ClassLabel(names=["zebra", "cat", "mule"]),
        }
    )
    everything = {
        "image": [Image.fromarray(pixels) for pixels in byte_images(COUNT, shape=(6, 5, 3))],
        "grid": list(byte_images(COUNT)),
        "vector": list(FLOATS),
        "label": LABELS.tolist(),
    }
    return datasets.Dataset.from_dict(everything | columns, features)


def parquet_shards(folder: Path) -> Path:
    for split, rows in (("train", range(44)), ("test", range(44, COUNT))):
        for shard in range(2):
            name = folder / "hub" / "data" / f"{split}-0000{shard}-of-00002.parquet"
            name.parent.mkdir(parents=True, exist_ok=True)
            table().select(rows[shard::2]).to_parquet(name)
    return folder / "hub"


def saved_to_disk(folder: Path) -> Path:
    whole = table()
    splits = datasets.DatasetDict(train=whole.select(range(44)), test=whole.select(range(44, COUNT)))
    splits.save_to_disk(folder / "disk", num_shards={"train": 3, "test": 1})
    return folder / "disk"


def arrow_file(folder: Path) -> Path:
    """Arrow's file format, written without datasets: lists of any length that happen to agree, labels in words."""
    words = pyarrow.array(np.array(["ant", "bee", "cow"])[LABELS])
    columns = {"x": pyarrow.array(FLOATS.astype(np.float32).tolist(), pyarrow.list_(pyarrow.float32())), "y": words}
    batches = pyarrow.table(columns).to_batches(max_chunksize=7)
    with pyarrow.OSFile(str(folder / "x.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return folder / "x.arrow"


SOURCES = [
    pytest.param(npy(byte_images(COUNT)), {}, id="npy bytes"),
    pytest.param(npy(byte_images(COUNT, shape=(5, 6, 3))), {}, id="npy channels last"),
    pytest.param(npy(byte_images(COUNT).astype(np.int64)), {}, id="npy int64"),
    pytest.param(npy(byte_images(COUNT).astype(">u2")), {"levels": 256}, id="npy big-endian 16 bits"),
    pytest.param(npy(byte_images(COUNT) > 127), {}, id="npy bool"),
    pytest.param(npy(FLOATS), {}, id="npy float64"),
    pytest.param(npy(FLOATS.astype(">f4")), {}, id="npy big-endian floats"),
    pytest.param(npy(np.random.default_rng(0).random((COUNT, 5, 4), np.float32)), {}, id="npy float images"),
    pytest.param(npy(np.where(FLOATS > 4, np.nan, FLOATS)), {"missing": True}, id="npy missing"),
    pytest.param(npz, {}, id="npz splits"),
    pytest.param(idx, {}, id="idx"),
    pytest.param(image_folder, {"size": (4, 4), "colour": "grey"}, id="image folder"),
    pytest.param(parquet_shards, {"array": "image"}, id="parquet images", marks=needs_datasets),
    pytest.param(parquet_shards, {"array": "grid"}, id="parquet arrays", marks=needs_datasets),
    pytest.param(saved_to_disk, {"array": "vector"}, id="arrow vectors", marks=needs_datasets),
    pytest.param(saved_to_disk, {"array": "image"}, id="arrow images", marks=needs_datasets),
    pytest.param(arrow_file, {}, id="arrow file", marks=needs_datasets),
]


def both(source: Path, **options) -> tuple[Dataset, Dataset]:
    """The data in memory and on disk."""
    return load_data(source, ReadOptions(**options, stream="never")), load_data(
        source, ReadOptions(**options, stream="always")
    )


# ---------------------------------------------------------------------------------------------- the same data


@pytest.mark.parametrize(("make", "options"), SOURCES)
def test_examples_and_specification_are_those_in_memory(tmp_path, make, options):
    memory, disk = both(make(tmp_path), **options)
    assert disk.spec.model_copy(update={"options": memory.spec.options}) == memory.spec
    for split in ("train", "validation", "test"):
        here, there = getattr(memory, split), getattr(disk, split)
        assert isinstance(there.x, Stored)
        assert not isinstance(here.x, Stored)
        assert (there.x.shape, there.x.dtype, len(there)) == (here.x.shape, here.x.dtype, len(here))
        torch.testing.assert_close(there.x[:], here.x, rtol=0, atol=0, equal_nan=True)
        assert (there.labels is None) == (here.labels is None)
        assert there.labels is None or torch.equal(there.labels, here.labels)
        assert examples_digest(there) == examples_digest(here)
        rows = torch.tensor([3, 0, 3, 1])
        torch.testing.assert_close(there.x[rows], here.x[rows], rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(there[rows][1:].x[:], here[rows][1:].x, rtol=0, atol=0, equal_nan=True)
    assert examples_digest(load_again(disk.spec).test) == examples_digest(load_again(memory.spec).test)


def short_training(source: Path, stream: str, **options) -> VAERecipe:
    """Four passes over the data and a few validations."""
    training = TrainingSettings(
        steps=24, batch_size=8, validate_every=8, checkpoint_every=8, keep_last=9, sample_every=8, log_every=4
    )
    recipe = VAERecipe(data=str(source), read=ReadOptions(**options, stream=stream), training=training)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"latent_dims": 2, "hidden": (8,)})})


def written(run: jensen.Run) -> dict[str, torch.Tensor]:
    """Everything in the run's last checkpoint."""
    last = sorted(run.folder.glob("checkpoints/step-*"))[-1]
    return {file.name + name: tensor for file in last.glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_the_same(one: jensen.Run, other: jensen.Run) -> None:
    mine, theirs = written(one), written(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    untimed = [[{**line, "examples_per_second": 0} for line in run.metrics] for run in (one, other)]
    assert untimed[0] == untimed[1]


@pytest.mark.parametrize(
    ("make", "options"), [source for source in SOURCES if "missing" not in source.id and "vector" not in source.id]
)
def test_weights_are_those_of_a_run_in_memory_bit_for_bit(tmp_path, make, options):
    source = make(tmp_path)
    memory = jensen.train(short_training(source, "never", **options), tmp_path / "run in memory")
    disk = jensen.train(short_training(source, "always", **options), tmp_path / "run from disk")
    assert_the_same(disk, memory)
    scores = [
        score(disk.model, run.dataset.test, run.spec.preparation, draws=3, seed=1, batch_size=size).bound
        for run, size in ((disk, 2), (memory, 500))
    ]
    torch.testing.assert_close(*scores, rtol=1e-6, atol=1e-4)  # batches of other sizes round differently


@pytest.mark.parametrize(
    "make",
    [npy(FLOATS), image_folder, pytest.param(parquet_shards, marks=needs_datasets)],
    ids=["npy", "images", "table"],
)
@pytest.mark.parametrize(("first", "then"), [("never", "always"), ("always", "never")])
def test_a_run_may_be_resumed_the_other_way(tmp_path, make, first, then):
    run = jensen.train(short_training(make(tmp_path), first), tmp_path / "run")
    whole = written(run)
    for step in ("step-00000016", "step-00000024"):
        shutil.rmtree(run.folder / "checkpoints" / step)
    again = written(jensen.resume(run.folder, then))
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_large_data_stay_on_disk_of_their_own_accord(tmp_path, monkeypatch):
    source = saved(tmp_path / "x.npy", x=byte_images(COUNT))
    assert not isinstance(load_data(source).train.x, Stored)
    monkeypatch.setattr("jensen.data.options.LARGE", byte_images(COUNT).nbytes - 1)
    assert isinstance(load_data(source).train.x, Stored)
    zipped = gzipped(idx(tmp_path) / "train-images-idx3-ubyte")
    assert not isinstance(load_data(zipped).train.x, Stored)  # which cannot, and nobody insists


# ---------------------------------------------------------------------------------------------- rows


def test_rows_of_a_file_near_and_far(tmp_path):
    values = byte_images(1000, shape=(7,))
    (tmp_path / "x").write_bytes(b"before" + values.tobytes() + b"after")
    rows = FileRows(OpenFile(tmp_path / "x"), 6, values.shape, values.dtype)
    scattered = np.array([999, 0, 500, 500])
    assert scattered.max() - scattered.min() > DENSE * len(scattered)
    for chosen in (scattered, np.array([7, 5, 6, 9]), np.arange(100), np.array([3]), slice(3, 990, 2), slice(5, 5)):
        np.testing.assert_array_equal(rows[chosen], values[chosen])


def test_a_thread_reads_ahead_and_any_number_may_be_asked_for():
    begun: list[int] = []
    gate = threading.Semaphore(0)

    def read(number: int) -> int:
        begun.append(number)
        gate.release()
        return -number

    ahead = Ahead(read, 12)
    assert ahead(0) == 0
    for _ in range(4):  # the one that was asked for, and three more without being asked for
        assert gate.acquire(timeout=20)
    assert [ahead(number) for number in (1, 2, 7, 8, 3, 4, 11)] == [-1, -2, -7, -8, -3, -4, -11]
    assert max(begun) == 11


def test_images_are_decoded_while_a_step_is_worked_on(tmp_path, monkeypatch):
    """Nobody asks for a second step: still the batches of the next three are decoded."""
    recipe = short_training(image_folder(tmp_path), "always")
    dataset = load_data(recipe.data, recipe.read)
    decoded = threading.Semaphore(0)
    take = PictureRows.take

    def counted(self: PictureRows, rows: np.ndarray) -> np.ndarray:
        found = take(self, rows)
        decoded.release()
        return found

    monkeypatch.setattr(PictureRows, "take", counted)
    state = TrainingState.start(build_model(recipe, dataset.spec), recipe.training)
    records = steps(state, dataset.train, dataset.spec.preparation, recipe.training, seed=0)
    assert next(records).number == 1
    assert all(decoded.acquire(timeout=20) for _ in range(4))  # its own, and three more
    assert not decoded.acquire(timeout=0.2)
    assert next(records).number == 2
    assert decoded.acquire(timeout=20)


def test_what_a_thread_could_not_read_is_raised_where_it_is_used():
    def read(number: int) -> int:
        if number == 2:
            raise InputError("the disk is gone")
        return number

    ahead = Ahead(read, 5)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(InputError, match="the disk is gone"):
        ahead(2)


# ---------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("stream", ["always", "never"])
def test_what_has_no_place_on_disk_is_not_streamed_later_either(stream):
    spec = load_data("digits").spec
    assert len(load_again(spec, "auto").train) == len(load_again(spec).train)
    for again in (lambda: load_data("digits", ReadOptions(stream=stream)), lambda: load_again(spec, stream)):
        with pytest.raises(InputError, match=r"^--stream is for .* but DATA is digits; leave it out$"):
            again()


@pytest.mark.parametrize(
    ("make", "options"), [source for source in SOURCES if source.id in ("npy bytes", "image folder", "parquet images")]
)
def test_data_that_have_changed_are_refused(tmp_path, make, options):
    source = make(tmp_path)
    spec = load_data(source, ReadOptions(**options, stream="always")).spec
    if source.suffix == ".npy":
        np.save(source, 255 - byte_images(COUNT))
    elif (source / "class 0").is_dir():
        Image.new("RGB", (5, 6)).save(source / "class 0" / "000.png")
    else:
        shard = source / "data" / "test-00000-of-00002.parquet"
        table(image=[Image.new("RGB", (5, 6))] * COUNT).select(range(8)).to_parquet(shard)
    with pytest.raises(InputError, match="have changed since the run"):
        load_again(spec)


def test_a_file_cut_short_under_way_ends_in_one_line(tmp_path):
    source = saved(tmp_path / "x.npy", x=byte_images(COUNT))
    data = load_data(source, ReadOptions(stream="always"))
    with source.open("r+b") as file:
        file.truncate(200)
    with pytest.raises(InputError, match=r"x.npy: has become shorter since it was opened; restore it"):
        data.train.x[:]


def test_an_image_that_changes_or_goes_under_way_ends_in_one_line(tmp_path):
    data = load_data(image_folder(tmp_path), ReadOptions(stream="always"))
    first = tmp_path / "images" / "class 0" / "000.png"
    Image.new("L", (5, 6)).save(first)
    with pytest.raises(InputError, match=r"000.png: has changed since it was first read"):
        data.train.x[:]
    first.unlink()
    with pytest.raises(InputError, match=r"000.png: cannot be read .No such file"):
        data.train.x[:]


def test_bad_images_are_left_out_on_disk_too(tmp_path):
    folder = image_folder(tmp_path)
    (folder / "class 0" / "000.png").write_bytes(b"not an image")
    memory, disk = both(folder, skip_bad=True)
    assert memory.spec.skipped == disk.spec.skipped == 1
    assert memory.spec.fingerprint == disk.spec.fingerprint
    assert torch.equal(memory.test.x, disk.test.x[:])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: saved(folder / "x.npy", x=np.asfortranarray(byte_images())), "is in Fortran order, so single"),
        (lambda folder: np.savez_compressed(folder / "x.npz", x=byte_images()) or folder / "x.npz", "is compressed"),
        (
            lambda folder: gzipped(idx(folder) / "train-images-idx3-ubyte"),
            "is gzipped, .* unpack it with gunzip, or leave out --stream",
        ),
        (lambda folder: "digits", "--stream is for"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_by_rows_is_refused_if_asked_for(tmp_path, make, says):
    refused(make(tmp_path), says, stream="always")


def test_a_damaged_member_of_a_npz_is_found_by_its_checksum(tmp_path):
    path = saved(tmp_path / "x.npz", x=byte_images(5000))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(path, "is not a sound .npz file .*CRC", stream="always")


def test_links_to_data_are_followed(tmp_path):
    saved(tmp_path / "x.npy", x=byte_images(COUNT))
    (tmp_path / "link.npy").symlink_to(tmp_path / "x.npy")
    assert both(tmp_path / "link.npy")[0].spec.fingerprint == both(tmp_path / "x.npy")[1].spec.fingerprint
    (tmp_path / "nowhere.npy").symlink_to(tmp_path / "gone")
    refused(tmp_path / "nowhere.npy", "no such file", stream="always")


# ---------------------------------------------------------------------------------------------- tables


@needs_datasets
def test_columns_splits_and_names_of_a_table(tmp_path):
    reading = read_all(parquet_shards(tmp_path))
    assert reading.notes[0].startswith("x is column 'image', y is column 'label'; left out: 'grid', 'vector'")
    assert reading.label_names == ("zebra", "cat", "mule")  # in the order of the table, not of the alphabet
    assert np.bincount(reading.supplied).tolist() == [44, 0, 16]
    expected = np.moveaxis(byte_images(COUNT, shape=(6, 5, 3)), -1, 1)
    rows = [*range(0, 44, 2), *range(1, 44, 2), *range(44, COUNT, 2), *range(45, COUNT, 2)]
    np.testing.assert_array_equal(reading.values, expected[rows])
    np.testing.assert_array_equal(reading.labels, LABELS[rows])
    assert not (tmp_path / "cache").exists()  # nothing is unpacked in order to be read into memory
    told = read_all(tmp_path / "hub", stream="always").notes[1]
    assert "unpacked in" in told
    assert str(tmp_path / "cache") in told


@needs_datasets
@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("array", ["image", "vector"])
def test_examples_of_tables_are_named_by_shard_and_row(tmp_path, array, stream):
    """Every named row of the shard holds the example, in memory and unpacked on disk."""
    source = parquet_shards(tmp_path)
    data = load_data(source, ReadOptions(array=array, stream=stream))
    files = {path.relative_to(source).as_posix(): parquet.read_table(path) for path in source.rglob("*.parquet")}
    for examples in (data.train, data.validation, data.test):
        for number in range(0, len(examples), 3):
            shard, _, row = examples.names[number].partition(" row ")
            cell = files[shard].column(array)[int(row)].as_py()
            if array == "vector":
                expected = np.array(cell)
            else:
                expected = np.moveaxis(np.asarray(Image.open(io.BytesIO(cell["bytes"]))), -1, 0)
            np.testing.assert_array_equal(examples.x[number : number + 1][0].numpy(), expected)


@needs_datasets
def test_rows_of_a_single_table_are_named_by_number(tmp_path):
    reading = read_all(arrow_file(tmp_path))
    assert [reading.names(row) for row in (0, 17)] == ["row 0", "row 17"]


@needs_datasets
def test_floats_beside_a_table_are_targets(tmp_path):
    columns = {"x": byte_images(COUNT, shape=(7,)).tolist(), "target": FLOATS[:, 0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    memory, disk = both(tmp_path / "x.parquet")
    assert disk.spec.targets == memory.spec.targets
    assert torch.equal(disk.train.targets, memory.train.targets)


def written_table(path: Path, **columns) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


@needs_datasets
@pytest.mark.parametrize(
    ("columns", "options", "says"),
    [
        ({"a": [[1, 2]] * 9, "b": [[3, 4]] * 9}, {}, "which column holds the examples. give --array as one of 'a'"),
        ({"a": [[1, 2]] * 9}, {"array": "z"}, "no column 'z' of images or lists of numbers; --array may be 'a'"),
        ({"x": [[1, 2]] * 9, "y": [1] * 9, "label": [1] * 9}, {}, "which column holds the labels. give --labels"),
        ({"x": [[1, 2]] * 9}, {"labels": "z"}, "has no column 'z' beside 'x'; leave --labels out"),
        ({"x": [[1, 2], [1]] * 9}, {}, "'x' holds lists of 1 to 2 numbers; expected one length"),
        ({"x": [[1, 2], None] * 9}, {}, "'x' is empty in 9 rows; leave such rows out"),
        ({"x": [[1, 2], [1, None]] * 9}, {}, "'x' has empty entries; leave such rows out"),
        ({"x": [[1, 2]] * 9, "y": [1, 2, None] * 3}, {}, "'y' is empty in 3 rows"),
        ({"x": [[1, 2]] * 9, "y": [1, 2, -3] * 3}, {}, "labels of .* go from -3 to 2"),
        ({"image": [b"no image"] * 9}, {}, "'image' of row 0: cannot be decoded"),
        ({"x": [[1, 2]] * 9}, {"size": (3, 3)}, "--size is for images"),
        ({"x": [[[1.0, np.inf]]] * 9}, {}, "9 of its 18 values are NaN, infinite"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_table_that_cannot_be_used_is_refused(tmp_path, columns, options, says, stream):
    refused(written_table(tmp_path / "x.parquet", **columns), says, **options, stream=stream)


def arrow_batches(path: Path, *batches: "pyarrow.RecordBatch") -> Path:
    with pyarrow.ipc.new_file(path, batches[0].schema) as file:
        for batch in batches:
            file.write_batch(batch)
    return path


@needs_datasets
@pytest.mark.parametrize("options", [{}, {"array": "x"}])
def test_two_columns_of_one_name_are_refused(tmp_path, options):
    rows = [pyarrow.array(FLOATS.tolist())] * 2
    source = arrow_batches(tmp_path / "x.arrow", pyarrow.RecordBatch.from_arrays(rows, ["x", "x"]))
    refused(source, "has columns of one name, 'x'; rename", **options)


@needs_datasets
@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("column", ["x", "image"])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_table_without_rows_is_refused(tmp_path, kind, column, stream):
    empty = pyarrow.table({column: pyarrow.array([], {"x": pyarrow.list_(pyarrow.float32())}.get(column, "binary"))})
    if kind == "parquet":
        parquet.write_table(empty, tmp_path / "x.parquet")
    else:
        arrow_batches(tmp_path / "x.arrow", pyarrow.RecordBatch.from_pylist([], schema=empty.schema))
    refused(tmp_path / f"x.{kind}", "has no rows; leave", stream=stream)


@needs_datasets
@pytest.mark.parametrize("stream", ["never", "always"])
def test_shards_and_batches_without_rows_are_passed_over(tmp_path, stream):
    full = pyarrow.table({"x": FLOATS.tolist(), "y": LABELS})
    expected = load_data(parquet_of(tmp_path / "full.parquet", full)).spec.fingerprint
    (tmp_path / "shards").mkdir()
    for number, rows in enumerate((0, COUNT, 0)):
        parquet_of(tmp_path / "shards" / f"{number}.parquet", full[:rows])
    none = pyarrow.RecordBatch.from_pylist([], schema=full.schema)
    arrow = arrow_batches(tmp_path / "x.arrow", none, *full.to_batches(), none)
    for source in (tmp_path / "shards", arrow):
        found = load_data(source, ReadOptions(stream=stream))
        assert found.spec.fingerprint == expected
        assert len(found.train.x[:]) == found.spec.counts["train"]


def parquet_of(path: Path, content: "pyarrow.Table") -> Path:
    parquet.write_table(content, path)
    return path


@needs_datasets
@pytest.mark.parametrize("folder", ["plain", "not a [1] * pattern?"])
def test_names_of_shards_are_no_patterns(tmp_path, folder):
    (tmp_path / folder).mkdir()
    parquet_of(tmp_path / folder / "x1.parquet", pyarrow.table({"x": (1 + FLOATS).tolist()}))
    source = parquet_of(tmp_path / folder / "x[1].parquet", pyarrow.table({"x": FLOATS.tolist()}))
    memory, disk = both(source)
    assert memory.spec.fingerprint == disk.spec.fingerprint


@needs_datasets
@pytest.mark.parametrize("group", [1, 1 << 20])
def test_parquet_is_unpacked_by_few_rows_however_large_its_groups_are(tmp_path, monkeypatch, group):
    monkeypatch.setattr("jensen.data.readers.columns.BYTES_AT_ONCE", 1 << 16)
    monkeypatch.setattr("jensen.data.readers.columns.READ_AT_ONCE", 1 << 16)
    count, width = 4000 if group > 1 else 200, 1000
    values = np.random.default_rng(0).integers(0, 256, (count, width), np.uint8)
    values[::2] = 0  # repeated numbers, which take little in the file
    words = pyarrow.DictionaryArray.from_arrays(np.arange(count) % 3, ["b", "c", "a"])
    x = pyarrow.FixedSizeListArray.from_arrays(values.reshape(-1), width)
    words = words if group > 1 else words.dictionary_decode()  # each group has its own dictionary, and ends a batch
    parquet.write_table(pyarrow.table({"x": x, "y": words}), tmp_path / "x.parquet", row_group_size=group)
    before, held = pyarrow.total_allocated_bytes(), []

    def watched(*given):
        for batch in parquet_batches(*given):
            held.append(pyarrow.total_allocated_bytes() - before)
            yield batch

    monkeypatch.setattr("jensen.data.readers.parquet.parquet_batches", watched)
    disk = load_data(tmp_path / "x.parquet", ReadOptions(stream="always"))
    assert max(held) < 1 << 21  # of four MB in one group
    memory = load_data(tmp_path / "x.parquet", ReadOptions(stream="never"))
    assert memory.spec.fingerprint == disk.spec.fingerprint
    assert torch.equal(memory.train.labels, disk.train.labels)
    assert torch.equal(memory.test.x, disk.test.x[:])
    unpacked = pyarrow.ipc.open_stream(next((tmp_path / "cache").rglob("*.arrow")).read_bytes())
    lengths = [len(batch) for batch in unpacked]
    assert 2 <= min(lengths) <= max(lengths) <= 100  # one by one datasets would keep a thousand


@needs_datasets
def test_parquet_is_unpacked_once(tmp_path):
    source = parquet_of(tmp_path / "x.parquet", pyarrow.table({"x": FLOATS.tolist()}))
    times = []
    for _ in range(2):
        load_data(source, ReadOptions(stream="always"))
        times.append([path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.arrow")])
    parquet_of(source, pyarrow.table({"x": (1 + FLOATS).tolist()}))
    changed = load_data(source, ReadOptions(stream="always"))
    assert len(times[0]) == 1
    assert times[0] == times[1]
    assert changed.spec.fingerprint == load_data(source).spec.fingerprint


@needs_datasets
def test_categories_are_labels(tmp_path):
    words = pyarrow.DictionaryArray.from_arrays(LABELS, ["b", "c", "a"])
    memory, disk = both(parquet_of(tmp_path / "x.parquet", pyarrow.table({"x": FLOATS.tolist(), "y": words})))
    assert memory.spec.label_names == disk.spec.label_names == ("a", "b", "c")
    assert torch.equal(memory.train.labels, disk.train.labels)


@needs_datasets
def test_images_that_a_table_only_names_are_not_fetched(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "secret.png")
    rows = [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 12
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    source = written_table(tmp_path / "x.parquet", image=pyarrow.array(rows, kind))
    refused(source, "'image' of row 0: names a file and holds no image; embed the images")


@needs_datasets
@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
@pytest.mark.parametrize("make", [parquet_shards, saved_to_disk])
def test_a_damaged_shard_is_one_line(tmp_path, make, damage, stream):
    source = make(tmp_path)
    options = {"array": "grid", "stream": stream}
    shard = sorted(path for path in source.rglob("*00000-of*") if path.suffix in (".parquet", ".arrow"))[-1]
    content = bytearray(shard.read_bytes())
    middle = slice(len(content) // 3, 2 * len(content) // 3)
    if damage == "flipped":
        content[middle] = bytes(255 - byte for byte in content[middle])
    shard.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b"", "other": b"PK" + content}.get(damage, content)
    )
    if damage == "flipped":
        assert_read_or_refused(source, **options)  # numbers that are still numbers: the examples_digest tells
    else:
        refused(source, f"{shard.parent.name}.*(damaged|unpacked)", **options)


@needs_datasets
def test_more_shards_than_files_may_be_open(tmp_path):
    """The soft limit is raised as far as it may be; where that is too little a line says so."""
    for number in range(100):
        rows = pyarrow.table({"x": FLOATS[:2].tolist()})
        path = str(tmp_path / f"{number:03d}.arrow")
        with pyarrow.OSFile(path, "wb") as sink, pyarrow.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
    program = (
        "import resource\n"
        "from jensen.data.options import ReadOptions\n"
        "from jensen.data.load import load_data\n"
        "def allow(soft, hard): resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
        "for stream in ('never', 'always'):\n"
        "    allow(60, 400)\n"
        f"    x = load_data({str(tmp_path)!r}, ReadOptions(stream=stream)).train.x\n"
        "    assert x[:].shape == (160, 4)\n"
        "del x\n"
        "allow(60, 80)\n"
        f"load_data({str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("jensen.errors.InputError: ")
    assert last.endswith("too many open files (each shard needs two); raise ulimit -Hn, or write fewer shards")


@needs_datasets
def test_files_of_two_kinds_and_of_no_split_are_refused(tmp_path):
    source = parquet_shards(tmp_path)
    written_table(source / "more.parquet", image=[b""])
    refused(source, "more.parquet: its name gives no split, and the names of other files give 'train', 'test'")
    (source / "more.parquet").unlink()
    Image.new("L", (4, 4)).save(source / "a.png")
    refused(source, "holds both images .a.png. and Parquet or Arrow files")
    (source / "a.png").unlink()
    arrow_file(source)
    refused(source, "both Parquet and Arrow")


@needs_datasets
def test_compressed_arrow_is_read_into_memory_only(tmp_path):
    from pyarrow import feather

    feather.write_feather(pyarrow.table({"x": FLOATS.tolist()}), tmp_path / "x.arrow", compression="lz4")
    assert len(read_all(tmp_path / "x.arrow").values) == COUNT
    refused(tmp_path / "x.arrow", "is compressed, so single rows cannot be read", stream="always")


@needs_datasets
def test_a_type_that_is_a_pickle_is_not_loaded(tmp_path):
    """As pyarrow before 15 did (CVE-2023-47248): an extension type in the metadata, whose content is unpickled."""
    bomb = b"cos\nsystem\n(S'touch " + str(tmp_path / "harmed").encode() + b"'\ntR."
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": bomb}
    field = pyarrow.field("x", pyarrow.list_(pyarrow.int64(), 2), metadata=metadata)
    values = pyarrow.table([pyarrow.array([[1, 2]] * 12, field.type)], schema=pyarrow.schema([field]))
    with pyarrow.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, values.schema) as writer:
        writer.write_table(values)
    parquet.write_table(values, tmp_path / "x.parquet")
    for name in ("x.arrow", "x.parquet"):
        for stream in ("never", "always"):
            assert len(read_all(tmp_path / name, stream=stream).values) == 12
    assert not (tmp_path / "harmed").exists()


def test_without_datasets_a_table_says_what_to_install(tmp_path, monkeypatch):
    written_table(tmp_path / "x.parquet", x=[[1.0, 2.0]] * 9)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    refused(tmp_path / "x.parquet", r"datasets, which is not installed; pip install 'jensen\[datasets\]'")


def test_other_data_need_not_be_readable_by_rows(tmp_path):
    spec = load_data(npz(tmp_path), ReadOptions(stream="always")).spec
    np.savez_compressed(tmp_path / "other.npz", x=byte_images(9))
    assert len(read_examples(tmp_path / "other.npz", spec)) == 9


@needs_datasets
def test_other_data_in_a_table_are_read_under_the_rules_of_a_run(tmp_path):
    spec = load_data(image_folder(tmp_path), ReadOptions(size=(4, 4))).spec
    source = written_table(
        tmp_path / "x.parquet", image=[encoded(pixels) for pixels in byte_images(9, shape=(8, 8, 3))]
    )
    for stream in ("never", "always"):
        told = spec.model_copy(update={"options": spec.options.model_copy(update={"stream": stream})})
        assert read_examples(source, told).x[:].shape == (9, 3, 4, 4)


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
