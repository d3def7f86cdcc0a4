"""Exact small models: Gaussian mixtures over x, jointly with labels or targets y; one Gaussian is one component.

These models are the reference for everything that other chapters approximate, and useful for small data.

distribution    the mixture as a value: log_prob, condition, marginal, quantile, cdf, draws
model           the same behind the contract of `jensen.model`, with p(y|x), p(missing|observed) and a fit by EM
"""

from jensen.mixture.distribution import Mixture, mixture
from jensen.mixture.model import GaussianMixture

__all__ = ["GaussianMixture", "Mixture", "mixture"]
