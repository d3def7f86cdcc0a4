"""The mean bound to a wanted error: against closed forms, and against every part of every example."""

import json
import math

import numpy as np
import pytest
import torch
from linear_vae import as_vae, random_ppca
from mixtures import ExactDenoiser, three_clusters
from test_verbs import BRIEF, TINY

import jensen
from jensen.bound import Estimate
from jensen.cli import main
from jensen.diffusion.bound import DiffusionBound, Strata, estimate_bound
from jensen.diffusion.parts import bound_parts
from jensen.diffusion.reverse import BetaVariance
from jensen.diffusion.schedule import LinearLogSnr, UniformLogSnr
from jensen.errors import InputError
from jensen.evaluation.controls import total_variation
from jensen.evaluation.engine import run_estimators
from jensen.evaluation.mean_bound import MeanBound
from jensen.evaluation.source import Source, parts_of, visiting_order
from jensen.evaluation.survey import Draws, _cross_fitted, allocation, regression_estimate
from jensen.evaluation.until import Goal, measured, needed, until
from jensen.model import Effort
from jensen.randomness import generator

NONE = torch.empty(200, 0, dtype=torch.float64)
NATS = "nats per example"


def silent(line: str) -> None:
    """Tell nobody."""


def every_part(y: torch.Tensor) -> Draws:
    """Every part of every example once: y (examples, parts)."""
    examples, parts = y.shape
    return Draws(torch.arange(parts).repeat(examples), torch.arange(examples).repeat_interleave(parts), y.flatten())


def source_of_values(y: torch.Tensor) -> Source:
    """Draws without noise of y (examples, parts)."""
    ones = torch.ones(len(y), dtype=torch.float64)
    return Source(y.shape[1], 0 * ones, ones, lambda examples, parts, visit: y[examples, parts], (), 1000)


def values(examples: int = 200, parts: int = 4) -> torch.Tensor:
    """Parts that are correlated within an example, (examples, parts), and of different sizes."""
    own, shared = (torch.randn(examples, n, generator=generator(3, n), dtype=torch.float64) for n in (parts, 1))
    return (torch.arange(parts) + 1.0) * (5 + shared + 0.5 * own)


# ---------------------------------------------------------------------------------------------- the estimate


def test_every_part_of_every_example_gives_the_plain_mean_and_its_error():
    y = values()
    found, plain = regression_estimate(every_part(y), 4, NONE), Estimate.of(y.sum(1))
    assert found.mean == pytest.approx(plain.mean, rel=1e-12)
    assert found.error == pytest.approx(plain.standard_error, rel=1e-9)


def test_the_error_of_parts_on_different_examples_is_that_of_a_stratified_mean():
    y, part = values(), torch.arange(200) % 4
    found = regression_estimate(Draws(part, torch.arange(200), y[torch.arange(200), part]), 4, NONE)
    errors = [Estimate.of(y[part == h, h]).standard_error for h in range(4)]
    assert found.error == pytest.approx(math.hypot(*errors), rel=1e-9)


def test_a_perfect_control_leaves_the_error_of_the_test_set_alone():
    c = torch.randn(200, 1, generator=generator(1), dtype=torch.float64)
    c = (c - c.mean(0)) / c.std(0)
    y = torch.arange(1.0, 5.0) * (10 + c)
    part = torch.arange(200) % 4
    found = regression_estimate(Draws(part, torch.arange(200), y[torch.arange(200), part]), 4, c)
    assert found.mean == pytest.approx(y.sum(1).mean().item(), rel=0.01)
    assert found.error == pytest.approx(Estimate.of(y.sum(1)).standard_error, rel=0.05)
    assert found.deviation.sum() < 0.2 * found.raw_deviation.sum()


def test_a_useless_control_changes_neither_mean_nor_error_much():
    y, part = values(), torch.arange(200) % 4
    draws = Draws(part, torch.arange(200), y[torch.arange(200), part])
    useless = torch.randn(200, 1, generator=generator(2), dtype=torch.float64)
    plain, found = regression_estimate(draws, 4, NONE), regression_estimate(draws, 4, useless)
    assert abs(found.mean - plain.mean) < 0.5 * plain.error
    assert found.error == pytest.approx(plain.error, rel=0.05)


