"""A VAE of tables: the encoder of parts, p(column | others), rows given columns, training and its resumption."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import jensen
from jensen.cli import main
from jensen.diffusion import DiffusionModel
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.inference.columns import draw_given, predict_column, score_columns
from jensen.inference.imputation import impute
from jensen.inference.impute_vae import ImportanceResampling, MetropolisWithinGibbs
from jensen.inference.imputer import ExampleNoise
from jensen.inference.proposals import Proposals
from jensen.likelihood.columns import ColumnsLikelihood
from jensen.likelihood.laws import Codes, Real
from jensen.model import Batch
from jensen.nets import ColumnInput, TableEncoder
from jensen.randomness import Noise, generator
from jensen.recipe.families import family_of
from jensen.recipe.family import ImputationWish
from jensen.recipe.latent.settings import LatentRecipe
from jensen.recipe.vae.settings import VAERecipe
from jensen.training.checkpoint import checkpoints
from jensen.vae import VAE, AmortisedPosterior, ElboObjective, PartlyObserved, PartsObjective
from jensen.vae.missing import HIDDEN, hidden
from jensen.vae.parts import randomly_hidden

CLASSES = 3
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, -0.5, 1.0]], dtype=torch.float64)  # of column 1 and 2, times sign of z


class SignDecoder(nn.Module):
    """z (batch, 1) -> outputs of two columns of codes and a real one; they depend on the sign of z only."""

    def forward(self, z: Tensor) -> Tensor:
        sign = torch.sign(z)
        first, second = sign * LOGITS[0], sign * LOGITS[1]
        mean = torch.cat([torch.zeros_like(z), sign, torch.full_like(z, -0.5)], -1)  # weight, mean, log scale
        return torch.cat([first, second, mean], -1)


class Still(nn.Module):
    """A q that is N(0, 1.2²) for every x."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, math.log(1.2)], dtype=x.dtype).expand(len(x), 2)


def exact() -> VAE:
    """p(x) = ½ Σ_s p(x|s) with s = ±1, the sign of z; float64."""
    likelihood = ColumnsLikelihood([Codes(CLASSES), Codes(CLASSES), Real(components=1)])
    posterior = AmortisedPosterior(Still(), 1, None, Still())
    model = VAE(posterior, SignDecoder(), PartlyObserved(likelihood, torch.zeros(3, dtype=torch.bool)))
    model.register_parameter("anchor", nn.Parameter(torch.zeros(1, dtype=torch.float64)))  # gives it a device
    return model.double()


def log_tables() -> tuple[Tensor, Tensor]:
    """log p(x_1 = k | s), log p(x_2 = k | s), each (2, CLASSES), for s = -1, 1."""
    signs = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    return (signs * LOGITS[0]).log_softmax(1), (signs * LOGITS[1]).log_softmax(1)


def density(x: Tensor) -> Tensor:
    """p(x_3 | s) for s = -1, 1, (2, batch)."""
    scale = math.exp(-0.5) + 1e-3
    normal = Gaussian(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.full((1,), scale).double(), 0)
    return normal.log_prob_by_dimension(x).exp()


ROWS = torch.tensor([[0.0, 2.0, 0.9], [2.0, 1.0, -0.2], [1.0, 0.0, 0.1]], dtype=torch.float64)


def exact_class_probabilities(x: Tensor) -> Tensor:
    """p(x_1 | x_2, x_3), (batch, CLASSES), by enumeration of s."""
    first, second = log_tables()
    joint = 0.5 * second[:, x[:, 1].long()].exp() * density(x[:, 2])  # (2, batch)
    return (joint / joint.sum(0)).mT @ first.exp()


def test_p_of_a_column_given_the_others_is_that_of_an_enumeration() -> None:
    found = predict_column(exact(), ROWS, 0, draws=4000)
    classes = found.classes()
    torch.testing.assert_close(classes.probabilities.sum(1), torch.ones(3).double())
    # 9 numbers, each within 5 standard errors: a false alarm has probability 5e-6
    gap = (classes.probabilities - exact_class_probabilities(ROWS)).abs()
    assert (gap < 5 * classes.standard_error).all()
    assert (classes.standard_error < 0.02).all()
    torch.testing.assert_close(found.log_prob(ROWS[:, 0]).exp(), classes.probabilities[range(3), ROWS[:, 0].long()])
    errors = found.standard_error(ROWS[:, 0]) * found.log_prob(ROWS[:, 0]).exp()
    torch.testing.assert_close(errors, classes.standard_error[range(3), ROWS[:, 0].long()], rtol=1e-4, atol=0)


