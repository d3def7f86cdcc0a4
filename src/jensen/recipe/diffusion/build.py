"""A diffusion model from its settings."""

import math
from collections.abc import Callable

from pydantic import TypeAdapter, ValidationError
from torch import nn

from jensen.data.preparation import Standardise
from jensen.data.spec import DataSpec
from jensen.diffusion import (
    AbstractGrid,
    AbstractParameterisation,
    AbstractReverseVariance,
    AbstractSampler,
    AbstractSchedule,
    Ancestral,
    BetaTable,
    BetaVariance,
    Clean,
    Clipped,
    Cosine,
    Denoiser,
    Epsilon,
    LastStep,
    LearnedSchedule,
    LearnedVariance,
    LinearBeta,
    LinearLogSnr,
    PosteriorVariance,
    Preconditioned,
    Sigmoid,
    UniformTime,
    Velocity,
    sampler,
    schedule,
)
from jensen.diffusion.analytic import AnalyticVariance, MeanSquaredErrors
from jensen.diffusion.model import DiffusionModel, Generation, Scoring
from jensen.diffusion.weighting import (
    P2,
    AbstractDenoisingObjective,
    AbstractTimes,
    BoundObjective,
    EDMWeighting,
    HybridObjective,
    LogNormalNoise,
    LossAwareTimes,
    LowDiscrepancyTimes,
    MinSNR,
    Simple,
    UniformTimes,
    WeightedObjective,
)
from jensen.errors import InputError
from jensen.nets import Architecture, DDPMUNet, PatchTransformer, ResidualMLP, UNet
from jensen.recipe import sizes
from jensen.recipe.diffusion.idle import RULES
from jensen.recipe.diffusion.imported import Imported
from jensen.recipe.diffusion.samplers import SAMPLERS
from jensen.recipe.diffusion.settings import DiffusionSettings
from jensen.recipe.idle import refuse_vectors
from jensen.recipe.settings import explain


def build_diffusion(settings: DiffusionSettings, spec: DataSpec, augmentations: int = 0) -> DiffusionModel:
    """The model for data like `spec`; layers draw initial weights from torch's global generator.

    `augmentations` is the number of parameters that describe the augmentation of a training example.
    """
    if spec.missing:
        raise InputError(
            f"{spec.source}: {spec.missing} values are missing, but a diffusion model needs complete data; train "
            "a vae, or leave out the incomplete examples"
        )
    classes = spec.classes if settings.conditional else None
    settings = _completed(settings, spec)
    network = _network(settings, spec.shape, classes, augmentations)
    denoiser = Denoiser(network, _parameterisation(settings), classes)
    variance = _variance(settings)
    scoring = Scoring(
        settings.chain_steps,
        UniformTime(),
        variance,
        spec.levels,
        settings.bound_terms,
        label_counts=spec.label_counts,
    )
    generation = build_generation(settings, variance)
    return DiffusionModel(
        spec.shape,
        denoiser,
        _schedule(settings, spec.levels),
        _objective(settings),
        scoring,
        generation,
        settings.label_dropout,
    )


def build_generation(settings: DiffusionSettings, variance: AbstractReverseVariance) -> Generation:
    """The recipe's sampler and grid; `variance` is the variance of the model, which the ancestral sampler needs."""
    entry = SAMPLERS[settings.sampler]
    kind: type[AbstractSampler] = getattr(sampler, entry.kind)
    grid: type[AbstractGrid] = getattr(schedule, entry.grid)
    of_chain = {"variance": variance, "last": LastStep(settings.last_step)} if kind is Ancestral else {}
    return Generation(kind(**of_chain, **entry.arguments), settings.sampling_steps, grid(), settings.guidance)


def _completed(settings: DiffusionSettings, spec: DataSpec) -> DiffusionSettings:
    """The settings with every None and auto replaced by a value that suits the data.

    Fourier features are for examples of up to 3 x 64 x 64 values: beyond, they would take more memory and time than the
    network. Large patches get none either, and `skip` is below sigma_data for them: docs/results.md has the
    comparison.
    """
    patch = settings.patch or sizes.patch_by_shape(spec.shape)
    large = sizes.has_large_patches(spec.shape, patch)
    levels = spec.levels if math.prod(spec.shape) <= 3 * 64**2 and not large else None
    deviation = settings.sigma_data or (1.0 if isinstance(spec.preparation, Standardise) else 0.5)
    by_data = {
        "network": "mlp" if len(spec.shape) < 2 else "unet",
        "octaves": 0 if levels is None else min(8, math.ceil(math.log2(levels))),
        "patch": patch,
        "widths": sizes.unet_widths(spec.shape, patch),
        "sigma_data": deviation,
        "skip": deviation / 5 if large else deviation,
        "noise_mean": sizes.noise_mean(spec.shape),
    }
    unsaid = {name: value for name, value in by_data.items() if getattr(settings, name) in (None, "auto")}
    return settings.model_copy(update=unsaid)


