"""How a raw batch becomes the model's float32 input and back, and what its nats mean in bits per dimension.

Every preparation is a frozen value that is written into the run; `prepare_data` (in `choose`) makes one from data.
"""

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from jensen.randomness import Noise, content_uniforms

DataType = Literal["uint8", "uint16", "float32"]

FRACTION_BITS = 15
"""Of the uniform noise of dequantisation; fewer where levels need more than 8, so that float32 holds both exactly."""


class Preparation(BaseModel, ABC):
    """What turns raw examples (B, ...) into model input x, float32 of the same shape, and back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    """Its name, as --preparation gives it."""

    dtype: DataType
    """Of the raw data."""

    levels: int | None
    """Raw integers are 0 to levels - 1; None for floats."""

    dimensions: int = Field(gt=0)
    """D, the numbers in one example."""

    resolution: float = Field(gt=0)
    """The smallest meaningful distance between two values of x."""

    deterministic: ClassVar[bool] = True
    """Whether the same raw batch always gives the same x, so that no noise is needed."""

    @abstractmethod
    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        """x of a raw batch; `noise` is needed where the preparation is not deterministic (ValueError)."""

    @abstractmethod
    def to_raw(self, x: Tensor) -> np.ndarray:
        """The raw values of x in the data's own dtype: rounded, and clamped where there are levels."""

    @abstractmethod
    def to_picture(self, x: Tensor) -> np.ndarray:
        """x as uint8 brightness 0 to 255, of the same shape."""

    def bits_per_dimension(self, nats: Tensor) -> Tensor:
        """Bits per dimension of the raw data from nats per example, log p(x): -(nats + log |dx/draw|) / (D ln 2)."""
        return -(nats + self.log_volume) / (self.dimensions * math.log(2))

    @property
    def log_volume(self) -> float:
        """What turns log p(x) into log p(raw), in nats per example; 0 where x is discrete and log p(x) a log-mass."""
        return 0.0


class _Integer(Preparation):
    """Of raw integers 0 to levels - 1."""

    levels: int = Field(ge=2, le=65536)

    def to_picture(self, x: Tensor) -> np.ndarray:
        return np.round(self.to_raw(x) * np.float32(255 / (self.levels - 1))).astype(np.uint8)

    def _clamped(self, raw: Tensor) -> np.ndarray:
        return raw.clamp(0, self.levels - 1).cpu().numpy().astype(self.dtype)


class Dequantise(_Integer):
    """x = 2 (raw + u) / L - 1 with u uniform in [0, 1): a density on [-1, 1) instead of a mass on L levels.

    By Jensen's inequality (3.1) E_u log p(x) + D log(2 / L) <= log P(raw), so the bits are an upper bound
    (Theis, van den Oord and Bethge 2016, section 3.1). A uniform density costs exactly log2 L bits per dimension.
    u takes the midpoints of 2^15 intervals (2^7 for 16 bits), so that float32 never rounds it into the next level.
    """

    kind: Literal["dequantise"] = "dequantise"
    resolution: float = Field(default_factory=lambda fields: 2 / fields["levels"], gt=0)
    deterministic: ClassVar[bool] = False

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        steps = 1 << min(FRACTION_BITS, 23 - (self.levels - 1).bit_length())
        half = self.levels * steps / 2
        ticks = _required(noise).below(steps, raw.shape).to(raw.device)
        return ticks.add_(raw, alpha=steps).add_(0.5 - half).div_(half)  # whole ticks: rounded once, by the division

    def to_raw(self, x: Tensor) -> np.ndarray:
        return self._clamped(((_plain(x).double() + 1) * (self.levels / 2)).floor())

    @property
    def log_volume(self) -> float:
        """D log(2 / L)."""
        return self.dimensions * math.log(2 / self.levels)


class Levels(_Integer):
    """x = 2 raw / (L - 1) - 1: the grid of a discretised or categorical likelihood, whose nats are a log-mass."""

    kind: Literal["levels"] = "levels"
    resolution: float = Field(default_factory=lambda fields: 2 / (fields["levels"] - 1), gt=0)

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        half = (self.levels - 1) / 2
        return raw.to(torch.float32).sub_(half).div_(half)

    def to_raw(self, x: Tensor) -> np.ndarray:
        return self._clamped(((_plain(x) + 1) * ((self.levels - 1) / 2)).round())


