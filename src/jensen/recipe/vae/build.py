"""A VAE from its settings."""

from torch import nn

from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.likelihood import (
    AbstractLikelihood,
    AbstractScale,
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedGaussian,
    DiscretisedLikelihood,
    DiscretisedLogistic,
    FixedScale,
    FreeScale,
    GaussianLikelihood,
    LearnedScale,
)
from jensen.nets import MLP, ConvolutionalDecoder, ConvolutionalEncoder
from jensen.recipe.vae.settings import VAESettings
from jensen.vae import (
    VAE,
    AbstractPosterior,
    AbstractTarget,
    AbstractVAEObjective,
    AmortisedPosterior,
    ContinuousTarget,
    DoublyReparameterisedObjective,
    ElboObjective,
    ImportanceWeightedObjective,
    LabelTarget,
    PerDatapointPosterior,
)


def build_vae(settings: VAESettings, spec: DataSpec) -> VAE:
    """The model for data like `spec`; layers draw initial weights from torch's global generator."""
    likelihood = _likelihood(settings, spec)
    encoder, decoder = _networks(settings, spec.shape, likelihood.outputs)
    posterior = _posterior(settings, encoder, spec.counts["train"])
    vae = VAE(posterior, decoder, likelihood, vae_objective(settings), settings.fit_steps, _target(settings, spec))
    return vae.partly_observed() if spec.missing else vae


def _networks(settings: VAESettings, shape: tuple[int, ...], outputs: int) -> tuple[nn.Module, nn.Module]:
    latent = settings.latent_dims
    if settings.network == "mlp":
        return (
            MLP(shape, settings.hidden, (2 * latent,), settings.activation),
            MLP((latent,), settings.hidden[::-1], (outputs, *shape), settings.activation),
        )
    if len(shape) != 3:
        raise InputError(f"network convolutional for examples of shape {shape}: expected images (C, H, W); choose mlp")
    return (
        ConvolutionalEncoder(shape, settings.channels, 2 * latent),
        ConvolutionalDecoder(latent, shape, settings.channels, outputs),
    )


def _target(settings: VAESettings, spec: DataSpec) -> AbstractTarget | None:
    if settings.predict == "none":
        return None
    if settings.predict == "label":
        if spec.classes is None:
            other = ", but targets, which are floats; predict target, or make them integers"
            has = other if spec.targets else "; give labelled data, or predict none"
            raise InputError(f"predict label: {spec.source} has no labels{has}")
        return LabelTarget(_from_latent(settings, (spec.classes,)), spec.classes)
    if spec.targets is None:
        other = ", but labels; predict label, or make them floats"
        has = "; give a y of floats, or predict none" if spec.classes is None else other
        raise InputError(f"predict target: {spec.source} has no continuous targets{has}")
    floor, shape = spec.targets.resolution / 12**0.5, (spec.targets.dimensions,)
    scale = LearnedScale(floor) if settings.variance == "learned" else FreeScale(shape, floor)
    likelihood = GaussianLikelihood(shape, scale)
    return ContinuousTarget(_from_latent(settings, (likelihood.outputs, *shape)), likelihood)


def _from_latent(settings: VAESettings, outputs: tuple[int, ...]) -> MLP:
    return MLP((settings.latent_dims,), settings.predict_hidden, outputs, settings.activation)


def _posterior(settings: VAESettings, encoder: nn.Module, examples: int) -> AbstractPosterior:
    if settings.posterior == "per-datapoint":
        return PerDatapointPosterior(examples, settings.latent_dims)
    return AmortisedPosterior(encoder, settings.latent_dims)


def vae_objective(settings: VAESettings, kl_weight: float = 1.0) -> AbstractVAEObjective:
    """The objective of the settings; `kl_weight` is the weight of the KL in objective elbo."""
    if settings.objective == "elbo":
        return ElboObjective(settings.kl_warmup_steps, settings.free_bits, kl_weight)
    if settings.objective == "importance-weighted":
        return ImportanceWeightedObjective(settings.importance_samples)
    return DoublyReparameterisedObjective(settings.importance_samples)


def _likelihood(settings: VAESettings, spec: DataSpec) -> AbstractLikelihood:
    name = settings.likelihood
    if name == "auto":
        name = "gaussian" if spec.levels is None else "discretised-logistic"
    if name == "bernoulli":
        return BernoulliLikelihood(spec.shape)
    if name == "gaussian":
        return GaussianLikelihood(spec.shape, _scale(settings, spec))
    assert spec.levels is not None  # `load_dataset` refuses floats for this likelihood
    if name == "categorical":
        return CategoricalLikelihood(spec.shape, spec.levels)
    law = DiscretisedGaussian if name == "discretised-gaussian" else DiscretisedLogistic
    return DiscretisedLikelihood(spec.shape, _scale(settings, spec), spec.levels, law)


def _scale(settings: VAESettings, spec: DataSpec) -> AbstractScale:
    if settings.variance == "fixed":
        return FixedScale(settings.fixed_scale)
    floor = spec.preparation.resolution / 12**0.5  # the standard deviation of uniform noise in one bin
    if settings.variance == "learned":
        return LearnedScale(floor)
    return FreeScale(spec.shape if settings.variance == "per-dimension" else (), floor)