def explicit(settings: DiffusionSettings, spec: DataSpec) -> DiffusionSettings:
    """The settings with every None and auto that has an effect replaced by the value for data like `spec`."""
    completed = _completed(settings, spec)
    idle = {name for rule in RULES for name in rule.names if not rule.acts(completed, spec)}
    return completed.model_copy(update={name: getattr(settings, name) for name in idle})


def _network(settings: DiffusionSettings, shape: tuple[int, ...], classes: int | None, augmentations: int) -> nn.Module:
    assert settings.patch is not None
    assert settings.octaves is not None
    assert settings.widths is not None
    if settings.imported and settings.imported.network:
        return _imported_network(settings.imported, augmentations)
    outputs = 2 if settings.variance == "learned" else 1
    if settings.network == "mlp":
        return ResidualMLP(shape, settings.width, settings.depth, classes, outputs, augmentations)
    refuse_vectors(settings.network, shape)
    if settings.network == "transformer":
        size = settings.width, settings.depth, settings.patch
        return PatchTransformer(shape, *size, classes, outputs, augmentations)
    levels = settings.widths, settings.blocks, settings.attention, settings.patch
    return UNet(shape, *levels, classes, outputs, settings.octaves, augmentations)


def _imported_network(imported: Imported, augmentations: int) -> DDPMUNet:
    """The network of another program. Raises `InputError` for fields that make no network, and for augmentations."""
    if augmentations:
        raise InputError("augmentation for an imported network, which has no input for it; leave --flip and others out")
    try:
        architecture = TypeAdapter(Architecture).validate_python(imported.network)
    except ValidationError as error:
        raise InputError(f"imported network: {explain(error)}; restore recipe.json") from error
    chain = UniformTime()(BetaTable(imported.betas), len(imported.betas))
    return DDPMUNet(architecture, -chain[1:] / 8)  # what `Denoiser` tells the network


def _schedule(settings: DiffusionSettings, levels: int | None) -> AbstractSchedule:
    if settings.imported:
        return BetaTable(settings.imported.betas)
    if settings.noise_schedule == "linear-beta":
        return LinearBeta(settings.chain_steps)
    if settings.noise_schedule == "cosine":
        return Cosine()
    if settings.noise_schedule == "sigmoid":
        return Sigmoid()
    maximum, minimum = settings.log_snr_range or (_least_noise(levels), -10.0)
    return (LinearLogSnr if settings.noise_schedule == "linear-log-snr" else LearnedSchedule)(maximum, minimum)


def _least_noise(levels: int | None) -> float:
    """The log-SNR at which levels at distance 2 / (levels - 1) can just be told apart; 13 for floats."""
    return 13.0 if levels is None else 2 * math.log((max(levels, 2) - 1) / 0.7)


def _parameterisation(settings: DiffusionSettings) -> AbstractParameterisation:
    assert settings.sigma_data is not None
    others: dict[str, Callable[[], AbstractParameterisation]]
    others = {"epsilon": Epsilon, "clean": Clean, "velocity": Velocity}
    found = (
        Preconditioned(settings.sigma_data, settings.skip)
        if settings.parameterisation == "edm"
        else others[settings.parameterisation]()
    )
    clip = settings.imported.clip if settings.imported else None
    return found if clip is None else Clipped(found, clip)


def _variance(settings: DiffusionSettings) -> AbstractReverseVariance:
    if settings.variance == "analytic":
        return AnalyticVariance(MeanSquaredErrors())
    others: dict[str, Callable[[float], AbstractReverseVariance]]
    others = {"beta": BetaVariance, "posterior": PosteriorVariance, "learned": LearnedVariance}
    return others[settings.variance](settings.imported.last_share if settings.imported else 1.0)


def _objective(settings: DiffusionSettings) -> AbstractDenoisingObjective:
    all_times = {"uniform": UniformTimes, "low-discrepancy": LowDiscrepancyTimes, "loss-aware": LossAwareTimes}
    times: AbstractTimes = all_times[settings.times]()
    if settings.objective == "bound":
        return BoundObjective(times)
    if settings.objective == "hybrid":
        return HybridObjective(times=times)
    if settings.objective == "simple":
        return WeightedObjective(Simple(), times, settings.chain_steps)  # (5.18)
    if settings.objective == "edm":
        assert settings.sigma_data is not None
        assert settings.noise_mean is not None
        mean, deviation = settings.noise_mean, settings.noise_deviation
        return WeightedObjective(
            EDMWeighting(settings.sigma_data, mean, deviation, settings.skip),
            times,
            noise=LogNormalNoise(mean, deviation),
        )
    return WeightedObjective(MinSNR() if settings.objective == "min-snr" else P2(), times)
