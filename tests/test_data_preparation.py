"""Preparations: exact round trips, exact bits per dimension, the binary data sets that their names promise."""

import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy import stats

from jensen.data.any_preparation import AnyPreparation
from jensen.data.choose import choose_preparation, standardise
from jensen.data.moments import columns, smallest_gap
from jensen.data.preparation import (
    Dequantise,
    DynamicBinarisation,
    Levels,
    Preparation,
    Standardise,
    StaticBinarisation,
    Threshold,
)
from jensen.data.readers.reading import Reading
from jensen.data.survey import survey
from jensen.errors import InputError
from jensen.randomness import Noise, content_uniforms, generator

FLOAT32 = float(np.finfo(np.float32).eps)
LEVELS = [2, 17, 256, 1000, 65536]
BINARISATIONS = [Threshold, StaticBinarisation, DynamicBinarisation]


def standardised(raw: np.ndarray) -> Standardise:
    return standardise(columns(raw), raw.dtype.name, math.prod(raw.shape[1:]), float(np.finfo(raw.dtype).eps))


def dtype_of(levels: int) -> str:
    return "uint8" if levels <= 256 else "uint16"


def integers(levels: int, rows: int = 64, columns: int = 512) -> torch.Tensor:
    """Every level if it fits, the highest always."""
    values = np.arange(rows * columns) % levels
    values[-1] = levels - 1
    return torch.from_numpy(values.astype(dtype_of(levels)).reshape(rows, columns))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("kind", [Dequantise, Levels])
def test_every_level_comes_back_and_x_stays_in_its_interval(kind, levels):
    raw = integers(levels, rows=256)
    preparation = kind(dtype=dtype_of(levels), levels=levels, dimensions=512)
    for seed in range(5):
        x = preparation(raw, Noise(generator(seed)))
        assert x.dtype == torch.float32
        assert x.min() >= -1
        assert (x.max() < 1) if kind is Dequantise else (x.max() == 1)
        back = preparation.to_raw(x)
        assert back.dtype == raw.numpy().dtype
        np.testing.assert_array_equal(back, raw.numpy())


def test_to_raw_clamps_what_a_model_overshoots():
    x = torch.tensor([[-7.0, 7.0]])
    for kind in (Dequantise, Levels):
        np.testing.assert_array_equal(kind(dtype="uint8", levels=17, dimensions=2).to_raw(x), [[0, 16]])


def test_lower_precision_and_gradients_are_accepted_on_the_way_back():
    x = torch.tensor([[-1.0, 0.25]], dtype=torch.bfloat16, requires_grad=True)
    assert Levels(dtype="uint8", levels=256, dimensions=2).to_picture(x).tolist() == [[0, 159]]


@pytest.mark.parametrize("levels", LEVELS)
def test_the_grid_of_levels_has_its_resolution(levels):
    preparation = Levels(dtype=dtype_of(levels), levels=levels, dimensions=1)
    grid = preparation(torch.arange(levels)[:, None].to(getattr(torch, dtype_of(levels))))[:, 0].double()
    assert grid[0] == -1
    assert grid[-1] == 1
    torch.testing.assert_close(
        grid.diff(), torch.full((levels - 1,), preparation.resolution).double(), rtol=0, atol=1e-7
    )


def test_dequantisation_noise_is_uniform_within_its_bin():
    """Chi-square over 64 equal cells of u, 131,072 draws; false alarm 1e-6."""
    levels = 256
    preparation = Dequantise(dtype="uint8", levels=levels, dimensions=512)
    raw = integers(levels, rows=256)
    x = preparation(raw, Noise(generator(3))).double()
    u = (x + 1) * levels / 2 - raw
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, bins=64, min=0, max=1).numpy()
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("levels", LEVELS)
def test_a_uniform_density_costs_exactly_log2_of_the_levels(levels):
    """log p(x) = -D ln 2 on [-1, 1)^D is the uniform mass on the levels: log2 L bits per dimension."""
    dimensions = 784
    preparation = Dequantise(dtype=dtype_of(levels), levels=levels, dimensions=dimensions)
    nats = torch.full((3,), -dimensions * math.log(2), dtype=torch.float64)
    expected = torch.full((3,), math.log2(levels), dtype=torch.float64)
    torch.testing.assert_close(preparation.bits_per_dimension(nats), expected, rtol=1e-14, atol=0)