def test_the_value_of_the_column_itself_is_not_used() -> None:
    changed = ROWS.clone()
    changed[:, 0] = torch.tensor([HIDDEN, math.nan, 0.0])
    first, second = (predict_column(exact(), x, 0, draws=50).classes() for x in (ROWS, changed))
    assert torch.equal(first.log_probabilities, second.log_probabilities)


def test_a_number_has_a_distribution_function_and_its_quantiles() -> None:
    found = predict_column(exact(), ROWS, 2, draws=300)
    for u in (0.02, 0.5, 0.9):
        level = torch.full((3,), u, dtype=torch.float64)
        torch.testing.assert_close(found.cdf(found.quantile(level)), level)
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    integral = torch.trapezoid(torch.stack([found.log_prob(value.expand(3)).exp() for value in x]), x, dim=0)
    torch.testing.assert_close(integral, torch.ones(3).double(), atol=1e-4, rtol=0)


def test_quantiles_of_codes_are_the_first_code_that_reaches_u() -> None:
    found = predict_column(exact(), ROWS, 0, draws=500)
    cumulative = found.classes().probabilities.cumsum(1)
    for u in (0.1, 0.4, 0.8, 0.99):
        level = torch.full((3,), u, dtype=torch.float64)
        assert torch.equal(found.quantile(level), (cumulative < u).sum(1).double())


def test_scores_of_all_columns_are_those_of_each_column_and_of_groups_of_columns() -> None:
    model = exact()
    scores = score_columns(model, ROWS, draws=300, seed=4)
    for field in range(3):
        found = predict_column(model, ROWS, field, draws=300, seed=4)
        torch.testing.assert_close(scores.log_prob[:, field], found.log_prob(ROWS[:, field]))
        torch.testing.assert_close(scores.standard_error[:, field], found.standard_error(ROWS[:, field]))
    pair = score_columns(model, ROWS, [[0, 1]], draws=4000)
    first, second = log_tables()
    joint = 0.5 * density(ROWS[:, 2])
    both = (first[:, ROWS[:, 0].long()] + second[:, ROWS[:, 1].long()]).exp()
    expected = ((joint / joint.sum(0)) * both).sum(0).log()
    assert ((pair.log_prob[:, 0] - expected).abs() < 5 * pair.standard_error[:, 0]).all()  # 3 rows, 2e-6


def test_a_missing_cell_without_a_probability_has_no_score_and_counts_for_no_other() -> None:
    x = ROWS.clone()
    x[0, 1] = math.nan
    scores = score_columns(exact(), x, draws=4000)
    assert scores.log_prob.isnan().nonzero().tolist() == [[0, 1]]
    first, _ = log_tables()
    weights = 0.5 * density(x[:1, 2])
    expected = (weights / weights.sum(0) * first[:, :1].exp()).sum(0).log()
    assert abs(scores.log_prob[0, 0] - expected) < 5 * scores.standard_error[0, 0]  # 6e-7


def test_rows_given_columns_keep_the_columns_and_follow_the_law_of_the_others() -> None:
    row = torch.tensor([HIDDEN, 2.0, 0.9], dtype=torch.float64)
    rows, sizes = draw_given(exact(), row, 1000, samples=100)
    assert torch.equal(rows[:, 1:], row[1:].expand(1000, 2))
    assert (sizes > 20).all()
    shares = torch.bincount(rows[:, 0].long(), minlength=CLASSES) / 1000
    expected = exact_class_probabilities(torch.tensor([[0.0, 2.0, 0.9]]).double())[0]
    # The bias of 100 weighted draws is below 0.004; 3 shares within 5 standard errors: 2e-6
    assert ((shares - expected).abs() < 5 * (expected * (1 - expected) / 1000).sqrt() + 0.004).all()
    again, _ = draw_given(exact(), row, 3, samples=100, first=7)
    assert torch.equal(again, rows[7:10])


