"""Tables as x: round trips, atoms, volumes, units, and columns of every awkward kind."""

import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from jensen.data.any_preparation import AnyPreparation
from jensen.data.atoms import find_atoms
from jensen.data.table.column import Field
from jensen.data.table_preparation import TablePreparation, fit_table_preparation

EPSILON = 2.0**-52
LARGEST = float(np.finfo(np.float64).max)


def fields(*laws):
    """Fields named a, b, c, ...: a pair of law and levels, or the law alone."""
    pairs = [law if isinstance(law, tuple) else (law, None) for law in laws]
    return [
        Field(name=chr(97 + column), column=column, law=law, levels=levels)
        for column, (law, levels) in enumerate(pairs)
    ]


def real(values):
    """A preparation of one real column, and its doubts."""
    return fit_table_preparation(np.asarray(values, np.float64)[:, None], fields("real"), EPSILON)


@pytest.fixture(scope="module")
def mixed():
    """A matrix with every law, missing cells and atoms, and its preparation."""
    random = np.random.default_rng(0)
    n = 2000
    zeros = np.where(random.random(n) < 0.4, 0.0, np.exp(2 * random.normal(size=n))).clip(0, 10)
    columns = [random.integers(0, 5, n), random.poisson(9, n).clip(0, 20), random.poisson(900, n), zeros]
    matrix = np.stack([*columns, random.standard_cauchy(n)], 1).astype(np.float64)
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    of = fields(("codes", 5), ("whole", 21), "count", "real", "real")
    return matrix, *fit_table_preparation(matrix, of, EPSILON)


