"""Near duplicates across splits: copies, neighbours in the source and overlapping windows, seen; others, not."""

import re

import numpy as np
import pytest

from jensen.data.check import check
from jensen.data.near import near_duplicates
from jensen.data.options import ReadOptions
from jensen.data.readers.read import read
from jensen.data.readers.reading import Layout, Reading, refuse_at_once
from jensen.data.splits import split_rows
from jensen.data.survey import survey


def doubts(values: np.ndarray, layout: Layout = "image", options: ReadOptions | None = None, **about) -> list[str]:
    """The doubts about values (N, *shape)."""
    options = options or ReadOptions()
    reading = Reading("array", layout, values, survey(values), None, **about)
    return list(near_duplicates(reading, split_rows(reading, options), options))


def clips(count: int, length: int, seed: int = 0) -> np.ndarray:
    """Frames of films: a smooth picture that drifts, with noise of 5 %."""
    source = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        coarse = source.normal(size=(6, 8))
        picture = coarse.repeat(4, 0).repeat(4, 1)
        for step in range(length):
            frames.append(picture[:, step % 8 : step % 8 + 24] + 0.05 * source.normal(size=(24, 24)))
    return np.array(frames, np.float32)[:, None]


def windows(length: int, hop: int) -> np.ndarray:
    """Windows of one recording: smooth noise, 15,000 numbers."""
    noise = np.random.default_rng(1).normal(size=15_000)
    recording = np.convolve(noise, np.hanning(9), "same").astype(np.float32)
    return np.stack([recording[start : start + length] for start in range(0, 15_000 - length, hop)])[:, None]


@pytest.mark.parametrize("dimensions", [1, 2, 3, 8, 64])
def test_independent_uniform_examples_are_no_copies(dimensions):
    """100 held-out examples, each doubted with probability 1e-4 by the law of d1 / d10: false alarm 1 % a case."""
    values = np.random.default_rng(dimensions).uniform(size=(500, 1, 1, dimensions)).astype(np.float32)
    assert doubts(values) == []


def test_smooth_families_are_no_copies():
    """Sines of two parameters: each has close neighbours, but none far closer than the next ones."""
    source = np.random.default_rng(0)
    frequency, phase = source.uniform(2, 10, (1000, 1)), source.uniform(0, 2 * np.pi, (1000, 1))
    sines = np.sin(frequency * np.linspace(0, 2 * np.pi, 128) + phase).astype(np.float32)[:, None]
    assert doubts(sines, "signal") == []


@pytest.mark.parametrize("supplied", [None, np.repeat(np.array([0, 2], np.int8), [480, 120])])
def test_near_copies_are_counted(supplied):
    """The last 60 of 600 are the first 60 with noise of 5 %; the pairs that the split separates are noted."""
    source = np.random.default_rng(0)
    values = source.normal(size=(600, 1, 12, 12))
    values[540:] = values[:60] + 0.05 * source.normal(size=(60, 1, 12, 12))
    values = values.astype(np.float32)
    reading = Reading("array", "image", values, survey(values), None, supplied=supplied)
    rows = split_rows(reading, ReadOptions())
    split = np.zeros(600, bool)
    split[rows["train"]] = True
    apart = int((split[:60] != split[540:]).sum())
    (line,) = near_duplicates(reading, rows, ReadOptions())
    assert apart > 5
    assert line.startswith(f"{apart} of {600 - len(rows['train'])} validation and test examples almost equal a ")
    pair = [int(number) for number in re.findall(r"row (\d+)", line)]
    assert abs(pair[1] - pair[0]) == 540


@pytest.mark.filterwarnings("error")
def test_equal_examples_are_no_near_duplicates():
    assert doubts(np.zeros((200, 1, 6, 6), np.uint8)) == []


