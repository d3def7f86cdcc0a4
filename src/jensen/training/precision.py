"""Mixed precision: the arithmetic inside the networks, and the scale that keeps gradients in float16 from vanishing.

The networks' outputs are converted to float32 before any density is computed. Weights, moments and averages are always
float32.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.training.settings import TrainingSettings

SMALLEST_SCALE = 2.0**-24  # gradients that overflow even when divided by millions are bad: not a matter of scale


@dataclass(frozen=True)
class Precision:
    """The data type and the kind of device on which the networks compute, and float16's gradient scaler."""

    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    scaler: torch.amp.GradScaler | None = None

    def networks(self) -> torch.autocast:
        """Inside the block, the forward pass of networks computes in `dtype`; the backward pass needs no block."""
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, times the scale if there is a scaler, to the parameters' gradients."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()


def dtype_of(settings: TrainingSettings, device: str) -> torch.dtype:
    """The data type in which the networks compute; `InputError` if the CPU has no instructions for it."""
    dtype: torch.dtype = getattr(torch, settings.precision)
    if device == "cpu" and dtype != torch.float32:
        asked = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}[dtype]
        if not (torch.backends.mkldnn.is_available() and getattr(torch.ops.mkldnn, asked)()):
            raise InputError(
                f"precision {settings.precision}: this CPU only emulates it, hundreds of times slower; choose float32"
            )
    return dtype


def halve(scaler: torch.amp.GradScaler, scale: float) -> None:
    """Set the scaler's scale to `scale` / 2, and reset its count of good steps, which makes the scale grow when full.

    The scaler itself halves only if it finds an infinite or NaN gradient, and of sharded gradients it sees only this
    process's part.
    """
    scaler.update(max(scale / 2, SMALLEST_SCALE))
    scaler.load_state_dict(scaler.state_dict() | {"_growth_tracker": 0})
