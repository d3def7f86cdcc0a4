"""Damaged and hostile input of every kind: it works, or is refused in one line; no traceback, no hang, no crash.

An ordinary run tries a few cases of each kind, always the same ones; `make fuzz` tries FUZZ_CASES of each, and others
every time. What it found is tried by name at the end of this page.
"""

import contextlib
import copy
import functools
import gzip
import hashlib
import io
import json
import math
import os
import resource
import shutil
import signal
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import scipy.io
import scipy.io.wavfile
import tifffile
import torch
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from safetensors.torch import load_file, save_file

import jensen
from jensen.cli import main
from jensen.compression.archive import DIGEST, MAGIC, pack, unpack
from jensen.data.load import load_data
from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.recipe.families import read_recipe
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.checkpoint import Record
from jensen.training.settings import TrainingSettings

CASES = int(os.environ.get("FUZZ_CASES", "0"))
ALLOWED_SECONDS = 30
ALLOWED_BYTES = 12 << 30  # of address space

QUICK = {"steps": 2, "batch_size": 8, "validate_every": 2, "checkpoint_every": 2, "sample_every": 2, "log_every": 1}
TINY = DiffusionSettings(network="mlp", width=8, depth=1, chain_steps=20, bound_terms=3, sampling_steps=2)


def fuzz(few: int, *, part: float = 1.0) -> settings:
    """How many cases: `few`, or under `make fuzz` the share `part` of all, and then others every time."""
    return settings(
        max_examples=max(few, round(part * CASES)),
        derandomize=not CASES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Within, what takes too long or too much memory fails, and an InputError must be one line."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {ALLOWED_SECONDS} seconds")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(ALLOWED_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (ALLOWED_BYTES, limits[1]))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except InputError as refusal:
        text = str(refusal)
        assert text, "an empty refusal"
        assert "\n" not in text.strip(), text
        assert len(text) < 2000, text
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------------------------------------- damage

NUMBERS = st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF])


