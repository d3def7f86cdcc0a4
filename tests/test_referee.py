"""The referee: Pareto k against known tails, costs that are counted, contradictions that are found, one command."""

import io
import json
import math

import numpy as np
import pytest
import torch
from linear_vae import as_vae, random_ppca
from mixtures import ExactDenoiser, three_clusters
from rich.console import Console
from scipy import stats

from jensen.bound import AnnealedEstimate, Elbo, ImportanceWeightedBound
from jensen.cli.main import main
from jensen.data.examples import Examples
from jensen.data.preparation import Standardise
from jensen.diffusion import LinearLogSnr, UniformTimes
from jensen.diffusion.model import DiffusionModel, Scoring
from jensen.diffusion.ode import Tolerance
from jensen.diffusion.weighting import Simple, WeightedObjective
from jensen.evaluation.measure import written
from jensen.evaluation.referee import Verdict, referee
from jensen.evaluation.settings import RefereeSettings
from jensen.model import Effort, Estimator
from jensen.pareto import generalised_pareto_shape, pareto_shape, tail_length
from jensen.randomness import generator
from jensen.report.referee import referee_section, verdict_table
from jensen.vae import VAE

# ---------------------------------------------------------------------------------------------- Pareto k


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.7, 1.2])
def test_the_shape_of_generalised_pareto_samples_is_found(k):
    # The mean of 100 fits to 400 samples; the sd of one is about (1 + k) / 20, its bias below 0.01. Limit 4 errors of
    # the mean plus that bias: false alarm below 1e-4.
    samples = np.sort(stats.genpareto.rvs(k, size=(400, 100), random_state=1), axis=0)
    found = generalised_pareto_shape(torch.from_numpy(samples))
    assert abs(found.mean() - k) < 4 * found.std() / 10 + 0.01


@pytest.mark.parametrize(("scale", "trusted"), [(1.2, True), (0.9, True), (0.4, False)])
def test_narrow_proposals_are_found_out(scale, trusted):
    # Target N(0, 1), proposal N(0, scale²): the tail of the weights has k = 1 - scale² for scale < 1: 0.19 and 0.84.
    # 40 fits with sd 0.12 each: their median is on the right side of 0.7 but for less than 1e-4.
    z = scale * torch.randn(5000, 40, dtype=torch.float64)
    log_weights = -0.5 * z.square() + 0.5 * (z / scale).square() + math.log(scale)
    shape = ImportanceWeightedBound.from_log_weights(log_weights).pareto_shape
    assert (shape.median() < 0.7) == trusted


def test_chunks_give_the_shape_and_the_bound_of_all_draws_and_keep_only_the_tail():
    log_weights = 2 * torch.randn(1000, 3, dtype=torch.float64)
    whole = ImportanceWeightedBound.from_log_weights(log_weights)
    first, *others = log_weights.split(150)
    total = ImportanceWeightedBound.from_log_weights(first, 1000)
    for part in others:
        total = total + ImportanceWeightedBound.from_log_weights(part, 1000)
    torch.testing.assert_close(total.pareto_shape, whole.pareto_shape)
    torch.testing.assert_close(total.value, whole.value)
    assert len(total.largest) == tail_length(1000) + 1 == 96


def test_weights_without_a_tail_and_too_few_weights():
    assert pareto_shape(torch.zeros(101, 2), 500).tolist() == [0, 0]
    assert pareto_shape(torch.randn(5, 2), 20).isnan().all()


# ---------------------------------------------------------------------------------------------- the verdict


def settled(model, x=None, **settings):
    x = (random_ppca(5, 2).draw(30) if x is None else x).float()
    dims = x.shape[1]
    moments = {"shift": (0.0,) * dims, "scale": (1.0,) * dims, "minimum": -9.0, "maximum": 9.0}
    preparation = Standardise(dtype="float32", dimensions=dims, resolution=1e-3, **moments)
    chosen = RefereeSettings(**{"temperatures": 20, "chains": 8, **settings})
    return referee(model.float(), Examples(x, None), preparation, chosen, samples=200, seed=0, source="toy")


@pytest.fixture(scope="module")
def verdict():
    return settled(as_vae(random_ppca(5, 2)), simulated=12, temperatures_from_q=10)


def test_a_right_model_has_no_contradictions_and_every_estimate_is_log_p(verdict):
    # Each mean within 4 standard errors of its Monte-Carlo error and 0.05 nats of log p(x); the encoder is exact, so
    # that ELBO, optimised ELBO and L_K are too. False alarm below 1e-3.
    exact = random_ppca(5, 2).log_prob(random_ppca(5, 2).draw(30)).mean().item()
    assert verdict.warnings == ()
    names = [account.name for account in verdict.accounts]
    assert names == ["ELBO", "optimised ELBO", "L_200", "AIS", "AIS from q"]
    for account in verdict.accounts:
        spread = 4 * math.sqrt(sum(error**2 for error in account.errors)) / 30
        assert abs(account.nats.mean - exact) < spread + 0.05, account.name
    assert [one.name for one in verdict.simulated] == ["AIS, forwards", "AIS, backwards"]


