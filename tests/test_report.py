"""The report: one page that needs no network, shows every picture, escapes what users chose, for every kind of data."""

import base64
import itertools
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from markupsafe import escape
from pages import HOSTILE, Page
from PIL import Image
from reports import WORDS, results_of

from jensen.data.examples import Dataset
from jensen.data.options import ReadOptions
from jensen.diffusion.model import DiffusionModel
from jensen.evaluation.evaluation import evaluate
from jensen.evaluation.exhibits import make_exhibits
from jensen.evaluation.scores import score
from jensen.evaluation.settings import EvaluationSettings
from jensen.evaluation.yardsticks import Yardsticks
from jensen.randomness import generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.families import Recipe, read_recipe
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.report.again import toml
from jensen.report.charts import label_symbols, latent_plane, loss_curve, marginals, plane
from jensen.report.glossary import FORMULAS
from jensen.report.pages import write_report
from jensen.report.render import _explained

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "src/jensen/report"
TEMPLATES = REPORT / "templates"

METRICS: list[dict[str, Any]] = [
    {"step": 50, "loss": 90.0, "learning_rate": 1e-3},
    {"step": 100, "loss": 80.0, "learning_rate": 1e-3},
    {"step": 100, "validation_bound": -82.0, "validation_standard_error": 1.0},
    {"step": 150, "loss": 78.0, "learning_rate": 1e-3},
    {"step": 200, "validation_bound": -83.0, "validation_standard_error": 1.0},
]


def images(count: int, *shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (count, *shape), dtype, endpoint=True)


