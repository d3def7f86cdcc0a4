"""Bounds: their arithmetic, their merging, and whether their standard errors are what they say."""

import math

import pytest
import torch
from pydantic import TypeAdapter

from jensen.bound import AnnealedEstimate, Elbo, Estimate, ImportanceWeightedBound, log_mean_exp, root_mean_square
from jensen.records import Value


def weights_of_log_normal(count, draws, spread, seed=0):
    """log w ~ N(-spread²/2, spread²), so that E w = 1: `count` independent sets of `draws`, float64."""
    noise = torch.randn(draws, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return spread * noise - spread**2 / 2


# ---------------------------------------------------------------------------------------------- arithmetic


def test_log_mean_exp_neither_overflows_nor_underflows():
    log_weights = torch.tensor([[1e4, -1e4], [1e4 + math.log(3), -1e4 + math.log(3)]], dtype=torch.float64)
    torch.testing.assert_close(log_mean_exp(log_weights), torch.tensor([1e4, -1e4], dtype=torch.float64) + math.log(2))


def test_the_elbos_terms_add_up_to_its_value():
    elbo = Elbo(torch.tensor([-80.0, -90.0]), {"first": torch.tensor([1.0, 2.0]), "second": torch.tensor([0.5, 0.0])})
    assert elbo.value.tolist() == [-81.5, -92.0]
    torch.testing.assert_close(sum(elbo.terms.values()), elbo.value)
    assert list(elbo.terms) == ["reconstruction", "first", "second"]


def test_an_elbo_from_draws_averages_and_carries_the_error_of_the_mean():
    reconstruction = torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]])
    elbo = Elbo.from_draws(reconstruction, {"rate": torch.tensor([1.0, 1.0])})
    assert elbo.value.tolist() == [1.0, 4.0]
    torch.testing.assert_close(elbo.standard_error, torch.tensor([1 / math.sqrt(3), 0.0]))
    assert Elbo.from_draws(reconstruction[:1], {}).standard_error is None


def test_an_importance_weighted_bound_is_what_its_formulas_say():
    w = torch.tensor([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]], dtype=torch.float64)
    bound = ImportanceWeightedBound.from_log_weights(w.log())
    torch.testing.assert_close(bound.value, w.mean(0).log())
    torch.testing.assert_close(bound.elbo, w.log().mean(0))
    torch.testing.assert_close(bound.jensen_gap, w.mean(0).log() - w.log().mean(0))
    torch.testing.assert_close(bound.effective_sample_size, w.sum(0) ** 2 / w.square().sum(0))
    size = bound.effective_sample_size
    delta_method = w.std(0) / w.mean(0) / math.sqrt(3)
    torch.testing.assert_close(bound.standard_error, delta_method * (1 + 2 * (3 / size).log() / size).sqrt())
    assert bound.standard_error[1] == 0
    assert (bound.jensen_gap >= -1e-15).all()
    assert bound.effective_sample_size[1] == pytest.approx(3)


def test_with_one_draw_the_bound_is_the_elbo_and_its_error_unknown():
    log_weights = weights_of_log_normal(5, 1, 2.0)
    bound = ImportanceWeightedBound.from_log_weights(log_weights)
    torch.testing.assert_close(bound.value, log_weights[0])
    torch.testing.assert_close(bound.elbo, log_weights[0])
    assert bound.standard_error.isnan().all()


def test_extreme_weights_stay_finite():
    log_weights = torch.tensor([[-1e5], [-2e5], [-1e5 - 1]])
    bound = ImportanceWeightedBound.from_log_weights(log_weights)
    expected = -1e5 + math.log((1 + math.exp(-1)) / 3)
    assert bound.value.item() == pytest.approx(expected, abs=1e-9)
    assert 1 <= bound.effective_sample_size.item() < 2


# ---------------------------------------------------------------------------------------------- merging


