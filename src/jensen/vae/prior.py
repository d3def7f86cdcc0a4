"""p(z), the prior of the latent variables (4.1): one object that scores z and draws z.

A prior is exact if `log_prob` gives log p(z). L_K, annealed importance sampling, and the optimisation of q need an
exact prior. Any prior gives the ELBO (4.4), for which a lower bound on log p(z) is enough.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from jensen.errors import InputError
from jensen.gaussian import Gaussian, standard_normal_kl
from jensen.model import Prediction
from jensen.randomness import normal_per_example


class AbstractPrior(nn.Module, ABC):
    """p(z) over z (*batch, latent_dims), or p(z|y) over z given a label y.

    `exact` says whether `log_prob` is available. `usual_draws`, `usual_further_examples` and `usual_referee_examples`
    are the defaults of a VAE with this prior, see `AbstractLatentVariableModel`.
    """

    exact: bool = True
    usual_draws, usual_further_examples, usual_referee_examples = 16, 500, 100

    def __init__(self, latent_dims: int) -> None:
        super().__init__()
        self.latent_dims = latent_dims

    # -- scores

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, (*batch). Raises `InputError` if the prior is not exact."""

    def rates(
        self,
        q: Gaussian,
        z: Tensor,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Mapping[str, Tensor]:
        """E_q [log q(z|x) - log p(z)] (4.4) as a sum of terms by name, given q (batch, latent_dims) and draws z of q.

        z has the shape (draws, batch, latent_dims). A term has the shape (batch) if it is exact, else (draws, batch).
        If the prior is not exact, the sum is an upper bound. With `labels` (batch) the prior is p(z|labels). By default
        there is a single term, `rate`, which is log q(z|x) - log p(z) for each draw.
        """
        return {"rate": q.log_prob(z) - self.log_prob(z)}

    def kl_by_part(self, q: Gaussian, z: Tensor) -> Tensor | None:
        """The rate of each part of z that free bits protect, (batch, parts): a dimension, or a group of a hierarchy.

        It is None if p(z) has no parts. z is a draw of q.
        """
        return None

    @property
    def part_sizes(self) -> tuple[int, ...]:
        """The number of dimensions of each part."""
        return (1,) * self.latent_dims

    def settled(self) -> "AbstractPrior":
        """The same p(z) without gradients to its parameters, in a form that is cheap to score many times."""
        return self

    @property
    def variants(self) -> Mapping[str, "AbstractPrior"]:
        """Other priors under which an evaluation also computes the ELBO, by the name of the estimator."""
        return {}

    def diagnostics(self, z: Tensor) -> dict[str, float]:
        """Numbers for the report, by name, given codes z (batch, latent_dims)."""
        return {}

    def observe(self, noted: Mapping[str, Tensor]) -> None:
        """Record `Loss.noted` of a whole batch, once per training step."""

    # -- draws

    @abstractmethod
    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draws first..first+n-1 of `seed`, (n, latent_dims), from p(z), or from p(z|labels) if labels (n) are given.

        Raises `InputError` for labels that the prior does not know.
        """

    def to_normal(self, z: Tensor) -> Tensor:
        """z (batch, latent_dims) in coordinates in which p(z) is N(0, I), see `AbstractLatentVariableModel`."""
        return z

    def from_normal(self, normal: Tensor) -> Tensor:
        """The inverse of `to_normal`."""
        return normal

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks that `rates` and `sample` call."""
        return ()

    # -- labels

    @property
    def classes(self) -> int | None:
        """The number of labels y of p(z|y); None for a prior without labels."""
        return None

    @property
    def known_labels(self) -> tuple[int, ...]:
        """The labels of the training examples."""
        return tuple(range(self.classes or 0))

    @property
    def label_draws(self) -> int:
        """Default number of draws for `predict`."""
        return 1

    def predict(self, z: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Prediction:
        """p(y|x) ∝ p(y) exp E_q log p(z|y) (1.4), from draws z (draws, batch, latent_dims) of q(z|x)."""
        raise InputError("the prior was trained without labels, so it has no p(y|x); train one on labelled data")


class StandardNormal(AbstractPrior):
    """p(z) = N(0, I) (4.1), whose KL is in closed form (4.6)."""

    def log_prob(self, z: Tensor) -> Tensor:
        return Gaussian.standard(z.shape[-1:], dtype=z.dtype, device=z.device).log_prob(z)  # (4.1)

    def rates(
        self,
        q: Gaussian,
        z: Tensor,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Mapping[str, Tensor]:
        """KL(q(z|x) || N(0, I)) (4.6), (batch), exact."""
        refuse_labels(labels)
        return {"rate": q.kl_to_standard()}

    def kl_by_part(self, q: Gaussian, z: Tensor) -> Tensor:
        """KL(q(z_d|x) || N(0, 1)) (4.6) of each dimension, (batch, latent_dims)."""
        return standard_normal_kl(q.mean, q.scale)

    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        refuse_labels(labels)
        return normal_per_example(seed, range(first, first + n), (self.latent_dims,), 0)


def refuse_labels(labels: Tensor | None) -> None:
    """Raise `InputError` for labels, which a prior without classes does not know."""
    if labels is not None:
        raise InputError("got labels, but a variational autoencoder samples without labels; leave the labels out")
