"""Tiles of large images: exact parts, named, in one split, on disk as in memory."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jensen.data.check import check
from jensen.data.load import load_data, read_examples
from jensen.data.options import ReadOptions
from jensen.errors import InputError


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with two classes of 10 photos of 37 x 50 pixels."""
    source, pixels = np.random.default_rng(0), {}
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(5):
            name = f"{label}/{number}.png"
            pixels[name] = source.integers(0, 256, (37, 50, 3)).astype(np.uint8)
            Image.fromarray(pixels[name]).save(tmp_path / name)
    return tmp_path, pixels


@pytest.mark.parametrize("stream", ["never", "always"])
def test_every_tile_is_the_part_that_its_name_says(photos: tuple[Path, dict[str, np.ndarray]], stream: str):
    folder, pixels = photos
    data = load_data(str(folder), ReadOptions(tile=16, stream=stream))
    assert data.spec.shape == (3, 16, 16)
    assert sum(data.spec.counts.values()) == 10 * 2 * 3
    for part in (data.train, data.validation, data.test):
        for row, name in enumerate(part.names):
            file, place = name.split(" ", 1)
            rows, columns = (slice(*map(int, axis.split(":"))) for axis in place.strip("[]").split(", "))
            tile = part.x[row : row + 1][0]
            assert np.array_equal(tile.numpy(), pixels[file][rows, columns].transpose(2, 0, 1))
            assert data.spec.label_names[part.labels[row]] == file.split("/")[0]


def test_all_tiles_of_an_image_are_in_one_split(photos: tuple[Path, dict[str, np.ndarray]]):
    data = load_data(str(photos[0]), ReadOptions(tile=16, validation_fraction=0.2, test_fraction=0.3))
    files = [{name.split(" ")[0] for name in part.names} for part in (data.train, data.validation, data.test)]
    assert [len(found) for found in files] == [5, 2, 3]
    assert len(set.union(*files)) == 10
    assert data.spec.counts == {"train": 30, "validation": 12, "test": 18}


def test_streaming_changes_no_number(photos: tuple[Path, dict[str, np.ndarray]]):
    memory, disk = (load_data(str(photos[0]), ReadOptions(tile=16, stream=s)) for s in ("never", "always"))
    assert memory.spec.fingerprint == disk.spec.fingerprint
    mixed = np.array([7, 0, 29, 7, 3])
    assert np.array_equal(memory.train.x[mixed].numpy(), disk.train.x.rows[mixed])


def test_arrays_are_cut_as_well_and_other_data_as_the_run_s():
    x = np.random.default_rng(0).integers(0, 256, (8, 20, 30)).astype(np.uint8)
    data = load_data(x, ReadOptions(tile=10))
    assert data.spec.shape == (1, 10, 10)
    other = read_examples(x[:2], data.spec)
    assert len(other) == 12
    assert np.array_equal(other.x[7, 0].numpy(), x[1, :10, 10:20])
    assert other.names[7] == "row 1 [0:10, 10:20]"
    assert any(
        note.startswith("each image is cut into 2 x 3 tiles of 10 pixels") for note in check(x, data.spec.options).notes
    )


@pytest.mark.parametrize(
    ("shape", "tile", "says"),
    [
        ((8, 20, 30), 21, r"--tile 21: the images are 20x30 \(height x width\); give a smaller side"),
        ((8, 20, 30), 0, r"--tile 0: the images are 20x30"),
        ((8, 20, 20), 20, r"--tile 20: the images are 20x20"),
        ((8, 20), 10, "--tile 10: is for images, but DATA is read as vector; leave it out"),
    ],
)
def test_tiles_that_cannot_be_cut_are_refused(shape: tuple[int, ...], tile: int, says: str):
    with pytest.raises(InputError, match=says):
        load_data(np.zeros(shape, np.uint8), ReadOptions(tile=tile))
    assert not check(np.zeros(shape, np.uint8), ReadOptions(tile=tile)).good


def test_digits_are_not_cut():
    with pytest.raises(InputError, match=r"--tile is for IDX, .* but DATA is digits; leave it out"):
        load_data("digits", ReadOptions(tile=4))


def test_too_few_images_for_a_split_are_refused_however_many_tiles_they_have():
    with pytest.raises(InputError, match="3 examples, too few for --validation-fraction"):
        load_data(np.zeros((3, 90, 90), np.uint8), ReadOptions(tile=10))
