"""Mixed precision: the arithmetic inside the networks, and the scale that keeps float16's gradients from vanishing.

What networks give out is float32 again before any density is computed; weights, moments and averages are float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.training.settings import TrainingSettings

SMALLEST_SCALE = 2.0**-24  # where gradients overflow although they are divided by millions, the scale is not to blame


@dataclass(frozen=True)
class Precision:
    """What the networks compute in, on which kind of device."""

    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    scaler: torch.amp.GradScaler | None = None

    def networks(self) -> torch.autocast:
        """Within, networks compute in `dtype`; for the forward pass, whose operations the gradient's follow."""
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss, times the scale, to the parameters'."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()


def dtype_of(settings: TrainingSettings, device: str) -> torch.dtype:
    """The numbers that the networks compute with; `InputError` where a CPU has no arithmetic for them."""
    dtype: torch.dtype = getattr(torch, settings.precision)
    if device == "cpu" and dtype != torch.float32:
        asked = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}[dtype]
        if not (torch.backends.mkldnn.is_available() and getattr(torch.ops.mkldnn, asked)()):
            raise InputError(
                f"precision {settings.precision}: this CPU emulates it, hundreds of times slower; choose float32"
            )
    return dtype


def halve(scaler: torch.amp.GradScaler, scale: float) -> None:
    """Let the scale be half of `scale`, and count from here on the steps after which it grows.

    By hand, since of gradients that are spread over processes the scaler sees only this one's.
    """
    scaler.update(max(scale / 2, SMALLEST_SCALE))
    scaler.load_state_dict(scaler.state_dict() | {"_growth_tracker": 0})