class _Binarise(Preparation):
    """x in {0, 1} from brightness p = raw / (L - 1), or p = raw for floats in [0, 1] (levels None).

    `to_raw` gives 0 and L - 1, which every binarisation turns into the same x again.
    """

    levels: int | None = Field(ge=2, le=65536)
    resolution: float = 1.0

    def to_raw(self, x: Tensor) -> np.ndarray:
        return (_plain(x).clamp(0, 1).round() * self._highest).cpu().numpy().astype(self.dtype)

    def to_picture(self, x: Tensor) -> np.ndarray:
        """As `Preparation.to_picture`; x may also be a probability, which shows as grey."""
        return (_plain(x).clamp(0, 1) * 255).round().cpu().numpy().astype(np.uint8)

    @property
    def _highest(self) -> int:
        return 1 if self.levels is None else self.levels - 1

    def _brightness(self, raw: Tensor) -> Tensor:
        return raw.to(torch.float32) / self._highest


class Threshold(_Binarise):
    """x = 1 where raw is more than half of the highest value: the same at every visit, and no grey is ever seen."""

    kind: Literal["threshold"] = "threshold"

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return raw.to(torch.float32, copy=True).gt_(0.5 * self._highest)


class StaticBinarisation(_Binarise):
    """x ~ Bernoulli(p), drawn once: a pure function of (seed, the example's own content), so the same in any batch.

    Source of the name: Larochelle and Murray 2011; Salakhutdinov and Murray 2008 drew the MNIST that is usually meant,
    with another generator, so its individual pixels differ from these.
    """

    kind: Literal["static"] = "static"
    seed: int = Field(default=0, ge=0)

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return content_uniforms(raw, self.seed).lt_(self._brightness(raw))


class DynamicBinarisation(_Binarise):
    """x ~ Bernoulli(p), drawn afresh at every call: each visit to an example sees another image (Burda et al. 2016)."""

    kind: Literal["dynamic"] = "dynamic"
    deterministic: ClassVar[bool] = False

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return _required(noise).uniform(raw.shape).to(raw.device).lt_(self._brightness(raw))


class Standardise(Preparation):
    """x = (raw - shift) / scale, moments of the training examples: one per feature of a vector, else one for all.

    Bits per dimension are those of a density in raw units, -(log p(x) - sum_d log scale_d) / (D ln 2): they depend on
    the unit of measurement and may be negative.
    """

    kind: Literal["standardise"] = "standardise"
    levels: None = None
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    constant: tuple[int, ...] = ()
    """The features that never vary in the training examples; their scale is 1."""

    minimum: float
    maximum: float
    """The range of the training examples, black to white in a picture."""

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        shift, scale = self._on(raw.device)
        return torch.sub(raw, shift).div_(scale)

    def to_raw(self, x: Tensor) -> np.ndarray:
        shift, scale = self._on(x.device)
        return (_plain(x) * scale + shift).cpu().numpy()

    def to_picture(self, x: Tensor) -> np.ndarray:
        span = self.maximum - self.minimum or 1.0
        brightness = (self.to_raw(x).astype(np.float64) - self.minimum) / span
        return np.round(np.clip(np.nan_to_num(brightness), 0, 1) * 255).astype(np.uint8)

    @property
    def log_volume(self) -> float:
        """- sum_d log scale_d."""
        logs = math.fsum(math.log(scale) for scale in self.scale)
        return -logs if len(self.scale) > 1 else -logs * self.dimensions

    @cached_property
    def _moments(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Shift and scale on a device, copied there once."""
        if device not in self._moments:
            self._moments[device] = (torch.tensor(self.shift, device=device), torch.tensor(self.scale, device=device))
        return self._moments[device]


AnyPreparation = Annotated[
    Dequantise | Levels | Threshold | StaticBinarisation | DynamicBinarisation | Standardise,
    Field(discriminator="kind"),
]


def _plain(x: Tensor) -> Tensor:
    """Without history, and float32 if it came out of lower precision."""
    return x.detach().to(torch.float32)


def _required(noise: Noise | None) -> Noise:
    if noise is None:
        raise ValueError("this preparation draws random numbers; pass a noise")
    return noise
