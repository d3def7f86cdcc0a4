"""Groups of examples are kept in one split: by folder, by file, by an array or a column; in memory and on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import byte_images, refused, saved
from PIL import Image
from scipy import stats

from jensen.data.check import check
from jensen.data.examples import Dataset
from jensen.data.load import load_again, load_data, read_examples
from jensen.data.options import ReadOptions
from jensen.data.readers.reading import Reading
from jensen.data.splits import split_rows
from jensen.data.survey import survey
from jensen.errors import InputError

SPLITS = ("train", "validation", "test")
PATIENT = np.repeat(np.arange(20), 6)[np.random.default_rng(3).permutation(120)]
X = np.arange(120, dtype=np.uint8)[:, None]


def groups_by_split(data: Dataset, groups: np.ndarray) -> list[set]:
    """The groups of each split; `groups` are by row of the source."""
    return [set(groups[getattr(data, split).names.rows.numpy()].tolist()) for split in SPLITS]


def assert_apart(data: Dataset, groups: np.ndarray) -> None:
    """Every group is in one split, and every split has a group."""
    found = groups_by_split(data, groups)
    assert all(found)
    assert sum(map(len, found)) == len(set(groups.tolist())) == len(set.union(*found))


def parquet(path: Path, **columns: list) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict(columns).to_parquet(path)
    return path


@pytest.mark.parametrize("keys", [PATIENT, PATIENT[:, None], np.array([f"p{number}" for number in PATIENT])])
def test_an_array_of_groups(tmp_path, keys):
    arrays = {"x": X, "patient": keys, "y": PATIENT % 2}
    options = ReadOptions(group="patient")
    memory, file = load_data(arrays, options), load_data(saved(tmp_path / "x.npz", **arrays), options)
    streamed = load_data(tmp_path / "x.npz", options.model_copy(update={"stream": "always"}))
    for data in (memory, file, streamed):
        assert_apart(data, PATIENT)
        assert data.spec.counts == {"train": 96, "validation": 12, "test": 12}
        assert data.spec.options.group == "patient"
        assert data.spec.fingerprint == memory.spec.fingerprint
        for split in SPLITS:
            assert torch.equal(getattr(data, split).names.rows, getattr(memory, split).names.rows)
    assert memory.spec.splits.endswith("groups by patient are drawn whole")
    assert torch.equal(load_again(file.spec).test.x, file.test.x)
    assert len(read_examples({"x": X[:7]}, memory.spec)) == 7  # other data need no groups
    assert len(read_examples(arrays, memory.spec)) == 120


def test_other_groups_are_other_data(tmp_path):
    spec = load_data(saved(tmp_path / "x.npz", x=X, patient=PATIENT), ReadOptions(group="patient")).spec
    saved(tmp_path / "x.npz", x=X, patient=PATIENT[::-1])
    with pytest.raises(InputError, match="the data have changed since the run"):
        load_again(spec)


def test_a_column_of_groups(tmp_path):
    lists = X.astype(np.float32).repeat(3, 1).tolist()
    path = parquet(tmp_path / "x.parquet", x=lists, patient=PATIENT.tolist(), other=PATIENT.tolist())
    data = load_data(path, ReadOptions(group="patient"))
    assert_apart(data, PATIENT)
    assert_apart(load_data(path, ReadOptions(group="patient", stream="always")), PATIENT)
    line = "--group site: these data have no groups of this name; --group may be 'patient', 'other'"
    refused(path, line, group="site")
    (tmp_path / "x.csv").write_text("a,b,patient\n" + "".join(f"{i},{i % 7},p{p}\n" for i, p in enumerate(PATIENT)))
    assert_apart(load_data(tmp_path / "x.csv", ReadOptions(group="patient")), PATIENT)
    numbers = {"group": "patient", "labels": "b", "levels": 128, "layout": "vector"}
    run = load_data(tmp_path / "x.csv", ReadOptions(**numbers)).spec
    (tmp_path / "bare.csv").write_text("".join(f"{i}\n" for i in range(9)))
    bare = read_examples(tmp_path / "bare.csv", run)  # other data need neither labels nor groups
    assert (bare.x[:, 0].tolist(), bare.labels) == (list(range(9)), None)
    refused(tmp_path / "x.csv", "x.csv: has no column 'site'; --group may be 'a', 'b', 'patient'", group="site")


def test_shards_and_their_folders(tmp_path):
    lists = X[:60].astype(np.float32).repeat(3, 1).tolist()
    for number in range(20):
        (tmp_path / f"day{number // 2}").mkdir(exist_ok=True)
        parquet(tmp_path / f"day{number // 2}" / f"{number:02d}.parquet", x=lists[3 * number : 3 * number + 3])
    assert_apart(load_data(tmp_path, ReadOptions(group="file")), np.arange(60) // 3)
    assert_apart(load_data(tmp_path, ReadOptions(group="folder")), np.arange(60) // 6)


def pictures(folder: Path, names: list[str]) -> Path:
    for name, pixels in zip(names, byte_images(len(names)), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_folders_of_one_name_are_a_group(tmp_path):
    """The folders of a patient lie in several class folders."""
    names = sorted(f"{kind}/{patient}/{n}.png" for kind in ("ill", "well") for patient in "abcdefghij" for n in "123")
    folder = pictures(tmp_path, names)
    patients = np.array([name.split("/")[1] for name in names])
    for stream in ("never", "always"):
        data = load_data(folder, ReadOptions(group="folder", stream=stream))
        assert_apart(data, patients)
        assert data.spec.label_names == ("ill", "well")
    assert not all(map(set.isdisjoint, *zip(*[groups_by_split(load_data(folder), patients)[:2]], strict=True)))
    assert len(load_data(folder, ReadOptions(group="file")).test) == 6
    refused(folder, "--group folders: .*; --group may be 'folder', 'file'", group="folders")


def test_supplied_splits(tmp_path):
    """Groups act on the splits that are drawn; without such a split --group is refused."""
    names = sorted(f"{split}/{film}/{n}.png" for split in ("train", "test") for film in "abcdefghij" for n in "123")
    folder = pictures(tmp_path / "two", names)
    films = np.array([name.split("/")[1] for name in names])
    data = load_data(folder, ReadOptions(group="folder"))
    assert data.spec.counts == {"train": 27, "validation": 3, "test": 30}
    train, validation, _ = groups_by_split(data, films)
    assert not train & validation
    shared = check(folder, ReadOptions(group="folder")).notes
    assert sum(each.startswith("10 groups by folder are in more than one split") for each in shared) == 1
    line = "--group folder: no split is drawn from these data; leave it out"
    refused(folder, line, group="folder", validation_fraction=0)
    pair = saved(tmp_path / "x.npz", x_train=X, x_test=X[:9], patient=PATIENT)
    refused(pair, "--group patient: these data have no groups of this name; leave it out", group="patient")


def test_groups_that_supplied_splits_share_are_doubted(tmp_path):
    """Films a, b and c are in both folders; the other films are in one. Training warns of what a check notes."""
    films = {"train": "abcdefghij", "test": "abcklm"}
    names = sorted(f"{split}/{film}/{n}.png" for split in films for film in films[split] for n in "123")
    folder = pictures(tmp_path / "two", names)
    (doubt,) = [each for each in load_data(folder, ReadOptions(group="folder")).spec.doubts if "groups" in each]
    assert doubt.startswith("3 groups by folder are in more than one split, because DATA brings its own test examples")
    assert "train/a/1.png and test/a/1.png" in doubt
    apart = pictures(tmp_path / "apart", [name for name in names if name.split("/")[1] not in "abc" or "train" in name])
    assert not [each for each in load_data(apart, ReadOptions(group="folder")).spec.doubts if "groups" in each]
    assert not [each for each in load_data(folder).spec.doubts if "groups by" in each]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"patient": PATIENT[:100]}, r"--group patient: has shape \(100,\); expected the group of each .*\(120,\)"),
        ({"patient": PATIENT.repeat(2).reshape(120, 2)}, r"--group patient: has shape \(120, 2\)"),
        ({"patient": PATIENT * 0}, "--group patient: all examples are in one group, '0'; leave it out"),
        ({"patient": PATIENT % 2}, "--group patient: 2 groups of training examples cannot be split into 3 parts"),
        ({}, "--group patient: these data have no groups of this name; leave it out"),
        ({"site": PATIENT}, "--group may be 'site'"),
    ],
)
def test_unusable_groups_are_refused(tmp_path, arrays, says):
    refused(saved(tmp_path / "x.npz", x=X, **arrays), says, group="patient")


def test_a_single_file_has_no_groups(tmp_path):
    refused(saved(tmp_path / "x.npy", x=X), "--group file: these data have no groups of this name", group="file")
    refused("digits", "--group folder: these data have no groups", group="folder")


def split_of_groups(sizes: list[int], seed: int, **options: float) -> dict[str, np.ndarray]:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    values = np.zeros((len(groups), 1), np.uint8)
    reading = Reading("array", "vector", values, survey(values), 256, keys={"g": lambda: groups})
    rows = split_rows(reading, ReadOptions(group="g", split_seed=seed, **options))
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(len(groups)))
    return {name: np.unique(groups[found]) for name, found in rows.items()}


def test_every_group_is_as_likely_in_the_test_split():
    """Counts over 400 seeds, 20 equal groups, 5 in each test: chi-square, 19 degrees of freedom; false alarm 1e-6."""
    counts = np.zeros(20)
    for seed in range(400):
        counts[split_of_groups([3] * 20, seed, test_fraction=0.25, validation_fraction=0.25)["test"]] += 1
    statistic = ((counts - 100) ** 2 / (100 * 0.75)).sum() * 19 / 20  # the counts' sum is fixed
    assert stats.chi2(19).sf(statistic) > 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_a_group_too_large_for_a_held_out_split_is_for_training(seed):
    found = split_of_groups([100, 4, 4, 4, 4, 4], seed)
    assert 0 in found["train"]
    large = split_of_groups([50, 49, 51], seed)  # every group is too large: the smallest are held out
    assert {name: groups.tolist() for name, groups in large.items()} == {"train": [2], "validation": [1], "test": [0]}


def test_a_check_shows_the_groups(tmp_path):
    report = check({"x": X, "patient": PATIENT}, ReadOptions(group="patient"))
    assert report.good
    assert "groups by patient are drawn whole" in report.facts["splits"]
