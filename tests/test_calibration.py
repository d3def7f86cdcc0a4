"""Coverage and ranks: calibrated draws pass, others fail; ties, dependence within examples, exact and other models."""

import math

import pytest
import torch
from linear_vae import as_vae, random_ppca
from made import PROVENANCE
from mixtures import ExactDenoiser, three_clusters

from jensen.diffusion import LinearLogSnr, UniformTimes
from jensen.diffusion.model import DiffusionModel, Scoring
from jensen.diffusion.weighting import Simple, WeightedObjective
from jensen.errors import InputError
from jensen.inference.calibration import (
    Calibration,
    calibration,
    clustered_share,
    rank_transform,
)
from jensen.inference.imputation import impute
from jensen.inference.impute_diffusion import TwistedParticles
from jensen.inference.impute_mixture import ExactConditional
from jensen.inference.impute_vae import ImportanceResampling
from jensen.inference.imputer import ExampleNoise
from jensen.mixture import GaussianMixture, mixture
from jensen.randomness import generator
from jensen.records import read_record, write_record
from jensen.report.album import Album
from jensen.report.further import further_records
from jensen.report.imputation import calibration_picture, calibration_table, imputation_section, remarks

ABOUT = {"source": "these data", "mask": "half:left", "method": "a method", "provenance": PROVENANCE}


def calibrated(draws, truth, hidden=None):
    hidden = torch.ones_like(truth, dtype=torch.bool) if hidden is None else hidden
    return calibration(draws, truth, hidden, ExampleNoise(0, range(len(truth))), **ABOUT)


def deviations(found):
    """Of coverage and ranks from what they should be, in standard errors."""
    pairs = [(one.share, one.nominal) for one in found.coverage] + [(rank, found.expected) for rank in found.ranks]
    return [abs(share.mean - wanted) / share.standard_error for share, wanted in pairs]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


# 3 coverages and 10 ranks within 4 standard errors: a false alarm in about one of 1,200 tests
ALLOWED = 4.0


def test_draws_from_the_truths_own_distribution_are_calibrated_and_narrow_or_moved_ones_are_not():
    truth, draws = normal(2000, 1), normal(9, 2000, 1, seed=1)
    assert max(deviations(calibrated(draws, truth))) < ALLOWED
    assert max(deviations(calibrated(0.7 * draws, truth))) > ALLOWED
    assert max(deviations(calibrated(draws + 0.3, truth))) > ALLOWED


@pytest.mark.parametrize("draws", [1, 4, 40])
def test_ties_are_broken_at_random_and_entries_without_any_doubt_are_left_out(draws):
    chance = torch.linspace(0, 1, 3000, dtype=torch.float64).unsqueeze(1)
    levels = (torch.rand(draws + 1, 3000, 1, generator=generator(2), dtype=torch.float64) < chance).double()
    found = calibrated(levels[1:], levels[0])
    assert max(deviations(found)) < ALLOWED
    assert found.undecided == int((levels.min(0).values < levels.max(0).values).sum()) < found.entries == 3000
    assert len(found.ranks) == min(draws + 1, 20)


def test_the_transform_is_the_rank_where_nothing_ties():
    draws, truth = torch.tensor([[[1.0]], [[2.0]], [[4.0]]]).double(), torch.tensor([[3.0]]).double()
    u, varies = rank_transform(draws, truth, ExampleNoise(0, [5]))
    assert varies.all()
    assert 2 / 4 < u.item() < 3 / 4


def test_the_error_of_a_share_counts_examples_not_entries():
    shares = []
    for seed in range(200):
        hit = torch.rand(60, 1, generator=generator(seed)) < 0.7
        shares.append(clustered_share(hit.expand(60, 50), torch.ones(60, 50, dtype=torch.bool)))
    spread = torch.tensor([share.mean for share in shares]).std().item()
    assert spread == pytest.approx(math.sqrt(0.7 * 0.3 / 60), rel=0.2)  # 5 % is one standard error
    assert shares[0].standard_error == pytest.approx(spread, rel=0.3)
    assert shares[0].count == 60


@pytest.mark.parametrize("entries", [1, 50])
def test_the_error_of_a_share_is_not_0_where_all_hit(entries):
    every = torch.ones(98, entries).bool()
    assert clustered_share(every, every).standard_error == pytest.approx(0.01, rel=0.01)
    assert clustered_share(~every, every).standard_error == pytest.approx(0.01, rel=0.01)


def test_shares_of_nothing_and_of_one_example():
    nothing = clustered_share(torch.ones(3, 2).bool(), torch.zeros(3, 2).bool())
    assert nothing.count == 0
    assert math.isnan(nothing.mean)
    half = clustered_share(torch.tensor([[True, False]]), torch.ones(1, 2).bool())
    assert (half.mean, half.standard_error) == (0.5, 0.5)


def test_exact_vae_and_diffusion_imputations_are_calibrated():
    clusters, first = three_clusters(), torch.tensor([True, False])
    exact = GaussianMixture(mixture(clusters.weights, clusters.means, clusters.scales.square().diag_embed()))
    objective = WeightedObjective(Simple(), UniformTimes())
    diffusion = DiffusionModel((2,), ExactDenoiser(clusters), LinearLogSnr(10.0, -8.0), objective, Scoring(50)).double()
    ppca = random_ppca(dims=2, latent=1)
    cases = [
        (exact, clusters.sample(2000, generator(1)), ExactConditional()),
        (as_vae(ppca), ppca.draw(1000), ImportanceResampling(500)),
        (diffusion, clusters.sample(150, generator(1)), TwistedParticles(16, 40)),
    ]
    for model, x, method in cases:
        found = impute(model, x, first, draws=9, seed=5, method=method)
        record = calibrated(found.draws, x, (~first).expand(x.shape))
        assert record.undecided == record.entries == len(x)
        for one in record.coverage:  # one entry an example: binomial intervals, 9 of them; a false alarm in 1,700 tests
            error = math.sqrt(one.nominal * (1 - one.nominal) / len(x))
            assert abs(one.share.mean - one.nominal) < ALLOWED * error, (type(model).__name__, one)


def test_the_record_is_kept_shown_and_refused_if_damaged(tmp_path):
    found = calibrated(normal(4, 50, 3, seed=1), normal(50, 3))
    write_record(tmp_path / "calibration.json", found)
    assert read_record(tmp_path / "calibration.json", Calibration, "") == found
    assert calibration_table(found).row_count == 3
    assert len(calibration_picture(found).axes) == 2
    assert "50 examples, mask half:left, 4 draws each" in remarks(found)[0]
    section = imputation_section(
        further_records(tmp_path, PROVENANCE.weights).calibration, Album(tmp_path / "pictures")
    )
    assert "these data, a method" in section.render()
    others = further_records(tmp_path, "cd" * 32)
    assert others.calibration is None
    assert "calibration.json is about other weights" in others.stale[0]
    (tmp_path / "calibration.json").write_text("{")
    with pytest.raises(InputError, match="damaged or of another version"):
        further_records(tmp_path, PROVENANCE.weights)
