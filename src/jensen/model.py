"""The contract: all that training, evaluation and serving may know of a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jensen.bound import AnnealedEstimate, Elbo, ImportanceWeightedBound
from jensen.errors import InputError
from jensen.randomness import Noise


@dataclass(frozen=True)
class Batch:
    """Training examples: prepared x (batch, *shape), their numbers in the training set, labels or None (batch each).

    `targets` (batch, dims) are continuous y, or None.
    """

    x: Tensor
    index: Tensor
    labels: Tensor | None = None
    targets: Tensor | None = None

    def __getitem__(self, rows: slice) -> Self:
        """Some of its examples."""
        beside = [None if values is None else values[rows] for values in (self.labels, self.targets)]
        return type(self)(self.x[rows], self.index[rows], *beside)


@dataclass(frozen=True)
class Loss:
    """What a training step minimises, and the terms to log, detached, by name; nats per example.

    `noted` (batch each) is what the model is to `observe` of the examples once the batch is done.
    """

    value: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    noted: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Film:
    """Examples on their way between data and noise: `x` (frames, n, *shape), of these `log_snr` (frames).

    `estimate`, of the same shape, is what the model takes x_0 to be in each frame, where it is the model that goes.
    """

    log_snr: Tensor
    x: Tensor
    estimate: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """p(y|x) over labels (1.4), for each example: probabilities and their logarithms (batch, classes), float64.

    `standard_error` (batch, classes) is the Monte-Carlo error of each probability, 0 where exact, NaN of one draw;
    `effective_sample_size` (batch) tells how many equally good draws an importance sampler's were worth, inf where
    nothing was weighted; `evaluations` (batch) counts the network's evaluations that each example cost.
    """

    log_probabilities: Float[Tensor, " batch classes"]
    standard_error: Float[Tensor, " batch classes"]
    effective_sample_size: Float[Tensor, " batch"]
    evaluations: Float[Tensor, " batch"]

    @property
    def probabilities(self) -> Tensor:
        """p(y|x), (batch, classes); every row adds up to one."""
        return self.log_probabilities.exp()

    @property
    def labels(self) -> Tensor:
        """The most probable label, (batch)."""
        return self.log_probabilities.argmax(1)

    @classmethod
    def exact(cls, log_probabilities: Float[Tensor, " batch classes"]) -> Self:
        """What a formula gives: no draws, no error."""
        none = log_probabilities.new_zeros(len(log_probabilities))
        return cls(log_probabilities, torch.zeros_like(log_probabilities), none + torch.inf, none)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The predictions for several batches of examples as one batch."""
        return cls(
            torch.cat([part.log_probabilities for part in parts]),
            torch.cat([part.standard_error for part in parts]),
            torch.cat([part.effective_sample_size for part in parts]),
            torch.cat([part.evaluations for part in parts]),
        )


@dataclass(frozen=True)
class Effort:
    """What the estimates that a referee compares may cost: K importance samples; chains and temperatures of annealing.

    With `temperatures_from_q` there is a second annealed estimate, from q(z|x), over so many.
    """

    samples: int = 1000
    temperatures: int = 200
    chains: int = 16
    temperatures_from_q: int = 0


@dataclass(frozen=True)
class Estimator:
    """One way to estimate log p(x), and what it claims beside the others, which are called by their names.

    `estimate` takes x, a seed and the examples' numbers. It should not exceed those in `at_most`, which are closer to
    log p(x), and agree with those in `equal`, wherever neither is known to be unreliable. A row that goes through one
    of `networks` is one evaluation.
    """

    name: str
    estimate: Callable[[Tensor, int, Tensor], Elbo | ImportanceWeightedBound | AnnealedEstimate]
    networks: tuple[nn.Module, ...]
    at_most: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bracket:
    """log p(x) of examples drawn from the model itself, from below and from above: E lower <= log p(x) <= E upper."""

    lower: AnnealedEstimate
    upper: AnnealedEstimate


