"""The variational autoencoder (section 4), in reading order: posterior, objective, target, predict, model."""

from jensen.vae.missing import PartlyObserved
from jensen.vae.model import VAE
from jensen.vae.objective import (
    AbstractVAEObjective,
    DoublyReparameterisedObjective,
    ElboObjective,
    ImportanceWeightedObjective,
)
from jensen.vae.posterior import AbstractPosterior, AmortisedPosterior, PerDatapointPosterior, optimise_posterior
from jensen.vae.predict import TargetPrediction
from jensen.vae.target import AbstractTarget, ContinuousTarget, LabelTarget

__all__ = [
    "VAE",
    "AbstractPosterior",
    "AbstractTarget",
    "AbstractVAEObjective",
    "AmortisedPosterior",
    "ContinuousTarget",
    "DoublyReparameterisedObjective",
    "ElboObjective",
    "ImportanceWeightedObjective",
    "LabelTarget",
    "PartlyObserved",
    "PerDatapointPosterior",
    "TargetPrediction",
    "optimise_posterior",
]
