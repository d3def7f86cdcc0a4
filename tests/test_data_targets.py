"""Continuous targets in data files: read, split, scaled, recorded, and refused where they do not fit."""

import numpy as np
import pytest
import torch
from data_files import byte_images, refused, saved

from jensen.data.check import check
from jensen.data.load import load_again, load_data, read_examples
from jensen.data.options import ReadOptions
from jensen.data.spec import DataSpec
from jensen.errors import InputError

X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.random.default_rng(1).normal([5.0, -1e6], [2.0, 1e3], (40, 2))
SPLITS = {"x_train": X, "x_test": X[:7], "y_train": Y, "y_test": Y[:7] + 1}


@pytest.mark.parametrize("y", [Y[:, 0], Y[:, :1], Y, Y.astype(np.float32), Y.astype(">f8")])
def test_a_float_y_is_a_target_and_keeps_its_rows(tmp_path, y):
    data = load_data(saved(tmp_path / "d.npz", x=X, y=y))
    table = y.reshape(40, -1).astype(np.float64)
    assert data.train.labels is data.spec.classes is data.spec.label_names is None
    for part in (data.train, data.validation, data.test):
        for x, found in zip(part.x.numpy(), data.spec.targets.to_raw(part.targets).numpy(), strict=True):
            row = int(np.abs(X.astype(np.float32) - x).sum(1).argmin())
            np.testing.assert_allclose(found, table[row], rtol=0, atol=1e-5 * table.std(0).max())


def test_targets_are_scaled_by_training_moments_in_float64(tmp_path):
    """A mean of 1e9 with a spread of 1: float32 would keep nothing of it."""
    far = np.column_stack([1e9 + Y[:, 0], Y[:, 1]])
    data = load_data(saved(tmp_path / "d.npz", x_train=X, y_train=far, x_test=X, y_test=far), ReadOptions())
    scaling, train = data.spec.targets, data.train.targets.double()
    torch.testing.assert_close(train.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(2).double(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(scaling.to_raw(data.test.targets).numpy(), far, rtol=0, atol=1e-3)
    assert scaling.log_volume == pytest.approx(-np.log(scaling.scale).sum())
    assert scaling.resolution < 0.1  # of numbers about their mean, not of 1e9


def test_a_target_that_never_varies_is_not_scaled(tmp_path):
    data = load_data(saved(tmp_path / "d.npz", x=X, y=np.column_stack([Y[:, 0], np.full(40, 7.0)])))
    assert data.spec.targets.constant == (1,)
    assert data.spec.targets.scale[1] == 1
    assert (data.train.targets[:, 1] == 0).all()


def test_supplied_splits_and_the_specification_know_targets(tmp_path):
    path = saved(tmp_path / "d.npz", **SPLITS)
    data = load_data(path)
    assert DataSpec.model_validate_json(data.spec.model_dump_json()) == data.spec
    np.testing.assert_allclose(data.spec.targets.to_raw(data.test.targets).numpy(), SPLITS["y_test"], rtol=1e-4)
    again = load_again(data.spec)
    assert torch.equal(again.train.targets, data.train.targets)
    saved(path, **SPLITS | {"y_test": Y[:7] + 2})
    with pytest.raises(InputError, match="the data have changed"):
        load_again(data.spec)


def test_data_check_tells_of_targets(tmp_path):
    lines = check(saved(tmp_path / "d.npz", x=X, y=Y)).lines()
    assert any(line.startswith("targets      2 numbers, mean ± standard deviation") for line in lines)
    assert any("y are floats, read as continuous targets" in line for line in lines)


def test_targets_go_with_their_examples(tmp_path):
    data = load_data(saved(tmp_path / "d.npz", x=X, y=Y))
    rows = torch.tensor([3, 1])
    assert torch.equal(data.train[rows].targets, data.train.targets[rows])
    assert torch.equal(data.train.to(torch.device("cpu")).targets, data.train.targets)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X, "y": Y[1:]}, "holds 40 examples but 39 targets"),
        ({"x": X, "y": Y[:, :, None]}, r"have shape \(40, 2, 1\); expected numbers for each example"),
        (
            {"x": X, "y": np.where(Y > 5, np.nan, Y)},
            "targets are NaN, infinite or beyond float32, the first in example",
        ),
        ({"x": X, "y": np.full(40, np.inf)}, "40 of 40 targets are NaN, infinite"),
        ({"x": X, "y": np.full(40, 1e300)}, "beyond float32"),
        ({"x": X, "y": Y.astype(complex)}, "expected"),
        ({"x": X, "y": np.float64(3.0)}, "holds 40 examples but 1 targets"),
        ({name: SPLITS[name] for name in ("x_train", "x_test", "y_train")}, "has no targets but others beside it have"),
        (SPLITS | {"y_test": np.zeros(7, int)}, "of different kinds; they must agree"),
        (SPLITS | {"y_test": np.zeros((7, 3))}, "of different kinds; they must agree"),
    ],
)
def test_what_is_no_target_is_refused_in_one_line(tmp_path, arrays, says):
    refused(saved(tmp_path / "d.npz", **arrays), says)


def test_targets_of_other_data_are_in_the_units_of_the_run(tmp_path):
    spec = load_data(saved(tmp_path / "run.npz", x=X, y=Y)).spec
    some = read_examples(saved(tmp_path / "some.npz", x=X[:5], y=Y[:5]), spec, only_known_y=True)
    np.testing.assert_allclose(spec.targets.to_raw(some.targets).numpy(), Y[:5], rtol=1e-4)
    none = read_examples(saved(tmp_path / "none.npz", x=X[:5]), spec, only_known_y=True)
    assert none.targets is none.labels is None


@pytest.mark.parametrize(
    ("trained", "given", "says"),
    [
        (Y, Y[:5, :1], "has targets of 1 dimensions but the run was trained on targets of 2"),
        (Y, np.arange(5), "has labels but the run was trained on continuous targets; convert them to floats"),
        (np.arange(40) % 5, Y[:5], "has targets, which are floats, but the run was trained on labels"),
    ],
)
def test_another_y_than_the_runs_is_left_out_or_refused(tmp_path, trained, given, says):
    spec = load_data(saved(tmp_path / "run.npz", x=X, y=trained)).spec
    other = saved(tmp_path / "other.npz", x=X[:5], y=given)
    found = read_examples(other, spec)
    assert found.labels is found.targets is None
    with pytest.raises(InputError, match=says) as caught:
        read_examples(other, spec, only_known_y=True)
    assert "\n" not in str(caught.value)


def test_data_without_targets_keep_their_fingerprint(tmp_path):
    """As runs from before there were targets recorded it."""
    images = byte_images()
    first = load_data(saved(tmp_path / "a.npz", x=images)).spec
    assert load_data(saved(tmp_path / "b.npz", x=images, y=np.zeros(30))).spec.fingerprint != first.fingerprint
    assert DataSpec.model_validate(first.model_dump(exclude={"targets"})) == first


def test_a_constant_target_has_no_deviation(tmp_path):
    facts = check(saved(tmp_path / "d.npz", x=X, y=np.full(40, 2.5))).facts
    assert "2.5 ± 0" in facts["targets"]