def test_costs_are_counted_by_a_hook(verdict):
    rows = {account.name: (account.evaluations, account.gradients) for account in verdict.accounts}
    assert rows["ELBO"] == (16 + 1, 0)  # the decoder's draws, and the encoder
    assert rows["L_200"] == (200 + 1, 0)
    annealed, gradients = rows["AIS"]
    assert annealed == gradients + 1
    assert gradients > 8 * 19 * 10


class Boasting(VAE):
    """A VAE whose ELBO is too good to be true."""

    def estimators(self, effort: Effort):
        def boast(x, seed, index):
            found = self.elbo(x, draws=16, seed=seed, index=index)
            return Elbo(found.reconstruction + 1, found.rates, found.standard_error)

        return [Estimator("ELBO", boast, (self.decoder,), at_most=("AIS",)), *super().estimators(effort)[3:]]


def test_a_bound_above_a_better_estimate_is_named():
    vae = as_vae(random_ppca(5, 2))
    vae.__class__ = Boasting
    found = settled(vae)
    assert [claim.holds for claim in found.claims] == [False]
    assert "ELBO exceeds AIS by" in found.warnings[0]


class Vague(VAE):
    """A VAE with two ELBOs that differ by a nat, each with an error of ten that the differences do not have."""

    def estimators(self, effort: Effort):
        def vague(more):
            def estimate(x, seed, index):
                found = self.elbo(x, draws=16, seed=seed, index=index)
                return Elbo(found.reconstruction + more, found.rates, torch.full_like(found.value, 10.0))

            return estimate

        return [Estimator("one", vague(0), (), equal=("other",)), Estimator("other", vague(1), ())]


def test_a_large_error_excuses_no_difference_of_averages():
    """Only the logs of averages lie too low by half the square of their errors."""
    vae = as_vae(random_ppca(5, 2))
    vae.__class__ = Vague
    assert [claim.holds for claim in settled(vae).claims] == [False]


class Rare(VAE):
    """A VAE with two ELBOs that differ by 0.01 nats, and by 100 on one example."""

    def estimators(self, effort: Effort):
        def elbo(x, seed, index):
            return self.elbo(x, draws=16, seed=seed, index=index)

        def rare(x, seed, index):
            found = elbo(x, seed, index)
            return Elbo(found.reconstruction + 0.01 * index + 100 * (index == 3), found.rates, found.standard_error)

        return [Estimator("one", elbo, (), equal=("other",)), Estimator("other", rare, ())]


def test_a_difference_that_one_example_carries_is_doubted():
    vae = as_vae(random_ppca(5, 2))
    vae.__class__ = Rare
    found = settled(vae)
    assert [claim.holds for claim in found.claims] == [True]
    assert found.warnings == ("other, other - one (=): 1 of 30 values carries the spread: do not trust the error",)


class Loose(VAE):
    """A VAE with a right L_K and an annealed estimate that one chain carries, two nats too low."""

    def estimators(self, effort: Effort):
        def annealed(x, seed, index):
            right = self.importance_weighted_bound(x, samples=200, seed=seed, index=index).value
            log_weights = torch.full((16, len(x)), -20.0)
            log_weights[0] = 0.0
            weights = ImportanceWeightedBound.from_log_weights(log_weights + right - 2 + math.log(16))
            return AnnealedEstimate(weights, torch.ones(len(x)), torch.ones(len(x)))

        weighted = super().estimators(effort)[2]
        return [weighted, Estimator("AIS", annealed, ())]


def test_annealed_chains_are_asked_for_trust_and_the_looser_bound_is_named():
    vae = as_vae(random_ppca(5, 2))
    vae.__class__ = Loose
    found = settled(vae)
    assert [account.trusted for account in found.accounts] == [1, 0]
    order, equality = found.claims
    assert (order.relation, order.holds, order.looser) == ("<=", False, "AIS")
    assert (equality.relation, equality.holds, equality.nats.count) == ("=", None, 0)
    (warning,) = found.warnings
    assert warning.startswith("L_200 exceeds AIS by 2 ")
    assert "AIS is the looser bound (its weights can be trusted for 0 % of the examples)" in warning


