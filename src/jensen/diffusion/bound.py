"""5. The bound (5.11), term by term: L_T, every L_{t-1}, L_0.

A chain is a grid of log-SNRs: inf at point 0 (the data), then the log-SNRs of x_1 .. x_T. In nats per example,

    log p(x_0) >= -L_T - Σ_{t=2}^T L_{t-1} - L_0,      L_T     = KL(q(x_T|x_0) || N(0, I)),
                                                       L_{t-1} = E KL(q(x_{t-1}|x_t,x_0) || p_theta(x_{t-1}|x_t)),
                                                       L_0     = -E log p_theta(x_0|x_1).

Every KL is in closed form; the expectations over x_t are averages over draws. With T - 1 strata the sum over t has all
terms; with fewer strata it is an unbiased estimate (`Strata`). Step t means the term of x_t: step 1 is L_0, step t >= 2
is L_{t-1}.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from jensen.bound import Elbo, Profile
from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.process import marginal, posterior
from jensen.diffusion.reverse import AbstractReverseVariance
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.likelihood import DiscretisedGaussian
from jensen.randomness import Stream, derived_seed, normal_per_example, uniform_per_example

ROWS = {"cpu": 500, "cuda": 4000}  # rows of one call of the network: changes memory and speed, never a number
NARROWEST = 0.1  # minimum of sigma_1 in p(x_0|x_1) over levels, as a share of the levels' spacing
NOISE, CHOICE = 0, 1  # the purpose of an example's random numbers

# ---------------------------------------------------------------------------------------------- one term


@dataclass(frozen=True, eq=False)
class DiffusionBound:
    """The bound (5.11) of one denoiser along one chain, differentiable in both.

    `log_snr` (T + 1) is a grid of `jensen.diffusion.schedule`. `variance` is the sigma_t² of (5.12). With `levels` the
    data lie on the grid of that many levels in [-1, 1], p_theta(x_0|x_1) is a discretised Gaussian, and the bound is on
    a log-mass. Without `levels` the bound is on a log-density. Raises `InputError` for a chain of one step, which has
    no denoising term.
    """

    denoiser: AbstractDenoiser
    log_snr: Float[Tensor, " points"]
    variance: AbstractReverseVariance
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise InputError(f"a bound over {self.steps} step: expected at least 2; raise the number of steps")

    @property
    def steps(self) -> int:
        """T."""
        return len(self.log_snr) - 1

    def prior(self, x0: Tensor) -> Tensor:
        """L_T = KL(q(x_T|x_0) || N(0, I)) (5.11), (batch), in closed form."""
        return marginal(x0, self.log_snr[-1]).kl_to_standard()

    def predict(self, x0: Tensor, step: Tensor, eps: Tensor, labels: Tensor | None = None) -> Denoised:
        """The denoiser's prediction at x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (5.6); step t (rows)."""
        log_snr = self.log_snr[step]
        kernel = marginal(x0, log_snr)
        return self.denoiser(kernel.mean + kernel.scale * eps, log_snr, labels)

    def term(self, prediction: Denoised, x0: Tensor, step: Tensor) -> Tensor:
        """L_{t-1} for t = step >= 2 and L_0 for step 1, in nats, (rows); step (rows)."""
        first = self.reconstruction_term(prediction, x0, step)
        return torch.where(step == 1, first, self.denoising_term(prediction, x0, step))

    def denoising_term(self, prediction: Denoised, x0: Tensor, step: Tensor) -> Tensor:
        """L_{t-1} (5.11), t = step >= 2, in nats, (rows); meaningless but finite for step 1."""
        log_snr_s = torch.where(step == 1, self.log_snr[step] + 1, self.log_snr[step - 1])  # not inf, lest inf - inf
        return reverse_kl(prediction, x0, log_snr_s, self.variance)

    def reconstruction_term(self, prediction: Denoised, x0: Tensor, step: Tensor) -> Tensor:
        """L_0 = -log p_theta(x_0|x_1) (5.11), in nats, (rows), around mu_theta = x̂; every row counts as step 1."""
        return -reconstruction_law(prediction, self.variance, self.levels).log_prob(x0)


def reconstruction_law(
    prediction: Denoised, variance: AbstractReverseVariance, levels: int | None
) -> Gaussian | DiscretisedGaussian:
    """p_theta(x_0|x_1) around x̂ with scale sigma_1; for levels, sigma_1 is at least a tenth of the levels' spacing.

    Any sigma_1 gives a bound. At the minimum of sigma_1, a level extends five sigma_1 to either side, so the minimum
    costs at most 5.7e-7 nats per dimension. Suppose that there were no minimum, and that a fraction p of all x̂ were
    wrong. A variance fitted to mean errors would shrink with p, and each wrong x̂ would cost up to 1 / 2p nats. The
    mean bound would then depend on rare examples, which a test set may not even contain.
    """
    scale = variance.scale(prediction, torch.full_like(prediction.log_snr, math.inf))
    event_dims = prediction.x0.ndim - 1
    if levels is None:
        return Gaussian(prediction.x0, scale, event_dims)
    floor = NARROWEST * 2 / (levels - 1)
    return DiscretisedGaussian(prediction.x0, scale.clamp(min=floor), levels, event_dims)


