"""The classifier, its features, the Fréchet distance between them, and what is measured with it."""

import json
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from made import PROVENANCE
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.examples import Dataset, Examples
from jensen.data.load import load_data
from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.features.classifier import Classifier, features, recognition
from jensen.features.distance import Cell, Distance, Reference, add_distance, measure, read_distances
from jensen.features.fit import shifted, shown, train_classifier
from jensen.features.frechet_distance import frechet
from jensen.features.settings import ClassifierSettings
from jensen.features.store import describe, load_classifier, save_classifier
from jensen.provenance import provenance
from jensen.randomness import generator
from jensen.recipe.build import build_model
from jensen.recipe.diffusion.samplers import SAMPLERS
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.report.distances import distances_chart, distances_table

SHORT = ClassifierSettings(visits=400, batch_size=40)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", preparation="levels")


@pytest.fixture(scope="module")
def classifier(digits: Dataset) -> Classifier:
    return train_classifier(digits)


# ---------------------------------------------------------------------------------------------- the distance


def _features(seed: int, count: int, dims: int) -> Tensor:
    source = generator(seed)
    mix = torch.randn(dims, dims, generator=source, dtype=torch.float64)
    return torch.randn(count, dims, generator=source, dtype=torch.float64) @ mix + torch.rand(dims, generator=source)


@pytest.mark.parametrize("counts", [(300, 200), (300, 9), (5, 7)])
def test_frechet_is_the_formula_with_scipys_matrix_square_root(counts: tuple[int, int]) -> None:
    a, b = _features(0, counts[0], 6), _features(1, counts[1], 6)
    covariances = [np.cov(x.numpy(), rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet(a, b).mean == pytest.approx(expected, rel=1e-7)
    assert frechet(b, a).mean == pytest.approx(expected, rel=1e-7)


def _diagonal(seed: int, scales: Tensor, means: Tensor) -> Tensor:
    """50 features whose sample covariance is exactly diagonal."""
    x = torch.linalg.qr(_features(seed, 50, len(scales)) - _features(seed, 50, len(scales)).mean(0)).Q
    return x * math.sqrt(49) * scales + means


def test_frechet_of_diagonal_covariances_is_a_sum_over_dimensions() -> None:
    # |m_a - m_b|² + Σ (s_a - s_b)², a dimension without any variance included
    scales = torch.tensor([[1.0, 3.0, 1e-3, 0.0], [2.0, 0.5, 1e3, 4.0]], dtype=torch.float64)
    means = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 1.0, -2.0, 3.5]], dtype=torch.float64)
    expected = (scales[0] - scales[1]).square().sum() + (means[0] - means[1]).square().sum()
    found = frechet(_diagonal(0, scales[0], means[0]), _diagonal(1, scales[1], means[1]))
    assert found.mean == pytest.approx(float(expected), rel=1e-12)


def test_frechet_of_equal_sets_is_zero_and_does_not_change_with_the_axes() -> None:
    a, b = _features(0, 100, 5), _features(1, 80, 5)
    rotation = torch.linalg.qr(_features(2, 5, 5)).Q
    assert frechet(a, a).mean == pytest.approx(0, abs=1e-11)
    assert frechet(a, a.flip(0) + 3).mean == pytest.approx(45, rel=1e-12)
    assert frechet(a @ rotation + 7, b @ rotation + 7).mean == pytest.approx(frechet(a, b).mean, rel=1e-11)
    assert frechet(10 * a, 10 * b).mean == pytest.approx(100 * frechet(a, b).mean, rel=1e-11)


@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_frechet_knows_its_own_standard_error(distance: float) -> None:
    found = []
    for seed in range(200):
        source = generator(seed, 7)
        a, b = (torch.randn(400, 3, generator=source, dtype=torch.float64) for _ in range(2))
        found.append(frechet(a * (1 + distance), b + distance))
    spread = np.std([estimate.mean for estimate in found], ddof=1)
    stated = math.sqrt(np.mean([estimate.standard_error**2 for estimate in found]))
    # A standard deviation over 200 is 5 % off, the jackknife's mean over 200 about 3 %: 1.25 is 4 sigma, 1e-4. At
    # distance 0 the statistic is a square around its minimum, whose variance the jackknife doubles: a factor 1.4.
    expected = 1.0 if distance else math.sqrt(2)
    assert expected / 1.25 < stated / spread < expected * 1.25


def test_the_standard_error_does_not_depend_on_the_order() -> None:
    """Ten classes far apart, sorted or taking turns: every twentieth example gives half the error, or six times it."""
    labels, errors = torch.arange(400) % 10, []
    means, away = 2 * _features(8, 10, 6), torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    a, b = (means[labels] + 0.5 * _features(seed, 400, 6) for seed in (9, 10))
    for order in (torch.arange(400), labels.argsort(stable=True), torch.randperm(400, generator=generator(11))):
        errors.append(frechet(a[order] + away, b[order]).standard_error)
    # Of 20 + 20 parts, an error of a standard error of 1 / sqrt(2 * 38) = 11 %, a ratio of two 16 %: 1.9 is 4 sigma
    assert max(errors) < 1.9 * min(errors)


