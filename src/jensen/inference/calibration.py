"""Calibration of imputations with a known truth: coverage of intervals and a histogram of ranks.

If a true entry and its m draws are exchangeable, the rank of the entry among the draws is uniform on 0..m. Discrete
data have ties, so the rank is drawn at random among the equal values, and a uniform number v is added. Then u = (below
+ v (equal + 1)) / (m + 1) is exactly uniform for any m and any data (the randomised probability integral transform;
Czado, Gneiting & Held 2009). The central interval at level c covers the entry if |2 u - 1| <= c. An entry whose draws
all equal the truth is left out, because its u is uniform for any model.
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
RANKS = 100  # the purpose of the random numbers of ranks; imputers use smaller numbers


class Coverage(Value):
    """The coverage of central intervals: the share of true entries inside."""

    nominal: float
    """The level of the intervals, the coverage of calibrated draws."""
    share: Estimate
    """The measured coverage. Its standard error allows for dependent entries in an example; its count is examples."""


class Calibration(Value):
    """The settings of an imputation, and the ranks of the truth among the draws; converts to JSON and back."""

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
    """The number of entries whose truth and draws are not all equal; `coverage` and `ranks` are over these entries."""
    coverage: tuple[Coverage, ...]
    ranks: tuple[Estimate, ...]
    """Shares of equally wide bins of u; for calibrated draws all shares are equal."""

    @property
    def expected(self) -> float:
        """The share of ranks in one bin that calibrated draws would have."""
        return 1 / len(self.ranks)


def rank_transform(
    draws: Float[Tensor, " draws batch *shape"], truth: Float[Tensor, " batch *shape"], noise: ExampleNoise
) -> tuple[Float[Tensor, " batch *shape"], Bool[Tensor, " batch *shape"]]:
    """u, float64, uniform on (0, 1) for exchangeable truth and draws; and a mask of entries whose values differ."""
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    v = noise.uniform(truth.shape[1:], RANKS)
    return (below + v * (equal + 1)) / (len(draws) + 1), equal < len(draws)


def clustered_share(hits: Bool[Tensor, " batch *shape"], counted: Bool[Tensor, " batch *shape"]) -> Estimate:
    """The share of hits among the counted entries; the standard error assumes independent examples, not entries."""
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
