"""The variational autoencoder (section 4 of the lecture).

In reading order: sequential, posterior, covariance, prior, mixture_prior, coupling_prior, missing, target, objective,
parts, predict, annealing, annealed, model, hierarchy.
"""

from jensen.vae.coupling_prior import CouplingPrior
from jensen.vae.covariance import CovariancePosterior, CovarianceSequence
from jensen.vae.hierarchy import GroupedPrior, HierarchicalPosterior, TopDownPosterior
from jensen.vae.missing import PartlyObserved
from jensen.vae.mixture_prior import AbstractMixturePrior, MixturePrior, VampPrior
from jensen.vae.model import VAE
from jensen.vae.objective import (
    AbstractVAEObjective,
    DoublyReparameterisedObjective,
    ElboObjective,
    ImportanceWeightedObjective,
)
from jensen.vae.parts import PartsObjective
from jensen.vae.posterior import AbstractPosterior, AmortisedPosterior, PerDatapointPosterior, optimise_posterior
from jensen.vae.prior import AbstractPrior, StandardNormal
from jensen.vae.sequential import AbstractSequential, Draw, Posterior, drawn
from jensen.vae.target import AbstractTarget, ContinuousTarget, LabelTarget

__all__ = [
    "VAE",
    "AbstractMixturePrior",
    "AbstractPosterior",
    "AbstractPrior",
    "AbstractSequential",
    "AbstractTarget",
    "AbstractVAEObjective",
    "AmortisedPosterior",
    "ContinuousTarget",
    "CouplingPrior",
    "CovariancePosterior",
    "CovarianceSequence",
    "DoublyReparameterisedObjective",
    "Draw",
    "ElboObjective",
    "GroupedPrior",
    "HierarchicalPosterior",
    "ImportanceWeightedObjective",
    "LabelTarget",
    "MixturePrior",
    "PartlyObserved",
    "PartsObjective",
    "PerDatapointPosterior",
    "Posterior",
    "StandardNormal",
    "TopDownPosterior",
    "VampPrior",
    "drawn",
    "optimise_posterior",
]
