"""What the tests of the data chapter share: arrays and tables on disk, reading them, and how they are refused."""

import csv
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from jensen.data.check import check
from jensen.data.load import load_data
from jensen.data.options import ReadOptions
from jensen.data.readers.read import read
from jensen.data.readers.reading import Reading, refuse_at_once
from jensen.errors import InputError


def saved(path: Path, **arrays: np.ndarray) -> Path:
    """A .npz of the arrays, or a .npy of the one named x."""
    np.savez(path, **arrays) if path.suffix == ".npz" else np.save(path, arrays["x"])
    return path


def read_all(source: str | Path, **options) -> Reading:
    """All examples of a source, before any split."""
    return read(str(source), ReadOptions(**options), refuse_at_once)


def refused(source: str | Path, says: str, **options) -> str:
    """The one line that both loading and checking refuse `source` with."""
    with pytest.raises(InputError, match=says) as caught:
        load_data(str(source), ReadOptions(**options))
    line = str(caught.value)
    assert "\n" not in line
    assert line in check(str(source), ReadOptions(**options)).problems
    return line


def byte_images(count: int = 30, seed: int = 0, shape: tuple[int, ...] = (5, 4)) -> np.ndarray:
    """Random bytes (count, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def assert_read_or_refused(source: Path, **options) -> None:
    """No exception but an InputError of one line."""
    lines = []
    try:
        read_all(source, **options)
    except InputError as error:
        lines = str(error).splitlines()
    assert len(lines) < 2


# ---------------------------------------------------------------------------------------------- tables


def text(values: Iterable[object]) -> list[str]:
    """The values as cells of a text file."""
    return [str(value) for value in values]


def written(path: Path, **columns: list[str]) -> Path:
    """A CSV file of columns of cells."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def days(count: int, form: str) -> list[str]:
    """Consecutive days from 4 March 2019, as cells."""
    return [(date(2019, 3, 4) + timedelta(days=day)).strftime(form) for day in range(count)]