@st.composite
def damaged(draw: st.DrawFn, original: bytes) -> bytes:
    """Some bytes flipped, overwritten by telling numbers, doubled, removed, put in, or cut off at the end."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        # mostly in the first hundred bytes, where headers are
        limit = draw(st.sampled_from([len(content), min(len(content), 100)]))
        at = draw(st.integers(0, max(0, limit - 1)))
        kind = draw(st.sampled_from(["flip", "number", "double", "remove", "insert", "cut"]))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            width, order = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from(["big", "little"]))
            number = draw(NUMBERS) % (1 << 8 * width)
            content[at : at + width] = number.to_bytes(width, order)
        elif kind == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
        elif kind == "remove":
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "cut":
            del content[at:]
    return bytes(content)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, 3, 255, 10**4, 10**9, 10**12, 2**63, 2**64, 10**400]),
    st.sampled_from([0.0, -0.5, 0.5, 1e-300, 1e308, math.inf, -math.inf, math.nan]),
    st.sampled_from(["", "x", "digits", "vae", "nan", "../../x", "/", "\0", "é\u202e", "a" * 5000]),
    st.sampled_from([[], {}, [[]], [1, 2, 3], [10**9], ["x"], {"x": 1}, [None], [[1], [2, 3]]]).map(copy.deepcopy),
)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: list[tuple[Any, ...]] = []
    if isinstance(tree, dict):
        inner = [place for key, value in tree.items() for place in _places(value, (*path, key))]
    elif isinstance(tree, list):
        inner = [place for number, value in enumerate(tree[:5]) for place in _places(value, (*path, number))]
    return [path, *inner]


@st.composite
def altered(draw: st.DrawFn, original: bytes) -> bytes:
    """JSON whose values at one to three places are others, missing, or beside values that do not belong there."""
    tree = json.loads(original)
    for _ in range(draw(st.integers(1, 3))):
        places = [place for place in _places(tree) if place]
        if not places:
            break
        *path, last = draw(st.sampled_from(places))
        owner = tree
        for key in path:
            owner = owner[key]
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if kind == "replace":
            owner[last] = draw(ODD)
        elif kind == "remove":
            del owner[last]
        elif isinstance(owner, dict):
            owner["unknown"] = draw(ODD)
        else:
            owner.append(draw(ODD))
    return json.dumps(tree).encode()


# ---------------------------------------------------------------------------------------------- data


def _idx() -> bytes:
    values = np.arange(24 * 25, dtype=np.uint8).reshape(24, 5, 5)
    return b"\0\0\x08\x03" + b"".join(length.to_bytes(4, "big") for length in values.shape) + values.tobytes()


def _array(compressed: bool | None) -> bytes:
    buffer, x = io.BytesIO(), np.random.default_rng(0).random((24, 3, 4), np.float32)
    if compressed is None:
        np.save(buffer, x)
    else:
        (np.savez_compressed if compressed else np.savez)(buffer, x=x, y=np.arange(24) % 3)
    return buffer.getvalue()


def _image(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (12, 9, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


FILES = {
    "x-images-idx3-ubyte": _idx(),
    "x-images-idx3-ubyte.gz": gzip.compress(_idx(), mtime=0),
    "x.npy": _array(None),
    "x.npz": _array(False),
    "packed.npz": _array(True),
    "a.png": _image("PNG"),
    "a.jpg": _image("JPEG"),
    "a.webp": _image("WEBP"),
}


@pytest.mark.parametrize("name", FILES)
@fuzz(15)
@given(data=st.data())
def test_data_files(name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = data.draw(damaged(FILES[name]), label="content")
    folder = _emptied(tmp_path_factory, "data")
    if Path(name).suffix in (".png", ".jpg", ".webp"):
        for number in range(10):
            (folder / f"{number}.png").write_bytes(FILES["a.png"])
        (folder / f"z{name}").write_bytes(content)
        source = folder
    else:
        source = folder / name
        source.write_bytes(content)
    with guarded():
        dataset = load_data(source, ReadOptions(missing=True))
        assert len(dataset.train) > 0
        assert tuple(dataset.train.x.shape[1:]) == dataset.spec.shape
    with guarded(), contextlib.redirect_stdout(io.StringIO()):
        assert main(["data", "check", str(source)]) in (0, 2)


def _written(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _archive(kind: str) -> bytes:
    def write(path: Path) -> None:
        inside = path.parent / "inside"
        inside.mkdir()
        for number in range(10):
            (inside / f"{number}.png").write_bytes(FILES["a.png"])
        shutil.make_archive(str(path.parent / "x"), kind, inside)

    return _written(write, {"zip": "x.zip", "tar": "x.tar", "gztar": "x.tar.gz"}[kind])


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=NUMBERS_3D, chunks=(6, 3, 4), compression="gzip")
        file["y"] = np.array(["a", "b"] * 12, dtype=object)


def _dicom(path: Path) -> None:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = pydicom.uid.ExplicitVRLittleEndian, "1.2"
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    scan = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    scan.Rows, scan.Columns, scan.SamplesPerPixel, scan.PhotometricInterpretation = 3, 4, 1, "MONOCHROME2"
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation = 16, 16, 15, 1
    scan.RescaleSlope, scan.RescaleIntercept = 1, -1024
    scan.PixelData = bytes(range(24))
    scan.save_as(path, enforce_file_format=True)


def _nifti(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(NUMBERS_3D, 0, -1)[..., None, :], np.eye(4)), path)


def _csv(path: Path) -> None:
    path.write_text("label,a,b\n" + "".join(f'{row % 2},{row / 8},"{row}"\n' for row in range(24)))


NUMBERS_3D = np.random.default_rng(0).random((24, 3, 4), np.float32)
FORMATS: dict[str, Callable[[], bytes]] = {
    "a.tif": lambda: _written(lambda path: tifffile.imwrite(path, NUMBERS_3D, photometric="minisblack"), "a.tif"),
    "a.bmp": lambda: _image("BMP"),
    "a.gif": lambda: _image("GIF"),
    "x.zip": lambda: _archive("zip"),
    "x.tar": lambda: _archive("tar"),
    "x.tar.gz": lambda: _archive("gztar"),
    "a.wav": lambda: _written(lambda path: scipy.io.wavfile.write(path, 8000, np.arange(99, dtype=np.int16)), "a.wav"),
    "a.nii": lambda: _written(_nifti, "a.nii"),
    "a.nii.gz": lambda: _written(_nifti, "a.nii.gz"),
    "a.dcm": lambda: _written(_dicom, "a.dcm"),
    "a.fits": lambda: _written(lambda path: fits.PrimaryHDU(NUMBERS_3D).writeto(path), "a.fits"),
    "a.h5": lambda: _written(_hdf5, "a.h5"),
    "a.mat": lambda: _written(lambda path: scipy.io.savemat(path, {"x": NUMBERS_3D}, do_compression=True), "a.mat"),
    "a.csv": lambda: _written(_csv, "a.csv"),
    "metadata.csv": lambda: "".join(["file_name,label\n", *(f"{n}.png,{n % 2}\n" for n in range(10))]).encode(),
}


@functools.cache
def _original(name: str) -> bytes:
    return FORMATS[name]()


OF_FOLDERS = (".bmp", ".gif", ".wav", ".dcm")


@pytest.mark.parametrize("name", FORMATS)
@fuzz(3)
@given(data=st.data())
def test_files_of_further_formats(name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    original = _original(name)
    content = data.draw(damaged(original), label="content")
    folder = source = _emptied(tmp_path_factory, "formats")
    if name == "metadata.csv":
        for number in range(10):
            (folder / f"{number}.png").write_bytes(FILES["a.png"])
        (folder / name).write_bytes(content)
    elif Path(name).suffix in OF_FOLDERS:
        for number in range(10):
            (folder / f"{number}{Path(name).suffix}").write_bytes(original)
        (folder / f"z{name}").write_bytes(content)
    else:
        source = folder / name
        source.write_bytes(content)
    stream = data.draw(st.sampled_from(["auto", "always"]), label="stream")
    with guarded():
        dataset = load_data(source, ReadOptions(missing=True, stream=stream))
        assert tuple(dataset.train.x[:2].shape[1:]) == dataset.spec.shape
    with guarded(), contextlib.redirect_stdout(io.StringIO()):
        assert main(["data", "check", str(source)]) in (0, 2)


def _emptied(factory: pytest.TempPathFactory, name: str) -> Path:
    folder = factory.getbasetemp() / f"fuzz-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


# ---------------------------------------------------------------------------------------------- configurations

TOML = b"""
data = "digits"
seed = 3
[read]
size = [8, 8]
levels = 17
[model]
latent_dims = 4
hidden = [32, 16]
likelihood = "bernoulli"
[training]
steps = 100
learning_rate = 1e-3
milestones = [10, 20]
"""


@fuzz(40)
@given(content=damaged(TOML))
def test_config_files(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = _emptied(tmp_path_factory, "config") / "recipe.toml"
    path.write_bytes(content)
    for family in (VAERecipe, DiffusionRecipe):
        with guarded():
            family.from_file(path)
    with guarded(), contextlib.redirect_stdout(io.StringIO()):
        # an unusable place for the run: whatever the config says, nothing is trained
        assert main(["train", "vae", "--config", str(path), "--out", str(path)]) == 2


def _value(field: FieldInfo) -> st.SearchStrategy[Any]:
    """Mostly values of the field's kind, small enough to be tried, at its edges and beyond."""
    kinds = [kind for part in (field.annotation, *get_args(field.annotation)) for kind in (part, *get_args(part))]
    words = [kind for kind in kinds if isinstance(kind, str)]
    usual: list[st.SearchStrategy[Any]] = [st.just(field.get_default(call_default_factory=True))] * 2
    if words:
        usual.append(st.sampled_from(words))
    if bool in kinds:
        usual.append(st.booleans())
    if int in kinds:
        usual.append(st.integers(-1, 40))
    if float in kinds:
        usual.append(st.sampled_from([-1.0, 0.0, 1e-6, 0.01, 0.5, 0.999, 1.0, 3.0, 1e4]))
    if any("tuple" in str(kind) for kind in kinds):
        usual.append(st.lists(st.integers(0, 12), max_size=3))
        usual.append(st.lists(st.floats(-20, 20), min_size=2, max_size=2))
    return st.one_of(*usual, st.none())


