"""p(y|x) against exact posteriors: VAEs against the linear-Gaussian model and integrals over z, diffusion against
mixtures whose denoiser is a formula; then the measures against scikit-learn's, and the command."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_vae import PPCA, as_vae, random_ppca
from made import PROVENANCE
from mixtures import ExactDenoiser
from mixtures import GaussianMixture as DiagonalMixture
from torch import Tensor, nn

from jensen.cli import main
from jensen.diffusion.bayes import Race
from jensen.diffusion.denoiser import AbstractDenoiser
from jensen.diffusion.model import DiffusionModel, Scoring
from jensen.diffusion.schedule import LinearLogSnr
from jensen.diffusion.weighting import Simple, WeightedObjective
from jensen.errors import InputError
from jensen.gaussian import LinearGaussian, MultivariateGaussian
from jensen.inference.prediction import Circumstances, Predictions, assess, calibration_error
from jensen.inference.target_prediction import mixture_of
from jensen.likelihood import FixedScale, GaussianLikelihood
from jensen.model import Batch, Prediction
from jensen.nets import MLP
from jensen.randomness import Noise
from jensen.vae import VAE, ContinuousTarget, ElboObjective, LabelTarget

# ---------------------------------------------------------------------------------------------- joint VAEs


def linear(matrix: Tensor, offset: Tensor, *outputs: int) -> MLP:
    """z -> matrix z + offset."""
    network = MLP((matrix.shape[1],), (), outputs).double()
    with torch.no_grad():
        network.layers[0].weight.copy_(matrix)
        network.layers[0].bias.copy_(offset)
    return network


def spoilt(vae: VAE) -> VAE:
    """With an encoder that is off by 0.3 in every mean and a fifth too wide: the weights have work to do."""
    with torch.no_grad():
        vae.posterior.encoder.layers[0].bias += torch.tensor([0.3, 0.3, 0.2, 0.2])
    return vae


SLOPE, OFFSET, NOISE = torch.tensor([[1.5, -0.7]]).double(), torch.tensor([0.4]).double(), 0.3


def with_target(ppca: PPCA) -> VAE:
    vae = spoilt(as_vae(ppca))
    likelihood = GaussianLikelihood((1,), FixedScale(NOISE)).double()
    vae.target = ContinuousTarget(linear(SLOPE, OFFSET, 1, 1), likelihood)
    return vae


def with_labels(ppca: PPCA) -> VAE:
    vae = spoilt(as_vae(ppca))
    source = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(3, 2, dtype=torch.float64, generator=source)
    vae.target = LabelTarget(linear(logits, torch.tensor([0.0, 0.5, -0.5]).double(), 3), 3)
    return vae


def joint_of_x_and_y(ppca: PPCA) -> LinearGaussian:
    """(z, (x, y)) of `with_target`."""
    dims = ppca.matrix.shape[0]
    scales = torch.cat([torch.full((dims,), ppca.sigma), torch.tensor([NOISE])]).double()
    noise = MultivariateGaussian(torch.cat([ppca.offset, OFFSET]), scales.diag())
    return LinearGaussian(ppca.joint.prior, torch.cat([ppca.matrix, SLOPE]), noise)


def test_continuous_targets_are_the_linear_models() -> None:
    ppca = random_ppca()
    x = ppca.draw(20)
    found = with_target(ppca).predict_targets(x, draws=4000)
    law = mixture_of(found)
    exact = joint_of_x_and_y(ppca).marginal().condition(range(5), x)
    # 20 means within 5 of their own standard errors: false alarm about 20 · 6e-7
    assert ((law.mean - exact.mean).abs() < 5 * found.standard_error).all()
    assert (found.standard_error < 0.1 * exact.covariance.sqrt()).all()
    torch.testing.assert_close(
        law.variance, exact.covariance[..., 0].expand(20, 1), rtol=0.2, atol=0
    )  # of 1,000 effective draws, whose variance has an error of 5 %: four of them
    y = exact.mean + 0.5
    torch.testing.assert_close(law.log_prob(y), exact.log_prob(y), rtol=0, atol=0.25)


@torch.no_grad()
def posterior_by_grid(vae: VAE, ppca: PPCA, x: Tensor) -> Tensor:
    """∫ p(y|z) p(z|x) dz on a grid of the two latent dimensions."""
    line = torch.linspace(-7, 7, 281, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    weight = ppca.posterior(x).log_prob(z.unsqueeze(1)).softmax(0)  # (grid, batch)
    return torch.einsum("gb,gc->bc", weight, vae.target(z).exp())


def test_labels_are_those_of_an_integral_over_z() -> None:
    ppca = random_ppca()
    x, vae = ppca.draw(30), with_labels(ppca)
    exact = posterior_by_grid(vae, ppca, x)
    for draws in (500, 8000):
        found = vae.predict(x, draws=draws, seed=1)
        # 90 probabilities beyond 5 standard errors of the linearised kind: once in 2e4 runs; plus the ratio's 1/K bias
        assert ((found.probabilities - exact).abs() < 5 * found.standard_error + 2 / draws).all()
        torch.testing.assert_close(found.probabilities.sum(1), torch.ones(30).double())
        assert ((found.effective_sample_size > 0.1 * draws) & (found.effective_sample_size < draws)).all()
    assert found.standard_error.max() < 0.02


def test_the_stated_error_is_the_real_one() -> None:
    ppca = random_ppca()
    x, vae = ppca.draw(30), with_labels(ppca)
    exact = posterior_by_grid(vae, ppca, x)
    middle = (exact > 0.1) & (exact < 0.9)  # near 0 and 1 the error is skewed, so that a standard error tells less
    found = [vae.predict(x, draws=1000, seed=seed) for seed in range(30)]
    errors = torch.stack([((one.probabilities - exact) / one.standard_error)[middle] for one in found])
    # The mean square of standardised errors is 1. Probabilities of one example are as one: at least 200 independent
    # squares of variance 2, so an error below 0.1: four of them, false alarm 6e-5
    assert int(middle.any(1).sum()) * 30 >= 200
    assert abs(errors.square().mean().item() - 1) < 0.4


def test_a_vaes_predictions_do_not_depend_on_the_batch() -> None:
    ppca = random_ppca()
    x, vae = ppca.draw(7), with_labels(ppca)
    whole = vae.predict(x, draws=250, seed=3)
    part = vae.predict(x[4:], draws=250, seed=3, index=torch.arange(4, 7))
    torch.testing.assert_close(part.log_probabilities, whole.log_probabilities[4:], rtol=0, atol=1e-10)
    assert not torch.equal(whole.log_probabilities, vae.predict(x, draws=250, seed=4).log_probabilities)


def test_the_joint_bound_misses_log_p_by_the_kl_of_the_proposal() -> None:
    ppca = random_ppca()
    x, vae = ppca.draw(20), with_target(ppca)
    y = torch.linspace(-3, 3, 20).double().unsqueeze(1)
    joint, both = joint_of_x_and_y(ppca), torch.cat([x, y], 1)
    batch = Batch(x, torch.arange(20), targets=y)
    bound = vae.joint_elbo(batch, draws=2000)
    q = vae.infer(x)
    gap = MultivariateGaussian(q.mean, q.scale.diag_embed()).kl(joint.posterior(both))
    # 20 bounds within 5.5 standard errors: false alarm below 1e-6
    assert ((bound.value - (joint.marginal().log_prob(both) - gap)).abs() < 5.5 * bound.standard_error).all()
    # `elbo` stays the bound on log p(x)
    torch.testing.assert_close(vae.elbo(x, draws=3).value, spoilt(as_vae(ppca)).elbo(x, draws=3).value)
    # and the loss, over 4,000 draws, is minus the mean of the joint one: five standard errors, false alarm 6e-7
    many = Batch(x.repeat(200, 1), torch.arange(4000), targets=y.repeat(200, 1))
    loss = ElboObjective()(vae, many, 0, Noise(torch.Generator().manual_seed(0)))
    spread = bound.standard_error.square().mean().sqrt() * math.sqrt(2000 / 4000)
    assert abs(float(loss.value.detach() + bound.value.mean())) < 5 * float(spread)


def test_the_contract_says_what_is_predicted_and_what_samples_cost() -> None:
    labelled, continuous, plain = with_labels(random_ppca()), with_target(random_ppca()), as_vae(random_ppca())
    asked = [(vae.predicted_classes, vae.predicted_targets) for vae in (labelled, continuous, plain)]
    assert asked == [(3, None), (None, 1), (None, None)]
    assert plain.networks == (plain.decoder,)
    assert plain.bound_evaluations is None


def test_parts_of_a_target_prediction_are_put_together() -> None:
    ppca = random_ppca()
    vae, x = with_target(ppca), ppca.draw(7)
    whole = vae.predict_targets(x, draws=50, seed=2)
    rows = torch.arange(7).split(3)
    parts = [vae.predict_targets(x[part], draws=50, seed=2, index=part) for part in rows]
    together = type(whole).concatenate(parts)
    for name in ("mean", "standard_error", "effective_sample_size", "log_weights"):
        torch.testing.assert_close(getattr(together, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(whole.mean, mixture_of(together).mean, rtol=1e-9, atol=1e-9)


def test_a_vae_without_labels_refuses() -> None:
    vae, x = as_vae(random_ppca()), random_ppca().draw(2)
    with pytest.raises(InputError, match="trained without labels"):
        vae.predict(x)
    with pytest.raises(InputError, match="without continuous targets"):
        with_labels(random_ppca()).predict_targets(x)
    batch, joint = Batch(x, torch.arange(2)), with_labels(random_ppca())
    with pytest.raises(InputError, match="have no labels: give labelled data"):
        joint.loss(batch, step=0, noise=Noise(torch.Generator()))


# ---------------------------------------------------------------------------------------------- diffusion


def class_mixtures() -> list[DiagonalMixture]:
    """Three classes in the plane that overlap, two of one component and one of two."""

    def one(weights: list[float], means: list[list[float]], scales: list[list[float]]) -> DiagonalMixture:
        return DiagonalMixture(*(torch.tensor(values, dtype=torch.float64) for values in (weights, means, scales)))

    return [
        one([1.0], [[-0.8, 0.0]], [[0.5, 0.6]]),
        one([1.0], [[0.8, 0.3]], [[0.6, 0.4]]),
        one([0.5, 0.5], [[0.0, -1.0], [0.2, 1.4]], [[0.4, 0.4], [0.5, 0.3]]),
    ]


class ClassDenoiser(AbstractDenoiser):
    """The exact denoiser of each class."""

    def __init__(self, mixtures: list[DiagonalMixture]) -> None:
        super().__init__()
        self.each, self.classes = nn.ModuleList(ExactDenoiser(mixture) for mixture in mixtures), len(mixtures)

    def forward(self, x_t, log_snr, labels=None):
        answers = [denoiser(x_t, log_snr) for denoiser in self.each]
        x0, eps = (
            sum((labels == k).unsqueeze(1) * getattr(answer, name) for k, answer in enumerate(answers))
            for name in ("x0", "eps")
        )
        return type(answers[0])(x_t, log_snr, x0, eps)


COUNTS = (50, 30, 20)


def class_model(race: Race) -> DiffusionModel:
    scoring = Scoring(steps=200, race=race, label_counts=COUNTS)
    denoiser = ClassDenoiser(class_mixtures())
    return DiffusionModel((2,), denoiser, LinearLogSnr(8.0, -9.0), WeightedObjective(Simple()), scoring)


def class_data(per_class: int = 12) -> tuple[Tensor, Tensor]:
    """Examples, and their exact log p(y|x)."""
    x = torch.cat(
        [mixture.sample(per_class, torch.Generator().manual_seed(k)) for k, mixture in enumerate(class_mixtures())]
    )
    log_prior = (torch.tensor(COUNTS).double() / 100).log()
    return x, (log_prior + torch.stack([mixture.log_prob(x) for mixture in class_mixtures()], 1)).log_softmax(1)


def test_bayes_rule_over_exact_bounds_is_the_exact_posterior() -> None:
    x, exact = class_data()
    found = class_model(Race(first=32, draws=32, terms=20, error=0)).predict(x, seed=1)
    # 108 probabilities within 5 of their own standard errors (beyond once in 1e4 runs), and what 200 steps leave
    # between the gaps of two classes: 0.01 of a probability
    assert ((found.probabilities - exact.exp()).abs() < 5 * found.standard_error + 0.01).all()
    assert found.standard_error.max() < 0.1
    assert (found.evaluations == 32 * 21 * 3).all()


def test_the_race_ends_like_the_full_comparison_for_less() -> None:
    x, exact = class_data(30)
    full = class_model(Race(draws=32, error=0)).predict(x)
    race = class_model(Race(draws=32)).predict(x)
    # A class is dropped wrongly in at most 5 % of the examples, and what is dropped has odds of 1 % at most. Where the
    # full comparison is itself sure of the label (by 3 standard errors) they agree, but for 5 % of 90 examples: more
    # than 11 by chance with probability 2e-3 even if that bound were exact
    top = full.probabilities.topk(2, dim=1)
    error = full.standard_error.gather(1, top.indices[:, :1])[:, 0]
    sure = top.values[:, 0] - top.values[:, 1] > 3 * error
    assert int((full.labels != race.labels)[sure].sum()) == 0
    assert int((full.labels != race.labels).sum()) <= 11
    assert race.evaluations.mean() < 0.8 * full.evaluations.mean()
    assert (race.evaluations <= full.evaluations).all()
    assert (race.probabilities - exact.exp()).abs().mean() < 0.1


def test_hopeless_classes_are_dropped_in_the_first_round_and_hopeful_ones_are_not() -> None:
    far = [DiagonalMixture(m.weights, 6 * m.means, m.scales) for m in class_mixtures()]
    scoring = Scoring(steps=400, race=Race(first=8, draws=64), label_counts=COUNTS)
    denoiser, schedule = ClassDenoiser(far), LinearLogSnr(8.0, -9.0)
    model = DiffusionModel((2,), denoiser, schedule, WeightedObjective(Simple()), scoring)
    x = torch.cat([mixture.sample(5, torch.Generator().manual_seed(k)) for k, mixture in enumerate(far)])
    found = model.predict(x)
    assert found.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert found.evaluations.median() == 8 * 9 * 3
    same = class_mixtures()
    same[1] = same[0]  # two classes that nothing tells apart: equal noise makes the bounds equal, and the prior decides
    twins = DiffusionModel((2,), ClassDenoiser(same), schedule, WeightedObjective(Simple()), scoring)
    pair = twins.predict(same[0].sample(5, torch.Generator().manual_seed(0)))
    odds = pair.log_probabilities[:, 0] - pair.log_probabilities[:, 1]
    torch.testing.assert_close(odds, torch.full_like(odds, math.log(50 / 30)), rtol=0, atol=1e-10)
    assert (pair.evaluations >= 2 * 64 * 9).all()


def test_a_race_does_not_depend_on_the_batch() -> None:
    x, _ = class_data()
    model = class_model(Race())
    whole = model.predict(x, seed=2)
    part = model.predict(x[20:25], seed=2, index=torch.arange(20, 25))
    torch.testing.assert_close(part.log_probabilities, whole.log_probabilities[20:25], rtol=0, atol=1e-9)
    torch.testing.assert_close(part.standard_error, whole.standard_error[20:25], rtol=0, atol=1e-9)
    assert torch.equal(part.evaluations, whole.evaluations[20:25])


def test_a_class_without_training_examples_has_no_probability() -> None:
    x, _ = class_data(2)
    model = class_model(Race())
    model.scoring = Scoring(steps=400, label_counts=(3, 0, 2))
    found = model.predict(x)
    assert (found.probabilities[:, 1] == 0).all()
    assert found.standard_error.isfinite().all()
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(6).double())


def test_diffusion_refuses_in_one_line() -> None:
    x, _ = class_data(1)
    model = class_model(Race())
    model.scoring = Scoring(steps=400)
    with pytest.raises(InputError, match="label counts None for 3 classes"):
        model.predict(x)
    with pytest.raises(InputError, match="expected prepared floats of shape"):
        model.predict(torch.zeros(2, 5))
    with pytest.raises(InputError, match="at least 2 draws"):
        Race(draws=1)
    with pytest.raises(InputError, match="expected odds between 0 and 1"):
        Race(negligible=0)
    plain = DiffusionModel(
        (2,), ExactDenoiser(class_mixtures()[0]), LinearLogSnr(8.0, -9.0), WeightedObjective(Simple()), Scoring(steps=9)
    )
    with pytest.raises(InputError, match="trained without labels"):
        plain.predict(x)


# ---------------------------------------------------------------------------------------------- how good


def test_measures_are_scikit_learns() -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

    source = torch.Generator().manual_seed(0)
    log_p = (2 * torch.randn(200, 4, dtype=torch.float64, generator=source)).log_softmax(1)
    labels = torch.multinomial(log_p.exp(), 1, generator=source)[:, 0]
    none = torch.zeros(200).double()
    predictions = Predictions(torch.arange(200), Prediction(log_p, torch.zeros_like(log_p), none + 7, none + 3), labels)
    told = Circumstances("made", PROVENANCE, None, 0, ("a", "b", "c", "d"), (10, 20, 30, 40), 2)
    record = assess(predictions, told)
    guess, p = log_p.argmax(1).numpy(), log_p.exp().numpy()
    assert record.accuracy.mean == pytest.approx(accuracy_score(labels, guess))
    assert record.log_loss.mean == pytest.approx(log_loss(labels, p))
    assert np.array(record.confusion).tolist() == confusion_matrix(labels, guess).tolist()
    prior = np.tile([0.1, 0.2, 0.3, 0.4], (200, 1))
    assert record.baseline_log_loss.mean == pytest.approx(log_loss(labels, prior))
    assert record.baseline_accuracy.mean == pytest.approx((labels == 3).double().mean().item())
    assert record.bounds == pytest.approx(1.5)
    # The labels are drawn from p, so it is calibrated: within four standard deviations of chance, false alarm 1e-4
    chance = record.chance_calibration_error
    assert abs(record.calibration_error - chance.mean) < 4 * chance.standard_error
    overconfident = (3 * log_p).softmax(1).max(1).values
    right = torch.from_numpy(guess == labels.numpy()).double()
    assert calibration_error(overconfident, right) > chance.mean + 4 * chance.standard_error
    assert sum(b.right.count for b in record.calibration) == 200


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Short runs of digits: a joint VAE, a plain one, a class-conditional and an unconditional diffusion model."""
    root = tmp_path_factory.mktemp("runs")
    vae = [
        "vae",
        "--steps",
        "300",
        "--batch-size",
        "64",
        "--latent-dims",
        "8",
        "--hidden",
        "64",
        "--learning-rate",
        "3e-3",
    ]
    diffusion = ["diffusion", "--widths", "8", "--batch-size", "16", "--validation-examples", "4", "--steps"]
    kinds = {
        "joint": [*vae, "--predict", "label"],
        "plain": ["vae", "--steps", "2", "--hidden", "8"],
        "conditional": [*diffusion, "40"],
        "unconditional": [*diffusion, "2", "--no-conditional"],
    }
    for name, words in kinds.items():
        assert main(["train", *words, "--out", str(root / name)]) == 0
    return {name: root / name for name in kinds}


