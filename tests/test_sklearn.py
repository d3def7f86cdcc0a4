"""`jensen.sklearn`: what scikit-learn expects of an estimator, and what jensen adds to it."""

import os
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import pandas
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

import jensen
from jensen.data.table.column import LeftOut, Table
from jensen.errors import InputError
from jensen.inference.imputation import impute
from jensen.inference.rows import seen_rows
from jensen.randomness import content_numbers
from jensen.sklearn import JensenClassifier, JensenDensity, JensenDetector, JensenImputer, JensenRegressor
from jensen.sklearn.columns import field_of
from jensen.vae.missing import hidden

SMALL = {"hidden": [16], "learning_rate": 1e-2}
SMALL_IMPUTER = {**SMALL, "fit_steps": 10}
FEW_DRAWS = {"method": "importance", "samples": 20}
ESTIMATORS = {
    "density": JensenDensity(steps=10, settings=SMALL, random_state=0),
    "detector": JensenDetector(steps=10, settings=SMALL, random_state=0),
    "imputer": JensenImputer(steps=10, settings=SMALL_IMPUTER, draws=2, imputation=FEW_DRAWS, random_state=0),
    "classifier": JensenClassifier(steps=200, settings=SMALL | {"latent_dims": 2}, draws=50, random_state=0),
    "regressor": JensenRegressor(steps=150, settings=SMALL, draws=50, random_state=0),
}
X, Y = load_wine(return_X_y=True)
METHODS = {
    "density": "score_samples",
    "detector": "decision_function",
    "imputer": "transform",
    "classifier": "predict_proba",
    "regressor": "predict",
}


def short(name, **parameters):
    """An estimator with the least training that a test of its interface needs."""
    return clone(ESTIMATORS[name]).set_params(steps=4, **parameters)


def fitted(name, **parameters):
    return short(name, **parameters).fit(X, Y)


def holes(rows=None):
    """The first rows of the data with a tenth of the cells missing."""
    return np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)[:rows]


# ---------------------------------------------------------------------------------------------- scikit-learn's checks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learns_checks_pass(name):
    estimator_checks.check_estimator(ESTIMATORS[name], on_skip=None)


