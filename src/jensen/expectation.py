"""2. Stochastic optimisation: min over (mu, Sigma) of E_{N(x | mu, Sigma)} f(x) (2.1), with or without an entropy term.

The loop is (2.3) with the gradients (2.2). The iterates never come to rest, so the result is the average of the
iterates over a window of steps. The gain from one average to the next is measured on the *same* random numbers. Most of
the noise then cancels: the closer the two averages, the smaller the standard error of the gain. The gain decides how to
go on:

- Gain significantly above `tolerance`: the next window has the same length.
- Otherwise: the next window is twice as long. If the gain is not even significantly above zero, the search continues
  from the average with half the learning rate.
- **Converged**: the gains of two windows in a row, the second twice as long as the first, are within `tolerance`,
  including two standard errors. In addition, the last gain is not significant, or the gains shrink so fast that all
  future gains, summed as a geometric series, are also within `tolerance`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.gaussian import Gaussian, MultivariateGaussian

Family = TypeVar("Family", Gaussian, MultivariateGaussian)
ADAM = partial(torch.optim.Adam, lr=0.05, betas=(0.9, 0.99))


@dataclass(frozen=True)
class Search:
    """Settings of the search.

    `optimiser` makes a torch optimiser. The optimised parameters are in units of the standard deviations of the start,
    so the learning rate has no unit. `batch_size` is B of (2.3). `window` is the length of the first window in steps.
    `tolerance` is the largest gain that does not matter, in units of f. `max_steps` is the maximum number of steps.
    Raises `InputError` for a batch size below 2, a window or limit below 1, or a tolerance that is not positive.
    """

    optimiser: Callable[[list[Tensor]], torch.optim.Optimizer] = ADAM
    batch_size: int = 64
    window: int = 100
    tolerance: float = 1e-3
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.window < 1 or self.max_steps < 1 or not self.tolerance > 0:
            raise InputError(
                f"Search got batch_size {self.batch_size}, window {self.window}, max_steps {self.max_steps}, tolerance "
                f"{self.tolerance}: give at least 2, 1 and 1, and a tolerance above 0."
            )


@dataclass(frozen=True)
class Step:
    """One step of (2.3): the loss and the norm of its gradient in mu (2.2), with standard errors over the B draws."""

    loss: float
    standard_error: float
    gradient_norm: float
    gradient_noise: float


@dataclass(frozen=True)
class Window:
    """A window of steps: the loss at the average iterate, and the gain over the previous average on the same draws."""

    steps: int
    learning_rate: float
    loss: float
    standard_error: float
    gain: float
    gain_standard_error: float

    def gains_more_than(self, amount: float) -> bool:
        """Whether the gain exceeds `amount` by more than two standard errors."""
        return self.gain - 2 * self.gain_standard_error > amount

    def within(self, tolerance: float) -> bool:
        """Whether |gain| plus two standard errors is at most `tolerance`."""
        return abs(self.gain) + 2 * self.gain_standard_error <= tolerance


@dataclass(frozen=True)
class History:
    """All steps and all windows in order, for plotting."""

    steps: list[Step]
    windows: list[Window]

    def settled(self, tolerance: float) -> bool:
        """Whether the search has converged, by the criterion at the top of this module."""
        if len(self.windows) < 2:
            return False
        before, last = self.windows[-2:]
        # With r = last.gain / before.gain, the future gains add up to last.gain * r / (1 - r).
        fading = last.gain**2 <= tolerance * (before.gain - last.gain)
        small = before.within(tolerance) and last.within(tolerance)
        return small and last.steps == 2 * before.steps and (fading or not last.gains_more_than(0.0))


@dataclass(frozen=True)
class Minimum(Generic[Family]):
    """The result of a search: the average of the last window, the history, convergence, and the number of steps."""

    distribution: Family
    history: History
    converged: bool
    steps: int


def minimise_expectation(
    f: Callable[[Tensor], Tensor],
    start: Family,
    generator: torch.Generator,
    temperature: float = 0.0,
    search: Search = Search(),
) -> Minimum[Family]:
    """Minimise E_{N(x | mu, Sigma)} f(x) - temperature * H[N(mu, Sigma)] over mu and Sigma (2.1), from `start`.

    `f` is differentiable and maps (B, *event) to (B,); row i of its result depends only on row i of its input. `start`
    has no batch dimensions. The result has the type of `start`: a `Gaussian` has a diagonal covariance, a
    `MultivariateGaussian` a full covariance. The parameters are m, l and a strictly lower triangular N, with mu = mu_0
    + L_0 m and L = L_0 diag(e^l) (I + N). So L is a valid Cholesky factor for all values of the parameters, and the
    scale of `start` is the unit of a step. A search that reaches `search.max_steps` returns `converged` = False. Raises
    `InputError` if f does not return (B,), or if f or its gradient is not finite; the message names the step.

    >>> f, start = lambda x: 2 * (x - 1).square().sum(-1), Gaussian.standard((2,))
    >>> found = minimise_expectation(f, start, torch.Generator().manual_seed(0), 1.0, Search(tolerance=0.01))
    >>> found.converged, found.distribution.mean.round(decimals=1), found.distribution.scale.round(decimals=1)
    (True, tensor([1., 1.]), tensor([0.5000, 0.5000]))
    """
    if start.batch_shape or not temperature >= 0:
        raise InputError(
            f"minimise_expectation got a start of shape {tuple(start.shape)} and temperature {temperature}: "
            "give a start without batch dimensions and a temperature of at least 0."
        )
    run = _Run(f, start, generator, temperature, search)
    while True:
        window = run.window()
        converged = run.history.settled(search.tolerance)
        if converged or len(run.history.steps) >= search.max_steps:
            return Minimum(cast(Family, run.average), run.history, converged, len(run.history.steps))
        if not window.gains_more_than(search.tolerance):
            run.steps_per_window *= 2
        if not window.gains_more_than(0.0):
            run.anneal()


class _Run:
    """The state of a search: the parameters, the optimiser, the last average, the window length, the history."""

    def __init__(
        self,
        f: Callable[[Tensor], Tensor],
        start: Gaussian | MultivariateGaussian,
        generator: torch.Generator,
        temperature: float,
        search: Search,
    ) -> None:
        self.f, self.generator, self.temperature, self.search = f, generator, temperature, search
        self.start = self.average = start.detach()
        rows = 2 + (len(start.mean) if isinstance(start, MultivariateGaussian) else 0)  # m, l, and the rows of N
        self.parameters = start.mean.new_zeros((rows, *start.shape), requires_grad=True)
        self.averaged_parameters = self.parameters.detach()
        self.optimiser = search.optimiser([self.parameters])
        self.steps_per_window = search.window
        self.history = History([], [])

    def window(self) -> Window:
        """Take the steps of one window, average the iterates, and compare the average with the previous average."""
        steps = min(self.steps_per_window, self.search.max_steps - len(self.history.steps))
        total = torch.zeros_like(self.averaged_parameters)
        for _ in range(steps):
            self.history.steps.append(self._step())
            total += self.parameters.detach()
        self.averaged_parameters = total / steps
        before, self.average = self.average, self._distribution(self.averaged_parameters)
        self.history.windows.append(self._compare(before, steps))
        return self.history.windows[-1]

    def anneal(self) -> None:
        """Continue from the average with half the learning rate."""
        with torch.no_grad():
            self.parameters.copy_(self.averaged_parameters)
        for group in self.optimiser.param_groups:
            group["lr"] /= 2

    def _distribution(self, parameters: Tensor) -> Gaussian | MultivariateGaussian:
        """mu = mu_0 + L_0 m, L = L_0 diag(e^l) (I + N): a valid factor for every value of the parameters (2.3)."""
        start, shift = self.start, parameters[0]
        smallest = math.log(torch.finfo(shift.dtype).tiny) / 2  # keeps e^l, and e^l times L_0, above zero
        scale = parameters[1].clamp(min=smallest).exp()
        if isinstance(start, Gaussian):
            return Gaussian(start.mean + start.scale * shift, start.scale * scale, start.event_dims)
        factor = scale.unsqueeze(-1) * parameters[2:].tril(-1) + scale.diag()
        return MultivariateGaussian(start.mean + start.cholesky @ shift, start.cholesky @ factor)

    def _step(self) -> Step:
        distribution = self._distribution(self.parameters)
        x = distribution.rsample(self.generator, (self.search.batch_size,))
        values, gradients = self._values_and_gradients(x.detach())
        entropy = distribution.entropy()
        step = _summary(values - self.temperature * entropy.detach(), gradients)
        if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
            what = "f is not finite" if not math.isfinite(step.loss) else "f is finite but its gradient is not"
            raise InputError(
                f"{what} at step {len(self.history.steps) + 1}: make f smooth and finite wherever the distribution "
                "reaches, start nearer or narrower, or lower the learning rate."
            )
        self.optimiser.zero_grad()
        torch.autograd.backward([x, entropy], [gradients / len(values), entropy.new_tensor(-self.temperature)])  # (2.2)
        self.optimiser.step()
        return step

    def _values_and_gradients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = self.f(x.requires_grad_())
        if values.shape != x.shape[:1] or not values.requires_grad:
            smooth = "differentiable" if values.requires_grad else "not differentiable"
            raise InputError(
                f"f returned a tensor of shape {tuple(values.shape)}, {smooth}, for x of shape "
                f"{tuple(x.shape)}: give one differentiable value per row, shape ({len(x)},)."
            )
        return values.detach(), torch.autograd.grad(values.sum(), x)[0]

    @torch.no_grad()
    def _compare(self, before: Gaussian | MultivariateGaussian, steps: int) -> Window:
        """The loss at this window's average, and the gain over the one `before`, on a quarter of a window's draws."""
        losses, gains = [], []
        for _ in range(max(2, steps // 4)):
            state = self.generator.get_state()  # both averages get the same random numbers
            values_before = self.f(before.rsample(self.generator, (self.search.batch_size,)))
            self.generator.set_state(state)
            losses.append(self.f(self.average.rsample(self.generator, (self.search.batch_size,))))
            gains.append(values_before - losses[-1])
        entropy, entropy_before = self.average.entropy(), before.entropy()
        loss = _mean_and_error(torch.cat(losses) - self.temperature * entropy)
        gain = _mean_and_error(torch.cat(gains) + self.temperature * (entropy - entropy_before))
        return Window(steps, self.optimiser.param_groups[0]["lr"], *loss, *gain)


def _summary(losses: Tensor, gradients: Tensor) -> Step:
    rows, count = gradients.flatten(1), math.sqrt(len(gradients))
    noise = rows.var(0).sum().sqrt() / count
    moments = torch.stack([losses.mean(), losses.std() / count, rows.mean(0).norm(), noise])
    return Step(*moments.tolist())  # one transfer: the device is waited for once


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))