def test_a_table_becomes_x_and_itself_again(mixed):
    matrix, preparation, _ = mixed
    x = preparation(torch.from_numpy(matrix))
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(x[:, :3].numpy(), matrix[:, :3].astype(np.float32))
    raw = preparation.to_raw(x)
    np.testing.assert_array_equal(raw[:, :3], matrix[:, :3])
    np.testing.assert_allclose(raw[:, 3:], matrix[:, 3:], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(raw[:, 3] == 0, matrix[:, 3] == 0)


def test_the_raw_numbers_stay_as_they_are():
    preparation, _ = real(np.random.default_rng(0).standard_cauchy(50))
    raw = torch.linspace(-3, 3, 7)[:, None]  # float32, as x is
    preparation(raw)
    assert (raw == torch.linspace(-3, 3, 7)[:, None]).all()


def test_x_outside_a_law_becomes_the_nearest_value_of_the_law(mixed):
    _, preparation, _ = mixed
    x = torch.tensor([[7.0, -3.0, -1.0, 0.0, 0.0], [1.4, 20.6, 1.6, 0.0, math.nan]])
    raw = preparation.to_raw(x)
    np.testing.assert_array_equal(raw[:, :3], [[4, 0, 0], [1, 20, 2]])
    assert np.isnan(raw[1, 4])


def test_one_field_becomes_raw_as_in_whole_rows(mixed):
    matrix, preparation, _ = mixed
    outside = 30 * torch.randn(500, 5, generator=torch.Generator().manual_seed(0))  # of every law
    x = torch.cat([preparation(torch.from_numpy(matrix)), outside])
    for field in range(5):
        one = preparation.field_to_raw(x[:, field].reshape(50, 2, -1), field)
        np.testing.assert_array_equal(one.reshape(-1), preparation.to_raw(x)[:, field])


def test_it_is_json_and_a_member_of_any_preparation(mixed):
    _, preparation, _ = mixed
    adapter = TypeAdapter(AnyPreparation)
    assert adapter.validate_json(adapter.dump_json(preparation)) == preparation
    assert preparation.resolution > 0


def test_a_thousand_columns_have_a_description_of_about_a_megabyte():
    one, _ = real(np.random.default_rng(0).standard_t(3, 20_000))
    many = TablePreparation(dtype="float64", dimensions=1000, resolution=1, fields=one.fields * 1000)
    assert len(many.model_dump_json()) < 1_200_000


def test_the_volume_is_of_observed_dense_cells_only(mixed):
    matrix, preparation, _ = mixed
    raw = torch.from_numpy(matrix)
    by_field = preparation.log_volume_by_field(raw)
    torch.testing.assert_close(by_field.sum(1), preparation.log_volume_of(raw))
    assert (by_field[:, :3] == 0).all()
    zero = by_field[:, 3:] == 0
    atom = torch.isin(raw[:, 3:], torch.tensor([0.0, 10.0], dtype=torch.float64))
    atom[:, 1] = False
    assert (zero == (raw[:, 3:].isnan() | atom)).all()
    assert math.isnan(preparation.log_volume)
    # The slope of x, by differences of raw numbers
    v, step = torch.tensor([[0.0, 0, 0, 1.234, -3.21]], dtype=torch.float64), 1e-3
    x = (preparation(v + step) - preparation(v - step)).double()
    torch.testing.assert_close(x[:, 3:], 2 * step * preparation.log_volume_by_field(v)[:, 3:].exp(), rtol=3e-3, atol=0)


@pytest.mark.parametrize(("a", "b"), [(0.001, 0.0), (-2.54, 0.0), (1.8, 32.0)])
def test_a_unit_moves_nats_by_log_a_and_nothing_else(mixed, a, b):
    matrix, preparation, doubts = mixed
    other = matrix.copy()
    other[:, 3:] = a * other[:, 3:] + b
    laws = fields(("codes", 5), ("whole", 21), "count", "real", "real")
    changed, again = fit_table_preparation(other, laws, EPSILON)
    assert len(again) == len(doubts)
    x, y = preparation(torch.from_numpy(matrix)), changed(torch.from_numpy(other))
    sign = torch.tensor([1, 1, 1, math.copysign(1, a), math.copysign(1, a)])
    torch.testing.assert_close(y, sign * x, rtol=2e-7, atol=1e-7, equal_nan=True)  # a rounding of float32
    one, two = (p.log_volume_by_field(torch.from_numpy(m)) for p, m in ((preparation, matrix), (changed, other)))
    torch.testing.assert_close(two, torch.where(one == 0, 0, one - math.log(abs(a))), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------- atoms


def test_no_other_value_gets_the_x_of_an_atom():
    random = np.random.default_rng(0)
    preparation, _ = real(np.where(random.random(1000) < 0.3, 1.0, random.normal(size=1000)))
    near = 1 + np.concatenate([[0.0], 1e-12 * random.normal(size=100), [1e-16 + 2.0**-52]])
    x = preparation(torch.from_numpy(near)[:, None])[:, 0].numpy()
    (image,) = preparation.fields[0].images
    np.testing.assert_array_equal(x == np.float32(image), near == 1)
    assert (x[near > 1] > image).all()
    assert (x[near < 1] < image).all()
    assert preparation.to_raw(torch.tensor([[image]])) == 1


def test_atoms_that_are_neighbours_in_float32_keep_different_x():
    random = np.random.default_rng(0)
    close = 1 + 1e-10 * random.integers(0, 3, 600)
    preparation, _ = real(np.concatenate([close, 1000 * random.normal(size=400)]))
    assert len(preparation.fields[0].atoms) == 3
    x = preparation(torch.from_numpy(np.unique(close))[:, None])
    np.testing.assert_array_equal(preparation.to_raw(x)[:, 0], np.unique(close))


DENSITIES = {
    "normal": lambda random, n: random.normal(size=n),
    "six decimals": lambda random, n: random.normal(size=n).round(6),
    "two decimals": lambda random, n: random.normal(size=n).round(2),
    "one decimal": lambda random, n: random.normal(size=n).round(1),
    "four digits": lambda random, n: np.array([float(f"{v:.4g}") for v in np.exp(2 * random.normal(size=n))]),
    "Cauchy, one decimal": lambda random, n: random.standard_cauchy(n).round(1),
    "float32": lambda random, n: random.uniform(size=n).astype(np.float32).astype(np.float64),
    "exponential, three decimals": lambda random, n: random.exponential(size=n).round(3),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_has_no_atoms_however_it_is_rounded(name):
    # 125 columns of 1,000 rows of each kind, 1,000 in all, at 1e-6 each: a false alarm has probability 1e-3.
    random = np.random.default_rng(len(name))
    for _ in range(125):
        atoms, _ = find_atoms(DENSITIES[name](random, 1000))
        assert len(atoms) == 0, (name, atoms)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda v, random: np.where(random.random(len(v)) < 0.03, 0.0, v), [0.0]),
        (lambda v, random: v.clip(-1, 1.5), [-1.0, 1.5]),
        (lambda v, random: np.where(random.random(len(v)) < 0.5, v.round(), v), [-2.0, -1.0, 0.0, 1.0, 2.0]),
        (lambda v, random: np.where(random.random(len(v)) < 0.05, 3.0, v.round(2)), [3.0]),
    ],
    ids=["zeros", "clipped ends", "half rounded", "a mode on a grid"],
)
def test_atoms_are_found(change, expected):
    random = np.random.default_rng(3)
    values = change(random.normal(size=1000), random)
    atoms, shares = find_atoms(values)
    assert set(expected) <= set(atoms.tolist())
    assert len(atoms) <= len(expected) + 2  # of half rounded numbers also -3 and 3
    np.testing.assert_allclose(shares, [(values == atom).mean() for atom in atoms])


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("marks", [[-LARGEST], [LARGEST], [-LARGEST, LARGEST]])
def test_the_largest_numbers_of_float64_are_atoms_like_others(marks):
    # -1.797e308 is the missing value of SPSS.
    values = 0.1 * np.random.default_rng(0).normal(size=1000)
    for start, mark in enumerate(marks):
        values[start::20] = mark
    preparation, _ = real(values)
    assert preparation.fields[0].atoms == tuple(marks)
    assert np.isfinite(preparation.fields[0].images).all()
    raw = torch.from_numpy(values)[:, None]
    np.testing.assert_allclose(preparation.to_raw(preparation(raw)), raw, rtol=1e-5, atol=1e-6)