QUICK = (
    "check_estimator_cloneable",
    "check_no_attributes_set_in_init",
    "check_dont_overwrite_parameters",
    "check_dict_unchanged",
    "check_estimators_unfitted",
    "check_n_features_in_after_fitting",
    "check_fit2d_1sample",
    "check_estimators_empty_data_messages",
    "check_complex_data",
    "check_estimator_sparse_array",
    "check_estimators_pickle",
    "check_mixin_order",
    "check_methods_sample_order_invariance",
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_quick_ones_of_scikit_learns_checks_pass(name):
    for check in QUICK:
        getattr(estimator_checks, check)(type(ESTIMATORS[name]).__name__, short(name))


# ---------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("name", METHODS)
def test_the_results_of_a_row_do_not_depend_on_the_other_rows(name):
    """Up to the rounding of float32, which depends on the size of a batch."""
    estimator, rows = fitted(name), holes(8) if name == "imputer" else X[:8]
    ask = getattr(estimator, METHODS[name])
    whole = ask(rows)
    assert np.ptp(whole[:, 2] if whole.ndim > 1 else whole) > 1e-3
    np.testing.assert_allclose(ask(rows[5:6]), whole[5:6], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ask(rows[::-1])[::-1], whole, rtol=1e-4, atol=1e-5)


def test_numbers_of_rows_depend_on_their_values_alone():
    rows = torch.from_numpy(holes())
    numbers = content_numbers(rows)
    assert len(set(numbers.tolist())) == len(rows)  # a collision of 178 numbers below 2**32 has probability 4e-6
    assert numbers.min() >= 0
    assert numbers.max() < 2**32
    assert torch.equal(content_numbers(rows[50:60]), numbers[50:60])
    other_nan = torch.from_numpy(np.frombuffer(np.array([-1]).tobytes()).copy())
    assert other_nan.isnan().all()
    same = content_numbers(
        torch.stack([torch.cat([other_nan, -torch.zeros(1)]), torch.tensor([torch.nan, 0.0]).double()])
    )
    assert same[0] == same[1]


def test_a_density_is_that_of_jensens_own_verbs_and_in_the_units_of_the_data():
    """A density of 10 X + 3 is lower by D log 10; the bounds differ by the draws, whose standard error is known."""
    density = fitted("density")
    found, error = density.score_samples(X, return_std=True)
    own = jensen.score(density.run_, X)
    scale = np.hypot(error, own.standard_error.numpy())
    assert (np.abs(found - own.bound.numpy()) < 6 * scale).mean() > 0.95  # heavy tails, so not all
    scaled = fitted("density").fit(10 * X + 3)
    np.testing.assert_allclose(scaled.score(10 * X + 3), density.score(X) - X.shape[1] * np.log(10), atol=0.2)


def test_samples_come_from_the_model_and_repeat_with_a_seed():
    density = JensenDensity(steps=100, settings=SMALL, random_state=0).fit(X)
    drawn = density.sample(1000, random_state=0)
    np.testing.assert_array_equal(drawn, density.sample(1000, random_state=0))
    assert not np.array_equal(density.sample(5), density.sample(5))
    off = (np.median(drawn, 0) - np.median(X, 0)) / X.std(0)
    assert np.abs(off).max() < 0.5


# ---------------------------------------------------------------------------------------------- what each one finds


def test_a_detector_marks_the_share_of_contamination_and_outliers_get_minus_one():
    detector = JensenDetector(contamination=0.05, steps=100, settings=SMALL, random_state=0).fit(X)
    inside = detector.predict(X)
    assert (inside == -1).sum() == round(0.05 * len(X))
    np.testing.assert_array_equal(inside == -1, detector.decision_function(X) < 0)
    far = X.mean(0) + 20 * X.std(0)
    assert detector.predict(far[None]).tolist() == [-1]
    assert detector.decision_function(far[None])[0] < detector.decision_function(X).min()


def test_an_imputer_keeps_what_is_observed_and_beats_the_mean():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 1))
    whole = z @ rng.normal(size=(1, 6)) + 0.2 * rng.normal(size=(300, 6))
    hidden = rng.random(whole.shape) < 0.1
    imputer = JensenImputer(
        steps=300, settings=SMALL | {"latent_dims": 1}, draws=10, imputation=FEW_DRAWS, random_state=0
    )
    filled = imputer.fit_transform(np.where(hidden, np.nan, whole))
    np.testing.assert_array_equal(filled[~hidden], whole[~hidden])
    errors = np.sqrt(np.square(filled - whole)[hidden].mean()), whole[hidden].std()
    assert errors[0] < 0.5 * errors[1]
    several = imputer.sample(np.where(hidden, np.nan, whole)[:5], 3)
    assert several.shape == (3, 5, 6)
    np.testing.assert_array_equal(imputer.transform(whole), whole)


def test_an_imputer_refuses_what_it_cannot_do_before_it_trains():
    with pytest.raises(InputError, match="a latent model cannot impute"):
        JensenImputer("latent").fit(X)
    with pytest.raises(InputError, match="imputation: 'samplse' is not an option; expected one of method, samples"):
        JensenImputer(imputation={"samplse": 3}).fit(X)