def _settings(kind: type[BaseModel], most: int) -> st.SearchStrategy[dict[str, Any]]:
    """At most `most` fields that are not at their defaults."""
    names = st.lists(st.sampled_from(sorted(kind.model_fields)), max_size=most, unique=True)
    return names.flatmap(lambda some: st.fixed_dictionaries({name: _value(kind.model_fields[name]) for name in some}))


FAMILIES = {"vae": (VAESettings, TrainingSettings, {}), "diffusion": (DiffusionSettings, DiffusionTraining, {})}
SMALL = {
    "vae": {"hidden": [8], "latent_dims": 2, "fit_steps": 2, "importance_samples": 2},
    "diffusion": {"widths": [8], "width": 8, "depth": 1, "chain_steps": 20, "bound_terms": 3, "sampling_steps": 2},
}


@pytest.mark.parametrize("family", FAMILIES)
@fuzz(12, part=0.3)
@given(data=st.data())
def test_recipes_that_are_accepted_train(
    family: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One example of each label would do: what is accepted must train, be opened, sampled and scored, or be refused."""
    model, training, _ = FAMILIES[family]
    values = {
        "family": family,
        "model": SMALL[family] | data.draw(_settings(model, 4), label="model"),
        "training": QUICK | data.draw(_settings(training, 2), label="training"),
    }
    values["training"] |= {name: QUICK[name] for name in ("steps", "validate_every")}  # at most two steps
    out = _emptied(tmp_path_factory, f"run-{family}") / "run"
    with guarded():
        run = jensen.train(read_recipe(values, "recipe"), out)
        run.model.sample(2, seed=1)
        x = run.spec.preparation(run.dataset.test.x[:2], jensen_noise())
        run.model.elbo(x, draws=1)


def jensen_noise() -> Any:
    from jensen.randomness import Noise, generator

    return Noise(generator(0))


# ---------------------------------------------------------------------------------------------- runs


RECORDS = {
    "vae": [["evaluate", "--examples", "8", "--further-examples", "2"], ["predict", "--draws", "2", "--out", "{out}"]],
    "diffusion": [
        ["evaluate", "--examples", "8", "--further-examples", "2", "--referee", "--referee-examples", "2"],
        ["features", "train", "--visits", "200"],
        ["features", "distance", "--n", "30"],
        ["features", "check", "--n", "30"],
    ],
}
READERS = {
    "vae": [["evaluate", "--examples", "4", "--further-examples", "1"], ["predict", "--draws", "2", "--out", "{out}"]],
    "diffusion": [
        ["evaluate", "--examples", "4", "--further-examples", "1"],
        ["features", "distance", "--n", "20", "--seed", "1"],
    ],
}


def _call(words: list[str], run: Path, out: Path) -> int:
    """A command on a run; `{out}` is a place for what it writes."""
    name = 2 if words[0] == "features" else 1
    filled = [word.format(out=out) for word in words]
    with contextlib.redirect_stdout(io.StringIO()):
        return main([*filled[:name], str(run), *filled[name:]])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small run of each family with the records that commands leave in it, and a compressed file."""
    folder = tmp_path_factory.mktemp("runs")
    model = VAESettings(latent_dims=2, hidden=(8,), predict="label", likelihood="discretised-logistic")
    made = {
        "vae": VAERecipe(model=model, training=TrainingSettings(**QUICK)),
        "diffusion": DiffusionRecipe(model=TINY, training=DiffusionTraining(**QUICK)),
    }
    for family, recipe in made.items():
        jensen.train(recipe, folder / family)
        for words in RECORDS[family]:
            assert _call(words, folder / family, folder / "predictions.csv") == 0, words
    compressed = folder / "digits.jc"
    assert main(["compress", str(folder / "vae"), "--examples", "4", "--out", str(compressed)]) == 0
    return {family: folder / family for family in made} | {"compressed": compressed}


def _files(run: Path) -> list[str]:
    """What a reader may look at, the last checkpoint's files alone of all."""
    last = max((run / "checkpoints").iterdir())
    names = [
        path.relative_to(run) for path in run.rglob("*") if path.suffix in (".json", ".jsonl", ".npz", ".safetensors")
    ]
    return sorted(str(name) for name in names if "checkpoints" not in name.parts or last.name in name.parts)


def _sealed(content: bytes) -> bytes:
    """A checkpoint's record with the sum that belongs to it, if it is a record."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return Record.model_validate_json(content).sealed()
    except ValueError:
        return content


@pytest.mark.parametrize("family", ["vae", "diffusion"])
@fuzz(4, part=0.3)
@given(data=st.data())
def test_run_folders(
    family: str, runs: dict[str, Path], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = _emptied(tmp_path_factory, f"damaged-{family}")
    run = folder / "run"
    shutil.copytree(runs[family], run)
    name = data.draw(st.sampled_from(_files(run)), label="file")
    original = (run / name).read_bytes()
    how = altered if name.endswith(".json") and data.draw(st.booleans(), label="as JSON") else damaged
    content = data.draw(how(original), label="content")
    if name.endswith("state.json") and data.draw(st.booleans(), label="under a sound checksum"):
        content = _sealed(content)
    (run / name).write_bytes(content)
    with guarded():
        jensen.load(run).model.sample(1)
    with guarded(), contextlib.redirect_stdout(io.StringIO()):
        assert main(["info", str(run)]) in (0, 2)
    if "checkpoints" in name or name in ("recipe.json", "data.json", "metrics.jsonl"):
        with guarded():
            jensen.resume(run)
        return
    with guarded(), contextlib.redirect_stdout(io.StringIO()):
        assert main(["compare", str(run), str(runs[family])]) in (0, 2)
    for words in READERS[family]:
        with guarded():
            assert _call(words, run, folder / "predictions.csv") in (0, 2)


@fuzz(30)
@given(data=st.data())
def test_compressed_files(runs: dict[str, Path], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is changed, the checksum sees it: refused, and nothing is written."""
    original = runs["compressed"].read_bytes()
    content = data.draw(st.one_of(damaged(original), st.just(original)), label="content")
    folder = _emptied(tmp_path_factory, "compressed")
    (folder / "x.jc").write_bytes(content)
    with guarded(), contextlib.redirect_stdout(io.StringIO()):
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            words = ["decompress", str(folder / "x.jc"), "--run", str(runs["vae"]), "--out", str(folder / "x.npz")]
            code = main(words)
        assert code == (0 if content == original else 2), told.getvalue()
        assert (folder / "x.npz").exists() == (content == original)


MACHINE = {"device": "cpu", "threads": 1, "torch_version": "2.13.0", "processor": "x86_64"}
FACTS = {"shape": [8], "dtype": "uint8", "count": 2, "batches": [[1, 2]], "steps": None, "model": "", "data": ""}
HEADER = {"format": 1, **FACTS, "machine": MACHINE}


def compressed_by(header: bytes, words: bytes) -> bytes:
    """A compressed file under a sound checksum."""
    described = zlib.compress(header)
    body = MAGIC + len(described).to_bytes(4, "little") + described + words
    return body + hashlib.blake2b(body, digest_size=DIGEST).digest()


@fuzz(60)
@given(header=altered(json.dumps(HEADER).encode()), words=st.binary(max_size=9))
def test_compressed_files_under_a_sound_checksum(header: bytes, words: bytes) -> None:
    with guarded():
        unpack(compressed_by(header, words), "x.jc")


# ---------------------------------------------------------------------------------------------- words

COMMAND_LINE = """
train vae diffusion resume sample evaluate info score data check features distance compare predict impute compress
decompress reconstruct --out --data --n --steps --seed --sampler --guidance --label --help --draws --config --mask
digits /nowhere . -1 0 1 1e9 nan inf
"""
WORDS = st.one_of(st.sampled_from(COMMAND_LINE.split()), st.text(max_size=8))


@fuzz(40)
@given(words=st.lists(WORDS, max_size=6))
def test_command_lines(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing here can succeed but help: there is no run to use, and a run's folder is not given."""
    folder = _emptied(tmp_path_factory, "words")
    before = Path.cwd()
    os.chdir(folder)
    try:
        told = io.StringIO()
        with guarded(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            try:
                code = main(words)
            except SystemExit as stop:  # --help
                code = int(stop.code or 0)
            assert code in (0, 2), told.getvalue()
            assert "Traceback" not in told.getvalue()
    finally:
        os.chdir(before)


# ---------------------------------------------------------------------------------------------- found

FOUND = [
    ("recipe.json", "format", math.inf),
    ("data.json", "format", math.inf),
    ("recipe.json", "hidden", [10**9]),
    ("recipe.json", "hidden", [10**12]),
    ("recipe.json", "hidden", [2**62]),
    ("recipe.json", "hidden", [10**400]),
    ("recipe.json", "latent_dims", 10**9),
    ("recipe.json", "latent_dims", 2**64),
    ("data.json", "shape", [10**6, 10**6]),
    ("data.json", "shape", [2**63]),
    ("data.json", "shape", []),
    ("data.json", "classes", 10**12),
    ("data.json", "classes", -1),
    ("data.json", "counts", {"test": 2, "validation": 2}),
    ("data.json", "counts", {"train": -1, "test": 2, "validation": 2}),
    ("state.json", "format", math.inf),
    ("state.json", "optimisers", None),
    ("state.json", "window", None),
    ("state.json", "step", None),
]


@pytest.mark.parametrize(("name", "field", "value"), FOUND)
def test_found_by_fuzzing(name: str, field: str, value: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["vae"], run)
    path = max((run / "checkpoints").iterdir()) / name if name == "state.json" else run / name
    tree = json.loads(path.read_text())
    (tree["model"] if name == "recipe.json" and field != "format" else tree)[field] = value
    path.write_text(json.dumps(tree))
    for use in (jensen.load, jensen.resume):
        with guarded():
            use(run)


SCALER = {"scale": 1.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("optimisers", [[]], None),  # the recipe says the options
        ("optimisers", [[{"lr": "x", "betas": None}]], None),
        ("optimiser_numbers", {"0/99/step": 1}, "does not fit the run's recipe"),
        ("optimiser_numbers", {"0/0/step": "x"}, "is missing or damaged"),
        ("optimiser_numbers", {"5/0/step": 1}, "does not fit the run's recipe"),
        ("scaler", {"scale": 1.0}, "is missing or damaged"),
        ("scaler", SCALER | {"scale": 0.0}, "is missing or damaged"),
        ("scaler", SCALER | {"_growth_tracker": 10**300}, "is missing or damaged"),
    ],
)
def test_found_by_fuzzing_a_forged_state_under_a_sound_checksum(
    field: str, value: Any, says: str | None, runs: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(runs["vae"], tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*/state.json"):
        record = Record.model_validate_json(path.read_bytes())
        setattr(record, field, value)
        with warnings.catch_warnings(action="ignore"):
            path.write_bytes(record.sealed())
    with contextlib.nullcontext() if says is None else pytest.raises(InputError, match=says):
        jensen.resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "value"),
    [("exp_avg", torch.zeros(())), ("exp_avg_sq", torch.zeros(3)), ("exp_avg", None), ("step", None), ("step", [1.0])],
    ids=["no shape", "another shape", "missing", "no step", "several steps"],
)
def test_forged_moments_under_a_sound_checksum(name: str, value: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    """Of any other shape the fused optimiser would read and write beside them."""
    shutil.copytree(runs["vae"], tmp_path / "run")
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        moments = load_file(folder / "optimiser.safetensors")
        for key in [key for key in moments if key.endswith(f"/{name}")]:
            del moments[key]
            if value is not None:
                moments[key] = torch.as_tensor(value).clone()
        save_file(moments, folder / "optimiser.safetensors")
        record = Record.model_validate_json((folder / "state.json").read_bytes())
        record.sha256["optimiser.safetensors"] = hashlib.sha256(
            (folder / "optimiser.safetensors").read_bytes()
        ).hexdigest()
        (folder / "state.json").write_bytes(record.sealed())
    with pytest.raises(InputError, match="does not fit the run's recipe"):
        jensen.resume(tmp_path / "run")


def test_found_by_fuzzing_a_confusion_that_is_not_square(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["vae"], run)
    tree = json.loads((run / "predictions.json").read_text())
    tree["confusion"][3] = tree["confusion"][3][:-1]
    (run / "predictions.json").write_text(json.dumps(tree))
    assert _call(READERS["vae"][0], run, tmp_path / "p.csv") == 2


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({}, b"\0\0\0\0\0"),  # a word and a quarter
        ({"threads": 10**6}, b""),  # torch starts them all, and dies
        ({"threads": -1}, b""),
        ({"threads": 10**32}, b""),
        ({"processor": "x" * (1 << 25)}, b""),  # 32 KiB in the file
    ],
)
def test_found_by_fuzzing_compressed_files_under_a_sound_checksum(header: dict[str, Any], words: bytes) -> None:
    content = compressed_by(json.dumps(HEADER | {"machine": MACHINE | header}).encode(), words)
    with pytest.raises(InputError, match="has a header of another format"):
        unpack(content, "x.jc")


def test_found_by_fuzzing_a_file_that_declares_a_million_million_examples(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    header, words = unpack(runs["compressed"].read_bytes(), "x.jc")
    many = header.model_copy(update={"count": 10**12, "batches": ((1, 10**12),)})
    (tmp_path / "x.jc").write_bytes(pack(many, words))
    with guarded(), contextlib.redirect_stderr(io.StringIO()) as told:
        arguments = [str(tmp_path / "x.jc"), "--run", str(runs["vae"]), "--out", str(tmp_path / "x.npz")]
        assert main(["decompress", *arguments]) == 2
    assert "does not hold two copies" in told.getvalue()


def test_found_by_fuzzing_a_family_of_five_thousand_letters() -> None:
    for values in ({"family": "a" * 5000}, {"family": "vae", "x" * 5000: 1}, {"family": "vae", "seed": "a" * 5000}):
        with pytest.raises(InputError) as refusal:
            read_recipe(values, "recipe")
        assert len(str(refusal.value)) < 1000


def test_found_by_fuzzing_a_million_threads() -> None:
    with pytest.raises(InputError, match="threads = 1000000: Input should be less than or equal to 1024"):
        read_recipe({"family": "vae", "training": {"threads": 10**6}}, "recipe")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", [0x110000, 0xFFFFFFFF, 0xD800, 0xDFFF])
def test_found_by_fuzzing_labels_that_are_no_text(code: int, order: str, tmp_path: Path) -> None:
    y = np.array([code, 98, 99] * 8, f"{order}u4").view(f"{order}U1")
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((24, 3)), y=y)
    with pytest.raises(InputError, match=f"hold U.{code:X}, which is no character"):
        load_data(tmp_path / "x.npz")


def test_found_by_fuzzing_a_name_of_a_thousand_letters(tmp_path: Path) -> None:
    packed = bytearray(FILES["packed.npz"])
    packed[26:28] = (1000).to_bytes(2, "little")  # the length of the first member's name
    (tmp_path / "x.npz").write_bytes(packed)
    with pytest.raises(InputError) as refusal:
        load_data(tmp_path / "x.npz")
    assert len(str(refusal.value)) < 600
