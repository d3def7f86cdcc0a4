"""Settings of an evaluation: plain values, validated when read. No torch, so that `jensen --help` is instant."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt


class EvaluationSettings(BaseModel):
    """Numbers of draws and of examples in an evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    draws: int | None = Field(default=None, ge=2)
    """Draws per example for the ELBO; its standard error falls as 1/sqrt(draws). None: 16 (VAE) or 2 (diffusion)."""
    samples: PositiveInt = 1000
    """K of L_K: the number of draws per example for importance-weighted bounds."""
    examples: PositiveInt | None = None
    """Number of examples for the ELBO, evenly spread over the data. None: all examples."""
    further_examples: PositiveInt | None = None
    """Number of examples for the more expensive bounds, evenly spread. None: 500 for a VAE, 50 for diffusion."""
    seed: NonNegativeInt = 0
    """Seed of all draws. An example's score depends only on the seed and on the example's number."""
    batch_size: PositiveInt = 500
    """Examples per batch. The value changes memory and speed, never a result."""

    def completed(self, draws: int, further_examples: int) -> Self:
        """The settings with `draws` and `further_examples` in place of None."""
        open_ = {"draws": draws, "further_examples": further_examples}
        return self.model_copy(update={name: value for name, value in open_.items() if getattr(self, name) is None})


class RefereeSettings(BaseModel):
    """Settings of the comparison of all estimates of log p(x)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    referee_examples: PositiveInt | None = None
    """With --referee: number of examples, evenly spread. None: 100 for a VAE, 20 for diffusion."""
    temperatures: PositiveInt = 200
    """With --referee, VAE: steps of annealed importance sampling. More steps bring the estimate closer to log p(x)."""
    chains: PositiveInt = 16
    """With --referee, VAE: number of chains of annealed importance sampling per example."""
    temperatures_from_q: NonNegativeInt = 0
    """With --referee, VAE: steps of a second annealed estimate, from q(z|x) instead of the prior. 0: no second one."""
    simulated: NonNegativeInt = 0
    """With --referee, VAE: samples of the model for which log p(x) is bounded from below and above. 0: none."""
