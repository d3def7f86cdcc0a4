"""p(y|x) of continuous y through data files: against the exact predictive of a linear-Gaussian model, in raw units."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_vae import as_vae, random_ppca
from made import PROVENANCE
from scipy import stats
from test_prediction import joint_of_x_and_y, with_labels, with_target

import jensen
from jensen.cli import main
from jensen.data.examples import Examples
from jensen.data.preparation import Standardise
from jensen.data.target_scaling import TargetScaling
from jensen.inference.calibration import LEVELS
from jensen.inference.prediction import (
    Circumstances,
    PredictionRecord,
    assess,
    label_columns,
    predict_examples,
    save_record,
)
from jensen.inference.target_prediction import (
    ENDS,
    TargetCircumstances,
    TargetRecord,
    assess_constant,
    assess_linear,
    assess_normal,
    assess_targets,
    predict_target_examples,
    regression,
    root_mean_squared_error,
    save_targets,
    target_columns,
)
from jensen.records import read_record, write_columns
from jensen.report.pages import write_predictions
from jensen.report.predictions import remarks as label_remarks
from jensen.report.target_predictions import remarks

# ---------------------------------------------------------------------------------------------- a model that is exact

UNITS = TargetScaling(dimensions=1, shift=(1e6,), scale=(250.0,), resolution=1e-6)
AS_IT_IS = Standardise(dtype="float32", dimensions=5, resolution=1e-6, shift=(0.0,), scale=(1.0,), minimum=0, maximum=1)


def test_predictions_in_raw_units_are_the_exact_conditional() -> None:
    ppca = random_ppca()
    x = ppca.draw(60)
    vae = with_target(ppca)
    vae.posterior = as_vae(ppca).posterior  # the exact one
    law = joint_of_x_and_y(ppca).marginal().condition(range(5), x)
    mean, deviation = 1e6 + 250 * law.mean[:, 0], (250 * law.covariance.sqrt()).flatten().expand(60)
    t = law.mean + law.covariance.sqrt().flatten() * torch.linspace(-2, 2, 60).double().unsqueeze(1)
    found = predict_target_examples(vae.float(), Examples(x, None, t.float()), AS_IT_IS, UNITS, draws=4000)
    # 60 means within 5 of their own standard errors: false alarm 60 · 6e-7
    assert ((found.mean[:, 0] - mean).abs() < 5 * found.standard_error[:, 0]).all()
    assert (found.standard_error[:, 0] < 0.03 * deviation).all()
    exact = stats.norm(mean, deviation)
    # of 4,000 draws: a deviation to 5 %, a log-density at most two deviations out to 0.2, ends to 0.1 deviations
    np.testing.assert_allclose(found.deviation[:, 0], deviation, rtol=0.05)
    np.testing.assert_allclose(found.log_density, exact.logpdf(found.y[:, 0]), atol=0.2)
    np.testing.assert_allclose(found.rank[:, 0], exact.cdf(found.y[:, 0]), atol=0.03)
    for place, level in enumerate(ENDS):
        np.testing.assert_allclose(found.ends[:, 0, place], exact.ppf(level), atol=0.1 * deviation[0])


def test_measures_are_those_of_scipy_and_scikit_learn() -> None:
    from sklearn.linear_model import BayesianRidge

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    y = 1e6 + 250 * (x[:, :1] + 0.5 * rng.normal(size=(300, 1)))
    scaling = TargetScaling.of(y[:200])
    all_of_it = Examples(torch.from_numpy(x), None, torch.from_numpy(scaling(y)))
    found = assess_linear(all_of_it[:200], all_of_it[200:], torch.from_numpy(y[200:]), AS_IT_IS, scaling)
    mean, deviation = BayesianRidge().fit(x[:200].astype(float), scaling(y[:200])[:, 0]).predict(x[200:], True)
    law = stats.norm(mean * scaling.scale[0] + scaling.shift[0], deviation * scaling.scale[0])
    truth = y[200:, 0]
    assert found.log_density.mean == pytest.approx(law.logpdf(truth).mean(), rel=1e-4)
    assert found.errors[0].mean == pytest.approx(np.sqrt(np.square(truth - law.mean()).mean()), rel=1e-4)
    for one in found.coverage:
        inside = np.abs(2 * law.cdf(truth) - 1) <= one.nominal
        assert one.share.mean == pytest.approx(inside.mean())
    assert sum(share.mean for share in found.ranks) == pytest.approx(1)


def test_the_error_of_a_root_mean_square_is_its_spread() -> None:
    many = torch.randn(2000, 400, generator=torch.Generator().manual_seed(0)).double()
    found = [root_mean_squared_error(row) for row in many[:200]]
    spread = torch.tensor([root_mean_squared_error(row).mean for row in many]).double().std().item()
    # the spread of 2,000 has an error of 1.6 %, the mean of 200 stated ones less: five of them
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.08)


def test_several_numbers_of_one_example_are_not_independent() -> None:
    rank = torch.rand(50, 1, generator=torch.Generator().manual_seed(0)).double()
    one, copies = (regression(torch.zeros(50), torch.zeros_like(r), r) for r in (rank, rank.expand(50, 9).clone()))
    for single, nine in zip(one.coverage, copies.coverage, strict=True):
        assert (
            nine.share.standard_error > 0.7 * single.share.standard_error
        )  # all but one alike, to which a binomial adds one
        assert nine.share.count == 50
    law = assess_normal(rank, torch.zeros_like(rank), torch.ones_like(rank))
    assert law.log_density.mean == pytest.approx(stats.norm.logpdf(rank).mean())


# ---------------------------------------------------------------------------------------------- through files

RNG = np.random.default_rng(5)
WEIGHT, SLOPE = RNG.normal(size=(5, 2)), np.array([[12.0, -7.0]])


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a linear-Gaussian model; y has a mean of 1,000 and a standard deviation of about 14."""
    z = RNG.normal(size=(count, 2))
    x = z @ WEIGHT.T + 0.5 * RNG.normal(size=(count, 5))
    return x, 1000 + z @ SLOPE.T + 4 * RNG.normal(size=(count, 1))