@pytest.mark.parametrize("cuts", [[500, 500], [1, 998, 1], [250, 250, 250, 250], [999, 1]])
def test_merged_chunks_of_draws_equal_one_shot(cuts):
    log_weights = weights_of_log_normal(7, 1000, 3.0) - 500
    whole = ImportanceWeightedBound.from_log_weights(log_weights)
    first, *rest = (ImportanceWeightedBound.from_log_weights(chunk) for chunk in log_weights.split(cuts))
    for part in rest:
        first = first + part
    assert first.draws == whole.draws
    for name in ("value", "elbo", "effective_sample_size", "standard_error"):
        torch.testing.assert_close(getattr(first, name), getattr(whole, name), rtol=1e-10, atol=1e-10)


def test_concatenated_examples_equal_one_batch():
    log_weights = weights_of_log_normal(7, 100, 1.0)
    whole = ImportanceWeightedBound.from_log_weights(log_weights)
    parts = [ImportanceWeightedBound.from_log_weights(columns) for columns in log_weights.split([3, 1, 3], dim=1)]
    joined = ImportanceWeightedBound.concatenate(parts)
    assert joined.draws == whole.draws
    for name in ("value", "elbo", "standard_error"):
        torch.testing.assert_close(getattr(joined, name), getattr(whole, name))


def test_float32_weights_are_summed_in_float64():
    # 200 000 equal weights: a running float32 sum would be off by far more than this
    bound = ImportanceWeightedBound.from_log_weights(torch.full((200_000, 1), -100.1))
    assert bound.elbo.item() == pytest.approx(torch.tensor(-100.1).item(), rel=1e-12)
    assert bound.value.item() == pytest.approx(bound.elbo.item(), rel=1e-12)


# ---------------------------------------------------------------------------------------------- standard errors


@pytest.mark.parametrize(("draws", "spread"), [(50, 0.5), (500, 1.0)])
def test_the_standard_error_of_the_bound_is_calibrated(draws, spread):
    # 4000 repeats: the spread of L_K has a relative error of 1/sqrt(8000) = 1.1 %, and the delta method itself is off
    # by O(1/K) terms, below 3 % here; 8 % is over 4 sd, a false-alarm probability below 1e-4
    bound = ImportanceWeightedBound.from_log_weights(weights_of_log_normal(4000, draws, spread))
    said = bound.standard_error.square().mean().sqrt()
    assert said == pytest.approx(bound.value.std().item(), rel=0.08)
    # E log ŵ = -Var/2 + O(1/K²): the bound lies below log p(x) = 0 by half its squared error
    bias = bound.value.mean() + said.square() / 2
    assert abs(bias) < 4 * said / math.sqrt(4000) + said**4  # 4 sd: 6e-5
    # and single intervals cover: |L_K| < 2 se happens with probability 0.954; 4000 trials have sd 0.0033
    covered = (bound.value.abs() < 2 * bound.standard_error).double().mean()
    assert covered == pytest.approx(0.954, abs=0.02)


def test_the_standard_error_of_an_elbo_is_calibrated():
    # 4000 repeats of 20 draws of N(0, 3²): the mean of se² is known to sqrt(2/19/4000) = 0.5 %; 3 % is 6 sd (2e-9)
    values = 3 * weights_of_log_normal(20 * 4000, 1, 1.0).reshape(20, 4000)
    elbo = Elbo.from_draws(values, {})
    assert elbo.standard_error.square().mean() == pytest.approx(9 / 20, rel=0.03)


def test_an_estimate_is_a_mean_with_the_error_of_the_mean():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    estimate = Estimate.of(values)
    assert (estimate.mean, estimate.count) == (3.0, 4)
    assert estimate.standard_error == pytest.approx(math.sqrt(14 / 3) / 2)
    assert str(estimate) == "3 ± 1.1"
    assert math.isnan(Estimate.of(values[:1]).standard_error)


# ---------------------------------------------------------------------------------------------- what is not trusted


@pytest.mark.parametrize("draws", [2, 4, 20])
def test_the_error_of_one_example_is_a_root_mean_square(draws):
    # E s² is the variance of the mean, E s is c4 times its root: 0.798 for 2 draws, 0.921 for 4. 20,000 examples: the
    # mean of s² has a relative error of sqrt(2 / (draws - 1) / 20000) = 1 % at most; 3 % of its root is 6 sd (2e-9)
    elbo = Elbo.from_draws(weights_of_log_normal(20_000, draws, 2.0), {})
    true = 2 / math.sqrt(draws)
    c4 = math.sqrt(2 / (draws - 1)) * math.gamma(draws / 2) / math.gamma((draws - 1) / 2)
    assert elbo.standard_error.mean() == pytest.approx(c4 * true, rel=0.03)
    assert root_mean_square(elbo.standard_error) == pytest.approx(true, rel=0.03)
    assert math.isnan(root_mean_square(torch.tensor([1.0, math.nan])))


