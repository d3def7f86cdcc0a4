"""Yardsticks for bits per dimension: against closed forms, real PNG files and the entropy of a normal distribution."""

import io
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.examples import Examples
from jensen.data.preparation import Dequantise, Levels, Preparation, Standardise, Threshold
from jensen.evaluation.scores import Scores
from jensen.evaluation.yardsticks import Yardsticks, histogram, independent_bits, yardsticks
from jensen.randomness import generator
from jensen.report.bound import yardstick_words


def scores_of(count: int) -> Scores:
    """Scores of the examples 0 to count - 1; a yardstick asks for their numbers alone."""
    nothing = {field.name: torch.zeros(count, dtype=torch.float64) for field in fields(Scores)}
    return Scores(**{**nothing, "index": torch.arange(count), "terms": {}, "profile": None})


def levels(size: int, shape: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, size, (count, *shape), generator=generator(seed), dtype=torch.uint8)


def test_smoothed_histograms_sum_to_one_and_no_level_is_impossible() -> None:
    histograms = histogram(levels(3, (4,), 7).long(), 5)  # levels 3 and 4 never occur
    assert histograms.sum(1).tolist() == [7] * 4
    every = torch.cartesian_prod(*[torch.arange(5)] * 4)
    mass = (-4 * independent_bits(every, histograms)).exp2()
    assert mass.sum().item() == pytest.approx(1)
    assert mass.min() > 0


@pytest.mark.parametrize("kind", [Levels, Dequantise])
def test_independent_dimensions_reach_the_entropy_of_independent_data(kind: type[Preparation]) -> None:
    """p(0) = 3/4, p(1) = 1/4 in even dimensions, always 2 in odd ones: 0.8113 bits every other dimension."""
    shape, prepared = (1, 4, 4), kind(dtype="uint8", dimensions=16, levels=17)
    even = torch.arange(16).view(shape) % 2 == 0

    def draw(count: int, seed: int) -> Examples:
        ones = torch.rand(count, *shape, generator=generator(seed)) < 0.25
        return Examples(torch.where(even, ones.byte(), torch.tensor(2, dtype=torch.uint8)))

    found = yardsticks(draw(8000, 1), draw(900, 2), prepared, scores_of(900), seed=0)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) / 2
    assert found.independent is not None
    assert abs(found.independent.mean - entropy) < 4 * found.independent.standard_error  # false alarm: 1 in 16,000
    assert found.uniform == math.log2(17)
    assert (found.examples, found.fitted) == (900, 8000)


def test_binarised_data_have_two_levels() -> None:
    prepared = Threshold(dtype="uint8", dimensions=6, levels=256)
    examples = Examples(levels(256, (6,), 500))
    found = yardsticks(examples, examples, prepared, scores_of(500), seed=0)
    assert found.uniform == 1
    assert found.independent is not None
    assert found.independent.mean == pytest.approx(1, abs=0.01)
    assert found.png is None  # no images


def test_independent_normals_cost_their_entropy_in_raw_units() -> None:
    deviations = torch.tensor([0.1, 1.0, 30.0])
    prepared = Standardise(
        dtype="float32", dimensions=3, resolution=1e-6, shift=(0.0, 0.0, 0.0), scale=(0.1, 1.0, 30.0),
        minimum=-100.0, maximum=100.0,
    )  # fmt: skip
    train, test = (Examples(torch.randn(5000, 3, generator=generator(seed)) * deviations) for seed in (1, 2))
    found = yardsticks(train, test, prepared, scores_of(1000), seed=0)
    entropy = (0.5 * math.log2(2 * math.pi * math.e) + deviations.double().log2()).mean().item()
    assert found.uniform is found.png is None
    assert found.independent is not None
    assert abs(found.independent.mean - entropy) < 4 * found.independent.standard_error  # false alarm: 1 in 16,000
    missing = Examples(torch.where(train.x < -1, math.nan, train.x))
    assert yardsticks(missing, test, prepared, scores_of(1000), seed=0).independent is None


def test_the_png_is_one_that_pillow_reads_back() -> None:
    images = levels(256, (1, 5, 6), 9)
    prepared = Levels(dtype="uint8", dimensions=30, levels=256)
    found = yardsticks(None, Examples(images), prepared, scores_of(9), seed=0)
    sheet = np.zeros((15, 18), np.uint8)  # 3 x 3 images of 5 x 6 pixels
    for number, image in enumerate(images[:, 0].numpy()):
        top, left = 5 * (number // 3), 6 * (number % 3)
        sheet[top : top + 5, left : left + 6] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG", optimize=True)
    assert found.png == pytest.approx(8 * buffer.tell() / images.numel())
    assert found.independent is None  # nothing to fit it on


def test_a_yardstick_that_one_example_carries_is_doubted() -> None:
    bits = torch.zeros(100, dtype=torch.float64)
    bits[7] = 50
    found = Yardsticks(uniform=None, independent=Estimate.of(bits), png=None, examples=100, fitted=9)
    (value,) = yardstick_words(found, 100).values()
    assert value == "0.50 ± 0.50 (1 of 100 values carries the spread: do not trust the error)"
