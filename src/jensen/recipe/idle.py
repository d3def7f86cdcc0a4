"""Settings that cannot act beside others, or on the data: they are refused, so that none is ever silently ignored."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from jensen import processes
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.recipe.settings import DiffusionSettings, Recipe, VAESettings


@dataclass(frozen=True)
class _Rule:
    """Settings that change nothing unless `acts` is true of their table and the data."""

    names: tuple[str, ...]
    acts: Callable[[Any, DataSpec], bool]
    advice: str
    """When they act, and what to do."""


_TRAINING = (
    _Rule(("milestones", "decay"), lambda s, _: s.schedule == "staircase", "acts with schedule staircase only"),
    _Rule(("decay",), lambda s, _: bool(s.milestones), "acts at milestones, and there are none; give milestones"),
    _Rule(("rollbacks",), lambda s, _: s.on_divergence == "rollback", "acts with on_divergence rollback only"),
    _Rule(
        ("patience", "validate_every", "validation_examples"),
        lambda _, spec: spec.counts["validation"] > 0,
        "acts on validation examples, and there are none; give --validation-fraction",
    ),
    _Rule(
        ("micro_batch_size",),
        lambda s, _: s.micro_batch_size <= s.batch_size,
        "is larger than batch_size; give at most batch_size",
    ),
    _Rule(("schedule",), lambda s, _: s.schedule != "staircase" or bool(s.milestones), "acts at milestones; give some"),
    _Rule(("sharding",), lambda _, __: processes.count() > 1, "acts on several processes; start them with torchrun"),
)

_VAE = (
    _Rule(("hidden",), lambda s, _: s.network == "mlp", "acts with network mlp only"),
    _Rule(
        ("activation",), lambda s, _: s.network == "mlp" or s.predict != "none", "acts with network mlp or predict only"
    ),
    _Rule(("channels",), lambda s, _: s.network == "convolutional", "acts with network convolutional only"),
    _Rule(("binarisation",), lambda s, _: s.likelihood == "bernoulli", "acts with likelihood bernoulli only"),
    _Rule(
        ("variance",),
        lambda s, _: s.likelihood not in ("bernoulli", "categorical") or s.predict == "target",
        "is the scale of a likelihood that has none; choose likelihood gaussian, or a discretised one",
    ),
    _Rule(("fixed_scale",), lambda s, _: s.variance == "fixed", "acts with variance fixed only"),
    _Rule(
        ("importance_samples",),
        lambda s, _: s.objective != "elbo",
        "acts with objective importance-weighted or doubly-reparameterised only",
    ),
    _Rule(
        ("predict_hidden",),
        lambda s, _: s.predict != "none",
        "acts where there is something to predict; give --predict label or target",
    ),
)

_DIFFUSION = (
    _Rule(
        ("widths", "blocks", "attention"),
        lambda s, spec: _network(s, spec) == "unet",
        "acts with network unet only",
    ),
    _Rule(
        ("octaves",),
        lambda s, spec: s.octaves == 0 or _network(s, spec) == "unet",  # 0 asks for none, as other networks have
        "acts with network unet only",
    ),
    _Rule(("patch",), lambda s, spec: _network(s, spec) != "mlp", "acts with network unet or transformer only"),
    _Rule(("width", "depth"), lambda s, spec: _network(s, spec) != "unet", "acts with network transformer or mlp only"),
    _Rule(
        ("log_snr_range",),
        lambda s, _: s.noise_schedule in ("linear-log-snr", "learned"),
        "acts with noise_schedule linear-log-snr or learned only",
    ),
    _Rule(
        ("sigma_data",),
        lambda s, _: "edm" in (s.parameterisation, s.objective),
        "acts with parameterisation edm or objective edm only",
    ),
    _Rule(("noise_mean", "noise_deviation"), lambda s, _: s.objective == "edm", "acts with objective edm only"),
    _Rule(
        ("label_dropout",),
        lambda s, spec: s.conditional and spec.classes is not None,
        "acts on a model of labels, and this one has none; give labelled data, without --no-conditional",
    ),
)

_OF_MODEL: dict[type[BaseModel], tuple[_Rule, ...]] = {VAESettings: _VAE, DiffusionSettings: _DIFFUSION}


def refuse_idle_settings(recipe: Recipe, spec: DataSpec) -> None:
    """Raises `InputError` for the first setting, other than its default, that changes nothing for these data.

    >>> from jensen.data.load import load_data
    >>> from jensen.recipe.settings import VAERecipe
    >>> refuse_idle_settings(VAERecipe(model=VAESettings(channels=(8,))), load_data("digits").spec)
    Traceback (most recent call last):
    jensen.errors.InputError: channels 8: acts with network convolutional only; leave it out
    """
    _refuse(recipe.model, _OF_MODEL[type(recipe.model)], spec)
    _refuse(recipe.training, _TRAINING, spec)


def _refuse(settings: BaseModel, rules: Iterable[_Rule], spec: DataSpec) -> None:
    fields = type(settings).model_fields
    for rule in rules:
        for name in rule.names:
            value = getattr(settings, name)
            if value != fields[name].default and not rule.acts(settings, spec):
                given = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
                raise InputError(f"{name} {given or 'of no layer'}: {rule.advice}; leave it out")


def _network(settings: DiffusionSettings, spec: DataSpec) -> str:
    """The network that auto stands for, as `build_diffusion` chooses it."""
    return settings.network if settings.network != "auto" else "mlp" if len(spec.shape) < 2 else "unet"
