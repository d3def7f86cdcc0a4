"""jensen: variational autoencoders and diffusion models whose numbers you can trust.

The reading order is the lecture's, a chapter a module:

    gaussian      1  normal densities, KL, entropy, the linear Gaussian model
    expectation   2  minimise E_{N(mu, Sigma)} f(x) by reparameterised gradients
    likelihood    3  p(x|z): Gaussian, Bernoulli, discretised, categorical
    bound         4  the ELBO and the importance-weighted bound, with standard errors
    model         5  the contract of a latent-variable model
    mixture          exact Gaussian mixtures
    vae           6  the variational autoencoder
    diffusion     7  the diffusion model
    nets          9  networks that know no probability
    data         10  formats in, tensors and a DataSpec out
    training     11  the training loop, checkpoints, log
    evaluate     12  bounds on a test set, report
    features         a classifier, the Fréchet distance between what it sees
    recipe       13  a typed configuration that becomes a model, data and training
    run              a run's folder: train, resume, load
    cli          14  the command line

Importing `jensen` imports none of them; a name is fetched when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jensen.errors import InputError
    from jensen.recipe.settings import DiffusionRecipe, VAERecipe
    from jensen.run import Run, load, resume, train

__version__ = "0.1.0"
__all__ = ["DiffusionRecipe", "InputError", "Run", "VAERecipe", "load", "resume", "train"]

_HOMES = {
    "InputError": "jensen.errors",
    "DiffusionRecipe": "jensen.recipe.settings",
    "VAERecipe": "jensen.recipe.settings",
    "Run": "jensen.run",
    "load": "jensen.run",
    "resume": "jensen.run",
    "train": "jensen.run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'jensen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
