"""The options of augmentation. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AugmentOptions(BaseModel):
    """Random changes of the training examples; validation, evaluation and bounds use examples as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    flip: Literal["none", "horizontal", "vertical", "all"] = "none"
    """Mirror training examples along the last axis (horizontal), the axis before it (vertical), or each axis (all)."""

    shift: float = Field(default=0.0, ge=0, le=0.5)
    """Move training examples by whole pixels, along each axis by at most this share of the side; edges are mirrored."""

    crop: float = Field(default=0.0, ge=0, le=0.9)
    """Cut at most this share off the height and width of training images, and resize the rest to the whole size."""

    jitter: float = Field(default=0.0, ge=0, le=1)
    """Change brightness, contrast and saturation of training images of integers, each by at most this share."""

    gain: float = Field(default=0.0, ge=0, lt=1)
    """Multiply the deviations of training signals and volumes from their means by 1 - gain to 1 + gain."""

    probability: float = Field(default=0.5, gt=0, lt=1)
    """Probability of each kind of change per example and step. At 0.5, flips are as frequent as the original."""
