"""How to evaluate: plain values, checked when read; imports no torch, so that the command line's help is instant."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt


class EvaluationSettings(BaseModel):
    """How much is drawn, and for how many examples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    draws: int | None = Field(None, ge=2)
    """Draws per example for the ELBO; its error falls with their square root. None: 16 of a VAE, 2 of diffusion."""
    samples: PositiveInt = 1000
    """Monte-Carlo samples per example for the further bounds: the K of L_K."""
    examples: PositiveInt | None = None
    """Examples for the ELBO, spread evenly over the data; None: all."""
    further_examples: PositiveInt | None = None
    """Examples for the further bounds, which cost more, spread evenly. None: 500 of a VAE, 50 of diffusion."""
    seed: NonNegativeInt = 0
    """The seed of everything drawn; an example's score depends on the seed and its number alone."""
    batch_size: PositiveInt = 500
    """Examples scored at once; changes memory and speed, never a number."""

    def completed(self, draws: int, further_examples: int) -> Self:
        """With these where they were left open."""
        open_ = {"draws": draws, "further_examples": further_examples}
        return self.model_copy(update={name: value for name, value in open_.items() if getattr(self, name) is None})


class RefereeSettings(BaseModel):
    """How the estimates of log p(x) are compared with each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    referee_examples: PositiveInt | None = None
    """With --referee: examples, spread evenly. None: 100 of a VAE, 20 of diffusion."""
    temperatures: PositiveInt = 200
    """With --referee, VAE: steps of annealed importance sampling; the more, the closer to log p(x)."""
    chains: PositiveInt = 16
    """With --referee, VAE: its chains per example."""
    temperatures_from_q: NonNegativeInt = 0
    """With --referee, VAE: steps of a second one that starts at q(z|x) instead of the prior; 0: none."""
    simulated: NonNegativeInt = 0
    """With --referee, VAE: examples drawn from the model, whose log p(x) is bounded from below and from above."""
