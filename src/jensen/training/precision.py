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

    kind: torch.dtype = torch.float32
    device: str = "cpu"
    scaler: torch.amp.GradScaler | None = None

    def networks(self) -> torch.autocast:
        """Within, networks compute in `kind`; for the forward pass, whose operations the gradient's follow."""
        return torch.autocast(self.device, self.kind, enabled=self.kind != torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss, times the scale, to the parameters'."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()


def kind_of(settings: TrainingSettings, device: str) -> torch.dtype:
    """The numbers that the networks compute with; `InputError` where a CPU has no arithmetic for them."""
    kind: torch.dtype = getattr(torch, settings.precision)
    if device == "cpu":
        cpu = torch.ops.mkldnn
        has = {torch.bfloat16: cpu._is_mkldnn_bf16_supported, torch.float16: cpu._is_mkldnn_fp16_supported}
        if kind in has and not has[kind]():
            raise InputError(
                f"precision {settings.precision}: this CPU emulates it, hundreds of times slower; choose float32"
            )
    return kind


def halved(scaler: torch.amp.GradScaler) -> bool:
    """Halve the scale, by which gradients overflow; False where it is at its end: it is not to blame then."""
    scale = scaler.get_scale() / 2
    scaler.update(max(scale, SMALLEST_SCALE))
    return scale >= SMALLEST_SCALE
