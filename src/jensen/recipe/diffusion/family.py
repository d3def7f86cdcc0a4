"""The family of diffusion models, as commands use it."""

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from safetensors.torch import save
from torch import Tensor

from jensen.compression.chain import ChainCodec
from jensen.data.augment import Augmentation
from jensen.data.options import PreparationName
from jensen.data.spec import DataSpec
from jensen.data.table_preparation import TablePreparation
from jensen.diffusion.model import DiffusionModel, Generation
from jensen.errors import InputError
from jensen.inference.impute_diffusion import Replacement, TwistedParticles
from jensen.inference.imputer import AbstractImputer
from jensen.recipe.diffusion.build import build_diffusion, build_generation, explicit
from jensen.recipe.diffusion.idle import RULES
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.diffusion.words import WORDS
from jensen.recipe.family import AbstractFamily, ImputationWish, Sampling, SamplingWish, heeded
from jensen.recipe.start import matched_rows

METHODS = {"particles": ("particles", "steps"), "replacement": ("resamplings", "steps")}
CONDITION = "denoiser.network.condition"  # the `ConditionEmbedding` of every network
CODED_STEPS = 100  # default number of steps of the chain that compresses; each costs one network call per example


class DiffusionFamily(AbstractFamily[DiffusionRecipe, DiffusionModel]):
    """Diffusion models."""

    words = WORDS
    conditional_advice = "without --no-conditional"
    idle_rules = RULES
    of_examples = ("errors.*", "objective.*")

    def preparation(self, recipe: DiffusionRecipe, levels: int | None) -> PreparationName:
        """Put integers on the grid of their levels and standardise floats."""
        return "standardise" if levels is None else "levels"

    def explicit(self, recipe: DiffusionRecipe, spec: DataSpec) -> DiffusionSettings:
        return explicit(recipe.model, spec)

    def suited(self, recipe: DiffusionRecipe, spec: DataSpec) -> DiffusionRecipe:
        """The recipe itself. Raises `InputError` if its weights come from another program, whose files it lacks."""
        if recipe.model.imported and recipe.start_from is None:
            raise InputError(
                f"a recipe {recipe.model.imported.sentence}; a training cannot start from them: import them by jensen "
                "import, then give the imported run to --from"
            )
        return recipe

    def adapted(
        self,
        weights: dict[str, Tensor],
        own: Mapping[str, Tensor],
        recipes: tuple[DiffusionRecipe, DiffusionRecipe],
        classes: Sequence[int | None],
    ) -> dict[str, Tensor]:
        """The prediction without a label stays the same, and a new class begins with it."""
        labels, bias = f"{CONDITION}.labels.weight", f"{CONDITION}.second.bias"
        none = weights.pop(labels, None)
        if labels in own:
            nothing = torch.zeros_like(own[labels][0]) if none is None else none[-1]
            fresh = nothing.repeat(len(classes), 1)
            known = fresh if none is None else matched_rows(none, classes, fresh)
            weights[labels] = torch.cat([known, nothing[None]])
        elif none is not None:
            weights[bias] = weights[bias] + none[-1]
        told = f"{CONDITION}.augmentation.weight"
        if told not in own:
            weights.pop(told, None)
        elif told not in weights or recipes[0].training.augment != recipes[1].training.augment:
            weights[told] = torch.zeros_like(own[told])
        return weights

    def build(self, recipe: DiffusionRecipe, spec: DataSpec) -> DiffusionModel:
        augmentation = Augmentation.of(recipe.training.augment, spec.shape, spec.preparation)
        return build_diffusion(recipe.model, spec, augmentation.numbers)

    def check_data(self, recipe: DiffusionRecipe, spec: DataSpec) -> None:
        """Warns about continuous targets, which the model does not learn. Raises `InputError` for a mixed table."""
        if spec.table is not None and (spec.missing or not _dense(spec)):
            raise InputError(
                f"{recipe.data}: a diffusion model needs columns of real numbers without missing cells, and the table "
                "has others; use jensen train latent (diffusion over a VAE), or jensen train vae"
            )
        warn_of_targets(spec)

    def sampling(self, model: DiffusionModel, recipe: DiffusionRecipe, wish: SamplingWish) -> Sampling[DiffusionModel]:
        """Any sampler, number of steps and guidance, towards the labels or away from a worse model."""
        settings = recipe.model
        asked = {"sampler": wish.sampler, "sampling_steps": wish.steps, "guidance": wish.guidance}
        asked["last_step"] = wish.last_step
        settings = settings.model_copy(update={name: value for name, value in asked.items() if value is not None})
        if wish.last_step and settings.sampler != "ancestral":
            raise InputError(
                f"--last-step {wish.last_step} is for --sampler ancestral, but the sampler is {settings.sampler}; "
                "leave it out, or give --sampler ancestral"
            )
        generation = _guided(build_generation(settings, model.scoring.variance), wish)
        wished = copy.copy(model)  # shares the weights
        wished.generation = generation
        next(wished.trajectory(1))  # raises for too many steps and for guidance without labels, before any work
        return Sampling(
            wished,
            sampler=settings.sampler,
            steps=settings.sampling_steps,
            guidance=settings.guidance,
            guide=_digest(generation),
        )

    def imputer(self, wish: ImputationWish, spec: DataSpec) -> AbstractImputer:
        """`particles`, which is asymptotically exact, or `replacement`, which is faster but biased."""
        method, given = heeded(wish, METHODS, "diffusion")
        return TwistedParticles(**given) if method == "particles" else Replacement(**given)

    def codec(self, model: DiffusionModel, steps: int | None) -> ChainCodec:
        """Bits-back coding with a chain of `steps` steps."""
        return ChainCodec(model, CODED_STEPS if steps is None else steps)


def _dense(spec: DataSpec) -> bool:
    """Whether every column of a table has a density: no masses and no atoms."""
    assert isinstance(spec.preparation, TablePreparation)
    return all(field.law == "real" and not field.atoms for field in spec.preparation.fields)


def warn_of_targets(spec: DataSpec) -> None:
    """Warn about continuous targets, which a diffusion model does not learn."""
    if spec.targets:
        warnings.warn(
            f"{spec.source} has continuous targets, which a diffusion model does not learn: it models only p(x); to "
            "predict the targets: jensen train vae --predict target",
            stacklevel=3,
        )


def _guided(generation: Generation, wish: SamplingWish) -> Generation:
    """The generation, with guidance away from the worse model in `wish` if there is one."""
    if wish.guide is None:
        return generation
    if generation.guidance == 0:
        raise InputError("--guide needs a scale; give --guidance, usually 0.5 to 2")
    assert isinstance(wish.guide, DiffusionModel)  # a guide is of the same family
    return replace(generation, guide=wish.guide.denoiser)


def _digest(generation: Generation) -> str | None:
    """SHA-256 of the guide's weights; None without a guide."""
    if generation.guide is None:
        return None
    weights = {name: tensor.contiguous() for name, tensor in generation.guide.state_dict().items()}
    return hashlib.sha256(save(weights)).hexdigest()


FAMILY = DiffusionFamily()
