"""Where the bits go: the terms of a bound at each noise level, as means with standard errors."""

from torch import Tensor

from jensen.bound import Profile
from jensen.data.preparation import Dequantise, Levels, Preparation, Standardise
from jensen.evaluation.measure import Measure
from jensen.evaluation.units import in_bits, measure
from jensen.records import Value


class Level(Measure):
    """The cost of consecutive steps of the chain (5.11), where step 1 costs L_0 and step t >= 2 costs L_{t-1}."""

    first_step: int
    last_step: int
    log_snr: tuple[float, float]
    """log-SNR at the less noisy end (infinite for the data) and at the noisier end."""
    root_mean_squared_error: float
    """Root mean squared error of the estimate of x_0 from x_t."""

    @property
    def width(self) -> float:
        """The range of log-SNR that the level covers."""
        return self.log_snr[0] - self.log_snr[1]


class RatePoint(Value):
    """A point of the rate-distortion curve: the bits spent until x_t is known, and the error of x_0 given x_t."""

    bits_per_dimension: float
    root_mean_squared_error: float


class NoiseProfile(Value):
    """The cost of every noise level, positive; the costs of all levels and the prior add up to minus the ELBO."""

    levels: tuple[Level, ...]
    """The levels from little noise to much; the first is L_0, the reconstruction."""
    denoising: Measure
    """The sum of all levels except the first: Σ L_{t-1}."""
    prior: Measure
    """L_T."""
    rate_distortion: tuple[RatePoint, ...]
    """The curve from noise to data; it ends at x_0 for discrete data, at x_1 for a density."""
    unit: str
    """The unit of the errors, in words."""


def noise_profile(profile: Profile, preparation: Preparation, observed: Tensor) -> NoiseProfile:
    """The means of `profile` over the examples.

    The errors of x_0 are in raw units. `profile` is in nats of the raw data; `observed` is the number of observed
    values of each example.
    """
    scale, unit = _unit(preparation)
    edges, last, size = profile.log_snr.tolist(), profile.last_step.tolist(), profile.steps.tolist()
    costs = [measure(nats, observed) for nats in profile.nats]
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
        denoising=measure(profile.nats[1:-1].sum(0), observed),
        prior=costs[-1],
        rate_distortion=_rate_distortion(profile, preparation, observed, scale),
        unit=unit,
    )


def _rate_distortion(
    profile: Profile, preparation: Preparation, observed: Tensor, scale: float
) -> tuple[RatePoint, ...]:
    rate, distortion = profile.rate_distortion()
    points = tuple(
        RatePoint(bits_per_dimension=spent, root_mean_squared_error=error)
        for spent, error in zip(in_bits(rate, observed.mean()).tolist(), (scale * distortion).tolist(), strict=True)
    )
    return points[:-1] if isinstance(preparation, Standardise | Dequantise) else points  # a density costs no bits


def _unit(preparation: Preparation) -> tuple[float, str]:
    """The factor from x to raw units, and the name of these units."""
    if isinstance(preparation, Levels | Dequantise):
        return 1 / preparation.resolution, f"raw units (0 to {preparation.levels - 1})"
    if isinstance(preparation, Standardise) and len(preparation.scale) == 1:
        return preparation.scale[0], "raw units"
    return 1.0, "standard deviations of each feature" if isinstance(preparation, Standardise) else "units of x"
