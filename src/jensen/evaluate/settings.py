"""How to evaluate: plain values, checked when read; imports no torch, so that the command line's help is instant."""

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt


class EvaluationSettings(BaseModel):
    """How much is drawn, and for how many examples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    draws: int = Field(16, ge=2)
    """Draws from q per example for the ELBO; its Monte-Carlo error falls with their square root."""
    samples: PositiveInt = 1000
    """Monte-Carlo samples per example for the further bounds: the K of L_K."""
    examples: PositiveInt | None = None
    """Examples for the ELBO, spread evenly over the data; None: all."""
    further_examples: PositiveInt = 500
    """Examples for the further bounds, spread evenly over those: they cost much more."""
    seed: NonNegativeInt = 0
    """The seed of everything drawn; an example's score depends on the seed and its number alone."""
    batch_size: PositiveInt = 500
    """Examples scored at once; changes memory and speed, never a number."""
