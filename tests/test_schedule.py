"""Schedules and grids against exact rational arithmetic, the papers' formulas and their own invariants."""

import math
from fractions import Fraction

import pytest
import torch

from jensen.diffusion.process import beta
from jensen.diffusion.schedule import (
    BetaTable,
    Cosine,
    LearnedSchedule,
    LinearBeta,
    LinearLogSnr,
    Sigmoid,
    UniformLogSnr,
    UniformRoot,
    UniformTime,
    alpha_bar,
    noise_scale,
    one_minus_alpha_bar,
    signal_scale,
)
from jensen.errors import InputError

SCHEDULES = [LinearBeta(), LinearBeta(50), Cosine(), Sigmoid(), LinearLogSnr(), LearnedSchedule()]
GRIDS = [UniformTime(), UniformLogSnr(), UniformRoot()]
IDS = ["linear-beta", "linear-beta-50", "cosine", "sigmoid", "linear-log-snr", "learned"]


def close(a, b, relative):
    """Within a relative error of each entry; no absolute one hides behind it."""
    torch.testing.assert_close(a.detach(), torch.as_tensor(b, dtype=a.dtype), rtol=relative, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_log_snr_falls_strictly_and_is_finite_after_the_data(schedule):
    log_snr = schedule.log_snr(torch.linspace(0, 1, 20_001, dtype=torch.float64))
    assert (log_snr.diff() < 0).all()
    assert log_snr[1:].isfinite().all()
    assert torch.stack(schedule.ends()).isfinite().all()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_float32_times_give_float32_levels_that_agree(schedule):
    t = torch.linspace(0.001, 0.999, 501)
    assert schedule.log_snr(t).dtype == torch.float32
    torch.testing.assert_close(schedule.log_snr(t).double(), schedule.log_snr(t.double()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_any_grid_is_a_chain_whose_table_is_the_product_of_its_betas(schedule, grid, steps):
    log_snr = grid(schedule, steps).detach()
    assert log_snr.shape == (steps + 1,)
    assert log_snr.dtype == torch.float64
    assert log_snr[0] == math.inf
    assert (log_snr.diff() < 0).all()
    kept = 1 - beta(log_snr[:-1], log_snr[1:])
    # 1 - beta has an absolute error of one epsilon: alpha_bar_T that of one over the smallest factor
    close(kept.cumprod(0), alpha_bar(log_snr[1:]), 1e-14 * steps + 4e-16 / float(kept.min()))


@pytest.mark.parametrize("steps", [1000, 40])
def test_linear_table_is_exact_to_float64_rounding(steps):
    log_snr = UniformTime()(LinearBeta(steps), steps)
    betas = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * (1000 / steps)
    product, exact = Fraction(1), []
    for value in betas.tolist():
        product *= 1 - Fraction(value)
        exact.append((float(product), float(1 - product)))
    kept, lost = torch.tensor(exact, dtype=torch.float64).unbind(-1)
    close(alpha_bar(log_snr[1:]), kept, 1e-14)  # |log snr| <= 10: ten times the rounding of one number
    close(one_minus_alpha_bar(log_snr[1:]), lost, 1e-14)
    close(beta(log_snr[:-1], log_snr[1:]), betas, 1e-11)  # a difference of logarithms, / beta


def test_linear_betas_of_a_shorter_chain_end_at_about_the_same_noise():
    ends = [float(LinearBeta(steps).log_snr(torch.tensor(1.0))) for steps in (1000, 500, 2000)]
    assert max(ends) - min(ends) < 0.3


def test_cosine_is_the_formula_of_nichol_and_dhariwal():
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)

    def f(time):
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    close(alpha_bar(Cosine().log_snr(t)), [f(float(time)) / f(0) for time in t], 1e-5)  # but for the floor
    close(alpha_bar(Cosine(floor=1e-15).log_snr(t)), [f(float(time)) / f(0) for time in t], 1e-11)


def test_sigmoid_is_the_formula_of_jabri_et_al():
    start, end, temperature = -3.0, 3.0, 0.7
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    v_start, v_end = (1 / (1 + math.exp(-x / temperature)) for x in (start, end))
    here = torch.sigmoid((t * (end - start) + start) / temperature)
    schedule = Sigmoid(start, end, temperature, floor=1e-15)
    close(alpha_bar(schedule.log_snr(t)), (v_end - here) / (v_end - v_start), 1e-11)


@pytest.mark.parametrize("kind", [Cosine, Sigmoid])
def test_the_floor_is_what_is_left_at_the_end(kind):
    end = kind(floor=1e-6).log_snr(torch.ones((), dtype=torch.float64))
    close(alpha_bar(end), 1e-6, 1e-9)


def test_linear_log_snr_and_a_fresh_learned_one_are_straight_lines():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    close(LinearLogSnr(5.0, -5.0).log_snr(t)[[0, -1]], [5.0, -5.0], 1e-15)
    learned = LearnedSchedule(5.0, -5.0).log_snr(t)
    assert (learned - LinearLogSnr(5.0, -5.0).log_snr(t)).abs().max() < 0.1


def test_a_learned_schedule_stays_monotone_and_learns_everything():
    torch.manual_seed(0)
    schedule = LearnedSchedule()
    with torch.no_grad():
        for parameter in schedule.parameters():
            parameter.add_(torch.randn_like(parameter))
    t = torch.linspace(0, 1, 1001, dtype=torch.float64).requires_grad_()
    log_snr = schedule.log_snr(t)
    (slope,) = torch.autograd.grad(log_snr.sum(), t, create_graph=True)
    assert (slope < 0).all()
    slope.square().sum().backward()
    grid = UniformTime()(schedule, 5)
    (noise_scale(grid).sum() + signal_scale(grid).sum() + beta(grid[:-1], grid[1:]).sqrt().sum()).backward()
    for name, parameter in schedule.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_root_grid_is_the_formula_of_karras_et_al():
    schedule, steps, rho = LinearLogSnr(2 * math.log(1 / 0.002), -2 * math.log(80)), 18, 7
    sigma = torch.exp(-0.5 * UniformRoot(rho)(schedule, steps))
    high, low = 80 ** (1 / rho), 0.002 ** (1 / rho)
    expected = [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)]
    close(sigma[1:].flip(0), expected, 1e-11)
    assert sigma[0] == 0


def test_uniform_log_snr_has_equal_steps_from_end_to_end():
    grid, (first, last) = UniformLogSnr()(Cosine(), 9), Cosine().ends()
    close(grid[1:].diff(), [float(last - first) / 8] * 8, 1e-12)
    assert grid[1] == first


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(steps):
    with pytest.raises(InputError, match=f"{steps} steps: expected at least 1"):
        UniformTime()(Cosine(), steps)


@pytest.mark.parametrize("grid", GRIDS)
def test_more_steps_than_the_table_are_refused_in_one_line(grid):
    with pytest.raises(
        InputError, match="51 steps: expected at least 1 and at most 50, the schedule's own number"
    ) as e:
        grid(LinearBeta(50), 51)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LinearBeta(0), "0 steps"),
        (lambda: LinearBeta(10), "more steps or smaller betas"),
        (lambda: LinearBeta(1000, 0.02, 1e-4), "first <= last"),
        (lambda: Cosine(offset=0), "offset 0"),
        (lambda: Cosine(floor=0), "floor 0"),
        (lambda: Sigmoid(3, -3), "start < end"),
        (lambda: Sigmoid(temperature=0), "temperature"),
        (lambda: LinearLogSnr(-5, 5), "swap"),
        (lambda: LearnedSchedule(math.inf, 0), "finite"),
    ],
)
def test_impossible_schedules_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_checkpoints_hold_no_tables():
    assert not LinearBeta().state_dict()


def test_a_table_of_the_linear_betas_is_the_linear_chain():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).tolist()
    t = torch.linspace(0, 1, 777, dtype=torch.float64)
    torch.testing.assert_close(BetaTable(betas).log_snr(t), LinearBeta(1000).log_snr(t), rtol=0, atol=0)


@pytest.mark.parametrize("betas", [[0.1], [0.1, 1.0], [0.0, 0.1], [0.1, float("nan")]])
def test_betas_that_make_no_chain_are_refused(betas: list[float]):
    with pytest.raises(InputError, match="each between 0 and 1"):
        BetaTable(betas)
