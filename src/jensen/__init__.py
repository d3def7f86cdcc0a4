"""jensen: variational autoencoders and diffusion models whose numbers you can trust.

The reading order is the lecture's, a chapter a module; the numbers are its sections:

    errors           errors for the reader
    records          files written whole or not at all, and typed values in them
    processes        agreement among several processes, and their shares of the work
    provenance       where a recorded number came from: weights, software, command
    randomness       random numbers as pure functions of a seed
    progress         progress bars with rate and time left
    monotone         increasing curves that make numbers about normal
    gaussian      1  normal densities, KL, entropy, the linear Gaussian model
    expectation   2  minimise E_{N(mu, Sigma)} f(x) by reparameterised gradients
    likelihood       p(x|z): Gaussian, Bernoulli, discretised, categorical, columns of a table
    pareto           the tail of importance weights
    bound         3  the ELBO, importance-weighted and annealed estimates, with standard errors
    model            the contract of a latent-variable model
    mixture          exact small models, by which everything is tested
    vae           4  the variational autoencoder
    diffusion     5  the diffusion model
    latent           a diffusion model as the prior of a VAE, with one bound
    compression      the bound as a codelength
    nets             networks that know no probability
    data             formats in, tensors and a DataSpec out
    training         the training loop, checkpoints, log
    evaluation       bounds on a test set, as numbers
    features         a classifier of the data, and metrics of samples by its features
    inference        p(y|x), and the missing entries of x
    report           values shown: a page, pictures, tables
    recipe           a typed configuration that becomes a model, data and training; the table of families
    run              a run is a folder: create, load, train, resume
    exchange         formats in which models leave and arrive
    serve            runs behind HTTP: a bounded queue, one model thread, batches
    commands         the verbs: one file each, a function of a run
    sklearn          estimators for scikit-learn: fit, predict, transform
    cli              parse, call, print

Importing `jensen` imports none of them; a name is fetched when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jensen.commands.compare import compare
    from jensen.commands.compress import compress
    from jensen.commands.decode import decode
    from jensen.commands.decompress import decompress
    from jensen.commands.encode import encode
    from jensen.commands.evaluate import evaluate
    from jensen.commands.export import export
    from jensen.commands.features_check import features_check
    from jensen.commands.features_distance import features_distance
    from jensen.commands.features_train import features_train
    from jensen.commands.import_run import import_run
    from jensen.commands.impute import impute
    from jensen.commands.info import info
    from jensen.commands.interpolate import interpolate
    from jensen.commands.mean_bound import mean_bound
    from jensen.commands.predict import predict
    from jensen.commands.reconstruct import reconstruct
    from jensen.commands.referee import referee
    from jensen.commands.sample import sample
    from jensen.commands.score import score
    from jensen.commands.to_arviz import to_arviz
    from jensen.data.check import check
    from jensen.errors import InputError
    from jensen.evaluation.settings import EvaluationSettings, RefereeSettings
    from jensen.exchange.pretrained import from_pretrained, push_to_hub, save_pretrained
    from jensen.features.settings import ClassifierSettings
    from jensen.recipe.diffusion.settings import DiffusionRecipe
    from jensen.recipe.family import ImputationWish, SamplingWish
    from jensen.recipe.latent.settings import LatentRecipe
    from jensen.recipe.vae.settings import VAERecipe
    from jensen.run import Run, load, resume, train

__version__ = "0.1.0"
__all__ = [
    "ClassifierSettings",
    "DiffusionRecipe",
    "EvaluationSettings",
    "ImputationWish",
    "InputError",
    "LatentRecipe",
    "RefereeSettings",
    "Run",
    "SamplingWish",
    "VAERecipe",
    "check",
    "compare",
    "compress",
    "decode",
    "decompress",
    "encode",
    "evaluate",
    "export",
    "features_check",
    "features_distance",
    "features_train",
    "from_pretrained",
    "import_run",
    "impute",
    "info",
    "interpolate",
    "load",
    "mean_bound",
    "predict",
    "push_to_hub",
    "reconstruct",
    "referee",
    "resume",
    "sample",
    "save_pretrained",
    "score",
    "to_arviz",
    "train",
]

_HOMES = {
    "ClassifierSettings": "jensen.features.settings",
    "DiffusionRecipe": "jensen.recipe.diffusion.settings",
    "EvaluationSettings": "jensen.evaluation.settings",
    "ImputationWish": "jensen.recipe.family",
    "SamplingWish": "jensen.recipe.family",
    "InputError": "jensen.errors",
    "LatentRecipe": "jensen.recipe.latent.settings",
    "RefereeSettings": "jensen.evaluation.settings",
    "VAERecipe": "jensen.recipe.vae.settings",
    "check": "jensen.data.check",
    "push_to_hub": "jensen.exchange.pretrained",
    **dict.fromkeys(("from_pretrained", "save_pretrained"), "jensen.exchange.pretrained"),
    **dict.fromkeys(("Run", "load", "resume", "train"), "jensen.run"),
}
_VERBS = set(__all__) - set(_HOMES)  # each in the file of its name


if not TYPE_CHECKING:  # or a type checker would take every name for one that exists

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        if name in _VERBS:
            return getattr(import_module(f"jensen.commands.{name}"), name)
        raise AttributeError(f"module 'jensen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
