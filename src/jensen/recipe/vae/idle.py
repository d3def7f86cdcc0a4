"""Rules for settings of a VAE that have no effect, because of other settings or of the data."""

from jensen.recipe.idle import Rule

RULES = (
    Rule(("hidden",), lambda s, _: s.network == "mlp", "acts with network mlp only"),
    Rule(
        ("activation",), lambda s, _: s.network == "mlp" or s.predict != "none", "acts with network mlp or predict only"
    ),
    Rule(("channels",), lambda s, _: s.network == "convolutional", "acts with network convolutional only"),
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