def test_the_slopes_for_an_example_come_from_the_examples_of_other_folds():
    """Otherwise the estimate were biased: an outlier changes the slopes of all folds but its own."""
    part, c = torch.arange(200) % 4, torch.randn(200, 1, generator=generator(2), dtype=torch.float64)
    value = values()[torch.arange(200), part]
    moved = value.clone()
    moved[13] += 1000  # fold 13 % 8 = 5
    plain, other = (_cross_fitted(part, y, c, torch.arange(200) % 8, 4) for y in (value, moved))
    assert sorted({i % 8 for i in range(200) if plain[i] != other[i]}) == [0, 1, 2, 3, 4, 6, 7]


# ---------------------------------------------------------------------------------------------- the plan


def test_rows_are_in_proportion_to_the_spread():
    """Neyman's allocation; the spreads of `values` are 1 : 2 : 3 : 4, and their estimates err by 3 % of 500 rows."""
    part, rows = torch.arange(2000) % 4, torch.arange(2000)
    found = regression_estimate(Draws(part, rows, values(2000)[rows, part]), 4, torch.empty(2000, 0).double())
    wanted = allocation(found, 1e9).double()  # at most twice the rows, and at least the 500 of each part
    assert wanted[0] == 500
    assert torch.allclose(wanted[1:] / 4000, torch.tensor([0.2, 0.3, 0.4]).double(), rtol=0.12)
    least = allocation(found, 0.0)
    assert (least >= found.rows).all()
    assert least.sum() >= 2200


def test_the_forecast_is_the_square_of_the_sum_of_spreads():
    y, part = values(), torch.arange(200) % 4
    found = regression_estimate(Draws(part, torch.arange(200), y[torch.arange(200), part]), 4, NONE)
    total, limit = needed(found, 0.5)
    assert total == pytest.approx(1.03 * found.deviation.sum().item() ** 2 / 0.25)
    assert limit < 1e-6


def test_every_example_is_visited_once_before_any_is_visited_twice():
    examples, visits = visiting_order(10, 0, torch.arange(25))
    assert visits.tolist() == [0] * 10 + [1] * 10 + [2] * 5
    assert sorted(examples[:10].tolist()) == sorted(examples[10:20].tolist()) == list(range(10))
    assert examples[:10].tolist() != examples[10:20].tolist()
    assert visiting_order(10, 0, torch.arange(7, 12))[0].tolist() == examples[7:12].tolist()


# ---------------------------------------------------------------------------------------------- to a wanted error


def test_the_draws_end_when_the_error_is_there():
    y, told = values(2000), []
    wanted = 0.5
    found = until(source_of_values(y), torch.empty(2000, 0).double(), Goal(wanted, NATS), seed=0, tell=told.append)
    nats = found.measure.nats
    assert 0.8 * wanted < nats.standard_error <= wanted
    assert abs(nats.mean - y.sum(1).mean().item()) < 4 * wanted  # four standard errors: P = 6e-5, of this seed
    assert found.limit is None
    assert found.forecast == pytest.approx(int(found.found.rows.sum()), rel=0.5)
    assert len(told) == 1
    assert "± 0.5 nats per example will take about" in told[0]


def test_an_error_below_that_of_the_test_set_is_out_of_reach():
    y, told = values(50), []
    found = until(source_of_values(y), NONE[:50], Goal(0.1, NATS), seed=0, tell=told.append)
    limit = Estimate.of(y.sum(1)).standard_error
    assert found.limit == pytest.approx(limit, rel=0.2)
    assert found.measure.nats.standard_error == pytest.approx(limit, rel=0.2)
    assert found.limit <= found.measure.nats.standard_error
    assert found.visited == 50
    assert len([line for line in told if "may be out of reach" in line]) == 1


def test_a_draw_that_is_not_finite_ends_the_draws():
    y = values()
    y[3] = -math.inf
    found = until(source_of_values(y), NONE, Goal(0.1, NATS), seed=0, tell=silent)
    assert not found.measure.nats.standard_error < math.inf


