"""Results in ArviZ: the same numbers under its names, and its own functions on them."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray

import jensen
from jensen.recipe.vae.settings import VAESettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.x announces 1.x
    import arviz as az

BRIEF = {"steps": 20, "batch_size": 32, "validate_every": 20}


def group(result: object, name: str) -> xarray.Dataset:
    """A group of ArviZ 0.x or 1.x as a dataset."""
    found = result[name]
    return found.to_dataset() if isinstance(found, xarray.DataTree) else found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> jensen.Run:
    x = np.random.default_rng(0).integers(0, 16, (60, 4, 4), dtype=np.uint8)
    data, model = {"x": x, "y": np.arange(60) % 3}, VAESettings(latent_dims=2, hidden=(16,))
    recipe = jensen.VAERecipe(data=data, model=model, read={"levels": 16}, training=BRIEF)
    return jensen.train(recipe, tmp_path_factory.mktemp("arviz") / "images")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> jensen.Run:
    source = np.random.default_rng(0)
    pay = np.where(source.random(120) < 0.2, np.nan, source.normal(900, 200, 120).round(2))
    when = pd.Timestamp("2020-01-01") + pd.to_timedelta(source.integers(0, 900, 120), "D")
    frame = pd.DataFrame({"pay": pay, "sex": source.choice(["F", "M"], 120), "since": when})
    model = VAESettings.model_validate({"width": 16, "depth": 1, "latent_dims": 2, "fit_steps": 2})
    recipe = jensen.VAERecipe(data=frame, model=model, training={**BRIEF, "steps": 15})
    return jensen.train(recipe, tmp_path_factory.mktemp("arviz") / "table")


def test_imputations_and_their_truth(images: jensen.Run) -> None:
    found = jensen.impute(images, mask="random:0.5", examples=3, draws=20, wish=jensen.ImputationWish("importance"))
    tree = jensen.to_arviz(found, chains=4)
    draws, truth, seen = (
        group(tree, name)[variable]
        for name, variable in (
            ("posterior_predictive", "x"),
            ("observed_data", "x"),
            ("constant_data", "x_observed"),
        )
    )
    assert draws.dims == ("chain", "draw", "example", "channel", "row", "column")
    assert np.array_equal(draws.values.reshape(20, 3, 1, 4, 4), found.draws)
    assert draws.example.values.tolist() == list(found.names)
    assert np.array_equal(truth.values, found.truth)
    assert (draws == truth).where(seen, True).all()
    summary = az.summary(draws.astype(float).to_dataset(), kind="stats", round_to="none")
    np.testing.assert_allclose(summary["mean"], found.draws.mean(0).ravel())


def test_a_calibration(images: jensen.Run) -> None:
    found = jensen.impute(images, mask="random:0.5", examples=6, draws=9, wish=jensen.ImputationWish("importance"))
    record = found.calibration()
    data = group(jensen.to_arviz(record), "calibration")
    assert data.coverage.sel(level=0.8) == record.coverage[1].share.mean
    assert data.coverage_standard_error.sel(level=0.8) == record.coverage[1].share.standard_error
    assert data.ranks.sum() == pytest.approx(1)


def test_scores(images: jensen.Run) -> None:
    found = jensen.score(images)
    data = group(jensen.to_arviz(found), "scores")
    np.testing.assert_allclose(data.bound, found.bound)
    np.testing.assert_allclose(data.reconstruction + data.rate, data.bound, rtol=1e-5)
    assert data.example.values.tolist() == list(found.names)
    assert set(data.label.values) <= {"0", "1", "2"}
    assert data.bound.attrs["units"] == "nats"


def test_samples_of_a_table_by_column(table: jensen.Run) -> None:
    found = jensen.sample(table, 40)
    data = group(jensen.to_arviz(found, chains=2), "prior_predictive")
    frame = found.frame(pd.DataFrame())
    np.testing.assert_array_equal(data.pay.values.ravel(), frame.pay.to_numpy())
    assert np.array(data.sex.attrs["categories"])[data.sex.values.ravel().astype(int)].tolist() == frame.sex.tolist()
    assert np.array_equal(data.since.values.ravel(), frame.since.to_numpy().astype("datetime64[us]"))
    assert data.pay.dims == ("chain", "draw")
    hdi = az.hdi(data[["sex"]], hdi_prob=0.9)
    assert hdi.sex.shape == (2,)


def test_imputed_cells_of_a_table(table: jensen.Run) -> None:
    found = jensen.impute(table, draws=10)
    tree = jensen.to_arviz(found)
    observed, draws = group(tree, "observed_data"), group(tree, "posterior_predictive")
    seen = group(tree, "constant_data").pay_observed
    assert np.array_equal(observed.pay.isnull(), ~seen)
    assert draws.pay.notnull().all()
    assert (draws.pay == observed.pay).where(seen, True).all()


def test_several_results_are_one_file(images: jensen.Run, tmp_path: Path) -> None:
    tree = jensen.to_arviz(jensen.sample(images, 6), jensen.score(images))
    tree.to_netcdf(str(tmp_path / "both.nc"))
    again = az.from_netcdf(str(tmp_path / "both.nc"))
    for name in ("prior_predictive", "scores"):
        assert group(again, name).load().equals(group(tree, name))
    again.close()


def test_what_arviz_cannot_get(images: jensen.Run) -> None:
    with pytest.raises(jensen.InputError, match="two results make the group prior_predictive"):
        jensen.to_arviz(jensen.sample(images, 6), jensen.sample(images, 6))
    with pytest.raises(jensen.InputError, match="chains 4: 6 draws cannot be divided"):
        jensen.to_arviz(jensen.sample(images, 6), chains=4)
    with pytest.raises(jensen.InputError, match="got ndarray, expected a result of"):
        jensen.to_arviz(np.zeros(3))


def test_a_newer_arviz_gets_a_tree(images: jensen.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """ArviZ 1.x has no InferenceData: its functions take trees of xarray."""
    monkeypatch.delattr(az, "InferenceData")
    tree = jensen.to_arviz(jensen.sample(images, 6), jensen.score(images))
    assert isinstance(tree, xarray.DataTree)
    assert set(tree.children) == {"prior_predictive", "scores"}