def floats(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def read(folder: Path, recipe: Recipe, **arrays: np.ndarray) -> Dataset:
    np.savez(folder / "data.npz", **arrays)
    return load_dataset(recipe.model_copy(update={"data": str(folder / "data.npz")}))


def report(
    folder: Path,
    recipe: Recipe,
    metrics: list[dict[str, Any]],
    more: dict[str, Any] | None = None,
    **arrays: np.ndarray,
) -> Page:
    """The parsed report of an untrained model on arrays that are read from a file; `more` are fields of `Results`."""
    dataset = read(folder, recipe, **arrays)
    model = build_model(recipe, dataset.spec)
    settings = EvaluationSettings(draws=2, samples=4, further_examples=3)
    evaluation = evaluate(model, dataset.test, dataset.spec.preparation, settings, f"test of {HOSTILE}")
    results = results_of(
        f"run {HOSTILE}", folder, recipe, dataset.spec, model, dataset.test, evaluation, metrics=metrics, **(more or {})
    )
    path = write_report(results)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


NAMES = np.array(["b & b", HOSTILE, "$c_", "日本"])
SMALL = VAESettings(latent_dims=3, hidden=(8,), fit_steps=5)
BINARY = VAESettings(latent_dims=2, hidden=(8,), fit_steps=5, likelihood="bernoulli")
GAUSSIAN = VAESettings(latent_dims=1, hidden=(8,), fit_steps=5, likelihood="gaussian")
IMAGE_PICTURES = {"samples", "sample-means", "real", "reconstructions", "latent", "bounds", "lowest-01", "lowest-12"}
VECTOR_PICTURES = {"marginals", "pairs", "reconstructions", "latent", "bounds", "lowest"}
KINDS = {
    "grey, named labels": (SMALL, {"x": images(120, 5, 4), "y": NAMES[np.arange(120) % 4]}, IMAGE_PICTURES),
    "colour, binarised": (BINARY, {"x": images(120, 6, 5, 3)}, IMAGE_PICTURES),
    "16 bits": (GAUSSIAN, {"x": images(120, 4, 4, dtype="uint16")}, IMAGE_PICTURES),
    "vectors": (SMALL, {"x": floats(120, 7), "y": np.arange(120) % 3}, VECTOR_PICTURES),
    "arrays": (SMALL, {"x": floats(120, 2, 3, 2, 2, 2)}, VECTOR_PICTURES),
    "numbers": (GAUSSIAN, {"x": floats(120, 1)}, VECTOR_PICTURES - {"pairs"}),
}


DIFFUSION = DiffusionSettings(
    network="mlp", width=8, depth=1, chain_steps=40, bound_terms=4, sampling_steps=4, conditional=False
)
UNET = DiffusionSettings(
    network="unet", widths=(8,), blocks=1, chain_steps=40, bound_terms=4, sampling_steps=4, conditional=False
)


@pytest.mark.parametrize("kind", ["vectors", "colour, binarised"])
def test_a_diffusion_model_has_no_reconstructions_and_its_own_words(tmp_path: Path, kind: str) -> None:
    _, arrays, expected = KINDS[kind]
    recipe = DiffusionRecipe(model=DIFFUSION if kind == "vectors" else UNET)
    page = report(tmp_path, recipe, METRICS, **{name: array[:40] for name, array in arrays.items()})
    files = {path.stem for path in (tmp_path / "pictures").iterdir()}
    lowest = {name for name in expected if "lowest" in name and name != "lowest-12"}
    assert {"samples" if kind != "vectors" else "marginals", "latent", "loss", *lowest} <= files
    assert files.isdisjoint({"reconstructions", "sample-means"})
    assert {"bits", "rate-distortion"} <= files
    assert files.isdisjoint({"noising", "denoising"}) == (kind == "vectors")  # films are of images
    assert "A diffusion model with" in page.shown
    for text in ("denoising", "prior", "(5.11)", "ODE"):
        assert text in page.shown
    assert "(4." not in page.shown


def test_a_model_with_labels_and_noise_levels_shows_samples_by_label_films_and_costs(tmp_path: Path) -> None:
    recipe = DiffusionRecipe(model=UNET.model_copy(update={"conditional": True, "sampling_steps": 50}))
    page = report(tmp_path, recipe, METRICS, x=images(80, 6, 5), y=NAMES[np.arange(80) % 4])
    files = {path.stem: path for path in (tmp_path / "pictures").iterdir()}
    assert {"samples", "noising", "denoising", "estimates", "bits", "rate-distortion"} <= set(files)
    columns, rows = 10, 4
    width, height = Image.open(files["samples"]).size
    assert width == 2 + columns * (7 * 5 + 2)  # 6x5 images, enlarged 7 times, and gaps of 2
    assert height == 2 + rows * (7 * 6 + 2)
    for name in ("noising", "denoising", "estimates"):
        assert Image.open(files[name]).size == (2 + columns * 37, 2 + 5 * 44)
    beside = page.text.split("<h2>Samples</h2>")[1].split("</section>")[0]
    assert [beside.index(f"<span>{escape(str(name))}</span>") for name in sorted(NAMES)] == sorted(
        beside.index(f"<span>{escape(str(name))}</span>") for name in NAMES
    )
    for text in ("Each row was sampled with", "log-SNR∞", "From data to noise, and back", "Where the bits go"):
        assert text in page.shown
    assert page.tags.isdisjoint({"script", "link"})


def test_vectors_are_compared_with_samples_of_their_own_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples whose labels take turns would be other data than examples of which most have one label."""
    asked: list[torch.Tensor] = []
    sample = DiffusionModel.sample

    def noted(model: DiffusionModel, n: int, *, labels: torch.Tensor, **rest: Any) -> torch.Tensor:
        asked.append(labels)
        return sample(model, n, labels=labels, **rest)

    monkeypatch.setattr(DiffusionModel, "sample", noted)
    recipe = DiffusionRecipe(model=DIFFUSION.model_copy(update={"conditional": True}))
    arrays = {"x": floats(120, 3), "y": (np.arange(120) % 10 == 0).astype(int)}
    report(tmp_path, recipe, METRICS, **arrays)
    (labels,) = asked
    assert labels.tolist() == read(tmp_path, recipe, **arrays).test.labels.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_shows_every_picture_and_needs_nothing_else(tmp_path: Path, kind: str) -> None:
    settings, arrays, expected = KINDS[kind]
    validated = kind != "arrays"
    recipe = VAERecipe(model=settings, read=ReadOptions(validation_fraction=0.1 if validated else 0.0))
    page = report(tmp_path, recipe, METRICS if validated else METRICS[:2], **arrays)
    files = {path.read_bytes(): path.stem for path in (tmp_path / "pictures").iterdir()}
    assert expected | {"loss"} <= set(files.values())
    prefix = "data:image/png;base64,"
    embedded = [base64.b64decode(image["src"].removeprefix(prefix), validate=True) for image in page.images]
    assert sorted(embedded) == sorted(files)
    assert all(image["alt"] for image in page.images)
    links = [address for address in page.addresses if not address.startswith(prefix)]
    for link in links:  # to what is explained on the page, and to files beside it
        assert f'id="{link[1:]}"' in page.text if link.startswith("#") else (tmp_path / unquote(link)).exists(), link
    assert {f"pictures/{name}.png" for name in files.values()} <= set(links)
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "base"})
    assert "url(" not in page.text
    assert "http:" not in page.text
    assert "https:" not in page.text
    assert len(page.text) < 2_000_000
    assert f"run {HOSTILE}" in page.shown
    assert f"evaluated on test of {HOSTILE}" in page.shown
    if "named" in kind:
        assert f"0 = {HOSTILE}, 1 = $c_, 2 = b & b, 3 = 日本." in page.shown
        assert f"label {HOSTILE}" in page.shown
    for path in (tmp_path / "pictures").iterdir():
        assert min(Image.open(path).size) > 30


def test_a_report_of_few_examples_and_no_log(tmp_path: Path) -> None:
    recipe = VAERecipe(model=SMALL, read=ReadOptions(validation_fraction=0.0, test_fraction=0.1))
    page = report(tmp_path, recipe, [], x=images(20, 4, 4))
    assert "Training" not in page.shown
    assert not (tmp_path / "pictures/loss.png").exists()


def test_the_report_tells_how_to_make_the_run_again_and_a_failed_one_leaves_it(tmp_path: Path) -> None:
    recipe = VAERecipe(data='a "strange"\\näme', seed=5, model=SMALL)
    again = read_recipe(tomllib.loads(toml(recipe.model_dump(mode="json"))), "the report")
    assert again == recipe
    page = report(tmp_path, recipe, METRICS[:2], x=images(20, 4, 4))
    assert toml(recipe.model_dump(mode="json")) in page.shown
    assert "jensen evaluate again \\\n    --draws 2 --samples 4 --further-examples 3 --seed 0" in page.shown
    with pytest.raises(KeyError):
        report(tmp_path, recipe, [{"loss": 1.0}], x=images(20, 4, 4))
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page.text


# ---------------------------------------------------------------------------------------------- charts


def test_the_loss_chart_marks_the_best_validation() -> None:
    figure = loss_curve(METRICS)
    (axes,) = figure.axes
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-1] == "best step, 100"
    assert axes.get_xscale() == "linear"
    long = [{"step": step, "loss": 100 / step} for step in range(50, 5000, 50)]
    assert loss_curve(long).axes[0].get_xscale() == "log"
    assert loss_curve([]) is None
    apart = loss_curve(METRICS, comparable=False)
    assert [len(axes.lines) for axes in apart.axes] == [1, 2]  # the loss; the bound and its best step


def test_samples_beyond_the_data_are_missing_from_their_histogram() -> None:
    data = np.random.default_rng(0).normal(size=(40, 1))
    for beyond in (0.5, 1.0):
        samples = np.where(np.arange(40)[:, None] < 40 * beyond, 1e28, data)
        (axes,) = marginals(data, samples, [0]).axes
        filled = sum(bar.get_height() for bar in axes.containers[0])
        outline = axes.patches[-1].get_xy()[:, 1]
        assert filled == pytest.approx(1)
        assert outline[1::2].sum() == pytest.approx(1 - beyond)


@pytest.mark.parametrize("shape", [(200, 6), (20, 50)], ids=["tall", "wide"])
def test_the_latent_plane_is_that_of_the_principal_components(shape: tuple[int, int]) -> None:
    codes = torch.randn(shape, generator=generator(0)) @ torch.diag(torch.linspace(3, 0.1, shape[1]))
    points, names = plane(codes)
    centred = (codes - codes.mean(0)).double().numpy()
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(left[:, :2] * singular[:2]), rtol=1e-6, atol=1e-6)
    share = 100 * singular[0] ** 2 / (singular**2).sum()
    assert names[0] == f"principal component 1: {share:.0f} % of the variance"


def test_labels_are_told_apart_without_colour() -> None:
    assert label_symbols(10, None) == list("0123456789")
    assert label_symbols(3, ["x", "y", "z"]) == ["x", "y", "z"]
    assert label_symbols(3, ["cat", "dog", "$"]) == ["0", "1", "2"]
    assert label_symbols(100, None) is None


@pytest.mark.parametrize("dims", [1, 2, 5])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_latent_plane_of_any_dimension_can_be_drawn(tmp_path: Path, dims: int, labelled: bool) -> None:
    from jensen.report.charts import save_chart

    codes = torch.randn(80, dims, generator=generator(0))
    labels = torch.arange(80) if labelled else None
    save_chart(latent_plane(codes, labels, None), tmp_path / "latent.png")
    assert np.asarray(Image.open(tmp_path / "latent.png").convert("L")).std() > 5


def test_a_loss_that_is_no_bound_is_not_drawn_in_nats() -> None:
    unvalidated = [line for line in METRICS if "loss" in line]
    assert loss_curve(unvalidated).axes[0].get_ylabel() == "nats per example"
    assert loss_curve(unvalidated, comparable=False).axes[0].get_ylabel() == "loss"
    assert [axes.get_ylabel() for axes in loss_curve(METRICS, comparable=False).axes] == ["loss", "nats per example"]


def test_what_matplotlib_remarks_does_not_reach_the_reader(tmp_path: Path) -> None:
    """Its fonts have no sign for some names; a warning is an error here, as in every test."""
    from jensen.bound import Estimate
    from jensen.inference.prediction import CalibrationBin, PredictionRecord
    from jensen.report.charts import save_chart
    from jensen.report.predictions import confusion_chart

    share = Estimate(0.5, 0.1, 20)
    one = CalibrationBin(low=0.0, high=1.0, confidence=0.5, right=share)
    record = PredictionRecord.model_construct(
        confusion=((3, 1), (0, 4)), class_names=("日本", "$x^$"), calibration=(one,)
    )
    save_chart(confusion_chart(record), tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000


# ---------------------------------------------------------------------------------------------- words


def test_every_formula_on_a_page_is_explained_and_in_the_lecture() -> None:
    lecture = set(re.findall(r"\((\d\.\d+)\)", (ROOT / "docs/lecture.md").read_text()))
    words = " ".join(repr(words) for words in WORDS.values())
    templates = " ".join(path.read_text() for path in TEMPLATES.iterdir())
    quoted = set(re.findall(r"\((\d\.\d+)\)", f"{words} {templates} {' '.join(FORMULAS.values())}"))
    assert quoted <= set(FORMULAS) <= lecture


def test_the_report_knows_no_family() -> None:
    for path in [*REPORT.rglob("*.py"), *TEMPLATES.iterdir()]:
        assert not re.search(r"\bvaes?\b|variational|diffusion", path.read_text(), re.IGNORECASE), path.name


def test_the_templates_are_part_of_the_package() -> None:
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["jensen"]
    for path in TEMPLATES.iterdir():
        assert any(path.relative_to(REPORT.parent).match(pattern) for pattern in package_data)


def test_terms_are_explained_once_and_not_inside_other_links_or_code() -> None:
    used: set[str] = set()
    text = "<p>nats and <code>nats</code>, ELBO (4.6), (9.9), nats &lt;b&gt;</p><a href='x'>nats</a>"
    found = _explained(text, used)
    assert used == {"nats", "ELBO", "4.6"}
    assert found.count('href="#nats"') == 1
    assert "<code>nats</code>" in found
    assert "<a href='x'>nats</a>" in found
    assert "(9.9), nats &lt;b&gt;" in found
    Page(found)


# ---------------------------------------------------------------------------------------------- what happened

TRAINED: dict[str, Any] = {"trained_steps": 508, "weights_step": 400}


@pytest.mark.parametrize(
    ("validation", "metrics", "more", "said", "not_said"),
    [
        (0.0, METRICS[:2], {}, "There were no validation examples", "first validation"),
        (0.1, METRICS[:2], {}, "ended at step 508, before its first validation", "no validation examples"),
        (0.1, METRICS, {}, "the negative bound on the validation examples", "no validation examples"),
        (0.1, METRICS, {"finished": False}, "stopped at step 508 of 2,000. Continue it with: jensen resume", "early"),
        (0.1, METRICS, {}, "ended early, at step 508 of 2,000", "unfinished"),
    ],
)
def test_the_report_says_how_training_went(
    tmp_path: Path, validation: float, metrics: list[dict[str, Any]], more: dict[str, Any], said: str, not_said: str
) -> None:
    recipe = VAERecipe(model=SMALL, read=ReadOptions(validation_fraction=validation))
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": 2000})})
    page = report(tmp_path, recipe, metrics, {**TRAINED, **more}, x=images(40, 4, 4))
    shown = " ".join(page.shown.split())
    assert "trained for 508 steps" in shown
    assert "weights of step 400 were evaluated" in shown
    assert said in shown
    assert not_said not in shown


def test_names_yardsticks_and_the_way_back_are_shown(tmp_path: Path) -> None:
    more = {
        "names": lambda number: f"scan {number} {HOSTILE}.png",
        "history": [f"after step 9: steps from 9 to {HOSTILE}"],
        "yardsticks": Yardsticks(uniform=8.0, png=7.25, examples=4, fitted=30),
        "comparison": tmp_path / "both #1" / "report.html",
    }
    recipe = VAERecipe(model=SMALL)
    (tmp_path / "both #1").mkdir()
    (tmp_path / "both #1" / "report.html").write_text("")
    page = report(tmp_path, recipe, METRICS, more, x=images(40, 4, 4))
    number = read(tmp_path, recipe, x=images(40, 4, 4)).test
    assert all(f"scan {row} {HOSTILE}.png" in page.shown for row in range(len(number)))
    assert re.search(r"SHA-256 [0-9a-f]{64}", " ".join(page.shown.split()))
    assert f"after step 9: steps from 9 to {HOSTILE}" in page.shown
    assert "all values equally likely: 8.000" in " ".join(page.shown.split())
    assert "both%20%231/report.html" in page.addresses
    assert page.tags.isdisjoint({"script", "link"})


def test_exhibits_are_what_the_model_says_of_the_chosen_examples(tmp_path: Path) -> None:
    recipe = VAERecipe(model=SMALL)
    dataset = read(tmp_path, recipe, x=images(300, 4, 4))
    model, preparation = build_model(recipe, dataset.spec), dataset.spec.preparation
    scores = score(model, dataset.test, preparation, draws=2, seed=3)
    found = make_exhibits(model, dataset.test, preparation, scores, WORDS["vae"].selection(image=True), seed=3)
    assert found.pairs is not None
    assert found.lowest is not None
    assert found.encoded is not None
    torch.testing.assert_close(found.pairs.x, preparation(dataset.test.x[found.pairs.rows]))
    torch.testing.assert_close(found.pairs.reconstructions, model.reconstruct(found.pairs.x))
    torch.testing.assert_close(found.codes, model.encode(preparation(dataset.test.x[found.encoded])))
    torch.testing.assert_close(found.samples, model.sample(100, seed=3))
    torch.testing.assert_close(found.sample_means, model.sample_mean(100, seed=3))
    assert torch.equal(scores.bound[found.lowest.rows], scores.bound.sort().values[:12])
    assert found.noising is found.drawn is None


@pytest.mark.parametrize("days", [20, 1000, 14_000])
def test_labels_of_dates_do_not_overlap(days: int, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from jensen.data.load import load_data
    from jensen.report.column_charts import column_charts

    moments = np.datetime64("1985-03-01") + np.random.default_rng(0).integers(0, days, 200)
    (tmp_path / "a.csv").write_text("\n".join(["day,other", *(f"{day},{k % 7}" for k, day in enumerate(moments))]))
    data = load_data(tmp_path / "a.csv")
    matrix = data.train.x[:].double().numpy()
    figure = column_charts(matrix, matrix, data.spec.table)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    boxes = [
        label.get_window_extent()
        for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if low <= place <= high
    ]
    assert len(boxes) > 1
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
