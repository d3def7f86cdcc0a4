"""The functions of a run's model, as modules from tensors to tensors: raw data in, nats of raw data out."""

import copy

from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.exchange.functions.data import Data
from jensen.exchange.functions.diffusion import diffusion_functions
from jensen.exchange.functions.function import BATCH, DRAWS, Function, Functions, Port
from jensen.exchange.functions.latent import latent_functions
from jensen.exchange.functions.vae import vae_functions
from jensen.latent import DiffusionPrior
from jensen.run import Run
from jensen.vae import VAE

__all__ = ["BATCH", "DRAWS", "Function", "Functions", "Port", "functions_of"]


def functions_of(run: Run) -> Functions:
    """The functions of a run's model, on the CPU, by the best weights.

    A VAE has `encoder`, `decoder` and `log_prob`; a diffusion model has `denoiser`, `sampler_step` and `bound`; a VAE
    with a diffusion prior has all but `log_prob`. Raises `InputError` for a model without such functions.
    """
    model, data = copy.deepcopy(run.model).cpu().eval().requires_grad_(False), Data(run)
    if isinstance(model, DiffusionModel):
        return diffusion_functions(data, model)
    if isinstance(model, VAE):
        prior = model.prior
        if isinstance(prior, DiffusionPrior):
            return latent_functions(data, model, prior)
        return vae_functions(data, model)
    raise InputError(f"family {run.recipe.family}: its models have no functions to export")
