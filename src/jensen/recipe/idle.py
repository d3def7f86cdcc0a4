"""Settings that have no effect, because of other settings or of the data, are refused instead of silently ignored."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from jensen import processes
from jensen.data.augment import Augmentation, flipped_axes
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.recipe.settings import AbstractRecipe


@dataclass(frozen=True)
class Rule:
    """Settings that have an effect only if `acts` is true for their table of settings and the data."""

    names: tuple[str, ...]
    acts: Callable[[Any, DataSpec], bool]
    advice: str
    """The condition of the effect, and the remedy, in words."""


_TRAINING = (
    Rule(("milestones", "decay"), lambda s, _: s.schedule == "staircase", "acts with schedule staircase only"),
    Rule(("decay",), lambda s, _: bool(s.milestones), "acts at milestones, but there are none; give milestones"),
    Rule(("rollbacks",), lambda s, _: s.on_divergence == "rollback", "acts with on_divergence rollback only"),
    Rule(
        ("patience", "validate_every", "validation_examples"),
        lambda _, spec: spec.counts["validation"] > 0,
        "acts on validation examples, but there are none; give --validation-fraction",
    ),
    Rule(
        ("micro_batch_size",),
        lambda s, _: s.micro_batch_size <= s.batch_size,
        "is larger than batch_size; give at most batch_size",
    ),
    Rule(("schedule",), lambda s, _: s.schedule != "staircase" or bool(s.milestones), "acts at milestones; give some"),
    Rule(("deterministic",), lambda s, _: s.device != "cpu", "acts on CUDA devices only"),
    Rule(("sharding",), lambda _, __: processes.count() > 1, "acts on several processes; start them with torchrun"),
)


_AUGMENT = (
    Rule(
        ("flip",),
        lambda s, spec: bool(flipped_axes(s, spec.shape)),
        "acts along an axis of several values of images, signals and volumes (C, ...), which these examples lack",
    ),
    Rule(
        ("shift",),
        lambda s, spec: any(round(s.shift * side) for side in spec.shape[1:]),
        "moves images, signals and volumes (C, ...) by whole pixels, here by less than one; give a larger share",
    ),
    Rule(("crop",), lambda s, spec: len(spec.shape) == 3, "acts on images only"),
    Rule(
        ("jitter",),
        lambda _, spec: len(spec.shape) == 3 and (spec.levels or 0) > 2,
        "acts on images of integers with more than two levels only",
    ),
    Rule(("gain",), lambda s, spec: len(spec.shape) in (2, 4), "acts on signals (C, L) and volumes only; give jitter"),
    Rule(
        ("probability",),
        lambda s, spec: Augmentation.of(s, spec.shape, spec.preparation).numbers > 0,
        "acts on a change of training examples, but there is none; give --flip, --shift or another",
    ),
    Rule(("crop", "jitter", "gain"), lambda _, spec: not spec.missing, "needs complete data, but values are missing"),
)


@dataclass(frozen=True)
class Table:
    """A table of settings with its rules, the data that the settings are about, and the prefix of their names."""

    settings: BaseModel
    rules: tuple[Rule, ...]
    spec: DataSpec
    prefix: str = ""


def refuse_idle_settings(recipe: AbstractRecipe, tables: Iterable[Table], spec: DataSpec) -> None:
    """Raise `InputError` for the first setting that differs from its default but has no effect.

    `tables` are the tables of settings that only this family has.

    >>> from jensen.data.load import load_data
    >>> from jensen.recipe.vae.settings import VAERecipe, VAESettings
    >>> from jensen.recipe.vae.idle import RULES
    >>> recipe, spec = VAERecipe(model=VAESettings(fixed_scale=2)), load_data("digits").spec
    >>> refuse_idle_settings(recipe, [Table(recipe.model, RULES, spec)], spec)
    Traceback (most recent call last):
    jensen.errors.InputError: fixed_scale 2.0: acts with variance fixed only; leave it out
    """
    for table in (
        *tables,
        Table(recipe.training, _TRAINING, spec),
        Table(recipe.training.augment, _AUGMENT, spec),
    ):
        _refuse(table)


def refuse_vectors(network: str, shape: tuple[int, ...]) -> None:
    """Raises `InputError` for examples (D,), which have no axis that `network` could act along."""
    if len(shape) < 2:
        raise InputError(
            f"network {network} for vectors of shape {shape}: choose network mlp; for signals give --layout signal"
        )


def _refuse(table: Table) -> None:
    fields = type(table.settings).model_fields
    for rule in table.rules:
        for name in rule.names:
            value = getattr(table.settings, name)
            if value != fields[name].default and not rule.acts(table.settings, table.spec):
                given = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
                end = ", or" if ";" in rule.advice else ";"
                raise InputError(f"{table.prefix}{name} {given or 'of no layer'}: {rule.advice}{end} leave it out")
