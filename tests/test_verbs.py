"""Every verb from Python: a function of a run, on its own examples and on arrays, equal to the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import jensen
from jensen.cli import main
from jensen.data.examples import Examples
from jensen.recipe.diffusion.settings import DiffusionSettings
from jensen.recipe.vae.settings import VAESettings

BRIEF = {"steps": 30, "batch_size": 32, "validate_every": 30, "ema_decay": None}
TINY = DiffusionSettings(network="mlp", width=16, depth=1, noise_schedule="linear-beta", chain_steps=50, bound_terms=5)


def own_images() -> tuple[np.ndarray, np.ndarray]:
    """80 images of 6 x 6 pixels and 16 levels, bright in one of three rows, with that row's label."""
    source = np.random.default_rng(0)
    y = np.arange(80) % 3
    x = source.integers(0, 5, (80, 6, 6), dtype=np.uint8)
    x[np.arange(80), 2 * y] += 10
    return x, y


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, jensen.Run]:
    """A run of each family, trained on arrays in memory."""
    folder, (x, y) = tmp_path_factory.mktemp("runs"), own_images()
    data = {"x": x, "y": y}
    vae = VAESettings(latent_dims=2, hidden=(16,), predict="label", predict_hidden=())
    return {
        "vae": jensen.train(
            jensen.VAERecipe(data=data, model=vae, read={"levels": 16}, training=BRIEF), folder / "vae"
        ),
        "diffusion": jensen.train(
            jensen.DiffusionRecipe(data=data, model=TINY, read={"levels": 16}, training=BRIEF), folder / "diffusion"
        ),
    }


@pytest.fixture(params=["vae", "diffusion"])
def run(request: pytest.FixtureRequest, runs: dict[str, jensen.Run]) -> jensen.Run:
    return runs[request.param]


def raw(count: int = 8) -> np.ndarray:
    """Some of the images, as the run reads them."""
    return own_images()[0][:count]


def test_what_was_given_in_memory_is_recorded_by_its_fingerprint(runs: dict[str, jensen.Run]) -> None:
    spec = json.loads((runs["vae"].folder / "data.json").read_text())
    assert spec["source"] == "memory"
    assert spec["fingerprint"] == json.loads((runs["diffusion"].folder / "data.json").read_text())["fingerprint"]
    assert json.loads((runs["vae"].folder / "recipe.json").read_text())["data"] == "memory"


def test_sample(run: jensen.Run, tmp_path: Path) -> None:
    found = jensen.sample(run, 7, seed=3)
    assert found.x.shape == (7, 1, 6, 6)
    assert found.x.dtype == np.uint8
    assert np.array_equal(jensen.sample(run, 3, seed=3, first=4).x, found.x[4:])
    assert main(["sample", str(run.folder), "--n", "7", "--seed", "3", "--out", str(tmp_path / "s.npz")]) == 0
    written = np.load(tmp_path / "s.npz")
    assert np.array_equal(written["x"], found.x)
    assert ("mean" in written) == run.model.noisy_samples
    if run.model.classes is None:
        assert found.labels is None
    else:
        assert np.array_equal(found.labels, np.arange(7) % 3)
        assert np.array_equal(written["y"], found.labels)
        found.save(tmp_path / "folder")
        assert [path.name for path in sorted((tmp_path / "folder").iterdir())] == ["0", "1", "2"]


def test_labels_by_their_shares(runs: dict[str, jensen.Run]) -> None:
    wish = jensen.SamplingWish(sampler="ddim", steps=2)
    found = jensen.sample(runs["diffusion"], 600, labels="p(y)", wish=wish)
    counts = np.bincount(found.labels, minlength=3)
    shares = np.array(runs["diffusion"].spec.label_counts) / sum(runs["diffusion"].spec.label_counts)
    assert np.abs(counts - 600 * shares).max() < 4 * np.sqrt(600 / 4)  # false alarms: below 1 in 5,000
    part = jensen.sample(runs["diffusion"], 5, labels="p(y)", first=100, wish=wish)
    assert np.array_equal(part.labels, found.labels[100:105])
    with pytest.raises(jensen.InputError, match="expected 0 to 2"):
        jensen.sample(runs["diffusion"], 1, labels=np.array([3]))


def test_the_last_step_of_the_ancestral_sampler_is_a_mean_or_a_draw(runs: dict[str, jensen.Run]) -> None:
    mean, draw, usual = (
        jensen.sample(runs["diffusion"], 4, wish=jensen.SamplingWish("ancestral", 3, last_step=last)).prepared
        for last in ("mean", "draw", None)
    )
    assert (mean == usual).all()  # the default of a recipe
    assert (mean != draw).all()
    with pytest.raises(jensen.InputError, match="--last-step draw is for --sampler ancestral, but the sampler is"):
        jensen.sample(runs["diffusion"], 1, wish=jensen.SamplingWish("ddim", last_step="draw"))
    with pytest.raises(jensen.InputError, match="--last-step: a model of family vae has no options of sampling"):
        jensen.sample(runs["vae"], 1, wish=jensen.SamplingWish(last_step="mean"))