def squared_error(prediction: Denoised, x0: Tensor) -> Tensor:
    """||x_0 - x̂||² / D, (rows), where D is the number of dimensions of x_0."""
    return (x0 - prediction.x0).square().flatten(1).mean(1)


def reverse_kl(prediction: Denoised, x0: Tensor, log_snr_s: Tensor, variance: AbstractReverseVariance) -> Tensor:
    """KL(q(x_s|x_t,x_0) || p_theta(x_s|x_t)) (5.13), of shape (rows).

    Both means are shifted by -mu_theta. The difference of the means is (5.8) with x_0 - x̂ in place of x_0, so no large
    numbers are subtracted. With sigma_t² = beta~_t the KL is ½ (snr_s - snr_t) ||x_0 - x̂||² (5.20).
    """
    error = posterior(torch.zeros_like(x0), x0 - prediction.x0, log_snr_s, prediction.log_snr)
    reverse = Gaussian(torch.zeros_like(x0), variance.scale(prediction, log_snr_s), x0.ndim - 1)
    return error.kl(reverse)


# ---------------------------------------------------------------------------------------------- which terms


@dataclass(frozen=True, eq=False)
class Strata:
    """A division of steps 2..T into strata of consecutive steps.

    One random step of each stratum is enough for an unbiased estimate of the sum over all steps. `stratum` (T - 1) is
    the index of each step's stratum, from 0. Each draw evaluates one step of each stratum. `probability` (T - 1) is the
    probability of each step within its stratum.
    """

    stratum: Int[Tensor, " terms"]
    probability: Float[Tensor, " terms"]

    @classmethod
    def every_step(cls, steps: int) -> "Strata":
        """One stratum for each of the T - 1 steps, so that all terms are evaluated."""
        return cls(torch.arange(steps - 1), torch.ones(steps - 1, dtype=torch.float64))

    @classmethod
    def weighted(cls, importance: Float[Tensor, " terms"], count: int, uniform: float = 0.1) -> "Strata":
        """Up to `count` strata of about equal total `importance`, which is given for each step (T - 1).

        Within a stratum, the probability of a step is proportional to its importance. The estimate is unbiased for any
        importance; its error is smallest if the importance is proportional to the terms. Every step has at least the
        share `uniform` of the probability that a uniform importance would give it. Raises `InputError` for less than
        one stratum.
        """
        if count < 1:
            raise InputError(f"{count} terms of the bound: expected at least 1; give a positive number or all of them")
        importance = importance.detach().double().cpu()
        importance = (1 - uniform) * importance / importance.sum() + uniform / len(importance)
        middle = importance.cumsum(0) - 0.5 * importance
        stratum = torch.unique_consecutive((middle * count).floor(), return_inverse=True)[1]
        total = torch.zeros(int(stratum[-1]) + 1, dtype=torch.float64).index_add_(0, stratum, importance)
        return cls(stratum, importance / total[stratum])

    @property
    def count(self) -> int:
        """The number of strata."""
        return int(self.stratum[-1]) + 1

    def draw(self, u: Float[Tensor, "*batch strata"]) -> tuple[Tensor, Tensor]:
        """One step of each stratum and 1 / its probability, from uniform numbers, each (*batch, strata)."""
        start = self.probability.cumsum(0) - self.probability  # each earlier stratum adds 1
        place = torch.arange(self.count, dtype=u.dtype) + u
        chosen = torch.searchsorted(start.contiguous(), place.contiguous(), right=True) - 1
        chosen = chosen.clamp(self._edges()[:-1], self._edges()[1:] - 1)  # rounding may not leave the stratum
        return chosen + 2, 1 / self.probability[chosen]

    def sizes(self) -> Tensor:
        """The number of steps of each stratum, (strata)."""
        return self._edges().diff()

    def _edges(self) -> Tensor:
        return torch.searchsorted(self.stratum, torch.arange(self.count + 1))


# ---------------------------------------------------------------------------------------------- all terms


