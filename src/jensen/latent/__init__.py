"""Latent diffusion: a diffusion model as the prior of a variational autoencoder, with one bound on log p(x).

In reading order: moments, prior, objective.
"""

from jensen.latent.moments import Moments
from jensen.latent.objective import StagedObjective
from jensen.latent.prior import DiffusionPrior, FlowPrior

__all__ = ["DiffusionPrior", "FlowPrior", "Moments", "StagedObjective"]
