"""Bits-back with a diffusion model's chain (5.9), in the order of Bit-Swap (Kingma, Abbeel & Ho 2019).

    draw x_1 ~ q(x_1|x_0), push x_0 under p(x_0|x_1);  draw x_2 ~ q(x_2|x_1), push x_1 under p(x_1|x_2);  ...;
    draw x_T ~ q(x_T|x_{T-1}), push x_{T-1} under p(x_{T-1}|x_T);  push x_T under N(0, I).

On average the length is minus the bound (5.11) of the chain. This order borrows the bits of only one x_t at a time;
drawing all of x_1..x_T first would borrow the bits of all T at once. Each x_t has its own grid, whose bins are small
against the standard deviations of q(x_t|x_{t-1}) and of the reverse step to x_t. All computation outside the network is
in float64.
"""

import math

import numpy as np
import torch
from torch import Tensor

from jensen.compression.codec import AbstractCodec, Tick, refuse_density
from jensen.compression.coder import Floats, Integers, Stack
from jensen.compression.levels import pop_observation, push_observation, to_floats
from jensen.diffusion.bound import DiffusionBound, reconstruction_law
from jensen.diffusion.denoiser import Denoised
from jensen.diffusion.model import DiffusionModel
from jensen.diffusion.process import beta, posterior, posterior_variance
from jensen.diffusion.schedule import signal_scale
from jensen.likelihood import DiscretisedGaussian

BINS = 8.0  # bins per standard deviation of the narrower of the two distributions that code x_t


class ChainCodec(AbstractCodec):
    """Codes levels by a chain of `steps` steps on a diffusion model's own schedule.

    Labels are not used. Raises `InputError` for a model of densities, and for a number of steps that the schedule does
    not have.
    """

    steps: int

    def __init__(self, model: DiffusionModel, steps: int) -> None:
        scoring = model.scoring
        if scoring.levels is None:
            raise refuse_density("this diffusion model", "train it on integers")
        self._model, self.levels, self.shape, self.steps = model, scoring.levels, model.shape, steps
        self.noise_dims = math.prod(model.shape)
        with torch.no_grad():
            log_snr = scoring.grid(model.schedule, steps).to(model.device)
        self._bound = DiffusionBound(model.denoiser, log_snr, scoring.variance, scoring.levels)
        self._kernel_scale = beta(log_snr[:-1], log_snr[1:]).sqrt().cpu().numpy()  # of x_1 .. x_T
        self._keep = (signal_scale(log_snr[1:]) / signal_scale(log_snr[:-1])).cpu().numpy()
        reverse = posterior_variance(log_snr[1:-1], log_snr[2:]).sqrt().cpu().numpy()  # minimum, of x_1 .. x_{T-1}
        self._width = np.minimum(self._kernel_scale, np.append(reverse, 1.0)) / BINS

    @torch.no_grad()
    def push(self, stack: Stack, symbols: Tensor, tick: Tick) -> Tensor:
        x0 = self.prepared(symbols)
        values, points, nats = to_floats(x0, x0.shape), np.empty(0, np.int64), -self._prior_term(x0)
        for t in range(1, self.steps + 1):
            before = points
            stack.scramble(len(values))
            points = stack.draw_near(*self._kernel(values, t))
            values = points * self._width[t - 1]
            prediction = self._predict(values, len(x0), t)
            if t == 1:
                push_observation(stack, self._decoder(prediction), symbols)
            else:
                stack.push_near(before, *self._reverse(prediction, values, t))
            nats -= self._term(prediction, x0, t)
            tick(t / self.steps)
        stack.push_near(points, *self._noise(points))
        return nats

    @torch.no_grad()
    def pop(self, stack: Stack, count: int, tick: Tick) -> Tensor:
        points = stack.pop_near(*self._noise(np.empty(count * self.noise_dims)))
        for t in range(self.steps, 1, -1):
            values = points * self._width[t - 1]
            before = stack.pop_near(*self._reverse(self._predict(values, count, t), values, t))
            stack.give_back(points, *self._kernel(before * self._width[t - 2], t))
            stack.unscramble(len(points))
            points = before
            tick(1 - (t - 1) / self.steps)
        prediction = self._predict(points * self._width[0], count, 1)
        symbols = pop_observation(stack, self._decoder(prediction), torch.Size((count, *self.shape)))
        x0 = self.prepared(symbols)
        stack.give_back(points, *self._kernel(to_floats(x0, x0.shape), 1))
        stack.unscramble(len(points))
        tick(1.0)
        return symbols

    # -- mean and scale on the two sides of step t, in bins of the coded variable's grid

    def _kernel(self, values: Floats, t: int) -> tuple[Floats, Floats]:
        """q(x_t | x_{t-1} = values) (5.1)."""
        width = self._width[t - 1]
        mean = values * (self._keep[t - 1] / width)
        return mean, np.full_like(mean, self._kernel_scale[t - 1] / width)

    def _reverse(self, prediction: Denoised, values: Floats, t: int) -> tuple[Floats, Floats]:
        """p(x_{t-1} | x_t = values) (5.12), t >= 2; the mean follows from x̂ by (5.8)."""
        log_snr_s, x0 = self._bound.log_snr[t - 1], prediction.x0.double()
        x_t = torch.from_numpy(values).reshape(x0.shape).to(x0.device)
        mean = posterior(x_t, x0, log_snr_s, self._bound.log_snr[t]).mean
        scale = self._bound.variance.scale(prediction, log_snr_s.expand(len(x0)))
        width = self._width[t - 2]
        return to_floats(mean, mean.shape) / width, to_floats(scale, mean.shape) / width

    def _noise(self, points: Floats | Integers) -> tuple[Floats, Floats]:
        """p(x_T) = N(0, I)."""
        return np.zeros(len(points)), np.full(len(points), 1 / self._width[-1])

    def _decoder(self, prediction: Denoised) -> DiscretisedGaussian:
        """p(x_0 | x_1), as in the bound's L_0."""
        law = reconstruction_law(prediction, self._bound.variance, self.levels)
        assert isinstance(law, DiscretisedGaussian)
        return law

    # -- the network, and the bound's terms

    def _predict(self, values: Floats, count: int, t: int) -> Denoised:
        x_t = torch.from_numpy(values).to(torch.float32).reshape(count, *self.shape).to(self._model.device)
        return self._bound.denoiser(x_t, self._bound.log_snr[t].expand(count))

    def _term(self, prediction: Denoised, x0: Tensor, t: int) -> Tensor:
        """The term of step t in the bound (5.11), in closed form given x_t."""
        step = torch.full((len(x0),), t, device=self._model.device)
        return self._bound.term(prediction, x0.to(self._model.device), step).double().cpu()

    def _prior_term(self, x0: Tensor) -> Tensor:
        return self._bound.prior(x0.to(self._model.device)).double().cpu()
