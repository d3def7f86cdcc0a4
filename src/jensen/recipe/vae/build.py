"""A VAE from its settings."""

import math
from typing import Any

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
from jensen.nets import MLP, ConvolutionalDecoder, ConvolutionalEncoder, Levels
from jensen.recipe import sizes
from jensen.recipe.idle import refuse_vectors
from jensen.recipe.vae.idle import RULES, network_by_data
from jensen.recipe.vae.settings import VAESettings
from jensen.recipe.vae.table import columns_likelihood, table_latent_dims, table_networks, table_width
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
    PartsObjective,
    PerDatapointPosterior,
)


def build_vae(settings: VAESettings, spec: DataSpec) -> VAE:
    """The model for data like `spec`; layers draw initial weights from torch's global generator."""
    settings = completed(settings, spec)
    if spec.table is not None:
        return _table_vae(settings, spec)
    likelihood = _likelihood(settings, spec)
    encoder, decoder, latent_dims = vae_networks(settings, spec.shape, likelihood.outputs)
    posterior = _posterior(settings, encoder, latent_dims, spec.counts["train"])
    target = _target(settings, latent_dims, spec)
    vae = VAE(posterior, decoder, likelihood, vae_objective(settings), settings.fit_steps, target)
    return vae.partly_observed() if spec.missing else vae


def _table_vae(settings: VAESettings, spec: DataSpec) -> VAE:
    likelihood = columns_likelihood(settings, spec)
    encoder, of_parts, decoder = table_networks(settings, spec, likelihood.outputs)
    assert settings.latent_dims is not None
    posterior = AmortisedPosterior(encoder, settings.latent_dims, None, of_parts)
    return VAE(posterior, decoder, likelihood, vae_objective(settings, of_parts=True), settings.fit_steps)


def completed(settings: VAESettings, spec: DataSpec) -> VAESettings:
    """The settings with every None and auto of the networks replaced by a value that suits the data.

    Raises `InputError` for a convolutional network for vectors.
    """
    by_data: dict[str, Any] = {"network": network_by_data(settings, spec), "hidden": (200, 200)}
    if by_data["network"] == "table":
        sizes_of = spec.counts["train"], spec.shape[0]
        by_data = {"network": "table", "width": table_width(*sizes_of), "latent_dims": table_latent_dims(*sizes_of)}
        unsaid = {name: value for name, value in by_data.items() if getattr(settings, name) in (None, "auto")}
        return settings.model_copy(update=unsaid)
    if settings.latent_channels is None:
        by_data["latent_dims"] = sizes.latent_dims(spec.shape, spec.counts["train"])
    if by_data["network"] == "convolutional":
        refuse_vectors("convolutional", spec.shape)
        by_data["patch"] = patch = settings.patch or sizes.patch_by_shape(spec.shape, smallest=2)
        by_data["channels"] = sizes.encoder_channels(spec.shape, patch)
    unsaid = {name: value for name, value in by_data.items() if getattr(settings, name) in (None, "auto")}
    return settings.model_copy(update=unsaid)


def explicit(settings: VAESettings, spec: DataSpec) -> VAESettings:
    """The settings with every None and auto that has an effect replaced by the value for data like `spec`."""
    whole = completed(settings, spec)
    idle = {name for rule in RULES for name in rule.names if not rule.acts(whole, spec)}
    kept = {name: getattr(settings, name) for name in idle}
    if spec.table is not None:
        kept["kl_warmup_steps"] = 0  # for a training from random weights only
    return whole.model_copy(update=kept)


def vae_networks(settings: VAESettings, shape: tuple[int, ...], outputs: int) -> tuple[nn.Module, nn.Module, int]:
    """The encoder, the decoder and the size of z for examples of `shape`, from `completed` settings.

    The encoder has twice as many outputs as z has dimensions, and the decoder maps z to (batch, outputs, *shape). A
    convolutional decoder has `latent_shape`. Raises `InputError` for a network that does not suit the shape.
    """
    if settings.network == "mlp":
        latent = settings.latent_dims
        assert latent is not None  # `jensen.recipe.vae.idle` refuses latent_channels
        assert settings.hidden is not None
        encoder = MLP(shape, settings.hidden, (2 * latent,), settings.activation)
        decoder = MLP((latent,), settings.hidden[::-1], (outputs, *shape), settings.activation)
        return encoder, decoder, latent
    assert settings.channels is not None
    assert settings.patch is not None
    levels, spatial = Levels(shape, settings.channels, settings.blocks, settings.patch), settings.latent_dims is None
    size = settings.latent_channels if settings.latent_dims is None else settings.latent_dims
    assert size is not None
    convolutional = ConvolutionalDecoder(levels, size, outputs, spatial)
    return ConvolutionalEncoder(levels, 2 * size, spatial), convolutional, math.prod(convolutional.latent_shape)


def _target(settings: VAESettings, latent_dims: int, spec: DataSpec) -> AbstractTarget | None:
    if settings.predict == "none":
        return None
    if settings.predict == "label":
        if spec.classes is None:
            other = ", but targets, which are floats; predict target, or make them integers"
            has = other if spec.targets else "; give labelled data, or predict none"
            raise InputError(f"predict label: {spec.source} has no labels{has}")
        return LabelTarget(_from_latent(settings, latent_dims, (spec.classes,)), spec.classes)
    if spec.targets is None:
        other = ", but labels; predict label, or make them floats"
        has = "; give a y of floats, or predict none" if spec.classes is None else other
        raise InputError(f"predict target: {spec.source} has no continuous targets{has}")
    floor, shape = spec.targets.resolution / 12**0.5, (spec.targets.dimensions,)
    scale = LearnedScale(floor) if settings.variance == "learned" else FreeScale(shape, floor)
    likelihood = GaussianLikelihood(shape, scale)
    return ContinuousTarget(_from_latent(settings, latent_dims, (likelihood.outputs, *shape)), likelihood)


def _from_latent(settings: VAESettings, latent_dims: int, outputs: tuple[int, ...]) -> MLP:
    return MLP((latent_dims,), settings.predict_hidden, outputs, settings.activation)


def _posterior(settings: VAESettings, encoder: nn.Module, latent_dims: int, examples: int) -> AbstractPosterior:
    if settings.posterior == "per-datapoint":
        return PerDatapointPosterior(examples, latent_dims)
    return AmortisedPosterior(encoder, latent_dims)


def vae_objective(settings: VAESettings, kl_weight: float = 1.0, *, of_parts: bool = False) -> AbstractVAEObjective:
    """The objective of the settings; `kl_weight` is the weight of the KL in objective elbo.

    With `of_parts` it also trains the encoder of parts of x.
    """
    if of_parts:
        return PartsObjective(vae_objective(settings, kl_weight))
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
