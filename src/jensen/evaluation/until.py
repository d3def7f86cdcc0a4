"""The bound's mean over a test set, to a wanted error: draws are added until the error is there.

The rule is that of a fixed sample, looked at a few times: after a pilot, the number of rows that the wanted error needs
is computed, the rows are drawn, and this is repeated until the stated standard error, plus its own standard error, is
at most the wanted one (Chow and Robbins 1965; for two looks Stein 1945). Between two looks the number of rows grows by
10 % to 100 %, so there are few looks. docs/errors.md has the coverage of ± 1.96 errors, which is about that of a fixed
number of rows. A confidence sequence would hold at every moment and for any rule, but its intervals are about 1.5 times
as wide after the same rows, which is more than twice the price (Waudby-Smith et al. 2024).
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.bound import Estimate
from jensen.evaluation.measure import Measure
from jensen.evaluation.source import Source, visiting_order
from jensen.evaluation.survey import Draws, RegressionEstimate, allocation, regression_estimate
from jensen.progress import Progress, say

PILOT = 8, 64  # rows of the pilot: at least of each part, and in all
SPARE = 1.03  # more rows than the forecast, so that the next look is usually the last
ENOUGH = 3  # visits of every example after which the error that no further draw undercuts is known

Unit = Literal["bits per dimension", "nats per example", "nats per row"]


@dataclass(frozen=True)
class Goal:
    """A standard error of the mean, and its unit."""

    error: float
    unit: Unit

    def estimate(self, found: Measure) -> Estimate:
        """The mean in the unit of the goal."""
        return found.bits_per_dimension if self.unit == "bits per dimension" else found.nats


@dataclass(frozen=True, eq=False)
class Reached:
    """The result of `until`: the mean in both units, the estimate in nats, and its cost.

    `visited` is the number of examples with a draw. `forecast` is the number of draws that the pilot foretold:
    NaN if the pilot sufficed, inf if the goal always seemed out of reach.
    `limit` is the error that no number of further draws undercuts, if it is above the wanted error; else None.
    """

    measure: Measure
    found: RegressionEstimate
    visited: int
    evaluations: float
    seconds: float
    forecast: float
    limit: float | None


def until(
    source: Source,
    controls: Float[Tensor, " examples controls"],
    goal: Goal,
    *,
    seed: int,
    tell: Callable[[str], None] = say,
) -> Reached:
    """Draw parts of the bound until the standard error of the mean is at most that of the `goal`.

    After the pilot, `tell` gets one line about the expected cost. If the goal seems out of reach, and a later look
    finds that it is not, it gets a second one. The draws end before, with a `limit`, if no draws reach the goal,
    and at once if a draw is not finite.
    """
    began, evaluations, draws, forecast = time.perf_counter(), 0.0, Draws.none(), math.nan
    rows, text = torch.full((source.count,), max(PILOT[0], -(-PILOT[1] // source.count))), "pilot"
    with Progress(f"± {goal.error:g} {goal.unit}") as progress:
        while True:
            several, count, wanted = [draws], len(draws), len(draws) + int(rows.sum())
            for more, cost in _drawn(source, rows, len(draws), seed):
                several.append(more)
                count, evaluations = count + len(more), evaluations + cost
                progress.update(count, text, max(round(forecast), wanted) if forecast < math.inf else wanted)
            draws = Draws.joined(several)  # once per look: a copy for every batch would be quadratic
            found, visited = regression_estimate(draws, source.count, controls), len(draws.example.unique())
            measure, seconds = measured(found, source, visited), time.perf_counter() - began
            stated = goal.estimate(measure)
            error = _with_its_own_error(stated)
            if not error > goal.error:  # an error that is not a number ends the loop, too
                return Reached(measure, found, visited, evaluations, seconds, forecast, None)
            total, limit = needed(found, found.error * goal.error / error)
            if limit >= 1 and len(draws) >= ENOUGH * len(source.known):
                least = limit * goal.error * stated.standard_error / error
                return Reached(measure, found, visited, evaluations, seconds, forecast, least)
            if not forecast < math.inf and forecast != total:
                tell(_price(total, seconds / len(draws), evaluations / len(draws), goal))
                forecast = total
            rows = allocation(found, total) - found.rows
            text = f"± {stated.standard_error:.2g}"


def _with_its_own_error(found: Estimate) -> float:
    """The standard error plus its own standard error, so that draws do not end because it happens to be low.

    An error that C values carry has a relative error of about 1 / (2 sqrt(C)).
    """
    return found.standard_error * (1 + 0.5 / math.sqrt(found.carriers or math.inf))


def needed(found: RegressionEstimate, wanted: float) -> tuple[float, float]:
    """The number of draws for an error of `wanted` nats, and the error of infinitely many draws over `wanted`.

    With Neyman's allocation of n draws the error is sqrt((Σ_h s_h)² / n + rest). The rest comes from the controls' mean
    over the test set, and from examples that are drawn several times.
    """
    own = (found.deviation.square() / found.rows).sum().item()
    rest = max(found.error**2 - own, 0.0)
    room = wanted**2 - rest
    total = SPARE * found.deviation.sum().item() ** 2 / room if room > 0 else math.inf
    return total, math.sqrt(rest) / wanted


def measured(found: RegressionEstimate, source: Source, visited: int) -> Measure:
    """The estimate in nats per example and in bits per observed value; see `units.measure`.

    The bits are a ratio of means, Σ bits / Σ observed, whose error is by the delta method.
    """
    count, size = len(source.known), source.observed.mean().item()
    influence = found.influence + (source.known - source.known.mean()) / count
    nats = Estimate.of_contributions(found.mean + source.known.mean().item(), influence, visited)
    relative = influence - nats.mean / size * (source.observed - size) / count
    bits = Estimate.of_contributions(-nats.mean / (size * math.log(2)), relative / (size * math.log(2)), visited)
    return Measure(nats=nats, bits_per_dimension=bits)


def _drawn(source: Source, rows: Tensor, drawn: int, seed: int) -> Iterator[tuple[Draws, float]]:
    """`rows` (parts) further draws of each part, after `drawn` earlier ones."""
    parts = torch.arange(source.count).repeat_interleave(rows)
    positions = torch.arange(drawn, drawn + len(parts))
    examples, visits = visiting_order(len(source.known), seed, positions)
    yield from source.drawn(examples, parts, visits)


def _price(total: float, seconds: float, evaluations: float, goal: Goal) -> str:
    """What the user will pay, in words."""
    if total == math.inf:
        return f"± {goal.error:g} {goal.unit} may be out of reach: the examples themselves differ too much"
    time_ = timedelta(seconds=max(round(total * seconds), 1))
    return (
        f"± {goal.error:g} {goal.unit} will take about {total * evaluations:,.0f} evaluations of the network, {time_}"
    )
