"""Several models side by side: differences in units that both share, or none; one page with links to the others."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import HOSTILE, Page
from reports import WORDS, results_of
from torch import Tensor, nn

from jensen.bound import Elbo, Estimate
from jensen.data.examples import Examples
from jensen.data.options import ReadOptions
from jensen.data.preparation import Dequantise, DynamicBinarisation, Levels, Preparation, Standardise, Threshold
from jensen.data.spec import DataSpec
from jensen.evaluation.evaluation import evaluate
from jensen.evaluation.exhibits import Exhibits, make_exhibits
from jensen.evaluation.measure import Measure, typeset
from jensen.evaluation.scores import score
from jensen.evaluation.settings import EvaluationSettings
from jensen.model import AbstractLatentVariableModel, Batch, Loss
from jensen.randomness import Noise, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.families import Recipe
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.report.comparison import comparison_groups, comparison_table, difference
from jensen.report.pages import write_comparison, write_report
from jensen.report.results import Results

DATA, L = 5, 16


class Flat(AbstractLatentVariableModel):
    """log p(x) is one number for every x, plus a slope times its sum."""

    def __init__(self, nats: float, slope: float = 0.0) -> None:
        super().__init__()
        self.shape, self.nats, self.slope, self.nothing = (DATA,), nats, slope, nn.Parameter(torch.zeros(()))

    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        return Elbo(self.nats + self.slope * x.double().sum(1), {})

    def loss(self, batch: Batch, *, step: int, noise: Noise) -> Loss:
        raise NotImplementedError

    sample = sample_mean = codes = decode_mean = loss


def raw(count: int, seed: int = 5) -> Examples:
    return Examples(torch.randint(0, L, (count, DATA), generator=generator(seed), dtype=torch.uint8))


def flat(title: str, nats: float, preparation: Preparation, slope: float = 0.0, **options) -> Results:
    """The results of a model whose bound is known."""
    examples = options.pop("examples", raw(300))
    model, settings = Flat(nats, slope), EvaluationSettings(examples=options.pop("chosen", None), **options)
    evaluation = evaluate(model, examples, preparation, settings, "bytes")
    spec = DataSpec.model_construct(preparation=preparation, layout="vector")
    exhibits = Exhibits(parameters=1, labels=())
    return Results(title, Path(), {}, WORDS["vae"], spec, [], evaluation, exhibits, trained_steps=0, weights_step=0)


LEVELS = Levels(dtype="uint8", dimensions=DATA, levels=L)
DEQUANTISE = Dequantise(dtype="uint8", dimensions=DATA, levels=L)
BINARY = DynamicBinarisation(dtype="uint8", dimensions=DATA, levels=L)


def test_the_difference_is_paired_and_its_error_is_that_of_the_differences() -> None:
    first, second = flat("first", -9.0, LEVELS, slope=2.0), flat("second", -8.0, LEVELS, slope=2.1)
    found = difference(first, second)
    x = LEVELS(raw(300).x).double().sum(1)
    assert found.nats.mean == pytest.approx(1 + 0.1 * x.mean().item())
    assert found.nats.standard_error == pytest.approx(0.1 * x.std().item() / math.sqrt(300))
    assert found.nats.standard_error < first.evaluation.elbo.nats.standard_error / 10
    assert found.bits_per_dimension.mean == pytest.approx(-found.nats.mean / (DATA * math.log(2)))  # fewer is better


def test_a_mass_and_a_density_of_the_same_integers_are_compared_in_raw_units() -> None:
    """The uniform distribution on L levels, and the uniform density on [-1, 1): both cost log2 L bits."""
    mass, density = flat("mass", -DATA * math.log(L), LEVELS), flat("density", -DATA * math.log(2), DEQUANTISE)
    found = difference(mass, density)
    assert found.nats.mean == pytest.approx(0, abs=1e-9)
    groups, missing = comparison_groups([mass, density])
    assert missing == []
    for title in ("mass", "density"):
        assert groups[title]["ELBO"].nats.mean == pytest.approx(-DATA * math.log(L))
        assert groups[title]["ELBO"].bits_per_dimension.mean == pytest.approx(math.log2(L))


def test_floats_with_a_scale_per_feature_are_compared() -> None:
    """The two preparations are equal values, although each keeps tensors of its own after its first use."""
    examples = Examples(torch.randn(300, DATA, generator=generator(5), dtype=torch.float64))
    scales = {"shift": (0.0,) * DATA, "scale": (2.0,) * DATA, "minimum": -9.0, "maximum": 9.0}
    one, other = (Standardise(dtype="float64", dimensions=DATA, resolution=1e-3, **scales) for _ in range(2))
    first, second = flat("first", -9.0, one, examples=examples), flat("second", -8.0, other, examples=examples)
    found = difference(first, second)
    assert isinstance(found, Measure)
    assert found.nats.mean == pytest.approx(1)
    assert one == other
    assert hash(one) == hash(other)
    assert one != one.model_copy(update={"shift": (1.0,) * DATA})


def test_a_difference_that_one_example_carries_is_doubted() -> None:
    examples = raw(300)
    first, second = flat("first", -9.0, LEVELS, examples=examples), flat("second", -8.0, LEVELS, examples=examples)
    second.scores.bound[7] -= 100
    assert comparison_groups([first, second])[1] == [
        "second − first: 1 of 300 values carries the spread: do not trust the error"
    ]
    second.evaluation.__dict__["warnings"] = ("the bound is bad",)
    said = comparison_table([first, second]).caption.plain
    assert "Warning: second: the bound is bad" in said
    assert "1 of 300 values carries the spread" in said


def test_what_cannot_be_compared_is_left_out_and_said() -> None:
    first = flat("first", -9.0, LEVELS)
    for other, reason in (
        (flat("other", -8.0, LEVELS, draws=4), ""),
        (flat("other", -8.0, LEVELS, examples=raw(300, seed=6)), "not evaluated on the same raw examples"),
        (flat("other", -8.0, LEVELS, examples=raw(300)[:200]), "not evaluated on the same raw examples"),
        (flat("other", -8.0, LEVELS, chosen=7), "different examples of the test data"),
        (flat("other", -8.0, BINARY), "binarised data differ"),
    ):
        groups, missing = comparison_groups([first, other])
        assert len(groups) == (2 if reason else 3)
        assert len(missing) == (1 if reason else 0)
        assert all(reason in text for text in missing)


def test_binarised_data_are_compared_only_where_they_are_the_same() -> None:
    one = flat("one", -3.0, BINARY, slope=0.5)
    assert difference(one, flat("two", -2.0, BINARY, slope=0.5)).nats.standard_error < 1e-9
    assert "binarised" in difference(one, flat("two", -2.0, BINARY, seed=1))
    half = Threshold(dtype="uint8", dimensions=DATA, levels=L)  # the same whatever the seed
    assert isinstance(difference(flat("one", -3.0, half), flat("two", -2.0, half, seed=1)), Measure)


# ---------------------------------------------------------------------------------------------- the page

VAE = VAERecipe(model=VAESettings(latent_dims=3, hidden=(8,), fit_steps=5))
DIFFUSION = DiffusionRecipe(
    model=DiffusionSettings(widths=(8,), blocks=1, chain_steps=40, bound_terms=4, sampling_steps=12)
)


def links_of(page: Page) -> list[str]:
    """The links that lead out of a page to other pages."""
    return [address for address in page.addresses if address.endswith(".html")]


def trained_not_at_all(folder: Path, recipe: Recipe, title: str, recognition: Estimate | None = None) -> Results:
    """The results of a model with random weights on the images in the folder above, and its report."""
    recipe = recipe.model_copy(update={"data": str(folder.parent / "data.npz"), "read": ReadOptions()})
    dataset = load_dataset(recipe)
    model, settings = build_model(recipe, dataset.spec), EvaluationSettings(draws=2, samples=4, further_examples=3)
    evaluation = evaluate(model, dataset.test, dataset.spec.preparation, settings, f"test of {HOSTILE}")
    folder.mkdir()
    more = {"metrics": [{"step": 7, "loss": 1.0}], "recognition": recognition}
    results = results_of(title, folder, recipe, dataset.spec, model, dataset.test, evaluation, **more)
    write_report(results)
    return results


def test_one_page_shows_both_models_and_links_to_their_own(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 6, 5), np.uint8)
    np.savez(tmp_path / "data.npz", x=images, y=np.array(["a & b", HOSTILE, "c"])[np.arange(60) % 3])
    vae = trained_not_at_all(tmp_path / "a vae #1", VAE, "a vae #1")
    recognised = Estimate(0.9721, 0.0074, 500)
    diffusion = trained_not_at_all(tmp_path / "diffusion", DIFFUSION, f"diffusion {HOSTILE}", recognised)
    assert "recognises the requested label in 97.2 ± 0.7 % of 500 samples" in (
        (diffusion.folder / "report.html").read_text()
    )
    path = write_comparison(tmp_path, [vae, diffusion], f"title {HOSTILE}")
    page = Page(path.read_text(encoding="utf-8"))
    for text in (
        f"title {HOSTILE}",
        "a vae #1",
        "97.2 ± 0.7 % of 500 samples",
        "unknown",
        "variational autoencoder",
        "Differences of the ELBO on each example",
        f"diffusion {HOSTILE} − a vae #1",
        f"diffusion {HOSTILE}: where the bits go",
        f"diffusion {HOSTILE}: from data to noise, and back",
        "L_4, 3 examples",
        "ODE, 3 examples",
        f"{vae.exhibits.parameters:,}",
    ):
        assert text in page.shown
    assert f"<span>{HOSTILE}</span>" not in page.text
    assert page.tags.isdisjoint({"script", "link", "iframe"})
    assert links_of(page) == ["a%20vae%20%231/report.html", "diffusion/report.html"]
    for results in (vae, diffusion):  # and from each of them back to this page
        own = Page((results.folder / "report.html").read_text(encoding="utf-8"))
        assert links_of(own)[0] == "../report.html"
    pictures = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {"1-samples", "1-sample-means", "2-real"} | {
        f"2-{name}" for name in ("samples", "noising", "denoising", "estimates", "bits", "rate-distortion")
    }
    assert len(page.images) == len(pictures)
    found = difference(vae, diffusion)
    assert isinstance(found, Measure)
    assert typeset(found.nats).partition(" ")[0] in page.shown


def test_each_row_of_samples_was_asked_for_its_label(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 4, 4), np.uint8)
    np.savez(tmp_path / "data.npz", x=images, y=np.arange(60) % 3)
    dataset = load_dataset(DIFFUSION.model_copy(update={"data": str(tmp_path / "data.npz")}))
    model, preparation = build_model(DIFFUSION, dataset.spec), dataset.spec.preparation
    for parameter in model.parameters():  # what is untrained ignores its label
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator(1))
    scores = score(model, dataset.test, preparation, draws=2, seed=0)
    selection = WORDS["diffusion"].selection(image=True, compared=True)
    samples = make_exhibits(model, dataset.test, preparation, scores, selection, seed=0).samples
    assert samples is not None
    assert len(samples) == 30
    for label in range(3):
        asked = model.sample(10, first=10 * label, labels=torch.full((10,), label))
        torch.testing.assert_close(samples[10 * label : 10 * label + 10], asked, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(asked, model.sample(10, first=20, labels=torch.zeros(10).long()), atol=1e-2)


def test_a_link_survives_moving_the_whole_tree_and_is_left_out_without_a_report(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 4, 4), np.uint8)
    np.savez(tmp_path / "data.npz", x=images)
    one, two = (trained_not_at_all(tmp_path / name, VAE, name) for name in ("one", "two"))
    shutil.move(two.folder / "report.html", tmp_path / "elsewhere.html")
    page = Page(write_comparison(tmp_path / "out" / "deep", [one, two]).read_text(encoding="utf-8"))
    assert links_of(page) == ["../../one/report.html"]
