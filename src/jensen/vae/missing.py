"""Missing and hidden values: p(x_observed|z), as every likelihood here has independent dimensions given z.

A missing value is NaN in x. It is left out of log p(x), or it is a value of its own with a probability, as the columns
of a table may have it. A hidden value is inf in x: whether it is missing, and its number, are unknown, so it is always
left out. Training hides values so that q(z|x) is good for every part of x; a question such as p(column | all others)
hides the column.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from jensen.likelihood import AbstractLikelihood, Observation

HIDDEN = math.inf


def hidden(x: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Whether each value of x is hidden."""
    return x == HIDDEN


@dataclass(frozen=True, eq=False)
class PartialObservation:
    """A distribution over x with missing (NaN) and hidden (inf) values, which add nothing to the log-density.

    Where `generated` is true, NaN is a value of the distribution `whole`. By default it is true nowhere.

    >>> import math, torch
    >>> from jensen.likelihood import Bernoulli
    >>> fair = PartialObservation(Bernoulli(torch.zeros(3), event_dims=1), event_dims=1)
    >>> fair.log_prob(torch.tensor([1.0, math.nan, math.inf])) / 1
    tensor(-0.6931)
    """

    whole: Observation
    event_dims: int
    generated: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """E[x] of every dimension."""
        return self.whole.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x_observed) = Σ over the observed d of log p(x_d), in nats; other dimensions integrate to one."""
        return self.log_prob_by_dimension(x).flatten(-self.event_dims).sum(-1)

    def log_prob_by_dimension(self, x: Tensor) -> Tensor:
        """The term of each dimension in `log_prob`; a value that is left out has the term 0 with gradient 0."""
        out = x.isnan() if self.generated is None else x.isnan() & ~self.generated
        out = out | hidden(x)
        return self.whole.log_prob_by_dimension(x.masked_fill(out, 0)).masked_fill(out, 0)

    def quantile(self, u: Tensor) -> Tensor:
        """The inverse distribution function of every dimension."""
        return self.whole.quantile(u)

    def log_presence(self, x: Tensor) -> Tensor:
        """log P(no hidden value is missing), (*batch): the sum over the hidden d of log P(x_d is not NaN)."""
        if self.generated is None:
            return x.new_zeros(())
        logits = self.whole.missing  # type: ignore[attr-defined]
        return F.logsigmoid(-logits).masked_fill(~hidden(x), 0).flatten(-self.event_dims).sum(-1)

    def present(self) -> Observation:
        """The distribution of x given that no value is missing."""
        return self.whole if self.generated is None else self.whole.present()  # type: ignore[attr-defined]


class PartlyObserved(AbstractLikelihood):
    """A likelihood for x with missing (NaN) and hidden (inf) values: p(x_observed|z).

    `generated`, bool of the shape of x, is true for the dimensions of which NaN is a value with a probability. The
    module shares the parameters of `likelihood`.
    """

    def __init__(self, likelihood: AbstractLikelihood, generated: Tensor | None = None) -> None:
        super().__init__()
        self.likelihood, self.shape, self.outputs = likelihood, likelihood.shape, likelihood.outputs
        self.register_buffer("generated", generated, persistent=False)

    def forward(self, output: Tensor) -> PartialObservation:
        """p(x_observed|z) from the output of a decoder."""
        generated = self.generated if isinstance(self.generated, Tensor) else None
        return PartialObservation(self.likelihood(output), len(self.shape), generated)

    @property
    def generates(self) -> bool:
        """Whether NaN is a value of some dimension."""
        return isinstance(self.generated, Tensor) and bool(self.generated.any())

    def diagnostics(self, output: Tensor) -> dict[str, float]:
        """The diagnostics of `likelihood`."""
        return self.likelihood.diagnostics(output)
