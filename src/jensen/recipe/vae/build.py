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
    LogisticMixtureLikelihood,
)
from jensen.nets import MLP, ConvolutionalDecoder, ConvolutionalEncoder, Levels
from jensen.nets.convolutional_ladder import ConvolutionalBottomUp, ConvolutionalTopDown, MapGroups
from jensen.nets.gated import GatedBottomUp, GatedTopDown
from jensen.nets.initial import zeroed
from jensen.nets.ladder import AbstractBottomUp, AbstractTopDown, DenseBottomUp, DenseTopDown
from jensen.recipe import sizes
from jensen.recipe.idle import refuse_vectors
from jensen.recipe.vae.idle import RULES, network_by_data
from jensen.recipe.vae.settings import VAESettings
from jensen.recipe.vae.table import columns_likelihood, table_latent_dims, table_networks, table_width
from jensen.vae import (
    VAE,
    AbstractPosterior,
    AbstractPrior,
    AbstractTarget,
    AbstractVAEObjective,
    AmortisedPosterior,
    ContinuousTarget,
    CouplingPrior,
    CovariancePosterior,
    DoublyReparameterisedObjective,
    ElboObjective,
    GroupedPrior,
    HierarchicalPosterior,
    ImportanceWeightedObjective,
    LabelTarget,
    MixturePrior,
    PartsObjective,
    PerDatapointPosterior,
    StandardNormal,
    VampPrior,
)
from jensen.vae.covariance import outputs_of

LADDER_WIDTH = 256  # default width of a ladder
MAP_CHANNELS = 4  # default number of channels of each group of a convolutional ladder
FLOW_WIDTH = 64  # hidden width of the networks of a flow prior


def build_vae(settings: VAESettings, spec: DataSpec) -> VAE:
    """The model for data like `spec`; layers draw initial weights from torch's global generator."""
    settings = completed(settings, spec)
    if spec.table is not None:
        return _table_vae(settings, spec)
    likelihood = _likelihood(settings, spec)
    decoder: nn.Module
    if settings.hierarchical:
        bottom_up, top_down = ladder_networks(settings, spec.shape, likelihood.outputs)
        posterior, decoder = _hierarchical_posterior(settings, bottom_up, top_down, spec), top_down
        top = build_prior(settings, posterior, spec, top_down.sizes[0])
        prior: AbstractPrior = GroupedPrior(top_down.sizes, top)
    else:
        encoder, decoder, latent_dims = vae_networks(settings, spec.shape, likelihood.outputs)
        posterior = _posterior(settings, encoder, latent_dims, spec.counts["train"])
        prior = build_prior(settings, posterior, spec, latent_dims)
    target = _target(settings, prior.latent_dims, spec)
    vae = VAE(posterior, decoder, likelihood, vae_objective(settings), settings.fit_steps, target, prior)
    return vae.partly_observed() if spec.missing else vae


def _table_vae(settings: VAESettings, spec: DataSpec) -> VAE:
    likelihood = columns_likelihood(settings, spec)
    encoder, of_parts, decoder = table_networks(settings, spec, likelihood.outputs)
    assert settings.latent_dims is not None
    posterior = AmortisedPosterior(encoder, settings.latent_dims, None, of_parts)
    prior = build_prior(settings, posterior, spec, settings.latent_dims)
    objective = vae_objective(settings, of_parts=True)
    return VAE(posterior, decoder, likelihood, objective, settings.fit_steps, prior=prior)


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
    if by_data["network"] == "convolutional-ladder":
        by_data["latent_channels"] = MAP_CHANNELS
    elif settings.hierarchical:
        by_data |= {"groups": _groups(settings, spec), "width": LADDER_WIDTH}
    elif settings.latent_channels is None:
        by_data["latent_dims"] = sizes.latent_dims(spec.shape, spec.counts["train"])
    if by_data["network"] in ("convolutional", "convolutional-ladder"):
        refuse_vectors(by_data["network"], spec.shape)
        by_data["patch"] = patch = settings.patch or sizes.patch_by_shape(spec.shape, smallest=2)
        by_data["channels"] = sizes.encoder_channels(spec.shape, patch)
        if by_data["network"] == "convolutional-ladder":
            by_data["level_groups"] = (2,) * len(settings.channels or by_data["channels"])
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
        encoder = MLP(shape, settings.hidden, (_of_encoder(settings, latent),), settings.activation)
        decoder = MLP((latent,), settings.hidden[::-1], (outputs, *shape), settings.activation)
        return encoder, decoder, latent
    assert settings.channels is not None
    assert settings.patch is not None
    levels, spatial = Levels(shape, settings.channels, settings.blocks, settings.patch), settings.latent_dims is None
    size = settings.latent_channels if settings.latent_dims is None else settings.latent_dims
    assert size is not None
    convolutional = ConvolutionalDecoder(levels, size, outputs, spatial)
    return (
        ConvolutionalEncoder(levels, _of_encoder(settings, size), spatial),
        convolutional,
        math.prod(convolutional.latent_shape),
    )


