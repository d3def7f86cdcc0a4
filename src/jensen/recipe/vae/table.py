"""The parts of a VAE for the rows of a table: laws of the columns, networks, and sizes by the data."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from jensen.data.spec import DataSpec
from jensen.data.table_preparation import PreparedField, TablePreparation
from jensen.likelihood.columns import ColumnsLikelihood
from jensen.likelihood.laws import Codes, Count, Law, Real, Whole
from jensen.monotone import Curves
from jensen.nets import ColumnInput, TableDecoder, TableEncoder
from jensen.recipe.vae.settings import VAESettings
from jensen.training.plan import untouched
from jensen.training.settings import TrainingSettings
from jensen.vae import PartlyObserved

FLOOR = 1e-3  # smallest scale of a component, where x of real numbers is about N(0, 1)
BATCH = 256
WARM = 400  # steps in which the weight of the KL rises, at most
LOOKS = 40  # validations in a training of the default length
PATIENCE = 8
FEW_LEVELS = 32  # whole numbers with up to so many values are also seen value by value


def table_width(rows: int, columns: int) -> int:
    """The width of the residual blocks: 128, or 256 for many rows or columns.

    >>> table_width(1_000, 20), table_width(100_000, 20)
    (128, 256)
    """
    return 256 if rows >= 20_000 or columns > 200 else 128


def table_latent_dims(rows: int, columns: int) -> int:
    """The number of latent dimensions: 16, or as many as columns if they are fewer; at most a quarter of the rows.

    >>> table_latent_dims(1_000, 20), table_latent_dims(1_000, 5)
    (16, 5)
    """
    return max(1, min(columns, 16 if columns <= 64 else 2 * round(math.sqrt(columns)), rows // 4))


def table_steps(rows: int) -> int:
    """The number of steps of a training on so many rows, at most; early stopping may end it sooner.

    >>> [table_steps(rows) for rows in (398, 1_000, 5_000, 45_000, 1_000_000)]
    [1000, 1500, 3400, 10100, 20000]
    """
    return min(20_000, max(1000, 100 * round(15 * math.sqrt(rows / 1000))))


def table_training(settings: TrainingSettings, spec: DataSpec) -> TrainingSettings:
    """The settings of training, where those that are left at their defaults suit a table of so many rows."""
    rows = spec.counts["train"]
    steps = table_steps(rows) if untouched(settings, "steps") else settings.steps
    wanted: dict[str, Any] = {
        "steps": steps,
        "batch_size": min(BATCH, rows),
        "warmup_steps": min(50, steps // 10),
        "validate_every": max(1, steps // LOOKS),
    }
    if settings.patience is None and spec.counts["validation"]:
        wanted["patience"] = PATIENCE
    if settings.minutes is not None:  # then the plan chooses the length and the looks
        wanted = {"batch_size": wanted["batch_size"]}
    return settings.model_copy(update={name: value for name, value in wanted.items() if untouched(settings, name)})


def table_model(settings: VAESettings, steps: int) -> VAESettings:
    """The settings of the model, where the weight of the KL rises in the first 400 steps, or a quarter of all steps.

    With the full weight from the start, training of few rows first spends a third of its steps with z unused.
    """
    if settings.objective != "elbo" or settings.kl_warmup_steps or settings.free_bits:
        return settings
    return settings.model_copy(update={"kl_warmup_steps": min(WARM, steps // 4)})


def columns_likelihood(settings: VAESettings, spec: DataSpec) -> PartlyObserved:
    """p(row|z): the law of each column; a missing cell is a value, or left out, as the settings say."""
    prepared, generate = _prepared(spec), settings.missing_cells == "generate"
    assert spec.table is not None
    missing = [generate and field.missing for field in spec.table.fields]
    laws = [_law(field, may, settings.components) for field, may in zip(prepared, missing, strict=True)]
    return PartlyObserved(ColumnsLikelihood(laws), torch.tensor(missing))


def table_networks(settings: VAESettings, spec: DataSpec, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The encoder, the encoder of parts and the decoder, from `completed` settings."""
    prepared = _prepared(spec)
    inputs = [_input(field) for field in prepared]
    bent = [field.curve for field in prepared if field.law in ("whole", "count") and field.curve is not None]
    latent, width, depth = settings.latent_dims, settings.width, settings.depth
    assert latent is not None
    assert width is not None

    def encoder() -> TableEncoder:
        return TableEncoder(inputs, 2 * latent, width, depth, Curves(bent) if bent else None)

    return encoder(), encoder(), TableDecoder(latent, outputs, width, depth)


def _prepared(spec: DataSpec) -> Sequence[PreparedField]:
    assert isinstance(spec.preparation, TablePreparation)
    return spec.preparation.fields


def _law(field: PreparedField, missing: bool, components: int) -> Law:
    if field.law == "codes":
        assert field.levels is not None
        return Codes(field.levels, missing)
    if field.law == "whole":
        assert field.levels is not None
        assert field.curve is not None
        return Whole(field.levels, field.curve, components, missing)
    if field.law == "count":
        return Count(1.0 if field.mean is None else field.mean, missing)
    return Real(field.images, components, FLOOR, missing)


def _input(field: PreparedField) -> ColumnInput:
    if field.law == "codes":
        return ColumnInput(field.levels or 0)
    if field.law == "real":
        return ColumnInput(field.images, number=True)
    few = field.levels is not None and field.levels <= FEW_LEVELS
    return ColumnInput(tuple(map(float, range(field.levels or 0))) if few else (), number=True, curved=True)
