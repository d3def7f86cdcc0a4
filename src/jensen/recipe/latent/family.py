"""The family of latent diffusion models, as commands use it."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from jensen.compression.codec import AbstractCodec
from jensen.data.augment import Augmentation
from jensen.data.options import PreparationName
from jensen.data.spec import DataSpec
from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.inference.imputer import AbstractImputer
from jensen.latent import DiffusionPrior
from jensen.model import AbstractLatentVariableModel
from jensen.recipe.diffusion.build import explicit as explicit_diffusion
from jensen.recipe.diffusion.family import FAMILY as DIFFUSION
from jensen.recipe.diffusion.family import warn_of_targets
from jensen.recipe.diffusion.idle import RULES as OF_DIFFUSION
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.recipe.family import AbstractFamily, ImputationWish, Sampling, SamplingWish
from jensen.recipe.idle import Table
from jensen.recipe.latent.build import build_latent, completed_vae, latent_spec, with_spatial_z
from jensen.recipe.latent.settings import LatentRecipe, LatentSettings
from jensen.recipe.latent.words import WORDS
from jensen.recipe.settings import AbstractRecipe
from jensen.recipe.vae.build import explicit as explicit_vae
from jensen.recipe.vae.family import FAMILY as AUTOENCODER
from jensen.recipe.vae.idle import RULES as OF_VAE
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.recipe.vae.table import BATCH, table_model, table_steps
from jensen.training.plan import untouched
from jensen.vae import VAE

DENOISING = "prior.model."  # the weights of the diffusion model
NO_TARGET = {"predict": "none", "predict_hidden": VAESettings().predict_hidden}


class LatentFamily(AbstractFamily[LatentRecipe, VAE]):
    """VAEs with a diffusion prior."""

    words = WORDS
    conditional_advice = "without --prior.no-conditional"
    of_examples = (*(f"{DENOISING}{pattern}" for pattern in DIFFUSION.of_examples), "prior.moments.*")

    def tables(self, recipe: LatentRecipe, spec: DataSpec) -> Iterator[Table]:
        """The settings of the VAE and, for data like z, those of the prior."""
        settings = recipe.model
        yield Table(settings.vae, OF_VAE, spec, "vae.")
        yield Table(settings.prior, OF_DIFFUSION, latent_spec(completed_vae(settings.vae, spec), spec), "prior.")

    def preparation(self, recipe: LatentRecipe, levels: int | None) -> PreparationName:
        """The preparation of the VAE."""
        return AUTOENCODER.preparation(VAERecipe(model=recipe.model.vae), levels)

    def explicit(self, recipe: LatentRecipe, spec: DataSpec) -> LatentSettings:
        """The settings of both parts; the lengths of the stages are left to the new training."""
        settings = recipe.model
        parts = {
            "vae": explicit_vae(with_spatial_z(settings.vae, spec), spec),
            "prior": explicit_diffusion(settings.prior, latent_spec(completed_vae(settings.vae, spec), spec)),
        }
        return settings.model_copy(update={**parts, "vae_steps": None, "prior_steps": None})

    def suited(self, recipe: LatentRecipe, spec: DataSpec) -> LatentRecipe:
        """For a table, the first stage is as long as the training of a VAE, and the second stage twice as long."""
        if spec.table is None or recipe.training.minutes is not None or not untouched(recipe.training, "steps"):
            return recipe
        usual, vae = table_steps(spec.counts["train"]), recipe.model.vae
        first = usual if recipe.model.vae_steps is None else recipe.model.vae_steps
        if first and recipe.start_from is None and recipe.model.kl_weight == 1:
            vae = table_model(vae, first)
        training: dict[str, Any] = {"steps": first + 2 * usual}
        if untouched(recipe.training, "batch_size"):
            training["batch_size"] = min(BATCH, spec.counts["train"])
        model = recipe.model.model_copy(update={"vae": vae, "vae_steps": first})
        return recipe.model_copy(update={"model": model, "training": recipe.training.model_copy(update=training)})

    def from_other(self, recipe: AbstractRecipe, spec: DataSpec) -> dict[str, Any] | None:
        """The given VAE replaces the first stage, which then has no steps."""
        if not isinstance(recipe, VAERecipe):
            return None
        return {"vae": {**explicit_vae(recipe.model, spec).model_dump(), **NO_TARGET}, "vae_steps": 0}

    def adapted(
        self,
        weights: dict[str, Tensor],
        own: Mapping[str, Tensor],
        recipes: tuple[LatentRecipe | VAERecipe, LatentRecipe],
        classes: Sequence[int | None],
    ) -> dict[str, Tensor]:
        """The VAE keeps its weights; the prior's weights are adapted as in a diffusion model, or start anew."""
        before, after = recipes
        of_vae = {name: tensor for name, tensor in weights.items() if not name.startswith(("prior.", "target."))}
        fresh = {name: tensor for name, tensor in own.items() if name.startswith("prior.")}
        if isinstance(before, VAERecipe):
            return of_vae | fresh
        there, here = (
            {name.removeprefix(DENOISING): tensor for name, tensor in of.items() if name.startswith(DENOISING)}
            for of in (weights, own)
        )
        both = tuple(DiffusionRecipe(model=r.model.prior, training=r.training) for r in (before, after))
        adapted = DIFFUSION.adapted(there, here, (both[0], both[1]), classes)
        moments = {name: tensor for name, tensor in fresh.items() if not name.startswith(DENOISING)}
        return of_vae | moments | {f"{DENOISING}{name}": tensor for name, tensor in adapted.items()}

    def build(self, recipe: LatentRecipe, spec: DataSpec) -> VAE:
        augmentation = Augmentation.of(recipe.training.augment, spec.shape, spec.preparation)
        return build_latent(recipe, spec, augmentation.numbers)

    def check_data(self, recipe: LatentRecipe, spec: DataSpec) -> None:
        """Warns about continuous targets, which the model does not learn.

        Raises `InputError` for a VAE that would stay untrained.
        """
        if recipe.vae_steps == 0 and recipe.start_from is None:
            raise InputError("vae_steps 0: the VAE would stay untrained; give --from RUN, or a number of steps")
        warn_of_targets(spec)

    def check_processes(self, recipe: LatentRecipe, count: int, device: str) -> None:
        """Raises `InputError` in the same cases as the VAE."""
        AUTOENCODER.check_processes(VAERecipe(model=recipe.model.vae), count, device)

    def sampling(self, model: VAE, recipe: LatentRecipe, wish: SamplingWish) -> Sampling[VAE]:
        """Any sampler, number of steps and guidance of the prior."""
        prior = _prior(model)
        of_prior = DiffusionRecipe(model=recipe.model.prior)
        guide = None if wish.guide is None else _same_latents(model, wish.guide)
        found = DIFFUSION.sampling(prior.model, of_prior, SamplingWish(wish.sampler, wish.steps, wish.guidance, guide))
        wished = copy.copy(prior)  # shares the weights
        wished._modules = {**prior._modules, "model": found.model}
        return Sampling(model.with_prior(wished), found.sampler, found.steps, found.guidance, found.guide)

    def imputer(self, wish: ImputationWish, spec: DataSpec) -> AbstractImputer:
        """None, because the VAE's imputers weight z by log p(z), and the prior has only a bound on log p(z)."""
        raise InputError(
            "a latent model cannot impute: its prior gives a bound on log p(z), and imputation needs log p(z) itself; "
            "use a vae or a diffusion run on the same data"
        )

    def codec(self, model: VAE, steps: int | None) -> AbstractCodec:
        raise InputError(
            "a latent model cannot compress: its z is continuous, and the prior's chain codes levels; use a vae or a "
            "diffusion run on the same data"
        )


def _prior(model: VAE) -> DiffusionPrior:
    assert isinstance(model.prior, DiffusionPrior)
    return model.prior


def _same_latents(model: VAE, guide: AbstractLatentVariableModel) -> DiffusionModel:
    """The guide's diffusion model. Raises `InputError` unless both models have the same VAE and the same moments."""
    assert isinstance(guide, VAE)  # a guide is of the same family
    own, other = ({k: v for k, v in m.state_dict().items() if not k.startswith("prior.model.")} for m in (model, guide))
    if own.keys() != other.keys() or not all(torch.equal(own[name], other[name]) for name in own):
        raise InputError("--guide has another VAE, so its z means something else; give a run over the same VAE")
    return _prior(guide).model


FAMILY = LatentFamily()
