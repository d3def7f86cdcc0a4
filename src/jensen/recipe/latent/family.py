"""The family of latent diffusion models, as commands use it."""

import copy
from collections.abc import Iterator

import torch

from jensen.compression.codec import AbstractCodec
from jensen.data.options import PreparationName
from jensen.data.spec import DataSpec
from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.inference.imputer import AbstractImputer
from jensen.latent import DiffusionPrior
from jensen.model import AbstractLatentVariableModel
from jensen.recipe.diffusion.family import FAMILY as DIFFUSION
from jensen.recipe.diffusion.idle import RULES as OF_DIFFUSION
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.recipe.family import AbstractFamily, ImputationWish, Sampling, SamplingWish
from jensen.recipe.idle import Table
from jensen.recipe.latent.build import build_latent, completed_vae, latent_spec
from jensen.recipe.latent.settings import LatentRecipe
from jensen.recipe.latent.words import WORDS
from jensen.recipe.vae.family import FAMILY as AUTOENCODER
from jensen.recipe.vae.idle import RULES as OF_VAE
from jensen.recipe.vae.settings import VAERecipe
from jensen.vae import VAE


class LatentFamily(AbstractFamily[LatentRecipe, VAE]):
    """VAEs with a diffusion prior."""

    words = WORDS
    conditional_advice = "without --prior.no-conditional"

    def tables(self, recipe: LatentRecipe, spec: DataSpec) -> Iterator[Table]:
        """The settings of the VAE and, for data like z, those of the prior."""
        settings = recipe.model
        yield Table(settings.vae, OF_VAE, spec, "vae.")
        yield Table(settings.prior, OF_DIFFUSION, latent_spec(completed_vae(settings.vae, spec), spec), "prior.")

    def preparation(self, recipe: LatentRecipe, levels: int | None) -> PreparationName:
        """The preparation of the VAE."""
        return AUTOENCODER.preparation(VAERecipe(model=recipe.model.vae), levels)

    def build(self, recipe: LatentRecipe, spec: DataSpec) -> VAE:
        return build_latent(recipe, spec)

    def check_data(self, recipe: LatentRecipe, spec: DataSpec) -> None:
        """Warns about continuous targets, which the model does not learn."""
        DIFFUSION.check_data(DiffusionRecipe(data=recipe.data), spec)

    def check_processes(self, recipe: LatentRecipe, count: int, device: str) -> None:
        """Refuses what the VAE refuses, and sharded weights, of which each stage trains only a part."""
        AUTOENCODER.check_processes(VAERecipe(model=recipe.model.vae), count, device)
        if count > 1 and recipe.training.sharding != "none":
            raise InputError(
                f"sharding {recipe.training.sharding} with a latent model: each stage trains only some of the weights; "
                "choose sharding none"
            )

    def sampling(self, model: VAE, recipe: LatentRecipe, wish: SamplingWish) -> Sampling[VAE]:
        """Any sampler, number of steps and guidance of the prior."""
        prior = _prior(model)
        of_prior = DiffusionRecipe(model=recipe.model.prior)
        guide = None if wish.guide is None else _same_latents(model, wish.guide)
        found = DIFFUSION.sampling(prior.model, of_prior, SamplingWish(wish.sampler, wish.steps, wish.guidance, guide))
        wished = copy.copy(prior)  # shares the weights
        wished._modules = {**prior._modules, "model": found.model}
        return Sampling(model.with_prior(wished), found.sampler, found.steps, found.guidance, found.guide)

    def imputer(self, wish: ImputationWish) -> AbstractImputer:
        """None: the VAE's imputers weigh z by log p(z), of which the prior has only a bound."""
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