def test_predict_writes_rows_measures_pictures_and_a_page(runs, tmp_path, capsys) -> None:
    out = tmp_path / "new" / "p.csv"
    assert main(["predict", str(runs["joint"]), "--out", str(out), "--draws", "100"]) == 0
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(out.open()))
    record = json.loads((runs["joint"] / "predictions.json").read_text())
    assert len(rows) == record["examples"] == 180
    for row in rows:
        shares = [float(row[f"p({digit})"]) for digit in range(10)]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert int(row["predicted"]) == int(np.argmax(shares))
        assert float(row["standard_error"]) >= 0
    accuracy = np.mean([row["predicted"] == row["label"] for row in rows])
    assert record["accuracy"]["mean"] == pytest.approx(accuracy)
    assert accuracy > 0.6  # 300 steps give 0.8
    assert "log-loss" in printed
    assert "always p(y)" in printed
    for picture in ("calibration", "confusion"):
        assert (runs["joint"] / "pictures" / f"prediction-{picture}.png").stat().st_size > 1000
    assert "Prediction" in (runs["joint"] / "predictions.html").read_text()
    assert main(["evaluate", str(runs["joint"]), "--further-examples", "1", "--samples", "2", "--examples", "20"]) == 0
    assert "alibration error of" in (runs["joint"] / "report.html").read_text()