def test_frechet_refuses_what_has_no_covariance() -> None:
    a = _features(0, 10, 3)
    for b in (a[:1], a[:, :2], a[:, 0], a.where(a < a.max(), torch.inf)):
        with pytest.raises(InputError, match="Fréchet distance between features"):
            frechet(a, b)


# ---------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (1, 1, 1), (2, 33, 17), (1, 28, 28), (3, 2, 40), (5,), (2, 9)])
def test_examples_of_any_shape_have_features_and_every_weight_learns(shape: tuple[int, ...]) -> None:
    classifier = Classifier(shape, 4, torch.tensor(127.5), torch.tensor(127.5))
    raw = torch.randint(0, 256, (6, *shape), dtype=torch.uint8, generator=generator(0))
    logits = classifier(raw)
    assert logits.shape == (6, 4)
    logits.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in classifier.parameters())
    found = features(classifier.eval(), raw)
    assert found.shape == (6, 128)
    assert (found >= 0).all()
    assert torch.allclose(features(classifier, raw[2:3]), found[2:3], atol=1e-5)
    with pytest.raises(InputError, match="for a classifier of"):
        features(classifier, raw[..., :-1])


def test_images_keep_their_global_structure() -> None:
    # The same patch in two places must be told apart: 40 pixels become a grid, not one average
    classifier = Classifier((1, 40, 40), 2, torch.tensor(0.0), torch.tensor(1.0)).eval()
    raw = torch.zeros(2, 1, 40, 40)
    raw[0, :, 4:8, 4:8] = 1
    raw[1, :, 28:32, 28:32] = 1
    assert not torch.allclose(*features(classifier, raw))


def test_images_are_shifted_each_by_its_own_way_within_the_limit() -> None:
    x = torch.arange(20 * 2 * 5 * 4.0).reshape(20, 2, 5, 4)
    moved = shifted(x, 1, generator(0))
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    places = []
    for before, after in zip(padded, moved, strict=True):
        fits = [(i, j) for i in range(3) for j in range(3) if torch.equal(before[:, i : i + 5, j : j + 4], after)]
        assert len(fits) == 1
        places += fits
    assert len(set(places)) > 4  # of 9 places, 20 draws: fewer than 5 in less than one of 1e6 cases
    assert torch.equal(shifted(x, 0, generator(0)), x)


# ---------------------------------------------------------------------------------------------- training


def test_digits_are_recognised(digits: Dataset, classifier: Classifier) -> None:
    held_out = [(part.x, part.labels) for part in (digits.validation, digits.test)]
    x, labels = (torch.cat(values) for values in zip(*held_out, strict=True))
    found = recognition(classifier, x, labels)
    assert found.count == 360
    # Over seeds it is 0.987: 17 misses or more of 360 come in one of 3e5 cases
    assert found.mean > 0.955
    permuted = recognition(classifier, x, (labels + 1) % 10)
    assert permuted.mean < 0.05


