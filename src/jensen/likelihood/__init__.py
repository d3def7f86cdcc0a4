"""Likelihood: turns a decoder's output into a distribution p(x|z) over x (4.2).

There are two kinds of object. A *likelihood* is a module that turns the decoder's raw output into a distribution, and
owns the learned parameters outside the network, such as a shared variance. A *distribution* has a log-density, a mean
and a quantile function. The quantile function maps uniform noise to a sample, so a sample is a pure function of the
noise:

| likelihood              | x                               | distribution                                   |
|-------------------------|---------------------------------|------------------------------------------------|
| `GaussianLikelihood`    | continuous                      | `Gaussian`                                     |
| `BernoulliLikelihood`   | binary, {0, 1}                  | `Bernoulli`                                    |
| `DiscretisedLikelihood` | L levels on the grid of [-1, 1] | `DiscretisedGaussian` or `DiscretisedLogistic` |
| `CategoricalLikelihood` | L levels on the grid of [-1, 1] | `Categorical`                                  |

`LogisticMixtureLikelihood` is for L levels of pixels whose channels depend on each other; its distribution is
`LogisticMixture`, see `jensen.likelihood.logistic_mixture`.

The columns of a table have laws of their own: `ColumnsLikelihood` gives each column its law, and the distribution of a
row is `Columns`; see `jensen.likelihood.columns`.

The grid of L levels is -1 + 2k / (L - 1), k = 0..L-1. Values of x are not checked: reading them would make a GPU wait.
`jensen.vae.missing` restricts any likelihood to the observed dimensions.
"""

from jensen.likelihood.columns import Columns, ColumnsLikelihood
from jensen.likelihood.distributions import (
    Bernoulli,
    Categorical,
    DiscretisedGaussian,
    DiscretisedLogistic,
    Observation,
    log_normal_interval,
)
from jensen.likelihood.laws import Codes, Count, Law, Real, Whole
from jensen.likelihood.likelihoods import (
    AbstractLikelihood,
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLikelihood,
    GaussianLikelihood,
)
from jensen.likelihood.logistic_mixture import LogisticMixture, LogisticMixtureLikelihood
from jensen.likelihood.scales import AbstractScale, FixedScale, FreeScale, LearnedScale, floored_scale

__all__ = [
    "AbstractLikelihood",
    "AbstractScale",
    "Bernoulli",
    "BernoulliLikelihood",
    "Categorical",
    "CategoricalLikelihood",
    "Codes",
    "Columns",
    "ColumnsLikelihood",
    "Count",
    "DiscretisedGaussian",
    "DiscretisedLikelihood",
    "DiscretisedLogistic",
    "FixedScale",
    "FreeScale",
    "GaussianLikelihood",
    "Law",
    "LearnedScale",
    "LogisticMixture",
    "LogisticMixtureLikelihood",
    "Observation",
    "Real",
    "Whole",
    "floored_scale",
    "log_normal_interval",
]