def test_dequantised_bits_bound_the_bits_of_the_mass_they_imply():
    """A density on one dimension, its bins integrated: E_u bits >= bits of the mass (3.1), equal for a step."""
    levels, law = 16, torch.distributions.Normal(0.1, 0.05)
    preparation = Dequantise(dtype="uint8", levels=levels, dimensions=1)
    edges = torch.linspace(-1, 1, levels + 1, dtype=torch.float64)
    mass = law.cdf(edges[1:].float()).double() - law.cdf(edges[:-1].float()).double()
    raw = torch.full((20000, 1), 9, dtype=torch.uint8)
    bits = preparation.bits_per_dimension(law.log_prob(preparation(raw, Noise(generator(0)))).sum(1)).mean()
    assert bits > -torch.log2(mass[9])
    step = (mass[9] / (2 / levels)).log().expand(20000)
    torch.testing.assert_close(preparation.bits_per_dimension(step).mean(), -torch.log2(mass[9]))


@pytest.mark.parametrize("kind", [Levels, *BINARISATIONS])
def test_a_log_mass_is_only_divided(kind):
    preparation = kind(dtype="uint8", levels=256, dimensions=10)
    assert preparation.bits_per_dimension(torch.tensor([-10 * math.log(2)])).item() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(4000, 7), (500, 1, 5, 6)])
def test_standardised_bits_are_those_of_the_density_in_raw_units(shape):
    """x standard normal means raw normal with these moments, whose log-density scipy knows."""
    raw = np.random.default_rng(0).normal(3.0, 5.0, shape).astype(np.float32)
    preparation = standardised(raw)
    assert len(preparation.scale) == (7 if len(shape) == 2 else 1)
    x = preparation(torch.from_numpy(raw)).double().flatten(1)
    nats = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    expected = -stats.norm(preparation.shift, preparation.scale).logpdf(raw.reshape(len(raw), -1)).mean(1) / math.log(2)
    np.testing.assert_allclose(preparation.bits_per_dimension(nats).numpy(), expected, rtol=1e-4)


