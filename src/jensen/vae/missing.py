"""Missing values, which are NaN in x: p(x_observed|z), as every likelihood here has independent dimensions given z."""

from dataclasses import dataclass

from torch import Tensor

from jensen.likelihood import AbstractLikelihood, Observation


@dataclass(frozen=True, eq=False)
class PartialObservation:
    """A distribution over x with missing values, which are NaN in x and add nothing to the log-density.

    >>> import math, torch
    >>> from jensen.likelihood import Bernoulli
    >>> fair = PartialObservation(Bernoulli(torch.zeros(3), event_dims=1), event_dims=1)
    >>> fair.log_prob(torch.tensor([1.0, math.nan, 0.0])) / 2
    tensor(-0.6931)
    """

    whole: Observation
    event_dims: int

    @property
    def mean(self) -> Tensor:
        """E[x] of every dimension."""
        return self.whole.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x_observed) = Σ over the observed d of log p(x_d), in nats; missing dimensions integrate to one."""
        return self.log_prob_by_dimension(x).flatten(-self.event_dims).sum(-1)

    def log_prob_by_dimension(self, x: Tensor) -> Tensor:
        """The term of each dimension in `log_prob`; a missing value has the term 0 with gradient 0."""
        missing = x.isnan()
        return self.whole.log_prob_by_dimension(x.masked_fill(missing, 0)).masked_fill(missing, 0)

    def quantile(self, u: Tensor) -> Tensor:
        """The inverse distribution function of every dimension."""
        return self.whole.quantile(u)


class PartlyObserved(AbstractLikelihood):
    """A likelihood for x with missing values (NaN): p(x_observed|z), without the missing dimensions.

    The module shares the parameters of `likelihood`.
    """

    def __init__(self, likelihood: AbstractLikelihood) -> None:
        super().__init__()
        self.likelihood, self.shape, self.outputs = likelihood, likelihood.shape, likelihood.outputs

    def forward(self, output: Tensor) -> PartialObservation:
        """p(x_observed|z) from the output of a decoder."""
        return PartialObservation(self.likelihood(output), event_dims=len(self.shape))

    def diagnostics(self, output: Tensor) -> dict[str, float]:
        """The diagnostics of `likelihood`."""
        return self.likelihood.diagnostics(output)
