"""The variational autoencoder (section 4 of the lecture), in reading order: posterior, objective, model."""

from jensen.vae.model import VAE
from jensen.vae.objective import (
    AbstractObjective,
    DoublyReparameterisedObjective,
    ElboObjective,
    ImportanceWeightedObjective,
)
from jensen.vae.posterior import AbstractPosterior, AmortisedPosterior, PerDatapointPosterior, optimise_posterior

__all__ = [
    "VAE",
    "AbstractObjective",
    "AbstractPosterior",
    "AmortisedPosterior",
    "DoublyReparameterisedObjective",
    "ElboObjective",
    "ImportanceWeightedObjective",
    "PerDatapointPosterior",
    "optimise_posterior",
]
