"""Rules for settings of a VAE that have no effect, because of other settings or of the data."""

from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.recipe.idle import Rule
from jensen.recipe.vae.settings import LADDERS, VAESettings


def network_by_data(settings: VAESettings, spec: DataSpec) -> str:
    """The network, with auto replaced by the choice for the data; `VAESettings.network` says which.

    Raises `InputError` for a table with another network, and for other data with network table.
    """
    if (settings.network == "table") != (spec.table is not None) and settings.network != "auto":
        raise InputError(
            f"network {settings.network} for {'a table' if spec.table else f'examples of shape {spec.shape}'}: it is "
            f"for {'tables only' if settings.network == 'table' else 'data of other kinds'}; leave it out"
        )
    if spec.table is not None:
        return "table"
    if settings.network != "auto":
        return settings.network
    if settings.groups is not None:
        return "ladder"
    return "mlp" if len(spec.shape) < 2 or settings.hidden is not None else "convolutional"


def _mlp(settings: VAESettings, spec: DataSpec) -> bool:
    return network_by_data(settings, spec) == "mlp"


def _convolutional(settings: VAESettings, spec: DataSpec) -> bool:
    return network_by_data(settings, spec) in ("convolutional", "convolutional-ladder")


def _table(settings: VAESettings, spec: DataSpec) -> bool:
    return spec.table is not None


def _groups(settings: VAESettings, spec: DataSpec) -> bool:
    return network_by_data(settings, spec) in LADDERS


def _not_table(settings: VAESettings, spec: DataSpec) -> bool:
    return spec.table is None


RULES = (
    Rule(("hidden",), _mlp, "acts with network mlp only"),
    Rule(
        ("activation",), lambda s, spec: _mlp(s, spec) or s.predict != "none", "acts with network mlp or predict only"
    ),
    Rule(
        ("channels", "blocks", "patch", "latent_channels"),
        _convolutional,
        "acts with convolutional networks only",
    ),
    Rule(
        ("width", "depth"),
        lambda s, spec: network_by_data(s, spec) in ("table", "ladder"),
        "acts with network table or ladder only",
    ),
    Rule(
        ("groups",),
        lambda s, spec: network_by_data(s, spec) in ("ladder", "gated-ladder"),
        "acts with network ladder or gated-ladder only",
    ),
    Rule(
        ("level_groups",),
        lambda s, spec: network_by_data(s, spec) == "convolutional-ladder",
        "acts with network convolutional-ladder only",
    ),
    Rule(("kl_balance",), _groups, "acts with a ladder only"),
    Rule(("latent_dims",), lambda s, spec: not _groups(s, spec), "is the size of a single group; give groups"),
    Rule(("prior_components",), lambda s, _: s.prior in ("vamp", "mixture"), "acts with prior vamp or mixture only"),
    Rule(("prior_couplings",), lambda s, _: s.prior == "flow", "acts with prior flow only"),
    Rule(
        ("components",),
        lambda s, spec: (
            s.likelihood == "logistic-mixture"
            or (spec.table is not None and any(f.law in ("whole", "real") for f in spec.table.fields))
        ),
        "acts with likelihood logistic-mixture, and on columns of whole or real numbers of a table, only",
    ),
    Rule(
        ("missing_cells",),
        lambda _, spec: spec.table is not None and spec.missing > 0,
        "acts on tables with missing cells",
    ),
    Rule(("likelihood",), _not_table, "a table has a law for each column, which --columns changes"),
    Rule(("posterior",), _not_table, "a table needs an encoder; choose amortised"),
    Rule(
        ("prior",),
        lambda s, spec: spec.table is None or s.prior != "vamp",
        "vamp needs x without categories; choose mixture",
    ),
    Rule(("predict",), _not_table, "every column of a table is part of x, and p(column | others) needs no target"),
    Rule(("variance",), _not_table, "a table has a law for each column"),
    Rule(("binarisation",), lambda s, _: s.likelihood == "bernoulli", "acts with likelihood bernoulli only"),
    Rule(
        ("variance",),
        lambda s, _: s.likelihood not in ("bernoulli", "categorical", "logistic-mixture") or s.predict == "target",
        "acts only on a likelihood with a scale to choose; choose likelihood gaussian, or a discretised one",
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
