"""Are imputations calibrated? Where the truth is known: coverage of intervals and a histogram of ranks.

If a true entry and its m draws are exchangeable, the entry's rank among them is uniform on 0..m. With ties, which
discrete data have, the rank is drawn among the equal ones, and a uniform number is added: u = (below + v (equal + 1)) /
(m + 1) is then exactly uniform for any m and any data (the randomised probability integral transform; Czado, Gneiting &
Held 2009). The central interval at level c covers the entry where |2 u - 1| <= c. Entries where truth and all draws are
one value are left out: whichever of them one calls the truth, they say nothing.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from jensen.bound import Estimate
from jensen.inference.imputer import ExampleNoise
from jensen.provenance import Provenance
from jensen.records import Value

LEVELS = (0.5, 0.8, 0.95)
MOST_BINS = 20
RECORD = "calibration.json"
RANKS = 100  # the purpose of the random numbers; imputers use smaller ones


class Coverage(Value):
    """The coverage of central intervals: the share of true entries inside."""

    nominal: float
    """The level of the intervals, which calibrated draws reach."""
    share: Estimate
    """The measured coverage; the standard error allows dependent entries in one example, the count is examples."""


class Calibration(Value):
    """The settings of an imputation, and the ranks of the truth among its draws; JSON both ways."""

    source: str
    """The data, in words."""
    mask: str
    """The hidden entries, in words."""
    method: str
    provenance: Provenance
    """The weights, software and command that gave the draws."""
    draws: int
    seed: int
    examples: int
    entries: int
    """The hidden entries of all examples with a known truth."""
    undecided: int
    """The entries where truth and draws are not all one value; only they count below."""
    coverage: tuple[Coverage, ...]
    ranks: tuple[Estimate, ...]
    """Shares of equally wide bins of u, which should all be 1 / their number."""

    @property
    def expected(self) -> float:
        """The share of one bin of calibrated ranks."""
        return 1 / len(self.ranks)


def rank_transform(
    draws: Float[Tensor, " draws batch *shape"], truth: Float[Tensor, " batch *shape"], noise: ExampleNoise
) -> tuple[Float[Tensor, " batch *shape"], Bool[Tensor, " batch *shape"]]:
    """u, float64, uniform on (0, 1) for exchangeable truth and draws; and whether they are not all one value."""
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    v = noise.uniform(truth.shape[1:], RANKS)
    return (below + v * (equal + 1)) / (len(draws) + 1), equal < len(draws)


def clustered_share(hits: Bool[Tensor, " batch *shape"], counted: Bool[Tensor, " batch *shape"]) -> Estimate:
    """The share of hits among the counted entries; the standard error takes only examples for independent."""
    sizes = counted.flatten(1).sum(1)
    some = sizes > 0
    return Estimate.share((hits & counted).flatten(1).sum(1)[some], sizes[some])


def calibration(
    draws: Float[Tensor, " draws batch *shape"],
    truth: Float[Tensor, " batch *shape"],
    hidden: Bool[Tensor, " batch *shape"],
    noise: ExampleNoise,
    **about: str | Provenance,
) -> Calibration:
    """Coverage and ranks of the hidden entries; `about` is the rest of the record: source, mask, method, ..."""
    u, varies = rank_transform(draws, truth, noise)
    counted = varies & hidden
    bins = min(MOST_BINS, len(draws) + 1)
    place = (u * bins).long().clamp(max=bins - 1)
    return Calibration.model_validate(
        {
            **about,
            "draws": len(draws),
            "seed": noise.seed,
            "examples": len(truth),
            "entries": int(hidden.sum()),
            "undecided": int(counted.sum()),
            "coverage": [
                Coverage(nominal=level, share=clustered_share((2 * u - 1).abs() <= level, counted)) for level in LEVELS
            ],
            "ranks": [clustered_share(place == number, counted) for number in range(bins)],
        }
    )
