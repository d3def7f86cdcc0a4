"""p(y|z): labels and continuous targets as further observed variables, independent of x given z.

The model is p(x, y, z) = p(z) p(x|z) p(y|z), with one likelihood for x and another for y. By (3.1), for any q(z|x), log
p(x, y) >= E_q [log p(x|z) + log p(y|z)] - KL(q(z|x) || p(z)). Because q depends on x only, q is also the proposal for
p(y|x).
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.likelihood import GaussianLikelihood
from jensen.model import Batch


class AbstractTarget(nn.Module, ABC):
    """p(y|z), the likelihood of y."""

    @abstractmethod
    def log_prob(self, z: Tensor, batch: Batch) -> Tensor:
        """log p(y|z) in nats, (*draws, batch), for z (*draws, batch, latent_dims). Raises `InputError` without y."""


class LabelTarget(AbstractTarget):
    """p(y|z) over labels 0..classes-1: the softmax of a network from (rows, latent_dims) to (rows, classes)."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, z: Tensor) -> Tensor:
        """log p(y|z) of every label, (*batch, classes)."""
        output = self.network(z.flatten(0, -2)).to(z.dtype)
        return output.reshape(*z.shape[:-1], self.classes).log_softmax(-1)

    def log_prob(self, z: Tensor, batch: Batch) -> Tensor:
        """log p(y|z) of the batch's labels; raises `InputError` for a batch without labels."""
        labels = batch.labels
        if labels is None:
            raise InputError(
                "the model predicts labels, but the data have no labels: give labelled data, or train a model with "
                "--predict none"
            )
        return self(z).gather(-1, labels.expand(z.shape[:-1]).unsqueeze(-1)).squeeze(-1)


class ContinuousTarget(AbstractTarget):
    """p(y|z) = N(y | mean(z), diag scale²) over y (dims), where a network gives mean and scale.

    The network maps z (rows, latent_dims) to (rows, outputs, dims), as `likelihood` expects.
    """

    def __init__(self, network: nn.Module, likelihood: GaussianLikelihood) -> None:
        super().__init__()
        self.network, self.likelihood = network, likelihood

    @property
    def dimensions(self) -> int:
        """The number of dimensions of y."""
        return self.likelihood.shape[0]

    def forward(self, z: Tensor) -> Gaussian:
        """p(y|z) for z (*batch, latent_dims)."""
        output = self.network(z.flatten(0, -2)).to(z.dtype)
        return self.likelihood(output.reshape(*z.shape[:-1], *output.shape[1:]))

    def log_prob(self, z: Tensor, batch: Batch) -> Tensor:
        """log p(y|z) of the batch's targets; raises `InputError` for a batch without targets of this shape."""
        targets = batch.targets
        if targets is None or targets.shape[1:] != self.likelihood.shape:
            raise InputError(
                f"the model predicts targets of shape {self.likelihood.shape}, but the data have "
                f"{'none' if targets is None else tuple(targets.shape[1:])}: give one row of targets per example"
            )
        return self(z).log_prob(targets)