def test_bits_are_a_ratio_of_means():
    """Examples with missing values: bits and their error as `Estimate.ratio` gives them from every part."""
    y, observed = values(), 1.0 + torch.arange(200).double() % 5
    volume = torch.linspace(-1, 1, 200).double()
    source = Source(4, volume, observed, lambda examples, parts, visit: y[examples, parts], (), 1000)
    found = regression_estimate(every_part(y), 4, NONE)
    bits = measured(found, source, 200).bits_per_dimension
    expected = Estimate.ratio(-(y.sum(1) + volume) / math.log(2), observed)
    assert bits.mean == pytest.approx(expected.mean)
    assert bits.standard_error == pytest.approx(expected.standard_error, rel=1e-2)  # n against n - 1 in one term


# ---------------------------------------------------------------------------------------------- parts of models


def test_parts_of_the_diffusion_bound_add_up_to_it():
    """Unbiased: each part's mean over 4,000 draws against all terms of 1,000 draws; 4 errors of 6 numbers, P = 4e-4."""
    bound = DiffusionBound(ExactDenoiser(three_clusters()), UniformLogSnr()(LinearLogSnr(8, -10), 24), BetaVariance())
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    strata = Strata.weighted(torch.linspace(1, 3, 23), 5, 0.01)
    every = estimate_bound(bound, x.expand(1000, 2), Strata.every_step(24))
    expected = [every.reconstruction[0] - every.prior]
    expected += [-every.nats[0, strata.stratum == h].sum(0) for h in range(strata.count)]
    parts = bound_parts(bound, strata)
    assert parts.count == 6
    for h, terms in enumerate(expected):
        found = Estimate.of(parts.draw(x.expand(4000, 2), torch.full((4000,), h), 5, torch.arange(4000)))
        exact = Estimate.of(terms)
        assert abs(found.mean - exact.mean) < 4 * math.hypot(found.standard_error, exact.standard_error)


def test_the_mean_of_an_exact_vae_is_minus_the_entropy():
    """PPCA with its own posterior: E ELBO = E log p(x) = -H(x); within 4 errors, P = 6e-5."""
    ppca = random_ppca()
    x, parts = ppca.draw(3000), as_vae(ppca).parts()
    ones = torch.ones(3000, dtype=torch.float64)
    source = Source(1, 0 * ones, ones, lambda rows, part, visit: parts.draw(x[rows], part, visit, rows), (), 1000)
    found = until(source, torch.empty(3000, 0).double(), Goal(0.05, NATS), seed=1, tell=silent).measure.nats
    assert parts.count == 1
    assert found.standard_error <= 0.05
    assert abs(found.mean + ppca.joint.marginal().entropy().item()) < 4 * found.standard_error


def test_a_draw_depends_on_the_example_and_not_on_its_batch():
    bound = DiffusionBound(ExactDenoiser(three_clusters()), UniformLogSnr()(LinearLogSnr(8, -10), 24), BetaVariance())
    parts = bound_parts(bound, Strata.weighted(torch.ones(23), 3))
    x, part, index = torch.randn(6, 2, dtype=torch.float64), torch.arange(6) % 4, torch.arange(6)
    together = parts.draw(x, part, 0, index)
    assert torch.allclose(parts.draw(x[4:], part[4:], 0, index[4:]), together[4:], rtol=1e-12)
    assert not torch.equal(parts.draw(x, part, 1, index), together)


def test_a_model_minus_itself_is_nothing_and_parts_that_differ_are_drawn_apart():
    y = values()
    one, few = source_of_values(y), source_of_values(y[:, :2])
    rows = torch.arange(200)
    assert not (one - one).draw(rows, rows % 4, 0).any()
    apart = one - few
    assert apart.count == 6
    assert torch.equal(apart.draw(rows, rows % 6, 0)[rows % 6 > 3], -y[rows, (rows % 6 - 4).clamp(min=0)][rows % 6 > 3])


# ---------------------------------------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the same 400 images of 6 x 6 pixels, 40 of them for tests."""
    folder, x = tmp_path_factory.mktemp("runs"), np.random.default_rng(0).integers(0, 5, (400, 6, 6), dtype=np.uint8)
    x[np.arange(400), 2 * (np.arange(400) % 3)] += 10
    np.savez(folder / "data.npz", x=x)

    def trained(name, seed):
        recipe = jensen.DiffusionRecipe(
            data=str(folder / "data.npz"), model=TINY, read={"levels": 16}, training=BRIEF, seed=seed
        )
        return jensen.train(recipe, folder / name)

    return {name: trained(name, seed) for seed, name in enumerate(("one", "other"))}