def test_an_equality_is_undecided_where_many_weights_cannot_be_trusted():
    """A q that is too narrow: L_200 counts as trusted for those whose draws missed the tail, and there it is too low.

    On these examples L_200 lies 0.4 nats below AIS and log p(x), so to call the two contradicted would be wrong.
    """
    vae = as_vae(random_ppca(5, 2))
    with torch.no_grad():
        vae.posterior.encoder.layers[0].bias[2:] += math.log(0.4)
    found = settled(vae, random_ppca(5, 2).draw(100), referee_examples=100, temperatures=40)
    claim = found.claims[-1]
    assert (claim.first, claim.relation, claim.second) == ("L_200", "=", "AIS")
    assert claim.nats.mean > max(0.3, 3 * claim.nats.standard_error)
    assert claim.holds is None
    assert claim.trusted == found.accounts[2].trusted < 0.5
    assert found.warnings == ()
    words = f"L_200 = AIS: undecided, trusted for {100 * claim.trusted:.3g} % of the examples only"
    assert words in verdict_table(found).caption.plain


def test_that_l_k_exceeds_the_optimised_elbo_is_no_claim():
    optimised = as_vae(random_ppca(5, 2)).estimators(Effort(samples=5))[1]
    assert optimised.name == "optimised ELBO"
    assert "L_5" not in (*optimised.at_most, *optimised.equal)


def test_the_bounds_of_a_diffusion_model_agree_and_its_ode_is_log_p():
    clusters = three_clusters()
    scoring = Scoring(200, terms=8, tolerance=Tolerance(1e-6, 1e-6))
    model = DiffusionModel(
        (2,), ExactDenoiser(clusters), LinearLogSnr(12.0, -9.0), WeightedObjective(Simple(), UniformTimes()), scoring
    )
    x = clusters.sample(40, generator(7))
    found = settled(model, x, simulated=5, referee_examples=40)
    assert found.warnings == ()
    assert found.simulated == ()  # it has no bracket
    assert [claim.holds for claim in found.claims] == [True]
    by_strata, exact, flow = found.accounts
    assert [by_strata.evaluations, exact.evaluations] == [2 * 9, 200]
    log_p = clusters.log_prob(x)
    assert (torch.tensor(flow.values).double() - log_p).abs().max() < 0.01
    # Means over 40 examples within 4 standard errors, false alarm 6e-5 each; 200 steps lose at most 0.2 nats
    difference = torch.tensor(by_strata.values) - torch.tensor(exact.values)
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(40)
    below = torch.tensor(exact.values).double() - log_p
    error = below.std() / math.sqrt(40)
    assert -0.2 - 4 * error < below.mean() < 4 * error
    assert error < 0.25  # sharp enough to fail


def test_a_verdict_is_json_both_ways_and_a_table_and_a_section(verdict):
    assert Verdict.model_validate_json(verdict.model_dump_json()).accounts[3].name == "AIS"
    assert len(verdict_table(verdict).rows) == 5 + 1 + 2
    assert "AIS from q" in referee_section(verdict).render()


def test_the_table_is_whole_in_80_columns(verdict):
    console = Console(width=80, file=io.StringIO())
    console.print(verdict_table(verdict))
    shown = console.file.getvalue()
    assert "…" not in shown
    for account in (*verdict.accounts, *verdict.simulated):
        assert written(account.nats) in shown


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_writes_table_report_and_json(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", "vae", "--data", "digits", "--steps", "5", "--hidden", "16", "--out", run]) == 0
    few = ["--samples", "50", "--examples", "20", "--further-examples", "10"]
    assert main(["evaluate", run, *few, "--temperatures", "3"]) == 2
    told = capsys.readouterr().err
    assert "--temperatures without --referee" in told  # and no flag that was not given
    assert "add --referee" in told
    assert not (tmp_path / "run" / "referee.json").exists()
    cheap = ["--referee", "--referee-examples", "10", "--temperatures", "3", "--chains", "2"]
    assert main(["evaluate", run, *few, *cheap]) == 0
    assert "The referee" in capsys.readouterr().out
    names = [account["name"] for account in json.loads((tmp_path / "run" / "referee.json").read_text())["accounts"]]
    assert names == ["ELBO", "optimised ELBO", "L_50", "AIS"]
    assert "The referee" in (tmp_path / "run" / "report.html").read_text()


def test_flags_of_annealing_are_refused_by_a_diffusion_model(tmp_path, capsys):
    run = str(tmp_path / "run")
    tiny = ["--network", "mlp", "--width", "8", "--depth", "1", "--chain-steps", "20", "--bound-terms", "4"]
    assert main(["train", "diffusion", "--data", "digits", "--steps", "2", *tiny, "--out", run]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--referee", "--temperatures", "3", "--simulated", "2"]) == 2
    assert "is a diffusion model, which is not annealed" in capsys.readouterr().err
    assert not (tmp_path / "run" / "evaluation.json").exists()