def test_exact_copies_are_left_to_their_own_note():
    values = np.random.default_rng(0).normal(size=(600, 1, 12, 12)).astype(np.float32)
    values[540:] = values[:60]
    assert doubts(values) == []
    assert any("are also training examples" in note for note in check(values).notes)


@pytest.mark.parametrize("layout", ["image", "vector"])
def test_neighbouring_frames_are_noted_unless_their_film_is_a_group(layout):
    frames = clips(40, 15)
    values = frames if layout == "image" else frames.reshape(600, -1)
    film = np.arange(600) // 15
    (line,) = (line for line in doubts(values, layout) if "rows away" in line)
    assert "number the recordings in another array or column, and name it by --group" in line
    order = np.random.default_rng(0).permutation(600)
    assert not any("rows away" in line for line in doubts(values[order], layout))
    grouped = doubts(values, layout, ReadOptions(group="film"), keys={"film": lambda: film})
    assert grouped == []


def test_the_advice_is_the_group_that_the_pairs_share():
    values, number = clips(40, 15), np.arange(600)
    folders = doubts(values, file=lambda row: f"film{row // 15}/{row % 15}.png")
    assert "; give --group folder to keep each folder in one split" in folders[0]
    files = doubts(values, file=lambda row: f"films/{row // 15}.tiff")
    assert "; give --group file to keep each file in one split" in files[0]
    classes = doubts(values, file=lambda row: f"class{row // 300}/{row}.png", labels=number // 300)
    assert "--group folder" not in classes[0]
    keys = doubts(values, keys={"film": lambda: number // 15})
    assert "; give --group to keep groups in one split, by one of 'film'" in keys[0]


def test_rows_sorted_by_label_are_not_neighbours():
    """Clusters one after the other: the nearest example has the same label, but lies anywhere among them."""
    source = np.random.default_rng(0)
    centres = 4 * source.normal(size=(20, 1, 1, 8, 8))
    values = (centres + source.normal(size=(20, 30, 1, 8, 8))).reshape(600, 1, 8, 8).astype(np.float32)
    assert doubts(values) == []


@pytest.mark.parametrize("hop", [16, 60])
def test_overlapping_windows_are_noted(hop):
    lines = [line for line in doubts(windows(64, hop), "signal") if "share 16 consecutive numbers" in line]
    assert len(lines) == (hop < 48)


def test_windows_of_a_group_are_in_one_split():
    """Only the windows at the borders of the groups still overlap with windows of another split."""
    values = windows(64, 16)
    part = np.arange(len(values)) // 100
    found = doubts(values, "signal", ReadOptions(group="part"), keys={"part": lambda: part})
    border = [line for line in found if "share 16 consecutive numbers" in line]
    assert all(int(line.split()[0]) <= 12 and "although groups by part are drawn whole" in line for line in border)


def test_coarse_signals_are_not_overlapping():
    """Ramps of 8 bits share windows by chance."""
    starts = np.random.default_rng(0).integers(0, 250, (500, 1, 1))
    values = ((starts + np.arange(200)) % 250).astype(np.uint8)
    assert not any("consecutive numbers" in line for line in doubts(values, "signal"))


def test_no_false_alarm_on_digits_and_mnist(shared_data):
    mnist = shared_data / "mnist"
    for source in ["digits", *([mnist] if mnist.is_dir() else [])]:
        reading = read(source, ReadOptions(), refuse_at_once)
        assert near_duplicates(reading, split_rows(reading, ReadOptions()), ReadOptions()) == ()


def test_a_check_shows_near_duplicates_and_missing_values_do_not_hinder():
    values = clips(40, 15)[:, 0]
    values[::7, 3, 4] = np.nan
    report = check(values, ReadOptions(missing=True))
    assert report.good
    assert any("at most 2 rows away in the source" in note for note in report.notes)
    table = np.random.default_rng(0).normal(size=(300, 40))
    table[1:, 3] = np.nan
    assert check(table, ReadOptions(missing=True, split_seed=2)).good