def exact_predictive(x: np.ndarray) -> "stats.rv_continuous":
    """p(y|x) (1.2)."""
    gain = SLOPE @ WEIGHT.T @ np.linalg.inv(WEIGHT @ WEIGHT.T + 0.25 * np.eye(5))
    variance = SLOPE @ SLOPE.T + 16 - gain @ WEIGHT @ SLOPE.T
    return stats.norm(1000 + (x @ gain.T)[:, 0], np.sqrt(variance[0, 0]))


TEST_X, TEST_Y = drawn(1000)
LINEAR = ["--latent-dims", "2", "--hidden", "--predict-hidden", "--variance", "per-dimension", "--predict", "target"]
TIGHT = ["--objective", "importance-weighted", "--importance-samples", "50", "--learning-rate", "3e-2"]
TRAINING = ["--steps", "1000", "--validate-every", "1000", "--batch-size", "200", "--schedule", "cosine"]
BRIEF = ["--steps", "2", "--batch-size", "8", "--validate-every", "2", "--hidden", "4"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with d.npz, the run on it, and what it predicts for its test split."""
    root = tmp_path_factory.mktemp("targets")
    x, y = drawn(4000)
    np.savez(root / "d.npz", x_train=x, y_train=y[:, 0], x_test=TEST_X, y_test=TEST_Y[:, 0])
    words = ["--data", str(root / "d.npz"), "--out", str(root / "run")]
    assert main(["train", "vae", *LINEAR, *TIGHT, *TRAINING, *words]) == 0
    assert main(["predict", str(root / "run"), "--out", str(root / "p.csv"), "--draws", "400"]) == 0
    return root


def columns(path: Path) -> dict[str, np.ndarray]:
    rows = list(csv.DictReader(path.open()))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0] if name != "name"}


def test_a_trained_model_predicts_like_the_exact_conditional(place: Path) -> None:
    found, exact = columns(place / "p.csv"), exact_predictive(TEST_X)
    np.testing.assert_allclose(found["target"], TEST_Y[:, 0], rtol=1e-6)
    # what 4,000 examples and 1,000 steps leave: a tenth of a standard deviation in the mean, a tenth of the deviation
    off = (found["mean"] - exact.mean()) / exact.std()
    assert np.sqrt(np.square(off).mean()) < 0.15
    np.testing.assert_allclose(found["standard_deviation"].mean(), exact.std(), rtol=0.1)
    assert abs(found["log_density"].mean() - exact.logpdf(TEST_Y[:, 0]).mean()) < 0.03
    for level in LEVELS:
        low, high = found[f"low_{100 * level:g}"], found[f"high_{100 * level:g}"]
        covered = int(((low <= TEST_Y[:, 0]) & (TEST_Y[:, 0] <= high)).sum())
        # the binomial interval of probability 0.9999; the model's own error widens nothing
        assert stats.binom.ppf(5e-5, 1000, level) <= covered <= stats.binom.ppf(1 - 5e-5, 1000, level)


def test_the_record_is_the_csv_in_figures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, record = columns(place / "p.csv"), json.loads((place / "run/target-predictions.json").read_text())
    errors = found["target"] - found["mean"]
    assert record["model"]["errors"][0]["mean"] == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-4)
    assert record["model"]["log_density"]["mean"] == pytest.approx(found["log_density"].mean(), rel=1e-4)
    inside = (found["low_80"] <= found["target"]) & (found["target"] <= found["high_80"])
    assert record["model"]["coverage"][1]["share"]["mean"] == pytest.approx(inside.mean(), abs=2e-3)
    # the linear regression is the exact predictor of such data, up to 4,000 examples; p(y) knows nothing of x
    assert record["linear"]["log_density"]["mean"] == pytest.approx(record["model"]["log_density"]["mean"], abs=0.03)
    assert record["always"]["log_density"]["mean"] < record["model"]["log_density"]["mean"] - 0.5
    for page in (place / "run/predictions.html", place / "run/pictures/targets-calibration.png"):
        assert page.stat().st_size > 1000
    assert main(["evaluate", str(place / "run"), "--further-examples", "1", "--samples", "2", "--examples", "9"]) == 0
    assert "80 % intervals hold" in (place / "run/report.html").read_text()
    capsys.readouterr()
    assert main(["info", str(place / "run")]) == 0
    assert (
        "targets       1 number, mean ± standard deviation of the training examples 1000 ±" in capsys.readouterr().out
    )


@pytest.mark.parametrize("objective", ["elbo", "importance-weighted"])
def test_intervals_that_the_elbo_makes_too_wide_come_with_advice(
    place: Path, objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = place / "run"
    if objective == "elbo":
        run = tmp_path / "run"
        words = [*LINEAR, "--data", str(place / "d.npz"), "--out", str(run)]
        assert main(["train", "vae", *words, *TRAINING, "--learning-rate", "3e-2"]) == 0
    capsys.readouterr()
    assert main(["predict", str(run), "--draws", "100", "--out", str(tmp_path / "p.csv")]) == 0
    told = capsys.readouterr().out
    half = json.loads((run / "target-predictions.json").read_text())["model"]["coverage"][0]["share"]
    too_wide = half["mean"] > 0.5 + 3 * half["standard_error"]
    assert too_wide == (objective == "elbo")
    assert ("The 50 % intervals contain" in told) == too_wide
    assert ("Train with\n--objective importance-weighted --importance-samples 20\n" in told) == too_wide


def test_predictions_do_not_depend_on_the_batch(place: Path, tmp_path: Path) -> None:
    words = ["predict", str(place / "run"), "--out", str(tmp_path / "few.csv"), "--draws", "400", "--examples", "7"]
    assert main(words) == 0
    whole, few = columns(place / "p.csv"), columns(tmp_path / "few.csv")
    rows = few["example"].astype(int)
    assert len(set(rows // 50)) > 3
    for name, values in few.items():
        np.testing.assert_allclose(values, whole[name][rows], rtol=1e-5)


def test_other_data_need_no_targets_and_no_training_data(place: Path, tmp_path: Path, capsys) -> None:
    run, out = tmp_path / "moved", tmp_path / "p.csv"
    run.mkdir()
    for name in ("recipe.json", "data.json"):
        told = (place / "run" / name).read_text().replace(str(place / "d.npz"), str(tmp_path / "gone.npz"))
        (run / name).write_text(told)
    shutil.copytree(place / "run/checkpoints", run / "checkpoints")
    np.savez(tmp_path / "new.npz", x=TEST_X[:20])
    assert main(["predict", str(run), "--data", str(tmp_path / "new.npz"), "--out", str(out), "--draws", "9"]) == 0
    assert "targets are not known" in capsys.readouterr().out
    assert "target" not in columns(out)
    np.savez(tmp_path / "known.npz", x=TEST_X[:20], y=TEST_Y[:20])
    out.unlink()
    assert main(["predict", str(run), "--data", str(tmp_path / "known.npz"), "--out", str(out), "--draws", "9"]) == 0
    told = capsys.readouterr().out
    assert "could not be read again" in told
    report = tmp_path / "p-report"
    assert f"{report / 'target-predictions.json'} and {report / 'predictions.html'} written" in " ".join(told.split())
    assert (report / "pictures/targets-calibration.png").exists()
    assert not (run / "predictions.html").exists()
    np.testing.assert_allclose(columns(out)["target"], TEST_Y[:20, 0], rtol=1e-6)


def test_a_wrong_y_is_one_line_and_nothing_is_written(place: Path, tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "three.npz", x=TEST_X[:20], y=np.zeros((20, 3)))
    np.savez(tmp_path / "labels.npz", x=TEST_X[:20], y=np.arange(20) % 2)
    np.savez(tmp_path / "nan.npz", x=TEST_X[:20], y=np.full(20, np.nan))
    np.savez(tmp_path / "none.npz", x=TEST_X[:20])
    np.savez(tmp_path / "floats.npz", x=TEST_X[:20], y=TEST_Y[:20])
    out, run = tmp_path / "out", str(place / "run")
    train = ["train", "vae", *BRIEF, "--data"]
    for words, says in (
        (["predict", run, "--data", "three.npz"], "has targets of 3 dimensions but the run was trained on targets"),
        (["predict", run, "--data", "labels.npz"], "has labels but the run was trained on continuous targets"),
        (["predict", run, "--data", "nan.npz"], "20 of 20 targets are NaN"),
        ([*train, "nan.npz"], "20 of 20 targets are NaN"),
        ([*train, "floats.npz", "--predict", "label"], "has no labels, but targets, which are floats; predict target"),
        ([*train, "none.npz", "--predict", "label"], "has no labels; give labelled data, or predict none"),
        ([*train, "labels.npz", "--predict", "target"], "has no continuous targets, but labels; predict label"),
        ([*train, "none.npz", "--predict", "target"], "has no continuous targets; give a y of floats"),
        ([*train, "floats.npz", "--predict-hidden", "9"], "predict_hidden 9: acts with predict label or target only"),
    ):
        named = [str(tmp_path / word) if word.endswith(".npz") else word for word in words]
        target = out.with_suffix(".csv") if words[0] == "predict" else out
        assert main([*named, "--out", str(target)]) == 2
        line = capsys.readouterr().err
        assert says in line
        assert line.count("\n") == 1
        assert not target.exists()


@pytest.mark.filterwarnings("default")
def test_diffusion_says_that_it_learns_no_targets(tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "d.npz", x=TEST_X[:40], y=TEST_Y[:40])
    words = ["--steps", "2", "--width", "8", "--depth", "1", "--batch-size", "4", "--validation-examples", "2"]
    assert main(["train", "diffusion", "--data", str(tmp_path / "d.npz"), "--out", str(tmp_path / "run"), *words]) == 0
    assert "has continuous targets, which a diffusion model does not learn" in capsys.readouterr().err
    assert jensen.load(tmp_path / "run").model.classes is None  # and says no more of it


def test_a_run_with_targets_resumes_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    from jensen.recipe.vae.settings import VAERecipe, VAESettings

    np.savez(tmp_path / "d.npz", x=TEST_X[:60], y=TEST_Y[:60])
    model = VAESettings(latent_dims=2, hidden=(4,), predict="target")
    training = {"batch_size": 8, "validate_every": 3, "schedule": "constant"}
    whole, half = (
        VAERecipe(data=str(tmp_path / "d.npz"), model=model, training=training | {"steps": steps}) for steps in (6, 3)
    )
    jensen.train(whole, tmp_path / "whole")
    jensen.train(half, tmp_path / "half")
    resumed, first = jensen.resume(tmp_path / "half", steps=6), jensen.load(tmp_path / "whole")
    for (name, one), other in zip(first.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    moved = np.load(tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", x=moved["x"], y=moved["y"] + 1)
    with pytest.raises(jensen.errors.InputError, match="the data have changed"):
        jensen.resume(tmp_path / "half")


# ---------------------------------------------------------------------------------------------- a single draw


def test_one_draw_tells_of_no_error_and_that_is_said(tmp_path: Path) -> None:
    ppca = random_ppca()
    x, labels = ppca.draw(20), torch.arange(20) % 3
    found = predict_examples(with_labels(ppca).float(), Examples(x, labels), AS_IT_IS, draws=1)
    assert found.prediction.standard_error.isnan().all()
    assert found.prediction.probabilities.isfinite().all()
    told = Circumstances("made", PROVENANCE, 1, 0, ("a", "b", "c"), (10, 20, 30))
    path = save_record(tmp_path, assess(found, told))
    record = read_record(path, PredictionRecord, "")
    assert np.isnan(record.standard_error)
    assert any(line.endswith("unknown (a single draw).") for line in label_remarks(record))
    write_predictions(tmp_path, record, "joint")
    names = [f"row {i}" for i in range(20)]
    write_columns(tmp_path / "labels.csv", label_columns(found, told.class_names, names))
    assert {row["standard_error"] for row in csv.DictReader((tmp_path / "labels.csv").open())} == {"nan"}

    y = torch.linspace(-1, 1, 20).unsqueeze(1)
    continuous = predict_target_examples(with_target(ppca).float(), Examples(x, None, y), AS_IT_IS, UNITS, draws=1)
    assert continuous.standard_error.isnan().all()
    assert continuous.mean.isfinite().all()
    about = TargetCircumstances("made", PROVENANCE, 1, 0)
    path = save_targets(tmp_path, assess_targets(continuous, assess_constant(y.double(), UNITS), None, about))
    targets = read_record(path, TargetRecord, "")
    assert any(line.endswith("unknown (a single draw).") for line in remarks(targets))
    write_predictions(tmp_path, targets, "run")
    write_columns(tmp_path / "targets.csv", target_columns(continuous, names))
    assert np.isnan(columns(tmp_path / "targets.csv")["standard_error"]).all()
