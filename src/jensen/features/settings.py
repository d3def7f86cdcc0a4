"""Settings of the classifier's training: plain values, checked when read; imports no torch."""

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class ClassifierSettings(BaseModel):
    """The training of the classifier: AdamW, a learning rate that rises and falls once, images shifted a little."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    visits: PositiveInt = 400_000
    """The most training examples in all, counted once per pass."""
    passes: PositiveInt = 60
    """The most passes over the training split; the limit for small data."""
    batch_size: int = Field(128, ge=2)
    """Examples per step."""
    learning_rate: float = Field(4e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay (AdamW)."""
    shift: float = Field(0.07, ge=0, le=0.5)
    """Images are shifted at random by up to this share of their longer side, rounded to pixels."""