@dataclass(frozen=True, eq=False)
class BoundEstimate:
    """Estimates of the terms of the bound for a batch, float64.

    `nats` (draws, strata, batch) are unbiased estimates of the sum of L_{t-1} in each stratum. `squared_error`, of the
    same shape, are unbiased estimates of the mean ||x_0 - x̂||² / D in each stratum. `reconstruction` and
    `reconstruction_error` (draws, batch) are -L_0 and ||x_0 - x̂||² / D at step 1. `prior` (batch) is L_T. `log_snr`
    (T + 1) holds the log-SNR at each point of the chain.
    """

    log_snr: Tensor
    strata: Strata
    nats: Float[Tensor, " draws strata batch"]
    squared_error: Float[Tensor, " draws strata batch"]
    reconstruction: Float[Tensor, " draws batch"]
    reconstruction_error: Float[Tensor, " draws batch"]
    prior: Float[Tensor, " batch"]

    def elbo(self) -> Elbo:
        """(5.11) in nats; the standard error is over draws, and includes the choice of steps."""
        denoising = self.nats.sum(1)
        draws = len(denoising)
        error = (self.reconstruction - denoising).std(0) / math.sqrt(draws) if draws > 1 else None
        rates = {"prior": self.prior, "denoising": denoising.mean(0)}
        return Elbo(self.reconstruction.mean(0), rates, error, self.profile())

    @property
    def label_terms(self) -> Tensor:
        """The terms that depend on labels, (draws, strata + 1, batch), signed; L_T is the same for every label."""
        return torch.cat([self.reconstruction.unsqueeze(1), -self.nats], 1)

    def profile(self) -> Profile:
        """The terms of each example, from the data to the noise: L_0, the strata, L_T."""
        nats = torch.cat([-self.reconstruction.mean(0, keepdim=True), self.nats.mean(0), self.prior.unsqueeze(0)])
        errors = torch.cat([self.reconstruction_error.mean(0, keepdim=True), self.squared_error.mean(0)])
        sizes = torch.cat([torch.tensor([1]), self.strata.sizes()])
        return Profile(self.log_snr.double(), sizes.cumsum(0), nats.cpu(), errors.cpu())


@torch.no_grad()
def estimate_bound(
    bound: DiffusionBound,
    x0: Tensor,
    strata: Strata,
    *,
    draws: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    labels: Tensor | None = None,
) -> BoundEstimate:
    """Estimate every term of the bound for x0 (batch, *shape) by `draws` independent draws.

    Each draw evaluates one step per stratum. The estimate is unbiased for any strata. The noise and the choice of steps
    for example i are a function of (seed, index[i]). Raises `InputError` if `draws` is less than 1, or if the
    strata were made for another number of steps.
    """
    if draws < 1:
        raise InputError(f"{draws} draws: expected at least 1; give a positive number")
    if len(strata.probability) != bound.steps - 1:
        raise InputError(
            f"strata of a chain of {len(strata.probability) + 1} steps for a bound over {bound.steps}: make them equal"
        )
    index = torch.arange(len(x0)) if index is None else index.cpu()
    stream = derived_seed(seed, Stream.EVALUATION)
    u = uniform_per_example(stream, index.tolist(), (draws, strata.count), CHOICE)
    step, inverse_probability = strata.draw(u)  # (batch, draws, strata)
    place = torch.arange(draws * (strata.count + 1)).unflatten(0, (draws, -1))  # every term has its own noise
    work = _Work(bound, x0, index, stream, labels)
    first = torch.ones(len(x0), draws, dtype=torch.long)
    first_nats, first_error = work.evaluate(bound.reconstruction_term, first, place[:, 0])
    later = work.evaluate(bound.denoising_term, step.flatten(1), place[:, 1:].flatten())
    nats, error = (later.unflatten(1, (draws, -1)) * inverse_probability.permute(1, 2, 0).to(x0.device)).unbind()
    return BoundEstimate(
        log_snr=bound.log_snr.detach().cpu(),
        strata=strata,
        nats=nats,
        squared_error=error / strata.sizes().to(x0.device).unsqueeze(1),
        reconstruction=-first_nats,
        reconstruction_error=first_error,
        prior=bound.prior(x0).double(),
    )


@dataclass(frozen=True, eq=False)
class _Work:
    """Terms of many examples at many steps, a bounded number of rows at a time."""

    bound: DiffusionBound
    x0: Tensor
    index: Int[Tensor, " batch"]
    stream: int
    labels: Tensor | None

    def evaluate(
        self,
        term: Callable[[Denoised, Tensor, Tensor], Tensor],
        step: Int[Tensor, " batch slots"],
        place: Int[Tensor, " slots"],
    ) -> Float[Tensor, " two slots batch"]:
        """The term and the squared error of each example at each step; slot i gets the noise with index place[i]."""
        most = ROWS.get(self.x0.device.type, ROWS["cuda"])
        columns = []
        for rows in torch.arange(len(self.x0)).split(most):
            parts = torch.arange(len(place)).split(max(1, most // len(rows)))
            columns.append(torch.cat([self._part(term, rows, step[rows][:, part], place[part]) for part in parts], 1))
        return torch.cat(columns, 2)

    def _part(
        self, term: Callable[[Denoised, Tensor, Tensor], Tensor], rows: Tensor, step: Tensor, place: Tensor
    ) -> Tensor:
        numbers, chosen = self.index[rows].tolist(), rows.repeat(len(place)).to(self.x0.device)
        noise = [normal_per_example(self.stream, numbers, self.x0.shape[1:], NOISE, p) for p in place.tolist()]
        x0, t, eps = self.x0[chosen], step.mT.flatten().to(self.x0.device), torch.cat(noise).to(self.x0)
        prediction = self.bound.predict(x0, t, eps, None if self.labels is None else self.labels[chosen])
        pair = torch.stack([term(prediction, x0, t), squared_error(prediction, x0)])
        return pair.double().unflatten(1, (len(place), -1))
