"""The fields of the recipe of latent diffusion. Imports no torch."""

from typing import Annotated, Literal, Self

import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from jensen.recipe.diffusion.settings import DiffusionSettings, DiffusionTraining
from jensen.recipe.settings import AbstractRecipe
from jensen.recipe.vae.settings import VAESettings

SHARE = 0.4  # of all steps: default length of the first stage


class LatentSettings(BaseModel):
    """Latent diffusion: a VAE, and a diffusion model as the prior of its z."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vae: Annotated[VAESettings, tyro.conf.arg(prefix_name=False)] = VAESettings()
    """The VAE, trained in the first stage."""
    prior: Annotated[DiffusionSettings, tyro.conf.arg(prefix_name=False)] = DiffusionSettings()
    """The diffusion model of z, trained in the second stage."""
    vae_steps: tyro.conf.OmitArgPrefixes[NonNegativeInt | None] = None
    """Number of steps of the first stage, which trains the VAE with the prior N(0, I). None: 40 % of all steps, or 0
    if training starts from a VAE (--from)."""
    prior_steps: tyro.conf.OmitArgPrefixes[PositiveInt | None] = None
    """Number of steps of the second stage, which trains the prior on draws of z with the VAE fixed. None: all other
    steps. All further steps are a third stage, which trains both together by the bound on log p(x)."""
    kl_weight: tyro.conf.OmitArgPrefixes[float] = Field(default=1.0, ge=0)
    """Weight of the KL in the first stage. Below 1, z keeps more of x, and the prior has more to learn."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        vae = self.vae
        if vae.posterior != "amortised":
            raise ValueError(f"vae.posterior {vae.posterior}: the prior needs N(z|x) of any example; choose amortised")
        if vae.prior != "standard":
            raise ValueError(f"vae.prior {vae.prior}: the prior of a latent model is its diffusion model; leave it out")
        if vae.hierarchical:
            raise ValueError("vae.network ladder: a diffusion prior is for a single group of z; choose another network")
        if vae.predict != "none":
            raise ValueError(
                f"vae.predict {vae.predict}: a latent model predicts labels by its prior p(z|label); leave it at none"
            )
        if vae.objective != "elbo" and self.kl_weight != 1:
            raise ValueError(f"kl_weight {self.kl_weight} belongs to vae.objective elbo; leave it at 1")
        return self


class LatentRecipe(AbstractRecipe):
    """A latent diffusion model, its data and its training."""

    family: Annotated[Literal["latent"], tyro.conf.Suppress] = "latent"
    model: LatentSettings = LatentSettings()
    """The model."""
    training: tyro.conf.OmitArgPrefixes[DiffusionTraining] = DiffusionTraining()
    """The training loop, over all stages."""

    @property
    def vae_steps(self) -> int:
        """The number of steps of the first stage."""
        given = self.model.vae_steps
        return max(1, round(SHARE * self.training.steps)) if given is None else given

    def settled(self) -> Self:
        """The recipe with the length of the first stage as a number, so that it stays if the training is prolonged."""
        return self.model_copy(update={"model": self.model.model_copy(update={"vae_steps": self.vae_steps})})

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        first, steps = self.vae_steps, self.training.steps
        unplanned = self.training.minutes is not None  # the plan sets the number of steps, and then it is checked
        if first >= steps and not unplanned:
            raise ValueError(
                f"vae_steps {first} of steps {steps}: no step is left for the prior; give more steps or a shorter stage"
            )
        if self.model.prior_steps is not None and first + self.model.prior_steps > steps and not unplanned:
            raise ValueError(
                f"vae_steps {first} and prior_steps {self.model.prior_steps} of steps {steps}: give more steps or "
                "shorter stages"
            )
        if self.model.vae.free_bits and self.training.micro_batch_size:
            raise ValueError("vae.free_bits is about the mean of a whole batch; leave training.micro_batch_size out")
        return self