def test_score(run: jensen.Run, tmp_path: Path) -> None:
    found = jensen.score(run, raw(), seed=2)
    assert found.bound.shape == found.standard_error.shape == (8,)
    assert torch.equal(jensen.score(run, torch.from_numpy(raw()), seed=2).bound, found.bound)
    np.save(tmp_path / "x.npy", raw())
    words = [
        "score",
        str(run.folder),
        "--data",
        str(tmp_path / "x.npy"),
        "--seed",
        "2",
        "--out",
        str(tmp_path / "s.csv"),
    ]
    assert main(words) == 0
    table = np.genfromtxt(tmp_path / "s.csv", delimiter=",", skip_header=1)
    np.testing.assert_allclose(table[:, -3], found.bound, rtol=1e-5)
    assert isinstance(run.examples(raw()), Examples)


def test_evaluate(run: jensen.Run, tmp_path: Path) -> None:
    settings = jensen.EvaluationSettings(draws=2, samples=20, further_examples=4)
    found = jensen.evaluate(run, raw(), settings=settings)
    assert found.evaluation.examples == 8
    assert found.table().row_count > 4
    own = jensen.evaluate(run, settings=settings)
    page = own.save()
    assert page == run.folder / "report.html"
    assert own.evaluation.source == "memory, test split"
    recorded = json.loads((run.folder / "evaluation.json").read_text())
    assert recorded["elbo"]["nats"]["mean"] == own.evaluation.elbo.nats.mean


def test_compare(runs: dict[str, jensen.Run], tmp_path: Path) -> None:
    settings = jensen.EvaluationSettings(draws=2, samples=20, further_examples=4)
    for run in runs.values():
        jensen.evaluate(run, settings=settings).save()
    found = jensen.compare(list(runs.values()))
    assert found.table().row_count > 2
    assert found.save(tmp_path / "both").exists()


def test_referee(run: jensen.Run) -> None:
    fewer = {"temperatures": 20} if run.family.anneals else {}
    few = jensen.RefereeSettings(referee_examples=3, **fewer)
    verdict = jensen.referee(run, raw(), settings=few, samples=20)
    assert len(verdict.index) == 3
    assert {account.name for account in verdict.accounts} >= {"ELBO"}


def test_predict(run: jensen.Run, tmp_path: Path) -> None:
    x, y = own_images()
    found = jensen.predict(run, {"x": x[:9], "y": y[:9]}, draws=4)
    assert found.record is not None
    assert found.record.examples == 9
    assert found.predictions.prediction.probabilities.shape == (9, 3)
    assert jensen.predict(run, x[:9], draws=4).record is None
    found.save(tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text().count("\n") == 10


def test_impute(run: jensen.Run, tmp_path: Path) -> None:
    mask = np.ones((6, 6), bool)
    mask[3:] = False
    wish = jensen.ImputationWish(**({"samples": 20, "sweeps": 2} if run.recipe.family == "vae" else {"steps": 4}))
    found = jensen.impute(run, raw(4), mask, draws=2, wish=wish)
    assert found.draws.shape == (2, 4, 1, 6, 6)
    assert (found.draws[:, :, 0, :3] == raw(4)[:, :3]).all()
    assert found.calibration().entries == 4 * 18
    by_name = jensen.impute(run, raw(4), "half:bottom", draws=2, wish=wish)
    assert np.array_equal(by_name.draws, found.draws)
    found.save(tmp_path / "imputed")
    assert np.array_equal(np.load(tmp_path / "imputed" / "imputations.npz")["draws"], found.draws)


def test_compress_and_back(run: jensen.Run, tmp_path: Path) -> None:
    options = {} if run.recipe.family == "vae" else {"steps": 5}
    with pytest.warns(UserWarning, match="--examples 99: there are only 8 examples, which are all used"):
        found = jensen.compress(run, raw(), examples=99, **options)
    found.save(tmp_path / "file")
    assert found.codelength.file_bytes == (tmp_path / "file").stat().st_size
    assert np.array_equal(jensen.decompress(run, tmp_path / "file")[:, 0], raw())


def test_reconstruct(run: jensen.Run) -> None:
    found = jensen.reconstruct(run, raw(), examples=5)
    assert found.x.shape == found.reconstruction.shape == (5, 1, 6, 6)
    assert np.array_equal(found.x[:, 0], raw(5))


def test_features(runs: dict[str, jensen.Run]) -> None:
    run = runs["diffusion"]
    record = jensen.features_train(run, jensen.ClassifierSettings(visits=2000))
    assert record.fingerprint == run.spec.fingerprint
    found = jensen.features_distance(run, 20, samplers=["ddim"], steps=[2, 3])
    assert [one.cell.steps for one in found.asked] == [2, 3]
    checked = jensen.features_check(run, 8, k=2)
    assert checked is not None
    assert checked.metrics.features == "classifier"


def test_info_and_check(run: jensen.Run) -> None:
    assert jensen.info(run)["run"] == str(run.folder)
    report = jensen.check(raw())
    assert report.good
    assert report.facts["examples"] == "8"
