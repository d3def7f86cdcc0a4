"""Preparations map a raw batch to the model's float32 input x and back, and nats of x to nats of the raw data.

Every preparation is a frozen value that the run records; `choose_preparation` (in `choose`) fits one to data.
"""

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from jensen.randomness import Noise, content_uniforms

DataType = Literal["uint8", "uint16", "float32", "float64"]

FRACTION_BITS = 15
"""Bits of the uniform noise of dequantisation. Data with more than 8 bits get fewer, so that float32 holds the sum of
level and noise exactly."""


class Preparation(BaseModel, ABC):
    """Turns raw examples (B, ...) into model input x, float32 of the same shape, and back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    """The name of the preparation."""

    dtype: DataType
    """The type of the raw data."""

    levels: int | None
    """Raw integers are 0 to levels - 1; None for floats."""

    dimensions: int = Field(gt=0)
    """D, the number of values in one example."""

    resolution: float = Field(gt=0)
    """The smallest meaningful distance between two values of x."""

    deterministic: ClassVar[bool] = True
    """Whether the same raw batch always gives the same x."""

    def __eq__(self, other: object) -> bool:
        """Whether type and fields are equal; what a preparation keeps for speed, such as tensors, does not count."""
        return type(self) is type(other) and dict(self) == dict(other)

    @abstractmethod
    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        """x of a raw batch. Raises ValueError without `noise` if the preparation is not deterministic."""

    @abstractmethod
    def to_raw(self, x: Tensor) -> np.ndarray:
        """The raw values of x in the dtype of the data; integers are rounded and clamped to the levels."""

    @abstractmethod
    def to_picture(self, x: Tensor) -> np.ndarray:
        """x as brightness, of the same shape: uint8 (0 to 255), or uint16 (0 to 65535) for more than 256 levels."""

    def raw_nats(self, nats: Tensor, raw: Tensor | None = None) -> Tensor:
        """Convert log p(x) in nats (batch) to log p(raw) = log p(x) + log |dx/draw|, float64.

        No other code changes units between x and the raw data. If values are missing (NaN), the `raw` examples (batch,
        *shape) are needed, so that log |dx/draw| is about the observed values, like log p(x). Without `raw`, all values
        count as observed.
        """
        return nats.double() + (self.log_volume if raw is None else self.log_volume_of(raw).to(nats.device))

    def bits_per_dimension(self, nats: Tensor, raw: Tensor | None = None) -> Tensor:
        """Convert log p(x) in nats (batch) to bits per observed value of the raw data: -log p(raw) / (n ln 2).

        n is the number of observed values of the example (without `raw`: `dimensions`); see `raw_nats`. If n differs
        between examples, do not average the results. Divide total bits by total values with `Estimate.ratio(-raw_nats /
        ln 2, observed)`.
        """
        count = self.dimensions if raw is None else self.observed(raw).to(nats.device).double()
        return -self.raw_nats(nats, raw) / (count * math.log(2))

    def observed(self, raw: Tensor) -> Tensor:
        """The number of observed values (not NaN) of each raw example: (batch), int64."""
        if raw.is_floating_point():
            return raw.isnan().logical_not_().flatten(1).sum(1)
        return torch.full((raw.shape[0],), self.dimensions, device=raw.device)

    @property
    def log_volume(self) -> float:
        """log |dx/draw| of a whole example, in nats; 0 for a discrete x, because log p(x) is already a log-mass."""
        return 0.0

    def log_volume_of(self, raw: Tensor) -> Tensor:
        """log |dx/draw| of the observed values of each raw example, in nats: (batch), float64."""
        return torch.full((raw.shape[0],), self.log_volume, dtype=torch.float64, device=raw.device)


class _Integer(Preparation):
    """A preparation of raw integers 0 to levels - 1."""

    levels: int = Field(ge=2, le=65536)

    def to_picture(self, x: Tensor) -> np.ndarray:
        dtype, highest = (np.uint8, 255) if self.levels <= 256 else (np.uint16, 65535)
        return np.round(self.to_raw(x) * (highest / (self.levels - 1))).astype(dtype)

    def _clamped(self, raw: Tensor) -> np.ndarray:
        return raw.clamp(0, self.levels - 1).cpu().numpy().astype(self.dtype)


class Dequantise(_Integer):
    """x = 2 (raw + u) / L - 1 with u uniform in [0, 1): a density on [-1, 1) instead of a mass on L levels.

    L is `levels` and D is `dimensions`. By Jensen's inequality (3.1), E_u log p(x) + D log(2 / L) <= log P(raw), so the
    bits are an upper bound (Theis, van den Oord and Bethge 2016, section 3.1). A uniform density costs exactly log2 L
    bits per dimension. u takes the midpoints of 2^15 intervals (2^7 for 16 bits), so that float32 never rounds raw + u
    to the next level.
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
        """D log(2 / L), in nats."""
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
    """x in {0, 1} from the brightness p = raw / (L - 1) of L levels, or p = raw of floats in [0, 1].

    `to_raw` returns 0 and L - 1; every binarisation turns these back into the same x.
    """

    levels: int | None = Field(ge=2, le=65536)
    resolution: float = 1.0

    def to_raw(self, x: Tensor) -> np.ndarray:
        return (_plain(x).clamp(0, 1).round() * self._highest).cpu().numpy().astype(self.dtype)

    def to_picture(self, x: Tensor) -> np.ndarray:
        """x as uint8 brightness; x may also be a probability, which becomes grey."""
        return (_plain(x).clamp(0, 1) * 255).round().cpu().numpy().astype(np.uint8)

    @property
    def _highest(self) -> int:
        return 1 if self.levels is None else self.levels - 1

    def _brightness(self, raw: Tensor) -> Tensor:
        return _floating(raw) / self._highest


