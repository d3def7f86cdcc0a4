"""Rules for settings of a latent model that have no effect; the rules of its two parts are those of their families."""

from jensen.recipe.idle import Rule

RULES = (
    Rule(
        ("kl_weight",),
        lambda s, _: s.vae.objective == "elbo",
        "acts with vae.objective elbo only",
    ),
)