def _of_encoder(settings: VAESettings, latent_dims: int) -> int:
    """The number of the encoder's outputs for z of `latent_dims` dimensions."""
    return outputs_of(latent_dims) if settings.posterior == "full-covariance" else 2 * latent_dims


def ladder_networks(
    settings: VAESettings, shape: tuple[int, ...], outputs: int
) -> tuple[AbstractBottomUp, AbstractTopDown]:
    """The bottom-up encoder and the top-down decoder of a hierarchy, from `completed` settings."""
    if settings.network == "convolutional-ladder":
        assert settings.channels is not None
        assert settings.patch is not None
        assert settings.level_groups is not None
        assert settings.latent_channels is not None
        levels = Levels(shape, settings.channels, settings.blocks, settings.patch)
        groups = MapGroups(levels, settings.level_groups, settings.latent_channels)
        return ConvolutionalBottomUp(groups), ConvolutionalTopDown(groups, outputs)
    assert settings.groups is not None
    if settings.network == "gated-ladder":
        return GatedBottomUp(shape, settings.groups), GatedTopDown(settings.groups, (outputs, *shape))
    assert settings.width is not None
    sizes = settings.groups, settings.width, settings.depth
    return DenseBottomUp(shape, *sizes), DenseTopDown(*sizes, (outputs, *shape))


def _groups(settings: VAESettings, spec: DataSpec) -> tuple[int, ...]:
    """Two groups of 40 for the gated ladder; else four, each of half as many dimensions as the z of a single group."""
    if settings.network == "gated-ladder":
        return (40, 40)
    return (max(1, sizes.latent_dims(spec.shape, spec.counts["train"]) // 2),) * 4


def build_prior(settings: VAESettings, posterior: AbstractPosterior, spec: DataSpec, latent_dims: int) -> AbstractPrior:
    """p(z) of the settings for z, or for the top group of a hierarchy, of `latent_dims` dimensions."""
    if settings.prior == "standard":
        return StandardNormal(latent_dims)
    if settings.prior == "mixture":
        return MixturePrior(latent_dims, settings.prior_components)
    if settings.prior == "flow":
        widths = (2 * latent_dims,)
        networks = [MLP((latent_dims,), (FLOW_WIDTH,), widths, "silu") for _ in range(settings.prior_couplings)]
        for network in networks:
            zeroed(network.layers[-1])  # the start is N(0, I)
        return CouplingPrior(latent_dims, networks)
    assert isinstance(posterior, HierarchicalPosterior | AmortisedPosterior)  # the settings refuse others
    encode = posterior.top if isinstance(posterior, HierarchicalPosterior) else posterior.whole
    return VampPrior(latent_dims, encode, spec.shape, settings.prior_components, _bounds(settings, spec))


def _bounds(settings: VAESettings, spec: DataSpec) -> tuple[float, float] | None:
    """The least and the greatest value of x as the model sees it; None for densities."""
    if settings.likelihood == "bernoulli":
        return 0.0, 1.0
    return None if settings.likelihood == "gaussian" or spec.levels is None else (-1.0, 1.0)


def _hierarchical_posterior(
    settings: VAESettings, encoder: nn.Module, decoder: AbstractTopDown, spec: DataSpec
) -> AbstractPosterior:
    if settings.posterior == "per-datapoint":
        return PerDatapointPosterior(spec.counts["train"], sum(decoder.sizes))
    return HierarchicalPosterior(encoder, decoder)


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
    if settings.posterior == "full-covariance":
        return CovariancePosterior(encoder, latent_dims)
    return AmortisedPosterior(encoder, latent_dims)


def vae_objective(settings: VAESettings, kl_weight: float = 1.0, *, of_parts: bool = False) -> AbstractVAEObjective:
    """The objective of the settings; `kl_weight` is the weight of the KL in objective elbo.

    With `of_parts` it also trains the encoder of parts of x.
    """
    if of_parts:
        return PartsObjective(vae_objective(settings, kl_weight))
    if settings.objective == "elbo":
        return ElboObjective(settings.kl_warmup_steps, settings.free_bits, kl_weight, settings.kl_balance)
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
    if name == "logistic-mixture":
        return LogisticMixtureLikelihood(spec.shape, settings.components, spec.levels, _floor(spec))
    law = DiscretisedGaussian if name == "discretised-gaussian" else DiscretisedLogistic
    return DiscretisedLikelihood(spec.shape, _scale(settings, spec), spec.levels, law)


def _scale(settings: VAESettings, spec: DataSpec) -> AbstractScale:
    if settings.variance == "fixed":
        return FixedScale(settings.fixed_scale)
    if settings.variance == "learned":
        return LearnedScale(_floor(spec))
    return FreeScale(spec.shape if settings.variance == "per-dimension" else (), _floor(spec))


def _floor(spec: DataSpec) -> float:
    """The standard deviation of uniform noise in one bin."""
    return spec.preparation.resolution / 12**0.5
