"""Exact small models: Gaussian mixtures over x, jointly with labels or targets y; one Gaussian is one component.

These models are the reference for everything that other chapters approximate, and useful for small data.

distribution    the mixture as a value: log_prob, condition, marginal, quantile, cdf, draws
model           the same behind the contract of `jensen.model`, with p(y|x), p(missing|observed) and a fit by EM
kernels         kernel densities, by default with the covariance of the rows around each kernel
novelty         a score of unusual rows, by such densities
"""

from jensen.mixture.distribution import Mixture, mixture
from jensen.mixture.kernels import KernelDensity
from jensen.mixture.model import GaussianMixture
from jensen.mixture.novelty import Novelty

__all__ = ["GaussianMixture", "KernelDensity", "Mixture", "Novelty", "mixture"]