@pytest.mark.parametrize(("draws", "spread", "share"), [(16, 0.5, 1), (16, 3, 0), (1000, 1.5, 1), (1000, 4, 0)])
def test_weights_that_miss_the_posterior_are_not_trusted(draws, spread, share):
    """Also in the repeats whose effective sample size looks good, because no draw has met the large weights."""
    bound = ImportanceWeightedBound.from_log_weights(weights_of_log_normal(2000, draws, spread))
    assert bound.trusted.double().mean() == pytest.approx(share, abs=0.08)
    if share == 0:
        lucky = bound.effective_sample_size >= bound.effective_sample_size.quantile(0.9)
        assert bound.trusted[lucky].double().mean() < 0.15
        assert (bound.value[lucky] < -3 * bound.standard_error[lucky]).double().mean() > 0.5
    chains = AnnealedEstimate(bound, bound.value, bound.value)
    assert torch.equal(chains.trusted, bound.trusted)
    assert torch.equal(chains.standard_error, bound.standard_error)


def test_a_single_draw_is_not_trusted():
    assert not ImportanceWeightedBound.from_log_weights(weights_of_log_normal(5, 1, 1.0)).trusted.any()


def test_a_mean_that_few_values_carry_says_so():
    values = torch.zeros(2000).double()
    values[[3, 70]] = torch.tensor([819.0, 400.0]).double()
    estimate = Estimate.of(values)
    assert estimate.carriers == pytest.approx((819**2 + 400**2) ** 2 / (819**4 + 400**4), rel=0.01)
    assert estimate.doubt == "1 of 2,000 values carries the spread: do not trust the error"
    assert Estimate.of(values[3:71]).doubt == "2 of 68 values carry the spread: do not trust the error"
    assert Estimate.of(torch.randn(2000, generator=torch.Generator().manual_seed(0))).doubt is None
    assert Estimate.of(torch.ones(50)).doubt is None  # all alike: the error is 0
    large = torch.tensor([1e200, 0.0, 0.0], dtype=torch.float64)
    assert Estimate.of(large).carriers == pytest.approx(2)  # no power overflows


def test_one_value_says_that_it_has_no_error():
    assert Estimate.of(torch.ones(1)).doubt == "one value: its error is unknown"
    assert Estimate.share(torch.ones(0)).doubt == "no values: its error is unknown"


# Values, and how often 10, 100 and 1,000 of them are doubted at most, as the docstring says; over 2,000 repeats the
# share has a standard deviation of at most 0.009
ALARMS = {
    "normal": (lambda x: x, (0.005, 0.001, 0.001)),
    "exponential": (lambda x: -torch.special.ndtr(x).log(), (0.05, 0.005, 0.001)),
    "log-normal": (torch.exp, (0.14, 0.14, 0.01)),
    "0 or 1": (lambda x: (x > 0).double(), (0.035, 0.001, 0.001)),
}


@pytest.mark.parametrize("name", ALARMS)
def test_false_alarms_are_as_rare_as_stated(name):
    law, limits = ALARMS[name]
    for count, limit in zip((10, 100, 1000), limits, strict=True):
        rows = law(weights_of_log_normal(2000, count, 1.0).mT + 0.5)
        assert sum(Estimate.of(row).doubt is not None for row in rows) / 2000 <= limit


def test_an_estimate_is_json_both_ways():
    class Record(Value):
        estimates: tuple[Estimate, ...]

    record = Record(estimates=(Estimate.of(torch.tensor([1.0, 2.0, 9.0])), Estimate(1.0, math.inf, 3)))
    assert Record.model_validate_json(record.model_dump_json()) == record
    old = TypeAdapter(Estimate).validate_json('{"mean": 1.0, "standard_error": 0.5, "count": 4}')
    assert old == Estimate(1.0, 0.5, 4)