def test_predict_by_diffusion_and_without_labels(runs, tmp_path, capsys) -> None:
    words = ["predict", str(runs["conditional"]), "--out", str(tmp_path / "p.csv"), "--draws", "2"]
    assert main([*words, "--examples", "6"]) == 0
    assert "times one bound's" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [int(row["example"]) for row in rows] == [0, 30, 60, 90, 120, 150]
    before = (runs["conditional"] / "predictions.json").read_bytes()
    raw = np.random.default_rng(0).integers(0, 17, (3, 8, 8), np.uint8)
    np.savez(tmp_path / "raw.npz", x=raw)
    (tmp_path / "p.csv").unlink()
    assert main([*words, "--data", str(tmp_path / "raw.npz")]) == 0
    assert "labels are not known" in capsys.readouterr().out
    assert "label" not in next(csv.DictReader((tmp_path / "p.csv").open()))
    assert (runs["conditional"] / "predictions.json").read_bytes() == before


def test_a_run_keeps_what_was_said_of_its_test_examples(runs, tmp_path, capsys) -> None:
    run, few = runs["joint"], ["--draws", "2", "--examples", "20"]
    assert main(["predict", str(run), "--out", str(tmp_path / "test.csv"), *few]) == 0
    assert not (tmp_path / "test-report").exists()
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    np.savez(tmp_path / "other.npz", x=np.random.default_rng(0).integers(0, 17, (3, 8, 8), np.uint8), y=np.arange(3))
    other = ["--draws", "2", "--examples", "3", "--data", str(tmp_path / "other.npz")]
    for name, words in (("other", other), ("validation", [*few, "--split", "validation"])):
        out, report = tmp_path / "new" / f"{name}.csv", tmp_path / "new" / f"{name}-report"
        assert main(["predict", str(run), "--out", str(out), *words]) == 0
        assert name in json.loads((report / "predictions.json").read_text())["source"]
        assert name in (report / "predictions.html").read_text()
        assert (report / "pictures/prediction-confusion.png").exists()
        out.unlink()
        capsys.readouterr()
        assert main(["predict", str(run), "--out", str(out), *few, *words]) == 2
        assert f"{report} exists and would be lost" in capsys.readouterr().err
        assert not out.exists()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == kept


