"""The fields of a VAE's recipe. Imports no torch."""

from typing import Annotated, Literal, Self

import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from jensen.data.augment_options import AugmentOptions
from jensen.recipe.settings import AbstractRecipe, Size

Likelihood = Literal[
    "auto", "gaussian", "bernoulli", "discretised-gaussian", "discretised-logistic", "logistic-mixture", "categorical"
]

LADDERS = ("ladder", "gated-ladder", "convolutional-ladder")
"""The networks of hierarchies."""


class VAESettings(BaseModel):
    """The variational autoencoder."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    latent_dims: Size | None = None
    """Number of dimensions of the latent variable z. None: by the data's size and number of examples."""
    latent_channels: Size | None = None
    """Channels of a spatial z, which has a place for each position of the coarsest level (network convolutional), or of
    each group of a convolutional-ladder. None: 4 for a ladder, else z is flat."""
    network: Literal["auto", "mlp", "convolutional", "table", "ladder", "gated-ladder", "convolutional-ladder"] = "auto"
    """Network of the encoder and the decoder. table: the rows of a table, convolutional: images, signals and volumes.
    ladder: a hierarchy of groups of latent variables, which are vectors. convolutional-ladder: the groups are maps of
    `latent_channels` at several resolutions. gated-ladder: the two groups of the VampPrior's paper.
    auto: table for tables, ladder if `groups` is given, mlp for vectors or if `hidden` is given, else convolutional."""
    groups: tuple[Size, ...] | None = Field(default=None, min_length=1)
    """Number of latent dimensions of each group of a hierarchy, from the top group down (ladder). None: by the data."""
    level_groups: tuple[Size, ...] | None = Field(None, min_length=1)
    """Number of groups of each level of `channels`, coarsest level first (convolutional-ladder). None: 2 of each."""
    width: Size | None = None
    """Width of the residual blocks (table, ladder). None: by the number of examples and of columns; ladder: 256."""
    depth: int = Field(default=2, ge=1, le=1000)
    """Number of residual blocks of the encoder and of the decoder (table), or of each group of both (ladder)."""
    components: int = Field(default=5, ge=1, le=1000)
    """Number of components of the mixtures p(x_j|z) of numbers (table) or of pixels (likelihood logistic-mixture)."""
    missing_cells: Literal["generate", "ignore"] = "generate"
    """A missing cell (table). generate: it is a value, which the model generates with a probability and which counts in
    log p(x). ignore: log p(x) is about the observed cells only."""
    hidden: tuple[Size, ...] | None = None
    """Widths of the encoder's hidden layers (mlp), data side first; the decoder mirrors them. Empty: no hidden layer.
    None: 200 200."""
    activation: Literal["tanh", "relu", "gelu", "silu"] = "tanh"
    """Activation function of the MLP."""
    channels: tuple[Size, ...] | None = Field(default=None, min_length=1)
    """Channels of the convolutional levels, finest level first; each level halves the resolution. None: by the data."""
    blocks: int = Field(default=1, ge=1, le=1000)
    """Number of residual blocks per level (convolutional) or per group (convolutional-ladder)."""
    patch: Size | None = None
    """Patch side in pixels, folded into channels (convolutional). None: by the data."""
    likelihood: Likelihood = "auto"
    """Distribution p(x|z). auto: discretised-logistic for integers, gaussian for floats, and for tables a law for each
    column. bernoulli: x is binarised. logistic-mixture: pixels have mixtures whose channels depend on each other."""
    binarisation: Literal["threshold", "static", "dynamic"] = "dynamic"
    """Binarisation for likelihood bernoulli: a threshold, one draw for all visits (static), or one per visit (dynamic).
    Bounds on differently binarised data cannot be compared."""
    variance: Literal["learned", "per-dimension", "shared", "fixed"] = "learned"
    """Scale of p(x|z): a function of z (learned), one number per dimension, one shared number, or `fixed_scale`.
    Scale of targets: a function of z if learned, else one number per dimension."""
    fixed_scale: float = Field(default=1.0, gt=0)
    """Scale of p(x|z) if variance is fixed."""
    prior: Literal["standard", "vamp", "mixture", "flow"] = "standard"
    """p(z), of a hierarchy that of its top group: N(0, I), a mean of q(z|x) over learned pseudo-inputs x (vamp), a
    mixture of normals, or a flow of affine couplings. All but standard are learned together with the model."""
    prior_components: Size = 500
    """Number of components of the prior (vamp, mixture)."""
    prior_couplings: Size = 6
    """Number of couplings of the prior (flow)."""
    posterior: Literal["amortised", "full-covariance", "per-datapoint"] = "amortised"
    """Approximate posterior q(z): the output of an encoder, also with a full covariance, or free parameters for every
    training example."""
    objective: Literal["elbo", "importance-weighted", "doubly-reparameterised"] = "elbo"
    """Training objective: the ELBO, or L_K with the plain or the doubly reparameterised gradient."""
    importance_samples: Size = 5
    """K of L_K, the number of draws of z per example in training (not for objective elbo)."""
    kl_warmup_steps: NonNegativeInt = 0
    """Number of initial steps in which the weight of the KL rises from 0 to 1 (elbo objective only)."""
    free_bits: float = Field(default=0.0, ge=0)
    """KL in nats per latent dimension, or per group of a hierarchy, below which training does not reduce the KL (elbo
    objective only)."""
    kl_balance: bool = False
    """During the warm-up of the KL, weight the KL of each group by its share (ladder)."""
    fit_steps: Size = 300
    """Optimisation steps that fit q to new data while theta is fixed (per-datapoint posterior, amortisation gap)."""
    predict: Literal["none", "label", "target"] = "none"
    """Predict y as well: labels, or targets (a y of floats). The model is then p(x, y) and also gives p(y|x)."""
    predict_hidden: tuple[Size, ...] = (64,)
    """Widths of the hidden layers of the network from z to y (predict). Empty: no hidden layer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.objective != "elbo" and (self.kl_warmup_steps or self.free_bits):
            raise ValueError("kl_warmup_steps and free_bits belong to objective elbo; leave them at 0")
        if self.latent_dims is not None and self.latent_channels is not None:
            raise ValueError("latent_dims is the size of a flat z, latent_channels of a spatial z; give one of them")
        if self.prior != "standard" and not self.hierarchical and self.free_bits:
            raise ValueError(
                f"free_bits needs the KL of each dimension, and prior {self.prior} has none; leave it at 0"
            )
        if self.prior == "vamp" and self.posterior != "amortised":
            raise ValueError("prior vamp is a mean of the encoder's q(z|x); choose posterior amortised")
        if self.hierarchical and self.posterior == "full-covariance":
            raise ValueError("posterior full-covariance is for a single group; a ladder has dependent groups itself")
        if self.kl_balance and not (self.hierarchical and self.kl_warmup_steps):
            raise ValueError("kl_balance acts on the groups of a ladder during kl_warmup_steps; give both")
        return self

    @property
    def hierarchical(self) -> bool:
        """Whether z has groups."""
        return self.network in LADDERS or (self.network == "auto" and self.groups is not None)


class VAERecipe(AbstractRecipe):
    """A variational autoencoder, its data and its training."""

    family: Annotated[Literal["vae"], tyro.conf.Suppress] = "vae"
    model: tyro.conf.OmitArgPrefixes[VAESettings] = VAESettings()
    """The model."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.model.free_bits or self.model.kl_balance) and self.training.micro_batch_size:
            name = "free_bits" if self.model.free_bits else "kl_balance"
            raise ValueError(f"{name} is about the mean of a whole batch; leave training.micro_batch_size out")
        if self.model.posterior == "per-datapoint" and self.training.augment != AugmentOptions():
            raise ValueError(
                "training.augment changes an example at every visit, but posterior per-datapoint has one q for all "
                "visits; choose posterior amortised, or leave training.augment out"
            )
        return self