def test_standardised_training_data_have_moments_zero_and_one_and_come_back():
    raw = np.random.default_rng(1).normal([1e4, 0, -3], [1, 1e-3, 40], (5000, 3)).astype(np.float32)
    preparation = standardised(raw)
    x = preparation(torch.from_numpy(raw)).double()
    torch.testing.assert_close(x.mean(0), torch.zeros(3).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(3).double(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(preparation.to_raw(x), raw, rtol=1e-6, atol=1e-4)
    picture = preparation.to_picture(x)
    assert (picture.min(), picture.max()) == (0, 255)


def test_constant_features_are_named_and_not_scaled():
    raw = np.random.default_rng(2).normal(size=(100, 3)).astype(np.float32)
    raw[:, 1] = 0.1
    preparation = standardised(raw)
    assert preparation.constant == (1,)
    assert preparation.scale[1] == 1
    assert preparation(torch.from_numpy(raw))[:, 1].abs().max() < 1e-6
    assert standardised(np.full((9, 2), 4.0, np.float32)).resolution == 1


def test_the_resolution_of_floats_is_their_smallest_gap():
    generator_ = np.random.default_rng(3)
    grid = generator_.integers(0, 256, (300, 1, 8, 8)).astype(np.float32) / 255
    assert standardised(grid).resolution * standardised(grid).scale[0] == pytest.approx(1 / 255, rel=1e-4)
    noisy = np.array([[0.1], [np.float32(0.1) + np.float32(8e-9)], [0.6], [0.85]], np.float32)
    assert len(np.unique(noisy)) == 4
    assert smallest_gap(columns(noisy), FLOAT32) * noisy.std() == pytest.approx(0.25, rel=1e-5)
    many = generator_.integers(0, 5, (300_000, 20)).astype(np.float32)  # more than are looked at
    assert smallest_gap(columns(many), FLOAT32) == pytest.approx(1 / many.astype(float).std(0).max(), rel=1e-6)


def test_the_threshold_is_half_of_the_range():
    raw = torch.tensor([[0, 127, 128, 255]], dtype=torch.uint8)
    assert Threshold(dtype="uint8", levels=256, dimensions=4)(raw).tolist() == [[0, 0, 1, 1]]
    raw = torch.tensor([[0, 8, 9, 16]], dtype=torch.uint8)
    assert Threshold(dtype="uint8", levels=17, dimensions=4)(raw).tolist() == [[0, 0, 1, 1]]
    raw = torch.tensor([[0.0, 0.5, 0.51, 1.0]])
    assert Threshold(dtype="float32", levels=None, dimensions=4)(raw).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("kind", BINARISATIONS)
@pytest.mark.parametrize(("dtype", "levels"), [("uint8", 256), ("uint8", 17), ("uint16", 65536), ("float32", None)])
def test_binary_samples_written_as_raw_are_read_as_the_same_binary(kind, dtype, levels):
    preparation = kind(dtype=dtype, levels=levels, dimensions=6)
    x = torch.tensor([[0.0, 1, 1, 0, 1, 0]])
    raw = preparation.to_raw(x)
    assert raw.dtype == dtype
    assert raw.max() == (1 if levels is None else levels - 1)
    assert torch.equal(preparation(torch.from_numpy(raw), Noise(generator(5))), x)
    assert preparation.to_picture(torch.tensor([[0.0, 0.2, 1.0]])).tolist() == [[0, 51, 255]]


@pytest.mark.parametrize("kind", BINARISATIONS)
def test_a_binarisation_leaves_raw_floats_alone(kind):
    raw = torch.tensor([[0.2, 0.5, 0.7]])
    kind(dtype="float32", levels=None, dimensions=3)(raw, Noise(generator(0)))
    assert torch.equal(raw, torch.tensor([[0.2, 0.5, 0.7]]))


@pytest.mark.parametrize("kind", [StaticBinarisation, DynamicBinarisation])
def test_bernoulli_draws_have_the_brightness_as_probability(kind):
    """Counts of ones per level, 17 levels, 4,000 pixels each; chi-square, 15 degrees of freedom, false alarm 1e-6."""
    raw = torch.from_numpy(np.random.default_rng(0).permuted(np.tile(np.arange(17, dtype=np.uint8), (2000, 2)), axis=1))
    x = kind(dtype="uint8", levels=17, dimensions=34)(raw, Noise(generator(0)))
    ones = np.array([x[raw == level].sum().item() for level in range(17)])
    assert ones[0] == 0
    assert ones[16] == 4000
    p = np.arange(1, 16) / 16
    statistic = ((ones[1:16] - 4000 * p) ** 2 / (4000 * p * (1 - p))).sum()
    assert stats.chi2(15).sf(statistic) > 1e-6


def test_dynamic_draws_differ_between_calls_and_follow_their_noise():
    raw = integers(256)
    preparation = DynamicBinarisation(dtype="uint8", levels=256, dimensions=512)
    source = Noise(generator(0))
    first, second = preparation(raw, source), preparation(raw, source)
    assert not torch.equal(first, second)
    assert torch.equal(first, preparation(raw, Noise(generator(0))))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_static_draws_depend_on_the_example_alone(dtype):
    raw = torch.rand(40, 3, 5, generator=generator(1))
    raw = raw if dtype == torch.float32 else (raw * 255).to(dtype)
    levels = {torch.uint8: 256, torch.uint16: 65536, torch.float32: None}[dtype]
    preparation = StaticBinarisation(dtype=str(dtype)[6:], levels=levels, dimensions=15)
    together = preparation(raw)
    alone = torch.cat([preparation(raw[row : row + 1]) for row in range(40)])
    assert torch.equal(together, alone)
    order = torch.randperm(40, generator=generator(2))
    assert torch.equal(preparation(raw[order]), together[order])
    other = preparation.model_copy(update={"seed": 1})
    assert dtype == torch.uint16 or not torch.equal(other(raw), together)


def test_content_uniforms_are_uniform_and_uncorrelated():
    """Chi-square over 128 cells, and the correlation of neighbours, of 60,000 numbers; false alarm 1e-6 each.

    The contents differ by a single pixel, so a weak digest would show.
    """
    raw = torch.zeros(1000, 60, dtype=torch.uint8)
    raw[torch.arange(1000), torch.arange(1000) % 60] = (torch.arange(1000) // 60 + 1).to(torch.uint8)
    u = content_uniforms(raw, seed=0).double()
    assert stats.chisquare(torch.histc(u, 128, 0, 1).numpy()).pvalue > 1e-6
    for one, other in ((u[:-1], u[1:]), (u[:, :-1], u[:, 1:])):
        assert stats.pearsonr(one.flatten(), other.flatten()).pvalue > 1e-6


@pytest.mark.parametrize("kind", [Dequantise, DynamicBinarisation])
def test_a_random_preparation_asks_for_its_noise(kind):
    assert not kind.deterministic
    with pytest.raises(ValueError, match="noise"):
        kind(dtype="uint8", levels=256, dimensions=1)(torch.zeros(1, 1, dtype=torch.uint8))


@pytest.mark.parametrize("name", ["dequantise", "levels", "threshold", "static", "dynamic", "standardise"])
def test_a_preparation_survives_json(name):
    values = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    if name != "standardise":
        values = (values * 255).astype(np.uint8)
    reading = Reading("array", "vector", values, survey(values), None if name == "standardise" else 256)
    preparation, _ = choose_preparation(name, reading, np.arange(20))
    assert isinstance(preparation, Preparation)
    assert preparation.kind == name
    preparation(torch.from_numpy(values), Noise(generator(0)))  # whatever it keeps must not show
    adapter = TypeAdapter(AnyPreparation)
    assert adapter.validate_json(adapter.dump_json(preparation)) == preparation


def reading_of(values: np.ndarray, levels: int | None) -> Reading:
    return Reading("array", "vector", values, survey(values), levels)


def test_the_default_goes_by_dtype():
    rows = np.arange(4)
    assert choose_preparation(None, reading_of(np.zeros((4, 2), np.uint8), 256), rows)[0].kind == "dequantise"
    assert choose_preparation(None, reading_of(np.zeros((4, 2), np.uint16), 65536), rows)[0].kind == "dequantise"
    assert choose_preparation(None, reading_of(np.zeros((4, 2), np.float32), None), rows)[0].kind == "standardise"
    wish, _ = choose_preparation(
        lambda levels: "levels" if levels else "standardise", reading_of(np.zeros((4, 2), np.uint8), 9), rows
    )
    assert (wish.kind, wish.levels) == ("levels", 9)


@pytest.mark.parametrize(
    ("name", "values", "levels", "says"),
    [
        ("levels", np.zeros((4, 2), np.float32), None, "needs integers"),
        ("dequantise", np.zeros((4, 2), np.float32), None, "needs integers"),
        ("threshold", np.full((4, 2), -0.1, np.float32), None, r"within \[0, 1\]"),
        ("static", np.full((4, 2), 1.5, np.float32), None, r"within \[0, 1\]"),
        ("dynamic", np.full((4, 2), 2, np.float32), None, r"within \[0, 1\]"),
        ("standardise", np.zeros((4, 2), np.uint8), 256, "needs floats"),
        ("whiten", np.zeros((4, 2), np.uint8), 256, "expected one of"),
    ],
)
def test_an_impossible_preparation_is_refused(name, values, levels, says):
    with pytest.raises(InputError, match=says):
        choose_preparation(name, reading_of(values, levels), np.arange(4))


def test_statistics_come_from_the_training_rows_alone():
    values = np.array([[0.0], [2.0], [1e6]], np.float32)
    preparation, _ = choose_preparation(None, reading_of(values, None), np.array([0, 1]))
    assert preparation.shift == (1.0,)
    assert preparation.scale == (1.0,)
    assert preparation.maximum == 2


@pytest.mark.parametrize("shape", [(1000, 3), (300, 2, 5, 2)])
def test_moments_of_many_blocks_are_those_of_the_whole(shape, monkeypatch):
    values = np.random.default_rng(0).normal(5, 3, shape).astype(np.float32)
    values[values > 9] = np.nan
    table = (values if values.ndim == 2 else values.reshape(-1, 1)).astype(np.float64)
    monkeypatch.setattr("jensen.data.stored.NUMBERS_AT_ONCE", 77)
    monkeypatch.setattr("jensen.data.moments.SAMPLE", 500)
    found = columns(values)
    np.testing.assert_array_equal(found.count, np.isfinite(table).sum(0))
    np.testing.assert_allclose(found.mean, np.nanmean(table, 0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, np.nanstd(table, 0), rtol=1e-12)
    np.testing.assert_array_equal([found.low, found.high], [np.nanmin(table, 0), np.nanmax(table, 0)])
    np.testing.assert_array_equal(found.sample, table[:: values.size // 500])