class Threshold(_Binarise):
    """x = 1 where raw is more than half of the highest value, else 0; the same at every visit."""

    kind: Literal["threshold"] = "threshold"

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return _floating(raw).gt(0.5 * self._highest).to(torch.float32)


class StaticBinarisation(_Binarise):
    """x ~ Bernoulli(p), drawn once for each example.

    The values of an example are the probabilities p. Its x depends only on the seed and on p, so x is the same each
    time the example is read. Source of the name: Larochelle and Murray 2011. The binary MNIST of that paper, by
    Salakhutdinov and Murray 2008, was drawn with another random number generator, so single pixels differ.
    """

    kind: Literal["static"] = "static"
    seed: int = Field(default=0, ge=0)

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return content_uniforms(raw, self.seed).lt(self._brightness(raw)).to(torch.float32)


class DynamicBinarisation(_Binarise):
    """x ~ Bernoulli(p), drawn anew at every call, so each visit to an example gives a new image (Burda et al. 2016)."""

    kind: Literal["dynamic"] = "dynamic"
    deterministic: ClassVar[bool] = False

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        return _required(noise).uniform(raw.shape).to(raw.device).lt(self._brightness(raw)).to(torch.float32)


class Standardise(Preparation):
    """x = (raw - shift) / scale, where shift and scale are moments of the training examples.

    Vectors have a shift and a scale per feature; other examples have one shift and one scale. x is computed in float64
    and then rounded to float32, which preserves a standard deviation of 1 at a mean of 1e9. Bits per dimension are
    those of the density of raw: -(log p(x) - sum_d log scale_d) / (D ln 2), where d runs over the D observed values.
    So the bits depend on the unit of measurement and may be negative.
    """

    kind: Literal["standardise"] = "standardise"
    levels: None = None
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    constant: tuple[int, ...] = ()
    """The features that never vary in the training examples; their scale is 1."""

    minimum: float
    maximum: float
    """`minimum` and `maximum` are the range of the training examples, shown as black to white in a picture."""

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        shift, scale = self._on(raw.device)
        return torch.sub(raw, shift).div_(scale).to(torch.float32)  # float64 until here

    def to_raw(self, x: Tensor) -> np.ndarray:
        with np.errstate(over="ignore"):
            return self.raw_of(x.detach()).cpu().numpy().astype(self.dtype)

    def raw_of(self, x: Tensor) -> Tensor:
        """The raw values of x as a tensor, float64."""
        shift, scale = self._on(x.device)
        return x * scale + shift

    def to_picture(self, x: Tensor) -> np.ndarray:
        span = self.maximum - self.minimum or 1.0
        brightness = (self.to_raw(x).astype(np.float64) - self.minimum) / span
        return np.round(np.clip(np.nan_to_num(brightness), 0, 1) * 255).astype(np.uint8)

    @property
    def log_volume(self) -> float:
        """- sum_d log scale_d."""
        logs = math.fsum(math.log(scale) for scale in self.scale)
        return -logs if len(self.scale) > 1 else -logs * self.dimensions

    def log_volume_of(self, raw: Tensor) -> Tensor:
        """- sum_d log scale_d over the observed values d of each raw example."""
        logs = self._on(raw.device)[1].log()
        observed = raw.isnan().logical_not_().flatten(1).double()
        return -(observed @ logs if len(logs) > 1 else observed.sum(1) * logs)

    @cached_property
    def _moments(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Shift and scale on a device, float64, copied there once."""
        if device not in self._moments:
            shift, scale = (torch.tensor(each, dtype=torch.float64, device=device) for each in (self.shift, self.scale))
            self._moments[device] = (shift, scale)
        return self._moments[device]


def _plain(x: Tensor) -> Tensor:
    """x detached from the graph, and in float32 if its precision is lower."""
    return x.detach().to(torch.float32)


def _floating(raw: Tensor) -> Tensor:
    """Raw numbers as floats: integers become float32, floats stay as they are."""
    return raw if raw.is_floating_point() else raw.to(torch.float32)


def _required(noise: Noise | None) -> Noise:
    if noise is None:
        raise ValueError("this preparation draws random numbers; pass a noise")
    return noise
