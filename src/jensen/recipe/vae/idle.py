"""Rules for settings of a VAE that have no effect, because of other settings or of the data."""

from jensen.data.spec import DataSpec
from jensen.recipe.idle import Rule
from jensen.recipe.vae.settings import VAESettings


def network_by_data(settings: VAESettings, spec: DataSpec) -> str:
    """The network, with auto replaced: mlp for vectors and if `hidden` is given, else convolutional."""
    if settings.network != "auto":
        return settings.network
    return "mlp" if len(spec.shape) < 2 or settings.hidden is not None else "convolutional"


def _mlp(settings: VAESettings, spec: DataSpec) -> bool:
    return network_by_data(settings, spec) == "mlp"


def _convolutional(settings: VAESettings, spec: DataSpec) -> bool:
    return not _mlp(settings, spec)


RULES = (
    Rule(("hidden",), _mlp, "acts with network mlp only"),
    Rule(
        ("activation",), lambda s, spec: _mlp(s, spec) or s.predict != "none", "acts with network mlp or predict only"
    ),
    Rule(("channels", "blocks", "patch", "latent_channels"), _convolutional, "acts with network convolutional only"),
    Rule(("binarisation",), lambda s, _: s.likelihood == "bernoulli", "acts with likelihood bernoulli only"),
    Rule(
        ("variance",),
        lambda s, _: s.likelihood not in ("bernoulli", "categorical") or s.predict == "target",
        "acts only on a likelihood with a scale; choose likelihood gaussian, or a discretised one",
    ),
    Rule(("fixed_scale",), lambda s, _: s.variance == "fixed", "acts with variance fixed only"),
    Rule(
        ("importance_samples",),
        lambda s, _: s.objective != "elbo",
        "acts with objective importance-weighted or doubly-reparameterised only",
    ),
    Rule(
        ("predict_hidden",),
        lambda s, _: s.predict != "none",
        "acts with predict label or target only",
    ),
)
