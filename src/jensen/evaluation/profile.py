"""Where the bits go: the terms of a bound over noise levels as means with standard errors, saved for each level."""

from torch import Tensor

from jensen.bound import Estimate, Profile
from jensen.data.preparation import Dequantise, Levels, Preparation, Standardise
from jensen.evaluation.measure import Measure, bits
from jensen.records import Value


class Level(Measure):
    """What a run of steps of the chain costs (5.11): L_0 is that of step 1, L_{t-1} that of step t."""

    first_step: int
    last_step: int
    log_snr: tuple[float, float]
    """At its less noisy end, infinite for the data, and at the noisier one."""
    root_mean_squared_error: float
    """Of the estimate of x_0 from x_t."""

    @property
    def width(self) -> float:
        """How much log-SNR it covers."""
        return self.log_snr[0] - self.log_snr[1]


class RatePoint(Value):
    """A point of the rate-distortion curve: how much is spent until x_t is known, how wrong x_0 is estimated then."""

    bits_per_dimension: float
    root_mean_squared_error: float


class NoiseProfile(Value):
    """Costs are positive: the nats of all levels and of the prior add up to minus the ELBO."""

    levels: tuple[Level, ...]
    """From little noise to much; the first is L_0, the reconstruction."""
    denoising: Measure
    """All levels but the first together: Σ L_{t-1}."""
    prior: Measure
    """L_T."""
    rate_distortion: tuple[RatePoint, ...]
    """From the noise to the data: to x_0 itself where that is discrete, else to x_1."""
    unit: str
    """Of the errors, in words."""


def noise_profile(profile: Profile, preparation: Preparation) -> NoiseProfile:
    """Means over the examples in both units, errors in raw units."""
    scale, unit = _unit(preparation)
    edges, last, size = profile.log_snr.tolist(), profile.last_step.tolist(), profile.steps.tolist()
    costs = [_cost(nats, preparation, reconstruction=place == 0) for place, nats in enumerate(profile.nats)]
    errors = (scale * profile.root_mean_squared_error).tolist()
    levels = tuple(
        Level(
            nats=cost.nats,
            bits_per_dimension=cost.bits_per_dimension,
            first_step=step - count + 1,
            last_step=step,
            log_snr=(edges[step - count], edges[step]),
            root_mean_squared_error=error,
        )
        for cost, step, count, error in zip(costs, last, size, errors, strict=False)
    )
    return NoiseProfile(
        levels=levels,
        denoising=_cost(profile.nats[1:-1].sum(0), preparation, reconstruction=False),
        prior=costs[-1],
        rate_distortion=_rate_distortion(profile, preparation, scale),
        unit=unit,
    )


def _cost(nats: Tensor, preparation: Preparation, reconstruction: bool) -> Measure:
    """The change of units belongs to the reconstruction, so that the bits of all terms add up as well."""
    in_bits = preparation.bits_per_dimension(-nats) if reconstruction else bits(nats, preparation)
    return Measure(nats=Estimate.of(nats), bits_per_dimension=Estimate.of(in_bits))


def _rate_distortion(profile: Profile, preparation: Preparation, scale: float) -> tuple[RatePoint, ...]:
    rate, distortion = profile.rate_distortion()
    points = tuple(
        RatePoint(bits_per_dimension=spent, root_mean_squared_error=error)
        for spent, error in zip(bits(rate, preparation).tolist(), (scale * distortion).tolist(), strict=True)
    )
    return points[:-1] if isinstance(preparation, Standardise | Dequantise) else points  # a density costs no bits


def _unit(preparation: Preparation) -> tuple[float, str]:
    """What x is multiplied by to be in raw units, and their name."""
    if isinstance(preparation, Levels | Dequantise):
        return 1 / preparation.resolution, f"raw units (0 to {preparation.levels - 1})"
    if isinstance(preparation, Standardise) and len(preparation.scale) == 1:
        return preparation.scale[0], "raw units"
    return 1.0, "standard deviations of each feature" if isinstance(preparation, Standardise) else "units of x"