def test_the_mean_bound_agrees_with_the_evaluation_and_is_read_back(runs):
    """On the same examples: within 5 of its errors, which is P = 6e-7 where errors are right."""
    run = runs["one"]
    found = jensen.mean_bound(run, split="train", error=0.05)
    whole = jensen.evaluate(run, split="train", settings=jensen.EvaluationSettings(draws=8, further_examples=2))
    elbo = whole.evaluation.elbo.bits_per_dimension
    assert found.unit == "bits per dimension"
    assert abs(found.bits_per_dimension.mean - elbo.mean) < 5 * found.bits_per_dimension.standard_error
    assert found.evaluations == found.draws == sum(part.draws for part in found.parts)
    assert MeanBound.model_validate_json(found.model_dump_json()) == found
    again = jensen.mean_bound(run, split="train", error=0.05)
    assert again.nats == found.nats


def test_another_estimate_is_drawn_by_its_name(runs):
    """As the engine computes it from the same seed; a name of no estimate is refused."""
    run, effort, index = runs["one"], Effort(samples=2), torch.arange(3)
    expected = run_estimators(run.model, run.examples(), run.spec.preparation, effort, index, seed=0)["ODE"].value
    parts = parts_of(run.model, "ODE", effort)
    x = run.spec.preparation(run.examples().x[index])
    assert parts.count == 1
    assert parts.draw(x, 0 * index, 0, index).tolist() == expected.tolist()
    with pytest.raises(InputError, match="--of L_7: expected one of ELBO, ODE"):
        jensen.mean_bound(run, of="L_7", error=0.1)


def test_a_difference_costs_less_than_its_two_means(runs):
    first, second = (jensen.mean_bound(runs[name], split="train", error=0.05) for name in ("one", "other"))
    both = jensen.mean_bound(runs["other"], minus=runs["one"], split="train", error=0.05)
    expected = second.nats.mean - first.nats.mean
    errors = [one.nats.standard_error for one in (first, second, both)]
    assert abs(both.nats.mean - expected) < 4 * math.sqrt(sum(e**2 for e in errors))
    assert both.draws <= min(first.draws, second.draws)


def test_the_command_writes_the_mean_and_refuses_what_has_no_effect(runs, capsys):
    folder = str(runs["one"].folder)
    assert main(["evaluate", folder, "--split", "train", "--error", "0.1"]) == 0
    path = runs["one"].folder / "evaluations" / "train" / "mean_bound.json"
    assert json.loads(path.read_text())["wanted"] == 0.1
    assert "evaluations of the network" in " ".join(capsys.readouterr().out.split())
    for flags, words in (
        (["--draws", "3"], "--draws beside --error"),
        (["--examples", "30", "--referee"], "--examples, --referee beside --error"),
    ):
        assert main(["evaluate", folder, "--error", "0.1", *flags]) == 2
        assert words in capsys.readouterr().err
    assert main(["evaluate", folder, "--error", "0"]) == 2
    with pytest.raises(InputError, match="expected at least 20"):
        jensen.mean_bound(runs["one"], np.zeros((9, 6, 6), np.uint8), error=0.1)


def test_compare_writes_the_differences(runs, tmp_path, capsys):
    folders, out = [str(run.folder) for run in runs.values()], tmp_path / "out"
    assert main(["compare", *folders, "--out", str(out), "--seed", "1"]) == 2
    assert "--seed 1 without --error has no effect" in capsys.readouterr().err
    assert main(["compare", *folders, "--out", str(out), "--error", "0.1"]) == 0
    (found,) = json.loads((out / "differences.json").read_text())["differences"]
    assert found["name"] == "ELBO of other - ELBO of one"
    assert found["bits_per_dimension"]["standard_error"] <= 0.1


def test_total_variation_by_hand():
    x = torch.tensor([[[[0.0, 1.0], [3.0, math.nan]]]])
    assert total_variation(x).item() == 4
    assert total_variation(torch.ones(3, 5)).tolist() == [0, 0, 0]