class AbstractLatentVariableModel(nn.Module, ABC):
    """p(x) = ∫ p(x|z) p(z) dz over x of one `shape`, scored by a bound, trained by a loss, sampled by seed.

    Randomness is an argument everywhere. What is drawn for example i is a pure function of (seed, index[i]), so that
    scores and samples do not depend on how examples are batched; `index` defaults to 0..batch-1.

    `classes` is the number of labels that samples can be asked for, None where they cannot. A sample's label, an
    integer 0..classes-1, is by default its number modulo classes.
    """

    shape: tuple[int, ...]
    usual_draws: int = 16
    """Draws per example for a bound where nobody says how many: fewer where each is dear."""
    usual_further_examples: int = 500
    """Examples whose further bounds are evaluated where nobody says how many."""
    usual_referee_examples: int = 100
    """Examples for which all estimates are compared where nobody says how many."""

    @property
    def classes(self) -> int | None:
        """How many labels `sample` knows; None: none."""
        return None

    @abstractmethod
    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        """The honest bound on log p(x): nats per example, every term by name; x (batch, *shape), prepared."""

    @abstractmethod
    def loss(self, batch: Batch, *, step: int, noise: Noise) -> Loss:
        """What training minimises at `step`, a mean over the batch; says which weighting of the bound it is.

        `noise` belongs to the batch's rows, so that the loss of a batch is the mean over its parts. It changes nothing
        in the model: what that is to remember of the examples is `Loss.noted`.
        """

    @abstractmethod
    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """Samples number first..first+n-1 of the seed's stream, shape (n, *shape); labels (n) ask for p(x|labels).

        Raises `InputError` for labels that the model does not know.
        """

    @abstractmethod
    def sample_mean(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """The same samples without the observation noise of the last step: E[x | latent], shape (n, *shape)."""

    @abstractmethod
    def encode(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
        """The latent representation of x, shape (batch, latent dimensions)."""

    @abstractmethod
    def reconstruct(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
        """x encoded and decoded again: the mean of p(x|z), shape (batch, *shape)."""

    @property
    def predicted_classes(self) -> int | None:
        """How many labels `predict` is about; None: it knows none."""
        return None

    def predict(self, x: Tensor, *, draws: int | None = None, seed: int = 0, index: Tensor | None = None) -> Prediction:
        """p(y|x) over labels (1.4), by `draws` draws per example, None: as many as the model finds enough.

        Raises `InputError` where the model was not trained on labels.
        """
        raise InputError("the model was trained without labels, so there is no p(y|x); train one on labelled data")

    def further_bounds(
        self, x: Tensor, *, samples: int, seed: int = 0, index: Tensor | None = None
    ) -> dict[str, Elbo | ImportanceWeightedBound]:
        """Every other estimate of log p(x) this model can make, by name, each with `value` and `standard_error`.

        `samples` is the number of Monte-Carlo samples per example where an estimate needs them.
        """
        return {}

    def estimators(self, effort: Effort) -> Sequence[Estimator]:
        """Every way this model has to estimate log p(x), cheapest first; a referee runs them on the same examples."""
        return [Estimator("ELBO", lambda x, seed, index: self.elbo(x, draws=16, seed=seed, index=index), ())]

    def bracket(self, n: int, effort: Effort, *, seed: int = 0, first: int = 0) -> Bracket | None:
        """log p(x) of the samples first..first+n-1 from both sides; None where there is no exact draw of z given x."""
        return None

    def diagnostics(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> dict[str, float]:
        """Plain numbers worth a line in a report, by name: active units, variances at their floor."""
        return {}

    def noising(self, x: Tensor, *, frames: int, seed: int = 0, index: Tensor | None = None) -> Film | None:
        """x from the data to the noise in at most `frames` frames; None where no latent variable is a noisy x."""
        return None

    def denoising(
        self, n: int, *, frames: int, seed: int = 0, first: int = 0, labels: Tensor | None = None
    ) -> Film | None:
        """The way from the noise to `sample(n)`, with the estimates on it; None where there is no such way."""
        return None

    def observe(self, noted: Mapping[str, Tensor]) -> None:
        """Take note of what the losses of a whole batch left in `Loss.noted`, once per training step."""

    def forward(self, batch: Batch, step: int, noise: Noise) -> Loss:
        """`loss`, so that wrappers that replace `forward` (data parallel, compile) see the training step."""
        return self.loss(batch, step=step, noise=noise)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(self.parameters()).device
