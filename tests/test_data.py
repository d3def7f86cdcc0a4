"""Loading: splits, the specification, the same data again, other data under a run's rules; digits and full MNIST."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import byte_images, refused, saved
from scipy import stats
from sklearn.datasets import load_digits

from jensen.data.check import check
from jensen.data.examples import Examples
from jensen.data.load import load_again, load_data, load_split, read_examples
from jensen.data.options import ReadOptions
from jensen.data.readers.reading import Reading
from jensen.data.spec import DataSpec
from jensen.data.splits import split_rows
from jensen.data.survey import survey
from jensen.errors import InputError

ROOT = Path(__file__).resolve().parents[1]

# ---------------------------------------------------------------------------------------------- digits and MNIST


def test_digits_are_those_of_scikit_learn():
    data = load_data("digits")
    spec = data.spec
    assert (spec.source, spec.kind, spec.layout, spec.shape) == ("digits", "digits", "image", (1, 8, 8))
    assert (spec.dtype, spec.levels, spec.minimum, spec.maximum, spec.classes) == ("uint8", 17, 0, 16, 10)
    assert spec.counts == {"train": 1437, "validation": 180, "test": 180}
    assert spec.label_names == tuple("0123456789")
    assert spec.preparation.kind == "dequantise"
    everything = read_examples("digits", spec)
    np.testing.assert_array_equal(everything.x.numpy()[:, 0], load_digits().images)
    np.testing.assert_array_equal(everything.labels.numpy(), load_digits().target)


@pytest.fixture(scope="session")
def mnist(shared_data) -> str:
    if not (shared_data / "mnist").is_dir():
        pytest.skip("there is no ../shared/data/mnist beside the repository")
    return str(shared_data / "mnist")


def test_full_mnist(mnist):
    """60,000 + 10,000 images; the label counts are those of the official files."""
    data = load_data(mnist)
    assert data.spec.counts == {"train": 54000, "validation": 6000, "test": 10000}
    assert (data.spec.shape, data.spec.dtype, data.spec.levels) == ((1, 28, 28), "uint8", 256)
    train = torch.cat([data.train.labels, data.validation.labels]).bincount().tolist()
    assert train == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = torch.cat([data.train.x, data.validation.x])
    assert pixels.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)  # the mean that everybody quotes
    report = check(mnist)
    assert report.good
    assert report.spec == data.spec


def test_a_single_mnist_file(mnist):
    data = load_data(f"{mnist}/t10k-images-idx3-ubyte.gz")
    assert data.spec.counts == {"train": 8000, "validation": 1000, "test": 1000}


# ---------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.0, 0.0), (0.25, 0.5), (0.0, 0.3), (0.4, 0.0)])
@pytest.mark.parametrize("count", [20, 101])
def test_splits_are_disjoint_complete_and_of_the_right_size(tmp_path, count, validation, test):
    values = np.arange(count, dtype=np.uint8)[:, None]
    options = ReadOptions(validation_fraction=validation, test_fraction=test)
    data = load_data(saved(tmp_path / "x.npy", x=values), options)
    together = torch.cat([data.train.x, data.validation.x, data.test.x]).flatten()
    assert sorted(together.tolist()) == list(range(count))
    assert (len(data.validation), len(data.test)) == (round(count * validation), round(count * test))


def test_splits_are_a_function_of_their_seed(tmp_path):
    source = saved(tmp_path / "x.npz", x=byte_images(40, shape=(6,)), y=np.arange(40))
    first, again = load_data(source), load_data(source)
    other = load_data(source, ReadOptions(split_seed=1))
    assert torch.equal(first.test.labels, again.test.labels)
    assert not torch.equal(first.test.labels, other.test.labels)
    np.testing.assert_array_equal(first.test.x.numpy(), byte_images(40, shape=(6,))[first.test.labels])


def test_every_example_is_as_likely_in_the_test_split():
    """Counts over 400 seeds, 20 examples, 5 in each test: chi-square with 19 degrees of freedom; false alarm 1e-6."""
    values = np.zeros((20, 1), np.uint8)
    reading = Reading("array", "vector", values, survey(values), 256)
    counts = np.zeros(20)
    for seed in range(400):
        options = ReadOptions(test_fraction=0.25, validation_fraction=0.25, split_seed=seed)
        counts[split_rows(reading, options)["test"]] += 1
    statistic = ((counts - 100) ** 2 / (100 * 0.75)).sum() * 19 / 20  # the counts' sum is fixed
    assert stats.chi2(19).sf(statistic) > 1e-6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"validation_fraction": -0.1}, "must be at least 0"),
        ({"test_fraction": 1.0}, "must be at least 0 and their sum below 1"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "sum below 1"),
        ({"validation_fraction": float("nan")}, "must be at least 0"),
        ({"split_seed": -1}, "--split-seed -1"),
        ({"test_fraction": 0.001}, "40 examples, too few for --test-fraction 0.001"),
    ],
)
def test_bad_split_options_are_refused(tmp_path, options, says):
    source = saved(tmp_path / "x.npy", x=byte_images(40, shape=(6,)))
    with pytest.raises(InputError, match=says):
        load_data(source, ReadOptions(**options))
    assert len(check(source, ReadOptions(**options)).problems) == 1


# ---------------------------------------------------------------------------------------------- the specification


@pytest.mark.parametrize(
    ("values", "preparation"),
    [
        (byte_images(40, shape=(5, 4)), None),
        (byte_images(40, shape=(5, 4)), "levels"),
        (byte_images(40, shape=(6,)).astype(np.uint16) * 257, None),
        (np.random.default_rng(0).normal(size=(40, 3)), None),
        (np.random.default_rng(0).random((40, 3)), "static"),
    ],
)
def test_a_specification_survives_json_and_brings_the_same_data_back(tmp_path, values, preparation):
    data = load_data(saved(tmp_path / "x.npy", x=values), ReadOptions(split_seed=3), preparation)
    spec = DataSpec.model_validate_json(data.spec.model_dump_json())
    assert spec == data.spec
    json.loads(spec.model_dump_json(), parse_constant=pytest.fail)  # no NaN or Infinity, which are not JSON
    again = load_again(spec)
    for split in ("train", "validation", "test"):
        examples = getattr(data, split)
        assert torch.equal(getattr(again, split).x, examples.x)
        assert torch.equal(load_split(spec, split).x, examples.x)
        assert examples.x.dtype == getattr(torch, spec.dtype)
        assert len(examples) == spec.counts[split]


def test_data_that_have_changed_are_refused(tmp_path):
    source = saved(tmp_path / "x.npz", x=byte_images(40, shape=(6,)), y=np.arange(40))
    spec = load_data(source).spec
    saved(tmp_path / "x.npz", x=byte_images(40, shape=(6,)), y=np.arange(40)[::-1])
    with pytest.raises(InputError, match="the data have changed since the run"):
        load_again(spec)


def test_an_empty_split_is_refused_by_name(tmp_path):
    spec = load_data(saved(tmp_path / "x.npy", x=byte_images(40, shape=(6,))), ReadOptions(test_fraction=0)).spec
    with pytest.raises(InputError, match="test split is empty"):
        load_split(spec, "test")


def test_a_run_may_be_read_from_another_folder(tmp_path, monkeypatch):
    saved(tmp_path / "x.npy", x=byte_images(40, shape=(6,)))
    monkeypatch.chdir(tmp_path)
    spec = load_data("x.npy").spec
    monkeypatch.chdir("/")
    assert len(load_split(spec, "train")) == 32


def test_examples_are_indexed_by_tensors(tmp_path):
    data = load_data(saved(tmp_path / "x.npz", x=byte_images(40, shape=(6,)), y=np.arange(40)))
    rows = torch.tensor([3, 1, 3])
    some = data.train[rows]
    assert torch.equal(some.x, data.train.x[rows])
    assert torch.equal(some.labels, data.train.labels[rows])
    assert len(some) == 3


def test_a_check_names_constant_features(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 4))
    values[:, 2] = 7
    report = check(saved(tmp_path / "x.npy", x=values))
    assert report.good
    assert any("features 2" in note for note in report.notes)
    assert report.lines()[-1] == "result       good"


# ---------------------------------------------------------------------------------------------- other data


@pytest.mark.parametrize(
    ("dtype", "highest", "advised"),
    [("uint8", 1, 2), ("uint8", 16, 32), ("uint8", 63, 64), ("uint8", 64, None), ("uint16", 4094, 4096)],
)
def test_a_check_asks_about_levels_that_nothing_reaches(tmp_path, dtype, highest, advised):
    """12-bit numbers are advised 4,096 levels, whichever is the highest of these data."""
    values = (np.arange(40 * 9) % 2 * highest).astype(dtype).reshape(40, 3, 3)
    path = saved(tmp_path / "x.npy", x=values)
    advice = [note for note in check(path).notes if "--levels" in note]
    assert len(advice) == (advised is not None)
    if advised:
        assert f"give --levels {advised} " in advice[0]
        assert check(path, ReadOptions(levels=advised)).good


def test_images_without_any_variation_are_not_told_of_levels(tmp_path):
    report = check(saved(tmp_path / "x.npy", x=np.zeros((40, 3, 3), np.uint8)))
    assert not any("--levels" in note for note in report.notes)
    assert any("every number is 0: there is nothing to learn" in note for note in report.notes)


def test_other_data_are_read_whole_under_the_rules_of_a_run(tmp_path):
    spec = load_data(saved(tmp_path / "x.npy", x=byte_images(40, shape=(3, 5, 3))), ReadOptions(layout="hwc")).spec
    other = byte_images(1, seed=1, shape=(3, 5, 3))
    examples = read_examples(saved(tmp_path / "y.npy", x=other), spec)
    np.testing.assert_array_equal(examples.x.numpy(), np.moveaxis(other, -1, 1))


def test_a_run_with_few_levels_takes_bytes_within_them(tmp_path):
    spec = load_data("digits").spec
    good = byte_images(5, shape=(8, 8)) % 17
    assert torch.equal(read_examples(saved(tmp_path / "x.npy", x=good), spec).x[:, 0], torch.from_numpy(good))
    with pytest.raises(InputError, match="with 17 levels the highest is 16"):
        read_examples(saved(tmp_path / "y.npy", x=good + 1), spec)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (byte_images(4, shape=(5,)), r"has shape \(5,\) but the run was trained on shape \(6,\)"),
        (byte_images(4, shape=(6,)).astype(np.float32), "has dtype float32 but the run was trained on dtype uint8"),
        (byte_images(4, shape=(6,)).astype(np.uint16), "has dtype uint16"),
        (byte_images(4, shape=(6,)) > 9, "holds booleans, which have 2 levels, not 256"),
    ],
)
def test_other_data_that_differ_are_refused(tmp_path, values, says):
    spec = load_data(saved(tmp_path / "x.npy", x=byte_images(40, shape=(6,)))).spec
    with pytest.raises(InputError, match=says):
        read_examples(saved(tmp_path / "y.npy", x=values), spec)


def test_a_binarising_run_refuses_floats_outside_the_unit_interval(tmp_path):
    values = np.random.default_rng(0).random((40, 3))
    spec = load_data(saved(tmp_path / "x.npy", x=values), preparation="static").spec
    with pytest.raises(InputError, match=r"within \[0, 1\]"):
        read_examples(saved(tmp_path / "y.npy", x=values + 0.5), spec)


def test_labels_of_other_data_are_numbered_as_in_the_run(tmp_path):
    names = np.array(["ant", "bee", "cat", "dog"] * 10)
    spec = load_data(saved(tmp_path / "x.npz", x=byte_images(40, shape=(6,)), y=names)).spec
    pairs = byte_images(2, shape=(6,))
    fewer = read_examples(saved(tmp_path / "y.npz", x=pairs, y=np.array(["dog", "bee"])), spec)
    assert fewer.labels.tolist() == [3, 1]
    foreign = read_examples(saved(tmp_path / "z.npz", x=pairs, y=np.array(["dog", "eel"])), spec)
    assert foreign.labels is None
    assert read_examples(saved(tmp_path / "v.npz", x=pairs, y=np.array([0, 4])), spec).labels is None


# ---------------------------------------------------------------------------------------------- lightness


@pytest.mark.parametrize(
    ("module", "absent"),
    [("jensen.data", "sklearn PIL scipy matplotlib rich"), ("jensen.data.options", "torch numpy sklearn PIL scipy")],
)
def test_imports_are_light(module, absent):
    program = f"import sys, {module}; print([name for name in {absent.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        ({"x": byte_images(20)}, [f"row {row}" for row in range(20)]),
        (
            {"x_train": byte_images(12), "x_test": byte_images(8)},
            [*(f"x_train row {row}" for row in range(12)), *(f"x_test row {row}" for row in range(8))],
        ),
    ],
)
def test_examples_are_named_by_the_rows_of_their_source(tmp_path, arrays, names):
    source = saved(tmp_path / "x.npz", **arrays)
    data, values = load_data(source), np.concatenate(list(arrays.values()))
    found = []
    for examples in (data.train, data.validation, data.test):
        found += list(examples.names)
        for row, name in enumerate(examples.names):
            np.testing.assert_array_equal(examples.x[row, 0], values[names.index(name)])
    assert sorted(found) == sorted(names)
    assert list(read_examples(source, data.spec).names) == names


def test_names_follow_every_selection_and_cost_nothing(tmp_path):
    """A million names are made only where they are asked for; a mask, a slice and a permutation keep them."""
    examples = Examples(torch.arange(1_000_000))
    start = time.perf_counter()
    some = examples[torch.arange(999_999, -1, -3)][10:20].to(torch.device("cpu"))
    odd = examples[(torch.arange(1_000_000) % 2).bool()]
    assert time.perf_counter() - start < 1
    assert [some.names[row] for row in range(10)] == [f"row {value}" for value in some.x.tolist()]
    assert (len(odd.names), odd.names[7], odd.names[-1]) == (500_000, "row 15", "row 999999")
    with pytest.raises(IndexError):
        some.names[10]


# ---------------------------------------------------------------------------------------------- doubts


def test_a_check_notes_labels_without_training_examples(tmp_path):
    pairs = {"x_train": byte_images(40), "x_test": byte_images(20, 1)}
    labels = {"y_train": np.array(["cat", "dog"] * 20), "y_test": np.array(["eel", "cat", "fox", "dog"] * 5)}
    report = check(saved(tmp_path / "x.npz", **pairs, **labels))
    assert report.good
    (note,) = (note for note in report.notes if "no training example" in note)
    assert note.startswith("no training example has the label eel, fox, so")
    assert report.spec.label_counts[2:] == (0, 0)
    assert not any("no training example" in note for note in check("digits").notes)


@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_check_counts_test_examples_that_are_training_examples(tmp_path, stream):
    """Five test images equal training images, one of them twice; the validation images equal none."""
    train, test = byte_images(40), byte_images(20, 1)
    test[[3, 7, 8, 11, 19]] = train[[5, 5, 0, 39, 2]]
    pairs = {"x_train": train, "x_val": byte_images(9, 2), "x_test": test}
    notes = check(saved(tmp_path / "x.npz", **pairs), ReadOptions(stream=stream)).notes
    (note,) = (note for note in notes if "are also training examples" in note)
    assert note.startswith(
        "5 of 20 test examples are also training examples, such as x_test row 3, which equals x_train row 5: "
    )


def test_a_hundred_equal_images_are_not_passed_over_in_silence(tmp_path):
    source = saved(tmp_path / "x.npy", x=np.repeat(byte_images(1), 100, axis=0))
    notes = "\n".join(check(source).notes)
    assert "10 of 10 validation examples are also training examples" in notes
    assert "10 of 10 test examples are also training examples" in notes


def test_digits_repeat_no_image():
    """scikit-learn's digits have no image twice: compared as byte strings."""
    images = [image.tobytes() for image in load_digits().images]
    assert len(set(images)) == len(images)
    assert not any("are also training examples" in note for note in check("digits").notes)


def test_an_example_without_values_may_be_imputed_but_not_learned_from(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 3))
    spec = load_data(saved(tmp_path / "x.npy", x=values)).spec
    values[4] = np.nan
    other = saved(tmp_path / "y.npy", x=values)
    assert read_examples(other, spec, missing=True).x[4].isnan().all()
    line = refused(other, "row 4 has only missing values .NaN.; remove it from the data", missing=True)
    assert line.startswith(str(other))


def test_names_of_the_chapter_are_what_they_say():
    import jensen.data

    for name in jensen.data.__all__:
        assert getattr(jensen.data, name) is getattr(jensen.data, name)
        assert not isinstance(getattr(jensen.data, name), type(jensen.data))


@pytest.mark.parametrize(
    "block", re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/data.md").read_text(), re.DOTALL | re.MULTILINE)
)
def test_code_of_the_page_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/data.md", "exec"), {})
