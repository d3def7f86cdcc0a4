"""Rules for settings of a diffusion model that have no effect, because of other settings or of the data."""

from jensen.data.spec import DataSpec
from jensen.recipe.diffusion.settings import DiffusionSettings
from jensen.recipe.idle import Rule


def _network(settings: DiffusionSettings, spec: DataSpec) -> str:
    """The network, with auto replaced by the choice of `build_diffusion`."""
    if settings.imported and settings.imported.network:
        return "imported"
    return settings.network if settings.network != "auto" else "mlp" if len(spec.shape) < 2 else "unet"


RULES = (
    Rule(
        ("widths", "blocks", "attention"),
        lambda s, spec: _network(s, spec) == "unet",
        "acts with network unet only",
    ),
    Rule(
        ("octaves",),
        lambda s, spec: s.octaves == 0 or _network(s, spec) == "unet",  # other networks have none, so 0 is true of them
        "acts with network unet only",
    ),
    Rule(("patch",), lambda s, spec: _network(s, spec) != "mlp", "acts with network unet or transformer only"),
    Rule(("width", "depth"), lambda s, spec: _network(s, spec) != "unet", "acts with network transformer or mlp only"),
    Rule(
        ("log_snr_range",),
        lambda s, _: s.noise_schedule in ("linear-log-snr", "learned"),
        "acts with noise_schedule linear-log-snr or learned only",
    ),
    Rule(
        ("sigma_data", "skip"),
        lambda s, _: "edm" in (s.parameterisation, s.objective),
        "acts with parameterisation edm or objective edm only",
    ),
    Rule(("noise_schedule",), lambda s, _: s.imported is None, "does not act on an imported chain"),
    Rule(("noise_mean", "noise_deviation"), lambda s, _: s.objective == "edm", "acts with objective edm only"),
    Rule(
        ("label_dropout",),
        lambda s, spec: s.conditional and spec.classes is not None,
        "acts only on a model with labels; give labelled data, without --no-conditional",
    ),
)