def test_atoms_are_reported(mixed):
    _, _, doubts = mixed
    assert len(doubts) == 1
    assert doubts[0].startswith("column d: 2 values repeat more often than a density allows, 0 (4")


# ---------------------------------------------------------------------------------------------- awkward columns


@pytest.mark.parametrize(
    "values",
    [
        [1.5],
        [1.5, 1.5],
        [math.nan, math.nan],
        [1.0, 2.0, 4.0, math.nan, 8.0],
        [0.5] * 999 + [7.25],
        [0.1, 5e9] * 50,
        [0.1] * 50,
        [1e-300, 1e300, 0.0, -1e300, 5.0],
        list(1e9 + np.random.default_rng(0).normal(size=50)),
    ],
    ids=["one row", "constant", "all missing", "five", "one other", "two values", "repeated", "extreme", "far"],
)
def test_an_awkward_column_breaks_nothing(values):
    preparation, _ = real(values)
    raw = torch.tensor(values, dtype=torch.float64)[:, None]
    x = preparation(raw)
    assert (x.isfinite() | raw.isnan()).all()
    assert x.nan_to_num().abs().max() < 50
    back = preparation.to_raw(x)[:, 0]
    np.testing.assert_allclose(back, values, rtol=1e-5, atol=1e-5 * np.nanmax([1, *np.abs(values)]))
    assert preparation.log_volume_of(raw).isfinite().all()
    assert np.isfinite(preparation.to_raw(torch.tensor([[-1e30], [1e30], [0.0]]))).all()


def test_two_distinct_values_are_atoms():
    preparation, doubts = real([0.1, 5e9] * 50)
    assert preparation.fields[0].atoms == (0.1, 5e9)
    assert len(doubts) == 1