def test_mistakes_are_one_line_and_lose_nothing(runs, tmp_path, capsys) -> None:
    images = np.random.default_rng(0).integers(0, 17, (3, 8, 8), np.uint8)
    np.savez(tmp_path / "new.npz", x=images, y=np.array([1, 2, 11]))
    np.savez(tmp_path / "named.npz", x=images, y=np.array(["1", "2", "cat"]))
    np.savez(tmp_path / "shape.npz", x=images[:, :4])
    out = tmp_path / "p.csv"
    for name, more, says in (
        ("plain", [], "was trained without labels, so it has no p(y|x); train on labelled data, with --predict"),
        ("unconditional", [], "train on labelled data, without --no-conditional"),
        ("joint", ["--data", str(tmp_path / "new.npz")], "label 11 (1 such) is not a class of the run"),
        ("joint", ["--data", str(tmp_path / "named.npz")], "label cat (1 such) is not a class of the run"),
        ("joint", ["--data", str(tmp_path / "shape.npz")], "has shape (1, 4, 8) but the run was trained on shape"),
        ("joint", ["--draws", "1"], "greater than or equal to 2"),
    ):
        assert main(["predict", str(runs[name]), "--out", str(out), *more]) == 2
        line = capsys.readouterr().err
        assert says in line
        assert line.count("\n") == 1
        assert not out.exists()
    assert main(["predict", str(runs["joint"]), "--out", str(tmp_path / "p.txt")]) == 2
    assert "expected .csv" in capsys.readouterr().err


def test_a_label_that_no_training_example_has_is_refused(tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 17, (40, 4, 4), np.uint8)
    np.savez(
        tmp_path / "d.npz", x_train=images, y_train=np.arange(40) % 2, x_test=images[:4], y_test=np.array([0, 1, 2, 1])
    )
    words = ["--steps", "2", "--hidden", "8", "--predict", "label", "--out", str(tmp_path / "run")]
    assert main(["train", "vae", "--data", str(tmp_path / "d.npz"), *words]) == 0
    assert main(["predict", str(tmp_path / "run"), "--out", str(tmp_path / "p.csv")]) == 2
    assert "label 2 of the data: no training example has it" in capsys.readouterr().err


def test_predicting_labels_needs_labels(tmp_path, capsys) -> None:
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).integers(0, 17, (40, 4, 4), np.uint8))
    assert (
        main(["train", "vae", "--data", str(tmp_path / "d.npz"), "--predict", "label", "--out", str(tmp_path / "r")])
        == 2
    )
    assert "has no labels; give labelled data" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
