"""The variational autoencoder (section 4 of the lecture).

In reading order: posterior, prior, missing, target, objective, parts, predict, annealing, annealed, model.
"""

from jensen.vae.missing import PartlyObserved
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
from jensen.vae.target import AbstractTarget, ContinuousTarget, LabelTarget

__all__ = [
    "VAE",
    "AbstractPosterior",
    "AbstractPrior",
    "AbstractTarget",
    "AbstractVAEObjective",
    "AmortisedPosterior",
    "ContinuousTarget",
    "DoublyReparameterisedObjective",
    "ElboObjective",
    "ImportanceWeightedObjective",
    "LabelTarget",
    "PartlyObserved",
    "PartsObjective",
    "PerDatapointPosterior",
    "StandardNormal",
    "optimise_posterior",
]
