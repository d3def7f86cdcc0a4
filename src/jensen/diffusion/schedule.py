"""5. Schedules, the noise level as a function of time, and grids, the times of a chain or a sampler.

A schedule is log snr_t = log alpha_bar_t - log(1 - alpha_bar_t) as a decreasing function of t in [0, 1]; the data are
at t = 0. This chapter describes noise levels only by their log-SNR, because both alpha_bar and 1 - alpha_bar follow
from the log-SNR without a subtraction. A grid is the log-SNR at T + 1 points: inf at point 0 (the data), then
decreasing. Step i of the forward chain leads from point i - 1 to point i, with beta_i of (5.1).

Schedules compute in float64 for t of any precision, and return the precision of t.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from jensen.errors import InputError

# ---------------------------------------------------------------------------------------------- of the log-SNR


def alpha_bar(log_snr: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """alpha_bar = snr / (1 + snr), the share of the data in the variance of x_t (5.6)."""
    return torch.sigmoid(log_snr)


def one_minus_alpha_bar(log_snr: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 - alpha_bar, the variance of the noise (5.6), to full relative precision."""
    return torch.sigmoid(-log_snr)


def signal_scale(log_snr: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sqrt(alpha_bar) (5.6); its gradient is finite at log_snr = ±inf too."""
    return torch.exp(0.5 * F.logsigmoid(log_snr))


def noise_scale(log_snr: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sqrt(1 - alpha_bar) (5.6); its gradient is finite at log_snr = ±inf too."""
    return torch.exp(0.5 * F.logsigmoid(-log_snr))


# ---------------------------------------------------------------------------------------------- schedules


class AbstractSchedule(nn.Module, ABC):
    """log snr as a decreasing function of t in [0, 1].

    For a schedule given by a table, `steps` is T, which is also the maximum number of steps of its grids. For
    continuous time, `steps` is None. `first_time` is the first time after the data: 1 / T for a table, 0 if log_snr(0)
    is finite.
    """

    steps: int | None = None
    first_time: float = 0.0

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """log snr_t for times of any shape, in [0, 1]; differentiable in t and in the parameters."""

    @property
    def device(self) -> torch.device:
        """The device of the schedule's numbers."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def ends(self) -> tuple[Tensor, Tensor]:
        """log snr at `first_time` and at 1, in float64: the range of noise levels of the network."""
        t = torch.tensor([self.first_time, 1.0], dtype=torch.float64, device=self.device)
        first, last = self.log_snr(t).unbind()
        return first, last


class LinearBeta(AbstractSchedule):
    """DDPM's chain: beta_1..beta_T rise linearly, alpha_bar_t = prod (1 - beta_s).

    Between the steps log alpha_bar is linear. `first` and `last` are beta_1 and beta_T for T = 1000. For another T they
    are multiplied by 1000 / T (Nichol & Dhariwal 2021), so that the chain ends at about the same noise. Raises
    `InputError` for a beta outside (0, 1). Source: Ho et al. 2020, section 4.

    >>> alpha_bar(LinearBeta().log_snr(torch.tensor([0.001, 1.0])))
    tensor([9.9990e-01, 4.0358e-05])
    """

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> None:
        super().__init__()
        if steps < 1 or not 0 < first * 1000 / steps <= last * 1000 / steps < 1:
            raise InputError(
                f"linear schedule with {steps} steps and beta from {first} to {last}, times 1000 / steps: expected "
                "0 < first <= last < 1 after scaling; give more steps or smaller betas"
            )
        self.steps, self.first_time = steps, 1 / steps
        betas = torch.linspace(first, last, steps, dtype=torch.float64) * (1000 / steps)
        self.register_buffer("log_alpha_bar", _log_alpha_bar(betas), persistent=False)

    def log_snr(self, t: Tensor) -> Tensor:
        """The log-SNR of the table at t = i / T, interpolated between; inf at t = 0."""
        return _log_snr_of_table(self.get_buffer("log_alpha_bar"), t)


class BetaTable(AbstractSchedule):
    """Any chain by its beta_1..beta_T, alpha_bar_t = prod (1 - beta_s); between the steps as `LinearBeta`.

    Raises `InputError` for fewer than two betas, and for a beta outside (0, 1).
    """

    def __init__(self, betas: Sequence[float]) -> None:
        super().__init__()
        if len(betas) < 2 or not all(0 < value < 1 for value in betas):
            raise InputError(f"a table of {len(betas)} betas: expected at least two, each between 0 and 1")
        self.steps, self.first_time = len(betas), 1 / len(betas)
        table = _log_alpha_bar(torch.tensor(betas, dtype=torch.float64))
        self.register_buffer("log_alpha_bar", table, persistent=False)

    def log_snr(self, t: Tensor) -> Tensor:
        """The log-SNR of the table at t = i / T, interpolated between; inf at t = 0."""
        return _log_snr_of_table(self.get_buffer("log_alpha_bar"), t)


def _log_alpha_bar(betas: Tensor) -> Tensor:
    """log prod_{s<=t} (1 - beta_s) for t = 0..T."""
    return F.pad(torch.log1p(-betas).cumsum(0), (1, 0))


def _log_snr_of_table(table: Tensor, t: Tensor) -> Tensor:
    """The log-SNR at times in [0, 1], where `table` (T + 1) holds log alpha_bar at t = i / T."""
    position = t.double() * (len(table) - 1)
    left = position.detach().floor().long().clamp(0, len(table) - 2)
    log_alpha_bar = torch.lerp(table[left], table[left + 1], position - left)
    return (log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))).to(t.dtype)


class Cosine(AbstractSchedule):
    """alpha_bar(t) = f(t) / f(0), f(t) = cos²(pi/2 (t + offset) / (1 + offset)), lifted to end at `floor` instead of 0.

    Source: Nichol & Dhariwal 2021, equation 17. The paper has no floor, but caps beta at 0.999. With a floor, the
    schedule does not depend on the grid.
    """

    first_time = 1e-3

    def __init__(self, offset: float = 0.008, floor: float = 1e-9) -> None:
        super().__init__()
        if offset <= 0:
            raise InputError(f"cosine schedule with offset {offset}: expected a number > 0; the usual one is 0.008")
        self.offset, self.floor = offset, _checked_floor(floor)

    def log_snr(self, t: Tensor) -> Tensor:
        """inf at t = 0, the floor's at t = 1."""
        start = 0.5 * math.pi * self.offset / (1 + self.offset)
        turned = 0.5 * math.pi * t.double() / (1 + self.offset)  # how far the angle is from its start
        noise = torch.sin(turned) * torch.sin(turned + 2 * start)  # cos²(start) - cos²(start + turned)
        left = 0.5 * math.pi * (1 - t.double()) / (1 + self.offset)  # how far it is from pi / 2
        return _lifted_log_snr(torch.sin(left).square(), noise, self.floor).to(t.dtype)


class Sigmoid(AbstractSchedule):
    """alpha_bar(t) falls like sigmoid(-((1 - t) start + t end) / temperature), scaled to start at 1 and end at `floor`.

    Source: Jabri et al. 2022, algorithm 5 (Chen 2023, equation 3): start -3, end 3, temperature 1.
    """

    first_time = 1e-3

    def __init__(self, start: float = -3.0, end: float = 3.0, temperature: float = 1.0, floor: float = 1e-9) -> None:
        super().__init__()
        if not (start < end and temperature > 0):
            raise InputError(
                f"sigmoid schedule from {start} to {end} at temperature {temperature}: "
                "expected start < end and a temperature > 0; the usual ones are -3, 3 and 1"
            )
        self.start, self.end, self.floor = start / temperature, end / temperature, _checked_floor(floor)

    def log_snr(self, t: Tensor) -> Tensor:
        """inf at t = 0, the floor's at t = 1."""
        width = self.end - self.start
        # sigmoid(end) - sigmoid(here) : sigmoid(here) - sigmoid(start), here = start + width t, less common factors
        signal = torch.expm1(width * (1 - t.double())) / (1 + math.exp(self.end))
        noise = -torch.expm1(-width * t.double()) / (1 + math.exp(self.start))
        return _lifted_log_snr(signal, noise, self.floor).to(t.dtype)


class LinearLogSnr(AbstractSchedule):
    """log snr falls linearly from `maximum` at t = 0 to `minimum` at t = 1, both finite.

    The bound does not depend on the schedule between its ends (Kingma et al. 2021), and a straight line is the simplest
    schedule.
    """

    def __init__(self, maximum: float = 13.0, minimum: float = -10.0) -> None:
        super().__init__()
        self.maximum, self.minimum = _checked_range(maximum, minimum)

    def log_snr(self, t: Tensor) -> Tensor:
        """maximum - (maximum - minimum) t."""
        return (self.maximum - (self.maximum - self.minimum) * t.double()).to(t.dtype)


class LearnedSchedule(AbstractSchedule):
    """A monotone network between learned log-SNRs at t = 0 and t = 1, trained with the bound.

    The log-SNRs at both ends change the bound. The shape between the ends mainly changes the variance of the bound's
    estimate.

    log_snr(t) = maximum - gap (g(t) - g(0)) / (g(1) - g(0)), g(t) = t + Σ_j height_j tanh(slope_j (t - centre_j)) with
    positive heights and slopes. `maximum` is the log-SNR at t = 0. The gap, which is positive, is the difference
    between the log-SNRs at t = 0 and t = 1. Before training the schedule is almost linear in t. Source: Kingma et al.
    2021, appendix H, with tanh units.
    """

    def __init__(self, maximum: float = 13.0, minimum: float = -10.0, width: int = 32) -> None:
        super().__init__()
        maximum, minimum = _checked_range(maximum, minimum)
        self.maximum = nn.Parameter(torch.tensor(float(maximum)))
        self.log_gap = nn.Parameter(torch.tensor(math.log(maximum - minimum)))
        self.centres = nn.Parameter(torch.linspace(0, 1, width))
        self.log_slopes = nn.Parameter(torch.full((width,), math.log(width / 2)))
        self.log_heights = nn.Parameter(torch.full((width,), -math.log(2 * width)))

    def log_snr(self, t: Tensor) -> Tensor:
        """`maximum` at t = 0, maximum - exp(log_gap) at t = 1."""
        start, end = self._monotone(torch.tensor([0.0, 1.0], dtype=torch.float64, device=t.device)).unbind()
        share = (self._monotone(t.double()) - start) / (end - start)
        return (self.maximum.double() - self.log_gap.double().exp() * share).to(t.dtype)

    def _monotone(self, t: Tensor) -> Tensor:
        units = torch.tanh(self.log_slopes.double().exp() * (t.unsqueeze(-1) - self.centres.double()))
        return t + units @ self.log_heights.double().exp()


def _lifted_log_snr(signal: Tensor, noise: Tensor, floor: float) -> Tensor:
    """log snr of alpha_bar' = floor + (1 - floor) alpha_bar, where alpha_bar : 1 - alpha_bar = signal : noise."""
    return torch.log(signal + floor * noise) - torch.log((1 - floor) * noise)


def _checked_floor(floor: float) -> float:
    if not 0 < floor < 0.1:
        raise InputError(f"floor {floor} of alpha_bar: expected a small positive number; the usual one is 1e-9")
    return floor


def _checked_range(maximum: float, minimum: float) -> tuple[float, float]:
    if not -math.inf < minimum < maximum < math.inf:
        raise InputError(f"log-SNR from {maximum} to {minimum}: expected finite numbers, the first larger; swap them?")
    return maximum, minimum


# ---------------------------------------------------------------------------------------------- grids


class AbstractGrid(ABC):
    """The points of a chain or a sampler on a schedule."""

    def __call__(self, schedule: AbstractSchedule, steps: int) -> Tensor:
        """log snr at points 0..steps, (steps + 1) in float64: inf (the data), then decreasing; differentiable.

        Raises `InputError` for less than one step, or more than the schedule's table has.
        """
        if steps < 1 or (schedule.steps is not None and steps > schedule.steps):
            most = "" if schedule.steps is None else f" and at most {schedule.steps}, the schedule's own number"
            raise InputError(f"{steps} steps: expected at least 1{most}; change the number of steps")
        share = torch.arange(1, steps + 1, dtype=torch.float64, device=schedule.device) / steps
        return F.pad(self._log_snr(schedule, share), (1, 0), value=math.inf)

    @abstractmethod
    def _log_snr(self, schedule: AbstractSchedule, share: Tensor) -> Tensor:
        """The log-SNR at points i = 1..T, given share = i / T."""


class UniformTime(AbstractGrid):
    """t_i = i / T. The chain, and any part of the chain, has this grid.

    >>> UniformTime()(LinearLogSnr(6.0, -6.0), 3)
    tensor([inf, 2., -2., -6.], dtype=torch.float64)
    """

    def _log_snr(self, schedule: AbstractSchedule, share: Tensor) -> Tensor:
        return schedule.log_snr(share)


@dataclass(frozen=True)
class UniformLogSnr(AbstractGrid):
    """Points 1..T at equal distances in log snr between the schedule's ends (Lu et al. 2022).

    >>> UniformLogSnr()(LinearLogSnr(6.0, -6.0), 3)
    tensor([inf, 6., 0., -6.], dtype=torch.float64)
    """

    def _log_snr(self, schedule: AbstractSchedule, share: Tensor) -> Tensor:
        first, last = schedule.ends()
        return torch.lerp(first, last, _from_zero(share))


@dataclass(frozen=True)
class UniformRoot(AbstractGrid):
    """Points 1..T at equal distances in sigma^(1/rho), sigma² = 1 / snr, between the schedule's ends.

    Source: Karras et al. 2022, equation 5, rho = 7; rho -> ∞ is `UniformLogSnr`.
    """

    rho: float = 7.0

    def _log_snr(self, schedule: AbstractSchedule, share: Tensor) -> Tensor:
        first, last = (torch.exp(-0.5 * end / self.rho) for end in schedule.ends())  # sigma^(1/rho)
        return -2 * self.rho * torch.log(torch.lerp(first, last, _from_zero(share)))


def _from_zero(share: Tensor) -> Tensor:
    """(i - 1) / (T - 1) from i / T; a single point gets 1, the noisiest level."""
    steps = len(share)
    return (share * steps - 1) / (steps - 1) if steps > 1 else share
