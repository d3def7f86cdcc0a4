"""The contract: everything that training, evaluation, inference and commands may know of a model."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jensen.bound import AnnealedEstimate, Elbo, ImportanceWeightedBound
from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.randomness import Noise

# ---------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Batch:
    """Training examples x (batch, *shape) after the run's preparation, with indices, labels and targets.

    `index` (batch) holds the indices of the examples in the training set. `labels` (batch), and the continuous
    `targets` (batch, dims), are None if the data have none. `augmentation` (batch, numbers) describes the random change
    of each example (`jensen.data.augment`). It is zero for an unchanged example, and None if training changes no
    example.
    """

    x: Tensor
    index: Tensor
    labels: Tensor | None = None
    targets: Tensor | None = None
    augmentation: Tensor | None = None

    def __getitem__(self, rows: slice) -> Self:
        """The batch of the examples in these rows."""
        others = (self.labels, self.targets, self.augmentation)
        beside = [None if values is None else values[rows] for values in others]
        return type(self)(self.x[rows], self.index[rows], *beside)


@dataclass(frozen=True)
class Loss:
    """The value that a training step minimises, in nats per example. `terms` are detached and go to the log by name.

    `noted` holds tensors (batch). When the loss of the whole batch is computed, these tensors go to the model's
    `observe`.
    """

    value: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    noted: Mapping[str, Tensor] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- what a model answers


@dataclass(frozen=True, eq=False)
class Film:
    """Examples between data and noise: `x` (frames, n, *shape) at the noise levels `log_snr` (frames).

    `estimate`, of the shape of x, is the model's estimate of x_0 in each frame. It is None if x is only noised data.
    """

    log_snr: Tensor
    x: Tensor
    estimate: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """p(y|x) over labels (1.4) for each example, as log-probabilities (batch, classes), float64.

    `standard_error` (batch, classes) is the Monte-Carlo error of each probability. It is 0 for an exact probability,
    and NaN for a single draw. `effective_sample_size` (batch) is the number of equally weighted draws that the weighted
    draws are worth. It is inf without weights. `evaluations` (batch) counts the evaluations of the network per example.
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
        """A prediction by a formula, without draws and with error 0."""
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