@pytest.mark.slow
def test_a_regressor_gives_the_quantiles_of_a_known_law():
    """y = x + N(0, 0.5²): the ends of the interval are those of a normal."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 1))
    y = x[:, 0] + 0.5 * rng.normal(size=2000)
    regressor = JensenRegressor(
        steps=500,
        settings={"objective": "importance-weighted", "learning_rate": 5e-3, "latent_dims": 2},
        random_state=0,
    ).fit(x, y)
    grid = np.array([[-1.0], [0.0], [1.0]])
    mean, deviation = regressor.predict(grid, return_std=True)
    np.testing.assert_allclose(mean, grid[:, 0], atol=0.15)
    np.testing.assert_allclose(deviation, 0.5, rtol=0.2)
    ends = regressor.predict_interval(grid, coverage=0.9)
    np.testing.assert_allclose(ends, mean[:, None] + 0.5 * 1.645 * np.array([-1, 1]), atol=0.25)
    np.testing.assert_allclose(regressor.predict_quantiles(grid, [0.05, 0.95]), ends)
    several = JensenRegressor(steps=4, draws=10).fit(x, np.stack([y, -y], 1))
    assert several.predict(grid).shape == (3, 2)
    assert several.predict_interval(grid).shape == (3, 2, 2)


def test_a_classifier_keeps_the_names_of_its_classes():
    names = np.array(["barolo", "grignolino", "barbera"])[Y]
    classifier = JensenClassifier(steps=100, settings=SMALL, draws=50, random_state=0).fit(X, names)
    assert classifier.classes_.tolist() == sorted(set(names))
    assert classifier.score(X, names) > 0.9
    np.testing.assert_allclose(classifier.predict_proba(X[:9]).sum(1), 1)


@pytest.mark.parametrize("family", [pytest.param("latent", marks=pytest.mark.slow), "diffusion"])
def test_the_other_families_do_what_they_can(family):
    density = JensenDensity(family, steps=4, draws=1, random_state=0).fit(X)
    assert np.isfinite(density.score(X[:5]))
    assert density.sample(2).shape == (2, X.shape[1])
    classifier = JensenClassifier(family, steps=4, draws=2, random_state=0).fit(X, Y)
    assert classifier.predict_proba(X[:2]).shape == (2, 3)
    with pytest.raises(InputError, match=f"family='{family}' learns no p\\(y|x\\) of a continuous y"):
        JensenRegressor(family).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="NaN"):
        JensenDensity(family).fit(holes())


def test_missing_cells_are_allowed_where_the_model_has_learned_from_some():
    assert np.isfinite(short("density").fit(holes()).score_samples(holes())).all()
    with pytest.raises(InputError, match="the rows given to fit had none"):
        fitted("density").score_samples(holes())


# ---------------------------------------------------------------------------------------------- in scikit-learn's tools


def test_estimators_work_in_a_pipeline_and_under_cross_validation():
    last = (StandardScaler(), LogisticRegression())
    scores = cross_val_score(make_pipeline(short("imputer"), *last), holes(), Y, cv=3)
    assert scores.mean() > 0.8
    assert cross_val_score(short("density"), X, cv=3).shape == (3,)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_grid_search_works_in_one_process_and_in_several(jobs):
    grid = {"settings": [{"latent_dims": 1}, {"latent_dims": 4}]}
    found = GridSearchCV(JensenDensity(steps=4, random_state=0), grid, cv=2, n_jobs=jobs).fit(X)
    assert found.best_params_["settings"] in grid["settings"]
    assert np.isfinite(found.score(X))
    again = cross_validate(short("classifier"), X, Y, cv=2, n_jobs=jobs, return_estimator=True)
    assert all(estimator.predict(X).shape == Y.shape for estimator in again["estimator"])


def test_frames_keep_their_names():
    frame = pandas.DataFrame(holes(), columns=[f"c{number}" for number in range(X.shape[1])])
    imputer = short("imputer").set_output(transform="pandas").fit(frame)
    assert imputer.feature_names_in_.tolist() == list(frame.columns)
    filled = imputer.transform(frame)
    assert list(filled.columns) == imputer.get_feature_names_out().tolist() == list(frame.columns)
    assert not filled.isna().any().any()
    with pytest.raises(ValueError, match="feature names should match"):
        imputer.transform(frame[frame.columns[::-1]])


# ---------------------------------------------------------------------------------------------- columns of types

TABLE = {"width": 16, "depth": 1, "learning_rate": 1e-2}
CHANCES = {"red": 0.9, "blue": 0.2}


def frame(rows=80):
    """Rows with a colour, on which the chance of "yes" depends, a whole number and a number."""
    rng = np.random.default_rng(0)
    colour = rng.choice(list(CHANCES), rows)
    columns = {"colour": colour, "count": rng.integers(0, 9, rows), "size": rng.normal(3, 2, rows)}
    said = np.where(rng.random(rows) < np.array([CHANCES[one] for one in colour]), "yes", "no")
    return pandas.DataFrame(columns), said


@pytest.mark.parametrize("library", ["pandas", pytest.param("polars", marks=pytest.mark.slow)])
def test_frames_with_columns_of_several_types_come_in_and_out(library):
    rows, said = frame()
    make = pandas.DataFrame if library == "pandas" else pytest.importorskip("polars").DataFrame
    whole, some = make(rows), {"steps": 4, "settings": TABLE, "random_state": 0}
    density = JensenDensity(**some).fit(whole)
    assert np.isfinite(density.score_samples(whole)).all()
    drawn = density.sample(3, random_state=0)
    assert type(drawn) is type(whole)
    assert list(drawn.columns) == list(whole.columns) == density.feature_names_in_.tolist()
    assert set(drawn["colour"]) <= set(CHANCES)
    assert (JensenDetector(**some).fit(whole).predict(whole) == -1).sum() == 8
    classifier = JensenClassifier(**some, draws=20).fit(whole, said)
    assert classifier.predict_proba(whole).shape == (80, 2)
    assert set(classifier.predict(whole)) <= {"yes", "no"}
    others = whole[["colour", "count"]]
    regressor = JensenRegressor(**some, draws=20).fit(others, rows["size"].to_numpy())
    mean, deviation = regressor.predict(others, return_std=True)
    assert np.abs(mean - 3).max() < 2
    assert (deviation > 0.5).all()


def test_a_frame_of_numbers_is_a_table_if_asked():
    rows = frame()[0][["count", "size"]]
    some = {"steps": 4, "random_state": 0}
    assert JensenDensity(**some).fit(rows).run_.spec.table is None
    density = JensenDensity(**some, settings=TABLE | {"layout": "table"}).fit(rows)
    assert [column.type for column in density.run_.spec.table.columns] == ["integer", "continuous"]
    assert np.isfinite(density.score(rows))
    assert density.sample(3)["count"].dtype == rows["count"].dtype


def test_the_empty_cells_of_a_frame_are_filled_and_no_others():
    rows, _ = frame()
    gaps = rows.copy()
    gaps.loc[::7, "colour"] = None
    gaps.loc[3::9, "size"] = np.nan
    imputer = JensenImputer(steps=4, settings=TABLE, draws=10, random_state=0).fit(gaps)
    filled = imputer.transform(gaps)
    assert not filled.isna().any().any()
    there = gaps.notna()
    pandas.testing.assert_frame_equal(filled.where(there), gaps)
    assert set(filled["colour"]) <= set(CHANCES)
    one = JensenImputer(steps=4, settings=TABLE, sample_posterior=True, random_state=0).fit(gaps).transform(gaps)
    assert not one.equals(filled)


def test_a_frame_without_gaps_teaches_an_imputer_as_one_of_jensens_own_runs():
    """An empty cell in a column without gaps is unknown to the model: its draws are those of `jensen.impute`."""
    rows, _ = frame()
    imputer = JensenImputer(steps=4, settings=TABLE, sample_posterior=True, imputation=FEW_DRAWS, random_state=0)
    imputer.fit(rows)
    gaps = rows[:6].astype({"count": float})
    gaps.loc[::2, "size"] = gaps.loc[1::2, "count"] = np.nan
    examples, numbers = imputer._examples(gaps, missing=True)
    seen = seen_rows(examples.x[:], imputer.run_.spec, numbers, 0)
    assert bool((seen.isinf() == examples.x[:].isnan()).all())
    method = imputer._method(imputer.run_.spec)
    drawn = impute(imputer.run_.model, seen, ~hidden(seen), method, draws=3, seed=0, index=numbers)
    expected = [imputer.run_.spec.preparation.to_raw(one.cpu()) for one in drawn.draws]
    np.testing.assert_array_equal(imputer._draws(examples.x[:], numbers, 3), expected)


@pytest.mark.parametrize(("wishes", "kind"), [('count = "integer"', "continuous"), ({"target": "integer"}, "integer")])
def test_a_regressor_of_a_frame_predicts_y_whatever_y_looks_like(wishes, kind):
    """y counts the rows, as a column of keys does; without its wish y would be left out of the table."""
    rows, _ = frame()
    y = 1000.0 + np.random.default_rng(0).permutation(len(rows))
    regressor = JensenRegressor(steps=4, settings=TABLE | {"columns": wishes}, draws=20, random_state=0).fit(rows, y)
    table = regressor.run_.spec.table
    assert (table.columns[-1].name, table.columns[-1].type) == ("target", kind)
    assert np.abs(regressor.predict(rows) - y.mean()).max() < 60


def test_a_column_of_y_that_was_left_out_is_never_another_column():
    table = Table(columns=(), fields=(), left_out=(LeftOut(name="target", why="constant: every cell is 1"),))
    with pytest.raises(InputError, match=r"y, the column 'target', was left out of the table \(constant"):
        field_of(table, "target")


def test_mistakes_in_a_frame_are_named_in_a_line():
    rows, said = frame()
    classifier = JensenClassifier(steps=4, settings=TABLE, draws=5).fit(rows, said)
    with pytest.raises(InputError, match="X is of type ndarray, but fit was given a DataFrame"):
        classifier.predict(rows.to_numpy())
    with pytest.raises(InputError, match="row 0, column 'colour': holds 'green', which no training row has"):
        classifier.predict(rows.assign(colour="green"))
    with pytest.raises(ValueError, match="yet now missing:\n- size"):
        classifier.predict(rows.drop(columns="size"))
    with pytest.raises(InputError, match="family='latent' predicts no column of a table"):
        JensenClassifier("latent").fit(rows, said)
    with pytest.raises(InputError, match="y is 2 in every row; expected at least 2 different values"):
        JensenRegressor().fit(rows, np.full(len(rows), 2.0))
    for estimator, types in ((JensenRegressor, "continuous or integer or count"), (JensenClassifier, "categorical")):
        with pytest.raises(InputError, match=f"columns has a wish about 'target', which is y; expected {types}$"):
            estimator(settings={"columns": {"target": "leave out"}}).fit(rows, rows["count"])
    with pytest.raises(InputError, match="X has 1 rows; expected at least 2"):
        JensenDensity().fit(rows[:1])


def test_an_estimator_of_a_frame_is_saved_and_pickled(tmp_path):
    rows, said = frame()
    classifier = JensenClassifier(steps=4, settings=TABLE, draws=5, random_state=0).fit(rows, said)
    classifier.save(tmp_path / "run")
    for again in (JensenClassifier.load(tmp_path / "run"), pickle.loads(pickle.dumps(classifier))):
        np.testing.assert_array_equal(again.predict_proba(rows), classifier.predict_proba(rows))


@pytest.mark.slow
def test_the_probabilities_of_a_frame_are_those_of_a_known_law():
    rows, said = frame(2000)
    classifier = JensenClassifier(steps=400, settings=TABLE, random_state=0).fit(rows, said)
    found = classifier.predict_proba(rows[:200])[:, classifier.classes_.tolist().index("yes")]
    off = np.abs(found - rows["colour"][:200].map(CHANCES).to_numpy())
    assert off.mean() < 0.12  # a constant prediction has 0.35
    assert off.max() < 0.3


# ---------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("name", METHODS)
def test_an_estimator_is_saved_and_loaded_as_a_run_folder(name, tmp_path):
    estimator = fitted(name)
    assert estimator.save(tmp_path / "run") == tmp_path / "run"
    assert not list((tmp_path / "run").rglob("*.pkl"))
    again = type(estimator).load(tmp_path / "run")
    rows = holes(5) if name == "imputer" else X[:5]
    np.testing.assert_array_equal(getattr(again, METHODS[name])(rows), getattr(estimator, METHODS[name])(rows))
    assert {**again.get_params(), "folder": None, "random_state": 0} == estimator.get_params()
    assert jensen.load(tmp_path / "run").step == estimator.run_.step
    with pytest.raises(InputError, match=r"exists and would be lost"):
        estimator.save(tmp_path / "run")
    other = JensenDetector if name == "density" else JensenDensity
    with pytest.raises(InputError, match=f"holds a {type(estimator).__name__}; load it by"):
        other.load(tmp_path / "run")


def test_fit_writes_into_the_given_folder_and_refuses_to_do_so_twice(tmp_path):
    density = fitted("density", folder=tmp_path / "run")
    assert density.run_.folder == tmp_path / "run"
    np.testing.assert_array_equal(JensenDensity.load(tmp_path / "run").score_samples(X), density.score_samples(X))
    with pytest.raises(InputError, match="exists and would be lost; each fit needs a new folder"):
        density.fit(X)
    with pytest.raises(InputError, match=r"has no estimator\.json; give a folder that JensenDensity\.save has written"):
        JensenDensity.load(tmp_path)
    (tmp_path / "run" / "estimator.json").write_text("{")
    with pytest.raises(InputError, match=r"estimator\.json is damaged"):
        JensenDensity.load(tmp_path / "run")


def test_a_pickle_holds_the_files_of_a_run_and_temporary_folders_go_away(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    density = fitted("density")
    content = pickle.dumps(density)
    endings = {name.rpartition(".")[2] for name in density.__getstate__()["files"]}
    assert endings == {"json", "safetensors"}
    assert not any("optimiser" in name for name in density.__getstate__()["files"])
    assert b"torch" not in content
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.score_samples(X), density.score_samples(X))
    assert len(list(tmp_path.glob("jensen-*"))) == 2
    del density, again
    assert not list(tmp_path.glob("jensen-*"))


@pytest.mark.slow
def test_the_end_of_a_program_removes_temporary_folders(tmp_path):
    program = (
        "from sklearn.datasets import load_wine; from jensen.sklearn import JensenDensity\n"
        "density = JensenDensity(steps=2).fit(load_wine().data); print(density.run_.folder)"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path))
    assert done.stderr == ""
    assert not list(tmp_path.glob("jensen-*"))


# ---------------------------------------------------------------------------------------------- settings, and mistakes


def test_settings_reach_the_recipe_and_seeds_decide_the_result():
    settings = {"latent_dims": 2, "batch_size": 16, "validation_fraction": 0.2}
    recipe = short("density", settings=settings).fit(X).run_.recipe
    assert (recipe.model.latent_dims, recipe.training.batch_size, recipe.read.validation_fraction) == (2, 16, 0.2)
    assert recipe.training.steps == 4
    latent = JensenDensity("latent", steps=4, settings={"vae.latent_dims": 3}).fit(X)
    assert latent.run_.recipe.model.vae.latent_dims == 3
    of_numpy = JensenDensity(steps=np.int64(3), settings={"latent_dims": np.int64(2)}).fit(X)
    assert of_numpy.run_.recipe.model.latent_dims == 2
    same, other = fitted("density"), fitted("density", random_state=1)
    assert same.score(X) == fitted("density").score(X) != other.score(X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"family": "gan"}, "family='gan': expected one of vae, diffusion, latent"),
        (
            {"settings": {"latentdims": 3}},
            "settings: 'latentdims' is not the name of a setting; do you mean latent_dims?",
        ),
        ({"settings": {"latent_dims": -3}}, "settings: vae.model.latent_dims = -3: Input should be greater than 0"),
        ({"steps": 3, "minutes": 1.0}, "settings: .*minutes 1 and steps 3: each sets the length; give one"),
        ({"settings": {"fixed_scale": 2.0}}, "fixed_scale 2.0: acts with variance fixed only; leave it out"),
    ],
)
def test_mistakes_are_named_in_a_line(parameters, message, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match=message.replace("?", r"\?")) as raised:
        JensenDensity(**parameters).fit(X)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_wrong_rows_and_classes_are_named_in_a_line():
    with pytest.raises(InputError, match="y has 1 class, 0; expected at least 2 classes"):
        JensenClassifier().fit(X, np.zeros(len(X), int))
    with pytest.raises(InputError, match=r"contamination=0\.7: expected a share above 0, at most 0.5"):
        JensenDetector(contamination=0.7).fit(X)
    with pytest.raises(InputError, match=r"quantiles=\[1.5\]: expected numbers between 0 and 1"):
        fitted("regressor").predict_quantiles(X, [1.5])


def test_nothing_is_printed_unless_asked(capsys, monkeypatch):
    monkeypatch.setattr("jensen.progress.QUIET_SECONDS", 0.0)
    fitted("density").score_samples(X)
    fitted("imputer").transform(holes(5))
    assert capsys.readouterr() == ("", "")
    fitted("density", verbose=True).score_samples(X)
    assert "scoring" in capsys.readouterr().err


def test_importing_jensen_imports_no_scikit_learn():
    program = "import jensen, sys; print('sklearn' in sys.modules, 'jensen.sklearn' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