def test_other_models_are_refused_in_a_line() -> None:
    model = exact()
    model.posterior.of_parts = None
    with pytest.raises(InputError, match=r"needs a VAE of a table, and this VAE is of other data; .*jensen train vae"):
        predict_column(model, ROWS, 0)
    with pytest.raises(InputError, match=r"needs a VAE, and this is a DiffusionModel; .*jensen train vae"):
        predict_column(object.__new__(DiffusionModel), ROWS, 0)


# ---------------------------------------------------------------------------------------------- the encoder of parts


def test_hidden_cells_are_a_pure_function_of_the_noise_in_any_parts_of_a_batch() -> None:
    x = torch.randn(12, 5, generator=generator(0))
    whole = randomly_hidden(x, Noise(generator(1)))
    assert torch.equal(whole, randomly_hidden(x, Noise(generator(1))))
    parts = [randomly_hidden(x[rows], Noise(generator(1)).part(rows, 12)) for rows in (slice(0, 5), slice(5, 12))]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole[~hidden(whole)], x[~hidden(whole)])
    many = hidden(randomly_hidden(torch.zeros(4000, 20), Noise(generator(2)))).double().mean(1)
    assert abs(many.mean() - 0.5) < 0.03  # 6 standard errors
    assert abs(many.var() - (1 / 12 + 1 / 6 / 20)) < 0.01  # uniform shares, and the noise of 20 cells


def table_vae(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    inputs = [ColumnInput(CLASSES), ColumnInput(CLASSES), ColumnInput(number=True)]
    encoder, of_parts = (TableEncoder(inputs, 4, 16, 1) for _ in range(2))
    likelihood = ColumnsLikelihood([Codes(CLASSES, missing=True), Codes(CLASSES), Real(components=2)])
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, likelihood.outputs))
    missing = torch.tensor([True, False, False])
    posterior = AmortisedPosterior(encoder, 2, None, of_parts)
    return VAE(posterior, decoder, PartlyObserved(likelihood, missing), PartsObjective(ElboObjective()))


def test_training_the_encoder_of_parts_leaves_the_gradient_of_the_model_alone() -> None:
    model, batch = table_vae(), Batch(ROWS.float(), torch.arange(3))
    gradients = []
    for objective in (model.objective, ElboObjective()):
        model.zero_grad()
        objective(model, batch, 0, Noise(generator(3))).value.backward()
        gradients.append({n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()})
    both, alone = gradients
    for name, gradient in alone.items():
        if "of_parts" in name:
            assert gradient is None
            assert both[name] is not None
        else:
            assert torch.equal(both[name], gradient)


def test_rows_with_a_hidden_cell_go_to_the_encoder_of_parts() -> None:
    model, x = table_vae(), ROWS.float()
    x[1, 2] = HIDDEN
    q, whole, part = (of(x) for of in (model.posterior.initial, model.posterior.whole, model.posterior.part))
    assert torch.equal(q.mean, torch.stack([whole.mean[0], part.mean[1], whole.mean[2]]))
    assert not torch.equal(whole.mean, part.mean)


def test_p_of_a_part_is_the_sum_over_the_values_of_the_hidden_cell() -> None:
    """A missing cell is one of these values."""
    model, x = table_vae(), ROWS.float()[:1]
    hides = x.clone()
    hides[0, 0] = HIDDEN
    z = torch.randn(64, 1, 2, generator=generator(5))
    every = [x.clone() for _ in range(CLASSES + 1)]
    for code, row in enumerate(every):
        row[0, 0] = code if code < CLASSES else math.nan
    total = torch.stack([model.decode(z).log_prob(row) for row in every]).logsumexp(0)
    torch.testing.assert_close(model.decode(z).log_prob(hides), total)