def test_training_is_a_function_of_the_seed_and_the_training_split(digits: Dataset) -> None:
    before = torch.get_rng_state()
    first = train_classifier(digits, SHORT, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    wrong = Examples(digits.test.x[:1], digits.test.labels[:1])
    without = train_classifier(replace(digits, validation=wrong, test=wrong), SHORT, seed=1).state_dict()
    other = train_classifier(digits, SHORT, seed=2).state_dict()
    assert all(torch.equal(first[name], without[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_vectors_of_wildly_different_units_are_recognised(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    labels = source.integers(0, 3, 600)
    x = source.normal(size=(600, 4)) + 4 * np.eye(4)[labels]  # errors of the best rule: about 0.005
    np.savez(tmp_path / "x.npz", x=(x * [1e-3, 1, 1e4, 1] + [0, 0, 1e5, 7]).astype(np.float32), labels=labels)
    data = load_data(tmp_path / "x.npz", ReadOptions(test_fraction=0.3))
    classifier = train_classifier(data, ClassifierSettings(visits=8000))
    # 180 test examples: 13 or more misses at a rate of 0.01 come in less than one of 1e6 cases
    assert recognition(classifier, data.test.x, data.test.labels).mean > 0.93


def test_data_are_shown_as_the_model_shows_them(digits: Dataset) -> None:
    assert torch.equal(shown(digits.test, digits.spec.preparation), digits.test.x)
    for name in ("dequantise", "threshold", "static", "dynamic"):
        data = load_data("digits", preparation=name)
        x = shown(data.test, data.spec.preparation)
        assert x.dtype == torch.uint8
        values = set(x.unique().tolist())
        assert values == ({0, 16} if name != "dequantise" else set(digits.test.x.unique().tolist()))


def test_data_without_labels_are_refused(tmp_path: Path, digits: Dataset) -> None:
    np.save(tmp_path / "x.npy", digits.train.x.numpy())
    with pytest.raises(InputError, match="no labels"):
        train_classifier(load_data(tmp_path / "x.npy"))
    np.savez(tmp_path / "x.npz", x=digits.train.x.numpy(), labels=np.zeros(len(digits.train), int))
    with pytest.raises(InputError, match="expected at least 2"):
        train_classifier(load_data(tmp_path / "x.npz"))


def _share(successes: int, count: int) -> Estimate:
    return Estimate.share(torch.arange(count) < successes)


def test_a_share_has_the_binomials_standard_error() -> None:
    found = _share(800, 1000)
    assert (found.mean, found.count) == (0.8, 1000)
    assert found.standard_error == pytest.approx(math.sqrt(0.8 * 0.2 / 1000), rel=1e-2)
    assert _share(1000, 1000).standard_error > 0


@pytest.mark.slow
def test_mnist_is_recognised(shared_data: Path) -> None:
    data = load_data(shared_data / "mnist", preparation="levels")
    assert recognition(train_classifier(data), data.test.x, data.test.labels).mean > 0.99


# ---------------------------------------------------------------------------------------------- the folder


@pytest.fixture
def saved(tmp_path: Path, digits: Dataset, classifier: Classifier) -> Path:
    save_classifier(tmp_path, classifier, describe(classifier, digits, ClassifierSettings(), 0, time.perf_counter()))
    return tmp_path


def test_a_saved_classifier_comes_back_with_its_record(saved: Path, digits: Dataset, classifier: Classifier) -> None:
    again, record = load_classifier(saved, digits.spec)
    assert torch.equal(again(digits.test.x), classifier(digits.test.x))
    assert record.test == recognition(classifier, digits.test.x, digits.test.labels)
    assert record.fingerprint == digits.spec.fingerprint
    assert not again.training


def test_a_classifier_is_refused_where_it_is_missing_damaged_or_of_other_data(saved: Path, digits: Dataset) -> None:
    spec, folder = digits.spec, saved / "features"
    with pytest.raises(InputError, match="jensen features train"):
        load_classifier(saved / "elsewhere", spec)
    for other in (
        {"fingerprint": "0" * 32},
        {"preparation": load_data("digits", preparation="dynamic").spec.preparation},
    ):
        with pytest.raises(InputError, match="for other data"):
            load_classifier(saved, spec.model_copy(update=other))
    weights, record = (folder / "weights.safetensors").read_bytes(), (folder / "features.json").read_text()
    (folder / "weights.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(InputError, match="SHA-256"):
        load_classifier(saved, spec)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be used"):
        load_classifier(saved, spec)
    for damaged in ("{", record.replace('"seed"', '"sead"'), "[]"):
        (folder / "features.json").write_text(damaged)
        with pytest.raises(InputError, match="damaged"):
            load_classifier(saved, spec)


# ---------------------------------------------------------------------------------------------- distances


def _cell(**changes: object) -> Cell:
    values = {"sampler": "ddim", "steps": 4, "guidance": 0.0, "n": 30, "seed": 3, "weights": "ab", "classifier": "a"}
    return Cell.model_validate(values | changes)


def _distance(cell: Cell, mean: float) -> Distance:
    value = Estimate(mean, 0.5, 30)
    return Distance(
        cell=cell,
        distance=value,
        floor=Estimate(2.0, 0.1, 30),
        recognised=None,
        evaluations=4.0,
        seconds=0.1,
        provenance=PROVENANCE,
    )


def test_the_floor_is_the_distance_of_training_examples(digits: Dataset, classifier: Classifier) -> None:
    everything = Reference.of(classifier, digits, len(digits.train))
    by_hand = frechet(features(classifier, digits.train.x), features(classifier, digits.test.x))
    assert everything.floor.mean == pytest.approx(by_hand.mean, rel=1e-6)
    some = Reference.of(classifier, digits, 300)
    frequencies = [torch.bincount(labels) / len(labels) for labels in (some.labels, digits.train.labels)]
    assert (frequencies[0] - frequencies[1]).abs().max() < 0.03
    for n in (1, len(digits.train) + 1):
        with pytest.raises(InputError, match="change --n"):
            Reference.of(classifier, digits, n)


@pytest.mark.parametrize(
    ("changes", "calls"), [({}, 4), ({"sampler": "heun"}, 7), ({"guidance": 1.0}, 8), ({"conditional": False}, 4)]
)
def test_samples_are_measured_as_asked(
    digits: Dataset, classifier: Classifier, changes: dict[str, object], calls: int
) -> None:
    values = {"network": "mlp", "width": 16, "depth": 1, "sampler": "ddim", "sampling_steps": 4} | changes
    model = build_model(DiffusionRecipe(model=DiffusionSettings.model_validate(values)), digits.spec).eval()
    for weight in model.denoiser.parameters():  # a fresh network gives 0 whatever it is asked
        weight.data.normal_(0, 0.3, generator=generator(0))
    reference = Reference.of(classifier, digits, 300)
    found = measure(model, reference, _cell(n=300), partial(provenance, model, 7))
    labels = reference.labels if model.classes else None
    raw = digits.spec.preparation.to_raw(model.sample(300, seed=3, labels=labels))
    assert found.distance.mean == pytest.approx(frechet(features(classifier, raw), reference.test).mean, rel=1e-3)
    assert found.recognised == (recognition(classifier, raw, reference.labels) if model.classes else None)
    assert found.evaluations == calls
    assert found.seconds > 0
    assert found.ratio.mean == found.distance.mean / reference.floor.mean


def test_samples_that_are_not_finite_are_infinitely_far(digits: Dataset, classifier: Classifier) -> None:
    settings = DiffusionSettings(network="mlp", width=16, depth=1, sampling_steps=2)
    model = build_model(DiffusionRecipe(model=settings), digits.spec).eval()
    next(model.denoiser.parameters()).data.fill_(math.nan)
    found = measure(model, Reference.of(classifier, digits, 30), _cell(), partial(provenance, model, 7))
    assert found.distance.mean == math.inf


def test_distances_are_kept_and_merged(tmp_path: Path) -> None:
    cells = [_cell(), _cell(steps=8), _cell(seed=4)]
    assert read_distances(tmp_path) == {}
    for number, cell in enumerate(cells):
        add_distance(tmp_path, _distance(cell, number + 1.0))
    add_distance(tmp_path, _distance(cells[0], math.inf))
    found = read_distances(tmp_path)
    assert [found[cell].distance.mean for cell in cells] == [math.inf, 2.0, 3.0]
    for damaged in ("{", '{"format": 1, "distances": [1]}', "[]"):
        (tmp_path / "distances.json").write_text(damaged)
        with pytest.raises(InputError, match="damaged"):
            read_distances(tmp_path)
    (tmp_path / "distances.json").write_text(json.dumps({"format": 2, "distances": []}))
    with pytest.raises(InputError, match="newer jensen"):
        read_distances(tmp_path)


def test_every_sampler_has_its_own_look_in_the_picture() -> None:
    samplers = (*SAMPLERS, "one of the future")
    drawn = [
        _distance(_cell(sampler=sampler, steps=steps), 10.0 + i + steps)
        for i, sampler in enumerate(samplers)
        for steps in (20, 5)
    ]
    figure = distances_chart([*drawn, _distance(_cell(steps=7), math.inf)])
    assert figure is not None
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lines = {container.get_label(): container.lines[0].get_xydata().tolist() for container in axes.containers}
    assert lines["heun"] == [[5, 17], [20, 32]]
    assert list(lines) == list(samplers)
    looks = {(data.get_marker(), data.get_linestyle()) for data in (one.lines[0] for one in axes.containers)}
    assert len(looks) == len(samplers)  # told apart in greyscale too
    assert distances_chart([_distance(_cell(sampler=None, steps=None, guidance=None), 3.0)]) is None


def test_the_table_fits_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    rows = [_distance(_cell(sampler="dpm-solver++-sde", steps=1000), 1234.5), _distance(_cell(sampler=None), math.inf)]
    Console(width=80).print(distances_table(rows, _share(97, 100)))
    wide = _distance(_cell(sampler="dpm-solver++-sde", steps=100000), 1234567.25)
    wide = wide.model_copy(update={"recognised": _share(970, 1000), "evaluations": 123456.0, "seconds": 1234.5})
    Console(width=80).print(distances_table([wide], None))
    text = capsys.readouterr().out
    for word in ("1234.50 ± 0.50", "617 ± 31", "training split", "97.0 ± 1.9 %", "dpm-solver++-sde", "1000"):
        assert word in text
    for word in ("1234567.25 ± 0.50", "617284 ± 30864", "97.0 ± 0.5", "1.235e+05", "1.23e+06", "100000"):
        assert word in text
    assert "…" not in text


def test_a_floor_that_may_be_0_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    far, near = _distance(_cell(), 30.0), _distance(_cell(), 30.0)
    near = near.model_copy(update={"floor": Estimate(0.2, 0.1, 30)})
    for one, said in ((far, False), (near, True)):
        Console(width=80).print(distances_table([one], None))
        assert ("the ratio to it is not to be trusted" in " ".join(capsys.readouterr().out.split())) == said
