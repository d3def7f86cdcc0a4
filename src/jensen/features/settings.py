"""Settings of the classifier's training: plain values, checked when read; imports no torch."""

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class ClassifierSettings(BaseModel):
    """The training of the classifier by AdamW; the learning rate rises and falls once, images are shifted a little."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    visits: PositiveInt = 400_000
    """Maximum number of training examples over all passes; an example counts once per pass."""
    passes: PositiveInt = 60
    """Maximum number of passes over the training split, which limits the training on small data."""
    batch_size: int = Field(default=128, ge=2)
    """Examples per step."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay (AdamW)."""
    shift: float = Field(default=0.07, ge=0, le=0.5)
    """Largest random shift of an image in training, as a share of its longer side, rounded to pixels."""