def test_proposals_of_an_encoder_of_parts_need_no_fit_and_have_weights_of_mean_p() -> None:
    model, part = exact(), torch.tensor([[HIDDEN, 2.0, 0.9]], dtype=torch.float64)
    proposals = Proposals(10_000)
    assert torch.equal(proposals.q(model, part).mean, torch.zeros(1, 1).double())
    blocks = proposals.blocks(model, proposals.q(model, part), ExampleNoise(0, [0]))
    weights = torch.cat([(ratio + model.decode(z).log_prob(part)).exp() for z, ratio in blocks])[:, 0]
    _, second = log_tables()
    expected = (0.5 * second[:, 2].exp() * density(part[:, 2])[:, 0]).sum()
    assert abs(weights.mean() - expected) < 5 * weights.std() / 100  # 6e-7


class GapDecoder(nn.Module):
    """z (batch, 1) -> logits of x = 0, x = 1 and of a missing cell, which depend on the sign of z only."""

    def forward(self, z: Tensor) -> Tensor:
        sign = 4 * torch.sign(z)
        return torch.cat([torch.zeros_like(z), sign, sign], -1)


def test_imputing_a_hidden_cell_uses_that_it_is_present() -> None:
    likelihood = PartlyObserved(ColumnsLikelihood([Codes(2, missing=True)]), torch.ones(1, dtype=torch.bool))
    model = VAE(AmortisedPosterior(Still(), 1, None, Still()), GapDecoder(), likelihood)
    model.register_parameter("anchor", nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    x, absent = torch.full((50, 1), HIDDEN, dtype=torch.float64), torch.zeros(50, 1, dtype=torch.bool)
    found = ImportanceResampling()(model.double(), x, absent, ExampleNoise(0, range(50)), 40).draws
    high, low = torch.sigmoid(torch.tensor([4.0, -4.0])).tolist()
    expected = (high * low + low * high) / (high + low)  # P(x = 1 | present) over both signs; 0.5 without P(present)
    assert abs(found.mean() - expected) < 0.02  # a standard error is 0.004, so a false alarm has probability 6e-7
    with pytest.raises(InputError, match="use importance resampling"):
        MetropolisWithinGibbs(2)(model, x, absent, ExampleNoise(0, range(50)), 4)


# ---------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> jensen.Run:
    folder = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    lines = ["colour,size,count,seen"]
    for _ in range(80):
        size = "" if rng.random() < 0.2 else f"{rng.lognormal():.5f}"
        seen = ["yes", "no", ""][rng.integers(3)]
        lines.append(f"{'red' if rng.random() < 0.3 else 'blue'},{size},{rng.poisson(3)},{seen}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    training = {"steps": 12, "batch_size": 16, "validate_every": 4, "checkpoint_every": 6, "keep_last": 9}
    model = {"width": 16, "depth": 1, "latent_dims": 2}
    recipe = VAERecipe.model_validate({"data": str(folder / "t.csv"), "model": model, "training": training})
    return jensen.train(recipe, folder / "run")


def test_a_run_resumed_ends_with_the_same_bits(run: jensen.Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    for path in checkpoints(tmp_path / "run/checkpoints"):
        if int(path.name.removeprefix("step-")) > 6:
            shutil.rmtree(path)
    jensen.resume(tmp_path / "run")
    whole, parts = (checkpoints(folder / "checkpoints")[-1] for folder in (run.folder, tmp_path / "run"))
    assert whole.name == parts.name == "step-00000012"
    for file in whole.glob("*.safetensors"):
        first, second = load_file(file), load_file(parts / file.name)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert first.keys() == second.keys()


def test_missing_cells_count_in_the_bound_or_are_left_out(run: jensen.Run) -> None:
    x = run.spec.preparation(torch.tensor([[0.0, math.nan, 3.0, math.nan]], dtype=torch.float64))
    scores = score_columns(run.model, x, draws=50)
    assert scores.log_prob.isfinite().all()  # p(missing) of the two empty cells
    rows = run.model.sample(200)
    assert rows[:, 1].isnan().any()
    assert not rows[:, [0, 2]].isnan().any()


def test_imputation_fills_missing_cells_with_values_and_keeps_the_others(run: jensen.Run) -> None:
    raw = torch.tensor([[0.0, math.nan, 3.0, math.nan], [1.0, 0.5, math.nan, 1.0]], dtype=torch.float64)
    x = run.spec.preparation(raw)
    method = run.family.imputer(ImputationWish(), run.spec)
    found = impute(run.model, x, ~x.isnan(), method, draws=20).draws
    assert found.isfinite().all()
    assert torch.equal(found[:, ~x.isnan()], x[~x.isnan()].expand(20, -1))
    filled = run.spec.preparation.to_raw(found.flatten(0, 1))
    assert set(np.unique(filled[:, 3])) <= {0.0, 1.0}
    with pytest.raises(InputError, match="importance"):
        run.family.imputer(ImputationWish(method="gibbs"), run.spec)


def test_a_hidden_cell_and_a_missing_cell_are_different_facts() -> None:
    """A cell that is missing tells z by p(missing|z); a hidden cell tells nothing."""
    model = table_vae()
    x = torch.tensor([[math.nan, 1.0, 0.3], [HIDDEN, 1.0, 0.3]])
    z = torch.randn(8, 1, 2, generator=generator(6))
    law = model.decode(z.expand(8, 2, 2))
    told, nothing = law.log_prob_by_dimension(x)[..., 0].unbind(1)
    absent = torch.nn.functional.logsigmoid(model.decode(z).whole.missing[:, 0, 0])
    torch.testing.assert_close(told, absent)
    assert (nothing == 0).all()


def test_a_latent_model_of_a_table_trains_samples_and_refuses_p_of_a_column(run: jensen.Run) -> None:
    model = {"prior": {"width": 16, "depth": 1, "sampling_steps": 3, "bound_terms": 3}}
    training = {"steps": 8, "batch_size": 16, "validate_every": 4, "checkpoint_every": 8}
    recipe = LatentRecipe.model_validate({"model": model, "training": training})
    latent = jensen.train(recipe, run.folder.parent / "latent", run)
    rows = latent.model.sample(5)
    assert rows.shape == (5, 4)
    assert latent.spec.preparation.to_raw(rows).shape == (5, 4)
    with pytest.raises(InputError, match="diffusion prior"):
        predict_column(latent.model, rows, 0)


def test_the_length_of_a_training_follows_the_rows_where_the_recipe_leaves_it_open(run: jensen.Run) -> None:
    spec = run.spec.model_copy(update={"counts": {"train": 398, "validation": 40, "test": 40}})
    family = run.family
    training = family.suited(VAERecipe(), spec).training
    assert (training.steps, training.batch_size, training.patience) == (1000, 256, 8)
    given = VAERecipe.model_validate({"training": {"steps": 77, "batch_size": 8, "patience": 2}})
    kept = family.suited(given, spec).training
    assert (kept.steps, kept.batch_size, kept.patience) == (77, 8, 2)
    assert family.suited(VAERecipe(), spec).model.kl_warmup_steps == 250
    timed = family.suited(VAERecipe.model_validate({"training": {"minutes": 1}}), spec)
    assert (timed.training.minutes, timed.model.kl_warmup_steps) == (1, 0)  # the plan sets the steps later
    other = spec.model_copy(update={"table": None})
    assert family.suited(VAERecipe(), other) == VAERecipe()
    latent = family_of(LatentRecipe()).suited(LatentRecipe(), spec)
    assert (latent.vae_steps, latent.training.steps) == (1000, 3000)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"network": "mlp"}, "network mlp for a table"),
        ({"likelihood": "gaussian"}, "law for each column"),
        ({"posterior": "per-datapoint"}, "choose amortised"),
        ({"predict": "label"}, "every column"),
    ],
)
def test_settings_without_an_effect_on_tables_are_refused(run: jensen.Run, settings: dict, problem: str) -> None:
    recipe = run.recipe.model_copy(update={"model": run.recipe.model.model_validate(settings)})
    with pytest.raises(InputError, match=problem):
        jensen.train(recipe, run.folder.parent / "never")


def test_diffusion_refuses_a_mixed_table_in_a_line(run: jensen.Run, capsys: pytest.CaptureFixture[str]) -> None:
    out = run.folder.parent / "no"
    assert main(["train", "diffusion", "--data", run.spec.source, "--out", str(out)]) == 2
    assert "jensen train latent" in capsys.readouterr().err
    assert not out.exists()
