"""The family of variational autoencoders, as commands use it."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from jensen.compression.latent import VAECodec
from jensen.data.options import PreparationName
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.inference.impute_vae import ImportanceResampling, MetropolisWithinGibbs
from jensen.inference.imputer import AbstractImputer
from jensen.recipe.family import AbstractFamily, ImputationWish, Sampling, SamplingWish, heeded, refuse
from jensen.recipe.start import matched_rows
from jensen.recipe.vae.build import build_vae, explicit
from jensen.recipe.vae.idle import RULES
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.recipe.vae.table import table_model, table_training
from jensen.recipe.vae.words import WORDS
from jensen.vae import VAE

METHODS = {"gibbs": ("sweeps", "samples"), "importance": ("samples",)}
OF_TABLES = {"importance": ("samples",)}
TABLE_SAMPLES = 200  # default number of proposals; those of the encoder of parts are good, so few are enough


class VAEFamily(AbstractFamily[VAERecipe, VAE]):
    """Variational autoencoders."""

    words = WORDS
    conditional_advice = "with --predict label"
    idle_rules = RULES
    of_examples = ("posterior.table.*",)
    anneals = True

    def preparation(self, recipe: VAERecipe, levels: int | None) -> PreparationName:
        """The preparation for the likelihood: binary for bernoulli, a density for gaussian, else the grid of levels."""
        likelihood = recipe.model.likelihood
        if likelihood == "bernoulli":
            return recipe.model.binarisation
        if likelihood == "gaussian":
            return "standardise" if levels is None else "dequantise"
        if levels is not None:
            return "levels"
        if likelihood != "auto":
            raise InputError(
                f"likelihood {likelihood} is for integers, but the data are floats; choose likelihood gaussian"
            )
        return "standardise"

    def explicit(self, recipe: VAERecipe, spec: DataSpec) -> VAESettings:
        return explicit(recipe.model, spec)

    def suited(self, recipe: VAERecipe, spec: DataSpec) -> VAERecipe:
        """For a table, the number of steps, the size of a batch, the patience and the KL's warm-up by its rows."""
        if spec.table is None:
            return recipe
        training = table_training(recipe.training, spec)
        # The number of steps in `minutes` is not known yet, and trained weights need no warm-up
        unwarmed = training.minutes is not None or recipe.start_from is not None
        model = recipe.model if unwarmed else table_model(recipe.model, training.steps)
        return recipe.model_copy(update={"training": training, "model": model})

    def adapted(
        self,
        weights: dict[str, Tensor],
        own: Mapping[str, Tensor],
        recipes: tuple[VAERecipe, VAERecipe],
        classes: Sequence[int | None],
    ) -> dict[str, Tensor]:
        """The last layer of p(y|z) keeps the rows of known classes; for another kind of y, p(y|z) starts anew."""
        before, after = (recipe.model.predict for recipe in recipes)
        rest = {name: tensor for name, tensor in weights.items() if not name.startswith("target.")}
        fresh = {name: tensor for name, tensor in own.items() if name.startswith("target.")}
        if before != after:
            return rest | fresh
        if after == "label":
            last = f"target.network.layers.{len(recipes[1].model.predict_hidden)}"
            return weights | {
                name: matched_rows(weights[name], classes, own[name]) for name in (f"{last}.weight", f"{last}.bias")
            }
        return weights

    def build(self, recipe: VAERecipe, spec: DataSpec) -> VAE:
        return build_vae(recipe.model, spec)

    def check_processes(self, recipe: VAERecipe, count: int, device: str) -> None:
        """Refuses settings about a whole batch, and sparse gradients (posterior per-datapoint) on GPUs."""
        if count == 1:
            return
        if recipe.model.free_bits or recipe.model.kl_balance:
            name = "free_bits" if recipe.model.free_bits else "kl_balance"
            raise InputError(f"{name} on {count} processes: it needs the mean of a whole batch; train with one")
        if recipe.model.posterior == "per-datapoint" and (recipe.training.sharding != "none" or device == "cuda"):
            raise InputError(
                f"posterior per-datapoint on {count} processes: its sparse gradients can be averaged only on CPUs with "
                "sharding none; choose both, or posterior amortised"
            )

    def sampling(self, model: VAE, recipe: VAERecipe, wish: SamplingWish) -> Sampling[VAE]:
        """Ancestral sampling, which has no options."""
        refuse(wish, recipe.family)
        return Sampling(model)

    def imputer(self, wish: ImputationWish, spec: DataSpec) -> AbstractImputer:
        """`gibbs`, which is asymptotically exact, or `importance`; of tables only `importance`, by their encoder."""
        if spec.table is not None:
            _, given = heeded(wish, OF_TABLES, "vae, of a table,")
            return ImportanceResampling(given.get("samples", TABLE_SAMPLES))
        method, given = heeded(wish, METHODS, "vae")
        start = ImportanceResampling(**({"samples": given["samples"]} if "samples" in given else {}))
        if method == "importance":
            return start
        return MetropolisWithinGibbs(**({"sweeps": given["sweeps"]} if "sweeps" in given else {}), start=start)

    def codec(self, model: VAE, steps: int | None) -> VAECodec:
        """Bits-back coding with z, which has no steps."""
        if steps is not None:
            raise InputError("--steps is for diffusion models, but this is a variational autoencoder; leave it out")
        return VAECodec(model)

    def advice_on_wide_intervals(self, recipe: VAERecipe) -> str:
        """Advice to train by L_K: the ELBO makes p(y|x) too wide, and a larger K makes p(y|x) narrower."""
        return "--objective importance-weighted --importance-samples 20" if recipe.model.objective == "elbo" else ""


FAMILY = VAEFamily()
