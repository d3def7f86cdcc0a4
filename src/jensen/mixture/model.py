"""Gaussian mixtures behind the contract: log p(x) itself is the bound, and every posterior is a formula."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from jensen.bound import Elbo
from jensen.errors import InputError
from jensen.gaussian import MultivariateGaussian
from jensen.mixture.distribution import Mixture
from jensen.model import AbstractLatentVariableModel, Batch, Codes, Loss, Prediction
from jensen.randomness import Noise, uniform_per_example

RIDGE = 1e-6  # added to the variances by EM, as scikit-learn does, so that no component collapses onto one example


class GaussianMixture(AbstractLatentVariableModel):
    """p(x, z) = w_z N(x | m_z, L_z L_z^T), z = 1..K, in float64.

    x of shape `shape` is flattened. With `label_probabilities` (K, classes), which are p(y|z), the model has labels:
    p(x, y) = Σ_z p(x, z) p(y|z). If component z belongs to one class, its row is 1 for this class and 0 for all others.
    With `target_dims` the mixture is over (x, y), and the last `target_dims` coordinates are the continuous y. Raises
    `InputError` if the shapes do not fit, or for both kinds of y.
    """

    log_weights: Tensor
    means: Tensor
    cholesky: Tensor
    label_log_probabilities: Tensor

    def __init__(
        self,
        joint: Mixture,
        shape: Sequence[int] | None = None,
        *,
        label_probabilities: Tensor | None = None,
        target_dims: int = 0,
    ) -> None:
        super().__init__()
        self.shape = (joint.dimensions - target_dims,) if shape is None else tuple(shape)
        self.target_dims, self._classes, self.latent_dims = target_dims, None, len(joint.log_weights)
        if math.prod(self.shape) + target_dims != joint.dimensions or joint.log_weights.ndim != 1:
            raise InputError(
                f"a mixture of batch shape {tuple(joint.log_weights.shape)} over {joint.dimensions} dimensions for x "
                f"of shape {self.shape} and {target_dims} targets: expected one mixture of as many dimensions"
            )
        parts = joint.log_weights, joint.components.mean, joint.components.cholesky
        for name, value in zip(("log_weights", "means", "cholesky"), parts, strict=True):
            self.register_buffer(name, value.double())
        if label_probabilities is not None:
            self._classes = _checked_labels(label_probabilities, len(joint.log_weights), target_dims)
            table = label_probabilities.double()
            self.register_buffer("label_log_probabilities", (table / table.sum(1, keepdim=True)).log())

    @classmethod
    def fit(
        cls,
        x: Tensor,
        components: int = 1,
        *,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
        seed: int = 0,
    ) -> "GaussianMixture":
        """Maximum likelihood by scikit-learn's EM, from examples x (N, *shape).

        With labels (N) each class gets `components` components, and p(y) is the share of class y among the examples.
        With targets (N, dims) the mixture is over (x, y). Raises `InputError` if the number of examples, or of examples
        of a class, is smaller than the number of components.
        """
        rows = x.detach().cpu().double().flatten(1)
        if labels is None:
            both = rows if targets is None else torch.cat([rows, targets.detach().cpu().double()], 1)
            return cls(
                _expectation_maximisation(both, components, seed),
                x.shape[1:],
                target_dims=both.shape[1] - rows.shape[1],
            )
        classes, labels = int(labels.max()) + 1, labels.cpu()
        fitted = [_expectation_maximisation(rows[labels == label], components, seed, label) for label in range(classes)]
        share = torch.bincount(labels, minlength=classes).double() / len(labels)
        joint = Mixture(
            torch.cat([part.log_weights + share[label].log() for label, part in enumerate(fitted)]),
            MultivariateGaussian(
                torch.cat([part.components.mean for part in fitted]),
                torch.cat([part.components.cholesky for part in fitted]),
            ),
        )
        owner = torch.eye(classes, dtype=torch.float64).repeat_interleave(components, 0)
        return cls(joint, x.shape[1:], label_probabilities=owner)

    # -- the distributions

    @property
    def classes(self) -> int | None:
        """The number of labels; None without."""
        return self._classes

    @property
    def predicted_classes(self) -> int | None:
        """The number of labels; None without."""
        return self._classes

    @property
    def device(self) -> torch.device:
        """The device of the buffers; the mixture has no trained parameters."""
        return self.means.device

    @property
    def joint(self) -> Mixture:
        """The mixture over (x, y) if y is continuous, else over x."""
        return Mixture(self.log_weights, MultivariateGaussian(self.means, self.cholesky))

    @property
    def marginal(self) -> Mixture:
        """The mixture over x, flattened."""
        return self.joint.marginal(range(math.prod(self.shape))) if self.target_dims else self.joint

    def log_prob(self, x: Tensor, *, labels: Tensor | None = None, targets: Tensor | None = None) -> Tensor:
        """log p(x), or log p(x, y) with labels (batch) or targets (batch, dims), in nats, (batch), exact."""
        rows = self._rows(x)
        if targets is not None:
            if targets.shape != (len(rows), self.target_dims):
                raise InputError(
                    f"got targets of shape {tuple(targets.shape)}, expected {(len(rows), self.target_dims)}; give one "
                    "row per example, or a model that was made with targets"
                )
            return self.joint.log_prob(torch.cat([rows, targets.double()], 1))
        log_joint = self.marginal.log_joint(rows)
        if labels is not None:
            log_joint = log_joint + self._label_table()[:, self._checked(labels, len(rows))].mT
        return log_joint.logsumexp(-1)

    def posterior(self, x: Tensor) -> Tensor:
        """p(z|x), (batch, K), exact."""
        return self.marginal.log_joint(self._rows(x)).softmax(-1)

    def condition(self, x: Tensor, observed: Tensor) -> Mixture:
        """p(missing|observed), exact: for each example x (batch, *shape), a mixture over the missing entries in order.

        `observed` (*shape) is the same for all examples; it is True where x is known. The other values of x, NaN
        included, are ignored. If nothing is observed, the result is p(x). Raises `InputError` for a mask of another
        shape or type, and if nothing is missing.
        """
        if observed.dtype != torch.bool or observed.shape != self.shape or bool(observed.all()):
            raise InputError(
                f"got a mask of shape {tuple(observed.shape)} and type {observed.dtype}: expected {self.shape} of "
                "bool, True where x is observed, with at least one False"
            )
        known = observed.flatten().nonzero()[:, 0].tolist()
        rows, marginal = self._rows(x), self.marginal
        if known:
            return marginal.condition(known, rows[:, known])
        return Mixture(marginal.log_weights.expand(len(rows), -1), marginal.components)

    @torch.no_grad()
    def predict(self, x: Tensor, *, draws: int | None = None, seed: int = 0, index: Tensor | None = None) -> Prediction:
        """p(y|x) = Σ_z p(z|x) p(y|z) (1.4), exact, without draws and with error 0."""
        table = self._label_table()
        log_posterior = self.marginal.log_joint(self._rows(x)).log_softmax(-1)
        return Prediction.exact((log_posterior.unsqueeze(-1) + table).logsumexp(-2))

    @torch.no_grad()
    def target_distribution(self, x: Tensor) -> Mixture:
        """p(y|x) of the continuous y (1.4), exact: a mixture for each example. Raises `InputError` without targets."""
        if not self.target_dims:
            raise InputError("the mixture has no targets; make it with target_dims")
        return self.joint.condition(range(math.prod(self.shape)), self._rows(x))

    # -- the contract

    @torch.no_grad()
    def elbo(self, x: Tensor, *, draws: int = 1, seed: int = 0, index: Tensor | None = None) -> Elbo:
        """log p(x) itself, since the bound (4.4) with q = p(z|x) has no gap; the standard error is 0."""
        value = self.log_prob(x)
        return Elbo(value, {}, torch.zeros_like(value))

    def loss(self, batch: Batch, *, step: int, noise: Noise) -> Loss:
        """-(1/B) Σ_j log p(x_j) over a batch of B examples, exact; to train a mixture use `fit`, not gradients."""
        return Loss(-self.log_prob(batch.x).mean())

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """z ~ p(z), or p(z|label), then x ~ p(x|z); labels (n), by default (first + i) modulo classes."""
        u = self._uniform(n, seed, first)
        return self._prior(n, first, labels).transform(u).unflatten(1, self.shape)

    @property
    def noisy_samples(self) -> bool:
        """True: p(x|z) has noise."""
        return True

    @torch.no_grad()
    def sample_mean(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """m_z of the same samples."""
        chosen = self._prior(n, first, labels).choose(self._uniform(n, seed, first)[:, 0])
        return self.marginal.components.mean[chosen].unflatten(1, self.shape)

    def codes(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Codes:
        """p(z|x), (batch, K)."""
        return Codes(self.posterior(x))

    def decode_mean(self, z: Tensor) -> Tensor:
        """E[m_z] under the probabilities z (batch, K) of the components."""
        return (z @ self.marginal.components.mean).unflatten(1, self.shape)

    # -- parts

    def _uniform(self, n: int, seed: int, first: int) -> Tensor:
        return uniform_per_example(seed, range(first, first + n), (math.prod(self.shape) + 1,)).to(self.device)

    def _prior(self, n: int, first: int, labels: Tensor | None) -> Mixture:
        """p(x), or p(x|label), of each of n samples."""
        marginal, log_weights = self.marginal, self.log_weights.expand(n, -1)
        if labels is None and self.classes is not None:
            labels = torch.arange(first, first + n, device=self.device) % self.classes
        if labels is not None:
            log_weights = (log_weights + self._label_table()[:, self._checked(labels, n)].mT).log_softmax(-1)
        return Mixture(log_weights, marginal.components)

    def _rows(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.shape:
            raise InputError(f"got x of shape {tuple(x.shape)}, expected (batch, {', '.join(map(str, self.shape))})")
        return x.to(self.device).double().flatten(1)

    def _label_table(self) -> Tensor:
        if self.classes is None:
            raise InputError("the mixture has no labels; make it with label_probabilities")
        return self.label_log_probabilities

    def _checked(self, labels: Tensor, count: int) -> Tensor:
        classes = self.classes
        if labels.shape != (count,) or classes is None or not bool(((labels >= 0) & (labels < classes)).all()):
            raise InputError(
                f"got labels of shape {tuple(labels.shape)} for {count} examples and {classes} classes: expected one "
                "integer for each, from 0 to classes - 1"
            )
        return labels.to(self.device)


def _checked_labels(probabilities: Tensor, components: int, target_dims: int) -> int:
    """The number of classes; `InputError` if a row is not a distribution, or if y is also continuous."""
    shape = tuple(probabilities.shape)
    if len(shape) != 2 or shape[0] != components or target_dims:
        raise InputError(
            f"label probabilities of shape {shape} beside {components} components and {target_dims} targets: expected "
            "(components, classes) and no targets"
        )
    sums = probabilities.double().sum(1)
    if not bool((probabilities >= 0).all()) or not torch.allclose(sums, torch.ones_like(sums), atol=1e-6):
        raise InputError("label probabilities: expected rows of numbers >= 0 that add up to 1; normalise them")
    return shape[1]


def _expectation_maximisation(rows: Tensor, components: int, seed: int, label: int | None = None) -> Mixture:
    from sklearn.mixture import GaussianMixture as ScikitMixture

    if len(rows) < max(2, components):
        of = "" if label is None else f" of class {label}"
        raise InputError(f"{len(rows)} examples{of} for {components} components: give more examples, or ask for fewer")
    fitted = ScikitMixture(components, reg_covar=RIDGE, random_state=seed, max_iter=1000).fit(rows.numpy())
    weights, means, covariances = map(torch.from_numpy, (fitted.weights_, fitted.means_, fitted.covariances_))
    return Mixture(weights.log(), MultivariateGaussian(means, torch.linalg.cholesky(covariances)))