@dataclass(frozen=True, eq=False)
class TargetPrediction:
    """p(y|x) over continuous y (1.4), as a mixture of normals for each example.

    There is one normal per draw; values are float64. `log_weights` (batch, draws) are normalised; `components` are the
    normals over y (dims), with the batch shape (batch, draws). `effective_sample_size` (batch) is the number of equally
    weighted draws that the weighted draws are worth.
    """

    log_weights: Float[Tensor, " batch draws"]
    components: Gaussian
    effective_sample_size: Float[Tensor, " batch"]

    @property
    def mean(self) -> Tensor:
        """E[y|x], (batch, dims)."""
        return (self.log_weights.exp().unsqueeze(-1) * self.components.mean).sum(1)

    @property
    def standard_error(self) -> Tensor:
        """Monte-Carlo error of `mean`, (batch, dims), by the delta method as in (1.4); NaN for a single draw."""
        means, weights = self.components.mean, self.log_weights.exp().unsqueeze(-1)
        draws = means.shape[1]
        correction = draws / (draws - 1) if draws > 1 else math.nan
        return (correction * (weights * (means - self.mean.unsqueeze(1))).square().sum(1)).sqrt()

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The predictions for several batches of examples as one batch."""
        mean = torch.cat([part.components.mean for part in parts])
        components = Gaussian(mean, torch.cat([part.components.scale for part in parts]))
        sizes = torch.cat([part.effective_sample_size for part in parts])
        return cls(torch.cat([part.log_weights for part in parts]), components, sizes)


# ---------------------------------------------------------------------------------------------- estimates of log p(x)


@dataclass(frozen=True)
class Effort:
    """Limits on the cost per example of estimates of log p(x).

    `draws` is the number of Monte-Carlo draws of the ELBO; None means the model's default. `samples` is the number of
    draws of expensive estimates, such as the K of L_K. `temperatures` and `chains` are the settings of annealed
    importance sampling from the prior. A second annealed estimate starts from q(z|x), with `temperatures_from_q`
    temperatures. An annealed estimate with 0 temperatures is left out. With `cross_checks`, estimators that only check
    other estimators run, too.
    """

    draws: int | None = None
    samples: int = 1000
    temperatures: int = 0
    chains: int = 16
    temperatures_from_q: int = 0
    cross_checks: bool = False


@dataclass(frozen=True)
class Estimator:
    """One way to estimate log p(x), with claims about other estimators, which are given by name.

    `estimate` takes x (batch, *shape), a seed and the indices of the examples (batch). The mean of this estimate should
    not exceed the mean of any estimator in `at_most`. This estimate should agree with every estimator in `equal` on the
    examples where both can be trusted. A claim about an estimator that is not run is not checked. `gaps` gives names to
    differences between other estimates and this estimate (other minus this). A row that goes through one of `networks`
    counts as one evaluation.
    """

    name: str
    estimate: Callable[[Tensor, int, Tensor], Elbo | ImportanceWeightedBound | AnnealedEstimate]
    networks: tuple[nn.Module, ...]
    at_most: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    gaps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """The ELBO of an example as a sum of `count` parts, each of which can be drawn alone, on an example of its own.

    `draw` takes x (batch, *shape), the part of each example (batch), a seed, and the indices of the examples (batch).
    It returns one unbiased draw of that part of the ELBO of each example, in nats, (batch). The draw for example i is a
    pure function of (seed, index[i], part[i]). Draws of different parts cost about the same. A row that goes through
    one of `networks` counts as one evaluation.
    """

    count: int
    draw: Callable[[Tensor, Tensor, int, Tensor], Tensor]
    networks: tuple[nn.Module, ...]


@dataclass(frozen=True)
class Bracket:
    """Two bounds on log p(x) of examples drawn from the model itself: E lower <= log p(x) <= E upper."""

    lower: AnnealedEstimate
    upper: AnnealedEstimate


# ---------------------------------------------------------------------------------------------- codes


@dataclass(frozen=True, eq=False)
class Codes:
    """The latent representations z of examples, (batch, latent dimensions), and their deviations of the same shape.

    For a VAE they are the mean and the standard deviations of q(z|x). `sigma` is None for a code that is a function of
    x.
    """

    z: Tensor
    sigma: Tensor | None = None


# ---------------------------------------------------------------------------------------------- the model


class AbstractLatentVariableModel(nn.Module, ABC):
    """A model p(x) = ∫ p(x|z) p(z) dz of x (batch, *shape), with a bound on log p(x), a training loss, and samples.

    Randomness is an argument everywhere. The draws for example i are a pure function of (seed, index[i]), so scores
    and samples do not depend on how examples are batched; `index` defaults to 0..batch-1.
    """

    shape: tuple[int, ...]
    latent_dims: int
    """The number of latent dimensions of `encode`."""
    usual_draws: int = 16
    """Default number of Monte-Carlo draws per example for the ELBO; models with expensive draws override it."""
    usual_further_examples: int = 500
    """Default number of examples on which all bounds are compared; models with expensive bounds override it."""
    usual_referee_examples: int = 100
    """Default number of examples for the referee; models with expensive estimates override it."""

    # -- bounds and training

    @abstractmethod
    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        """The bound on log p(x) in nats per example, every term by name; x (batch, *shape) as the model sees it."""

    @abstractmethod
    def loss(self, batch: Batch, *, step: int, noise: Noise) -> Loss:
        """The loss that training minimises at `step`, a mean over the batch.

        The docstring of an implementation says how the loss weights the bound. `noise` belongs to the rows of the
        batch, so the loss of a batch is the mean of the losses of its parts. Computing a loss does not change the
        model. `Loss.noted` holds the values that `observe` records in the model.
        """

    def observe(self, noted: Mapping[str, Tensor]) -> None:
        """Record `Loss.noted` of a whole batch in the model, once per training step."""

    @property
    def stages(self) -> tuple[int, ...]:
        """The first step of each stage of training after the first stage, in ascending order.

        Steps are counted from 0. The loss may change from stage to stage. A stage starts from the averaged weights, if
        there is an average. Each stage restarts three things: the learning rate's schedule, the average of the weights,
        and the search for the best bound.
        """
        return ()

    @property
    def warmup(self) -> int:
        """The number of first steps in which the weights of the loss still change, such as the weight of the KL."""
        return 0

    def forward(self, batch: Batch, step: int, noise: Noise) -> Loss:
        """The same as `loss`, for wrappers that replace `forward` (data parallel, compile)."""
        return self.loss(batch, step=step, noise=noise)

    def estimators(self, effort: Effort) -> Sequence[Estimator]:
        """Every way in which this model can estimate log p(x) at this effort, cheapest first; the ELBO is the first."""
        draws = effort.draws or self.usual_draws
        return [Estimator("ELBO", lambda x, seed, index: self.elbo(x, draws=draws, seed=seed, index=index), ())]

    def parts(self) -> Parts:
        """The ELBO in parts; by default one part, which is a single draw of the ELBO."""

        def draw(x: Tensor, part: Tensor, seed: int, index: Tensor) -> Tensor:
            return self.elbo(x, draws=1, seed=seed, index=index).value

        return Parts(1, draw, self.estimators(Effort(draws=1))[0].networks)

    def bracket(self, n: int, effort: Effort, *, seed: int = 0, first: int = 0) -> Bracket | None:
        """Two bounds on log p(x) of samples first..first+n-1; None if the model cannot draw z given x exactly."""
        return None

    def reconstruction_by_dimension(
        self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None
    ) -> Tensor | None:
        """The reconstruction of `elbo` by dimension, in nats, (batch, *shape), by the same draws.

        It is None if the model has no such terms.
        """
        return None

    @property
    def bound_evaluations(self) -> int | None:
        """Evaluations of the network per example for the ELBO with default draws; None for no comparison by cost."""
        return None

    def diagnostics(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> dict[str, float]:
        """Numbers for the report, by name, such as active units or the share of variances at the floor."""
        return {}

    # -- samples and codes

    @property
    def classes(self) -> int | None:
        """The number of labels for which `sample` can draw; None for a model without labels.

        Labels are integers 0..classes-1.
        """
        return None

    @property
    def known_labels(self) -> tuple[int, ...]:
        """The labels of the training examples; by default `sample` goes through these labels in turn."""
        return tuple(range(self.classes or 0))

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks that `sample` calls; one row through one network counts as one evaluation."""
        return ()

    @property
    def noisy_samples(self) -> bool:
        """Whether `sample` adds observation noise, so that `sample_mean` differs from it."""
        return False

    @abstractmethod
    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draw samples first..first+n-1 of `seed`, (n, *shape), from p(x), or from p(x|labels) if labels (n) are given.

        Raises `InputError` for labels that the model does not know.
        """

    @abstractmethod
    def sample_mean(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """The same samples without the observation noise of the last step: E[x | latent], shape (n, *shape)."""

    @abstractmethod
    def codes(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Codes:
        """The latent representations of x, with their standard deviations if they have any."""

    def encode(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
        """The latent representation of x without deviations, shape (batch, latent dimensions)."""
        return self.codes(x, seed=seed, index=index).z

    @abstractmethod
    def decode_mean(self, z: Tensor) -> Tensor:
        """E[x|z], (batch, *shape), for z (batch, latent dimensions) of the kind that `encode` returns."""

    def reconstruct(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
        """Encode x and decode it again: E[x|z], shape (batch, *shape)."""
        return self.decode_mean(self.encode(x, seed=seed, index=index))

    def to_normal(self, z: Tensor) -> Tensor:
        """z (batch, latent dimensions) in coordinates in which the model's p(z) is N(0, I); `from_normal` inverts it.

        By default z itself.
        """
        return z

    def from_normal(self, normal: Tensor) -> Tensor:
        """The inverse of `to_normal`."""
        return normal

    def noising(self, x: Tensor, *, frames: int, seed: int = 0, index: Tensor | None = None) -> Film | None:
        """x from data to noise in up to `frames` frames; None if the latent variables are not noisy versions of x."""
        return None

    def denoising(
        self, n: int, *, frames: int, seed: int = 0, first: int = 0, labels: Tensor | None = None
    ) -> Film | None:
        """The states from noise to `sample(n)`, with estimates of x_0; None if the model has no such states."""
        return None

    # -- predictions

    @property
    def predicted_classes(self) -> int | None:
        """The number of labels that `predict` chooses from; None if the model was trained without labels."""
        return None

    def predict(self, x: Tensor, *, draws: int | None = None, seed: int = 0, index: Tensor | None = None) -> Prediction:
        """p(y|x) over labels (1.4), by `draws` draws per example; None is the model's default.

        Raises `InputError` for a model that was trained without labels.
        """
        raise InputError("the model was trained without labels, so there is no p(y|x); train one on labelled data")

    @property
    def predicted_targets(self) -> int | None:
        """The dimensions of the continuous y that `predict_targets` predicts; None if it predicts none."""
        return None

    def predict_targets(
        self, x: Tensor, *, draws: int | None = None, seed: int = 0, index: Tensor | None = None
    ) -> TargetPrediction:
        """p(y|x) over continuous y (1.4), by `draws` draws per example; None is the model's default.

        Raises `InputError` for a model that was trained without continuous targets.
        """
        raise InputError(
            "the model was trained without continuous targets, so there is no p(y|x) of them; train one on data with "
            "targets"
        )

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device
